//! `GET /v1/overview`

use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::{Params, month, wrong};
use crate::api::question::{Asked, Question};
use crate::problem::{Code, Problem};
use crate::reads::overview::OverviewRequest;

/// The query parameters.
pub const PARAMS: [&str; 4] = ["start", "end", "timeframe", "require"];

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("overview.json"),
    problems: &[
        VENDOR,
        &[
            Code::VendorRejectedRequest,
            Code::BillingNotAllowed,
            Code::BillingNotFound,
            Code::WalkLimitExceeded,
        ],
    ],
};

pub(super) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let params = Params::parse(asked.query, &PARAMS)?;
    Ok(Question::Overview(OverviewRequest {
        range: params.range()?,
        month: params.get("timeframe").map(month).transpose()?,
        require_all: match params.get("require") {
            None | Some("any") => false,
            Some("all") => true,
            Some(_) => return Err(wrong("require", "must be any or all")),
        },
    }))
}
