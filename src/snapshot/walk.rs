//! A walk: one task that owns one scroll and reads it, strictly serially, into a snapshot.
//!
//! A continuation is sent once. If a failure leaves its fate unclear, the scroll is lost. A walk
//! whose readers still wait then searches again, and compares the new rows with those that were
//! served: only rows that no reader saw are ever replaced.
//!
//! This file reads one scroll after the other. `stage` names what a walk does with the rows that
//! come; the room's diagram shows how the stages follow each other. `errand` decides whether and
//! why the next vendor page is read.

mod errand;
mod stage;

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::task::yield_now;

use self::errand::Next;
pub(super) use self::errand::wanted_lane;
pub(super) use self::stage::{Shadow, Stage};
use super::follow::WalkRight;
use super::frozen::{End, Grower, Snapshot};
use super::keep::RowsKept;
use super::lineage::{Lineage, RefreshTurn};
use super::lost::{WalkFailure, is_answer, may_pass, no_slot, was_answered};
use super::rows::Rows;
use super::slots::SlotLease;
use super::store::Snapshots;
use crate::admission::Payer;
use crate::cache::{Lifetimes, Wanted};
use crate::clock::{Duration, Instant, sleep};
use crate::domain::Shortage;
use crate::domain::record::RowId;
use crate::metrics::WalkOutcome;
use crate::traces::{OpenSpan, SpanKind};
use crate::upstream::{Cursor, EnvelopeMember, Fault, SourcePage, UpstreamError};

/// Pause before the first new search after a lost scroll. It doubles with each further search, with
/// full jitter.
const REWALK_PAUSE: Duration = Duration::from_millis(50);
/// Maximum of that pause.
const REWALK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a failure answers every further reader, so that a burst of readers does not become a
/// burst of searches.
const FAILURE_HOLD: Duration = Duration::from_millis(300);

/// Why a walk was begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Readers wait for rows. An idle walk is worth reading to its end.
    Readers,
    /// A refresh was due. Once it is decided, nobody waits for the walk's further rows.
    Refresh,
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
    /// Whether reading ahead, or reading on while the gateway shuts down, found no budget. It is
    /// tried again after the next demand.
    read_ahead_paused: bool,
    /// The earliest time to read a page for waiting searches. The last attempt found no budget.
    pressing_from: Instant,
    /// How long answers of this walk may be used, as its search was graded when it began.
    pub(super) lifetimes: Lifetimes,
    /// When its scroll was begun.
    began: Instant,
    last_fetch: Instant,
    /// The target's end, which readers get with its last rows.
    pub(super) ending: Option<End>,
    /// The right by which it calls the vendor, among the gateways that share a store.
    pub(super) right: WalkRight,
    /// Whether the rows of another gateway's walk cannot be used for its target.
    pub(super) cannot_adopt: bool,
}

pub(super) struct Scroll {
    pub(super) cursor: Option<Cursor>,
    pub(super) slot: SlotLease,
    // Row ids are hashes already, so a fast hasher is enough.
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
    /// The scroll was lost after this many rows.
    Lost(UpstreamError, usize),
    /// Another gateway walks the search.
    Deposed,
}

pub(super) enum WalkStep {
    GoOn,
    Over(WalkOutcome),
    Lost(UpstreamError),
}

impl Walk {
    /// Creates a walk that reads the rows for which readers of `target` wait.
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
        // The walk compares its rows with all stored ones, so these are loaded first.
        self.target.until_loaded().await;
        if matches!(self.stage, Stage::Comparing { .. }) && self.leave_if_unwanted() {
            // The previous walk read the rows that readers waited for.
            return;
        }
        if !self.take_claim().await {
            // Another gateway read the rows.
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

    /// Records a fault in the vendor's content at this row. If the last search met the same fault
    /// there, the next one would meet it too. Then returns the failure, to be held.
    fn same_content_fault(&self, failure: &WalkFailure, row: usize) -> Option<WalkFailure> {
        let WalkFailure::Upstream(error) = failure else {
            return None;
        };
        let now = self.store.clock.now();
        let held = self.lineage.note_content_fault(error, row, now)?;
        Some(WalkFailure::Upstream(held))
    }

    /// Returns how long to wait before the next search: a back-off with full jitter, after the time
    /// in which the vendor or its budget accepts no call. `None` if every waiting reader will have
    /// left by then.
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
                // Rows are stored before readers see them, so that no reader has a row that a crash
                // undoes.
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
            // Lets the readers that waited for these rows run before the rest of the work.
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

    /// Returns the payer of the last reader for which the walk works.
    fn payer(&self) -> Option<Arc<Payer>> {
        self.target.lock().payer.clone()
    }

    /// Gives up. Waiting readers get the failure, and the next reader begins another walk.
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
            // No row of it was ever served.
            self.store.discard(&self.lineage, &self.target);
        }
        self.announce_failure(failure.clone());
        if let Some(turn) = self.take_turn() {
            let held = self.lineage.content_held_until();
            let until = self.hold_until().max(held.unwrap_or(self.began));
            turn.fail(failure, until);
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Nothing else would show readers the rows that the walk has read. If it ended without an
        // outcome, after a panic or at shutdown, readers get that failure from its grower and its
        // turn.
        self.tell();
    }
}
