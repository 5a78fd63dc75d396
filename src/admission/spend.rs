//! A vendor call's payer, its urgency (the lane) and its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderValue;

use super::story::{Story, StoryStage};
use crate::clock::{Duration, Instant};
use crate::metrics::CallsCaused;
use crate::traces::{LiveTrace, OpenSpan, SpanId, traceparent_of};

/// Urgency of a vendor call. Earlier lanes go first when the budget is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// A caller waits for it.
    Interactive,
    /// A page of a token that is healed. A caller waits for it too, behind all first pages.
    Healing,
    /// Refreshes an answer that is in use.
    Refresh,
    /// Reads the page after the one that the furthest reader has.
    ReadAhead,
    /// Exports, and draining of walks that nobody reads.
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

    /// The order in which calls go. A healed page is counted as interactive.
    pub const ORDER: [Self; 5] = [
        Self::Interactive,
        Self::Healing,
        Self::Refresh,
        Self::ReadAhead,
        Self::Export,
    ];

    /// Returns whether a caller waits for the call.
    pub const fn is_interactive(self) -> bool {
        matches!(self, Self::Interactive | Self::Healing)
    }

    /// Returns the word used in labels, logs and explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive | Self::Healing => "interactive",
            Self::Refresh => "refresh",
            Self::ReadAhead => "read_ahead",
            Self::Export => "export",
        }
    }
}

/// The cause of vendor calls, and their number so far. Each request that may cause any has one,
/// shared by all work done for it.
#[derive(Debug)]
pub struct Payer {
    who: Who,
    traceparent: Option<HeaderValue>,
    /// Id of the request, in hex.
    request: Option<[u8; 32]>,
    /// `Some` if the request is sampled.
    trace: Option<Arc<LiveTrace>>,
    calls: AtomicU32,
    /// Waits and calls of the request.
    pub story: Story,
}

#[derive(Debug)]
enum Who {
    /// A caller, whose ledger counts the calls.
    Ledger(CallsCaused),
    /// A name without a ledger.
    Named(Arc<str>),
}

impl Payer {
    /// Creates a payer for a caller, by its configured name.
    pub fn caller(name: Arc<str>, traceparent: Option<HeaderValue>) -> Arc<Self> {
        Self::of(Who::Named(name), traceparent, None, None)
    }

    /// Creates a payer for a request of a caller, whose ledger counts the calls.
    pub fn with_ledger(
        ledger: CallsCaused,
        traceparent: Option<HeaderValue>,
        request: [u8; 32],
        trace: Option<Arc<LiveTrace>>,
    ) -> Arc<Self> {
        Self::of(Who::Ledger(ledger), traceparent, Some(request), trace)
    }

    fn of(
        who: Who,
        traceparent: Option<HeaderValue>,
        request: Option<[u8; 32]>,
        trace: Option<Arc<LiveTrace>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            who,
            traceparent,
            request,
            trace,
            calls: AtomicU32::new(0),
            story: Story::default(),
        })
    }

    /// Creates a payer for work that no caller asked for.
    pub fn gateway() -> Arc<Self> {
        Self::caller("gateway".into(), None)
    }

    /// Creates a payer for what readers of other gateways want.
    pub fn elsewhere() -> Arc<Self> {
        Self::caller("another gateway".into(), None)
    }

    /// Returns the caller's configured name.
    pub fn name(&self) -> &Arc<str> {
        match &self.who {
            Who::Ledger(ledger) => ledger.name(),
            Who::Named(name) => name,
        }
    }

    /// Returns the `traceparent` to send to the vendor if the caller sent one. Its parent is
    /// `span`, or the request's own span without one.
    pub fn traceparent(&self, span: Option<SpanId>) -> Option<HeaderValue> {
        let header = self.traceparent.as_ref()?;
        match span {
            Some(span) => traceparent_of(header, span),
            None => Some(header.clone()),
        }
    }

    /// Returns the request's trace, or `None` if the request is not sampled.
    pub fn trace(&self) -> Option<&Arc<LiveTrace>> {
        self.trace.as_ref()
    }

    /// Returns the id of the request that the work is done for, or `None` if no caller asked for
    /// it.
    pub fn request_id(&self) -> Option<&str> {
        let id = self.request.as_ref()?;
        std::str::from_utf8(id).ok()
    }

    /// Returns the id of the caller's trace, or of our own if the request is sampled.
    pub fn trace_id(&self) -> Option<&str> {
        match (&self.traceparent, &self.trace) {
            (Some(header), _) => trace_id(header),
            (None, Some(_)) => self.request_id(),
            (None, None) => None,
        }
    }

    /// Counts one request that went out to a vendor. Returns whether a caller's ledger counted it
    /// too.
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

    /// Returns the number of requests sent to vendors so far.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }
}

/// Returns the trace id in a `traceparent` of W3C's version 00: 32 hex digits.
pub fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    traceparent.to_str().ok()?.split('-').nth(1)
}

/// The terms of a vendor call: urgency, deadline and payer.
#[derive(Clone, Debug)]
pub struct Spend {
    /// How urgent the call is.
    pub lane: Lane,
    /// When waiting for budget and answer ends.
    pub deadline: Instant,
    /// Until when a caller waits for the call. Its turn in the interactive lane must come before
    /// that. Later it is still worth making, but in a background lane, behind calls that a caller
    /// waits for.
    pub wanted_until: Instant,
    /// The cause of the call.
    pub payer: Arc<Payer>,
    /// Parent of the call's spans. `None` is the request's own span.
    pub within: Option<SpanId>,
}

impl Spend {
    /// Records a stage in the request's story, and as a span if the request is sampled.
    pub fn note(&self, stage: StoryStage, begun: Instant, took: Duration) {
        if !self.payer.story.note(stage, begun, took) {
            return;
        }
        if let Some(trace) = self.payer.trace()
            && let Some(draft) = stage.span(begun, took)
        {
            trace.note(SpanId::fresh(), self.within, draft);
        }
    }

    /// Begins a span if the request is sampled. Later spans of this spend are its children.
    pub fn open_span(&mut self) -> Option<OpenSpan> {
        let open = self.payer.trace()?.open(self.within);
        self.within = Some(open.id());
        Some(open)
    }
}
