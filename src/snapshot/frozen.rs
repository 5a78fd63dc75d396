//! A snapshot: the rows that a walk read, frozen in the vendor's order, their ages, and the callers
//! that wait for more. `cut` serves pages and exports from the rows.

mod cut;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

pub use self::cut::{Cut, CutPage};
use super::keep::KeptPart;
use super::lost::WalkFailure;
use super::marks::IdChain;
use super::rows::Rows;
use super::token::SnapshotId;
use super::view::{View, ViewIndex};
use crate::admission::Payer;
use crate::cache::{CacheKey, HOT_HITS, JudgedAge, Lifetimes, Standing};
use crate::clock::{Clock, Duration, Instant};
use crate::domain::SearchQuery;
use crate::upstream::EnvelopeMember;

/// Bytes of a snapshot besides its rows: itself, its search, its lineage, and the tables that find
/// it. They also limit the number of searches without rows.
const SNAPSHOT_OVERHEAD_BYTES: u64 = 3 * 1024;

/// Whether and why a snapshot has stopped growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More rows may come.
    Growing,
    /// The vendor's end was reached.
    Complete,
    /// A walk reached one of its own limits, whose setting is named.
    Cut(&'static str),
    /// A new search did not repeat the rows already served. No row will ever follow.
    Broken,
}

impl End {
    /// Returns the word used in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::Complete => "complete",
            Self::Cut(_) => "cut",
            Self::Broken => "broken",
        }
    }
}

/// The purpose for which a reader wants rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A page that a caller waits for.
    Page,
    /// A page for a token whose snapshot is gone. First pages have priority over it.
    Healed,
    /// An export, which may wait longer.
    Export,
}

/// When the vendor last confirmed the rows: the first ones, and all of them.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// The rows of the first vendor page.
    pub head: Instant,
    /// Every row.
    pub whole: Instant,
}

/// The state of a snapshot at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether a walk was running, so that more rows might come.
    pub growing: bool,
    /// Whether a soft purge had made it stale.
    pub purged: bool,
    /// `None` before the vendor's first answer.
    judged: Option<JudgedAge>,
}

impl Look {
    /// Returns whether the vendor had not yet answered.
    pub fn is_new(&self) -> bool {
        self.judged.is_none()
    }

    /// Returns how the snapshot may be used.
    pub fn standing(&self) -> Standing {
        match self.judged.map(|judged| judged.standing()) {
            None => Standing::Expired,
            Some(Standing::Fresh) if self.purged => Standing::Stale,
            Some(standing) => standing,
        }
    }

    /// Returns the seconds of freshness left. Negative once stale.
    pub fn ttl_s(&self) -> i64 {
        let Some(judged) = self.judged else { return 0 };
        let ttl_s = judged.ttl_s();
        if self.purged { ttl_s.min(-1) } else { ttl_s }
    }

    /// Returns the time since the vendor last confirmed the rows.
    pub fn age(&self) -> Duration {
        self.judged.map_or(Duration::ZERO, |judged| judged.age)
    }
}

