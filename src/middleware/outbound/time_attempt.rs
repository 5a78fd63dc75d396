//! Ends an attempt that takes too long. Dropping the attempt closes its connection.

use super::layer;
use crate::clock::{Clock, Duration, timeout_at};
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall};

layer!(TimeAttemptLayer => TimeAttempt { limit: Duration, clock: Clock });

impl TimeAttemptLayer {
    /// Creates the layer. An attempt may take `limit`, and never longer than the call's deadline.
    pub fn new(limit: Duration, clock: Clock) -> Self {
        Self { limit, clock }
    }
}

impl<S: Step> Step for TimeAttempt<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        let limit = self.clock.now() + self.limit;
        let deadline = call.spend.deadline;
        match timeout_at(limit.min(deadline), self.inner.send(call)).await {
            Ok(result) => result,
            Err(_) => {
                let detail = if deadline < limit {
                    "no complete answer before the call's deadline"
                } else {
                    "no complete answer within the time for one attempt"
                };
                Err(UpstreamError::new(operation, Fault::Timeout, detail))
            }
        }
    }
}
