//! Claims on lines: which gateway of a fleet walks a search.
//!
//! ```text
//! claim_line ─▶ Mine(LineClaim) ── renewed by one task ──▶ dropped: released
//!            ─▶ Taken           ── look_at_line, every 250 ms: what is wanted, whose turn it is
//!            ─▶ Alone           ── no shared store, or it is away
//! ```
//!
//! The engine refuses the rows of a gateway that has lost its claim. The vendor cannot: so a
//! gateway sends no continuation unless a renewal that was asked for lately was granted. What a
//! gateway knows of its claim is [`ClaimTerm`], and where its rows stand against those in the store
//! is [`align`]. Both are pure.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::engine::{Chain, Fence};
use super::fleet::{ClaimId, FleetOp, FleetReply, LineWant};
use super::handle::{Store, StoreInner};
use super::names::NameUse;
use super::record::RecordName;
use crate::clock::{Duration, Instant, sleep};

/// How often a gateway looks at a line that another one walks, and how often the gateway that walks
/// it listens while rows are wanted elsewhere.
pub const LINE_LOOK_EVERY: Duration = Duration::from_millis(250);
/// No continuation is sent so shortly before the end of a claim: the clocks of two machines, and
/// the way to the vendor.
const SPARE: Duration = Duration::from_secs(1);
/// A claim as young as this is listened to often: gateways that were asked the same search at the
/// same time are heard at once.
const YOUNG: Duration = Duration::from_secs(3);
/// How long readers elsewhere are expected to want more rows.
const LIVELY: Duration = Duration::from_secs(10);

/// Whether a continuation may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clearance {
    /// Yes.
    Send,
    /// The claim has to be renewed first.
    RenewFirst,
    /// Another gateway has the claim.
    Deposed,
}

/// What a gateway knows of its claim. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTerm {
    lease: Duration,
    begun: Instant,
    /// When the last grant was asked for. The engine counts the lease from later on.
    asked: Instant,
    /// When rows were last wanted elsewhere.
    wanted: Option<Instant>,
    deposed: bool,
}

impl ClaimTerm {
    /// Returns a claim that was granted for a lease, and asked for at `asked`.
    pub fn new(lease: Duration, asked: Instant) -> Self {
        Self {
            lease,
            begun: asked,
            asked,
            wanted: None,
            deposed: false,
        }
    }

    /// Decides about the next continuation.
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
        self.asked + every
    }

    /// Records that a renewal which was asked for at `asked` was granted.
    pub fn granted(&mut self, asked: Instant) {
        self.asked = self.asked.max(asked);
    }

    /// Records that rows are wanted elsewhere.
    pub fn wanted(&mut self, now: Instant) {
        self.wanted = Some(now);
    }

    /// Records that another gateway has the claim.
    pub fn depose(&mut self) {
        self.deposed = true;
    }
}

/// Where the rows in the store stand against a copy of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// They are the copy's first so many chunks. The others may be appended.
    Behind(u32),
    /// There are more. They may follow the copy's.
    Ahead,
    /// They are others: the copy goes on alone.
    Apart,
}

/// Compares a copy, by its chain after each of its chunks, with so many chunks in the store and the
/// chain over them.
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

/// The claims of this process.
pub(super) type HeldClaims = Mutex<HashMap<RecordName, Arc<ClaimCell>, RandomState>>;

/// One of them.
pub(super) struct ClaimCell {
    line: RecordName,
    term: Mutex<ClaimTerm>,
    /// What the last renewal said is wanted, until it is looked at.
    heard: Mutex<Option<(LineWant, Instant)>>,
    /// Notified when something is wanted, or the claim is lost.
    changed: Notify,
}

/// The right to walk a search, until it is dropped or lost.
pub struct LineClaim {
    inner: Arc<StoreInner>,
    cell: Arc<ClaimCell>,
}

/// Who walks a search.
pub enum LineTurn {
    /// This gateway may.
    Mine(LineClaim),
    /// Another one does.
    Taken,
    /// The store does not say: this gateway goes on alone.
    Alone,
}

