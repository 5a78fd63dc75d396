//! Claims on lines. They decide which gateway of a fleet walks a search.
//!
//! ```text
//! claim_line ─▶ Mine(LineClaim) ── renewed by one task ──▶ dropped: released
//!            ─▶ Taken           ── look_at_line, at each ring and every 250 ms: what is wanted,
//!                                  whose turn it is
//!            ─▶ Alone           ── no shared store, or it is away
//! ```
//!
//! The engine rejects the rows of a gateway that has lost its claim. The vendor cannot do so.
//! Therefore a gateway sends a continuation only if a recently requested renewal was granted.
//! [`ClaimTerm`] is what a gateway knows of its claim, and [`align`] compares its rows with those
//! in the store. Both are pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::bell::RING_REST;
use super::engine::{Chain, Fence};
use super::fleet::{ClaimId, FleetOp, FleetReply, LineWant};
use super::handle::{Store, StoreInner};
use super::record::RecordName;
use crate::clock::{Duration, Instant, sleep_until};

/// How often a gateway looks at a line that another one walks, unless the bell rings before. The
/// walking gateway renews its claim as often while rows are wanted elsewhere.
pub const LINE_LOOK_EVERY: Duration = Duration::from_millis(250);
/// No continuation is sent within this time before the end of a claim. It covers differences
/// between clocks and the time to the vendor.
const SPARE: Duration = Duration::from_secs(1);
/// A claim younger than this is renewed often, so that gateways with the same search at the same
/// time are heard at once.
const YOUNG: Duration = Duration::from_secs(3);
/// How long readers of other gateways are expected to want more rows.
const LIVELY: Duration = Duration::from_secs(10);

/// Whether a continuation may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clearance {
    /// It may be sent.
    Send,
    /// The claim has to be renewed first.
    RenewFirst,
    /// Another gateway has the claim.
    Deposed,
}

/// The state of a claim as its gateway knows it. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTerm {
    lease: Duration,
    begun: Instant,
    /// When the last granted renewal was requested. The engine counts the lease from a later time.
    asked: Instant,
    /// When another gateway last wanted rows.
    wanted: Option<Instant>,
    /// Whether a ring says that a gateway wants something since the last renewal was requested.
    rung: bool,
    deposed: bool,
}

impl ClaimTerm {
    /// Creates a claim that was requested at `asked` and granted for a lease.
    pub fn new(lease: Duration, asked: Instant) -> Self {
        Self {
            lease,
            begun: asked,
            asked,
            wanted: None,
            rung: false,
            deposed: false,
        }
    }

    /// Returns whether the next continuation may be sent.
    pub fn clearance(&self, now: Instant) -> Clearance {
        let age = now.saturating_duration_since(self.asked);
        match self.deposed {
            true => Clearance::Deposed,
            false if age < self.lease.saturating_sub(SPARE) => Clearance::Send,
            false => Clearance::RenewFirst,
        }
    }

    /// Returns when the next renewal is due.
    pub fn renewal_at(&self, now: Instant) -> Instant {
        let age = |since: Instant| now.saturating_duration_since(since);
        let wanted = self.wanted.is_some_and(|wanted| age(wanted) < LIVELY);
        let often = wanted || age(self.begun) < YOUNG;
        let every = match often {
            true => LINE_LOOK_EVERY.min(self.lease / 4),
            false => self.lease / 4,
        };
        let every = match self.rung {
            true => every.min(RING_REST),
            false => every,
        };
        self.asked + every
    }

    /// Records a ring: what other gateways want has changed.
    pub fn ring(&mut self) {
        self.rung = true;
    }

    /// Records that a renewal is requested. Rings before it are answered by it.
    pub fn asks(&mut self) {
        self.rung = false;
    }

    /// Records that the renewal requested at `asked` was granted.
    pub fn granted(&mut self, asked: Instant) {
        self.asked = self.asked.max(asked);
    }

    /// Records that another gateway wants rows.
    pub fn wanted(&mut self, now: Instant) {
        self.wanted = Some(now);
    }

    /// Records that another gateway has the claim.
    pub fn depose(&mut self) {
        self.deposed = true;
    }
}

/// How the rows in the store compare with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// The store has this many of the copy's first chunks. The others may be appended.
    Behind(u32),
    /// The store has more chunks. They may follow the copy's.
    Ahead,
    /// The store has other rows, so the copy continues in memory only.
    Apart,
}

