//! Chooses which of a vendor's keys to send, and stops sending keys that the vendor rejects.
//!
//! A rejected key is not sent again and again, because the vendor might lock the account. While
//! both keys are rejected, calls fail at once, except one probe per interval, until the keys change
//! or one works again. This file moves keys around and never reads their bytes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::remembered::{Notebook, read_wait, write_wait};
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{AccountId, Vendor};
use crate::metrics::Metrics;
use crate::secrets::{VendorKey, VendorKeyring, VendorKeys};
use crate::store::Store;

/// Number of 403 answers in a row, without an accepted call between them, that count as a rejected
/// key. A single 403 may be about one question, such as a customer of another MSP. A 401 counts
/// at once.
const FORBIDDEN_IN_ROW: u32 = 3;

/// One of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Primary,
    Fallback,
}

/// The key chosen for one request.
pub struct Chosen {
    keys: Arc<VendorKeys>,
    which: Which,
}

impl Chosen {
    /// Returns the key.
    pub fn key(&self) -> &VendorKey {
        match (&self.which, &self.keys.fallback) {
            (Which::Fallback, Some(fallback)) => fallback,
            _ => &self.keys.primary,
        }
    }
}

/// How the vendor answered to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// The vendor answered the question.
    Accepted,
    /// Status 401.
    Unauthorized,
    /// Status 403.
    Forbidden,
}

struct State {
    /// The keys to which the other members refer.
    keys: Arc<VendorKeys>,
    using: Which,
    primary_refused: bool,
    fallback_refused: bool,
    forbidden_in_row: u32,
    /// Whether the switch to the fallback key was already counted.
    counted: bool,
    /// While every key is rejected: when the next probe may go.
    closed_until: Option<Instant>,
}

impl State {
    fn new(keys: Arc<VendorKeys>) -> Self {
        Self {
            keys,
            using: Which::Primary,
            primary_refused: false,
            fallback_refused: false,
            forbidden_in_row: 0,
            counted: false,
            closed_until: None,
        }
    }

    fn wait(&self, now: Instant) -> Result<(), Duration> {
        match self.closed_until {
            Some(until) if until > now => Err(until.saturating_duration_since(now)),
            _ => Ok(()),
        }
    }

    fn other(&self, which: Which) -> Which {
        match which {
            Which::Primary if self.keys.fallback.is_some() => Which::Fallback,
            _ => Which::Primary,
        }
    }

    fn refused(&mut self, which: Which) -> &mut bool {
        match which {
            Which::Primary => &mut self.primary_refused,
            Which::Fallback => &mut self.fallback_refused,
        }
    }
}

/// The credential of one vendor, shared by its stack, the status page and reloads.
pub struct Credential {
    vendor: Vendor,
    ring: VendorKeyring,
    probe_every: Duration,
    clock: Clock,
    metrics: Arc<Metrics>,
    notebook: Notebook,
    state: Mutex<State>,
}

impl Credential {
    /// Creates a credential with no key rejected.
    pub fn new(
        vendor: Vendor,
        ring: VendorKeyring,
        probe_every: Duration,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let state = Mutex::new(State::new(ring.load_full()));
        Arc::new(Self {
            vendor,
            ring,
            probe_every,
            clock,
            metrics,
            notebook: Notebook::default(),
            state,
        })
    }

    /// From now on, stores whether the vendor rejects our keys. Stores nothing about the keys
    /// themselves.
    pub(super) fn remember(&self, store: &Store, account: &AccountId) {
        self.notebook
            .open(store, "credential", self.vendor, account);
    }

    /// Loads the stored state. If the keys were rejected before the restart, none is sent now
    /// either, for at most one probe interval.
    pub(super) async fn recall(&self) {
        let Ok(Some(kept)) = self.notebook.read().await else {
            return;
        };
        let Some(left) = read_wait(kept, self.probe_every, &self.clock) else {
            return;
        };
        let mut state = self.current();
        state.closed_until = Some(self.clock.now() + left);
        state.primary_refused = true;
        state.fallback_refused = state.keys.fallback.is_some();
    }

    fn note(&self, left: Option<Duration>) {
        self.notebook.note(&write_wait(left, &self.clock));
    }

    /// Checks whether a key may be sent now, without counting a probe.
    ///
    /// # Errors
    /// Returns the time until the next probe.
    pub fn peek(&self) -> Result<(), Duration> {
        self.current().wait(self.clock.now())
    }

