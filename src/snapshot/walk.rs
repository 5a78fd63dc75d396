//! A walk: one task that owns one scroll and reads it, strictly serially, into a snapshot.
//!
//! A continuation is sent once. Whatever leaves its fate unclear ends the scroll, and a new search
//! takes over if somebody still waits. What a new search brings is compared with what was served
//! already; only rows that nobody saw are ever replaced.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::task::yield_now;

use super::frozen::{End, Snapshot, State, WalkFailure};
use super::lineage::Lineage;
use super::rows::Rows;
use super::slots::{NoSlot, SlotLease};
use super::store::Snapshots;
use crate::admission::{Lane, Payer, Spend};
use crate::cache::{Lifetimes, Wanted};
use crate::clock::{Duration, Instant, sleep, sleep_until};
use crate::domain::record::RowId;
use crate::domain::{Operation, Shortage};
use crate::metrics::WalkOutcome;
use crate::upstream::{EnvelopeMember, Fault, ScrollId, SearchPage, UpstreamError};

/// Wait of a vendor call for budget and answer where no caller's deadline is further away: time for
/// an attempt and a short queue.
const CALL_WAIT: Duration = Duration::from_secs(20);
/// First pause before a new search after a lost scroll; doubles each time, with full jitter.
const REWALK_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const REWALK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Shortest pause of a scroll that is to end because searches wait for slots, but finds no budget.
const PRESS_PAUSE: Duration = Duration::from_millis(500);
/// A failure answers everyone who asks within this time, so that a burst of readers does not become
/// a burst of searches.
const FAILURE_HOLD: Duration = Duration::from_millis(300);

/// Why a walk is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To bring the rows that readers of the target wait for.
    Grow,
    /// To learn whether the target is still what the vendor answers.
    Refresh {
        /// How much. Where callers wait, the first vendor page decides.
        wanted: Wanted,
        /// Compare every row, not only those that were served.
        whole: bool,
    },
}

/// The task's state.
pub(super) struct Walk {
    pub(super) store: Arc<Snapshots>,
    pub(super) lineage: Arc<Lineage>,
    pub(super) target: Arc<Snapshot>,
    pub(super) purpose: Purpose,
    /// Rows of this scroll while they are only compared; `None` once they flow into the target.
    pub(super) shadow: Option<Rows>,
    /// Rows of the shadow known to equal the target's.
    pub(super) compared: usize,
    /// A refresh has been decided.
    pub(super) settled: bool,
    /// The lineage waits to be told how the refresh ended.
    pub(super) owes_refresh: bool,
    /// Worth reading to its end when idle: readers began it. A refresh has nothing more to tell.
    pub(super) drains: bool,
    /// This task is one of the target's growers.
    pub(super) grows: bool,
    /// Vendor pages read since the last reader left.
    pub(super) drained: usize,
    /// Read-ahead found no budget; the next demand tries again.
    pub(super) read_ahead_paused: bool,
    /// The page under way is read because searches wait for slots.
    pub(super) presses: bool,
    /// No such page before then: the last one found no budget.
    pub(super) pressing_from: Instant,
    /// How long answers of this walk may be used, as its search was graded when it began.
    pub(super) lifetimes: Lifetimes,
    /// When its scroll was begun.
    pub(super) began: Instant,
    pub(super) last_fetch: Instant,
}

pub(super) struct Scroll {
    pub(super) id: Option<ScrollId>,
    pub(super) slot: SlotLease,
    // A hash already, and of this process only.
    pub(super) seen: HashSet<RowId, RandomState>,
    pub(super) page_prints: HashSet<[u8; 32]>,
    pub(super) pages: usize,
    pub(super) began: Instant,
    pub(super) first_page: Instant,
    pub(super) envelope: Arc<[EnvelopeMember]>,
    pub(super) purges: u64,
}

enum ScrollEnd {
    /// The walk is over.
    Over(WalkOutcome),
    /// The search gave no scroll.
    NotBegun(WalkFailure),
    /// The scroll is lost.
    Lost(UpstreamError),
}

enum Next {
    Fetch(Lane),
    Abandon,
}

