//! All snapshots of one search: the current one, and the one walk that may change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use super::frozen::{Snapshot, WalkFailure};
use crate::cache::CacheKey;
use crate::clock::Instant;
use crate::domain::SearchQuery;

/// The snapshots of one search.
pub struct Lineage {
    /// What is searched.
    pub key: CacheKey,
    /// The same, in words.
    pub query: Arc<SearchQuery>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    turn: Semaphore,
    waiting: AtomicUsize,
    /// Rings when another walk of the search waits for its turn: an idle walk gives up its scroll.
    pub(super) pressed: Notify,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Snapshot>>,
    /// Since when a refresh is under way.
    refreshing: Option<Instant>,
    failures: u64,
    failure: Option<(WalkFailure, Instant)>,
}

impl Lineage {
    /// No snapshot yet.
    pub fn new(key: CacheKey, query: Arc<SearchQuery>) -> Arc<Self> {
        Arc::new(Self {
            key,
            query,
            state: Mutex::new(State::default()),
            changed: watch::Sender::new(0),
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            pressed: Notify::new(),
        })
    }

    /// The snapshot that first pages are cut from.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.state.lock().current.clone()
    }

    /// Puts `snapshot` in the place of the current one, which stays for its tokens.
    pub(super) fn replace(&self, snapshot: Arc<Snapshot>) {
        self.state.lock().current = Some(snapshot);
    }

    /// Makes `fresh()` current if there is none; returns the current one and whether it is new.
    pub(super) fn current_or(
        &self,
        fresh: impl FnOnce() -> Arc<Snapshot>,
    ) -> (Arc<Snapshot>, bool) {
        let mut state = self.state.lock();
        match &state.current {
            Some(current) => (current.clone(), false),
            None => {
                let snapshot = fresh();
                state.current = Some(snapshot.clone());
                (snapshot, true)
            }
        }
    }

    /// Lets go of a snapshot. Returns whether the lineage is empty and idle now.
    pub(super) fn forget(&self, snapshot: &Arc<Snapshot>) -> bool {
        let mut state = self.state.lock();
        if state
            .current
            .as_ref()
            .is_some_and(|c| Arc::ptr_eq(c, snapshot))
        {
            state.current = None;
        }
        state.current.is_none() && state.refreshing.is_none()
    }

    /// Whether nothing is held and nothing goes on.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.current.is_none() && state.refreshing.is_none()
    }

    /// Begins a refresh, unless one is under way or failed a moment ago.
    pub(super) fn begin_refresh(&self, now: Instant) -> Result<bool, WalkFailure> {
        let mut state = self.state.lock();
        if state.refreshing.is_some() {
            return Ok(false);
        }
        if let Some((failure, until)) = &state.failure
            && now < *until
        {
            return Err(failure.clone());
        }
        state.refreshing = Some(now);
        Ok(true)
    }

    /// Ends a refresh and wakes those who wait for it. A failure is held until the given time.
    pub(super) fn end_refresh(&self, failure: Option<(WalkFailure, Instant)>) {
        let mut state = self.state.lock();
        state.refreshing = None;
        if failure.is_some() {
            state.failures += 1;
        }
        state.failure = failure;
        drop(state);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The failure of a first walk, held for a moment: a burst must not become a burst of calls.
    pub(super) fn hold_failure(&self, failure: WalkFailure, until: Instant) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.failure = Some((failure, until));
    }

    /// The failure that is held now, if any.
    pub(super) fn held_failure(&self, now: Instant) -> Option<WalkFailure> {
        let state = self.state.lock();
        match &state.failure {
            Some((failure, until)) if now < *until => Some(failure.clone()),
            _ => None,
        }
    }

    pub(super) fn failures(&self) -> u64 {
        self.state.lock().failures
    }

    pub(super) fn failure_since(&self, seen: u64) -> Option<WalkFailure> {
        let state = self.state.lock();
        match &state.failure {
            Some((failure, _)) if state.failures > seen => Some(failure.clone()),
            _ => None,
        }
    }

    /// Whether a refresh is under way.
    pub fn is_refreshing(&self) -> bool {
        self.refreshing_since().is_some()
    }

    /// Since when a refresh is under way, if one is.
    pub(super) fn refreshing_since(&self) -> Option<Instant> {
        self.state.lock().refreshing
    }

    /// To be awaited for the end of a refresh.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until no other walk of this search is under way: walks of one search never overlap.
    pub(super) async fn take_turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turn.try_acquire() {
            return Some(turn);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.pressed.notify_waiters();
        self.turn.acquire().await.ok()
    }

    /// Whether another walk of this search waits.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
