//! A lineage: all snapshots of one search, and every decision about them.
//!
//! `Lineage::open` decides how a request is answered: from the current snapshot, from it while a
//! refresh runs, after a refresh, or by a first walk. `Lineage::grow` lets a snapshot have more
//! rows. Walks of one search never overlap: each takes its turn (`Lineage::take_turn`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};

use super::frozen::{Grower, Look, Snapshot};
use super::lost::WalkFailure;
use super::recall::Recall;
use super::store::Snapshots;
use super::walk::Walk;
use crate::access::ForcedRefreshes;
use crate::admission::Payer;
use crate::cache::{
    CacheKey, CacheNote, Detail, Directives, Forward, Lifetimes, ON_ERROR_WAIT, Remembered,
    Standing, Verdict, Wanted,
};
use crate::clock::{Duration, Instant, timeout_at};
use crate::domain::{SearchQuery, Shortage};
use crate::upstream::{Fault, UpstreamError, Whose};

/// How long a fault of the vendor's content is held once it was found twice at the same row.
const CONTENT_HOLD: Duration = Duration::from_secs(5);
/// Maximum of that time. It doubles with each further time.
const CONTENT_HOLD_MAX: Duration = Duration::from_secs(60);

/// A request for the snapshot that answers a search.
#[derive(Clone, Copy)]
pub struct Open<'a> {
    /// The search.
    pub key: &'a CacheKey,
    /// The parsed search.
    pub query: &'a Arc<SearchQuery>,
    /// Returns how long its answers may be used. Called only if the vendor may be called, because
    /// it computes with the calendar.
    pub lifetimes: &'a (dyn Fn() -> Lifetimes + Send + Sync),
    /// Whether all rows are wanted, so that the age of all rows counts.
    pub whole: bool,
    /// The caller's directives.
    pub directives: Directives,
    /// How often it may force a vendor call.
    pub forced: &'a ForcedRefreshes,
    /// Whether an answer in frequent use is refreshed before it is stale.
    pub refresh_ahead: bool,
    /// When the caller's answer is due.
    pub deadline: Instant,
    /// Pays for vendor calls.
    pub payer: &'a Arc<Payer>,
}

/// The snapshot that answers a search.
#[derive(Clone)]
pub struct Opened {
    /// The snapshot. It may still be empty.
    pub snapshot: Arc<Snapshot>,
    /// How it was found.
    pub note: CacheNote,
}

/// Why no snapshot answers.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// A walk failed.
    Walk(WalkFailure),
    /// The caller's deadline came first. The walk goes on.
    DeadlinePassed,
    /// `only-if-cached` was sent and nothing usable is held.
    NotCached,
}

/// The snapshots of one search.
pub struct Lineage {
    /// The cache key of the search.
    pub key: CacheKey,
    /// The parsed search.
    pub query: Arc<SearchQuery>,
    state: Mutex<LineageState>,
    changed: watch::Sender<u64>,
    turn: Semaphore,
    waiting: AtomicUsize,
    /// Notified when another walk of the search waits for its turn. An idle walk then gives up its
    /// scroll.
    pub(super) pressed: Notify,
}

#[derive(Default)]
struct LineageState {
    current: Option<Arc<Snapshot>>,
    /// When the running refresh began.
    refreshing: Option<Instant>,
    failures: u64,
    failure: Option<(WalkFailure, Instant)>,
    content_fault: Option<ContentFault>,
}

/// A fault in the vendor's content, and its place. Another search meets the same fault again.
struct ContentFault {
    /// Number of rows of the scroll before it.
    row: usize,
    error: UpstreamError,
    /// Number of times in a row that it was found.
    times: u32,
    /// Readers beyond the row get the failure until this time.
    held_until: Instant,
}

impl ContentFault {
    fn is_same(&self, error: &UpstreamError, row: usize) -> bool {
        self.row == row && self.error.fault == error.fault && self.error.detail == error.detail
    }

    fn held(&self, now: Instant) -> Option<UpstreamError> {
        let left = self.held_until.saturating_duration_since(now);
        (!left.is_zero()).then(|| self.error.clone().with_retry_after(left))
    }
}