/// A line as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLook {
    /// Its current snapshot.
    pub current: Option<RecordName>,
    /// How long the claim of another gateway lasts still. Zero: none has claimed it.
    pub left: Duration,
}

impl Store {
    /// Claims a search, by its identity. A store that was late a moment ago is not waited for: it
    /// holds up no search twice.
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
                let cell = Arc::new(ClaimCell {
                    line,
                    term: Mutex::new(ClaimTerm::new(lease, asked)),
                    heard: Mutex::default(),
                    changed: Notify::new(),
                });
                inner.claims.lock().insert(line, cell.clone());
                LineTurn::Mine(LineClaim { inner, cell })
            }
            Ok(FleetReply::Wait(_)) => LineTurn::Taken,
            Ok(_) | Err(_) => LineTurn::Alone,
        }
    }

    /// Says what this gateway's readers want of a search that another one walks, and looks at it.
    /// `None` where the store does not say.
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
    async fn line_of(
        self: &Arc<Self>,
        identity: &[u8; 32],
        until: Instant,
    ) -> Option<(RecordName, Duration)> {
        let lease = self.engine.fleet()?.lease();
        let names = self.names(until).await?;
        let line = names.0.of(NameUse::Line, identity.split_at(16).0);
        Some((line, lease))
    }

    /// Renews the claims of this process, for as long as it is awaited.
    pub(super) async fn renew_claims(self: &Arc<Self>) {
        loop {
            sleep(LINE_LOOK_EVERY).await;
            let now = self.clock.now();
            let cells: Vec<_> = self.claims.lock().values().cloned().collect();
            let due = cells.iter().filter(|cell| {
                let term = cell.term.lock();
                !term.deposed && term.renewal_at(now) <= now
            });
            join_all(due.map(|cell| self.renew(cell))).await;
        }
    }

    /// Asks for one renewal. Without a reply nothing changes.
    async fn renew(&self, cell: &ClaimCell) {
        let Some(fleet) = self.engine.fleet() else {
            return;
        };
        let asked = self.clock.now();
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

    /// Ends the claims of this process, so that nobody waits for their leases.
    pub(super) fn release_claims(&self) {
        let lines: Vec<_> = self.claims.lock().drain().map(|(line, _)| line).collect();
        for line in lines {
            self.release(line);
        }
    }

    fn release(&self, line: RecordName) {
        if let Some(fleet) = self.engine.fleet() {
            let claim = ClaimId(self.replica);
            // Sent by now. Without a reply the lease ends it.
            drop(fleet.ask(FleetOp::Release { line, claim }));
        }
    }
}

impl LineClaim {
    /// Returns what fences the changes of the line.
    pub fn fence(&self) -> Option<Fence> {
        Some(Fence {
            line: self.cell.line,
            claim: ClaimId(self.inner.replica),
            lease: self.inner.engine.fleet()?.lease(),
        })
    }

    /// Returns whether a continuation may be sent, after a renewal where one is needed. A store
    /// that does not reply stops no walk: nobody else can continue its scroll.
    pub async fn may_send(&self) -> bool {
        let clearance = || self.cell.term.lock().clearance(self.inner.clock.now());
        if clearance() == Clearance::RenewFirst {
            self.inner.renew(&self.cell).await;
        }
        clearance() != Clearance::Deposed
    }

    /// Returns what readers elsewhere want, and until when they wait, once after each renewal.
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

    /// Waits until something is wanted elsewhere, or the claim is lost.
    pub async fn changed(&self) {
        self.cell.changed.notified().await;
    }
}

impl Drop for LineClaim {
    fn drop(&mut self) {
        let line = self.cell.line;
        let mut claims = self.inner.claims.lock();
        let is_it = |cell: &Arc<ClaimCell>| Arc::ptr_eq(cell, &self.cell);
        if !claims.get(&line).is_some_and(is_it) {
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
            // A late reply to an early question makes it no older.
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
}
