//! Facts about one vendor, as data.

use http::Method;

use super::Whose;
use crate::clock::Duration;
use crate::domain::json::Members;
use crate::domain::{Operation, ProblemCode, Vendor};

/// A status with which a vendor refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalStatus {
    /// 400.
    BadRequest,
    /// 404.
    NotFound,
}

/// The facts about one vendor. `vendors` has one constant for each.
#[derive(Debug)]
pub struct VendorRow {
    /// The vendor. Its word is the name of its settings table.
    pub vendor: Vendor,
    /// The host and the path of its documented base URL, which is https.
    pub base: (&'static str, &'static str),
    /// The header that carries its credential, in lower case. A setting overrides it.
    pub key_header: &'static str,
    /// The header that carries the account, in lower case, if the vendor wants one beside the key.
    pub account_header: Option<&'static str>,
    /// The default number of requests a minute.
    pub requests_per_minute: u32,
    /// The default number of concurrent requests.
    pub concurrency: u32,
    /// The default time limit of one attempt.
    pub timeout: Duration,
    /// Returns the method and the path of one of the vendor's operations. The path is below the
    /// base URL and names its parameters; it is empty for operations of other vendors.
    pub target: fn(Operation) -> (Method, &'static str),
    /// Returns whose fault a refusal is, and the problem code that callers get for it.
    pub refusal: fn(Operation, RefusalStatus) -> (Whose, ProblemCode),
    /// Whether callers get the body of a refusal, because it says which part of the request was
    /// wrong. Bodies of other errors may echo a key and are never kept.
    pub keeps_refusals: bool,
    /// Returns the status that the object of a 200 answer states for itself, if the object is an
    /// error of the vendor.
    pub status_said: fn(&Members<'_>) -> Option<u16>,
}
