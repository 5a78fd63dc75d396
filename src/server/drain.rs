//! How the gateway leaves: step by step, so that no request is lost.

use std::sync::Arc;

use tokio::sync::watch;

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Everything is taken.
    Serving,
    /// Readiness fails and answers say `Connection: close`, but everything is still taken.
    Leaving,
    /// No new connections; what is in flight ends.
    Closing,
    /// What is still in flight is cut.
    Cut,
}

/// The one handle of the drain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(Arc<watch::Sender<DrainPhase>>);

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(DrainPhase::Serving)))
    }
}

impl Drain {
    /// Begins to leave: for the first termination signal.
    pub fn begin(&self) {
        self.advance(DrainPhase::Leaving);
    }

    /// Leaves at once: for the second termination signal.
    pub fn cut(&self) {
        self.advance(DrainPhase::Cut);
    }

    /// The current step.
    pub fn phase(&self) -> DrainPhase {
        *self.0.borrow()
    }

    /// Whether readiness should fail.
    pub fn is_draining(&self) -> bool {
        self.phase() > DrainPhase::Serving
    }

    /// Goes on to a later step; never back.
    pub(super) fn advance(&self, to: DrainPhase) {
        self.0.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Waits for a step or a later one.
    pub async fn reached(&self, phase: DrainPhase) {
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|now| *now >= phase).await;
    }
}
