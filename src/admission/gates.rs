//! Bundles everything that decides whether and when one vendor is called.

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
    /// Budget and number of concurrent requests.
    pub pace: PaceSettings,
    /// When the circuit opens.
    pub circuit: CircuitSettings,
    /// How often a call is attempted.
    pub retry: RetrySettings,
    /// Time between probes with a rejected key.
    pub credential_probe: Duration,
}

/// The gates of one vendor. They outlive its stack: a reload builds a new stack around the same
/// gates.
#[derive(Clone)]
pub struct Gates {
    /// The vendor.
    pub vendor: Vendor,
    /// Budget, places and queue.
    pub governor: Arc<Governor>,
    /// The circuit.
    pub circuit: Arc<Circuit>,
    /// The keys.
    pub credential: Arc<Credential>,
    /// Limits the share of retries.
    pub retries: Arc<Mutex<RetryBudget>>,
}

impl Gates {
    /// Creates gates that let calls through: closed circuit, full budget, no key rejected.
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

    /// From now on, stores what the vendor said about its limits and our keys. Loads what was
    /// stored before. Call this once, within a runtime.
    ///
    /// No call goes out until the store has answered or has failed to, which takes a second at
    /// most.
    pub fn remember(&self, store: &Store, account: &AccountId) {
        if !store.is_on() {
            return;
        }
        self.credential.remember(store, account);
        let (governor, credential) = (self.governor.clone(), self.credential.clone());
        let is_shared = store.is_shared();
        match is_shared {
            true => governor.share(store, account),
            false => governor.remember(store, account),
        }
        tokio::spawn(async move {
            credential.recall().await;
            match is_shared {
                true => governor.open_purse().await,
                false => governor.recall().await,
            }
        });
    }

    /// Changes rates and circuit settings. Calls in flight go on, and everything learnt is kept.
    pub fn set(&self, settings: GateSettings) {
        self.governor.set(settings.pace);
        self.circuit.set(settings.circuit);
    }
}
