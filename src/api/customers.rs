//! `GET /msp/customers`

use super::query_string::Params;
use super::question::{Asked, Question};
use crate::domain::FieldSet;
use crate::problem::{Code, Problem};

/// Its parameters.
pub const PARAMS: [&str; 1] = ["fields"];

pub(super) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let params = Params::parse(asked.query, &PARAMS)?;
    let fields = match params.get("fields") {
        None => FieldSet::ALL,
        Some(text) => FieldSet::parse(text).ok_or_else(invalid_fields)?,
    };
    Ok(Question::Customers(fields))
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
