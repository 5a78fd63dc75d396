//! Writes JSON text by hand, in the spellings that real vendors use: with or without spaces, with
//! escapes or raw UTF-8, `\/` or `/`. A JSON library would spell every row alike and round the
//! numbers.

use std::fmt::Write;

/// How one piece of JSON is spelt. All spellings mean the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    /// `"a": 1, "b": 2` instead of `"a":1,"b":2`.
    pub(super) spaced: bool,
    /// `\u00e9` instead of `é`.
    pub(super) ascii: bool,
    /// `\/` instead of `/`.
    pub(super) slashes: bool,
}

/// Returns `text` as a JSON string in `style`, quotes included.
pub(super) fn quote(text: &str, style: Style) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '/' if style.slashes => out.push_str("\\/"),
            c if c < ' ' => escape(&mut out, c),
            c if style.ascii && !c.is_ascii() => escape(&mut out, c),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, character: char) {
    let mut units = [0_u16; 2];
    for unit in character.encode_utf16(&mut units) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// Returns `text` as a JSON string in the plainest spelling.
pub(super) fn plain(text: &str) -> String {
    quote(text, Style::default())
}

/// Returns an object of members whose values are already JSON text.
pub(super) fn object<N: AsRef<str>, V: AsRef<str>>(members: &[(N, V)], style: Style) -> String {
    let (comma, colon) = if style.spaced {
        (", ", ": ")
    } else {
        (",", ":")
    };
    let mut out = String::from("{");
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push_str(comma);
        }
        out.push_str(&quote(name.as_ref(), style));
        out.push_str(colon);
        out.push_str(value.as_ref());
    }
    out.push('}');
    out
}

/// Returns an array of items that are already JSON text.
pub(super) fn array<V: AsRef<str>>(items: &[V]) -> String {
    let mut out = String::from("[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(item.as_ref());
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_means_the_same() {
        let text = "a\"b\\c/d\né \u{1} 🚀";
        for bits in 0..8_u8 {
            let style = Style {
                spaced: bits & 1 != 0,
                ascii: bits & 2 != 0,
                slashes: bits & 4 != 0,
            };
            let row = object(
                &[("né", quote(text, style)), ("n", "1.50".to_owned())],
                style,
            );
            let value: serde_json::Value = serde_json::from_str(&row).unwrap();
            assert_eq!(value["né"], text);
            assert_eq!(row.is_ascii(), style.ascii);
            assert!(row.contains("1.50"));
        }
        assert_eq!(array(&["1", "2"]), "[1,2]");
        assert_eq!(array::<&str>(&[]), "[]");
    }
}
