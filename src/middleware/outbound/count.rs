//! Counts and times every attempt, and records it with the payer.

use std::sync::Arc;

use super::layer;
use crate::admission::{Lane, Payer, StoryStage};
use crate::clock::{Clock, Instant};
use crate::domain::Operation;
use crate::metrics::{CallsCaused, Metrics};
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall};

layer!(CountLayer => Count {
    metrics: Arc<Metrics>,
    background: CallsCaused,
    clock: Clock,
});

impl CountLayer {
    /// Creates the layer. It counts into these metrics.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            background: metrics.background_calls(),
            metrics,
            clock,
        }
    }
}

impl<S: Step> Step for Count<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let mut attempt = Attempt {
            operation: call.operation,
            lane: call.spend.lane,
            payer: Arc::clone(&call.spend.payer),
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
    metrics: &'a Metrics,
    background: &'a CallsCaused,
    clock: &'a Clock,
    begun: Instant,
    ended: Option<Fault>,
    status: Option<u16>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.ended == Some(Fault::BudgetExhausted) {
            // The vendor's hold-down began before there was a connection, so no attempt was made.
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
        self.metrics
            .vendor_request(self.operation, outcome, took.as_secs_f64());
    }
}
