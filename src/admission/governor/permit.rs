//! The right to have one request in flight.

use std::sync::Arc;

use super::Governor;
use crate::admission::places::Felt;
use crate::admission::shared::SharedCall;
use crate::clock::{Duration, Instant};

impl Governor {
    /// Returns the permit of an admitted call. `probe` is true while a hold-down is running.
    pub(super) fn permit(
        self: &Arc<Self>,
        probe: bool,
        shared: Option<SharedCall>,
    ) -> VendorPermit {
        let now = self.clock.now();
        if self.notebook.is_due(now) {
            let memory = self.inner.lock().pace.memory(now);
            self.note(memory);
        }
        VendorPermit {
            governor: Arc::clone(self),
            began: self.clock.now(),
            sent: true,
            probe: probe || shared.as_ref().is_some_and(SharedCall::is_probe),
            felt: Felt::Nothing,
            shared: shared.map(SharedCall::into_sent),
        }
    }

    fn release(&self, permit: &VendorPermit) {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        inner.pace.felt(now, permit.felt, permit.began);
        inner.pace.release(permit.sent);
        self.settle(&mut inner, None);
    }
}

/// The right to have one request in flight. Hold it until the answer's body has been read.
#[must_use = "dropping it frees the place"]
pub struct VendorPermit {
    governor: Arc<Governor>,
    began: Instant,
    sent: bool,
    probe: bool,
    felt: Felt,
    /// Its place in the store.
    shared: Option<SharedCall>,
}

impl VendorPermit {
    /// Records that the vendor answered with another status than 429. If the call was a probe, ends
    /// the hold-down.
    pub fn answered(&self) {
        if self.probe
            && let Some(left) = self.governor.resume()
        {
            tracing::info!(
                vendor = self.governor.vendor.as_str(),
                left_s = left.as_secs(),
                "the vendor answers again; the rest of the wait that it asked for is skipped"
            );
        }
    }

    /// Returns the place and the budget, because nothing was sent.
    pub fn unsent(mut self) {
        self.sent = false;
        if let Some(call) = self.shared.as_mut() {
            call.was_not_sent();
        }
    }

    /// Returns the time since the permit was given.
    pub fn age(&self) -> Duration {
        let now = self.governor.clock.now();
        now.saturating_duration_since(self.began)
    }

    /// Returns the place and records how the call went.
    pub fn ended(mut self, felt: Felt) {
        self.felt = felt;
    }
}

impl Drop for VendorPermit {
    fn drop(&mut self) {
        // The place in the store is freed first, so that the next waiter finds it free.
        drop(self.shared.take());
        self.governor.clone().release(self);
    }
}
