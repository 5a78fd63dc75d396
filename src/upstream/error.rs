//! Failures of vendor calls: whose fault they are, and whether a retry is safe.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::ConnectCause;
use crate::admission::PaceRefusal;
use crate::clock::Duration;
use crate::domain::{Operation, ProblemCode, Shortage, Vendor};
use crate::store::pack::{PackReader, PackWriter};

/// What went wrong, decided where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The vendor is not configured.
    Disabled,
    /// The circuit is open: recent calls to the vendor failed, nothing was sent.
    CircuitOpen,
    /// No request budget was left before the deadline, nothing was sent.
    BudgetExhausted,
    /// The store is away and its settings forbid vendor calls without it, nothing was sent.
    StoreAway,
    /// The vendor answered 429.
    RateLimited,
    /// No connection could be made, nothing was sent.
    Connect,
    /// No complete answer before the timeout.
    Timeout,
    /// A reused connection ended before the first byte of an answer, or the vendor said that it did
    /// not process the request. This says nothing about the vendor's health.
    StaleConnection,
    /// The connection ended before an answer began.
    Reset,
    /// The connection ended within the body.
    BodyCut,
    /// The answer is larger than the limit.
    TooLarge,
    /// A 5xx answer.
    ServerError,
    /// A 401 or 403 answer: the vendor rejected our key.
    CredentialRejected,
    /// A 400 answer.
    Rejected,
    /// A 404 answer.
    NotFound,
    /// A 3xx answer, which is never followed.
    Redirected,
    /// Another status that no vendor documents.
    UnexpectedStatus,
    /// A body that does not match the operation.
    Malformed,
    /// A contained panic or a task that ended without an answer.
    Internal,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The vendor failed, or the connection to it did.
    Vendor,
    /// The request: the vendor would reject the same one again.
    Question,
    /// The gateway's own limits or settings.
    Gateway,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 19] = [
        Self::Disabled,
        Self::CircuitOpen,
        Self::BudgetExhausted,
        Self::StoreAway,
        Self::RateLimited,
        Self::Connect,
        Self::Timeout,
        Self::StaleConnection,
        Self::Reset,
        Self::BodyCut,
        Self::TooLarge,
        Self::ServerError,
        Self::CredentialRejected,
        Self::Rejected,
        Self::NotFound,
        Self::Redirected,
        Self::UnexpectedStatus,
        Self::Malformed,
        Self::Internal,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::CircuitOpen => "circuit_open",
            Self::BudgetExhausted => "budget_exhausted",
            Self::StoreAway => "store_away",
            Self::RateLimited => "rate_limited",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::StaleConnection => "stale_connection",
            Self::Reset => "reset",
            Self::BodyCut => "body_cut",
            Self::TooLarge => "too_large",
            Self::ServerError => "server_error",
            Self::CredentialRejected => "credential_rejected",
            Self::Rejected => "rejected",
            Self::NotFound => "not_found",
            Self::Redirected => "redirected",
            Self::UnexpectedStatus => "unexpected_status",
            Self::Malformed => "malformed",
            Self::Internal => "internal",
        }
    }

    /// Returns whose fault it is, unless the vendor's row says otherwise.
    pub const fn whose(self) -> Whose {
        match self {
            Self::Rejected | Self::NotFound => Whose::Question,
            Self::Disabled | Self::BudgetExhausted | Self::StoreAway | Self::Internal => {
                Whose::Gateway
            }
            Self::CircuitOpen
            | Self::RateLimited
            | Self::Connect
            | Self::Timeout
            | Self::StaleConnection
            | Self::Reset
            | Self::BodyCut
            | Self::TooLarge
            | Self::ServerError
            | Self::CredentialRejected
            | Self::Redirected
            | Self::UnexpectedStatus
            | Self::Malformed => Whose::Vendor,
        }
    }

    /// Returns the problem code of the fault, unless the vendor's row says otherwise.
    pub const fn code(self) -> ProblemCode {
        match self {
            Self::Disabled | Self::CircuitOpen | Self::Connect => ProblemCode::VendorUnavailable,
            Self::BudgetExhausted | Self::RateLimited => ProblemCode::VendorBudgetExhausted,
            Self::StoreAway => ProblemCode::StoreUnavailable,
            Self::Timeout => ProblemCode::VendorTimeout,
            Self::CredentialRejected => ProblemCode::VendorCredentialRejected,
            Self::Malformed => ProblemCode::VendorProtocolError,
            Self::Internal => ProblemCode::InternalError,
            Self::StaleConnection
            | Self::Reset
            | Self::BodyCut
            | Self::TooLarge
            | Self::ServerError
            | Self::Rejected
            | Self::NotFound
            | Self::Redirected
            | Self::UnexpectedStatus => ProblemCode::VendorError,
        }
    }

    /// Returns whether the same request may succeed a moment later. Says nothing about safety:
    /// continuations are never repeated, whatever this says.
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::Timeout
                | Self::StaleConnection
                | Self::Reset
                | Self::BodyCut
                | Self::ServerError
        )
    }

    /// Returns whether the vendor certainly never saw the request.
    pub const fn was_not_sent(self) -> bool {
        matches!(
            self,
            Self::Disabled
                | Self::CircuitOpen
                | Self::BudgetExhausted
                | Self::StoreAway
                | Self::Connect
        )
    }
}

