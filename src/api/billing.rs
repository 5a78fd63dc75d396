//! `GET /v1/billing/{YYYYMM}/{contract}` and `GET /v1/billing/{YYYYMM}`

use super::openapi::{Described, VENDOR};
use super::query_string::{Params, path_contract, path_month};
use super::question::{Asked, Question};
use crate::problem::{Code, Problem};

/// The description of a contract's bill in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("billing.json"),
    problems: &[VENDOR, &[Code::BillingNotAllowed, Code::BillingNotFound]],
};

/// The description of a month's invoices in `/openapi.json`.
pub(super) const MONTH_DESCRIBED: Described = Described {
    operation: include_str!("billing_month.json"),
    problems: &[VENDOR, &[Code::BillingNotAllowed, Code::BillingNotFound]],
};

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
