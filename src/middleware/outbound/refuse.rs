//! Refuses calls at once while the vendor fails or rejects our keys.

use std::sync::Arc;

use super::layer;
use crate::admission::{Circuit, Credential, Gates};
use crate::clock::Duration;
use crate::domain::Operation;
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall};

layer!(RefuseLayer => Refuse {
    circuit: Arc<Circuit>,
    credential: Arc<Credential>,
});

impl RefuseLayer {
    /// Creates the layer around the vendor's gates.
    pub fn new(gates: &Gates) -> Self {
        Self {
            circuit: Arc::clone(&gates.circuit),
            credential: Arc::clone(&gates.credential),
        }
    }
}

impl<S: Step> Step for Refuse<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        self.circuit
            .peek()
            .map_err(|wait| circuit_open(operation, wait))?;
        self.credential
            .peek()
            .map_err(|wait| keys_refused(operation, wait))?;
        self.inner.send(call).await
    }
}

pub(super) fn circuit_open(operation: Operation, wait: Duration) -> UpstreamError {
    UpstreamError::new(
        operation,
        Fault::CircuitOpen,
        "recent calls to the vendor failed",
    )
    .with_retry_after(wait)
}

pub(super) fn keys_refused(operation: Operation, wait: Duration) -> UpstreamError {
    let detail = "the vendor rejected our key recently";
    UpstreamError::new(operation, Fault::CredentialRejected, detail).with_retry_after(wait)
}
