//! `GET /v1/billing/{YYYYMM}/{contract}` and `GET /v1/billing/{YYYYMM}`

use super::query_string::{Params, path_contract, path_month};
use super::question::{Asked, Question};
use crate::problem::Problem;

pub(super) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    Params::parse(asked.query, &[])?;
    Ok(Question::Billing {
        month: path_month(asked.param(0))?,
        contract: path_contract(asked.param(1))?,
    })
}

pub(super) fn read_month(asked: Asked<'_>) -> Result<Question, Problem> {
    Params::parse(asked.query, &[])?;
    Ok(Question::BillingMonth(path_month(asked.param(0))?))
}
