//! The reasons for which a read gives no answer.

use bytes::Bytes;

use crate::cache::{FetchError, LookupError};
use crate::clock::Duration;
use crate::domain::{CacheOutcome, ProblemCode, Shortage, Vendor};
use crate::snapshot::{OpenError, PageFailure, WalkFailure};
use crate::upstream::{Fault, UpstreamError, Whose};

/// `Retry-After` of a refusal for lack of room.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Every way in which a read can end without an answer. `problem` renders each.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// The vendor, or the connection to it, failed.
    Upstream(UpstreamError),
    /// The page token cannot be opened, belongs to another audience, or does not match the repeated
    /// search.
    InvalidPageToken,
    /// The page token is valid, but its snapshot is gone.
    PageTokenExpired,
    /// The sync token cannot be opened, belongs to another audience, or does not match the repeated
    /// search.
    InvalidSyncToken,
    /// The sync token is valid, but the state that it names is gone.
    SyncTokenExpired,
    /// The request names a customer outside the caller's audience.
    CustomerNotAllowed,
    /// The caller may not see billing.
    BillingNotAllowed,
    /// N-able has no such month or contract.
    BillingNotFound {
        /// The vendor's own answer, as raw JSON.
        vendor_body: Option<Bytes>,
        /// Whether the vendor was called for it, or memory knew it.
        outcome: CacheOutcome,
    },
    /// The request names another account than the configured one.
    AccountNotFound,
    /// The result is larger than a walk may be.
    WalkLimitExceeded {
        /// The setting whose limit was exceeded.
        setting: &'static str,
    },
    /// The gateway itself is short of something. No vendor was called for this request.
    Overloaded {
        /// The resource that is short.
        shortage: Shortage,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller's deadline passed. The work goes on.
    DeadlinePassed {
        /// The vendor that is late.
        vendor: Vendor,
    },
    /// `only-if-cached` was sent and nothing usable is remembered.
    NotCached,
    /// A contained panic, or a task that ended without an answer.
    Internal,
}

impl ReadError {
    /// Returns how the cache answered, or `None` if the question was refused before any lookup.
    pub fn outcome(&self) -> Option<CacheOutcome> {
        match self {
            Self::InvalidPageToken
            | Self::InvalidSyncToken
            | Self::SyncTokenExpired
            | Self::CustomerNotAllowed
            | Self::BillingNotAllowed
            | Self::AccountNotFound => None,
            Self::BillingNotFound { outcome, .. } => Some(*outcome),
            Self::Upstream(_)
            | Self::PageTokenExpired
            | Self::WalkLimitExceeded { .. }
            | Self::Overloaded { .. }
            | Self::DeadlinePassed { .. }
            | Self::NotCached
            | Self::Internal => Some(CacheOutcome::Error),
        }
    }

    /// Creates an [`Self::Overloaded`] for a shortage whose end is unknown.
    pub fn overloaded(shortage: Shortage) -> Self {
        Self::Overloaded {
            shortage,
            retry_after: OVERLOADED_RETRY_AFTER,
        }
    }

    /// Converts the failure of a lookup at `vendor`.
    pub fn of_lookup(vendor: Vendor, error: LookupError<UpstreamError>) -> Self {
        match error {
            LookupError::Fetch(error) => Self::Upstream(error),
            LookupError::Internal => Self::Internal,
            LookupError::Crowded => Self::overloaded(Shortage::Waiters),
            LookupError::DeadlinePassed => Self::DeadlinePassed { vendor },
            LookupError::NotCached => Self::NotCached,
        }
    }

    /// Returns the problem code that a caller sees, for the whole answer or for one part of it.
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Upstream(error) => error.code(),
            Self::InvalidPageToken => ProblemCode::InvalidPageToken,
            Self::PageTokenExpired => ProblemCode::PageTokenExpired,
            Self::InvalidSyncToken => ProblemCode::InvalidSyncToken,
            Self::SyncTokenExpired => ProblemCode::SyncTokenExpired,
            Self::CustomerNotAllowed => ProblemCode::CustomerNotAllowed,
            Self::BillingNotAllowed => ProblemCode::BillingNotAllowed,
            Self::BillingNotFound { .. } => ProblemCode::BillingNotFound,
            Self::AccountNotFound => ProblemCode::AccountNotFound,
            Self::WalkLimitExceeded { .. } => ProblemCode::WalkLimitExceeded,
            Self::Overloaded { .. } => ProblemCode::Overloaded,
            Self::DeadlinePassed { .. } => ProblemCode::VendorTimeout,
            Self::NotCached => ProblemCode::NotCached,
            Self::Internal => ProblemCode::InternalError,
        }
    }

    /// Returns what the gateway was short of, if that is the reason.
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Overloaded { shortage, .. } => Some(*shortage),
            Self::Upstream(error) if error.fault == Fault::BudgetExhausted => {
                Some(error.short.unwrap_or(Shortage::VendorBudget))
            }
            Self::Upstream(error) if error.fault == Fault::StoreAway => Some(Shortage::Store),
            _ => None,
        }
    }

    /// Returns whether an older answer may be used instead: the question itself is not at fault.
    pub fn allows_stale(&self) -> bool {
        match self {
            Self::Upstream(error) => error.allows_stale(),
            Self::Overloaded { .. } | Self::DeadlinePassed { .. } | Self::Internal => true,
            Self::InvalidPageToken
            | Self::InvalidSyncToken
            | Self::SyncTokenExpired
            | Self::PageTokenExpired
            | Self::CustomerNotAllowed
            | Self::BillingNotAllowed
            | Self::BillingNotFound { .. }
            | Self::AccountNotFound
            | Self::WalkLimitExceeded { .. }
            | Self::NotCached => false,
        }
    }
}

impl From<UpstreamError> for ReadError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl From<WalkFailure> for ReadError {
    fn from(failure: WalkFailure) -> Self {
        match failure {
            WalkFailure::Upstream(error) => Self::Upstream(error),
            WalkFailure::Overloaded(shortage, after) => Self::Overloaded {
                shortage,
                retry_after: after.unwrap_or(OVERLOADED_RETRY_AFTER),
            },
            WalkFailure::Internal => Self::Internal,
        }
    }
}

impl From<OpenError> for ReadError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Walk(failure) => failure.into(),
            OpenError::DeadlinePassed => Self::DeadlinePassed {
                vendor: Vendor::Wiv,
            },
            OpenError::NotCached => Self::NotCached,
        }
    }
}

impl From<PageFailure> for ReadError {
    fn from(failure: PageFailure) -> Self {
        match failure {
            PageFailure::Gone | PageFailure::Changed => Self::PageTokenExpired,
            PageFailure::Limit(setting) => Self::WalkLimitExceeded { setting },
            PageFailure::Walk(failure) => failure.into(),
            PageFailure::DeadlinePassed => Self::DeadlinePassed {
                vendor: Vendor::Wiv,
            },
        }
    }
}

impl FetchError for UpstreamError {
    fn is_not_now(&self) -> bool {
        matches!(self.fault, Fault::BudgetExhausted | Fault::RateLimited)
    }

    fn allows_stale(&self) -> bool {
        self.whose() != Whose::Question
    }

    fn to_shared(&self) -> Option<Vec<u8>> {
        self.is_whole_answer().then(|| self.to_bytes())
    }

    fn of_shared(bytes: Bytes) -> Option<Self> {
        Self::of_bytes(bytes)
    }
}
