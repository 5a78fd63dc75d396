//! What the gateway knows of one vendor beside its calls.

use super::Whose;
use crate::clock::Duration;
use crate::domain::json::Members;
use crate::domain::{Operation, ProblemCode, Vendor};

/// A status by which a vendor refuses a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalStatus {
    /// 400.
    BadRequest,
    /// 404.
    NotFound,
}

/// One vendor as data. `vendors` holds one constant for each.
#[derive(Debug)]
pub struct VendorRow {
    /// The vendor; its word names the table of its settings.
    pub vendor: Vendor,
    /// The host and the path of its documented base URL, which is https.
    pub base: (&'static str, &'static str),
    /// The header that carries its credential, in small letters. A setting overrides it.
    pub key_header: &'static str,
    /// Requests a minute, by default.
    pub requests_per_minute: u32,
    /// Requests at once, by default.
    pub concurrency: u32,
    /// Time for one attempt, by default.
    pub timeout: Duration,
    /// Returns whose fault a refusal is, and the problem code that a caller reads of it.
    pub refusal: fn(Operation, RefusalStatus) -> (Whose, ProblemCode),
    /// Whether the body of a refusal is kept for callers: it says which part of the question was
    /// wrong. Bodies of other errors may echo a key and are never kept.
    pub keeps_refusals: bool,
    /// Returns the status that an object with status 200 claims for itself, if it is the vendor's
    /// error and no answer.
    pub status_said: fn(&Members<'_>) -> Option<u16>,
}