pub(super) struct State {
    pub rows: Rows,
    /// Readers see the rows up to here. Those beyond are still being stored.
    pub told: usize,
    pub end: End,
    /// The end that it will have once its rows are read from the store. `None` if none are being
    /// read.
    pub loading: Option<End>,
    pub envelope: Arc<[EnvelopeMember]>,
    views: HashMap<View, (ViewIndex, u64)>,
    /// The chain over all rows. Views have their own.
    chain: IdChain,
    uses: u64,
    /// Rows up to here were served. They never change again.
    pub published: usize,
    /// A served page announced at least this many rows.
    pub promised: usize,
    /// Rows up to here are in a store that other gateways read, so they never change either.
    pub firm: usize,
    /// Until this time, another gateway walks it by its last report.
    pub elsewhere_until: Option<Instant>,
    /// A caller wanted rows newer than its request, so no older ones may take its place.
    pub forced: bool,
    /// Fewest rows left by a truncation since rows were last stored.
    pub cut_to: usize,
    pub ages: Option<Ages>,
    /// How long answers of that age may be used, before jitter. The search is graded when the
    /// vendor answers: rows read before a range closed are not settled because it has closed since.
    pub lifetimes: Lifetimes,
    /// Number of fresh first pages cut from it since then.
    pub hits: u32,
    /// A soft purge made it stale, whatever its age.
    pub purged: bool,
    /// Number of walks that make it grow, or will: one for each [`Grower`].
    growers: usize,
    /// Number of rows wanted by waiting callers, by tokens to be healed, and by exports.
    pub wanted_pages: usize,
    pub wanted_healed: usize,
    pub wanted_export: usize,
    /// The furthest row that a paging reader has read.
    pub furthest: usize,
    pub payer: Option<Arc<Payer>>,
    /// When the last of the readers that want rows will have given up.
    pub wanted_until: Option<Instant>,
    failures: u64,
    failure: Option<WalkFailure>,
}

/// Rows frozen in the vendor's order. All readers of one search share it.
pub struct Snapshot {
    own_id: SnapshotId,
    /// Its id, if it is a copy of a snapshot that another gateway began.
    adopted_id: OnceLock<SnapshotId>,
    /// The cache key of its search.
    pub key: CacheKey,
    /// The search.
    pub query: Arc<SearchQuery>,
    /// Its own share of the jitter.
    pub draw: f64,
    pub(super) state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Notified when a reader wants more rows.
    pub(super) demand: Notify,
    last_used: AtomicU64,
    last_paged: AtomicU64,
    ended_by_purge: AtomicBool,
    /// Whether views of single customers were cut from it since its last refresh began.
    viewed: AtomicBool,
    pub(super) birth: Instant,
    charged: AtomicU64,
    let_go: AtomicBool,
    /// The part of it that is in the store.
    pub(super) kept: Mutex<KeptPart>,
    /// Held by the task that writes it to the store: its walk, or a resync.
    pub(super) keeping: tokio::sync::Mutex<()>,
    total: Arc<AtomicU64>,
    clock: Clock,
}

/// Ids must never repeat, not even between processes. They count up from a random number that is
/// drawn once, from a range so wide that the ids of two processes do not meet.
pub(super) fn fresh_id() -> SnapshotId {
    static FIRST: LazyLock<u128> = LazyLock::new(|| {
        let mut first = [0; 16];
        // The system's source practically cannot fail. If it does, the fast one is still good
        // enough.
        match aws_lc_rs::rand::fill(&mut first) {
            Ok(()) => u128::from_le_bytes(first),
            Err(_) => fastrand::u128(..),
        }
    });
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    let number = BEGUN.fetch_add(1, Ordering::Relaxed);
    SnapshotId(FIRST.wrapping_add(u128::from(number)))
}

impl Snapshot {
    /// Creates an empty snapshot. Its bytes are charged to `total`.
    pub fn new(
        key: CacheKey,
        query: Arc<SearchQuery>,
        lifetimes: Lifetimes,
        total: Arc<AtomicU64>,
        clock: Clock,
    ) -> Arc<Self> {
        let birth = clock.now();
        total.fetch_add(SNAPSHOT_OVERHEAD_BYTES, Ordering::AcqRel);
        Arc::new(Self {
            own_id: fresh_id(),
            adopted_id: OnceLock::new(),
            key,
            query,
            draw: fastrand::f64(),
            state: Mutex::new(State {
                rows: Rows::default(),
                told: 0,
                end: End::Growing,
                loading: None,
                envelope: Arc::new([EnvelopeMember::Data, EnvelopeMember::NextPageKey]),
                views: HashMap::new(),
                chain: IdChain::default(),
                uses: 0,
                published: 0,
                promised: 0,
                firm: 0,
                elsewhere_until: None,
                forced: false,
                cut_to: usize::MAX,
                ages: None,
                lifetimes,
                hits: 0,
                purged: false,
                growers: 0,
                wanted_pages: 0,
                wanted_healed: 0,
                wanted_export: 0,
                furthest: 0,
                payer: None,
                wanted_until: None,
                failures: 0,
                failure: None,
            }),
            changed: watch::Sender::new(0),
            demand: Notify::new(),
            last_used: AtomicU64::new(0),
            last_paged: AtomicU64::new(0),
            ended_by_purge: AtomicBool::new(false),
            viewed: AtomicBool::new(false),
            birth,
            charged: AtomicU64::new(SNAPSHOT_OVERHEAD_BYTES),
            let_go: AtomicBool::new(false),
            kept: Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            total,
            clock,
        })
    }