/// Compares a copy with the store: the copy's chain after each chunk, with the number of chunks in
/// the store and the chain over them.
pub fn align(copy: &[Chain], chunks: u32, chain: &Chain) -> Alignment {
    let Some(last) = chunks.checked_sub(1) else {
        return Alignment::Behind(0);
    };
    let last = usize::try_from(last).unwrap_or(usize::MAX);
    match copy.get(last) {
        Some(own) if own == chain => Alignment::Behind(chunks),
        Some(_) => Alignment::Apart,
        None => Alignment::Ahead,
    }
}

/// Returns how many of a copy's first chunks the store's next chunks follow, and the chain over
/// them. `known` is the part of the copy that is known to be in the store. A copy that continued in
/// memory has more rows (`!is_level`). They count if another gateway stored them too, which the
/// chain of the next chunk shows.
///
/// `None` if the store does not have more chunks than the copy, so that it may have other rows or
/// may have lost some.
pub fn load_after(
    known: (u32, Chain),
    is_level: bool,
    copy: impl FnOnce() -> Vec<Chain>,
    stored: u32,
) -> Option<(u32, Chain)> {
    if stored < known.0 {
        return None;
    }
    if is_level {
        return Some(known);
    }
    let copy = copy();
    let chunks = u32::try_from(copy.len()).ok()?;
    let last = copy.last().filter(|_| stored > chunks)?;
    Some((chunks, *last))
}

/// The claims of this process.
#[derive(Default)]
pub(super) struct HeldClaims {
    cells: Mutex<HashMap<RecordName, Arc<ClaimCell>, RandomState>>,
    /// Notified when a renewal is due earlier than it was.
    rung: Notify,
}

impl HeldClaims {
    fn all(&self) -> Vec<Arc<ClaimCell>> {
        self.cells.lock().values().cloned().collect()
    }
}

/// One claim of this process.
pub(super) struct ClaimCell {
    line: RecordName,
    /// The [`LineClaim`]s of it: a walk, and a copy that is put back meanwhile. Changed only while
    /// the table of claims is locked.
    holders: AtomicUsize,
    term: Mutex<ClaimTerm>,
    /// What other gateways want according to the last renewal, until it is read.
    heard: Mutex<Option<(LineWant, Instant)>>,
    /// Notified when another gateway wants something or the claim is lost.
    changed: Notify,
}

/// A claim to change the snapshots of a search. It lasts until it is lost, or until all parts of
/// this process that hold it have dropped it.
pub struct LineClaim {
    inner: Arc<StoreInner>,
    cell: Arc<ClaimCell>,
}

/// The gateway that walks a search.
pub enum LineTurn {
    /// This gateway.
    Mine(LineClaim),
    /// Another gateway.
    Taken,
    /// Unknown, because the store does not answer. This gateway continues alone.
    Alone,
}

/// The state of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLook {
    /// Its current snapshot.
    pub current: Option<RecordName>,
    /// How long the claim of another gateway still lasts. Zero means that there is no claim.
    pub left: Duration,
}

impl Store {
    /// Claims a search by its identity. Does not wait for a store that was late a moment ago, so
    /// that a late store delays a search only once.
    pub async fn claim_line(&self, identity: &[u8; 32]) -> LineTurn {
        let shared = |inner: &Arc<StoreInner>| inner.is_shared() && !inner.was_late();
        let Some(inner) = self.inner.clone().filter(shared) else {
            return LineTurn::Alone;
        };
        let until = inner.patience();
        let Some((line, lease)) = inner.line_of(identity, until).await else {
            return LineTurn::Alone;
        };
        let (claim, asked) = (ClaimId(inner.replica), inner.clock.now());
        match inner
            .ask(FleetOp::Claim { line, claim, lease }, until)
            .await
        {
            Ok(FleetReply::Lead) => {
                let cell = inner.hold_claim(line, lease, asked);
                LineTurn::Mine(LineClaim { inner, cell })
            }
            Ok(FleetReply::Wait(_)) => LineTurn::Taken,
            Ok(_) | Err(_) => LineTurn::Alone,
        }
    }

    /// Returns whether this gateway has the claim on a line, as far as it knows.
    pub fn has_claim(&self, line: RecordName) -> bool {
        let Some(inner) = &self.inner else {
            return false;
        };
        let cells = inner.claims.cells.lock();
        cells
            .get(&line)
            .is_some_and(|cell| !cell.term.lock().deposed)
    }

    /// Reports what this gateway's readers want of a search that another gateway walks, and returns
    /// the state of its line. `None` if the store does not answer.
    pub async fn look_at_line(&self, identity: &[u8; 32], want: LineWant) -> Option<LineLook> {
        let inner = self.inner.as_ref().filter(|inner| inner.is_shared())?;
        let until = inner.patience();
        let (line, _) = inner.line_of(identity, until).await?;
        match inner.ask(FleetOp::Want { line, want }, until).await {
            Ok(FleetReply::Line { current, left }) => Some(LineLook { current, left }),
            Ok(_) | Err(_) => None,
        }
    }
}

