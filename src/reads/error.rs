//! Why a read gave no answer.

use bytes::Bytes;

use crate::clock::Duration;
use crate::domain::Vendor;
use crate::upstream::UpstreamError;

/// Every way a read can end without an answer. `problem.rs` renders each.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// The vendor, or the way to it.
    Upstream(UpstreamError),
    /// The page token does not open, is another audience's, or does not match what was repeated.
    InvalidPageToken,
    /// The page token opens, but its snapshot is gone.
    PageTokenExpired,
    /// A named customer outside the caller's audience.
    CustomerNotAllowed,
    /// The caller may not see billing.
    BillingNotAllowed,
    /// N-able has no such month or contract; what it answered.
    BillingNotFound {
        /// The vendor's own answer, raw JSON.
        vendor_body: Option<Bytes>,
    },
    /// Another account than the configured one.
    AccountNotFound,
    /// The result is larger than a walk may be; which bound, by its setting's name.
    WalkLimitExceeded {
        /// The setting that names the bound.
        setting: &'static str,
    },
    /// Too much is going on; nothing was asked of a vendor.
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The caller's deadline passed; the work goes on.
    DeadlinePassed {
        /// Who is still being waited for.
        vendor: Vendor,
    },
    /// `only-if-cached` and nothing usable.
    NotCached,
    /// A contained panic, or a task that ended without an answer.
    Internal,
}

impl From<UpstreamError> for ReadError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}
