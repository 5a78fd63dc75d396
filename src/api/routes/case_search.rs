//! `POST` and `QUERY /v2/cases/msp/search`

use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::Params;
use crate::api::question::{Asked, Question};
use crate::domain::query::SearchRequest;
use crate::problem::{Code, Problem};

/// The query parameters.
pub const PARAMS: [&str; 1] = ["customer_id"];

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("case_search.json"),
    problems: &[
        VENDOR,
        &[
            Code::InvalidPageToken,
            Code::VendorRejectedRequest,
            Code::CustomerNotAllowed,
            Code::PageTokenExpired,
            Code::WalkLimitExceeded,
        ],
    ],
};

pub(in crate::api) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let customer = Params::parse(asked.query, &PARAMS)?.customer()?;
    SearchRequest::parse(asked.body, customer)
        .map(Question::Search)
        .map_err(|problem| Problem::invalid_body(&problem))
}