    /// Returns its id in tokens. It is final once a reader has seen a row.
    pub fn id(&self) -> SnapshotId {
        self.adopted_id.get().copied().unwrap_or(self.own_id)
    }

    /// Gives it an id before it is shared.
    pub(super) fn set_own_id(&mut self, id: SnapshotId) {
        self.own_id = id;
    }

    /// Takes the id of a snapshot that another gateway began. The first one stays.
    pub(super) fn adopt_id(&self, id: SnapshotId) {
        self.adopted_id.get_or_init(|| id);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Returns a receiver of changes, to await after a [`Cut::NeedMore`]. Take it before cutting.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns the number of requests that wait for a change.
    pub fn readers(&self) -> usize {
        self.changed.receiver_count()
    }

    /// Wakes all waiting readers after a change.
    pub(super) fn announce(&self) {
        self.recharge();
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Wakes all waiting readers with the failure of a walk.
    pub(super) fn announce_failure(&self, failure: WalkFailure) {
        let mut state = self.lock();
        state.failures += 1;
        state.failure = Some(failure);
        // The demand was answered with a failure. The next reader requests rows again.
        state.wanted_pages = 0;
        state.wanted_healed = 0;
        state.wanted_export = 0;
        drop(state);
        self.announce();
    }

    /// Returns how many walks failed so far, to tell a later failure from an old one.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Returns the failure that came after the first `seen` ones, if any.
    pub fn failure_since(&self, seen: u64) -> Option<WalkFailure> {
        let state = self.lock();
        if state.failures > seen {
            state.failure.clone()
        } else {
            None
        }
    }

    /// Records a use of the page at `offset`. The snapshot's retention counts from it. A page after
    /// the first also keeps its walk from becoming idle, because its reader will want more.
    pub fn touch(&self, offset: u32) {
        let since = self.clock.now().saturating_duration_since(self.birth);
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.last_used.fetch_max(ms, Ordering::Relaxed);
        if offset > 0 {
            self.last_paged.fetch_max(ms, Ordering::Relaxed);
        }
    }

    /// Records that a search for one customer was answered from it, so that all its rows are in
    /// use.
    pub fn note_view(&self) {
        self.viewed.store(true, Ordering::Relaxed);
    }

    /// Returns whether a search for one customer was answered from it since the last call.
    pub(super) fn take_view(&self) -> bool {
        self.viewed.swap(false, Ordering::Relaxed)
    }

    /// Returns when a page after the first was last read.
    pub fn last_paged(&self) -> Instant {
        self.birth + Duration::from_millis(self.last_paged.load(Ordering::Relaxed))
    }

    /// Returns when it was last used.
    pub fn last_used(&self) -> Instant {
        self.birth + Duration::from_millis(self.last_used.load(Ordering::Relaxed))
    }

    /// Returns when it was begun.
    pub fn birth(&self) -> Instant {
        self.birth
    }

    /// Returns whether a hard purge ended its tokens.
    pub fn is_ended(&self) -> bool {
        self.ended_by_purge.load(Ordering::Relaxed)
    }

    pub(super) fn end_tokens(&self) {
        self.ended_by_purge.store(true, Ordering::Relaxed);
    }

    /// Requests every row: the walk goes on to its end even if no caller waits any more.
    pub fn want_all(&self, payer: &Arc<Payer>) {
        let mut state = self.lock();
        if !state.is_paid_for(Want::Page) {
            state.payer = Some(payer.clone());
        }
        state.wanted_pages = usize::MAX;
        drop(state);
        self.demand.notify_one();
    }

    /// Requests one row more than is known.
    pub fn want_more(&self, want: Want, payer: &Arc<Payer>, until: Instant) {
        let mut state = self.lock();
        if !state.is_paid_for(want) {
            state.payer = Some(payer.clone());
        }
        let rows = state.told + 1;
        match want {
            Want::Page => state.wanted_pages = state.wanted_pages.max(rows),
            Want::Healed => state.wanted_healed = state.wanted_healed.max(rows),
            Want::Export => state.wanted_export = state.wanted_export.max(rows),
        }
        state.wanted_until = state.wanted_until.max(Some(until));
        drop(state);
        self.demand.notify_one();
    }

    /// Returns whether a walk is running and more rows may come. Every first page of its search
    /// joins that walk.
    pub fn is_growing(&self) -> bool {
        self.lock().is_growing()
    }

    /// Returns whether the vendor's end was reached.
    pub fn is_complete(&self) -> bool {
        let state = self.lock();
        state.loading.unwrap_or(state.end) == End::Complete
    }

    /// Returns whether and why it has stopped growing.
    pub fn end(&self) -> End {
        self.lock().end
    }

    /// Returns (rows, served rows, bytes).
    pub fn size(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (
            state.rows.len(),
            state.published,
            self.charged.load(Ordering::Relaxed),
        )
    }

    /// Returns when the vendor last confirmed the rows. `None` before its first answer.
    pub fn ages(&self) -> Option<Ages> {
        self.lock().ages
    }

    /// Returns the state now, by the first rows or by all of them, under one lock.
    pub fn look(&self, whole: bool, now: Instant) -> Look {
        let state = self.lock();
        let judged = state.ages.map(|ages| {
            let born = if whole { ages.whole } else { ages.head };
            state.lifetimes.judge(born, self.draw, now)
        });
        let elsewhere = state.elsewhere_until.is_some_and(|until| now < until);
        Look {
            growing: state.is_growing() && state.loading.is_none()
                || elsewhere && state.end == End::Growing,
            purged: state.purged,
            judged,
        }
    }

    /// Returns how the first rows, or all of them, may be used.
    pub fn standing(&self, whole: bool, now: Instant) -> Standing {
        self.look(whole, now).standing()
    }

    /// Returns the seconds of freshness left. Negative once stale.
    pub fn ttl_s(&self, whole: bool, now: Instant) -> i64 {
        self.look(whole, now).ttl_s()
    }

    /// Returns the time since the vendor last confirmed the rows.
    pub fn age(&self, whole: bool, now: Instant) -> Duration {
        self.look(whole, now).age()
    }

    pub(super) fn lifetimes(&self) -> Lifetimes {
        self.lock().lifetimes
    }

    /// Returns the number of rows that were served, or announced by a page before.
    pub(super) fn served(&self) -> usize {
        let state = self.lock();
        state.published.max(state.promised)
    }

    /// Records that a first page is cut from it while fresh. Returns whether it is in frequent use
    /// and nearly stale, so that it is worth an early refresh.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let before = state.hits;
        state.hits = before.saturating_add(1);
        let due = |ages: Ages| {
            let judged = state.lifetimes.judge(ages.head, self.draw, now);
            judged.is_nearly_stale()
        };
        before >= HOT_HITS && state.ages.is_some_and(due)
    }

    /// Makes it stale, whatever its age.
    pub(super) fn make_stale(&self) {
        self.lock().purged = true;
    }

    /// Sets who pays for the next call that callers wait for, and how long they wait.
    pub(super) fn charge_to(&self, payer: &Arc<Payer>, until: Instant) {
        let mut state = self.lock();
        state.payer = Some(payer.clone());
        state.wanted_until = state.wanted_until.max(Some(until));
    }

    /// Stops charging its bytes, because no reader can find it any more. Its last reader may still
    /// hold them for a moment.
    pub(super) fn uncharge(&self) {
        self.let_go.store(true, Ordering::Release);
        let charged = self.charged.swap(0, Ordering::AcqRel);
        self.total.fetch_sub(charged, Ordering::AcqRel);
    }

    fn recharge(&self) {
        if self.let_go.load(Ordering::Acquire) {
            return;
        }
        let bytes = {
            let state = self.lock();
            let views = state.views.values();
            SNAPSHOT_OVERHEAD_BYTES
                + state.rows.bytes()
                + views.map(|(index, _)| index.bytes()).sum::<u64>()
        };
        let before = self.charged.swap(bytes, Ordering::AcqRel);
        if bytes >= before {
            self.total.fetch_add(bytes - before, Ordering::AcqRel);
        } else {
            self.total.fetch_sub(before - bytes, Ordering::AcqRel);
        }
    }
}

/// A walk that makes a snapshot grow. Readers wait as long as there is one.
///
/// [`Grower::leave`] ends it together with another decision under the snapshot's lock. If it is
/// dropped instead, the walk ended without an outcome, and readers get a failure.
pub(super) struct Grower(Option<Arc<Snapshot>>);

impl Grower {
    /// Begins one more walk of `snapshot`, whose state is locked.
    pub fn begin(snapshot: &Arc<Snapshot>, state: &mut State) -> Self {
        state.growers += 1;
        Self(Some(Arc::clone(snapshot)))
    }

