//! All that decides whether and when one vendor is called.

use std::sync::Arc;

use parking_lot::Mutex;

use super::breaker::CircuitSettings;
use super::circuit::Circuit;
use super::credential::Credential;
use super::governor::Governor;
use super::pace::PaceSettings;
use super::retry::{RetryBudget, RetrySettings};
use crate::clock::{Clock, Duration};
use crate::domain::{AccountId, Vendor};
use crate::metrics::Metrics;
use crate::secrets::VendorKeyring;
use crate::store::Store;

/// The settings of a vendor's gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// Budget and requests at once.
    pub pace: PaceSettings,
    /// When the circuit opens.
    pub circuit: CircuitSettings,
    /// How often a call is tried.
    pub retry: RetrySettings,
    /// How often a refused key is presented again.
    pub credential_probe: Duration,
}

/// The gates of one vendor. They outlive stacks: a reload builds a new stack around the same gates.
#[derive(Clone)]
pub struct Gates {
    /// Whose.
    pub vendor: Vendor,
    /// Budget, places and queue.
    pub governor: Arc<Governor>,
    /// The circuit.
    pub circuit: Arc<Circuit>,
    /// The keys.
    pub credential: Arc<Credential>,
    /// What retries may cost.
    pub retries: Arc<Mutex<RetryBudget>>,
}

impl Gates {
    /// Everything open and full.
    pub fn new(
        vendor: Vendor,
        settings: GateSettings,
        ring: VendorKeyring,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (own_clock, own_metrics) = (|| clock.clone(), || Arc::clone(metrics));
        Self {
            vendor,
            governor: Governor::new(vendor, settings.pace, own_clock(), metrics),
            circuit: Circuit::new(vendor, settings.circuit, own_clock(), own_metrics()),
            credential: Credential::new(
                vendor,
                ring,
                settings.credential_probe,
                own_clock(),
                own_metrics(),
            ),
            retries: Arc::new(Mutex::new(RetryBudget::new(settings.retry, clock.now()))),
        }
    }

    /// From now on the store keeps what the vendor says about its limits and our keys, and what it
    /// kept is taken over. To be called once, within a runtime.
    ///
    /// No call goes before the store has said what it kept, or that it does not say: a second at most.
    pub fn remember(&self, store: &Store, account: &AccountId) {
        if !store.is_on() {
            return;
        }
        self.governor.remember(store, account);
        self.credential.remember(store, account);
        let (governor, credential) = (self.governor.clone(), self.credential.clone());
        tokio::spawn(async move {
            credential.recall().await;
            governor.recall().await;
        });
    }

    /// Changes rates and circuit settings while calls go on, forgetting nothing.
    pub fn set(&self, settings: GateSettings) {
        self.governor.set(settings.pace);
        self.circuit.set(settings.circuit);
    }
}