/// A failed vendor call. Cheap to clone, because all requests that waited for the call share it.
#[derive(Clone)]
pub struct UpstreamError {
    /// The vendor that was called.
    pub vendor: Vendor,
    /// The operation.
    pub operation: Operation,
    /// What went wrong.
    pub fault: Fault,
    /// The vendor's status, if it answered with one.
    pub status: Option<StatusCode>,
    /// Time after which to try again, if the vendor or a budget named one.
    pub retry_after: Option<Duration>,
    /// The vendor's body of a 400 or 404 if [`super::VendorRow::keeps_refusals`]. Bodies of other
    /// errors may echo a key and are never kept.
    pub vendor_body: Option<Bytes>,
    /// The vendor's message about a refusal, shortened and cleaned by `super::said`.
    pub said: Option<Arc<str>>,
    /// Why no connection was made, for [`Fault::Connect`].
    pub cause: Option<ConnectCause>,
    /// What was short, if the gateway sent nothing.
    pub short: Option<Shortage>,
    /// Whether the search held members that the gateway does not know.
    pub unknown_members: bool,
    /// Detail for the log in the gateway's words, without secrets or vendor bytes.
    pub detail: Arc<str>,
}

impl UpstreamError {
    /// Creates a failure without further particulars.
    pub fn new(operation: Operation, fault: Fault, detail: impl Into<Arc<str>>) -> Self {
        Self {
            vendor: operation.vendor(),
            operation,
            fault,
            status: None,
            retry_after: None,
            vendor_body: None,
            said: None,
            cause: None,
            short: None,
            unknown_members: false,
            detail: detail.into(),
        }
    }

    /// Creates the failure of a call that was not sent because of a shortage in the gateway.
    pub fn short_of(operation: Operation, refusal: PaceRefusal) -> Self {
        let fault = match refusal.short {
            Shortage::Store => Fault::StoreAway,
            _ => Fault::BudgetExhausted,
        };
        Self {
            short: Some(refusal.short),
            retry_after: Some(refusal.retry_after),
            ..Self::new(operation, fault, refusal.short.as_str())
        }
    }

    /// Adds the vendor's status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// Returns whether the gateway refused the call, so that nothing was sent to the vendor.
    pub fn was_refused_here(&self) -> bool {
        self.status.is_none()
            && matches!(
                self.fault,
                Fault::Disabled
                    | Fault::CircuitOpen
                    | Fault::BudgetExhausted
                    | Fault::StoreAway
                    | Fault::CredentialRejected
            )
    }