    /// Begins a walk of `snapshot`, unless its rows have ended or a walk is at work already.
    pub fn begin_first(snapshot: &Arc<Snapshot>) -> Option<Self> {
        let mut state = snapshot.lock();
        (state.end == End::Growing && state.growers == 0).then(|| Self::begin(snapshot, &mut state))
    }

    /// Ends the growth of the snapshot, whose state is locked.
    pub fn leave(mut self, state: &mut State) {
        self.0 = None;
        state.growers = state.growers.saturating_sub(1);
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        if let Some(snapshot) = self.0.take() {
            let mut state = snapshot.lock();
            state.growers = state.growers.saturating_sub(1);
            drop(state);
            snapshot.announce_failure(WalkFailure::Internal);
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let charged = self.charged.load(Ordering::Acquire);
        self.total.fetch_sub(charged, Ordering::AcqRel);
    }
}

impl State {
    fn is_growing(&self) -> bool {
        self.growers > 0 && self.end == End::Growing
    }

    /// Returns whether another reader already wants rows, no less urgently. The first reader pays,
    /// and the others share the rows.
    fn is_paid_for(&self, want: Want) -> bool {
        let wanted = |rows: usize| rows > self.rows.len();
        let (pages, healed) = (wanted(self.wanted_pages), wanted(self.wanted_healed));
        let paid = match want {
            Want::Page => pages,
            Want::Healed => pages || healed,
            Want::Export => pages || healed || wanted(self.wanted_export),
        };
        self.payer.is_some() && paid
    }

    /// Drops the rows from `len` on, which no reader has seen.
    pub fn truncate(&mut self, len: usize) {
        self.cut_to = self.cut_to.min(len);
        self.firm = self.firm.min(len);
        self.told = self.told.min(len);
        self.rows.truncate(len);
        self.chain.truncate(len);
        for (index, _) in self.views.values_mut() {
            index.truncate(len);
        }
    }
}

#[cfg(test)]
#[path = "frozen_tests.rs"]
mod tests;
