//! Waits for budget and a place at the vendor. Holds the place until the answer's body has been
//! read.

use std::sync::Arc;

use super::layer;
use crate::admission::{Felt, Gates, Governor, StoryStage};
use crate::clock::{Clock, Duration};
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall};

layer!(PaceLayer => Pace {
    governor: Arc<Governor>,
    late_after: Duration,
    clock: Clock,
});

impl PaceLayer {
    /// Creates the layer around the vendor's governor. `timeout` is the limit of one attempt; an
    /// answer counts as late after half of it.
    pub fn new(gates: &Gates, timeout: Duration, clock: Clock) -> Self {
        Self {
            governor: Arc::clone(&gates.governor),
            late_after: timeout / 2,
            clock,
        }
    }
}

impl<S: Step> Step for Pace<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        let begun = self.clock.now();
        let admitted = self.governor.admit(&call.spend).await;
        let waited = self.clock.now().saturating_duration_since(begun);
        let stage = StoryStage::Budget(call.spend.lane);
        call.spend.note(stage, begun, waited);
        let permit = admitted.map_err(|refusal| UpstreamError::short_of(operation, refusal))?;
        let result = self.inner.send(call).await;
        if result.as_ref().is_err_and(UpstreamError::was_refused_here) {
            permit.unsent();
        } else {
            let felt = match &result {
                Err(error) if error.fault == Fault::Timeout => Felt::Late,
                Ok(_) if permit.age() > self.late_after => Felt::Late,
                Ok(_) => Felt::Prompt,
                Err(_) => Felt::Nothing,
            };
            let heard = match &result {
                Ok(_) => true,
                Err(error) => error.status.is_some() && error.fault != Fault::RateLimited,
            };
            if heard {
                permit.answered();
            }
            permit.ended(felt);
        }
        result
    }
}
