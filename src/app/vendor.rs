//! One vendor's side of the gateway, and how a reload changes it while calls go on.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::BuildError;
use crate::admission::Gates;
use crate::clock::Clock;
use crate::config::{VendorSecrets, VendorSettings};
use crate::domain::Vendor;
use crate::metrics::Metrics;
use crate::secrets::{VendorKeyring, VendorKeys};
use crate::stack::outbound;
use crate::upstream::connect::{InMemory, https_connector};
use crate::upstream::{VendorOptions, VendorService};

/// How vendors and the collector of spans are reached.
#[derive(Clone)]
pub enum Way {
    /// Over the network, with TLS if the settings say https.
    Network,
    /// Through pipes to a vendor in this process. Tests use it, because it needs no socket.
    InMemory(InMemory),
}

/// A configured vendor.
pub(super) struct Side {
    way: Way,
    options: VendorOptions,
    gates: Gates,
    ring: VendorKeyring,
    current: Arc<ArcSwap<VendorService>>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A prepared change of a vendor's side. It can no longer fail.
pub(super) struct Prepared {
    gates: Gates,
    ring: VendorKeyring,
    current: Arc<ArcSwap<VendorService>>,
    options: VendorOptions,
    service: VendorService,
    keys: VendorKeys,
}

impl Prepared {
    pub(super) fn commit(self) {
        // Unchanged keys stay the same object, so what is known about them, such as a rejection, is
        // not lost when other settings change.
        if **self.ring.load() != self.keys {
            self.ring.store(Arc::new(self.keys));
        }
        self.gates.set(self.options.gate_settings());
        self.current.store(Arc::new(self.service));
    }
}

impl Side {
    pub(super) fn new(
        way: &Way,
        settings: &VendorSettings,
        secrets: &VendorSecrets,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let options = options(settings, secrets);
        let ring: VendorKeyring = Arc::new(ArcSwap::from_pointee(secrets.keys.clone()));
        let gates = options.gates(ring.clone(), clock, metrics);
        let service = service(way, &options, &gates, clock, metrics)?;
        Ok(Self {
            way: way.clone(),
            current: Arc::new(ArcSwap::from_pointee(service)),
            options,
            gates,
            ring,
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    }

    /// Returns the vendor's service. Each call uses the stack that is in force when the call
    /// begins.
    pub(super) fn service(&self) -> VendorService {
        let current = self.current.clone();
        VendorService::new(move |call| current.load().call(call))
    }

    pub(super) fn vendor(&self) -> Vendor {
        self.options.row.vendor
    }

    pub(super) fn options(&self) -> &VendorOptions {
        &self.options
    }

    pub(super) fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Builds the parts for new settings without changing anything. Settings that need a restart go
    /// to `later`.
    pub(super) fn prepare(
        side: &Option<Self>,
        vendor: Vendor,
        settings: &Option<VendorSettings>,
        secrets: &Option<VendorSecrets>,
        later: &mut Vec<String>,
    ) -> Result<Option<Prepared>, BuildError> {
        let name = vendor.as_str();
        let (side, settings, secrets) = match (side, settings, secrets) {
            (Some(side), Some(settings), Some(secrets)) => (side, settings, secrets),
            // The vendor is not configured, or is optional and has no key.
            (None, None, _) | (None, Some(_), None) => return Ok(None),
            _ => {
                later.push(format!(
                    "{name}: enabling or disabling a vendor needs a restart"
                ));
                return Ok(None);
            }
        };
        let options = options(settings, secrets);
        if options.credential != side.options.credential {
            // The account is part of every cache key: remembered answers belong to the other
            // account.
            later.push(format!("{name}: a change of the account needs a restart"));
            return Ok(None);
        }
        let service = service(&side.way, &options, &side.gates, &side.clock, &side.metrics)?;
        Ok(Some(Prepared {
            gates: side.gates.clone(),
            ring: side.ring.clone(),
            current: side.current.clone(),
            keys: secrets.keys.clone(),
            service,
            options,
        }))
    }
}

fn options(settings: &VendorSettings, secrets: &VendorSecrets) -> VendorOptions {
    VendorOptions {
        credential: secrets.account.clone(),
        ..settings.options.clone()
    }
}

fn service(
    way: &Way,
    options: &VendorOptions,
    gates: &Gates,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<VendorService, BuildError> {
    Ok(match way {
        Way::Network => {
            let connector = https_connector(options)
                .map_err(|why| BuildError(format!("TLS cannot be set up: {why}")))?;
            outbound(options, gates, clock, metrics, connector)
        }
        Way::InMemory(connector) => outbound(options, gates, clock, metrics, connector.clone()),
    })
}
