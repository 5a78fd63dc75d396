//! wiv: customers of the MSP and their cases.

use http::Method;

use crate::clock::Duration;
use crate::domain::json::Members;
use crate::domain::{Operation, ProblemCode, Vendor};
use crate::upstream::said::member;
use crate::upstream::{RefusalStatus, VendorRow, Whose};

mod client;
mod scroll;
mod wire;

pub use client::Wiv;
pub use scroll::ScrollId;
pub use wire::{CustomerEnvelope, CustomerList, first_body};

const CUSTOMERS_PATH: &str = "/msp/customers";
const SEARCH_PATH: &str = "/v2/cases/msp/search";

pub(super) const ROW: VendorRow = VendorRow {
    vendor: Vendor::Wiv,
    base: ("api.wiv.ai", ""),
    key_header: "x-api-key",
    account_header: None,
    requests_per_minute: 120,
    concurrency: 8,
    timeout: Duration::from_secs(10),
    target,
    refusal,
    keeps_refusals: false,
    status_said,
};

fn target(operation: Operation) -> (Method, &'static str) {
    match operation {
        Operation::Customers => (Method::GET, CUSTOMERS_PATH),
        Operation::Search | Operation::Continue => (Method::POST, SEARCH_PATH),
        _ => (Method::POST, ""),
    }
}

/// Only a search's filters are the caller's own words. The gateway builds the rest, so a refusal of
/// a continuation or of the customer list is wiv's error; and none of wiv's documented answers is a
/// 404.
fn refusal(operation: Operation, status: RefusalStatus) -> (Whose, ProblemCode) {
    match (status, operation) {
        (RefusalStatus::BadRequest, Operation::Search) => {
            (Whose::Question, ProblemCode::VendorRejectedRequest)
        }
        // Asked again, the same continuation would be refused again.
        (RefusalStatus::BadRequest, Operation::Continue) => {
            (Whose::Question, ProblemCode::VendorError)
        }
        _ => (Whose::Vendor, ProblemCode::VendorError),
    }
}

/// wiv documents four texts, `{"error":"Authentication required"}` among them.
fn status_said(members: &Members<'_>) -> Option<u16> {
    match &*member(members, "error")? {
        "Authentication required" => Some(401),
        "Invalid fields requested" | "Request body must be a dictionary" => Some(400),
        "Internal server error" => Some(500),
        _ => None,
    }
}
