//! A vendor's message about a refusal, made safe to print, and errors that come with status 200.
//!
//! An error body may echo a key, a scroll id or a token. So the message is taken only from members
//! that hold a sentence, cut to [`SAID_CHARS_MAX`] characters, and cleaned of everything that looks
//! like a secret. `Sign`, which knows the key, drops a message that contains a part of it.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::value::RawValue;

use super::VendorRow;
use crate::domain::json::Members;
use crate::domain::record::text_of;

/// Longest text of a vendor that is kept, in characters.
pub const SAID_CHARS_MAX: usize = 200;
/// Longest body that is searched for an error. Every known error body has less than a kilobyte.
const ERROR_BYTES_MAX: usize = 4 << 10;
/// A run of letters and digits of this length that holds both may be a key or a token.
const MIXED_RUN_MIN: usize = 16;
/// A run of this length is a token, whatever it holds. The longest documented member name has 23.
const RUN_MIN: usize = 32;
/// This many consecutive bytes of a key count as a part of it. Shorter parts also occur in harmless
/// words.
const KEY_PART: usize = 6;
/// Replaces the removed text.
const HIDDEN: &str = "[…]";
/// Members that hold a sentence, in order of preference.
const SENTENCES: [&str; 6] = [
    "error",
    "message",
    "detail",
    "error_description",
    "title",
    "reason",
];

/// Returns the cleaned message in the body of a refusal. `None` if there is none.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let sentence = match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => sentence(&members, 2)?,
        Err(_) if text.starts_with(['{', '[', '"']) => return None,
        Err(_) if text.starts_with('<') => without_tags(text),
        Err(_) => text.to_owned(),
    };
    let clean = cleaned(&sentence);
    (!clean.is_empty()).then_some(clean)
}

fn sentence(members: &Members<'_>, depth: u8) -> Option<String> {
    SENTENCES.iter().find_map(|wanted| {
        let (_, raw) = members.0.iter().find(|(name, _)| name == wanted)?;
        let raw = RawValue::get(raw);
        match raw.as_bytes().first()? {
            b'"' => text_of(raw).map(|text| text.into_owned()),
            // `{"error":{"message":"…"}}`
            b'{' if depth > 0 => sentence(&serde_json::from_str(raw).ok()?, depth - 1),
            _ => None,
        }
        .filter(|text| !text.trim().is_empty())
    })
}

/// Returns the title of an HTML page, or its text.
fn without_tags(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|at| {
        let from = at + "<title>".len();
        let to = from + lower.get(from..)?.find("</title>")?;
        html.get(from..to)
    });
    if let Some(title) = title {
        return title.to_owned();
    }
    let mut out = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                out.push(' ');
            }
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// Returns one line of at most [`SAID_CHARS_MAX`] characters, without anything that may be a
/// secret.
fn cleaned(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        hide_runs(word, &mut out);
    }
    match out.char_indices().nth(SAID_CHARS_MAX) {
        Some((at, _)) => {
            out.truncate(at);
            out.push('…');
            out
        }
        None => out,
    }
}

fn hide_runs(word: &str, out: &mut String) {
    let is_run = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_run(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out.push_str(if is_secret_like(run) { HIDDEN } else { run });
        let next = after.find(is_run).unwrap_or(after.len());
        let (between, after) = after.split_at(next);
        out.push_str(between);
        rest = after;
    }
}

fn is_secret_like(run: &str) -> bool {
    let has = |is: fn(&u8) -> bool| run.as_bytes().iter().any(is);
    let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    run.len() >= RUN_MIN || (run.len() >= MIXED_RUN_MIN && mixed)
}