/// A running refresh. It is ended with [`RefreshTurn::end`] or [`RefreshTurn::fail`]. If it is
/// dropped instead, its walk ended without an outcome, and waiting callers get a failure.
pub(super) struct RefreshTurn {
    lineage: Arc<Lineage>,
    since: Instant,
    ended: bool,
}

impl RefreshTurn {
    /// Returns when it began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns the lineage of the refresh.
    pub fn lineage(&self) -> &Arc<Lineage> {
        &self.lineage
    }

    /// Ends the refresh.
    pub fn end(mut self) {
        self.ended = true;
        self.lineage.end_refresh(None);
    }

    /// Records that the refresh failed. Every request for a refresh before `until` gets the
    /// failure.
    pub fn fail(mut self, failure: WalkFailure, until: Instant) {
        self.ended = true;
        self.lineage.end_refresh(Some((failure, until)));
    }
}

impl Drop for RefreshTurn {
    fn drop(&mut self) {
        if !self.ended {
            let failure = WalkFailure::Internal;
            self.lineage.end_refresh(Some((failure, self.since)));
        }
    }
}

impl Lineage {
    /// Creates a lineage without a snapshot.
    pub fn new(key: CacheKey, query: Arc<SearchQuery>) -> Arc<Self> {
        Arc::new(Self {
            key,
            query,
            state: Mutex::new(LineageState::default()),
            changed: watch::Sender::new(0),
            turn: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            pressed: Notify::new(),
        })
    }

