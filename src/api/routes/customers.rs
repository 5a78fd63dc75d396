//! `GET /msp/customers`

use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::{Params, VALUE_BYTES_MAX};
use crate::api::question::{Asked, Question};
use crate::domain::FieldSet;
use crate::problem::{Code, Problem};
use crate::reads::Lookup;

/// The query parameters.
pub const PARAMS: [&str; 1] = ["fields"];

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("customers.json"),
    problems: &[VENDOR, &[Code::InvalidFields]],
};

pub(in crate::api) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    if let Some(fields) = asked.query.and_then(plain) {
        return Ok(Question::Lookup(Lookup::Customers(fields)));
    }
    let params = Params::parse_with_list(asked.query, &PARAMS, Some("fields"))?;
    let fields = match params.get("fields") {
        None => FieldSet::ALL,
        Some(text) => FieldSet::parse(text).ok_or_else(invalid_fields)?,
    };
    Ok(Question::Lookup(Lookup::Customers(fields)))
}

/// Parses the usual request: valid names, nothing escaped, nothing else. A list without an escape
/// is equal to its decoded form.
fn plain(query: &str) -> Option<FieldSet> {
    let text = query.strip_prefix("fields=")?;
    let letters = |byte| matches!(byte, b'a'..=b'z' | b'_' | b',');
    let plain = text.len() <= VALUE_BYTES_MAX && text.bytes().all(letters);
    plain.then(|| FieldSet::parse(text)).flatten()
}

fn invalid_fields() -> Problem {
    let names: Vec<_> = FieldSet::names().collect();
    Problem::new(
        Code::InvalidFields,
        format!(
            "fields is a comma-separated list of these names: {}.",
            names.join(", ")
        ),
    )
}
