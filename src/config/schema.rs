//! The settings as a JSON schema, for editors that complete and check `config.toml`.
//!
//! Names, tables, defaults and descriptions are those of the reference, which a test holds to the
//! code. The type, the bounds and the words "Must be …" are those of each setting's form.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::file::File;
use super::form::{Facts, Setting as _};

const REFERENCE: &str = include_str!("../../config.toml");

/// A setting of the reference.
struct Listed<'a> {
    /// The tables around it, such as `["cases", "open"]`.
    tables: Vec<&'a str>,
    /// Whether it is in a list of tables, such as `[[callers]]`.
    in_list: bool,
    name: &'a str,
    example: toml::Value,
    /// Whether the example is the default.
    active: bool,
    comment: String,
}

/// Returns the schema (draft 2020-12) of the settings file.
pub fn json_schema() -> Value {
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The settings of msp-gateway",
        "type": "object",
        "additionalProperties": false,
        "properties": {},
    });
    let mut facts = HashMap::new();
    File::each(&File::default(), "", &mut |path, _, of_it| {
        facts.insert(path.to_owned(), of_it);
    });
    for setting in listed() {
        let Some(facts) = facts.get(&setting.path()) else {
            continue;
        };
        let described = described(&setting, facts);
        put(&mut root, &setting.tables, &setting, described);
    }
    root
}

/// Puts a setting into the schema of the table that `tables` lead to; the tables are made where
/// they are missing.
fn put(at: &mut Value, tables: &[&str], setting: &Listed<'_>, described: Value) {
    let Some(properties) = at.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let Some((table, below)) = tables.split_first() else {
        properties.entry(setting.name).or_insert(described);
        return;
    };
    let made = json!({"type": "object", "additionalProperties": false, "properties": {}});
    if setting.in_list {
        let made = json!({"type": "array", "items": made});
        let list = properties.entry(*table).or_insert(made);
        if let Some(items) = list.get_mut("items") {
            put(items, below, setting, described);
        }
    } else {
        put(
            properties.entry(*table).or_insert(made),
            below,
            setting,
            described,
        );
    }
}

/// Every setting of the reference, the commented ones included, in its order.
fn listed() -> Vec<Listed<'static>> {
    let mut found: Vec<Listed<'_>> = Vec::new();
    let (mut tables, mut in_list) = (Vec::new(), false);
    for line in REFERENCE.lines() {
        let plain = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = plain.strip_prefix("[[").and_then(|l| l.split("]]").next()) {
            (tables, in_list) = (vec![name], true);
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            (tables, in_list) = (name.split('.').collect(), false);
        } else if let Some((name, rest)) = plain.split_once(" = ") {
            let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let Ok(mut value) = toml::from_str::<toml::Table>(&format!("value = {rest}")) else {
                continue;
            };
            let comment = rest.rsplit_once(" # ").map_or("", |(_, comment)| comment);
            let Some(example) = value.remove("value").filter(|_| is_name) else {
                continue;
            };
            found.push(Listed {
                tables: tables.clone(),
                in_list,
                name,
                example,
                active: !line.starts_with('#'),
                comment: comment.trim().to_owned(),
            });
        }
    }
    found
}

impl Listed<'_> {
    fn path(&self) -> String {
        let list = if self.in_list { "[]" } else { "" };
        format!("{}{list}.{}", self.tables.join("."), self.name)
    }
}

fn described(setting: &Listed<'_>, facts: &Facts) -> Value {
    let mut schema = (facts.shape)();
    let must = format!("Must be {}", (facts.right)());
    let description = match setting.comment.as_str() {
        "" => must,
        comment => format!("{comment}. {must}"),
    };
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".to_owned(), description.into());
        if setting.active {
            members.insert("default".to_owned(), json!(setting.example));
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema's paths and those of the reference; which the code knows another test holds.
    #[test]
    fn every_setting_is_described_with_its_type_and_bounds() {
        let schema = json_schema();
        let of = |path: &str| {
            let pointer = path.replace('.', "/properties/").replace("[]", "/items");
            let found = schema.pointer(&format!("/properties/{pointer}"));
            found.unwrap_or_else(|| panic!("{path}")).clone()
        };
        for setting in listed() {
            let path = setting.path();
            let described = of(&path);
            let text = described["description"].as_str().unwrap();
            assert!(text.contains("Must be "), "{path}: {text}");
            assert!(
                described["type"].is_string()
                    || described["type"].is_array()
                    || described["anyOf"].is_array(),
                "{path}"
            );
            if described["type"] == "integer" {
                let bound = |name: &str| described[name].as_u64().unwrap();
                assert!(bound("minimum") < bound("maximum"), "{path}");
            }
            assert_eq!(described.get("default").is_some(), setting.active, "{path}");
        }
        for (path, member, expected) in [
            ("wiv.requests_per_minute", "maximum", json!(1_000_000)),
            ("auth.mode", "enum", json!(["keys", "open"])),
            ("callers[].name", "enum", Value::Null),
            (
                "listen.public_tls.client_auth",
                "enum",
                json!(["none", "optional", "required"]),
            ),
            ("cases.open.fresh", "default", json!("1m")),
            ("cache.bytes_max", "type", json!(["string", "integer"])),
            ("callers[].customers", "type", json!("array")),
            ("cases.derive_customer", "type", json!("boolean")),
            ("traces.sample_ratio", "maximum", json!(1)),
            ("traces.sample_ratio", "default", json!(0.01)),
        ] {
            assert_eq!(of(path)[member], expected, "{path}");
        }
        assert_eq!(schema["additionalProperties"], false);
        assert!(
            schema["properties"]["wiv"]["properties"]
                .get("api_key")
                .is_none()
        );
    }
}
