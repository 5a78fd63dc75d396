//! A walk: one task that owns one scroll and reads it, strictly serially, into a snapshot.
//!
//! A continuation is sent once. A failure that leaves its fate unclear loses the scroll, and a new
//! search takes over if a reader still waits. Its rows are compared with those that were served:
//! only rows that nobody saw are ever replaced. [`Stage`] names what a walk does with the rows that
//! come; the room's diagram shows how the stages follow each other.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::task::yield_now;

use super::follow::{Elsewhere, WalkRight};
use super::frozen::{End, Grower, Snapshot, State};
use super::keep::RowsKept;
use super::lineage::{Lineage, RefreshTurn};
use super::lost::{WalkFailure, is_answer, may_pass, no_slot, was_answered};
use super::rows::Rows;
use super::slots::SlotLease;
use super::store::Snapshots;
use crate::admission::{Lane, Payer, Spend};
use crate::cache::{Lifetimes, Wanted};
use crate::clock::{Duration, Instant, sleep, sleep_until};
use crate::domain::Shortage;
use crate::domain::record::RowId;
use crate::metrics::WalkOutcome;
use crate::traces::{OpenSpan, SpanKind};
use crate::upstream::{Cursor, EnvelopeMember, Fault, SourcePage, UpstreamError};

/// Wait of a vendor call for budget and answer where no caller's deadline is further away: time for
/// an attempt and a short queue.
const CALL_WAIT: Duration = Duration::from_secs(20);
/// First pause before a new search after a lost scroll; doubles each time, with full jitter.
const REWALK_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const REWALK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Shortest pause of a scroll that is to end because searches wait for slots, but finds no budget.
const PRESS_PAUSE: Duration = Duration::from_millis(500);
/// For this long a failure answers every further reader, so that a burst of readers does not become
/// a burst of searches.
const FAILURE_HOLD: Duration = Duration::from_millis(300);

/// What a walk does with the rows that come.
pub(super) enum Stage {
    /// Compares them with the published rows of the target, which they must repeat.
    Comparing {
        /// Counts the walk among those that let the target grow.
        grower: Grower,
        /// The scroll's rows so far.
        shadow: Shadow,
    },
    /// Adds them to the target.
    Growing {
        /// As above.
        grower: Grower,
    },
    /// Compares them to learn whether the target is still what the vendor answers.
    Checking {
        /// The lineage waits for the end of this refresh.
        turn: RefreshTurn,
        /// The scroll's rows so far.
        shadow: Shadow,
        /// Whether callers wait. If they do, the first vendor page decides.
        wanted: Wanted,
        /// Compares every row, not only those that were served.
        whole: bool,
    },
    /// The refresh found the same rows. Compares further ones, in case a reader wants them.
    Renewed {
        /// Present while the target may grow.
        grower: Option<Grower>,
        /// The scroll's rows so far.
        shadow: Shadow,
    },
    /// Nothing more comes of this walk.
    Over,
}

/// Rows of a scroll that are compared and not yet served.
#[derive(Default)]
pub(super) struct Shadow {
    pub rows: Rows,
    /// Rows that are known to equal the target's.
    pub compared: usize,
}

/// Why a walk was begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Readers wait for rows. An idle walk is worth reading to its end.
    Readers,
    /// A refresh, which has told everything once it is decided.
    Refresh,
}

/// Why the next vendor page is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// A refresh is not decided.
    Check(Lane),
    /// A reader waits for rows.
    Reader(Lane),
    /// One page more than the furthest reader has read.
    ReadAhead,
    /// The idle walk may reach its end.
    Drain,
    /// The gateway leaves, and what is kept costs no call after it.
    ReadOn,
    /// Searches wait for a slot, so the scroll must end.
    Press(Lane),
}

impl Errand {
    fn lane(self) -> Lane {
        match self {
            Self::Check(lane) | Self::Reader(lane) | Self::Press(lane) => lane,
            Self::ReadAhead => Lane::ReadAhead,
            Self::Drain => Lane::Export,
            Self::ReadOn => Lane::Refresh,
        }
    }
}

