//! Logs one line for each vendor call, however it ends.

use super::layer;
use crate::admission::StoryStage;
use crate::clock::{Clock, Duration};
use crate::domain::Shortage;
use crate::upstream::step::Step;
use crate::upstream::{ConnectCause, Fault, UpstreamError, VendorAnswer, VendorCall};

layer!(ObserveLayer => Observe { clock: Clock });

impl ObserveLayer {
    /// Creates the layer. It measures time with this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }
}

impl<S: Step> Step for Observe<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        let spend = call.spend.clone();
        let (lane, payer) = (spend.lane, &spend.payer);
        let begun = self.clock.now();
        let result = self.inner.send(call).await;
        let took = self.clock.now().saturating_duration_since(begun);
        if let Err(error) = &result
            && error.was_refused_here()
        {
            let stage = StoryStage::Refused {
                operation,
                lane,
                outcome: error.fault.as_str(),
            };
            spend.note(stage, begun + took, Duration::ZERO);
        }
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (vendor, operation) = (operation.vendor().as_str(), operation.as_str());
        let (lane, caller) = (lane.as_str(), &**payer.name());
        let (request_id, trace_id) = (payer.request_id(), payer.trace_id());
        // The line contains only our own words: no address, no body and no header of either side.
        // `said` is already cleaned.
        match &result {
            Ok(answer) => {
                let bytes = answer.body.len();
                tracing::debug!(
                    vendor,
                    operation,
                    lane,
                    caller,
                    request_id,
                    trace_id,
                    ms,
                    bytes,
                    "vendor call"
                );
            }
            Err(error) => {
                let (outcome, detail) = (error.fault.as_str(), &*error.detail);
                let status = error.status.map(|status| status.as_u16());
                let cause = error.cause.map(ConnectCause::as_str);
                let short = error.short.map(Shortage::as_str);
                let said = error.said.as_deref();
                // One macro call for each level, because the level of an event must be a constant.
                macro_rules! tell {
                    ($level:ident) => {
                        tracing::$level!(
                            vendor,
                            operation,
                            lane,
                            caller,
                            request_id,
                            trace_id,
                            ms,
                            outcome,
                            status,
                            cause,
                            short,
                            detail,
                            said,
                            "vendor call"
                        )
                    };
                }
                match is_routine(error) {
                    true => tell!(debug),
                    false => tell!(warn),
                }
            }
        }
        result
    }
}

/// Returns whether this failure is not worth a warning: refusals that come in floods and whose
/// cause has a line of its own, and answers to wrong requests.
fn is_routine(error: &UpstreamError) -> bool {
    error.was_refused_here() || matches!(error.fault, Fault::Rejected | Fault::NotFound)
}