/// Returns whether a text contains a part of a key: plain, in hexadecimal, in base64 or
/// percent-encoded.
pub(crate) fn holds_part_of(text: &str, key: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let parts = |bytes: &[u8]| -> bool {
        let size = KEY_PART.min(bytes.len()).max(1);
        bytes.windows(size).any(|part| {
            let part = String::from_utf8_lossy(part).to_ascii_lowercase();
            lower.contains(&part)
        })
    };
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
    // In base64 a text has three forms, depending on where it begins.
    let base64 = (0..3).any(|skip| {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
        key.get(skip..)
            .filter(|rest| rest.len() >= KEY_PART)
            .is_some_and(|rest| {
                let whole = rest.len() - rest.len() % 3;
                let coded = engine.encode(rest.get(..whole).unwrap_or(rest));
                let url_safe = coded.replace('+', "-").replace('/', "_");
                text.contains(&coded) || text.contains(&url_safe)
            })
    });
    parts(key) || lower.contains(&hex) || lower.contains(&percent) || base64
}

/// Returns the status that the body of a 200 answer states for itself, if the body is an error of
/// the vendor. A body that contains a list is an answer, whatever else it contains.
pub(crate) fn status_in(row: &VendorRow, body: &[u8]) -> Option<StatusCode> {
    if body.len() > ERROR_BYTES_MAX {
        return None;
    }
    let members: Members<'_> = serde_json::from_slice(body).ok()?;
    if members.0.iter().any(|(_, raw)| raw.get().starts_with('[')) {
        return None;
    }
    let code = (row.status_said)(&members)?;
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
}

/// Returns the text of a member, or the digits of a number.
pub(crate) fn member<'a>(members: &Members<'a>, wanted: &str) -> Option<Cow<'a, str>> {
    let (_, raw) = members.0.iter().find(|(name, _)| name == wanted)?;
    text_of(RawValue::get(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_of_an_error_body_is_found_and_cleaned() {
        let scroll = "FGluY2x1ZGVfY29udGV4dF91dWlkDnF1ZXJ5VGhlbkZldGNoAxZ5";
        let with_scroll = format!(r#"{{"error":"no search context found for id [{scroll}]"}}"#);
        for (body, said) in [
            (
                r#"{"error":"Invalid date range"}"#,
                Some("Invalid date range"),
            ),
            (r#"{"message":"wrong contract"}"#, Some("wrong contract")),
            (
                r#"{"error":{"code":7,"message":"max_returned_items is 9000"}}"#,
                Some("max_returned_items is 9000"),
            ),
            (
                r#"{"error":"","detail":"two\nlines\u0000"}"#,
                Some("two lines"),
            ),
            (
                with_scroll.as_str(),
                Some("no search context found for id [[…]]"),
            ),
            (
                r#"{"error":"token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc is bad"}"#,
                Some("token […].[…].abc is bad"),
            ),
            (
                "<html><head><title>502 Bad Gateway</title></head><body>x</body></html>",
                Some("502 Bad Gateway"),
            ),
            ("<p>Sorry</p>", Some("Sorry")),
            ("upstream connect error", Some("upstream connect error")),
            (r#"{"date":"2026-05-01T00:00:00"}"#, None),
            (r#"{"error":7}"#, None),
            ("[1]", None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(words(body.as_bytes()).as_deref(), said, "{body}");
        }
        let long = format!(r#"{{"error":"{}"}}"#, "word ".repeat(100));
        let said = words(long.as_bytes()).unwrap();
        assert_eq!(said.chars().count(), SAID_CHARS_MAX + 1);
        assert!(words(b"\xff\xfe").is_none());
    }

    #[test]
    fn a_part_of_a_key_is_found_in_every_dress() {
        let key = b"canary-5f0c1d";
        for text in [
            "your key canary-5f0c1d is bad",
            "key CANARY-5F0C1D",
            "begins with canary",
            "63616e6172792d356630633164",
            "Y2FuYXJ5LTVmMGMx",
            "x %63%61%6e%61%72%79%2d%35%66%30%63%31%64",
        ] {
            assert!(holds_part_of(text, key), "{text}");
        }
        use base64::Engine as _;
        for before in ["", "a", "ab"] {
            let text = format!("{before}canary-5f0c1d");
            let coded = base64::engine::general_purpose::STANDARD.encode(text);
            assert!(holds_part_of(&coded, key), "{coded}");
        }
        assert!(!holds_part_of("Authentication required", key));
        assert!(!holds_part_of("can any of it", key));
    }
}
