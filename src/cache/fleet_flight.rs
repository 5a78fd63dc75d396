//! One flight for all gateways that share a store. A gateway boards before it fetches: it uses the
//! answer that another gateway fetched, waits for the gateway that is fetching, or leads. A waiting
//! gateway boards again when the bell rings for the answer, and after a pause in any case.

use std::pin::pin;
use std::sync::Arc;

use super::freshness::{Lifetimes, Standing};
use super::keeping::Keeping;
use super::key::CacheKey;
use super::local::{Entry, Local};
use super::lookup::FetchError;
use crate::clock::{Clock, Duration, Instant, timeout};
use crate::store::fleet::ClaimId;
use crate::store::{Boarded, FETCH_LEASE};

/// The first pause before a waiting gateway boards again without a ring. It doubles each time.
const LOOK_FIRST: Duration = Duration::from_millis(10);
/// The longest such pause. If its ring is lost, an answer of another gateway arrives at most this
/// much later than our own would.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// How long a gateway waits for another one's fetch before it fetches on its own.
const FOLLOW_MAX: Duration = Duration::from_secs(20);
/// Unusable newer answers after which the gateway fetches on its own. More than one in a row means
/// that a clock jumped or that another program writes to the store.
const USELESS_MAX: u32 = 3;
/// A claim is renewed three times before it expires, so two renewals may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(FETCH_LEASE.as_secs() / 3);

/// The conditions for using an answer of another gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Lifetimes of good answers and of soft failures.
    pub lives: (Lifetimes, Duration),
    /// The vendor must have given it after this time. `None` means at any time.
    pub after: Option<Instant>,
    /// The start of the store's time limit.
    pub since: Instant,
}

/// The result of boarding.
pub(super) enum FleetBoarding<V: Clone + Send + Sync + 'static, E> {
    /// Another gateway's answer, which is in memory now.
    Landed(Arc<Entry<V>>),
    /// Another gateway's fetch failed.
    Failed(E),
    /// This gateway has to fetch it for all gateways.
    Lead(FetchClaim<V>),
    /// This gateway has to fetch it for itself.
    Alone,
}

/// A claim to fetch an answer for all gateways. Dropping it lets another gateway fetch.
pub(super) struct FetchClaim<V: Clone + Send + Sync + 'static> {
    keeping: Arc<Keeping<V>>,
    key: CacheKey,
    claim: ClaimId,
    is_over: bool,
}

impl<V: Clone + Send + Sync + 'static> FetchClaim<V> {
    /// Runs the fetch and renews the claim meanwhile.
    pub(super) async fn hold<T>(&self, fetch: impl Future<Output = T>) -> T {
        let mut fetch = pin!(fetch);
        loop {
            match timeout(RENEW_EVERY, &mut fetch).await {
                Ok(end) => return end,
                Err(_) => {
                    let store = &self.keeping.store;
                    store.renew_fetch(self.key.fingerprint(), self.claim);
                }
            }
        }
    }

    /// Shares the answer, which was fetched after `begun` purges.
    pub(super) fn land(mut self, entry: &Entry<V>, begun: u64, clock: &Clock) {
        self.is_over = true;
        let answer = self.keeping.kept_answer(entry, begun, clock);
        let store = &self.keeping.store;
        store.land_answer(self.key.fingerprint(), answer, self.claim);
    }

    /// Shares the failure if it was a complete answer of the vendor.
    pub(super) fn fail<E: FetchError>(mut self, error: &E) {
        let Some(failure) = error.to_shared() else {
            return;
        };
        self.is_over = true;
        let store = &self.keeping.store;
        store.fail_answer(self.key.fingerprint(), self.claim, &failure);
    }
}

impl<V: Clone + Send + Sync + 'static> Drop for FetchClaim<V> {
    fn drop(&mut self) {
        if !self.is_over {
            let store = &self.keeping.store;
            store.leave_answer(self.key.fingerprint(), self.claim);
        }
    }
}

impl<V: Clone + Send + Sync + 'static> Keeping<V> {
    /// Boards the flight of `key`, and waits while another gateway fetches.
    pub(super) async fn board<E: FetchError>(
        self: &Arc<Self>,
        local: &Local<V>,
        key: &CacheKey,
        wish: &Wish,
        clock: &Clock,
    ) -> FleetBoarding<V, E> {
        let (claim, began) = (ClaimId::random(), clock.now());
        let mut after = wish.after;
        let mut since = wish.since;
        let (mut pause, mut useless) = (LOOK_FIRST, 0);
        let mut bell = self.store.listen_to_answer(key.fingerprint(), since).await;
        loop {
            bell.looks(clock.now());
            let have = after.map(|at| clock.stamp_of(at));
            let kind = key.subject().kind();
            let boarded = self
                .store
                .board_answer(kind, key.fingerprint(), claim, have, since);
            let born = match boarded.await {
                Boarded::Found(kept) => {
                    let born = kept.born;
                    let usable = |entry: &Entry<V>| {
                        let now = clock.now();
                        let is_young = match entry.negative {
                            true => entry.age(now) < wish.lives.1,
                            false => entry.standing(&wish.lives.0, now) == Standing::Fresh,
                        };
                        // An answer that was fetched after boarding is shared even if it is stale
                        // at once.
                        !entry.purged && (is_young || entry.born >= began)
                    };
                    match self
                        .take(local, key, kept, wish.lives, clock)
                        .filter(|e| usable(e))
                    {
                        Some(entry) => return FleetBoarding::Landed(entry),
                        None => born,
                    }
                }
                Boarded::Useless(born) => born,
                Boarded::Failed(failure) => {
                    return match E::of_shared(failure) {
                        Some(error) => FleetBoarding::Failed(error),
                        None => FleetBoarding::Alone,
                    };
                }
                Boarded::Wait(left) => {
                    if clock.now().saturating_duration_since(began) >= FOLLOW_MAX {
                        return FleetBoarding::Alone;
                    }
                    bell.rung_within(pause.min(left)).await;
                    pause = (pause * 2).min(LOOK_MAX);
                    since = clock.now();
                    continue;
                }
                Boarded::Lead => {
                    return FleetBoarding::Lead(FetchClaim {
                        keeping: self.clone(),
                        key: key.clone(),
                        claim,
                        is_over: false,
                    });
                }
                Boarded::Alone => return FleetBoarding::Alone,
            };
            useless += 1;
            if useless > USELESS_MAX {
                return FleetBoarding::Alone;
            }
            after = after.max(clock.instant_of(&born));
            since = clock.now();
        }
    }
}
