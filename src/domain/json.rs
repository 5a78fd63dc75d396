//! JSON read by meaning: duplicate members are refused, number lexemes kept, members sorted.
//!
//! Two texts that mean the same to a vendor have the same canonical text here, and nothing that a
//! vendor could tell apart is folded: `1`, `1.0` and `1e0` stay three numbers, because a vendor may
//! treat them as three.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

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

/// Start and end of a value, in bytes from the first byte of the object around it.
pub type MemberPlace = (u32, u32);

/// Steps over JSON without building values, many bytes at a time where possible. Everything it
/// steps over is valid JSON. Where it stops, the text may still be valid and needs the full reader.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Steps<'a> {
    /// Starts at the beginning of a text.
    pub fn at_start_of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Returns the number of bytes stepped over.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Returns the text between this position and the other one.
    pub fn until(&self, other: &Self) -> Option<&'a str> {
        self.text.get(self.at..other.at)
    }

    /// Steps over white space.
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over white space and this byte, if the byte comes next.
    pub fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let comes = self.peek() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    /// Returns whether only white space is left.
    pub fn is_over(mut self) -> bool {
        self.skip_space();
        self.peek().is_none()
    }

    /// Steps over a member name and its colon. Returns `None` if the name contains escapes.
    pub fn name(&mut self) -> Option<&'a str> {
        if !self.takes(b'"') {
            return None;
        }
        let len = plain_len(self.rest());
        let name = self.text.get(self.at..self.at + len)?;
        self.at += len;
        (self.peek()? == b'"').then(|| self.at += 1)?;
        self.takes(b':').then_some(name)
    }

    /// Steps over an object that is nested at most `depth` levels deep. Returns the places of the
    /// members with these names. `None` if the text is not an object, if a name has escapes (it may
    /// be one of these in another spelling), or if one of these names occurs twice.
    #[inline]
    pub fn object<const N: usize>(
        &mut self,
        names: &[&str; N],
        depth: usize,
    ) -> Option<[Option<MemberPlace>; N]> {
        let mut places = [None; N];
        self.skip_space();
        let start = self.at;
        let depth = depth.checked_sub(1)?;
        if !self.takes(b'{') {
            return None;
        }
        if self.takes(b'}') {
            return Some(places);
        }
        loop {
            let name = self.name()?;
            self.skip_space();
            let from = u32::try_from(self.at - start).ok()?;
            self.value(depth)?;
            let at = names.iter().position(|wanted| *wanted == name);
            if let Some(place) = at.and_then(|at| places.get_mut(at)) {
                let to = u32::try_from(self.at - start).ok()?;
                if place.replace((from, to)).is_some() {
                    return None;
                }
            }
            if !self.takes(b',') {
                return self.takes(b'}').then_some(places);
            }
        }
    }

    /// Steps over a value that is nested at most `depth` levels deep. Returns its text.
    pub fn value(&mut self, depth: usize) -> Option<&'a str> {
        self.skip_space();
        let start = self.at;
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()?;
            }
            b'{' => {
                let depth = depth.checked_sub(1)?;
                self.at += 1;
                if !self.takes(b'}') {
                    loop {
                        if !self.takes(b'"') {
                            return None;
                        }
                        self.string()?;
                        if !self.takes(b':') {
                            return None;
                        }
                        self.value(depth)?;
                        if !self.takes(b',') {
                            break;
                        }
                    }
                    self.takes(b'}').then_some(())?;
                }
            }
            b'[' => {
                let depth = depth.checked_sub(1)?;
                self.at += 1;
                if !self.takes(b']') {
                    loop {
                        self.value(depth)?;
                        if !self.takes(b',') {
                            break;
                        }
                    }
                    self.takes(b']').then_some(())?;
                }
            }
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        self.text.get(start..self.at)
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let comes = self.rest().starts_with(word.as_bytes());
        comes.then(|| self.at += word.len())
    }

    /// Steps over the rest of a string, after its first quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.at += plain_len(self.rest());
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Some(());
                }
                [
                    b'\\',
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't',
                    ..,
                ] => self.at += 2,
                [b'\\', b'u', a, b, c, d, ..]
                    if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
                {
                    self.at += 6;
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Steps over one or more digits.
    fn digits(&mut self) -> Option<()> {
        let first = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > first).then_some(())
    }
}

/// Length from which a string counts as long. Most strings are short: names, ids, days.
const LONG: usize = 32;

/// Returns how many bytes at the start of the text need no escape and do not end the string.
fn plain_len(text: &[u8]) -> usize {
    let (mut at, mut rest) = (0, text);
    while at < LONG
        && let Some((word, after)) = rest.split_first_chunk()
    {
        if let Some(len) = first_special(*word) {
            return at + len;
        }
        at += word.len();
        rest = after;
    }
    let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    let plain = rest.get(..end).unwrap_or_default();
    // This loop has no early exit, so that compilers turn it into vector instructions.
    match plain.iter().fold(false, |any, byte| any | (*byte < b' ')) {
        true => at + plain.iter().position(|byte| *byte < b' ').unwrap_or(end),
        false => at + end,
    }
}

