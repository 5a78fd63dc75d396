//! The settings as a JSON schema, for editors that complete and check `config.toml`.
//!
//! Names, tables, defaults and descriptions are those of the reference, which a test holds to the
//! code. What a value must be is asked of the code: each setting is given a wrong value, and the
//! refusal says what would be right.

use serde_json::{Map, Value, json};

use super::from_text;

const REFERENCE: &str = include_str!("../../config.toml");
/// No setting takes a negative number.
const WRONG: &str = "-0.5";

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
    for setting in listed() {
        let described = described(&setting);
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

fn described(setting: &Listed<'_>) -> Value {
    let right = right(setting);
    let mut schema = shape(setting, right.as_deref().unwrap_or(""));
    let comment = setting.comment.as_str();
    let must = right.as_deref().and_then(|text| text.strip_prefix("must "));
    let must = must.map(|text| format!("Must {text}"));
    let parts = [Some(comment), must.as_deref()];
    let parts: Vec<_> = parts
        .into_iter()
        .flatten()
        .filter(|p| !p.is_empty())
        .collect();
    schema.insert("description".to_owned(), parts.join(". ").into());
    if setting.active
        && let Ok(value) = serde_json::to_value(&setting.example)
    {
        schema.insert("default".to_owned(), value);
    }
    Value::Object(schema)
}

/// What the code says that the value must be.
fn right(setting: &Listed<'_>) -> Option<String> {
    let path = setting.tables.join(".");
    let (open, close) = if setting.in_list {
        ("[[", "]]")
    } else {
        ("[", "]")
    };
    let text = format!("{open}{path}{close}\n{} = {WRONG}\n", setting.name);
    let refusal = from_text("schema", &text, []).err()?;
    let index = if setting.in_list { "[0]" } else { "" };
    let path = format!("{path}{index}.{}", setting.name);
    let problem = refusal.problems.into_iter().find(|p| p.path == path)?;
    Some(problem.text)
}

/// The type and its bounds, from the words of the refusal and the type of the example.
fn shape(setting: &Listed<'_>, right: &str) -> Map<String, Value> {
    let mut schema = Map::new();
    let mut put = |name: &str, value: Value| drop(schema.insert(name.to_owned(), value));
    if let Some(bounds) = right.split("a whole number from ").nth(1) {
        let mut numbers = bounds
            .split(' ')
            .filter_map(|word| word.parse::<u64>().ok());
        put("type", "integer".into());
        for name in ["minimum", "maximum"] {
            if let Some(bound) = numbers.next() {
                put(name, bound.into());
            }
        }
        return schema;
    }
    if right.contains("a number from 0 to 1") {
        put("type", "number".into());
        put("minimum", 0.into());
        put("maximum", 1.into());
        return schema;
    }
    let text = || json!({"type": "string"});
    match &setting.example {
        toml::Value::Boolean(_) => put("type", "boolean".into()),
        toml::Value::Array(_) => {
            put("type", "array".into());
            put("items", text());
        }
        toml::Value::Integer(_) => put("type", "integer".into()),
        _ if right.contains("list") => {
            put("anyOf", json!([text(), {"type": "array", "items": text()}]));
        }
        _ if right.contains("a size") => put("type", json!(["string", "integer"])),
        _ => {
            put("type", "string".into());
            // "must be one of "a", "b" or "c"": the words in quotes are all there are.
            let words: Vec<_> = right.split('"').skip(1).step_by(2).collect();
            let is_word = |w: &&str| w.bytes().all(|b| b.is_ascii_lowercase());
            if words.len() > 1 && words.iter().all(is_word) {
                put("enum", json!(words));
            }
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
            let list = if setting.in_list { "[]" } else { "" };
            let path = format!("{}{list}.{}", setting.tables.join("."), setting.name);
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
