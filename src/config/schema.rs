//! The settings as a JSON schema, for editors that complete and check `config.toml`.
//!
//! Names, tables, defaults and descriptions are those of the reference, which a test holds to the
//! code. The type, the bounds and the words "Must be …" are those of each setting's form.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::file::File;
use super::form::{Schema, Setting as _};

const REFERENCE: &str = include_str!("../../config.toml");

/// What the reference says about a setting.
struct Documented {
    comment: &'static str,
    /// The value, unless the setting is commented out.
    default: Option<toml::Value>,
}

/// Returns the schema (draft 2020-12) of the settings file.
pub fn json_schema() -> Value {
    let (mut tables, documented) = (Schema::new(), documented());
    File::each(&File::default(), "", &mut |path, _, schema| {
        if let Some(about) = documented.get(path)
            && let Some((table, name)) = path.rsplit_once('.')
            && let Some(members) = members(&mut tables, table)
        {
            members.insert(name.to_owned(), described(schema(), about).into());
        }
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The settings of msp-gateway",
        "type": "object",
        "additionalProperties": false,
        "properties": tables,
    })
}

/// Returns the members of the table at a path such as `cases.open` or `callers[]`. Tables that are
/// missing are made.
fn members<'a>(mut at: &'a mut Schema, path: &str) -> Option<&'a mut Schema> {
    for name in path.split('.') {
        let table = json!({"type": "object", "additionalProperties": false, "properties": {}});
        let (made, members) = match name.ends_with("[]") {
            true => (
                json!({"type": "array", "items": table}),
                "/items/properties",
            ),
            false => (table, "/properties"),
        };
        let table = at.entry(name.trim_end_matches("[]")).or_insert(made);
        at = table.pointer_mut(members)?.as_object_mut()?;
    }
    Some(at)
}

/// Adds what the reference says to what would be right.
fn described(mut schema: Schema, about: &Documented) -> Schema {
    if let Some(Value::String(text)) = schema.get_mut("description")
        && !about.comment.is_empty()
    {
        *text = format!("{}. {text}", about.comment);
    }
    if let Some(default) = &about.default {
        schema.insert("default".to_owned(), json!(default));
    }
    schema
}

/// Returns what the reference says about each setting, by path. Lines of prose are in it, too,
/// under paths that no setting has.
fn documented() -> HashMap<String, Documented> {
    let (mut found, mut table) = (HashMap::new(), String::new());
    for line in REFERENCE.lines() {
        let plain = line.strip_prefix('#').unwrap_or(line);
        if let Some(list) = plain.strip_prefix("[[").and_then(|l| l.split("]]").next()) {
            table = format!("{list}[]");
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            table = name.to_owned();
        } else if let Some((name, rest)) = plain.split_once(" = ") {
            let value = toml::from_str::<toml::Table>(&format!("value = {rest}"));
            let value = value.ok().and_then(|mut table| table.remove("value"));
            let about = Documented {
                comment: rest
                    .rsplit_once(" # ")
                    .map_or("", |(_, comment)| comment.trim()),
                default: value.filter(|_| !line.starts_with('#')),
            };
            found.entry(format!("{table}.{name}")).or_insert(about);
        }
    }
    found
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
        let documented = documented();
        let mut paths = Vec::new();
        File::each(&File::default(), "", &mut |path, _, _| {
            paths.push(path.to_owned());
        });
        for path in paths.into_iter().filter(|path| path.contains('.')) {
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
            let has_default = documented[&path].default.is_some();
            assert_eq!(described.get("default").is_some(), has_default, "{path}");
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