    /// Admits one call. While all keys are rejected, admits one per interval.
    ///
    /// # Errors
    /// Returns the time until the next probe.
    pub fn admit(&self) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut state = self.current();
        state.wait(now)?;
        if state.closed_until.is_some() {
            state.closed_until = Some(now + self.probe_every);
            drop(state);
            self.note(Some(self.probe_every));
        }
        Ok(())
    }

    /// Returns the key to use for the next request.
    pub fn choose(&self) -> Chosen {
        let state = self.current();
        Chosen {
            keys: Arc::clone(&state.keys),
            which: state.using,
        }
    }

    /// Returns whether there is a second key to try after a rejection.
    pub fn has_another(&self) -> bool {
        let state = self.current();
        state.keys.fallback.is_some() && state.closed_until.is_none()
    }

    /// Returns whether every key is rejected now.
    pub fn is_rejected(&self) -> bool {
        self.current().closed_until.is_some()
    }

    /// Returns whether calls use the fallback key because the vendor rejects the primary one.
    pub fn uses_fallback(&self) -> bool {
        let state = self.current();
        state.using == Which::Fallback && state.primary_refused && state.closed_until.is_none()
    }

    /// Records how the vendor answered to a key.
    pub fn heard(&self, chosen: &Chosen, verdict: KeyVerdict) {
        let mut state = self.current();
        if !Arc::ptr_eq(&state.keys, &chosen.keys) {
            // The verdict is about keys that have been replaced.
            return;
        }
        match verdict {
            KeyVerdict::Accepted => self.accepted(&mut state, chosen.which),
            KeyVerdict::Unauthorized => self.refused(&mut state, chosen.which),
            KeyVerdict::Forbidden => {
                state.forbidden_in_row += 1;
                if state.forbidden_in_row >= FORBIDDEN_IN_ROW {
                    self.refused(&mut state, chosen.which);
                } else {
                    state.using = state.other(chosen.which);
                }
            }
        }
    }

    fn accepted(&self, state: &mut State, which: Which) {
        state.forbidden_in_row = 0;
        *state.refused(which) = false;
        if state.closed_until.take().is_some() {
            self.note(None);
            state.using = which;
            tracing::info!(
                vendor = self.vendor.as_str(),
                "the vendor accepts our key again"
            );
        }
        if which == Which::Fallback && !state.counted {
            state.counted = true;
            self.metrics.credential_fallback(self.vendor, true);
            tracing::warn!(
                vendor = self.vendor.as_str(),
                "the vendor rejects the primary key; the fallback key is used"
            );
        }
    }

    fn refused(&self, state: &mut State, which: Which) {
        *state.refused(which) = true;
        let other = state.other(which);
        let other_refused = *state.refused(other);
        // While all keys are rejected, probes alternate between them.
        state.using = other;
        if other_refused && state.closed_until.is_none() {
            state.closed_until = Some(self.clock.now() + self.probe_every);
            self.note(Some(self.probe_every));
            if state.keys.fallback.is_some() {
                self.metrics.credential_fallback(self.vendor, false);
            }
            tracing::error!(vendor = self.vendor.as_str(), "the vendor rejects our key");
        }
    }

    /// Returns the state, which starts over if the keys were replaced.
    fn current(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let keys = self.ring.load();
        if !Arc::ptr_eq(&state.keys, &keys) {
            *state = State::new(Arc::clone(&keys));
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;

    use super::*;
    use crate::clock::sleep;
    use crate::secrets::Secret;

    fn key(text: &str) -> VendorKey {
        VendorKey::new(Secret::parse(text).unwrap())
    }

    fn keys(primary: &str, fallback: Option<&str>) -> Arc<VendorKeys> {
        Arc::new(VendorKeys {
            primary: key(primary),
            fallback: fallback.map(key),
        })
    }

    fn credential(keys: Arc<VendorKeys>) -> Arc<Credential> {
        Credential::new(
            Vendor::Wiv,
            Arc::new(ArcSwap::new(keys)),
            Duration::from_secs(30),
            Clock::system(),
            Metrics::new().unwrap(),
        )
    }

    fn hears(credential: &Credential, verdict: KeyVerdict) {
        credential.heard(&credential.choose(), verdict);
    }

    #[tokio::test(start_paused = true)]
    async fn one_refused_key_closes_the_way_until_it_is_replaced() {
        let credential = credential(keys("one", None));
        hears(&credential, KeyVerdict::Unauthorized);
        assert!(!credential.has_another());
        assert_eq!(credential.admit(), Err(Duration::from_secs(30)));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(credential.admit(), Ok(()));
        assert!(credential.admit().is_err(), "one per interval");
        credential.ring.store(keys("two", None));
        assert_eq!(credential.admit(), Ok(()));
        assert!(!credential.is_rejected());
    }

    #[tokio::test(start_paused = true)]
    async fn the_fallback_is_used_from_then_on() {
        let credential = credential(keys("one", Some("two")));
        let late = credential.choose();
        hears(&credential, KeyVerdict::Unauthorized);
        assert!(credential.has_another());
        assert!(*credential.choose().key() == key("two"));
        hears(&credential, KeyVerdict::Accepted);
        credential.heard(&late, KeyVerdict::Unauthorized);
        assert!(*credential.choose().key() == key("two"));
        assert!(!credential.is_rejected() && credential.uses_fallback());
        credential.ring.store(keys("three", Some("four")));
        assert!(*credential.choose().key() == key("three") && !credential.uses_fallback());
        let text = credential.metrics.render().unwrap();
        assert!(
            text.contains(
                "vendor_credential_fallbacks_total{outcome=\"accepted\",vendor=\"wiv\"} 1"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn with_both_refused_probes_take_turns() {
        let credential = credential(keys("one", Some("two")));
        hears(&credential, KeyVerdict::Unauthorized);
        hears(&credential, KeyVerdict::Unauthorized);
        assert!(credential.is_rejected() && !credential.has_another());
        let mut seen = Vec::new();
        for _ in 0..4 {
            sleep(Duration::from_secs(30)).await;
            assert_eq!(credential.admit(), Ok(()));
            seen.push(*credential.choose().key() == key("one"));
            hears(&credential, KeyVerdict::Unauthorized);
        }
        assert_eq!(seen, [true, false, true, false]);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(credential.admit(), Ok(()));
        hears(&credential, KeyVerdict::Accepted);
        assert!(*credential.choose().key() == key("one"));
        assert_eq!((credential.admit(), credential.admit()), (Ok(()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn one_forbidden_question_closes_nothing() {
        let credential = credential(keys("one", None));
        for _ in 0..10 {
            hears(&credential, KeyVerdict::Forbidden);
            hears(&credential, KeyVerdict::Forbidden);
            hears(&credential, KeyVerdict::Accepted);
        }
        assert!(!credential.is_rejected());
        for _ in 0..3 {
            hears(&credential, KeyVerdict::Forbidden);
        }
        assert!(credential.is_rejected());
    }
}
