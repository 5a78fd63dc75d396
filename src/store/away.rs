//! What a gateway still does while the store that it shares with others is away.
//!
//! | mode | vendor calls | answers |
//! |---|---|---|
//! | `open` | go on, with this gateway's part of the budget | all |
//! | `stale_only` | none; each call needs a grant of the store | what is usable on error |
//! | `closed` | go on for [`CLOSES_AFTER`], then none | all for [`CLOSES_AFTER`], then none |

use std::sync::atomic::Ordering;

use super::engine::EngineState;
use super::handle::{Store, StoreInner};
use crate::clock::Duration;

/// How long a `closed` gateway serves after the last reply of the fleet. A purge of another gateway
/// may be unknown here for this long.
pub const CLOSES_AFTER: Duration = Duration::from_secs(5);

/// `Retry-After` of refused requests. A gateway notices within this time that the server is back.
pub const STORE_RETRY: Duration = Duration::from_secs(2);

/// What a gateway does while its store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAway {
    /// It continues alone. This is the default.
    #[default]
    Open,
    /// It makes no vendor calls.
    StaleOnly,
    /// After [`CLOSES_AFTER`] it serves nothing.
    Closed,
}

impl WhenAway {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Open, Self::StaleOnly, Self::Closed];

    /// Returns the word in settings and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::StaleOnly => "stale_only",
            Self::Closed => "closed",
        }
    }

    /// Returns what the gateway does, for the log line that says that the store is away.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Open => "the store is away: this gateway goes on alone until it is back",
            Self::StaleOnly => {
                "the store is away: this gateway makes no vendor calls until it is back"
            }
            Self::Closed => {
                "the store is away: this gateway goes on alone for 5 s, then serves nothing until it is back"
            }
        }
    }
}

/// What a gateway refuses now because its store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreBar {
    /// Nothing.
    Nothing,
    /// Vendor calls.
    VendorCalls,
    /// Every request of a caller, and vendor calls.
    Everything,
}

impl StoreBar {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::VendorCalls, Self::Everything];

    /// Returns the word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::VendorCalls => "vendor_calls",
            Self::Everything => "everything",
        }
    }
}

impl Store {
    /// Returns what the gateway does while the store is away.
    pub fn when_away(&self) -> WhenAway {
        let inner = self.inner.as_ref();
        inner.map_or(WhenAway::Open, |inner| inner.when_away)
    }

    /// Returns what the gateway refuses now because the store is away.
    pub fn bar(&self) -> StoreBar {
        match self.inner.as_ref() {
            // Decided first, because every request passes here.
            Some(inner) if inner.when_away != WhenAway::Open => inner.bar(),
            Some(_) | None => StoreBar::Nothing,
        }
    }
}

impl StoreInner {
    fn bar(&self) -> StoreBar {
        match self.when_away {
            WhenAway::Open => StoreBar::Nothing,
            WhenAway::StaleOnly if self.is_away() => StoreBar::VendorCalls,
            WhenAway::StaleOnly => StoreBar::Nothing,
            WhenAway::Closed if self.silence() >= CLOSES_AFTER => StoreBar::Everything,
            WhenAway::Closed => StoreBar::Nothing,
        }
    }

    /// Late writes do not count. Without vendor calls nothing is written, so the gateway would
    /// never notice that writes are in time again.
    fn is_away(&self) -> bool {
        self.engine.state() == EngineState::Away || self.reads_are_away()
    }

    /// Returns the time since the last reply of the fleet, or since the start.
    fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
        self.age().saturating_sub(heard)
    }

    /// Records that a beat was answered and that all purges of the fleet are in force here.
    pub(super) fn note_heard(&self) {
        let ms = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Release);
    }
}
