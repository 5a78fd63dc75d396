//! On whose account, how urgently and until when a vendor call may be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderValue;

use super::story::Story;
use crate::clock::Instant;
use crate::metrics::CallsCaused;

/// How urgent a vendor call is. Earlier lanes go first when the budget is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// A caller waits for it.
    Interactive,
    /// Keeps an answer in use from growing old.
    Refresh,
    /// The page after the furthest reader's.
    ReadAhead,
    /// Exports, and draining walks that nobody reads.
    Export,
}

impl Lane {
    /// Every lane, most urgent first.
    pub const ALL: [Self; 4] = [
        Self::Interactive,
        Self::Refresh,
        Self::ReadAhead,
        Self::Export,
    ];

    /// Returns the word used in labels, logs and explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Refresh => "refresh",
            Self::ReadAhead => "read_ahead",
            Self::Export => "export",
        }
    }
}

/// Who caused vendor calls, and how many so far. One per request that may cause any, shared by all
/// the work done for it.
#[derive(Debug)]
pub struct Payer {
    who: Who,
    traceparent: Option<HeaderValue>,
    /// Names the request in hex.
    request: Option<[u8; 32]>,
    calls: AtomicU32,
    /// What was done and waited for.
    pub story: Story,
}

#[derive(Debug)]
enum Who {
    /// A caller, whose ledger counts the calls.
    Ledger(CallsCaused),
    /// Somebody of this name.
    Named(Arc<str>),
}

impl Payer {
    /// Work for a caller, by its configured name.
    pub fn caller(name: Arc<str>, traceparent: Option<HeaderValue>) -> Arc<Self> {
        Self::of(Who::Named(name), traceparent, None)
    }

    /// Work for a request of a caller, whose ledger counts the calls.
    pub fn with_ledger(
        ledger: CallsCaused,
        traceparent: Option<HeaderValue>,
        request: [u8; 32],
    ) -> Arc<Self> {
        Self::of(Who::Ledger(ledger), traceparent, Some(request))
    }

    fn of(who: Who, traceparent: Option<HeaderValue>, request: Option<[u8; 32]>) -> Arc<Self> {
        Arc::new(Self {
            who,
            traceparent,
            request,
            calls: AtomicU32::new(0),
            story: Story::default(),
        })
    }

    /// Work the gateway does of its own accord.
    pub fn gateway() -> Arc<Self> {
        Self::caller("gateway".into(), None)
    }

    /// Returns the caller's configured name.
    pub fn name(&self) -> &Arc<str> {
        match &self.who {
            Who::Ledger(ledger) => ledger.name(),
            Who::Named(name) => name,
        }
    }

    /// Returns the trace to continue towards the vendor.
    pub fn traceparent(&self) -> Option<&HeaderValue> {
        self.traceparent.as_ref()
    }

    /// Returns the id of the request that the work is done for; `None` where the gateway works of
    /// its own accord.
    pub fn request_id(&self) -> Option<&str> {
        let id = self.request.as_ref()?;
        std::str::from_utf8(id).ok()
    }

    /// Returns the id of the trace to continue.
    pub fn trace_id(&self) -> Option<&str> {
        trace_id(self.traceparent.as_ref()?)
    }

    /// Notes one request that went out to a vendor. Returns whether a caller's ledger has it.
    pub fn charge(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.who {
            Who::Ledger(ledger) => {
                ledger.add();
                true
            }
            Who::Named(_) => false,
        }
    }

    /// Requests that went out to vendors so far.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Returns the trace id in a `traceparent` of W3C's version 00: 32 hex digits.
pub fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    traceparent.to_str().ok()?.split('-').nth(1)
}

/// What a vendor call may cost: urgency, latest time, and who pays.
#[derive(Clone, Debug)]
pub struct Spend {
    /// Urgency.
    pub lane: Lane,
    /// When waiting for budget and answer ends.
    pub deadline: Instant,
    /// Until when a caller waits for it. Its turn in the interactive lane must come before; later the
    /// call is worth having still, but not in the way of those whom somebody waits for.
    pub wanted_until: Instant,
    /// Who caused it.
    pub payer: Arc<Payer>,
}