pub(super) enum Step {
    GoOn,
    Over(WalkOutcome),
    Lost(UpstreamError),
}

impl Walk {
    /// A walk that brings the rows which readers of `target` wait for. It must be counted in
    /// `growers` already.
    pub fn grow(store: Arc<Snapshots>, lineage: Arc<Lineage>, target: Arc<Snapshot>) -> Self {
        let lifetimes = target.lifetimes();
        Self::new(store, lineage, target, Purpose::Grow, lifetimes)
    }

    /// A walk that refreshes `target`. The lineage must be marked as refreshing already.
    pub fn refresh(
        store: Arc<Snapshots>,
        lineage: Arc<Lineage>,
        target: Arc<Snapshot>,
        lifetimes: Lifetimes,
        wanted: Wanted,
        whole: bool,
    ) -> Self {
        let purpose = Purpose::Refresh { wanted, whole };
        Self::new(store, lineage, target, purpose, lifetimes)
    }

    fn new(
        store: Arc<Snapshots>,
        lineage: Arc<Lineage>,
        target: Arc<Snapshot>,
        purpose: Purpose,
        lifetimes: Lifetimes,
    ) -> Self {
        let last_fetch = store.clock.now();
        Self {
            store,
            lineage,
            target,
            purpose,
            shadow: Some(Rows::default()),
            compared: 0,
            settled: false,
            owes_refresh: purpose != Purpose::Grow,
            drains: purpose == Purpose::Grow,
            grows: purpose == Purpose::Grow,
            drained: 0,
            read_ahead_paused: false,
            presses: false,
            pressing_from: last_fetch,
            lifetimes,
            began: last_fetch,
            last_fetch,
        }
    }

    /// Runs to the walk's end, in a task of its own.
    pub async fn run(mut self) {
        let lineage = self.lineage.clone();
        let Some(_turn) = lineage.take_turn().await else {
            return;
        };
        if self.purpose == Purpose::Grow && self.leave_if_unwanted() {
            // The walk before brought what was waited for.
            return;
        }
        let mut rewalks = 0;
        loop {
            let failure = match self.one_scroll().await {
                ScrollEnd::Over(outcome) => {
                    self.store.metrics.walk(outcome);
                    return;
                }
                ScrollEnd::NotBegun(failure) => {
                    if rewalks == 0 || !may_pass(&failure) {
                        return self.fail(failure);
                    }
                    failure
                }
                ScrollEnd::Lost(error) => {
                    tracing::info!(search = %self.lineage.key, %error, "scroll lost");
                    let failure = WalkFailure::Upstream(error);
                    if (self.settled && !self.grows) || self.leave_if_unwanted() {
                        self.store.metrics.walk(WalkOutcome::Lost);
                        return;
                    }
                    if matches!(self.purpose, Purpose::Refresh { .. }) && !self.settled {
                        // A failed refresh changes nothing.
                        self.store.metrics.walk(WalkOutcome::Lost);
                        return self.fail(failure);
                    }
                    failure
                }
            };
            if rewalks >= self.store.options.load().rewalks_max {
                self.store.metrics.walk(WalkOutcome::Lost);
                return self.fail(failure);
            }
            let Some(pause) = self.pause(&failure, rewalks) else {
                self.store.metrics.walk(WalkOutcome::Lost);
                return self.fail(failure);
            };
            sleep(pause).await;
            rewalks += 1;
            self.store.metrics.walk(WalkOutcome::Rewalked);
            self.purpose = Purpose::Grow;
            self.shadow = Some(Rows::default());
            self.compared = 0;
        }
    }

    /// How long to wait before the next search: back-off with full jitter, and not before the vendor
    /// or its budget wants to hear of us again. `None` if everyone who waits will have left by then.
    fn pause(&self, failure: &WalkFailure, rewalks: u32) -> Option<Duration> {
        let pause = REWALK_PAUSE
            .saturating_mul(1 << rewalks.min(8))
            .min(REWALK_PAUSE_MAX)
            .mul_f64(fastrand::f64());
        let WalkFailure::Upstream(UpstreamError {
            retry_after: Some(after),
            ..
        }) = failure
        else {
            return Some(pause);
        };
        let pause = pause + *after;
        let until = self.target.lock().wanted_until?;
        (self.store.clock.now() + pause < until).then_some(pause)
    }

