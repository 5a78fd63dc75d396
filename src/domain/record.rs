//! What the gateway reads of a case: enough to tell rows apart and to know whose they are.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Tells the rows of a walk apart: a 128-bit hash of (`customer_id`, `case_id`), or of the raw text
/// where there is no `case_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u128);

/// The members of a case that the gateway understands.
#[derive(Debug)]
pub struct CaseHead<'a> {
    /// Identity within a walk.
    pub id: RowId,
    /// Whose case it is; only callers who may see everything see rows without.
    pub customer: Option<Cow<'a, str>>,
    /// `case_type`, for totals.
    pub case_type: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Documented<'a> {
    #[serde(borrow, default)]
    case_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    customer_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    case_type: Option<&'a RawValue>,
}

impl<'a> CaseHead<'a> {
    /// Reads a row. A row of an unexpected form has no customer and is told apart by its text.
    pub fn read(raw: &'a str) -> Self {
        let Ok(row) = serde_json::from_str::<Documented<'a>>(raw) else {
            return Self {
                id: hashed(&[raw.as_bytes()]),
                customer: None,
                case_type: None,
            };
        };
        let customer = row.customer_id.and_then(|raw| text_of(raw.get()));
        let id = match row
            .case_id
            .map(|raw| raw.get())
            .filter(|raw| *raw != "null")
        {
            Some(case_id) => {
                // The same id may be written with escapes or without; texts compare decoded.
                let case_id = text_of(case_id).unwrap_or(Cow::Borrowed(case_id));
                let of = customer.as_deref().unwrap_or("");
                hashed(&[of.as_bytes(), case_id.as_bytes()])
            }
            None => hashed(&[raw.as_bytes()]),
        };
        Self {
            id,
            customer,
            case_type: row.case_type.and_then(|raw| text_of(raw.get())),
        }
    }
}

/// The text of a JSON string, or the digits of a number; `None` for anything else.
pub fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let bytes = raw.as_bytes();
    match bytes.first()? {
        b'"' => match raw.get(1..raw.len().checked_sub(1)?) {
            Some(inner) if !inner.contains('\\') => Some(Cow::Borrowed(inner)),
            _ => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
        },
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw)),
        _ => None,
    }
}

fn hashed(parts: &[&[u8]]) -> RowId {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    RowId(u128::from_le_bytes(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_apart_by_customer_and_case() {
        let id = |raw| CaseHead::read(raw).id;
        let one = id(r#"{"case_id":"c1","customer_id":"a","status":"To Do"}"#);
        assert_eq!(
            one,
            id(r#"{"status":"Done","customer_id":"\u0061","case_id":"c1"}"#)
        );
        assert_ne!(one, id(r#"{"case_id":"c1","customer_id":"b"}"#));
        assert_ne!(one, id(r#"{"case_id":"c2","customer_id":"a"}"#));
        assert_ne!(
            id(r#"{"case_id":null,"n":1}"#),
            id(r#"{"case_id":null,"n":2}"#)
        );
        assert_ne!(
            id(r#"{"case_id":"c","customer_id":"ab"}"#),
            id(r#"{"case_id":"bc","customer_id":"a"}"#)
        );
    }

    #[test]
    fn odd_rows_have_no_customer() {
        for raw in [
            "1",
            "[]",
            "null",
            r#"{"customer_id":null}"#,
            r#"{"customer_id":["a"]}"#,
            r#"{"customer_id":"a","customer_id":"b"}"#,
        ] {
            assert!(CaseHead::read(raw).customer.is_none(), "{raw}");
        }
        assert_eq!(
            CaseHead::read(r#"{"customer_id":17}"#).customer.as_deref(),
            Some("17")
        );
    }
}
