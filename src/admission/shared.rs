//! One gateway's access to the budget of a vendor account, which all gateways over one store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::task::AbortHandle;

use super::pace::PaceRefusal;
use crate::clock::{Duration, sleep};
use crate::domain::{AccountId, Shortage, Vendor};
use crate::store::fleet::ClaimId;
use crate::store::{
    PLACE_LEASE, PurseReply, PurseTake, PurseVerdict, PurseWord, STORE_RETRY, Store, StoreBar,
    StoreFault, StoreHealth, WhenAway,
};

/// Missing replies in a row after which the gateway continues without the store. With fewer, one
/// slow moment of the server would empty the bucket.
const LATE_MAX: u32 = 3;

/// Pause between two messages that keep the place of a call. Two of them may be lost.
const KEEP_EVERY: Duration = Duration::from_millis(PLACE_LEASE.as_millis() as u64 * 3 / 10);

/// The refusal of a call that needs the store.
const BARRED: PaceRefusal = PaceRefusal {
    retry_after: STORE_RETRY,
    short: Shortage::Store,
};

/// The budget of one account in the store.
pub(super) struct SharedBudget {
    store: Store,
    account: Arc<str>,
    /// Number of missing replies in a row.
    late: AtomicU32,
    /// Number of the fleet's beats when this gateway left the store.
    left_at: AtomicU64,
}

impl SharedBudget {
    pub fn new(store: &Store, vendor: Vendor, account: &AccountId) -> Self {
        Self {
            store: store.clone(),
            account: format!("{}/{}", vendor.as_str(), account.as_str()).into(),
            late: AtomicU32::new(0),
            left_at: AtomicU64::new(0),
        }
    }

    /// Requests one call from the store. Dropping the call gives it back, if it was taken.
    pub async fn take(&self, wish: PurseTake) -> (SharedCall, Result<PurseReply, StoreFault>) {
        let mut call = SharedCall {
            store: self.store.clone(),
            account: self.account.clone(),
            id: ClaimId::random(),
            cost_us: wish.cost_us,
            is_probe: false,
            state: CallState::Unsent,
            keeper: None,
        };
        let reply = self.store.take_call(&self.account, call.id, wish).await;
        match reply {
            Ok(reply) => {
                self.late.store(0, Ordering::Relaxed);
                call.is_probe = matches!(reply.verdict, PurseVerdict::Probe { .. });
                if !reply.verdict.goes() {
                    call.state = CallState::Unknown;
                }
            }
            Err(_) => {
                self.late.fetch_add(1, Ordering::Relaxed);
            }
        }
        (call, reply)
    }

    /// Reads the budget and takes nothing.
    pub async fn look(&self, wish: PurseTake) {
        let none = PurseTake { places: 0, ..wish };
        let (_, reply) = self.take(none).await;
        if reply.is_err() {
            tracing::debug!("the store gave no reply about a budget");
        }
    }

    /// Shares news about the account with the other gateways.
    pub fn tell(&self, word: PurseWord) {
        self.store.share_word(&self.account, word);
    }

    /// Returns the refusal of every call, if the store is away and forbids calls without it.
    pub fn barred(&self) -> Option<PaceRefusal> {
        (self.store.bar() != StoreBar::Nothing).then_some(BARRED)
    }

    /// Returns how many gateways divide the budget, if this gateway has to continue without the
    /// store. `None` if the store was only late once.
    ///
    /// # Errors
    /// If the store forbids calls without its grant.
    pub fn leave(&self) -> Result<Option<u32>, PaceRefusal> {
        let late = self.late.load(Ordering::Relaxed);
        if late < LATE_MAX && self.store.health() != StoreHealth::Away {
            return Ok(None);
        }
        self.late.store(0, Ordering::Relaxed);
        if self.store.when_away() == WhenAway::StaleOnly {
            return Err(BARRED);
        }
        let view = self.store.fleet_view();
        self.left_at.store(view.beats, Ordering::Relaxed);
        Ok(Some(view.replicas))
    }

    /// Returns whether a beat got a reply since this gateway left the store.
    pub fn is_back(&self) -> bool {
        self.store.fleet_view().beats > self.left_at.load(Ordering::Relaxed)
    }
}

/// One call in the store. Dropping it ends its place.
///
/// While the call is sent, a task keeps its place. So the places of a gateway that dies are free
/// before another one takes over its walks.
pub(super) struct SharedCall {
    store: Store,
    account: Arc<str>,
    id: ClaimId,
    cost_us: u64,
    is_probe: bool,
    state: CallState,
    keeper: Option<AbortHandle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallState {
    /// The store may have granted it, and it was not sent to the vendor.
    Unsent,
    /// The store granted it, and it is sent to the vendor.
    Sent,
    /// The store did not grant it.
    Unknown,
}

impl SharedCall {
    /// Returns whether the call probes the end of a hold-down.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Records that the call goes out now.
    pub fn into_sent(mut self) -> Self {
        self.state = CallState::Sent;
        let (store, account, id) = (self.store.clone(), self.account.clone(), self.id);
        let keeper = tokio::spawn(async move {
            loop {
                sleep(KEEP_EVERY).await;
                store.keep_call(&account, id);
            }
        });
        self.keeper = Some(keeper.abort_handle());
        self
    }

    /// Records that the call never went out, so that it costs nothing.
    pub fn was_not_sent(&mut self) {
        self.state = CallState::Unsent;
    }
}

impl Drop for SharedCall {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        let back_us = match self.state {
            CallState::Unsent => self.cost_us,
            CallState::Sent => 0,
            CallState::Unknown => return,
        };
        self.store.end_call(&self.account, self.id, back_us);
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