    /// Opens a scroll and reads it until the walk is over or the scroll is lost.
    async fn one_scroll(&mut self) -> ScrollEnd {
        let options = self.store.options.load_full();
        let clock = self.store.clock.clone();
        let purges = self.store.purges();
        if !self.store.has_room() {
            let short = WalkFailure::Overloaded(Shortage::SnapshotBytes, None);
            return ScrollEnd::NotBegun(short);
        }
        let slot_deadline = clock.now() + options.slot_wait_max;
        let spend = self.spend(self.first_lane());
        let slots = &self.store.slots;
        let taken = slots.take(&spend, options.scroll_expiry, slot_deadline);
        let slot = match taken.await {
            Ok(slot) => slot,
            Err(why) => return ScrollEnd::NotBegun(no_slot(why)),
        };
        let began = clock.now();
        self.began = began;
        // Anew: others may have come meanwhile, with more time.
        let spend = self.spend(self.first_lane());
        let query = self.target.query.clone();
        let found = self
            .store
            .wiv
            .search(&query, options.vendor_page_size, spend);
        let mut page = match found.await {
            Ok(page) => page,
            Err(error) => {
                if is_answer(error.fault) || error.fault.was_not_sent() || error.was_refused_here()
                {
                    slot.end();
                } else if was_answered(error.fault) {
                    slot.opened();
                }
                return ScrollEnd::NotBegun(WalkFailure::Upstream(error));
            }
        };
        slot.page();
        let first_page = clock.now();
        let mut scroll = Scroll {
            id: None,
            slot,
            seen: HashSet::default(),
            page_prints: HashSet::new(),
            pages: 0,
            began,
            first_page,
            envelope: std::mem::take(&mut page.envelope).into(),
            purges,
        };
        loop {
            self.last_fetch = clock.now();
            let over = match self.take_page(&mut scroll, page) {
                Step::Lost(error) => return ScrollEnd::Lost(error),
                Step::GoOn => None,
                Step::Over(outcome) => Some(outcome),
            };
            // Those who wait for the rows have them; what else there is to do can wait for them.
            yield_now().await;
            self.store.make_room();
            if let Some(outcome) = over {
                if outcome != WalkOutcome::Cut {
                    scroll.slot.end();
                }
                return ScrollEnd::Over(outcome);
            }
            page = loop {
                let lane = match self.next(&scroll.slot).await {
                    Next::Abandon => return ScrollEnd::Over(WalkOutcome::Abandoned),
                    Next::Fetch(lane) => lane,
                };
                let Some(id) = &scroll.id else {
                    return ScrollEnd::Over(WalkOutcome::Complete);
                };
                let spend = self.spend(lane);
                let size = options.vendor_page_size;
                match self
                    .store
                    .wiv
                    .continue_scroll(id, size, &query, spend)
                    .await
                {
                    Ok(page) => {
                        scroll.slot.page();
                        break page;
                    }
                    // The scroll has not moved, so it is good still.
                    Err(error) if error.fault.was_not_sent() || error.was_refused_here() => {
                        if let Some(end) = self.not_sent(lane, error) {
                            return end;
                        }
                    }
                    Err(error) => return ScrollEnd::Lost(error),
                }
            };
        }
    }

    /// A continuation found no budget or no way to the vendor.
    fn not_sent(&mut self, lane: Lane, error: UpstreamError) -> Option<ScrollEnd> {
        if matches!(self.purpose, Purpose::Refresh { .. }) && !self.settled && self.shadow.is_some()
        {
            return Some(ScrollEnd::Lost(error));
        }
        if self.presses {
            // Left now, its slot would linger; a little later it may end.
            let pause = error.retry_after.unwrap_or_default().max(PRESS_PAUSE);
            self.pressing_from = self.store.clock.now() + pause;
            return None;
        }
        match lane {
            Lane::Interactive => self.announce_failure(WalkFailure::Upstream(error)),
            Lane::ReadAhead => self.read_ahead_paused = true,
            Lane::Refresh | Lane::Export if !self.grows || self.leave_if_unwanted() => {
                return Some(ScrollEnd::Over(WalkOutcome::Abandoned));
            }
            Lane::Refresh | Lane::Export => self.announce_failure(WalkFailure::Upstream(error)),
        }
        None
    }