impl StoreInner {
    pub(super) async fn line_of(
        self: &Arc<Self>,
        identity: &[u8; 32],
        until: Instant,
    ) -> Option<(RecordName, Duration)> {
        let lease = self.engine.fleet()?.lease();
        let names = self.names(until).await?;
        let line = names.0.of_line(identity);
        Some((line, lease))
    }

    /// Notes a claim that was granted. A part of this process may hold it already.
    fn hold_claim(&self, line: RecordName, lease: Duration, asked: Instant) -> Arc<ClaimCell> {
        let mut claims = self.claims.cells.lock();
        if let Some(cell) = claims.get(&line) {
            let mut term = cell.term.lock();
            if !term.deposed {
                term.granted(asked);
                cell.holders.fetch_add(1, Ordering::Relaxed);
                return cell.clone();
            }
        }
        let cell = Arc::new(ClaimCell {
            line,
            holders: AtomicUsize::new(1),
            term: Mutex::new(ClaimTerm::new(lease, asked)),
            heard: Mutex::default(),
            changed: Notify::new(),
        });
        claims.insert(line, cell.clone());
        cell
    }

    /// Renews the claims of this process while the future is polled.
    pub(super) async fn renew_claims(self: &Arc<Self>) {
        let mut pass_at = self.clock.now() + LINE_LOOK_EVERY;
        loop {
            let cells = self.claims.all();
            let now = self.clock.now();
            let rung = cells.iter().filter_map(|cell| {
                let term = cell.term.lock();
                (term.rung && !term.deposed).then(|| term.renewal_at(now))
            });
            let wake_at = rung.fold(pass_at, Instant::min);
            tokio::select! {
                () = sleep_until(wake_at) => {}
                () = self.claims.rung.notified() => continue,
            }
            let now = self.clock.now();
            if now >= pass_at {
                pass_at = now + LINE_LOOK_EVERY;
            }
            let cells = self.claims.all();
            let due = cells.iter().filter(|cell| {
                let term = cell.term.lock();
                !term.deposed && term.renewal_at(now) <= now
            });
            join_all(due.map(|cell| self.renew(cell))).await;
        }
    }

    /// Hears that what gateways want of a line has changed.
    pub(super) fn hear_want(&self, line: RecordName) {
        if let Some(cell) = self.claims.cells.lock().get(&line) {
            cell.term.lock().ring();
            self.claims.rung.notify_one();
        }
    }