/// The task's state.
pub(super) struct Walk {
    pub(super) store: Arc<Snapshots>,
    pub(super) lineage: Arc<Lineage>,
    pub(super) target: Arc<Snapshot>,
    pub(super) stage: Stage,
    origin: Origin,
    /// Vendor pages read since the last reader left.
    drained: usize,
    /// Read-ahead, or reading on while the gateway leaves, found no budget; the next demand tries
    /// again.
    read_ahead_paused: bool,
    /// No page is read for waiting searches before then: the last one found no budget.
    pressing_from: Instant,
    /// How long answers of this walk may be used, as its search was graded when it began.
    pub(super) lifetimes: Lifetimes,
    /// When its scroll was begun.
    began: Instant,
    last_fetch: Instant,
    /// The target's end, which readers get with its last rows.
    pub(super) ending: Option<End>,
    /// By which right it asks the vendor, among the gateways that share a store.
    pub(super) right: WalkRight,
    /// The rows that another gateway walks are not good for its target.
    pub(super) cannot_adopt: bool,
}

pub(super) struct Scroll {
    pub(super) cursor: Option<Cursor>,
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
    /// The scroll is lost behind this many rows.
    Lost(UpstreamError, usize),
    /// Another gateway walks the search.
    Deposed,
}

enum Next {
    Fetch(Errand),
    Abandon,
}

pub(super) enum WalkStep {
    GoOn,
    Over(WalkOutcome),
    Lost(UpstreamError),
}

impl Walk {
    /// Creates a walk that brings the rows which readers of `target` wait for.
    pub fn grow(
        store: Arc<Snapshots>,
        lineage: Arc<Lineage>,
        target: Arc<Snapshot>,
        grower: Grower,
    ) -> Self {
        let lifetimes = target.lifetimes();
        let shadow = Shadow::default();
        let stage = Stage::Comparing { grower, shadow };
        Self::new(store, lineage, target, stage, Origin::Readers, lifetimes)
    }

    /// Creates a walk that refreshes `target`.
    pub fn refresh(
        store: Arc<Snapshots>,
        turn: RefreshTurn,
        target: Arc<Snapshot>,
        lifetimes: Lifetimes,
        wanted: Wanted,
        whole: bool,
    ) -> Self {
        let lineage = turn.lineage().clone();
        let stage = Stage::Checking {
            turn,
            shadow: Shadow::default(),
            wanted,
            whole,
        };
        Self::new(store, lineage, target, stage, Origin::Refresh, lifetimes)
    }

    fn new(
        store: Arc<Snapshots>,
        lineage: Arc<Lineage>,
        target: Arc<Snapshot>,
        stage: Stage,
        origin: Origin,
        lifetimes: Lifetimes,
    ) -> Self {
        let now = store.clock.now();
        Self {
            store,
            lineage,
            target,
            stage,
            origin,
            drained: 0,
            read_ahead_paused: false,
            pressing_from: now,
            lifetimes,
            began: now,
            last_fetch: now,
            ending: None,
            right: WalkRight::Sole,
            cannot_adopt: false,
        }
    }

