//! `POST` and `QUERY /v2/cases/msp/search`

use super::query_string::Params;
use super::question::{Asked, Question};
use crate::domain::query::SearchRequest;
use crate::problem::Problem;

/// Its parameters.
pub const PARAMS: [&str; 1] = ["customer_id"];

pub(super) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let customer = Params::parse(asked.query, &PARAMS)?.customer()?;
    SearchRequest::parse(asked.body, customer)
        .map(Question::Search)
        .map_err(|problem| Problem::invalid_body(&problem))
}