    fn first_lane(&self) -> Lane {
        match self.purpose {
            Purpose::Refresh { wanted, .. } => wanted.lane(),
            Purpose::Grow => {
                let state = self.target.lock();
                if state.wanted_pages == 0 && state.wanted_export > 0 {
                    Lane::Export
                } else {
                    Lane::Interactive
                }
            }
        }
    }

    fn spend(&self, lane: Lane) -> Spend {
        let (payer, until) = match lane {
            Lane::Interactive | Lane::Export => {
                let state = self.target.lock();
                (state.payer.clone(), state.wanted_until)
            }
            Lane::Refresh if self.is_wanted_soon() => (self.target.lock().payer.clone(), None),
            Lane::Refresh | Lane::ReadAhead => (None, None),
        };
        let soonest = self.store.clock.now() + CALL_WAIT;
        let deadline = until.map_or(soonest, |until| until.max(soonest));
        Spend {
            lane,
            deadline,
            wanted_until: until.unwrap_or(deadline),
            payer: payer.unwrap_or_else(Payer::gateway),
        }
    }

    /// Whether it is a refresh that callers wait a moment for: on their account, then.
    fn is_wanted_soon(&self) -> bool {
        matches!(
            self.purpose,
            Purpose::Refresh {
                wanted: Wanted::Soon,
                ..
            }
        )
    }

    /// Stops growing, unless a reader waits; the two are decided together, so that none is missed.
    fn leave_if_unwanted(&mut self) -> bool {
        if !self.grows {
            return false;
        }
        let mut state = self.target.lock();
        if wanted_lane(&state).is_some() {
            return false;
        }
        state.growers = state.growers.saturating_sub(1);
        self.grows = false;
        true
    }

    /// What to do next; waits until there is something.
    async fn next(&mut self, slot: &SlotLease) -> Next {
        let store = self.store.clone();
        let lineage = self.lineage.clone();
        loop {
            let target = self.target.clone();
            let demand = target.demand.notified();
            let short = store.slots.pressed.notified();
            let pressed = lineage.pressed.notified();
            let (mut short, mut pressed) = (std::pin::pin!(short), std::pin::pin!(pressed));
            short.as_mut().enable();
            pressed.as_mut().enable();
            let idle_at = match self.decide(slot) {
                Ok(next) => return next,
                Err(idle_at) => idle_at,
            };
            tokio::select! {
                () = demand => {}
                () = short => {}
                () = pressed => {}
                () = sleep_until(idle_at) => {}
            }
        }
    }

    /// What to do now, or until when there is nothing to do.
    fn decide(&mut self, slot: &SlotLease) -> Result<Next, Instant> {
        if let Purpose::Refresh { wanted, .. } = self.purpose
            && !self.settled
            && self.shadow.is_some()
        {
            return Ok(Next::Fetch(wanted.lane()));
        }
        let options = self.store.options.load();
        let now = self.store.clock.now();
        let mut state = self.target.lock();
        if let Some(lane) = wanted_lane(&state) {
            self.drained = 0;
            self.read_ahead_paused = false;
            slot.busy();
            return Ok(Next::Fetch(lane));
        }
        // Whoever looks at the first page again and again wants no more rows, and must not keep the
        // walk, which every first page joins, from ending.
        let idle_since = self.target.last_paged().max(self.last_fetch_of_reader());
        let over_at = self.began + options.walk_time_max;
        let idle_at = (idle_since + options.scroll_idle_max).min(over_at);
        let mut leave = |state: &mut State| {
            if self.grows {
                state.growers = state.growers.saturating_sub(1);
                self.grows = false;
            }
            Ok(Next::Abandon)
        };
        if self.lineage.is_pressed() {
            return leave(&mut state);
        }
        // Ending a scroll is the only way to free its slot, so this goes before read-ahead.
        self.presses = false;
        if let Some(lane) = slot.idle() {
            if now >= self.pressing_from {
                self.presses = true;
                return Ok(Next::Fetch(lane));
            }
            return Err(self.pressing_from);
        }
        let ahead = options.read_ahead_pages * options.vendor_page_size.get();
        let reads_on = state.end == End::Growing && state.furthest > 0;
        if reads_on && !self.read_ahead_paused && state.rows.len() < state.furthest + ahead {
            return Ok(Next::Fetch(Lane::ReadAhead));
        }
        if now < idle_at {
            return Err(idle_at);
        }
        if now >= over_at {
            return leave(&mut state);
        }
        let drains = self.drains || self.store.slots.is_half_used();
        if drains && self.drained < options.drain_pages_max {
            self.drained += 1;
            return Ok(Next::Fetch(Lane::Export));
        }
        leave(&mut state)
    }

