//! How one vendor is called.

use std::sync::Arc;

use http::HeaderName;

use super::VendorRow;
use super::base_url::{BaseUrl, ProxyUrl};
use crate::admission::{CircuitSettings, GateSettings, Gates, PaceSettings, RetrySettings};
use crate::clock::{Clock, Duration};
use crate::domain::AccountId;
use crate::metrics::Metrics;
use crate::secrets::VendorKeyring;

/// The default maximum size of an answer. A page of 500 cases has a few megabytes at most.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// How one vendor is called. The key is not here but in the keyring.
#[derive(Clone, Debug)]
pub struct VendorOptions {
    /// The data about the vendor.
    pub row: &'static VendorRow,
    /// The vendor's base URL.
    pub base_url: BaseUrl,
    /// The proxy that opens tunnels to the vendor. `None`: connections are direct.
    pub proxy: Option<ProxyUrl>,
    /// The account that the keys belong to. It is a part of identities, and for N-able also the
    /// account id in the path.
    pub credential: AccountId,
    /// The header that carries the key.
    pub key_header: HeaderName,
    /// Requests a minute. A sixth of them may be sent in one burst.
    pub requests_per_minute: u32,
    /// The lowest rate, in requests a minute, if the vendor's limit is to be learnt
    /// ([`PaceSettings`]).
    pub learn_down_to: Option<u32>,
    /// Concurrent requests.
    pub concurrency: usize,
    /// Whether concurrency is reduced while the vendor is slow.
    pub concurrency_adaptive: bool,
    /// The longest wait that the vendor's headers can impose.
    pub hold_down_max: Duration,
    /// Time for one attempt, from the request to the end of the answer's body.
    pub timeout: Duration,
    /// Time for a connection, name lookup and TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. It is shorter than vendors' own limits of 60 s and
    /// more, so that a request seldom uses a connection that is being closed.
    pub idle_timeout: Duration,
    /// The maximum size of an answer, in bytes.
    pub body_bytes_max: usize,
    /// How often a call is attempted.
    pub retry: RetrySettings,
    /// When the circuit opens. Its `overlap` is ignored, because it follows from `timeout` and
    /// `concurrency`.
    pub circuit: CircuitSettings,
    /// Time between probes with a rejected key.
    pub credential_probe: Duration,
}

impl VendorOptions {
    /// Returns the settings of the vendor's gates.
    pub fn gate_settings(&self) -> GateSettings {
        let places = u32::try_from(self.concurrency.max(1)).unwrap_or(u32::MAX);
        GateSettings {
            pace: PaceSettings {
                requests_per_minute: self.requests_per_minute,
                concurrency: self.concurrency,
                learn_down_to: self.learn_down_to,
                concurrency_adaptive: self.concurrency_adaptive,
                hold_down_max: self.hold_down_max,
            },
            circuit: CircuitSettings {
                // With this overlap, probes that all hang until their timeout fill the places
                // exactly.
                overlap: (self.timeout / places).max(self.circuit.probe_every),
                ..self.circuit
            },
            retry: self.retry,
            credential_probe: self.credential_probe,
        }
    }

    /// Creates gates for this vendor that let calls through. A reload keeps the old ones and calls
    /// [`Gates::set`] with [`Self::gate_settings`].
    pub fn gates(&self, ring: VendorKeyring, clock: &Clock, metrics: &Arc<Metrics>) -> Gates {
        Gates::new(self.row.vendor, self.gate_settings(), ring, clock, metrics)
    }
}
