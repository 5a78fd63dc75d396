//! `GET /v1/billing/{YYYYMM}/{contract}` and `GET /v1/billing/{YYYYMM}`

use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::{Params, path_contract, path_month};
use crate::api::question::{Asked, Question};
use crate::problem::{Code, Problem};
use crate::reads::Lookup;

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
    let (month, contract) = (path_month(asked.param(0))?, path_contract(asked.param(1))?);
    Ok(Question::Lookup(Lookup::Services(month, contract)))
}

pub(super) fn read_month(asked: Asked<'_>) -> Result<Question, Problem> {
    Params::parse(asked.query, &[])?;
    let month = path_month(asked.param(0))?;
    Ok(Question::Lookup(Lookup::Month(month)))
}