    /// Adds the time after which to try again.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

/// What another gateway's failure begins with, in the log.
const AT_ANOTHER: &str = "at another gateway: ";

impl UpstreamError {
    /// Returns whether the failure is a vendor's whole answer. Connections, time limits, budgets
    /// and keys are each gateway's own, so their failures say nothing about another gateway.
    pub fn is_whole_answer(&self) -> bool {
        let whole = match self.fault {
            Fault::RateLimited
            | Fault::ServerError
            | Fault::Rejected
            | Fault::NotFound
            | Fault::Redirected
            | Fault::UnexpectedStatus
            | Fault::Malformed => true,
            Fault::Disabled
            | Fault::CircuitOpen
            | Fault::BudgetExhausted
            | Fault::StoreAway
            | Fault::Connect
            | Fault::Timeout
            | Fault::StaleConnection
            | Fault::Reset
            | Fault::BodyCut
            | Fault::TooLarge
            | Fault::CredentialRejected
            | Fault::Internal => false,
        };
        whole && self.status.is_some()
    }

    /// Returns the bytes that share the failure with other gateways: everything but the vendor's
    /// body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let retry_after_ms = self.retry_after.map_or(u64::MAX, |wait| {
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
        });
        PackWriter::default()
            .bytes(self.operation.as_str().as_bytes())
            .bytes(self.fault.as_str().as_bytes())
            .u32(self.status.map_or(0, |status| u32::from(status.as_u16())))
            .u64(retry_after_ms)
            .flag(self.said.is_some())
            .bytes(self.said.as_deref().unwrap_or_default().as_bytes())
            .flag(self.unknown_members)
            .bytes(self.detail.as_bytes())
            .done()
    }

    /// Returns the failure of such bytes. `None` for any others.
    pub fn of_bytes(bytes: Bytes) -> Option<Self> {
        let mut reader = PackReader::new(bytes);
        let operation = reader.bytes()?;
        let operation = Operation::ALL
            .into_iter()
            .find(|known| known.as_str().as_bytes() == operation)?;
        let fault = reader.bytes()?;
        let fault = Fault::ALL
            .into_iter()
            .find(|known| known.as_str().as_bytes() == fault)?;
        let status = StatusCode::from_u16(u16::try_from(reader.u32()?).ok()?).ok();
        let retry_after = Some(reader.u64()?).filter(|ms| *ms != u64::MAX);
        let has_said = reader.flag()?;
        let said = String::from_utf8(reader.bytes()?.into()).ok()?;
        let unknown_members = reader.flag()?;
        let detail = String::from_utf8(reader.bytes()?.into()).ok()?;
        let error = Self {
            status,
            retry_after: retry_after.map(Duration::from_millis),
            said: has_said.then(|| said.into()),
            unknown_members,
            ..Self::new(operation, fault, format!("{AT_ANOTHER}{detail}"))
        };
        reader.is_over().then_some(error)
    }
}

impl fmt::Debug for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {} ({})",
            self.vendor.as_str(),
            self.operation.as_str(),
            self.fault.as_str(),
            self.detail
        )?;
        match &self.said {
            Some(said) => write!(f, "; it said {said:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UpstreamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_failure_is_the_same_to_every_caller() {
        for fault in Fault::ALL {
            let plain = UpstreamError::new(Operation::Billing, fault, "status 503");
            assert!(!plain.is_whole_answer(), "{fault:?} without an answer");
            let full = UpstreamError {
                retry_after: Some(Duration::from_secs(7)),
                said: Some("Down for maintenance".into()),
                unknown_members: true,
                ..plain.clone().with_status(StatusCode::SERVICE_UNAVAILABLE)
            };
            for error in [plain, full] {
                let shared = UpstreamError::of_bytes(error.to_bytes().into()).unwrap();
                assert_eq!(
                    (shared.operation, shared.fault, shared.status),
                    (error.operation, error.fault, error.status)
                );
                assert_eq!(
                    (shared.retry_after, &shared.said, shared.unknown_members),
                    (error.retry_after, &error.said, error.unknown_members)
                );
                assert_eq!(*shared.detail, format!("{AT_ANOTHER}{}", error.detail));
                let bytes = error.to_bytes();
                for len in 0..bytes.len() {
                    let cut = Bytes::copy_from_slice(&bytes[..len]);
                    assert!(UpstreamError::of_bytes(cut).is_none());
                }
            }
        }
    }
}
