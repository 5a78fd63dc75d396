//! Maps each failure of a read to a problem.

use super::{Code, Problem};
use crate::clock::Duration;
use crate::domain::Shortage;
use crate::reads::ReadError;
use crate::store::STORE_RETRY;
use crate::upstream::{ConnectCause, Fault, UpstreamError};

/// `Retry-After` after a timeout. The fetch continues, so its answer is probably there by then.
pub(super) const TIMEOUT_RETRY: Duration = Duration::from_secs(2);
/// `Retry-After` after a failure to connect or an open circuit, unless the circuit gives a better
/// time. A probe is due by then.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);
/// `Retry-After` without budget, unless the vendor or the bucket gives a better time.
const BUDGET_RETRY: Duration = Duration::from_secs(5);

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let code = error.code();
        match error {
            ReadError::Upstream(error) => upstream(error),
            // One text for everything that can be wrong with a token, so that it reveals nothing
            // about sealing.
            ReadError::InvalidPageToken => Self::new(
                code,
                "start_page_key.scroll_id is not a page token for this caller and search. Start the search again.",
            ),
            ReadError::PageTokenExpired => Self::new(
                code,
                "The rows before this page token have changed, or the gateway no longer knows its search. Start the search again.",
            ),
            ReadError::InvalidSyncToken => Self::new(
                Code::InvalidSyncToken,
                "since is not a sync token for this caller and search. Start again without since.",
            ),
            ReadError::SyncTokenExpired => Self::new(
                Code::SyncTokenExpired,
                "The gateway no longer keeps the state that since names. Start again without since.",
            ),
            ReadError::CustomerNotAllowed => Self::new(
                code,
                "This caller may not see the customer named in customer_id.",
            ),
            ReadError::BillingNotAllowed => Self::new(code, "This caller may not see billing."),
            ReadError::BillingNotFound { vendor_body, .. } => billing_not_found(vendor_body),
            ReadError::AccountNotFound => Self::new(
                code,
                "The account in the path is not the configured account. Write \"-\" for the configured account.",
            ),
            ReadError::WalkLimitExceeded { setting } => Self::new(
                code,
                format!(
                    "The result is larger than {setting} allows. Narrow date_range or name a customer_id."
                ),
            ),
            ReadError::Overloaded {
                shortage,
                retry_after,
            } => Self::new(code, shortage.sentence())
                .logging(shortage.as_str())
                .retry_after(retry_after),
            ReadError::DeadlinePassed { vendor } => Self::timed_out(Some(vendor)),
            ReadError::NotCached => Self::new(
                code,
                "Nothing usable is cached, and only-if-cached forbids a vendor call.",
            ),
            ReadError::Internal => Self::internal("a read ended without an answer"),
        }
    }
}

fn billing_not_found(vendor_body: Option<bytes::Bytes>) -> Problem {
    Problem::new(
        Code::BillingNotFound,
        "N-able has no billing for this month and contract. vendor_body is N-able's answer, if it sent one.",
    )
    .with_vendor_body(vendor_body)
}

fn upstream(error: UpstreamError) -> Problem {
    let log = error.to_string();
    let after = error.retry_after;
    let problem = match (error.code(), error.fault) {
        (Code::BillingNotFound, _) => billing_not_found(error.vendor_body),
        (Code::VendorTimeout, _) => Problem::timed_out(Some(error.vendor)),
        (Code::InternalError, _) => Problem::internal("a vendor call ended without an answer"),
        (code, fault) => {
            let after = match fault {
                Fault::CircuitOpen | Fault::Connect => after.or(Some(UNAVAILABLE_RETRY)),
                Fault::BudgetExhausted | Fault::RateLimited => after.or(Some(BUDGET_RETRY)),
                Fault::StoreAway => after.or(Some(STORE_RETRY)),
                Fault::Malformed => after,
                _ => None,
            };
            Problem::new(code, detail(&error)).maybe_retry_after(after)
        }
    };
    problem.logging(log)
}

/// Returns what happened, for the caller: the vendor's status, what was short, or why connecting
/// failed.
fn detail(error: &UpstreamError) -> String {
    let vendor = error.vendor.as_str();
    match error.fault {
        Fault::Disabled => format!("{vendor} is not configured in this gateway."),
        Fault::CircuitOpen => {
            format!(
                "Recent calls to {vendor} failed. Until a probe succeeds, the gateway sends it no others."
            )
        }
        Fault::Connect => {
            let cause = error.cause.unwrap_or(ConnectCause::Other);
            format!("{vendor} cannot be reached: {}.", cause.text())
        }
        Fault::BudgetExhausted => {
            let short = error.short.unwrap_or(Shortage::VendorBudget);
            format!("No request was sent to {vendor}. {}", short.sentence())
        }
        Fault::StoreAway => {
            format!(
                "No request was sent to {vendor}. {}",
                Shortage::Store.sentence()
            )
        }
        Fault::RateLimited => {
            format!("{vendor} answered with status 429: it accepts no more requests for a while.")
        }
        Fault::CredentialRejected => {
            format!(
                "{vendor} rejected the gateway's own key. The gateway's operator must replace it."
            )
        }
        Fault::Malformed => {
            format!("{vendor} sent an answer that does not match its documentation.")
        }
        Fault::Rejected if error.code() == Code::VendorRejectedRequest => rejected_search(error),
        Fault::Rejected
        | Fault::NotFound
        | Fault::ServerError
        | Fault::Redirected
        | Fault::UnexpectedStatus => match error.status {
            Some(status) => format!(
                "{vendor} answered this request with status {}.",
                status.as_u16()
            ),
            None => format!("{vendor} rejected this request."),
        },
        Fault::StaleConnection | Fault::Reset => {
            format!("{vendor} closed the connection before it answered.")
        }
        Fault::BodyCut => format!("{vendor} closed the connection in the middle of its answer."),
        Fault::TooLarge => {
            format!("{vendor} sent an answer that is larger than the gateway accepts.")
        }
        Fault::Timeout => format!("{vendor} did not answer in time."),
        Fault::Internal => "The call ended without an answer.".to_owned(),
    }
}

/// Returns the vendor's own words about a search whose form the gateway accepts. They are already
/// cleaned of everything that looks like a secret.
fn rejected_search(error: &UpstreamError) -> String {
    let mut detail = match &error.said {
        Some(said) => format!("wiv rejected this search with status 400. Its message: {said:?}."),
        None => "wiv rejected this search with status 400 and gave no reason.".to_owned(),
    };
    if error.unknown_members {
        detail.push_str(" A member of the body that the gateway does not know may be the reason.");
    }
    detail
}
