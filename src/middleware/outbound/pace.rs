//! Waits for budget and a place; holds the place until the answer's body has been read.

use std::sync::Arc;

use super::layer;
use crate::admission::{Gates, Governor};
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall};

layer!(PaceLayer => Pace { governor: Arc<Governor> });

impl PaceLayer {
    /// Shares the vendor's budget.
    pub fn new(gates: &Gates) -> Self {
        Self {
            governor: Arc::clone(&gates.governor),
        }
    }
}

impl<S: Step> Step for Pace<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        let permit = self.governor.admit(&call.spend).await.map_err(|refusal| {
            UpstreamError::new(operation, Fault::BudgetExhausted, refusal.why)
                .with_retry_after(refusal.retry_after)
        })?;
        let result = self.inner.send(call).await;
        if result.as_ref().is_err_and(UpstreamError::was_refused_here) {
            permit.unsent();
        } else {
            drop(permit);
        }
        result
    }
}
