//! The shared handle of a vendor's circuit breaker.

use std::sync::Arc;

use parking_lot::Mutex;

use super::breaker::{Breaker, CircuitSettings, CircuitState, CircuitTicket, CircuitVerdict};
use crate::clock::{Clock, Duration};
use crate::domain::Vendor;
use crate::metrics::Metrics;

/// State of a circuit, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSnapshot {
    /// Closed, half-open or open.
    pub state: CircuitState,
    /// Time until a probe is due, while open.
    pub probe_in: Option<Duration>,
}

/// The circuit of one vendor, shared by its stack, the status page and reloads.
pub struct Circuit {
    vendor: Vendor,
    clock: Clock,
    metrics: Arc<Metrics>,
    breaker: Mutex<Breaker>,
}

impl Circuit {
    /// Creates a closed circuit.
    pub fn new(
        vendor: Vendor,
        settings: CircuitSettings,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        metrics.set_circuit_state(vendor, CircuitState::Closed.gauge());
        let breaker = Breaker::new(settings, clock.now(), fastrand::u64(..));
        Arc::new(Self {
            vendor,
            clock,
            metrics,
            breaker: Mutex::new(breaker),
        })
    }

    /// Changes the settings and keeps the state.
    pub fn set(&self, settings: CircuitSettings) {
        self.breaker.lock().set(settings);
    }

    /// Returns whether the circuit is closed, so that every call may go.
    pub fn is_closed(&self) -> bool {
        self.breaker.lock().state() == CircuitState::Closed
    }

    /// Checks whether a call could go now, without admitting one.
    ///
    /// # Errors
    /// Returns the time until the next probe is due.
    pub fn peek(&self) -> Result<(), Duration> {
        self.breaker.lock().peek(self.clock.now())
    }

    /// Admits one call. Record its outcome with [`Pass::heard`]. Dropping the pass records nothing.
    ///
    /// # Errors
    /// Returns the time until the next probe is due.
    pub fn admit(self: &Arc<Self>) -> Result<Pass, Duration> {
        let mut breaker = self.breaker.lock();
        let ticket = breaker.admit(self.clock.now())?;
        self.show(breaker.state());
        Ok(Pass {
            circuit: Arc::clone(self),
            ticket: Some(ticket),
        })
    }

    /// Returns the state for operators.
    pub fn snapshot(&self) -> CircuitSnapshot {
        let breaker = self.breaker.lock();
        CircuitSnapshot {
            state: breaker.state(),
            probe_in: breaker.peek(self.clock.now()).err(),
        }
    }

    /// Records a verdict. Returns whether it closed the circuit.
    fn heard(&self, ticket: CircuitTicket, verdict: CircuitVerdict) -> bool {
        let mut breaker = self.breaker.lock();
        let before = breaker.state();
        breaker.heard(self.clock.now(), ticket, verdict);
        let after = breaker.state();
        self.show(after);
        drop(breaker);
        match (before, after) {
            (CircuitState::Closed, CircuitState::Open) => {
                tracing::warn!(vendor = self.vendor.as_str(), "circuit opened");
            }
            (CircuitState::HalfOpen | CircuitState::Open, CircuitState::Closed) => {
                tracing::info!(vendor = self.vendor.as_str(), "circuit closed");
            }
            _ => {}
        }
        before != CircuitState::Closed && after == CircuitState::Closed
    }

    fn show(&self, state: CircuitState) {
        self.metrics.set_circuit_state(self.vendor, state.gauge());
    }
}

/// Permission for one call through the circuit.
#[must_use = "dropping it tells the circuit that nothing was learnt"]
pub struct Pass {
    circuit: Arc<Circuit>,
    ticket: Option<CircuitTicket>,
}

impl Pass {
    /// Records how the call went. Returns whether that closed the circuit, which means that the
    /// vendor is back.
    pub fn heard(mut self, verdict: CircuitVerdict) -> bool {
        self.tell(verdict)
    }

    fn tell(&mut self, verdict: CircuitVerdict) -> bool {
        let ticket = self.ticket.take();
        ticket.is_some_and(|ticket| self.circuit.heard(ticket, verdict))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.tell(CircuitVerdict::Unknown);
    }
}
