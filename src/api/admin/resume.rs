//! `POST /admin/resume`: ends a hold-down that a vendor asked for.

use serde_json::json;

use crate::clock::Duration;
use crate::domain::Vendor;
use crate::domain::json::{Value, parse_object};
use crate::domain::query::BodyProblem;
use crate::problem::{Code, Problem};

/// Reads `{"vendor":"wiv"}`.
pub(super) fn read(body: &[u8]) -> Result<Vendor, Problem> {
    if body.is_empty() {
        return Err(wrong());
    }
    let members =
        parse_object(body).map_err(|problem| Problem::invalid_body(&BodyProblem::Json(problem)))?;
    let mut named = None;
    for (name, value) in members {
        match (&*name, value) {
            ("vendor", Value::Text(word)) => {
                named = Vendor::ALL.into_iter().find(|v| v.as_str() == &*word);
            }
            _ => return Err(wrong()),
        }
    }
    named.ok_or_else(wrong)
}

/// Renders `{"vendor":"wiv","resumed":true,"left_s":571}`, where `left_s` is the rest of the
/// hold-down.
pub(super) fn answer(vendor: Vendor, left: Option<Duration>) -> serde_json::Value {
    json!({
        "vendor": vendor.as_str(),
        "resumed": left.is_some(),
        "left_s": left.map(|left| left.as_secs()),
    })
}

fn wrong() -> Problem {
    let vendors: Vec<_> = Vendor::ALL
        .iter()
        .map(|vendor| format!("{{\"vendor\":\"{}\"}}", vendor.as_str()))
        .collect();
    Problem::new(
        Code::InvalidBody,
        format!("The body must be {}.", vendors.join(" or ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_vendor_is_named_and_nothing_else() {
        let of = |text: &str| read(text.as_bytes()).ok();
        assert_eq!(of(r#"{"vendor":"wiv"}"#), Some(Vendor::Wiv));
        assert_eq!(of(r#"{"vendor":"nable"}"#), Some(Vendor::Nable));
        for bad in [
            "",
            "{}",
            "[]",
            "wiv",
            r#"{"vendor":"all"}"#,
            r#"{"vendor":1}"#,
            r#"{"vendor":"wiv","force":true}"#,
            r#"{"vendor":"wiv","vendor":"nable"}"#,
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let detail = read(b"{}").unwrap_err().detail().to_owned();
        assert!(
            detail.contains(r#"{"vendor":"wiv"} or {"vendor":"nable"}"#),
            "{detail}"
        );
    }
}
