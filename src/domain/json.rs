//! JSON read by meaning: duplicate members are refused, number lexemes kept, members sorted.
//!
//! Two texts that mean the same to a vendor have the same canonical text here, and nothing that a
//! vendor could tell apart is folded: `1`, `1.0` and `1e0` stay three numbers, because a vendor may
//! treat them as three.

mod steps;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use steps::{MemberPlace, Steps, repeats};

/// Deepest nesting accepted. Search bodies need three levels. serde_json stops at 128, and each
/// level is read a second time here.
pub const DEPTH_MAX: usize = 32;

/// A JSON value that remembers how its numbers were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// The digits as the caller wrote them.
    Number(Box<str>),
    /// Decoded text.
    Text(Box<str>),
    /// Order kept.
    List(Vec<Value>),
    /// Members by name.
    Object(Object),
}

/// Members by name, sorted.
pub type Object = BTreeMap<Box<str>, Value>;

/// Why a text was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonProblem {
    /// The text is not JSON. Holds the parser's explanation, without any part of the text.
    Syntax(String),
    /// The top level is not an object.
    NotAnObject,
    /// The same member name twice in one object.
    Duplicate(String),
    /// More than [`DEPTH_MAX`] levels.
    TooDeep,
}

impl fmt::Display for JsonProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(f, "the body is not valid JSON: {what}"),
            Self::NotAnObject => f.write_str("the body must be a JSON object"),
            Self::Duplicate(name) => write!(f, "the member \"{name}\" appears twice"),
            Self::TooDeep => write!(f, "the body is nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

/// Longest excerpt of a caller's text in an error.
const QUOTE_CHARS_MAX: usize = 64;

/// Returns an excerpt of a caller's text, short enough for an error.
pub fn quoted(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(QUOTE_CHARS_MAX)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Reads a JSON object from bytes.
pub fn parse_object(bytes: &[u8]) -> Result<Object, JsonProblem> {
    let raw: &RawValue = serde_json::from_slice(bytes).map_err(|e| syntax(&e))?;
    match read(raw.get(), 0)? {
        Value::Object(members) => Ok(members),
        _ => Err(JsonProblem::NotAnObject),
    }
}

fn syntax(error: &serde_json::Error) -> JsonProblem {
    // serde_json's message may repeat parts of the input. Its position and category never do.
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "unexpected character or value",
    };
    JsonProblem::Syntax(format!(
        "{what} at line {} column {}",
        error.line(),
        error.column()
    ))
}

fn read(text: &str, depth: usize) -> Result<Value, JsonProblem> {
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(JsonProblem::TooDeep),
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            let mut out = Object::new();
            for (name, raw) in members {
                let value = read(raw.get(), depth + 1)?;
                if out.insert(name.as_ref().into(), value).is_some() {
                    return Err(JsonProblem::Duplicate(quoted(&name)));
                }
            }
            Ok(Value::Object(out))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            let items = items.into_iter().map(|raw| read(raw.get(), depth + 1));
            Ok(Value::List(items.collect::<Result<_, _>>()?))
        }
        Some(b'"') => {
            let text: Box<str> = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            Ok(Value::Text(text))
        }
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Bool(true)),
        Some(b'f') => Ok(Value::Bool(false)),
        _ => Ok(Value::Number(text.into())),
    }
}

/// The members of an object in the order of the text, with their values unparsed.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    out.push((name, value));
                }
                Ok(Members(out))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A member name. It is borrowed if it contains no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

impl Value {
    /// Appends the canonical text.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(digits) => out.push_str(digits),
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                write_members(members, out);
                out.push('}');
            }
        }
    }
}

/// Appends `"name":value,…` without braces.
pub fn write_members(members: &Object, out: &mut String) {
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        value.write(out);
    }
}

/// Appends a JSON string.
pub fn write_text(text: &str, out: &mut String) {
    use fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, JsonProblem> {
        let mut out = String::new();
        Value::Object(parse_object(text.as_bytes())?).write(&mut out);
        Ok(out)
    }

    #[test]
    fn meaning_is_kept_and_spelling_folded() {
        assert_eq!(
            canonical(
                " { \"b\" : [ 1 , 1.0,1e0 ] , \"\\u0061\" : {\"y\":null,\"x\":\"\\u00fc\\n\"} } "
            ),
            Ok(r#"{"a":{"x":"ü\n","y":null},"b":[1,1.0,1e0]}"#.into())
        );
    }

    #[test]
    fn duplicates_are_refused_at_any_depth_and_spelling() {
        assert!(matches!(
            canonical(r#"{"a":1,"a":1}"#),
            Err(JsonProblem::Duplicate(_))
        ));
        assert!(matches!(
            canonical(r#"{"a":1,"\u0061":2}"#),
            Err(JsonProblem::Duplicate(_))
        ));
        assert!(matches!(
            canonical(r#"{"x":[{"a":1,"a":2}]}"#),
            Err(JsonProblem::Duplicate(_))
        ));
    }

    #[test]
    fn what_is_not_an_object_is_said() {
        for bad in ["[]", "1", "null", "\"x\"", "true"] {
            assert_eq!(canonical(bad), Err(JsonProblem::NotAnObject), "{bad}");
        }
        for bad in [
            "",
            "{",
            "{\"a\":}",
            "{\"a\":01}",
            "{} x",
            "{'a':1}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"\\ud800\"}",
        ] {
            assert!(
                matches!(canonical(bad), Err(JsonProblem::Syntax(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            parse_object(b"{\"a\":\"\xff\"}"),
            Err(JsonProblem::Syntax(_))
        ));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(canonical(&nested(DEPTH_MAX - 1)).is_ok());
        assert_eq!(canonical(&nested(DEPTH_MAX)), Err(JsonProblem::TooDeep));
        let bomb = nested(100_000);
        assert!(canonical(&bomb).is_err());
        assert!(parse_object("[".repeat(100_000).as_bytes()).is_err());
    }
}