    /// Runs to the walk's end, in a task of its own.
    pub async fn run(mut self) {
        let lineage = self.lineage.clone();
        let Some(_turn) = lineage.take_turn().await else {
            return;
        };
        // The walk compares with all rows that were kept.
        self.target.until_loaded().await;
        if matches!(self.stage, Stage::Comparing { .. }) && self.leave_if_unwanted() {
            // The walk before brought what was waited for.
            return;
        }
        if !self.take_claim().await {
            // Another gateway brought it.
            return;
        }
        let mut rewalks = 0;
        loop {
            let failure = match self.one_scroll().await {
                ScrollEnd::Over(outcome) => {
                    self.store.metrics.walk(outcome);
                    return;
                }
                ScrollEnd::Deposed => {
                    self.store.metrics.walk(WalkOutcome::Deposed);
                    self.step_down();
                    if !self.take_claim().await {
                        return;
                    }
                    continue;
                }
                ScrollEnd::NotBegun(failure) => {
                    if let Some(held) = self.same_content_fault(&failure, 0) {
                        return self.fail(held);
                    }
                    if rewalks == 0 || !may_pass(&failure) {
                        return self.fail(failure);
                    }
                    failure
                }
                ScrollEnd::Lost(error, row) => {
                    let payer = self.payer();
                    tracing::info!(
                        search = %self.lineage.key,
                        request_id = payer.as_ref().and_then(|payer| payer.request_id()),
                        trace_id = payer.as_ref().and_then(|payer| payer.trace_id()),
                        %error,
                        row,
                        "scroll lost"
                    );
                    let failure = WalkFailure::Upstream(error);
                    let held = self.same_content_fault(&failure, row);
                    if self.leave_if_unwanted() {
                        self.store.metrics.walk(WalkOutcome::Lost);
                        return;
                    }
                    // A failed refresh changes nothing.
                    let checking = matches!(self.stage, Stage::Checking { .. });
                    if checking || held.is_some() {
                        self.store.metrics.walk(WalkOutcome::Lost);
                        return self.fail(held.unwrap_or(failure));
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
            self.begin_comparing();
        }
    }

    /// Prepares for the rows of a new search, after the scroll before was lost.
    pub(super) fn begin_comparing(&mut self) {
        let shadow = Shadow::default();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Comparing { grower, .. }
            | Stage::Growing { grower }
            | Stage::Renewed {
                grower: Some(grower),
                ..
            } => Stage::Comparing { grower, shadow },
            stage @ Stage::Checking { .. } => stage,
            Stage::Renewed { grower: None, .. } | Stage::Over => Stage::Over,
        };
    }

    /// Notes a fault of the vendor's content at this row. If the walk or the one before met the
    /// same fault there, another search would meet it too: returns the failure, to be held.
    fn same_content_fault(&self, failure: &WalkFailure, row: usize) -> Option<WalkFailure> {
        let WalkFailure::Upstream(error) = failure else {
            return None;
        };
        let now = self.store.clock.now();
        let held = self.lineage.note_content_fault(error, row, now)?;
        Some(WalkFailure::Upstream(held))
    }

    /// How long to wait before the next search: back-off with full jitter, and not before the
    /// vendor or its budget takes another call. `None` if every reader that waits will have left by
    /// then.
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
        let gates = self.store.walked.gates.as_ref();
        if let Some(refusal) = gates.and_then(|gates| gates.governor.barred()) {
            // A search that will be refused does not wait for a slot.
            let error = UpstreamError::short_of(self.store.walked.first, refusal);
            return ScrollEnd::NotBegun(WalkFailure::Upstream(error));
        }
        let slot_deadline = clock.now() + options.slot_wait_max;
        let spend = self.spend(self.first_lane());
        let slots = &self.store.slots;
        let taken = slots.take(&spend, options.scroll_expiry, slot_deadline);
        let slot = match taken.await {
            Ok(slot) => slot,
            Err(why) => return ScrollEnd::NotBegun(no_slot(why, self.store.walked.first)),
        };
        let began = clock.now();
        self.began = began;
        // Computed again, because readers with later deadlines may have joined meanwhile.
        let mut spend = self.spend(self.first_lane());
        let span = spend.open_span();
        let query = self.target.query.clone();
        let size = options.vendor_page_size;
        let found = self.store.walked.source.first(&query, size, spend).await;
        self.end_page_span(span, 1, &found);
        let mut page = match found {
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
            cursor: None,
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
            let rows = scroll.seen.len();
            let over = match self.take_page(&mut scroll, page) {
                WalkStep::Lost(error) => return ScrollEnd::Lost(error, rows),
                WalkStep::GoOn => None,
                WalkStep::Over(outcome) => Some(outcome),
            };
            if self.store.keeps() {
                // Kept before told, so that no reader holds a row that a crash undoes.
                let payer = self.payer();
                let trace = payer.as_ref().and_then(|payer| payer.trace());
                let span = trace.map(|trace| trace.open(None));
                let keeping = self.keep_page(scroll.purges).await;
                if let Some(span) = span {
                    span.end_store("keep_rows", clock.now());
                }
                if keeping == RowsKept::Deposed {
                    return ScrollEnd::Deposed;
                }
                self.tell();
            }
            self.lineage
                .pass_content_fault(scroll.seen.len(), over.is_some());
            // Readers that wait for the rows have them; the rest can wait for the readers.
            yield_now().await;
            self.store.make_room();
            if let Some(outcome) = over {
                if outcome != WalkOutcome::Cut {
                    scroll.slot.end();
                }
                return ScrollEnd::Over(outcome);
            }
            page = loop {
                let errand = match self.next(&scroll.slot).await {
                    Next::Abandon => return ScrollEnd::Over(WalkOutcome::Abandoned),
                    Next::Fetch(errand) => errand,
                };
                let Some(cursor) = &scroll.cursor else {
                    return ScrollEnd::Over(WalkOutcome::Complete);
                };
                if !self.may_send().await {
                    return ScrollEnd::Deposed;
                }
                let mut spend = self.spend(errand.lane());
                let span = spend.open_span();
                let source = &self.store.walked.source;
                let found = source.next(cursor, &query, size, spend).await;
                self.end_page_span(span, scroll.pages + 1, &found);
                match found {
                    Ok(page) => {
                        scroll.slot.page();
                        break page;
                    }
                    // The scroll has not moved, so it can still be continued.
                    Err(error) if error.fault.was_not_sent() || error.was_refused_here() => {
                        if let Some(end) = self.not_sent(errand, error) {
                            return end;
                        }
                    }
                    Err(error) => return ScrollEnd::Lost(error, scroll.seen.len()),
                }
            };
        }
    }

    /// Ends the span of a vendor page, if the request that waits for it is sampled.
    fn end_page_span(
        &self,
        span: Option<OpenSpan>,
        page: usize,
        found: &Result<SourcePage, UpstreamError>,
    ) {
        let Some(span) = span else { return };
        let now = self.store.clock.now();
        span.end("walk page", SpanKind::Internal, now, |draft| {
            let draft = draft.with("msp_gateway.walk.page", page as u64);
            match found {
                Ok(found) => draft.with("msp_gateway.walk.rows", found.rows.len() as u64),
                Err(error) => draft.failed(error.fault.as_str()),
            }
        });
    }

    /// A continuation found no budget or no way to the vendor.
    fn not_sent(&mut self, errand: Errand, error: UpstreamError) -> Option<ScrollEnd> {
        match errand {
            Errand::Check(_) => return Some(ScrollEnd::Lost(error, 0)),
            Errand::Press(_) => {
                // An abandoned scroll would count until it expires; this one may end a little
                // later.
                let pause = error.retry_after.unwrap_or_default().max(PRESS_PAUSE);
                self.pressing_from = self.store.clock.now() + pause;
            }
            Errand::ReadAhead | Errand::ReadOn => self.read_ahead_paused = true,
            Errand::Reader(lane) if lane.is_interactive() => {
                self.announce_failure(WalkFailure::Upstream(error));
            }
            Errand::Reader(_) | Errand::Drain => {
                if self.leave_if_unwanted() {
                    return Some(ScrollEnd::Over(WalkOutcome::Abandoned));
                }
                self.announce_failure(WalkFailure::Upstream(error));
            }
        }
        None
    }

    fn first_lane(&self) -> Lane {
        if let Stage::Checking { wanted, .. } = self.stage {
            return wanted.lane();
        }
        let state = self.target.lock();
        if state.wanted_pages > 0 {
            Lane::Interactive
        } else if state.wanted_healed > 0 {
            Lane::Healing
        } else if state.wanted_export > 0 {
            Lane::Export
        } else {
            Lane::Interactive
        }
    }

    fn spend(&self, lane: Lane) -> Spend {
        // A refresh that callers wait a moment for is on their account.
        let wanted_soon = matches!(
            self.stage,
            Stage::Checking {
                wanted: Wanted::Soon,
                ..
            }
        );
        let (payer, until) = match lane {
            Lane::Interactive | Lane::Healing | Lane::Export => {
                let state = self.target.lock();
                (state.payer.clone(), state.wanted_until)
            }
            Lane::Refresh if wanted_soon => (self.target.lock().payer.clone(), None),
            // What ends an idle scroll is nobody's.
            Lane::Refresh | Lane::ReadAhead => (None, None),
        };
        let soonest = self.store.clock.now() + CALL_WAIT;
        let deadline = until.map_or(soonest, |until| until.max(soonest));
        Spend {
            lane,
            deadline,
            wanted_until: until.unwrap_or(deadline),
            payer: payer.unwrap_or_else(Payer::gateway),
            within: None,
        }
    }

    /// Stops growing the target, unless a reader waits. The two are decided under one lock, so that
    /// no reader is missed. Returns whether the walk has nothing to do any more.
    pub(super) fn leave_if_unwanted(&mut self) -> bool {
        let target = self.target.clone();
        let mut state = target.lock();
        match &self.stage {
            Stage::Checking { .. } => return false,
            Stage::Renewed { grower: None, .. } | Stage::Over => return true,
            Stage::Comparing { .. } | Stage::Growing { .. } | Stage::Renewed { .. } => {}
        }
        if wanted_lane(&state).is_some() {
            return false;
        }
        self.leave(&mut state);
        true
    }

    /// Stops growing the target, whose state is locked.
    pub(super) fn leave(&mut self, state: &mut State) {
        if let Some(grower) = self.take_grower() {
            grower.leave(state);
        }
    }

    fn take_grower(&mut self) -> Option<Grower> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Comparing { grower, .. } | Stage::Growing { grower } => Some(grower),
            Stage::Renewed { grower, .. } => grower,
            // Left as it is: its turn must be ended with a word.
            stage @ Stage::Checking { .. } => {
                self.stage = stage;
                None
            }
            Stage::Over => None,
        }
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
                () = self.right.changed() => {}
                () = sleep_until(idle_at) => {}
            }
        }
    }

    /// What to do now, or until when there is nothing to do.
    fn decide(&mut self, slot: &SlotLease) -> Result<Next, Instant> {
        if let Stage::Checking { wanted, .. } = self.stage {
            return Ok(Next::Fetch(Errand::Check(wanted.lane())));
        }
        let options = self.store.options.load();
        let now = self.store.clock.now();
        let target = self.target.clone();
        let mut state = target.lock();
        let wanted_elsewhere = self.hear(&mut state);
        if let Some(lane) = wanted_lane(&state) {
            self.drained = 0;
            self.read_ahead_paused = false;
            slot.busy();
            return Ok(Next::Fetch(Errand::Reader(lane)));
        }
        // A reader that asks for the first page again and again wants no more rows. It must not
        // keep the walk, which every first page joins, from ending.
        let idle_since = self.target.last_paged().max(self.last_fetch_of_reader());
        let over_at = self.began + options.walk_time_max;
        let idle_at = (idle_since + options.scroll_idle_max).min(over_at);
        if self.lineage.is_pressed() || wanted_elsewhere == Elsewhere::Turn {
            self.leave(&mut state);
            return Ok(Next::Abandon);
        }
        // Only the end of a scroll frees it at the vendor, so this goes before read-ahead.
        if let Some(lane) = slot.idle() {
            if now >= self.pressing_from {
                return Ok(Next::Fetch(Errand::Press(lane)));
            }
            return Err(self.pressing_from);
        }
        if self.reads_on_to_leave(&state, now) {
            self.drained += 1;
            return Ok(Next::Fetch(Errand::ReadOn));
        }
        let ahead = options.read_ahead_pages * options.vendor_page_size.get();
        let reads_on = state.end == End::Growing && state.furthest > 0;
        if reads_on && !self.read_ahead_paused && state.rows.len() < state.furthest + ahead {
            return Ok(Next::Fetch(Errand::ReadAhead));
        }
        if now < idle_at {
            return Err(idle_at);
        }
        let drains = self.origin == Origin::Readers || self.store.slots.is_half_used();
        if now < over_at && drains && self.drained < options.drain_pages_max {
            self.drained += 1;
            return Ok(Next::Fetch(Errand::Drain));
        }
        self.leave(&mut state);
        Ok(Next::Abandon)
    }

    /// Whether the gateway leaves and a reader who pages likely goes on after the restart. Pages
    /// that are kept by then cost no call.
    fn reads_on_to_leave(&self, state: &State, now: Instant) -> bool {
        let options = self.store.options.load();
        let idle = now.saturating_duration_since(self.target.last_paged());
        self.store.is_leaving()
            && state.end == End::Growing
            && state.furthest > 0
            && idle < options.scroll_idle_max
            && !self.read_ahead_paused
            && self.drained < options.drain_pages_max
    }

    fn last_fetch_of_reader(&self) -> Instant {
        // Draining is no use of the snapshot, so it does not restart the idle time.
        if self.drained > 0 {
            self.target.last_paged()
        } else {
            self.last_fetch
        }
    }

    /// Takes a vendor page into the shadow or the target.
    fn take_page(&mut self, scroll: &mut Scroll, page: SourcePage) -> WalkStep {
        let operation = self.store.walked.next;
        let lost = |detail: &'static str| {
            WalkStep::Lost(UpstreamError::new(operation, Fault::Malformed, detail))
        };
        scroll.pages += 1;
        let count = page.rows.len();
        // A scroll of a single page has no other page to repeat.
        let alone = page.next.is_none() && scroll.page_prints.is_empty();
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
        scroll.cursor = page.next.filter(|_| count > 0);
        let end = scroll.cursor.is_none().then_some(End::Complete);
        let held = match &mut self.stage {
            Stage::Comparing { shadow, .. }
            | Stage::Checking { shadow, .. }
            | Stage::Renewed { shadow, .. } => {
                shadow.rows.take_from(fresh, 0);
                (shadow.rows.len(), shadow.rows.bytes())
            }
            Stage::Growing { .. } | Stage::Over => {
                let mut state = self.target.lock();
                state.rows.take_from(fresh, 0);
                (state.rows.len(), state.rows.bytes())
            }
        };
        let end = end.or_else(|| self.bound(scroll, held));
        match self.stage {
            Stage::Growing { .. } | Stage::Over => self.finish_page(end),
            Stage::Comparing { .. } | Stage::Checking { .. } | Stage::Renewed { .. } => {
                self.compare(scroll, end)
            }
        }
    }

    /// Returns the limit that a walk with this many rows and bytes has reached, if any.
    fn bound(&self, scroll: &Scroll, (rows, bytes): (usize, u64)) -> Option<End> {
        let options = self.store.options.load();
        let now = self.store.clock.now();
        let time = now.saturating_duration_since(scroll.began);
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

    /// Publishes new rows, or the end, to the target's readers: now, or once they are stored.
    pub(super) fn finish_page(&mut self, end: Option<End>) -> WalkStep {
        self.ending = end;
        if !self.store.keeps() {
            self.tell();
        }
        match end {
            None => WalkStep::GoOn,
            Some(End::Cut(_)) => WalkStep::Over(WalkOutcome::Cut),
            Some(_) => WalkStep::Over(WalkOutcome::Complete),
        }
    }

    /// Shows readers all rows of the target, and its end.
    pub(super) fn tell(&mut self) {
        let target = self.target.clone();
        let mut state = target.lock();
        state.told = state.rows.len();
        if let Some(end) = self.ending.take() {
            state.end = end;
            self.leave(&mut state);
        }
        drop(state);
        self.store.announce(&target);
    }

    fn announce_failure(&self, failure: WalkFailure) {
        self.lineage
            .hold_failure(failure.clone(), self.hold_until());
        self.target.announce_failure(failure);
    }

    fn hold_until(&self) -> Instant {
        self.store.clock.now() + FAILURE_HOLD.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// The last reader whose request the walk works for.
    fn payer(&self) -> Option<Arc<Payer>> {
        self.target.lock().payer.clone()
    }

    /// Gives up. Readers that wait get the failure; the next reader tries again.
    fn fail(&mut self, failure: WalkFailure) {
        let payer = self.payer();
        tracing::info!(
            search = %self.lineage.key,
            request_id = payer.as_ref().and_then(|payer| payer.request_id()),
            trace_id = payer.as_ref().and_then(|payer| payer.trace_id()),
            %failure,
            "walk failed"
        );
        let empty = {
            let target = self.target.clone();
            let mut state = target.lock();
            self.leave(&mut state);
            state.ages.is_none()
        };
        if empty {
            // Nothing was ever served of it.
            self.store.discard(&self.lineage, &self.target);
        }
        self.announce_failure(failure.clone());
        if let Stage::Checking { turn, .. } = std::mem::replace(&mut self.stage, Stage::Over) {
            let held = self.lineage.content_held_until();
            let until = self.hold_until().max(held.unwrap_or(self.began));
            turn.fail(failure, until);
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Readers look again. If the walk ended without a word, after a panic or at shutdown, its
        // grower and its turn tell them so. Nobody else would show them the rows that are there.
        self.tell();
    }
}

/// Returns the lane of the most urgent reader that waits for rows which are not there.
pub(super) fn wanted_lane(state: &State) -> Option<Lane> {
    if state.end != End::Growing {
        None
    } else if state.wanted_pages > state.rows.len() {
        Some(Lane::Interactive)
    } else if state.wanted_healed > state.rows.len() {
        Some(Lane::Healing)
    } else if state.wanted_export > state.rows.len() {
        Some(Lane::Export)
    } else {
        None
    }
}
