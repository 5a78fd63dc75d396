//! Spans of requests, exported to an OpenTelemetry collector.
//!
//! A request that is sampled has a [`LiveTrace`]. Its own span is made once its last byte is sent.
//! Waits, vendor attempts, walk pages and store lookups for it become child spans when they end,
//! also after the answer. Spans go into a queue, and one task exports them:
//!
//! ```text
//! request ──▶ LiveTrace ──▶ queue (SPANS_WAITING_MAX) ──▶ exporter ──▶ POST …/v1/traces
//!                             │ full                        │ dead, slow or refusing collector
//!                             └──▶ dropped and counted      └──▶ dropped and counted
//! ```
//!
//! - [`Traces`] decides which requests are traced. [`Traces::off`] traces none and costs a
//!   comparison.
//! - [`SpanDraft`] is a finished span: its times and its attributes.
//! - [`TraceOptions`] says where spans go, and how many.
//!
//! The caller's `traceparent` decides whether a request is sampled; without one, `sample_ratio`
//! does, and the trace id is the request id, so that log lines and traces name each other.
//!
//! What must never happen here: nothing waits for the collector, neither a request nor, beyond
//! [`Traces::close`]'s limit, the end of the process. No attribute holds a text that a caller or a
//! vendor wrote: every value is one of our own words, a number, an address, or a name from the
//! settings.

mod collector;
mod export;
mod span;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

pub use collector::{CollectorUrl, TraceHeaders, TraceHeadersProblem};
pub use export::{CollectorConnector, collector_connector};
pub use span::{OpenSpan, SpanDraft, SpanId, SpanKind, SpanValue, TraceId};

use crate::clock::{Clock, Duration, Instant, timeout};
use crate::metrics::{SpanDrop, TraceMetrics};
use export::Exporter;
use span::FinishedSpan;

/// Spans that may wait for the exporter, some 2 MiB of them. Further spans are dropped, because a
/// collector that cannot keep up must not make the process grow.
const SPANS_WAITING_MAX: usize = 4096;
/// Child spans of one request. A whole export makes thousands of vendor calls. The first ones show
/// why it was slow, and one request must not fill the queue.
const CHILDREN_MAX: u32 = 128;

/// Position of the span id in a `traceparent`: after `00-`, 32 digits and `-`.
const SPAN_AT: usize = 36;
const SPAN_DIGITS: usize = 16;

/// Where spans go, and of how many requests.
#[derive(Clone, PartialEq)]
pub struct TraceOptions {
    /// The collector.
    pub collector: CollectorUrl,
    /// The share of requests without a `traceparent` that is traced, from 0 to 1.
    pub sample_ratio: f64,
    /// Sent with every export.
    pub headers: TraceHeaders,
}

impl fmt::Debug for TraceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceOptions")
            .field("collector", &self.collector)
            .field("sample_ratio", &self.sample_ratio)
            .finish_non_exhaustive()
    }
}

/// A caller's `traceparent`, read, and the span that the gateway adds to its trace.
#[derive(Clone, Debug)]
pub struct Continued {
    /// To be sent to vendors: the same trace, with our span as the parent.
    pub header: HeaderValue,
    /// The caller's trace.
    pub trace: TraceId,
    /// The caller's span.
    pub parent: SpanId,
    /// The gateway's span.
    pub span: SpanId,
    /// Whether the caller records its trace.
    pub sampled: bool,
}

/// Returns the `traceparent` of another span of the same trace. `header` is one that the gateway
/// wrote.
pub fn traceparent_of(header: &HeaderValue, span: SpanId) -> Option<HeaderValue> {
    let (trace, rest) = header.to_str().ok()?.split_at_checked(SPAN_AT)?;
    let flags = rest.get(SPAN_DIGITS..)?;
    HeaderValue::try_from(format!("{trace}{span}{flags}")).ok()
}

/// Decides which requests are traced, and takes their spans. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tracer>>);

struct Tracer {
    /// A request is sampled if its random number is below this.
    below: u64,
    queue: mpsc::Sender<FinishedSpan>,
    metrics: Arc<TraceMetrics>,
    clock: Clock,
    closing: watch::Sender<Option<Instant>>,
    /// Ends when the exporter has ended.
    ended: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "Traces::off",
            Some(_) => "Traces",
        })
    }
}

