//! All snapshots of one credential: which one answers, how long each is kept, and which is evicted
//! first.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::frozen::{Cut, CutPage, End, Snapshot, Want, fresh_id};
use super::hear::HeardLines;
use super::held::Held;
use super::lineage::{Lineage, Open, OpenError, Opened};
use super::lost::WalkFailure;
use super::marks::Marks;
use super::options::SnapshotOptions;
use super::recall::{NoFailure, Recall};
use super::resync::Returns;
use super::slots::Slots;
use super::token::SnapshotId;
use super::view::View;
use crate::admission::Payer;
use crate::cache::{CacheKey, Flights, Lifetimes, Standing};
use crate::clock::{Clock, Instant, timeout_at};
use crate::domain::{SearchQuery, Shortage};
use crate::metrics::{Metrics, StoreUsage};
use crate::store::{PurgeDepth, Store};
use crate::upstream::WalkedVendor;

/// The most searches in memory, walked or held. Beyond this, new searches are refused as
/// overloaded. An idle search takes less than a kilobyte besides its rows.
const LINEAGES_MAX: usize = 65_536;

/// A search for all customers with at most this many vendor pages is refreshed whole even for a
/// view of one customer. This makes no more calls than the own searches of a few customers.
const WHOLE_REFRESH_PAGES_MAX: usize = 4;

/// The state that walks and readers of one credential share.
pub struct Snapshots {
    pub(super) walked: WalkedVendor,
    /// Scrolls open at the vendor.
    pub slots: Arc<Slots>,
    /// The `[pagination]` settings.
    pub options: ArcSwap<SnapshotOptions>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) held: Held,
    lineages: Mutex<HashMap<CacheKey, Arc<Lineage>, RandomState>>,
    pub(super) heard: HeardLines,
    pub(super) total: Arc<AtomicU64>,
    /// The number of snapshots that were evicted.
    evicted: AtomicU64,
    /// The store, which outlives the process.
    pub(super) kept: Store,
    /// Lookups in the store that are in progress. Concurrent readers share one.
    pub(super) recalls: Arc<Flights<Recall, (), NoFailure>>,
    /// When the store returned, and its resyncs.
    pub(super) returns: Returns,
    leaving: AtomicBool,
    completed: watch::Sender<u64>,
}

/// A request for one row more than is known.
#[derive(Clone, Copy, Debug)]
pub struct Growth<'a> {
    /// The purpose.
    pub want: Want,
    /// The number of failures that the reader knew of when it began to wait.
    pub seen_failures: u64,
    /// Pays for vendor calls.
    pub payer: &'a Arc<Payer>,
    /// When the reader gives up. The walk continues.
    pub deadline: Instant,
}

/// Why there is no page.
#[derive(Clone, Debug)]
pub enum PageFailure {
    /// The rows are gone, or will never come.
    Gone,
    /// The rows before the page are not those that its token was made for.
    Changed,
    /// The walk reached a limit before these rows. Holds the name of the setting.
    Limit(&'static str),
    /// The walk failed. The token stays valid.
    Walk(WalkFailure),
    /// The caller's deadline passed. The walk continues and the token stays valid.
    DeadlinePassed,
}

impl fmt::Display for PageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the rows are gone"),
            Self::Changed => f.write_str("the list changed before the page"),
            Self::Limit(setting) => write!(f, "the walk reached {setting}"),
            Self::Walk(failure) => failure.fmt(f),
            Self::DeadlinePassed => f.write_str("the rows did not come in time"),
        }
    }
}

/// A request for a page.
#[derive(Clone, Debug)]
pub struct PageAsk<'a> {
    /// Which rows may be shown.
    pub view: &'a View,
    /// First row, counted in the view.
    pub offset: u32,
    /// How many rows.
    pub size: usize,
    /// What the rows before the page must show.
    pub marks: Option<Marks>,
    /// The purpose.
    pub want: Want,
    /// When the caller's answer is due.
    pub deadline: Instant,
    /// Pays for vendor calls.
    pub payer: &'a Arc<Payer>,
}

impl Snapshots {
    /// Creates an empty set of snapshots.
    pub fn new(
        walked: WalkedVendor,
        options: SnapshotOptions,
        kept: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        // The first random bytes of a process take tens of milliseconds. They are read here, so
        // that no caller waits for them.
        fresh_id();
        let gates = walked.gates.as_ref();
        // The name that its budget has in the store, too.
        let account = walked.account.as_str();
        let account = format!("{}/{account}", walked.first.vendor().as_str());
        let snapshots = Arc::new(Self {
            slots: Slots::new(
                options.slot_limits(),
                gates.map(|gates| gates.governor.clone()),
                gates.map(|gates| gates.circuit.clone()),
                (kept.clone(), account.into()),
                clock.clone(),
                metrics.clone(),
            ),
            walked,
            options: ArcSwap::from_pointee(options),
            recalls: Flights::new(clock.clone()),
            clock,
            metrics,
            held: Held::default(),
            lineages: Mutex::default(),
            heard: HeardLines::default(),
            total: Arc::new(AtomicU64::new(0)),
            evicted: AtomicU64::new(0),
            kept,
            returns: Returns::default(),
            leaving: AtomicBool::new(false),
            completed: watch::Sender::new(0),
        });
        snapshots.follow_returns();
        snapshots.follow_heads();
        snapshots
    }