    /// Requests one renewal. Without a reply nothing changes.
    async fn renew(&self, cell: &ClaimCell) {
        let Some(fleet) = self.engine.fleet() else {
            return;
        };
        let asked = self.clock.now();
        cell.term.lock().asks();
        let renew = FleetOp::Renew {
            line: cell.line,
            claim: ClaimId(self.replica),
            lease: fleet.lease(),
        };
        match self.ask(renew, self.patience()).await {
            Ok(FleetReply::Renewed(want)) => {
                let some = !want.left.is_zero() || want.turn;
                let mut term = cell.term.lock();
                term.granted(asked);
                if some {
                    term.wanted(asked);
                    drop(term);
                    *cell.heard.lock() = Some((want, asked + want.left));
                    cell.changed.notify_one();
                }
            }
            Ok(FleetReply::Deposed) => {
                cell.term.lock().depose();
                cell.changed.notify_one();
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Ends the claims of this process, so that no gateway waits for their leases.
    pub(super) fn release_claims(&self) {
        let lines: Vec<_> = self
            .claims
            .cells
            .lock()
            .drain()
            .map(|(line, _)| line)
            .collect();
        for line in lines {
            self.release(line);
        }
    }

    fn release(&self, line: RecordName) {
        if let Some(fleet) = self.engine.fleet() {
            let claim = ClaimId(self.replica);
            // The operation has been sent. Without a reply the claim ends with its lease.
            drop(fleet.ask(FleetOp::Release { line, claim }));
        }
    }
}

impl LineClaim {
    /// Returns the fence for changes of the line.
    pub fn fence(&self) -> Option<Fence> {
        Some(Fence {
            line: self.cell.line,
            claim: ClaimId(self.inner.replica),
            lease: self.inner.engine.fleet()?.lease(),
        })
    }

    /// Returns whether a continuation may be sent. Renews the claim first if necessary. A store
    /// that does not reply stops no walk, because no other gateway can continue its scroll.
    pub async fn may_send(&self) -> bool {
        let clearance = || self.cell.term.lock().clearance(self.inner.clock.now());
        if clearance() == Clearance::RenewFirst {
            self.inner.renew(&self.cell).await;
        }
        clearance() != Clearance::Deposed
    }

    /// Returns what readers of other gateways want and until when they wait. Returns it once after
    /// each renewal.
    pub fn take_heard(&self) -> Option<(LineWant, Instant)> {
        self.cell.heard.lock().take()
    }

    /// Returns whether another gateway has the claim.
    pub fn is_lost(&self) -> bool {
        self.cell.term.lock().deposed
    }

    /// Records that another gateway has the claim.
    pub fn lose(&self) {
        self.cell.term.lock().depose();
    }

    /// Waits until another gateway wants something or the claim is lost.
    pub async fn changed(&self) {
        self.cell.changed.notified().await;
    }
}

impl Drop for LineClaim {
    fn drop(&mut self) {
        let line = self.cell.line;
        let mut claims = self.inner.claims.cells.lock();
        let is_it = |cell: &Arc<ClaimCell>| Arc::ptr_eq(cell, &self.cell);
        let held = claims.get(&line).is_some_and(is_it);
        if !held || self.cell.holders.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        claims.remove(&line);
        drop(claims);
        if !self.is_lost() {
            self.inner.release(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_continuation_is_sent_while_the_last_grant_is_young() {
        let (lease, begun) = (Duration::from_secs(6), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        let mut term = ClaimTerm::new(lease, begun);
        // (asked for when, now, what may be done)
        for (granted, now, expected) in [
            (0, 0, Clearance::Send),
            (0, 4_999, Clearance::Send),
            (0, 5_000, Clearance::RenewFirst),
            (4_000, 8_999, Clearance::Send),
            // A late reply to an earlier request does not make the claim older.
            (2_000, 8_999, Clearance::Send),
            (2_000, 9_000, Clearance::RenewFirst),
            (2_000, 40_000, Clearance::RenewFirst),
        ] {
            term.granted(at(granted));
            assert_eq!(term.clearance(at(now)), expected, "{granted} {now}");
        }
        term.depose();
        term.granted(at(50_000));
        assert_eq!(term.clearance(at(50_001)), Clearance::Deposed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_renewed_four_times_a_lease_and_oftener_where_somebody_listens() {
        let (lease, begun) = (Duration::from_secs(6), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        let mut term = ClaimTerm::new(lease, begun);
        assert_eq!(term.renewal_at(at(100)), at(250), "young");
        term.granted(at(4_000));
        assert_eq!(term.renewal_at(at(4_100)), at(5_500));
        term.wanted(at(5_500));
        term.granted(at(5_500));
        assert_eq!(term.renewal_at(at(5_600)), at(5_750), "wanted elsewhere");
        assert_eq!(term.renewal_at(at(15_500)), at(7_000), "not any more");
        term.ring();
        assert_eq!(term.renewal_at(at(15_500)), at(5_500) + RING_REST, "rung");
        term.asks();
        assert_eq!(term.renewal_at(at(15_500)), at(7_000), "answered");
    }

    #[test]
    fn rows_in_the_store_are_told_from_others_by_their_chain() {
        let copy = [[1; 16], [2; 16]];
        for (chunks, chain, expected) in [
            (0, [0; 16], Alignment::Behind(0)),
            (1, [1; 16], Alignment::Behind(1)),
            (2, [2; 16], Alignment::Behind(2)),
            (1, [2; 16], Alignment::Apart),
            (2, [9; 16], Alignment::Apart),
            (3, [9; 16], Alignment::Ahead),
        ] {
            assert_eq!(align(&copy, chunks, &chain), expected, "{chunks} {chain:?}");
        }
    }

    #[test]
    fn rows_are_loaded_after_those_that_a_copy_has() {
        let copy = [[1; 16], [2; 16]];
        // (known to be stored, the rest too, chunks in the store, loaded after)
        for (known, is_level, stored, expected) in [
            (2, true, 2, Some(2)),
            (2, true, 3, Some(2)),
            (2, true, 1, None),
            (1, false, 1, None),
            (1, false, 2, None),
            (1, false, 3, Some(2)),
        ] {
            let at = |chunks: u32| (chunks, copy[chunks as usize - 1]);
            let found = load_after(at(known), is_level, || copy.to_vec(), stored);
            assert_eq!(found, expected.map(at), "{known} {is_level} {stored}");
        }
    }
}