impl Traces {
    /// Traces nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts a task that exports spans over `connector`. It ends with [`Self::close`], or when the
    /// last clone and the last [`LiveTrace`] are gone.
    pub fn start<C: CollectorConnector>(
        options: &TraceOptions,
        connector: C,
        clock: Clock,
        metrics: Arc<TraceMetrics>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(SPANS_WAITING_MAX);
        let (closing, told) = watch::channel(None);
        let exporter = Exporter::new(options, connector, clock.clone(), metrics.clone());
        let task = tokio::spawn(exporter.run(waiting, told));
        Self(Some(Arc::new(Tracer {
            below: threshold(options.sample_ratio),
            queue,
            metrics,
            clock,
            closing,
            ended: Mutex::new(Some(task)),
        })))
    }

    /// Returns the trace of a request that begins. `None` if it is not sampled.
    pub fn begin(
        &self,
        continued: Option<&Continued>,
        request_id: &[u8; 32],
    ) -> Option<Arc<LiveTrace>> {
        let tracer = self.0.as_ref()?;
        let (trace, parent, span) = match continued {
            Some(continued) if continued.sampled => {
                (continued.trace, Some(continued.parent), continued.span)
            }
            Some(_) => return None,
            None if fastrand::u64(..) < tracer.below => {
                (TraceId::of_hex(request_id)?, None, SpanId::fresh())
            }
            None => return None,
        };
        Some(Arc::new(LiveTrace {
            tracer: tracer.clone(),
            trace,
            span,
            parent,
            children: AtomicU32::new(0),
        }))
    }

    /// Exports the waiting spans within `limit`. Drops and counts the rest, and all later spans.
    pub async fn close(&self, limit: Duration) {
        let Some(tracer) = &self.0 else { return };
        let deadline = tracer.clock.now() + limit;
        tracer.closing.send_replace(Some(deadline));
        let ended = tracer.ended.lock().take();
        if let Some(ended) = ended {
            // The exporter ends at its deadline by itself. This longer limit is only a safeguard.
            let _ = timeout(limit + limit / 4, ended).await;
        }
    }
}

/// Returns the number below which a request's random number must be for it to be sampled.
fn threshold(ratio: f64) -> u64 {
    if ratio >= 1.0 {
        return u64::MAX;
    }
    // 2^64, in floating point; a negative or absurd ratio becomes 0.
    (ratio * 18_446_744_073_709_551_616.0) as u64
}

/// The trace of one request, as long as any work is done for it.
pub struct LiveTrace {
    tracer: Arc<Tracer>,
    trace: TraceId,
    span: SpanId,
    parent: Option<SpanId>,
    children: AtomicU32,
}

impl fmt::Debug for LiveTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveTrace({})", self.trace)
    }
}

impl LiveTrace {
    /// Takes a child span. Without a `parent`, it is a child of the request's own span. Never
    /// waits.
    pub fn note(&self, id: SpanId, parent: Option<SpanId>, draft: SpanDraft) {
        if self.children.fetch_add(1, Ordering::Relaxed) >= CHILDREN_MAX {
            self.tracer.metrics.dropped(SpanDrop::TraceFull, 1);
            return;
        }
        self.put(id, Some(parent.unwrap_or(self.span)), draft);
    }

    /// Begins a child span that others may be children of.
    pub fn open(self: &Arc<Self>, parent: Option<SpanId>) -> OpenSpan {
        OpenSpan::new(self.clone(), parent, self.tracer.clock.now())
    }

    /// Takes the request's own span. Never waits.
    pub fn finish(&self, draft: SpanDraft) {
        self.put(self.span, self.parent, draft);
    }

    fn put(&self, id: SpanId, parent: Option<SpanId>, draft: SpanDraft) {
        let span = FinishedSpan {
            trace: self.trace,
            id,
            parent,
            draft,
        };
        let why = match self.tracer.queue.try_send(span) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(_)) => SpanDrop::QueueFull,
            Err(mpsc::error::TrySendError::Closed(_)) => SpanDrop::Closed,
        };
        self.tracer.metrics.dropped(why, 1);
    }
}
