//! Counts and times every attempt, and records it with the payer.

use std::sync::Arc;

use http::Method;

use super::layer;
use crate::admission::{Lane, Payer, StoryStage};
use crate::clock::{Clock, Duration, Instant};
use crate::domain::Operation;
use crate::metrics::{CallsCaused, Metrics};
use crate::traces::{SpanDraft, SpanId, SpanKind};
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall, VendorOptions};

layer!(CountLayer => Count {
    metrics: Arc<Metrics>,
    background: CallsCaused,
    places: Arc<CallPlaces>,
    clock: Clock,
});

/// Addresses of a vendor's calls for spans, without account, customer and contract.
#[derive(Debug)]
struct CallPlaces {
    host: Arc<str>,
    port: u16,
    /// Method, template, and URL with `REDACTED` parameters, in the order of [`Operation::ALL`].
    targets: Vec<(&'static str, &'static str, Arc<str>)>,
}

impl CallPlaces {
    fn of(options: &VendorOptions) -> Self {
        let full = |operation: Operation| {
            let (method, template) = (options.row.target)(operation);
            let redacted: Vec<_> = template
                .split('/')
                .map(|step| match step.starts_with('{') {
                    true => "REDACTED",
                    false => step,
                })
                .collect();
            let full = format!("{}{}", options.base_url, redacted.join("/"));
            // Every call of the gateway is one of the two.
            let method = match method {
                Method::GET => "GET",
                _ => "POST",
            };
            (method, template, full.into())
        };
        Self {
            host: options.base_url.host().into(),
            port: options.base_url.port(),
            targets: Operation::ALL.into_iter().map(full).collect(),
        }
    }
}

impl CountLayer {
    /// Creates the layer. It counts into these metrics.
    pub fn new(options: &VendorOptions, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            background: metrics.background_calls(),
            metrics,
            places: Arc::new(CallPlaces::of(options)),
            clock,
        }
    }
}

impl<S: Step> Step for Count<S> {
    async fn send(&self, mut call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        call.span = call.spend.payer.trace().map(|_| SpanId::fresh());
        let mut attempt = Attempt {
            operation: call.operation,
            lane: call.spend.lane,
            payer: Arc::clone(&call.spend.payer),
            span: call.span,
            within: call.spend.within,
            resends: call.resends,
            places: &self.places,
            metrics: &self.metrics,
            background: &self.background,
            clock: &self.clock,
            begun: self.clock.now(),
            // Remains set if the call is dropped before it ends.
            ended: Some(Fault::Internal),
            status: None,
        };
        let result = self.inner.send(call).await;
        attempt.ended = result.as_ref().err().map(|error| error.fault);
        let status = match &result {
            Ok(answer) => Some(answer.status),
            Err(error) => error.status,
        };
        attempt.status = status.map(|status| status.as_u16());
        if let Some(cause) = result.as_ref().err().and_then(|error| error.cause) {
            let vendor = attempt.operation.vendor();
            self.metrics.connect_failure(vendor, cause.as_str());
        }
        result
    }
}

struct Attempt<'a> {
    operation: Operation,
    lane: Lane,
    payer: Arc<Payer>,
    span: Option<SpanId>,
    within: Option<SpanId>,
    resends: u16,
    places: &'a CallPlaces,
    metrics: &'a Metrics,
    background: &'a CallsCaused,
    clock: &'a Clock,
    begun: Instant,
    ended: Option<Fault>,
    status: Option<u16>,
}

impl Attempt<'_> {
    fn span(&self, took: Duration) -> SpanDraft {
        let target = self.places.targets.get(self.operation as usize);
        let (method, template) = target.map_or(("", ""), |target| (target.0, target.1));
        let draft = SpanDraft::new(
            format!("{method} {template}"),
            SpanKind::Client,
            self.begun,
            took,
        )
        .with("http.request.method", method)
        .with("url.template", template)
        .with_some("url.full", target.map(|(_, _, full)| Arc::clone(full)))
        .with("server.address", Arc::clone(&self.places.host))
        .with("server.port", self.places.port)
        .with_some("http.response.status_code", self.status)
        .with_some(
            "http.request.resend_count",
            Some(self.resends).filter(|resends| *resends > 0),
        )
        .with("msp_gateway.vendor", self.operation.vendor().as_str())
        .with("msp_gateway.operation", self.operation.as_str())
        .with("msp_gateway.lane", self.lane.as_str());
        match self.ended {
            None => draft,
            Some(fault) => draft.failed(fault.as_str()),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if matches!(self.ended, Some(Fault::BudgetExhausted | Fault::StoreAway)) {
            // The vendor's hold-down began, or the store went away, before there was a connection.
            // So no attempt was made.
            return;
        }
        let sent = !self.ended.is_some_and(Fault::was_not_sent);
        if sent && !self.payer.charge() {
            self.background.add();
        }
        let took = self.clock.now().saturating_duration_since(self.begun);
        let outcome = self.ended.map_or("ok", Fault::as_str);
        let stage = StoryStage::Call {
            operation: self.operation,
            lane: self.lane,
            outcome,
            status: self.status,
        };
        self.payer.story.note(stage, self.begun, took);
        if let (Some(trace), Some(span)) = (self.payer.trace(), self.span) {
            trace.note(span, self.within, self.span(took));
        }
        self.metrics
            .vendor_request(self.operation, outcome, took.as_secs_f64());
    }
}