    fn last_fetch_of_reader(&self) -> Instant {
        // Draining is no use of the snapshot, so it does not begin the idle time anew.
        if self.drained > 0 {
            self.target.last_paged()
        } else {
            self.last_fetch
        }
    }

    /// Takes a vendor page into the shadow or the target.
    fn take_page(&mut self, scroll: &mut Scroll, page: SearchPage) -> Step {
        let lost = |detail: &'static str| {
            Step::Lost(UpstreamError::new(
                Operation::Continue,
                Fault::Malformed,
                detail,
            ))
        };
        scroll.pages += 1;
        let count = page.rows.len();
        // A scroll of a single page has no other one to repeat.
        let alone = page.scroll.is_none() && scroll.page_prints.is_empty();
        let mut print = (!alone).then(blake3::Hasher::new);
        let mut fresh = Rows::default();
        scroll.seen.reserve(count);
        let repeated = fresh.append(page.rows, |id| {
            if let Some(print) = &mut print {
                print.update(&id.0.to_le_bytes());
            }
            scroll.seen.insert(id)
        });
        let print = print.map(|print| *print.finalize().as_bytes());
        if count > 0 && print.is_some_and(|print| !scroll.page_prints.insert(print)) {
            return lost("the vendor repeated a whole page");
        }
        self.store.metrics.duplicate_rows.inc_by(repeated as u64);
        // An empty page is the end, whatever its cursor.
        scroll.id = page.scroll.filter(|_| count > 0);
        let mut end = scroll.id.is_none().then_some(End::Complete);

