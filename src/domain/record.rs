//! The parts of a case that the gateway reads: enough to identify a row and its customer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{MemberPlace, Steps};

/// Deepest nesting of a row that the fast reader accepts. The vendor's rows are not deeper.
const DEPTH_MAX: usize = 128;

/// Identifies a row within a walk: a 128-bit hash of (`customer_id`, `case_id`), or of the raw text
/// where the row has no `case_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u128);

/// The members of a case that the gateway understands.
#[derive(Debug)]
pub struct CaseHead<'a> {
    /// Identifies the row within a walk.
    pub id: RowId,
    /// The customer of the case. Rows without one are shown only to callers who may see everything.
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

/// The raw texts of a row's documented members, where the row has them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found<'a> {
    case_id: Option<&'a str>,
    customer_id: Option<&'a str>,
    case_type: Option<&'a str>,
}

impl<'a> Found<'a> {
    /// Finds the members in any text. Returns `None` for a row of an unexpected form.
    fn read(raw: &'a str) -> Option<Self> {
        let row = serde_json::from_str::<Documented<'a>>(raw).ok()?;
        Some(Self {
            case_id: row.case_id.map(RawValue::get),
            customer_id: row.customer_id.map(RawValue::get),
            case_type: row.case_type.map(RawValue::get),
        })
    }

    fn step_through(raw: &'a str) -> Option<Self> {
        let mut steps = Steps::at_start_of(raw);
        steps.skip_space();
        let row = raw.get(steps.at()..)?;
        let [case_id, customer_id, case_type] =
            steps.object(&["case_id", "customer_id", "case_type"], DEPTH_MAX)?;
        steps.is_over().then_some(())?;
        let places = CasePlaces {
            case_id,
            customer_id,
            case_type,
        };
        places.found_in(row)
    }
}

/// Where the members of a case are in the text of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CasePlaces {
    /// `case_id`.
    pub case_id: Option<MemberPlace>,
    /// `customer_id`.
    pub customer_id: Option<MemberPlace>,
    /// `case_type`.
    pub case_type: Option<MemberPlace>,
}

impl CasePlaces {
    fn found_in<'a>(&self, row: &'a str) -> Option<Found<'a>> {
        let text = |place: Option<MemberPlace>| match place {
            None => Some(None),
            Some((from, to)) => row.get(from as usize..to as usize).map(Some),
        };
        Some(Found {
            case_id: text(self.case_id)?,
            customer_id: text(self.customer_id)?,
            case_type: text(self.case_type)?,
        })
    }
}

impl<'a> CaseHead<'a> {
    /// Reads a row. A row of an unexpected form has no customer and is identified by its text.
    pub fn read(raw: &'a str) -> Self {
        Self::of(raw, Found::step_through(raw).or_else(|| Found::read(raw)))
    }

    /// Reads a row whose member positions are known.
    pub fn read_at(raw: &'a str, places: &CasePlaces) -> Self {
        Self::of(raw, places.found_in(raw).or_else(|| Found::read(raw)))
    }

    fn of(raw: &'a str, found: Option<Found<'a>>) -> Self {
        let Some(row) = found else {
            return Self {
                id: hashed(&[raw.as_bytes()]),
                customer: None,
                case_type: None,
            };
        };
        let customer = row.customer_id.and_then(text_of);
        let id = match row.case_id.filter(|raw| *raw != "null") {
            Some(case_id) => {
                // The same id may be written with or without escapes, so ids are compared decoded.
                let case_id = text_of(case_id).unwrap_or(Cow::Borrowed(case_id));
                let of = customer.as_deref().unwrap_or("");
                hashed(&[of.as_bytes(), case_id.as_bytes()])
            }
            None => hashed(&[raw.as_bytes()]),
        };
        Self {
            id,
            customer,
            case_type: row.case_type.and_then(text_of),
        }
    }
}

/// Returns the text of a JSON string, or the digits of a number; `None` for anything else.
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