    /// Returns the snapshot that first pages are cut from.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.state.lock().current.clone()
    }

    /// Makes `snapshot` the current one. The earlier one stays for its tokens.
    pub(super) fn replace(&self, snapshot: Arc<Snapshot>) {
        self.state.lock().current = Some(snapshot);
    }

    /// Makes `fresh()` current if there is no current snapshot. Returns the current one, and
    /// whether it is new.
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

    /// Removes a snapshot. Returns whether the lineage is now empty and idle.
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

    /// Returns whether there is no snapshot and no running work.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.current.is_none() && state.refreshing.is_none()
    }

    /// Begins a refresh. `None` if one is running.
    ///
    /// # Errors
    /// Returns the failure of an earlier refresh while it is held.
    fn begin_refresh(self: &Arc<Self>, now: Instant) -> Result<Option<RefreshTurn>, WalkFailure> {
        let mut state = self.state.lock();
        if state.refreshing.is_some() {
            return Ok(None);
        }
        if let Some((failure, until)) = &state.failure
            && now < *until
        {
            return Err(failure.clone());
        }
        state.refreshing = Some(now);
        Ok(Some(RefreshTurn {
            lineage: Arc::clone(self),
            since: now,
            ended: false,
        }))
    }

    /// Ends a refresh and wakes the callers that wait for it. A failure is held until its time.
    fn end_refresh(&self, failure: Option<(WalkFailure, Instant)>) {
        let mut state = self.state.lock();
        state.refreshing = None;
        if failure.is_some() {
            state.failures += 1;
        }
        state.failure = failure;
        drop(state);
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Holds the failure of a first walk for a moment, so that a burst of requests does not become
    /// a burst of calls.
    pub(super) fn hold_failure(&self, failure: WalkFailure, until: Instant) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.failure = Some((failure, until));
    }

    /// Returns the failure held now for a reader that wants more than `rows` rows, if there is one.
    pub(super) fn held_failure(&self, now: Instant, rows: usize) -> Option<WalkFailure> {
        let state = self.state.lock();
        let content = state.content_fault.as_ref().filter(|it| it.row <= rows);
        if let Some(error) = content.and_then(|fault| fault.held(now)) {
            return Some(WalkFailure::Upstream(error));
        }
        match &state.failure {
            Some((failure, until)) if now < *until => Some(failure.clone()),
            _ => None,
        }
    }

    /// Records that a scroll failed after `row` rows. If it failed in the same way there before,
    /// and that is a fault of the vendor's content, returns the failure with the time for which it
    /// is held: 5 s, doubling to 60 s.
    pub(super) fn note_content_fault(
        &self,
        error: &UpstreamError,
        row: usize,
        now: Instant,
    ) -> Option<UpstreamError> {
        if !matches!(error.fault, Fault::Malformed | Fault::TooLarge) {
            return None;
        }
        let mut state = self.state.lock();
        match &mut state.content_fault {
            Some(fault) if fault.is_same(error, row) => {
                let doubled = CONTENT_HOLD * 2_u32.saturating_pow((fault.times - 1).min(8));
                fault.times = fault.times.saturating_add(1);
                fault.held_until = now + doubled.min(CONTENT_HOLD_MAX);
                fault.held(now)
            }
            fault => {
                *fault = Some(ContentFault {
                    row,
                    error: error.clone(),
                    times: 1,
                    held_until: now,
                });
                None
            }
        }
    }

    /// Records that a scroll got past `rows` rows, or to its end there.
    pub(super) fn pass_content_fault(&self, rows: usize, ended: bool) {
        let mut state = self.state.lock();
        let passed = |fault: &ContentFault| rows > fault.row || (ended && rows >= fault.row);
        if state.content_fault.as_ref().is_some_and(passed) {
            state.content_fault = None;
        }
    }

    /// Returns until when a fault of content is held, if there is one.
    pub(super) fn content_held_until(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.content_fault.as_ref().map(|fault| fault.held_until)
    }

    /// Returns whether a failure is remembered that must outlive the lineage's snapshots.
    pub(super) fn remembers_failure(&self, now: Instant) -> bool {
        // Remembered for as long again as it was held at most, so that the next one is held longer.
        let content = self.content_held_until();
        self.held_failure(now, usize::MAX).is_some()
            || content.is_some_and(|until| now < until + CONTENT_HOLD_MAX)
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

    /// Returns whether a refresh is under way.
    pub fn is_refreshing(&self) -> bool {
        self.refreshing_since().is_some()
    }

    /// Returns when the running refresh began, if there is one.
    pub(super) fn refreshing_since(&self) -> Option<Instant> {
        self.state.lock().refreshing
    }

    /// Returns a receiver, to await the end of a refresh.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Opens the snapshot that answers a search. Begins it if necessary. Its first rows may still
    /// have to arrive.
    ///
    /// # Errors
    /// Fails if no usable snapshot is held and the vendor gives none in time.
    pub(super) async fn open(
        self: &Arc<Self>,
        store: &Arc<Snapshots>,
        ask: &Open<'_>,
    ) -> Result<Opened, OpenError> {
        let mut asked: Option<(Forward, bool)> = None;
        let mut recalled = false;
        loop {
            let now = store.clock.now();
            let current = self.current().filter(|current| {
                let over = store.is_over(current, now);
                if over {
                    store.discard(self, current);
                }
                !over
            });
            let Some(current) = current else {
                if store.keeps() && !recalled && !ask.directives.no_cache {
                    recalled = true;
                    let what = Recall::Search(self.key.clone());
                    let span = ask.payer.trace().map(|trace| trace.open(None));
                    // Boxed, because a hit never uses the store.
                    Box::pin(store.recall(what, ask.deadline)).await;
                    if let Some(span) = span {
                        span.end_store("find_search", store.clock.now());
                    }
                    continue;
                }
                return self.begin(store, ask, now);
            };
            let look = current.look(ask.whole, now);
            let hit = CacheNote::hit(look.ttl_s());
            let opened = |note| {
                Ok(Opened {
                    snapshot: current.clone(),
                    note,
                })
            };
            if let Some((why, led)) = asked {
                return opened(CacheNote::forwarded(why, true, !led));
            }
            let directives = obeyed(&look, ask, now);
            let hit = match directives == ask.directives {
                true => hit,
                false => hit.with_detail(Detail::AllowanceExhausted),
            };
            let why = match judge(store, &current, &look, ask, &directives, now) {
                Verdict::Serve if look.is_new() => {
                    // No row has arrived yet: this request waits for a walk that another one began.
                    return opened(CacheNote::forwarded(Forward::UriMiss, true, true));
                }
                Verdict::Serve => {
                    return opened(match hit.detail {
                        None if recalled => hit.with_detail(Detail::Store),
                        _ => hit,
                    });
                }
                Verdict::RefreshAhead => {
                    if let Ok(Some(turn)) = self.begin_refresh(now) {
                        launch_refresh(store, turn, &current, ask, Wanted::Later);
                    }
                    return opened(hit);
                }
                Verdict::ServeAndRefresh => {
                    if let Ok(Some(turn)) = self.begin_refresh(now) {
                        launch_refresh(store, turn, &current, ask, Wanted::Later);
                    }
                    return opened(match hit.detail {
                        None => hit.with_detail(Detail::StaleWhileRevalidate),
                        Some(_) => hit,
                    });
                }
                Verdict::NotCached => return Err(OpenError::NotCached),
                Verdict::Ask(why) => why,
            };
            // Boxed, because a hit never waits, and its future should not carry the memory for it.
            let usable = |at| current.standing(ask.whole, at) != Standing::Expired;
            // A caller that asks for something newer is prepared to wait.
            let wanted = match why == Forward::Stale && usable(now) {
                true => Wanted::Soon,
                false => Wanted::Now,
            };
            match Box::pin(self.wait_for_refresh(store, &current, ask, wanted)).await {
                Ok(led) => asked = Some((why, led)),
                Err(error) => {
                    let now = store.clock.now();
                    if !stale_may_stand_in(&error) || !usable(now) {
                        return Err(error);
                    }
                    let hit = CacheNote::hit(current.ttl_s(ask.whole, now));
                    return opened(hit.with_detail(detail_of(&error)));
                }
            }
        }
    }

    /// Begins the first snapshot of a search.
    fn begin(
        self: &Arc<Self>,
        store: &Arc<Snapshots>,
        ask: &Open<'_>,
        now: Instant,
    ) -> Result<Opened, OpenError> {
        if ask.directives.only_if_cached {
            return Err(OpenError::NotCached);
        }
        if let Some(failure) = self.held_failure(now, 0) {
            return Err(OpenError::Walk(failure));
        }
        if !store.has_room() {
            let short = WalkFailure::Overloaded(Shortage::SnapshotBytes, None);
            return Err(OpenError::Walk(short));
        }
        let (snapshot, led) = self.current_or(|| store.new_snapshot(self, (ask.lifetimes)()));
        if led && ask.directives.no_cache {
            snapshot.lock().forced = true;
        }
        Ok(Opened {
            snapshot,
            note: CacheNote::forwarded(Forward::UriMiss, true, !led),
        })
    }

    /// Waits for a refresh of `current`. Begins it if none is running. Returns whether it was begun
    /// here.
    async fn wait_for_refresh(
        self: &Arc<Self>,
        store: &Arc<Snapshots>,
        current: &Arc<Snapshot>,
        ask: &Open<'_>,
        wanted: Wanted,
    ) -> Result<bool, OpenError> {
        let mut changes = self.changes();
        let seen = self.failures();
        let now = store.clock.now();
        let turn = self.begin_refresh(now).map_err(OpenError::Walk)?;
        let led = turn.is_some();
        let soon = self.refreshing_since().unwrap_or(now) + ON_ERROR_WAIT;
        let until = match wanted {
            Wanted::Soon if current.standing(ask.whole, soon) != Standing::Expired => {
                soon.min(ask.deadline)
            }
            _ => ask.deadline,
        };
        if let Some(turn) = turn {
            current.charge_to(ask.payer, until);
            launch_refresh(store, turn, current, ask, wanted);
        }
        loop {
            changes.borrow_and_update();
            if let Some(failure) = self.failure_since(seen) {
                return Err(OpenError::Walk(failure));
            }
            if !self.is_refreshing() {
                return Ok(led);
            }
            match timeout_at(until, changes.changed()).await {
                Err(_) => return Err(OpenError::DeadlinePassed),
                Ok(Err(_)) => return Err(OpenError::Walk(WalkFailure::Internal)),
                Ok(Ok(())) => {}
            }
        }
    }

    /// Begins a walk that makes a snapshot grow, unless one is running or no row can follow.
    pub(super) fn grow(self: &Arc<Self>, store: &Arc<Snapshots>, snapshot: &Arc<Snapshot>) {
        if let Some(grower) = Grower::begin_first(snapshot) {
            let (store, lineage, target) = (store.clone(), self.clone(), snapshot.clone());
            tokio::spawn(Walk::grow(store, lineage, target, grower).run());
        }
    }

    /// Waits until no other walk of this search is running, because walks of one search never
    /// overlap.
    pub(super) async fn take_turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turn.try_acquire() {
            return Some(turn);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = WaitingWalk(&self.waiting);
        self.pressed.notify_waiters();
        self.turn.acquire().await.ok()
    }

    /// Takes the turn of a walk unless a walk is running.
    pub(super) fn try_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.try_acquire().ok()
    }

    /// Returns whether another walk of this search waits.
    pub(super) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