        match &mut self.shadow {
            Some(shadow) => shadow.take_from(fresh, 0),
            None => self.target.lock().rows.take_from(fresh, 0),
        }
        end = end.or_else(|| self.bound(scroll));
        if self.shadow.is_some() {
            self.compare(scroll, end)
        } else {
            self.finish_page(end)
        }
    }

    /// The bound that the walk has hit, if any.
    fn bound(&self, scroll: &Scroll) -> Option<End> {
        let options = self.store.options.load();
        let (rows, bytes) = match &self.shadow {
            Some(shadow) => (shadow.len(), shadow.bytes()),
            None => {
                let state = self.target.lock();
                (state.rows.len(), state.rows.bytes())
            }
        };
        let time = self
            .store
            .clock
            .now()
            .saturating_duration_since(scroll.began);
        let hit = [
            (rows >= options.walk_rows_max, "pagination.walk_rows_max"),
            (
                scroll.pages >= options.walk_pages_max,
                "pagination.walk_pages_max",
            ),
            (bytes >= options.walk_bytes_max, "pagination.walk_bytes_max"),
            (time >= options.walk_time_max, "pagination.walk_time_max"),
        ];
        let hit = hit.iter().find(|(hit, _)| *hit)?;
        Some(End::Cut(hit.1))
    }

    /// The target has new rows, or its end.
    pub(super) fn finish_page(&mut self, end: Option<End>) -> Step {
        if let Some(end) = end {
            let mut state = self.target.lock();
            state.end = end;
            if self.grows {
                state.growers = state.growers.saturating_sub(1);
                self.grows = false;
            }
        }
        self.target.announce();
        self.end_refresh(None);
        match end {
            None => Step::GoOn,
            Some(End::Cut(_)) => Step::Over(WalkOutcome::Cut),
            Some(_) => Step::Over(WalkOutcome::Complete),
        }
    }

    fn announce_failure(&self, failure: WalkFailure) {
        self.lineage
            .hold_failure(failure.clone(), self.hold_until());
        self.target.announce_failure(failure);
    }

    fn hold_until(&self) -> Instant {
        self.store.clock.now() + FAILURE_HOLD.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// Gives up: those who wait get the failure, the next who asks tries again.
    fn fail(&mut self, failure: WalkFailure) {
        tracing::info!(search = %self.lineage.key, ?failure, "walk failed");
        let empty = {
            let mut state = self.target.lock();
            if self.grows {
                state.growers = state.growers.saturating_sub(1);
                self.grows = false;
            }
            state.ages.is_none()
        };
        if empty {
            // Nothing was ever served of it.
            self.store.discard(&self.lineage, &self.target);
        }
        self.announce_failure(failure.clone());
        self.end_refresh(Some(failure));
    }

    pub(super) fn end_refresh(&mut self, failure: Option<WalkFailure>) {
        if std::mem::take(&mut self.owes_refresh) {
            let failure = failure.map(|failure| (failure, self.hold_until()));
            self.lineage.end_refresh(failure);
        }
        // Once rows flow into the target, whatever this task does is growth.
        if self.shadow.is_none() {
            self.purpose = Purpose::Grow;
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Also after a panic and at shutdown: nobody may wait for a walk that is gone.
        if self.grows {
            let mut state = self.target.lock();
            state.growers = state.growers.saturating_sub(1);
            drop(state);
            self.target.announce_failure(WalkFailure::Internal);
        } else {
            self.target.announce();
        }
        self.end_refresh(Some(WalkFailure::Internal));
    }
}

/// The lane of the most urgent reader who waits for rows that are not there.
fn wanted_lane(state: &State) -> Option<Lane> {
    if state.end != End::Growing {
        None
    } else if state.wanted_pages > state.rows.len() {
        Some(Lane::Interactive)
    } else if state.wanted_export > state.rows.len() {
        Some(Lane::Export)
    } else {
        None
    }
}

/// Nothing was asked of the vendor.
fn no_slot(why: NoSlot) -> WalkFailure {
    match why {
        NoSlot::Short(short, after) => WalkFailure::Overloaded(short, after),
        NoSlot::VendorFails(after) => {
            let detail = "the vendor failed lately";
            let error = UpstreamError::new(Operation::Search, Fault::CircuitOpen, detail);
            WalkFailure::Upstream(error.with_retry_after(after))
        }
        NoSlot::Budget(after) => {
            let detail = "the budget grows back after the deadline";
            let error = UpstreamError::new(Operation::Search, Fault::BudgetExhausted, detail);
            WalkFailure::Upstream(error.with_retry_after(after))
        }
    }
}

/// Whether the vendor gave a complete answer, so that no scroll can have been opened.
fn is_answer(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::RateLimited
            | Fault::ServerError
            | Fault::CredentialRejected
            | Fault::Rejected
            | Fault::NotFound
            | Fault::Redirected
            | Fault::UnexpectedStatus
    )
}

/// Whether the vendor answered a search, though not as it should, so that it likely opened a scroll.
fn was_answered(fault: Fault) -> bool {
    matches!(fault, Fault::Malformed | Fault::TooLarge)
}

/// Whether the next search may go better.
fn may_pass(failure: &WalkFailure) -> bool {
    match failure {
        WalkFailure::Upstream(error) => {
            error.fault.is_passing()
                || matches!(
                    error.fault,
                    Fault::CircuitOpen
                        | Fault::RateLimited
                        | Fault::BudgetExhausted
                        | Fault::Malformed
                )
        }
        WalkFailure::Overloaded(..) | WalkFailure::Internal => false,
    }
}