/// Size of a buffer that fits the identity of nearly every row: two ids and their lengths.
const SHORT_BYTES: usize = 256;

fn hashed(parts: &[&[u8]]) -> RowId {
    let mut short = [0; SHORT_BYTES];
    let hash = match joined(parts, &mut short) {
        // Hashing one buffer takes a third of the time of hashing its parts.
        Some(joined) => blake3::hash(joined),
        None => {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            hasher.finalize()
        }
    };
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    RowId(u128::from_le_bytes(out))
}

/// Writes each part behind its length. Returns `None` if the buffer is too small.
fn joined<'a>(parts: &[&[u8]], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    for part in parts {
        let len = (part.len() as u64).to_le_bytes();
        for piece in [&len, *part] {
            let end = at + piece.len();
            room.get_mut(at..end)?.copy_from_slice(piece);
            at = end;
        }
    }
    room.get(..at)
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

    proptest::proptest! {
        /// The quick look finds what the whole reader finds, or says that it cannot tell.
        #[test]
        fn a_quick_look_sees_nothing_else(
            members in proptest::collection::vec((
                proptest::sample::select(vec![
                    "\"case_id\"", "\"customer_id\"", "\"case_type\"", "\"x\"", "\"c\\u0061se_id\"",
                    "\"\"", "\"a\\\"b\"", "\"case_id \"", "\"é\"",
                ]),
                proptest::sample::select(vec![
                    "1", "-1.5e3", "null", "true", "\"\"", "\"a\"", "\"a\\\"}\"", "\"\\\\\"", "\"é{[,\"",
                    "[]", "{}", "[1,[2,{\"case_id\":3}]]", "{\"customer_id\":\"in\"}", "{\"a\":\"}]\"}",
                    "[\"\\\\\",\"]\"]",
                ]),
            ), 0..6),
            space in proptest::sample::select(vec!["", " ", "\n\t "]),
        ) {
            let inner: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{space}{name}{space}:{space}{value}{space}"))
                .collect();
            let raw = format!("{space}{{{}}}{space}", inner.join(","));
            let (quick, whole) = (CaseHead::read(&raw), CaseHead::of(&raw, Found::read(&raw)));
            proptest::prop_assert_eq!(quick.id, whole.id);
            proptest::prop_assert_eq!(&quick.customer, &whole.customer);
            proptest::prop_assert_eq!(&quick.case_type, &whole.case_type);
        }
    }

    #[test]
    fn short_and_long_ids_are_hashed_alike() {
        for len in [0, 1, 200, SHORT_BYTES - 16, SHORT_BYTES - 15, 1000] {
            let (one, other) = (vec![b'a'; len], vec![b'b'; 3]);
            let mut hasher = blake3::Hasher::new();
            for part in [&one, &other] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            let mut out = [0; 16];
            hasher.finalize_xof().fill(&mut out);
            let whole = RowId(u128::from_le_bytes(out));
            assert_eq!(hashed(&[&one, &other]), whole, "{len}");
        }
    }

    #[test]
    fn a_quick_look_is_enough_for_plain_rows_only() {
        let found = |raw| Found::step_through(raw);
        let plain = r#" {"n":[{"case_id":9}],"case_id" : "c1","customer_id":7,"t":"\"}"} "#;
        assert_eq!(
            found(plain),
            Some(Found {
                case_id: Some("\"c1\""),
                customer_id: Some("7"),
                case_type: None
            })
        );
        for unclear in [
            "1",
            "[]",
            r#"["a","b"]"#,
            r#"{"case_id":1,"case_id":2}"#,
            r#"{"c\u0061se_id":1}"#,
            r#"{"case_id":"#,
            r#"{"case_id":"x"#,
            r#"{"case_id":1,}"#,
            r#"{"case_id":1}}"#,
        ] {
            assert_eq!(found(unclear), None, "{unclear}");
        }
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