struct WaitingWalk<'a>(&'a AtomicUsize);

impl Drop for WaitingWalk<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins the refresh of `turn` in a task of its own.
fn launch_refresh(
    store: &Arc<Snapshots>,
    turn: RefreshTurn,
    current: &Arc<Snapshot>,
    ask: &Open<'_>,
    wanted: Wanted,
) {
    let lifetimes = (ask.lifetimes)();
    // Views of single customers need all rows fresh. If only a part were read, it would be read a
    // second time for the next view. If the first page changed, each view would be searched on its
    // own.
    let viewed = current.take_view() && current.is_complete() && store.is_read_whole(current);
    // In the background, all rows are compared too. A caller that waits for all of them reads them
    // afterwards.
    let whole = (ask.whole || viewed) && wanted == Wanted::Later;
    let (store, current) = (store.clone(), current.clone());
    let walk = Walk::refresh(store, turn, current, lifetimes, wanted, whole);
    tokio::spawn(walk.run());
}

/// Decides about a request whose search has a current snapshot.
fn judge(
    store: &Snapshots,
    current: &Snapshot,
    look: &Look,
    ask: &Open<'_>,
    directives: &Directives,
    now: Instant,
) -> Verdict {
    let too_old = directives.refuses_age(look.age()) || look.standing() == Standing::Expired;
    let refused = directives.no_cache || (directives.only_if_cached && too_old);
    if look.growing && !look.purged && !refused {
        // Joined however old, unless 504 is requested instead, because walks of one search never
        // overlap.
        return Verdict::Serve;
    }
    if look.is_new() && !directives.no_cache && !directives.only_if_cached {
        // Another request has just begun it and its walk is about to start. It is not old but new.
        return Verdict::Serve;
    }
    // One vendor page shows whether the first rows are unchanged. More is not read on the mere
    // guess that a caller will ask.
    let ahead = ask.refresh_ahead
        && current.is_due(now)
        && current.served() <= store.options.load().vendor_page_size.get();
    let seen = Remembered {
        age: look.age(),
        standing: look.standing(),
        past_s: look.ttl_s().saturating_neg(),
        ahead,
    };
    seen.verdict(directives)
}

/// Returns the caller's directives without those that its allowance does not cover: forcing a
/// vendor call although the current snapshot would do.
fn obeyed(look: &Look, ask: &Open<'_>, now: Instant) -> Directives {
    let directives = ask.directives;
    let forces = directives.refuses_age(look.age())
        && !directives.only_if_cached
        && (directives.no_cache || !look.growing)
        && look.standing() != Standing::Expired;
    if forces && !ask.forced.allow(now) {
        directives.unforced()
    } else {
        directives
    }
}

fn stale_may_stand_in(error: &OpenError) -> bool {
    match error {
        OpenError::Walk(WalkFailure::Upstream(error)) => error.whose() != Whose::Question,
        OpenError::Walk(WalkFailure::Overloaded(..) | WalkFailure::Internal)
        | OpenError::DeadlinePassed => true,
        OpenError::NotCached => false,
    }
}

fn detail_of(error: &OpenError) -> Detail {
    match error {
        OpenError::Walk(WalkFailure::Upstream(error))
            if matches!(error.fault, Fault::BudgetExhausted | Fault::RateLimited) =>
        {
            Detail::StaleNoBudget
        }
        _ => Detail::StaleOnError,
    }
}
