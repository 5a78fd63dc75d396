//! How each failure of a read is answered.

use super::{Code, Problem};
use crate::admission::PaceShortage;
use crate::clock::Duration;
use crate::domain::{Operation, Vendor};
use crate::reads::ReadError;
use crate::upstream::{ConnectCause, Fault, UpstreamError};

/// After a timeout: the fetch goes on, so its answer is likely there soon.
pub(super) const TIMEOUT_RETRY: Duration = Duration::from_secs(2);
/// After a failure to connect or an open circuit, unless the circuit knows better: a probe is due by
/// then.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);
/// Without budget, unless the vendor or the bucket knows better.
const BUDGET_RETRY: Duration = Duration::from_secs(5);

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Upstream(error) => upstream(error),
            // One text, whatever is wrong with a token: it must teach nothing about sealing.
            ReadError::InvalidPageToken => Self::new(
                Code::InvalidPageToken,
                "start_page_key.scroll_id is not a page token of this search; start the search again.",
            ),
            ReadError::PageTokenExpired => Self::new(
                Code::PageTokenExpired,
                "What this page token points to is no longer kept; start the search again.",
            ),
            ReadError::CustomerNotAllowed => Self::new(
                Code::CustomerNotAllowed,
                "This caller may not see the customer named in customer_id.",
            ),
            ReadError::BillingNotAllowed => {
                Self::new(Code::BillingNotAllowed, "This caller may not see billing.")
            }
            ReadError::BillingNotFound { vendor_body, .. } => billing_not_found(vendor_body),
            ReadError::AccountNotFound => Self::new(
                Code::AccountNotFound,
                "The account in the path is not the configured one; \"-\" stands for that.",
            ),
            ReadError::WalkLimitExceeded { setting } => Self::new(
                Code::WalkLimitExceeded,
                format!(
                    "The result is larger than {setting} allows; narrow date_range or name a customer_id."
                ),
            ),
            ReadError::Overloaded {
                shortage,
                retry_after,
            } => Self::new(Code::Overloaded, shortage.sentence())
                .logging(shortage.as_str())
                .retry_after(retry_after),
            ReadError::DeadlinePassed { vendor } => Self::timed_out(Some(vendor)),
            ReadError::NotCached => Self::new(
                Code::NotCached,
                "Nothing usable is cached, and only-if-cached forbids asking the vendor.",
            ),
            ReadError::Internal => Self::internal("a read ended without an answer"),
        }
    }
}

fn billing_not_found(vendor_body: Option<bytes::Bytes>) -> Problem {
    Problem::new(
        Code::BillingNotFound,
        "N-able has no billing for this month and contract; vendor_body is what it answered, if anything.",
    )
    .with_vendor_body(vendor_body)
}

fn upstream(error: UpstreamError) -> Problem {
    let log = error.to_string();
    let vendor = error.vendor.as_str();
    let after = |default| error.retry_after.unwrap_or(default);
    let status = error.status.map_or(0, |status| status.as_u16());
    let problem = match error.fault {
        Fault::Disabled => Problem::new(
            Code::VendorUnavailable,
            format!("{vendor} is not configured at this gateway."),
        ),
        Fault::CircuitOpen => Problem::new(
            Code::VendorUnavailable,
            format!("{vendor} failed lately, so only one call in a while is tried."),
        )
        .retry_after(after(UNAVAILABLE_RETRY)),
        Fault::Connect => Problem::new(
            Code::VendorUnavailable,
            format!(
                "{vendor} cannot be reached: {}.",
                error.cause.unwrap_or(ConnectCause::Other).text()
            ),
        )
        .retry_after(after(UNAVAILABLE_RETRY)),
        Fault::BudgetExhausted => Problem::new(
            Code::VendorBudgetExhausted,
            format!(
                "No request to {vendor} was made: {}.",
                error.short.unwrap_or(PaceShortage::Budget).text()
            ),
        )
        .retry_after(after(BUDGET_RETRY)),
        Fault::RateLimited => Problem::new(
            Code::VendorBudgetExhausted,
            format!("{vendor} answered with status 429: it takes no more requests for a while."),
        )
        .retry_after(after(BUDGET_RETRY)),
        Fault::Timeout => Problem::timed_out(Some(error.vendor)),
        Fault::Rejected => match (error.vendor, error.operation) {
            (Vendor::Nable, _) => billing_not_found(error.vendor_body),
            (Vendor::Wiv, Operation::Search) => rejected_search(&error),
            (Vendor::Wiv, _) => answered_with(vendor, status),
        },
        Fault::NotFound => match error.vendor {
            Vendor::Nable => billing_not_found(error.vendor_body),
            Vendor::Wiv => answered_with(vendor, status),
        },
        Fault::CredentialRejected => Problem::new(
            Code::VendorCredentialRejected,
            format!("{vendor} did not accept the gateway's own key; its operator must look."),
        ),
        Fault::Malformed => Problem::new(
            Code::VendorProtocolError,
            format!("{vendor} answered something else than it documents."),
        )
        .maybe_retry_after(error.retry_after),
        Fault::ServerError | Fault::Redirected | Fault::UnexpectedStatus => {
            answered_with(vendor, status)
        }
        Fault::StaleConnection | Fault::Reset => {
            vendor_error(format!("{vendor} ended the connection before it answered."))
        }
        Fault::BodyCut => vendor_error(format!("{vendor} ended the connection within its answer.")),
        Fault::TooLarge => vendor_error(format!(
            "{vendor} sent an answer that is larger than the gateway takes."
        )),
        Fault::Internal => Problem::internal("a vendor call ended without an answer"),
    };
    problem.logging(log)
}

/// The vendor's own words about a search whose form the gateway accepts. They were cleaned of
/// everything that looks like a secret.
fn rejected_search(error: &UpstreamError) -> Problem {
    let mut detail = match &error.said {
        Some(said) => format!("wiv rejected this search with status 400; it said {said:?}."),
        None => "wiv rejected this search with status 400 and gave no reason.".to_owned(),
    };
    if error.unknown_members {
        detail.push_str(" A member of the body that the gateway does not know may be the reason.");
    }
    Problem::new(Code::VendorRejectedRequest, detail)
}

fn answered_with(vendor: &str, status: u16) -> Problem {
    vendor_error(format!(
        "{vendor} answered this request with status {status}."
    ))
}

fn vendor_error(detail: String) -> Problem {
    Problem::new(Code::VendorError, detail)
}
