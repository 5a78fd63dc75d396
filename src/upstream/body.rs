//! Checks a vendor's body before it is parsed.

use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::value::RawValue;

use super::Fault;

/// The deepest accepted nesting. Rows are parsed again later, by parsers that fail or recurse past
/// 128 levels.
pub const DEPTH_MAX: usize = 128;

/// Why a body is rejected: the fault, and a text for the log without any of its bytes.
pub type BodyFault = (Fault, &'static str);

/// Creates the fault of a malformed body.
pub const fn malformed(detail: &'static str) -> BodyFault {
    (Fault::Malformed, detail)
}

/// Reads a body as strict UTF-8.
///
/// # Errors
/// [`Fault::Malformed`].
pub fn text(bytes: &[u8]) -> Result<&str, BodyFault> {
    std::str::from_utf8(bytes).map_err(|_| malformed("the body is not UTF-8"))
}

/// Rejects a text whose JSON is nested too deeply.
///
/// # Errors
/// [`Fault::Malformed`].
pub fn bounded(text: &str) -> Result<(), BodyFault> {
    match is_too_deep(text.as_bytes()) {
        true => Err(malformed("the body is nested too deeply")),
        false => Ok(()),
    }
}

/// Reads a body that must be one JSON value, nested no deeper than [`DEPTH_MAX`].
///
/// # Errors
/// [`Fault::Malformed`].
pub fn json_text(bytes: &[u8]) -> Result<&str, BodyFault> {
    let text = text(bytes)?;
    bounded(text)?;
    let _: &RawValue = serde_json::from_str(text).map_err(|_| malformed("the body is not JSON"))?;
    Ok(text)
}

/// Returns whether brackets outside of strings nest deeper than [`DEPTH_MAX`]. The result has no
/// meaning for text that is not JSON, which the parser rejects anyway.
fn is_too_deep(bytes: &[u8]) -> bool {
    let mut depth = 0usize;
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            // Most of a page is strings, which are skipped many bytes at a time.
            b'"' => rest = after_string(after),
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Returns the text after a string whose first quote was read.
fn after_string(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', text) {
        let (quote, skip) = (text.get(at) == Some(&b'"'), at + 1);
        // A quote after a backslash does not end the string.
        text = text.get(skip + usize::from(!quote)..).unwrap_or_default();
        if quote {
            return text;
        }
    }
    &[]
}

/// Explains a malformed body by its content type if that is not JSON. An error page with status 200
/// is common. A body that parses as JSON never gets here, whatever its content type.
pub fn explained((fault, detail): BodyFault, headers: &HeaderMap) -> BodyFault {
    match fault {
        Fault::Malformed if !says_json(headers) => {
            malformed("the body is not what was asked for, and its Content-Type is not JSON")
        }
        _ => (fault, detail),
    }
}

/// Returns whether the content type is JSON, missing, or too general to exclude JSON.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or("").trim();
    let essence = essence.to_ascii_lowercase();
    matches!(
        essence.as_str(),
        "application/json" | "text/json" | "text/plain"
    ) || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Returns the body without a byte order mark, which some senders add.
pub fn without_mark(body: Bytes) -> Bytes {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    match body.starts_with(MARK) {
        true => body.slice(MARK.len()..),
        false => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(json_text(nest(128).as_bytes()).is_ok());
        assert!(json_text(nest(129).as_bytes()).is_err());
        assert!(json_text(&[b'['; 100_000]).is_err());
        let quoted = format!("{{\"a\\\"[\":\"{}\\\\\"}}", "[{\\\"".repeat(500));
        assert!(json_text(quoted.as_bytes()).is_ok());
        let wide = format!("[{}1]", "[1],{\"a\":2},".repeat(500));
        assert!(json_text(wide.as_bytes()).is_ok());
    }

    #[test]
    fn only_whole_utf8_json_is_taken() {
        for bad in [
            &b"\xff"[..],
            b"",
            b"{",
            b"{}x",
            b"<html>",
            b"\xef\xbb\xbf{}",
            b"[1,]",
        ] {
            assert!(json_text(bad).is_err(), "{bad:?}");
        }
        assert!(json_text(" {\"a\": 1e400} ".as_bytes()).is_ok());
    }

    #[test]
    fn error_pages_are_told_by_their_type() {
        let check = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
            says_json(&headers)
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=utf-8"));
        assert!(check("application/problem+json"));
        assert!(check("text/plain;charset=utf-8"));
        assert!(!check("text/html; charset=utf-8"));
        assert!(!check("application/xml"));
        assert!(!check("application/jsonx"));
        assert!(!check(""));
        assert!(says_json(&HeaderMap::new()));
        let mut html = HeaderMap::new();
        html.insert(header::CONTENT_TYPE, "text/html".parse().unwrap());
        let (_, detail) = explained(malformed("x"), &html);
        assert!(detail.contains("Content-Type"));
        assert_eq!(explained(malformed("x"), &HeaderMap::new()).1, "x");
        let large = (Fault::TooLarge, "x");
        assert_eq!(explained(large, &html), large);
    }

    #[test]
    fn one_byte_order_mark_is_skipped() {
        let skip = |text: &'static str| without_mark(Bytes::from_static(text.as_bytes()));
        assert_eq!(skip("\u{feff}{}"), "{}");
        assert_eq!(skip("{}"), "{}");
        assert_eq!(skip("\u{feff}\u{feff}{}"), "\u{feff}{}");
        assert_eq!(skip(""), "");
    }
}