    /// Returns a receiver that changes whenever a walk has reached the vendor's end.
    pub fn completions(&self) -> watch::Receiver<u64> {
        self.completed.subscribe()
    }

    /// Wakes the readers of a snapshot after a change by its walk.
    pub(super) fn announce(&self, snapshot: &Snapshot) {
        snapshot.announce();
        if snapshot.end() == End::Complete {
            self.completed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Applies new settings. Running walks use them from their next page on.
    pub fn configure(&self, options: SnapshotOptions) {
        self.slots.resize(options.slot_limits());
        self.options.store(Arc::new(options));
    }

    /// Starts to drain. Walks that were paged within `scroll_idle_max` read further, at most
    /// `drain_pages_max` pages each, while the process lives: a stored page costs no vendor call
    /// after the restart. The process does not wait for them.
    pub fn leave(&self) {
        if self.keeps() {
            self.leaving.store(true, Ordering::Release);
            self.slots.pressed.notify_waiters();
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Returns whether a snapshot is small enough for a refresh to read all its rows for views of
    /// it.
    pub fn is_read_whole(&self, snapshot: &Snapshot) -> bool {
        let page = self.options.load().vendor_page_size.get();
        snapshot.size().0 <= page * WHOLE_REFRESH_PAGES_MAX
    }

    /// Opens the snapshot that answers a search. Begins it if necessary. Its first rows may still
    /// have to come: [`Self::page`] waits for them.
    ///
    /// # Errors
    /// When no usable snapshot is held and the vendor gives none in time.
    pub async fn open(self: &Arc<Self>, ask: &Open<'_>) -> Result<Opened, OpenError> {
        self.lineage(ask)?.open(self, ask).await
    }

    /// Returns a page of a snapshot, as soon as its rows and one more are known. The walk goes on
    /// when a caller's deadline passes.
    ///
    /// # Errors
    /// When the rows will not come, or not in time. Also returns whether rows had to be waited for.
    pub async fn page(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        ask: &PageAsk<'_>,
    ) -> Result<(CutPage, bool), PageFailure> {
        let mut changes = snapshot.changes();
        let seen = snapshot.failures();
        let mut waited = false;
        loop {
            changes.borrow_and_update();
            match snapshot.cut(ask.view, ask.offset, ask.size, ask.marks.as_ref()) {
                Cut::Ready(page) => return Ok((page, waited)),
                Cut::Gone => return Err(PageFailure::Gone),
                Cut::Changed => return Err(PageFailure::Changed),
                Cut::Limit(setting) => return Err(PageFailure::Limit(setting)),
                Cut::NeedMore => {}
            }
            let ask_more = Growth {
                want: ask.want,
                seen_failures: seen,
                payer: ask.payer,
                deadline: ask.deadline,
            };
            Box::pin(self.wait_for_growth(snapshot, ask_more, &mut changes)).await?;
            waited = true;
        }
    }

    /// Waits until a snapshot has more rows, its end, or a failure. `changes` must have been marked
    /// as seen before the caller looked at the snapshot.
    ///
    /// # Errors
    /// When its walk fails, or the deadline comes first.
    pub async fn wait_for_growth(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        ask: Growth<'_>,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), PageFailure> {
        if let Some(failure) = snapshot.failure_since(ask.seen_failures) {
            return Err(PageFailure::Walk(failure));
        }
        let lineage = self.lineage_of(&snapshot.key, &snapshot.query);
        if !snapshot.is_growing()
            && let Some(failure) = lineage.held_failure(self.clock.now(), snapshot.size().0)
        {
            return Err(PageFailure::Walk(failure));
        }
        snapshot.want_more(ask.want, ask.payer, ask.deadline);
        lineage.grow(self, snapshot);
        match timeout_at(ask.deadline, changes.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(PageFailure::Walk(WalkFailure::Internal)),
            Err(_) => Err(PageFailure::DeadlinePassed),
        }
    }

    /// Returns the snapshot that a page token names, if it is still in memory or in the store.
    pub async fn find(
        self: &Arc<Self>,
        id: SnapshotId,
        deadline: Instant,
    ) -> Option<Arc<Snapshot>> {
        let snapshot = match self.held.get(id) {
            Some(snapshot) => snapshot,
            None => {
                Box::pin(self.recall(Recall::Token(id), deadline)).await;
                match self.held.get(id) {
                    Some(snapshot) => snapshot,
                    None => Box::pin(self.wait_for_return(id, deadline)).await?,
                }
            }
        };
        let now = self.clock.now();
        (!snapshot.is_ended() && !self.is_over(&snapshot, now)).then_some(snapshot)
    }

    /// Returns the current snapshot of a search if it is complete and the standing of its oldest
    /// rows is one of `standings`.
    pub fn complete(&self, key: &CacheKey, standings: &[Standing]) -> Option<Arc<Snapshot>> {
        let current = self.existing_lineage(key)?.current()?;
        let now = self.clock.now();
        let usable = current.is_complete()
            && !self.is_over(&current, now)
            && standings.contains(&current.standing(true, now));
        usable.then_some(current)
    }

    /// Loads the current snapshots of these searches from the store, if memory does not hold them.
    pub async fn recall_current(self: &Arc<Self>, keys: &[&CacheKey], deadline: Instant) {
        for key in keys {
            if self.keeps() && self.current(key).is_none() {
                let what = Recall::Search((*key).clone());
                self.recall(what, deadline).await;
            }
        }
    }

    /// Returns whether a refresh of a search is under way.
    pub fn is_refreshing(&self, key: &CacheKey) -> bool {
        self.existing_lineage(key)
            .is_some_and(|lineage| lineage.is_refreshing())
    }

    /// Returns the current snapshot of a search, for explanations.
    pub fn current(&self, key: &CacheKey) -> Option<Arc<Snapshot>> {
        self.existing_lineage(key)?.current()
    }

    fn lineage(&self, ask: &Open<'_>) -> Result<Arc<Lineage>, OpenError> {
        let mut lineages = self.lineages.lock();
        if let Some(lineage) = lineages.get(ask.key) {
            return Ok(lineage.clone());
        }
        if lineages.len() >= LINEAGES_MAX {
            let short = WalkFailure::Overloaded(Shortage::Searches, None);
            return Err(OpenError::Walk(short));
        }
        let lineage = Lineage::new(ask.key.clone(), ask.query.clone());
        lineages.insert(ask.key.clone(), lineage.clone());
        self.listen_for(&lineage);
        Ok(lineage)
    }

    fn lineage_of(&self, key: &CacheKey, query: &Arc<SearchQuery>) -> Arc<Lineage> {
        let mut lineages = self.lineages.lock();
        lineages
            .entry(key.clone())
            .or_insert_with(|| {
                let lineage = Lineage::new(key.clone(), query.clone());
                self.listen_for(&lineage);
                lineage
            })
            .clone()
    }

    pub(super) fn existing_lineage(&self, key: &CacheKey) -> Option<Arc<Lineage>> {
        self.lineages.lock().get(key).cloned()
    }

    pub(super) fn new_snapshot(&self, lineage: &Lineage, lifetimes: Lifetimes) -> Arc<Snapshot> {
        let snapshot = Snapshot::new(
            lineage.key.clone(),
            lineage.query.clone(),
            lifetimes,
            self.total.clone(),
            self.clock.clone(),
        );
        self.held.insert(snapshot.clone());
        snapshot
    }

    /// Removes a snapshot. Its tokens end.
    pub(super) fn discard(&self, lineage: &Lineage, snapshot: &Arc<Snapshot>) {
        self.held.remove(snapshot.id());
        lineage.forget(snapshot);
    }

    pub(super) fn purges(&self) -> u64 {
        self.kept.purges().number()
    }

    /// Returns whether a purge covers a search whose scroll began after `begun` purges.
    pub(super) fn purged_since(&self, key: &CacheKey, begun: u64) -> bool {
        self.purged_by(key, begun).is_some()
    }

    pub(super) fn purged_by(&self, key: &CacheKey, begun: u64) -> Option<PurgeDepth> {
        let purges = self.kept.purges().hold();
        purges.covers(key.subject().purged_as(), begun)
    }

    /// Adds a snapshot from the store whose scroll began after `begun` purges. If it is `current`,
    /// it answers first pages, unless there is another one by now.
    pub(super) fn hold(&self, snapshot: &Arc<Snapshot>, begun: u64, current: bool) {
        self.held.insert(snapshot.clone());
        if current {
            let lineage = self.lineage_of(&snapshot.key, &snapshot.query);
            lineage.current_or(|| snapshot.clone());
        }
        self.end_if_purged(snapshot, begun);
    }

    /// Ends a snapshot that has just been added if a hard purge covers it. The purge may have come
    /// before it was added, and after its rows were read.
    pub(super) fn end_if_purged(&self, snapshot: &Arc<Snapshot>, begun: u64) {
        if self.purged_by(&snapshot.key, begun) == Some(PurgeDepth::Hard) {
            snapshot.end_tokens();
            self.let_go(snapshot);
        }
    }

    /// Returns whether a snapshot's time is over: it was not used for the tokens' lifetime and
    /// answers no new search either, or it reached the greatest age.
    pub(super) fn is_over(&self, snapshot: &Snapshot, now: Instant) -> bool {
        !snapshot.is_growing() && self.is_kept_too_long(snapshot, now)
            || self.is_too_old(snapshot, now)
    }

    fn is_too_old(&self, snapshot: &Snapshot, now: Instant) -> bool {
        let age = now.saturating_duration_since(snapshot.birth());
        age >= self.options.load().snapshot_lifetime_max
    }

    /// Returns whether no walk is running on a snapshot, and neither a token nor a new search needs
    /// it.
    pub(super) fn is_kept_too_long(&self, snapshot: &Snapshot, now: Instant) -> bool {
        let unused = now.saturating_duration_since(snapshot.last_used());
        self.is_too_old(snapshot, now)
            || unused >= self.options.load().token_lifetime
                && snapshot.standing(false, now) == Standing::Expired
    }

    /// Returns the bytes of all snapshots.
    pub fn bytes(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    /// Returns whether another snapshot may be begun: the budget is not full of snapshots in use.
    pub(super) fn has_room(&self) -> bool {
        self.make_room();
        self.bytes() < self.options.load().snapshot_bytes_max
    }

    /// Evicts the least recently used snapshots until the budget holds. Growing snapshots stay.
    pub(super) fn make_room(&self) {
        let max = self.options.load().snapshot_bytes_max;
        if self.bytes() <= max {
            return;
        }
        while self.bytes() > max {
            let Some(oldest) = self.held.take_oldest(|snapshot| !snapshot.is_growing()) else {
                break;
            };
            self.evicted.fetch_add(1, Ordering::Relaxed);
            self.let_go(&oldest);
        }
    }

    fn let_go(&self, snapshot: &Arc<Snapshot>) {
        self.held.remove(snapshot.id());
        // Readers may hold it a little longer, but its bytes leave the budget now. A growing
        // snapshot that a purge ended is charged until its walk drops it.
        if !snapshot.is_growing() {
            snapshot.uncharge();
        }
        if let Some(lineage) = self.existing_lineage(&snapshot.key) {
            lineage.forget(snapshot);
        }
    }

    /// Removes expired snapshots, and counts those whose rows the shared store lacks. Call it every
    /// few seconds.
    pub fn sweep(&self) {
        let now = self.clock.now();
        let mut detached = 0;
        for snapshot in self.held.all() {
            if self.is_over(&snapshot, now) || snapshot.is_ended() {
                self.let_go(&snapshot);
                self.forget_kept(&snapshot);
            } else {
                self.touch_kept(&snapshot, now);
                detached += usize::from(self.is_detached(&snapshot));
            }
        }
        self.kept.note_detached(detached);
        self.lineages.lock().retain(|_, lineage| {
            Arc::strong_count(lineage) > 1 || !lineage.is_idle() || lineage.remembers_failure(now)
        });
        self.heard.sweep();
        // Frees the slots of abandoned scrolls that have expired, and gives them to waiting
        // searches.
        self.slots.usage();
        self.slots.look(self.options.load().scroll_expiry);
    }

    /// Returns how full the store is.
    pub fn usage(&self) -> StoreUsage {
        StoreUsage {
            entries: self.count(),
            bytes: self.bytes(),
            bytes_max: self.options.load().snapshot_bytes_max,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Purges the snapshots that `which` selects, and returns their number. Soft: they become stale
    /// and are refreshed at the next request. Hard: they are removed and their tokens end.
    pub fn purge(&self, soft: bool, which: impl Fn(&Snapshot) -> bool) -> u64 {
        let mut purged = 0;
        for snapshot in self.held.all() {
            if !which(&snapshot) {
                continue;
            }
            purged += 1;
            if soft {
                snapshot.make_stale();
            } else {
                snapshot.end_tokens();
                self.let_go(&snapshot);
                self.forget_kept(&snapshot);
            }
        }
        purged
    }

    /// Returns all snapshots held.
    pub(super) fn held(&self) -> Vec<Arc<Snapshot>> {
        self.held.all()
    }

    /// Returns the monotonic time.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the number of snapshots.
    pub fn count(&self) -> u64 {
        self.held.len() as u64
    }
}
