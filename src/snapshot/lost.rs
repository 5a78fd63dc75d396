//! Why a walk brought no rows, and what that means for its scroll and for the next search.

use std::fmt;

use super::slots::NoSlot;
use crate::clock::Duration;
use crate::domain::{Operation, Shortage};
use crate::upstream::{Fault, UpstreamError};

/// Why a walk brought no rows to the callers that waited.
#[derive(Clone, Debug)]
pub enum WalkFailure {
    /// The vendor, or the connection to it, failed.
    Upstream(UpstreamError),
    /// The gateway is short of something, with the time until it may have it again, if that is
    /// known.
    Overloaded(Shortage, Option<Duration>),
    /// The walk's task ended without an outcome.
    Internal,
}

impl fmt::Display for WalkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(error) => error.fmt(f),
            Self::Overloaded(short, _) => write!(f, "short of {}", short.as_str()),
            Self::Internal => f.write_str("the walk's task ended without a result"),
        }
    }
}

/// Returns the failure of a walk that got no slot and did not call the vendor.
pub(super) fn no_slot(why: NoSlot, operation: Operation) -> WalkFailure {
    match why {
        NoSlot::Short(short, after) => WalkFailure::Overloaded(short, after),
        NoSlot::VendorFails(after) => {
            let detail = "recent calls to the vendor failed";
            let error = UpstreamError::new(operation, Fault::CircuitOpen, detail);
            WalkFailure::Upstream(error.with_retry_after(after))
        }
        NoSlot::Budget(after) => {
            let detail = "the budget grows back after the deadline";
            let error = UpstreamError::new(operation, Fault::BudgetExhausted, detail);
            WalkFailure::Upstream(error.with_retry_after(after))
        }
    }
}

/// Returns whether the vendor gave a complete answer, so that no scroll can have been opened.
pub(super) fn is_answer(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::RateLimited
            | Fault::ServerError
            | Fault::CredentialRejected
            | Fault::Rejected
            | Fault::NotFound
            | Fault::Redirected
            | Fault::UnexpectedStatus
    )
}

/// Returns whether the vendor answered a search with something that is not a page. It has probably
/// opened a scroll.
pub(super) fn was_answered(fault: Fault) -> bool {
    matches!(fault, Fault::Malformed | Fault::TooLarge)
}

/// Returns whether another search may succeed.
pub(super) fn may_pass(failure: &WalkFailure) -> bool {
    match failure {
        WalkFailure::Upstream(error) => {
            error.fault.is_passing()
                || matches!(
                    error.fault,
                    Fault::CircuitOpen
                        | Fault::RateLimited
                        | Fault::BudgetExhausted
                        | Fault::Malformed
                )
        }
        WalkFailure::Overloaded(..) | WalkFailure::Internal => false,
    }
}