/// Returns the position of the first of eight bytes that needs an escape or ends the string.
fn first_special(bytes: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(bytes);
    // Sets the high bit of each byte below `n`. Bytes after the first such byte may be wrong.
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word & HIGH;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let found = is(b'"') | is(b'\\') | below(word, b' ');
    (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
}

/// Returns whether this JSON contains `text`, either as it is or with escapes: `\/` and `\u002f`
/// are also a slash.
pub fn repeats(json: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else {
        return false;
    };
    if memchr::memmem::find(json, text).is_some() {
        return true;
    }
    // The text can now only occur with escapes. Two bytes rule out most positions.
    memchr::memchr(b'\\', json).is_some()
        && memchr::memchr2_iter(*first, b'\\', json).any(|at| {
            json.get(at..)
                .is_some_and(|rest| begins_escaped(rest, text))
        })
}

fn begins_escaped(mut json: &[u8], mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let mut encoded = [0; 4];
        let (said, rest): (&[u8], _) = match json {
            [b'\\', b'u', rest @ ..] => {
                let Some((digits, rest)) = rest.split_first_chunk::<4>() else {
                    return false;
                };
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                // Surrogate pairs are skipped: no secret contains a character that needs one.
                let Some(letter) = u32::from_str_radix(digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                else {
                    return false;
                };
                (letter.encode_utf8(&mut encoded).as_bytes(), rest)
            }
            [b'\\', byte @ (b'"' | b'\\' | b'/'), rest @ ..] => (std::slice::from_ref(byte), rest),
            [byte, rest @ ..] => (std::slice::from_ref(byte), rest),
            [] => return false,
        };
        let Some(after) = text.strip_prefix(said) else {
            return false;
        };
        (json, text) = (rest, after);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_any_spelling() {
        let found = |json: &str, text: &str| repeats(json.as_bytes(), text.as_bytes());
        for json in [
            r#"{"a":"Bearer ab/c+=="}"#,
            r#"{"a":"ab\/c+=="}"#,
            r#"["\u0061\u0062/c\u002B=\u003d"]"#,
            r#"{"\u0061b\u002fc+==":1}"#,
        ] {
            assert!(found(json, "ab/c+=="), "{json}");
        }
        for json in [
            r#"["ab/c+="]"#,
            r#"["\u0061\u0062"]"#,
            r#"["ab\/c+\u003"#,
            "",
            "\\",
            "\\u",
        ] {
            assert!(!found(json, "ab/c+=="), "{json}");
        }
        assert!(found(r#""x\u00e9\"y\\z""#, "é\"y\\z"));
        // What is no JSON is searched as it stands.
        assert!(found(r"key ab\c", r"ab\c"));
        assert!(!found("abc", ""));
    }

    proptest::proptest! {
        #[test]
        fn what_stands_for_itself_is_counted(
            text in proptest::collection::vec(proptest::prop_oneof![
                400 => b'#'..b'[', 2 => 0u8..=255, 1 => proptest::strategy::Just(b'"'),
            ], 0..200),
        ) {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let len = text.iter().position(special).unwrap_or(text.len());
            proptest::prop_assert_eq!(plain_len(&text), len);
        }
    }

    /// Whether the steps pass a text as one value.
    fn passed(text: &str) -> bool {
        let mut steps = Steps::at_start_of(text);
        steps.value(DEPTH_MAX).is_some() && steps.is_over()
    }

    #[test]
    fn steps_pass_json_and_nothing_else() {
        let long = "é".repeat(100);
        for good in [
            "{}",
            " [ ] ",
            "0",
            "-0.5e-07",
            "1E+9",
            "12.25",
            "true",
            "false",
            "null",
            "\"\"",
            r#"{"a":[1,{"b":null}],"a":"\u00e9\"\\\/\b\f\n\r\t"}"#,
            r#" { "a" : [ 1 , "x" ] , "" : { } } "#,
            r#""\ud800""#,
            &format!("[\"{long}\",\"{}\\\"{long}\"]", &long[..30]),
        ] {
            assert!(passed(good), "{good}");
            assert!(serde_json::from_str::<&RawValue>(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "{",
            "[",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "tru",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"a\nb\"",
            "1 2",
            "{} {}",
            "[1]]",
            "\u{feff}1",
            &format!("\"{long}\u{1}\""),
            &format!("\"{long}"),
        ] {
            assert!(!passed(bad), "{bad}");
            assert!(serde_json::from_str::<&RawValue>(bad).is_err(), "{bad}");
        }
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(passed(&nested(DEPTH_MAX)) && !passed(&nested(DEPTH_MAX + 1)));
    }

    proptest::proptest! {
        #[test]
        fn steps_pass_what_the_reader_takes(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\\", "u00e9", "a", "\"a\"", "\"b\":", "1", "0", "-",
                ".", "e", "null", "true", " ", "\n", "é", "\u{1}", "\\\"", "0123456789012345678901234567",
            ]), 0..12),
        ) {
            let text: String = pieces.concat();
            let taken = serde_json::from_str::<&RawValue>(&text).is_ok();
            proptest::prop_assert_eq!(passed(&text), taken, "{}", text);
        }
    }

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
