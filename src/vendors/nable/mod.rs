//! N-able: billable services and invoices, as raw JSON objects.

use http::Method;

use crate::clock::Duration;
use crate::domain::json::Members;
use crate::domain::{Operation, ProblemCode, Vendor};
use crate::upstream::said::member;
use crate::upstream::{RefusalStatus, VendorRow, Whose};

mod billed;
mod client;
mod wire;

pub use billed::{Billed, BilledClient, InvoicedContract, InvoicedContracts, invoiced_contracts};
pub use client::{Nable, NableAnswer};

pub(super) const ROW: VendorRow = VendorRow {
    vendor: Vendor::Nable,
    base: ("prod-nableboomi.n-able.com", "/ws/rest/V1/PSA_API"),
    key_header: "x-api-key",
    account_header: None,
    // The data changes once a day, so little is needed.
    requests_per_minute: 60,
    concurrency: 4,
    timeout: Duration::from_secs(15),
    target,
    refusal,
    keeps_refusals: true,
    status_said,
};

/// Every read is a POST. The account is a step of the path.
fn target(operation: Operation) -> (Method, &'static str) {
    let path = match operation {
        Operation::Billing => "/PSABillableServices/{account}/{timeframe}/{contract}",
        Operation::Invoices => "/InvoicesReady/{account}/{timeframe}",
        _ => "",
    };
    (Method::POST, path)
}

/// A 400 and a 404 say that N-able has no such month or contract.
fn refusal(_: Operation, _: RefusalStatus) -> (Whose, ProblemCode) {
    (Whose::Question, ProblemCode::BillingNotFound)
}

/// N-able documents `{"message":"Unauthorized","http_status_code":401}`.
fn status_said(members: &Members<'_>) -> Option<u16> {
    member(members, "http_status_code")?.parse().ok()
}
