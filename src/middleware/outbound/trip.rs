//! Checks the circuit and the credential just before sending, and records the outcome with the
//! circuit.

use std::sync::Arc;

use super::layer;
use super::refuse::{circuit_open, keys_refused};
use crate::admission::breaker::CircuitVerdict;
use crate::admission::{Circuit, Credential, Gates, Governor};
use crate::clock::{Clock, Duration};
use crate::upstream::step::Step;
use crate::upstream::{Fault, UpstreamError, VendorAnswer, VendorCall};

/// A timeout counts as the vendor's failure only if the attempt had at least this long. A deadline
/// that was nearly over when the call was sent proves nothing about the vendor.
const FAIR_TIME: Duration = Duration::from_secs(1);

layer!(TripLayer => Trip {
    circuit: Arc<Circuit>,
    credential: Arc<Credential>,
    governor: Arc<Governor>,
    fair_time: Duration,
    clock: Clock,
});

impl TripLayer {
    /// Creates the layer. `timeout` is the limit of one attempt.
    pub fn new(gates: &Gates, timeout: Duration, clock: Clock) -> Self {
        Self {
            circuit: Arc::clone(&gates.circuit),
            credential: Arc::clone(&gates.credential),
            governor: Arc::clone(&gates.governor),
            fair_time: FAIR_TIME.min(timeout),
            clock,
        }
    }
}

impl<S: Step> Step for Trip<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        let pass = self
            .circuit
            .admit()
            .map_err(|wait| circuit_open(operation, wait))?;
        self.credential
            .admit()
            .map_err(|wait| keys_refused(operation, wait))?;
        let begun = self.clock.now();
        let result = self.inner.send(call).await;
        let had = self.clock.now().saturating_duration_since(begun);
        if pass.heard(verdict(&result, had >= self.fair_time)) {
            // Every waiting call would go now. The budget restarts so that they do not all go at
            // once.
            self.governor.begin_anew();
        }
        result
    }
}

fn verdict(result: &Result<VendorAnswer, UpstreamError>, fair: bool) -> CircuitVerdict {
    let fault = match result {
        Ok(_) => return CircuitVerdict::Alive,
        Err(error) => error.fault,
    };
    match fault {
        Fault::Connect | Fault::Reset | Fault::BodyCut | Fault::ServerError => {
            CircuitVerdict::Failed
        }
        Fault::Timeout if fair => CircuitVerdict::Failed,
        Fault::Timeout
        | Fault::StaleConnection
        | Fault::Disabled
        | Fault::CircuitOpen
        | Fault::BudgetExhausted
        | Fault::StoreAway
        | Fault::Internal => CircuitVerdict::Unknown,
        // The vendor answered, whatever the status.
        Fault::RateLimited
        | Fault::TooLarge
        | Fault::CredentialRejected
        | Fault::Rejected
        | Fault::NotFound
        | Fault::Redirected
        | Fault::UnexpectedStatus
        | Fault::Malformed => CircuitVerdict::Alive,
    }
}
