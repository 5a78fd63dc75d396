//! N-able's own paths, for clients that were written for N-able.

use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::{Params, decode_value, path_contract, path_month};
use crate::api::question::{Asked, Question};
use crate::domain::json::parse_object;
use crate::domain::query::BodyProblem;
use crate::problem::{Code, Problem};

/// The description of billable services in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("nable_billing.json"),
    problems: &[
        VENDOR,
        &[
            Code::BillingNotAllowed,
            Code::BillingNotFound,
            Code::AccountNotFound,
        ],
    ],
};

/// The description of invoices in `/openapi.json`.
pub(super) const INVOICES_DESCRIBED: Described = Described {
    operation: include_str!("nable_invoices.json"),
    problems: DESCRIBED.problems,
};

pub(super) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    common(asked)?;
    Ok(Question::Nable {
        account: decode_value(asked.param(0), "account")?.into_owned(),
        month: path_month(asked.param(1))?,
        contract: Some(path_contract(asked.param(2))?),
    })
}

pub(super) fn read_invoices(asked: Asked<'_>) -> Result<Question, Problem> {
    common(asked)?;
    Ok(Question::Nable {
        account: decode_value(asked.param(0), "account")?.into_owned(),
        month: path_month(asked.param(1))?,
        contract: None,
    })
}

fn common(asked: Asked<'_>) -> Result<(), Problem> {
    Params::parse(asked.query, &[])?;
    let body = asked.body.trim_ascii();
    if body.is_empty() {
        return Ok(());
    }
    match parse_object(body) {
        Ok(members) if members.is_empty() => Ok(()),
        // Nothing in the body would reach the vendor, so a caller must not believe that it does.
        Ok(_) => Err(Problem::new(
            Code::InvalidBody,
            "The body must be empty or {}: all parameters of this route are in the path.",
        )),
        Err(problem) => Err(Problem::invalid_body(&BodyProblem::Json(problem))),
    }
}
