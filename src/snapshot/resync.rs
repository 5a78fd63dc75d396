//! Puts snapshots back into a shared store that lost rows: it was emptied, or another server with
//! an older copy took its place.
//!
//! After each new connection, every snapshot in memory is compared with the store, the most
//! recently used first:
//!
//! ```text
//! store has the same rows ─────────────▶ nothing to do
//!   has fewer of them ──▶ claim ─┐
//!   has none ───────────▶ claim ─┴─▶ the missing rows are appended, then the end
//!   has more ────────────────────────▶ they are loaded once a reader wants them
//!   has others ──────────────────────▶ the snapshot goes on in this gateway alone
//! ```
//!
//! Two gateways may hold the same snapshot. The claim on its search lets one of them store rows at
//! a time; the other one looks again once the claim is free, and finds them.
//!
//! Meanwhile a page token whose snapshot is found nowhere waits for a moment, because another
//! gateway may be about to put that snapshot back.
//!
//! What must never happen here: a request waits for the work; a purged snapshot comes back; rows
//! that no reader has seen are stored without their walk.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::task::yield_now;

use super::frozen::{End, Snapshot};
use super::keep::{KeepStep, put_part};
use super::recall::Recall;
use super::store::Snapshots;
use super::token::SnapshotId;
use crate::clock::{Duration, Instant, sleep, sleep_until};
use crate::store::claims::LineLook;
use crate::store::fleet::{LineWant, SAME_AGE};
use crate::store::{
    Alignment, Chain, Fence, KeptEnd, KeptPlace, KeptSnapshot, LineTurn, NotKept, PurgeDepth,
    RecordName, StoreHealth, align,
};

/// Snapshots that are compared or put back at once. More would only queue in the one connection.
const AT_ONCE: usize = 4;
/// Bytes of rows that are put back in a second. 256 MiB are back within the 10 s that tokens wait,
/// and packing so much takes about a quarter of one core.
const BYTES_A_SECOND: u64 = 32 << 20;
/// How long after the store's return a page token that is found nowhere waits.
const RETURN_WINDOW: Duration = Duration::from_secs(10);
/// How long such a token waits, at most.
const TOKEN_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked up meanwhile.
const TOKEN_LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause before snapshots whose search another gateway has claimed are compared again. It
/// doubles each time.
const LATER_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
const LATER_PAUSE_MAX: Duration = Duration::from_secs(4);
/// Rounds after which a snapshot is left to its next walk: about a minute.
const ROUNDS_MAX: u32 = 20;
/// Bytes that are hashed before other tasks may run.
const HASH_BYTES: usize = 1 << 20;

/// Returns of the store.
#[derive(Default)]
pub(super) struct Returns {
    /// When the store last returned.
    last: Mutex<Option<Instant>>,
    /// Resyncs so far. A new one ends the one before.
    begun: AtomicU64,
}

/// How one snapshot stands after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resynced {
    /// The store has its rows, or it is of no use to others.
    Whole,
    /// Its rows are in the store again.
    PutBack,
    /// The store has other rows.
    Detached,
    /// Another gateway has the claim, or the store is late.
    Later,
    /// The store is away.
    Stopped,
}

/// How a snapshot compares with the store.
enum Compared {
    /// It needs nothing.
    Whole,
    /// Rows, ages or the end are missing there.
    Lacks,
    /// It has other rows there.
    Apart,
    /// The store did not reply.
    Unknown,
}

/// Limits the bytes per second.
struct Pace(Mutex<Instant>);

impl Pace {
    /// Counts bytes that were sent, and waits until the next ones may be.
    async fn spend(&self, bytes: usize, now: Instant) {
        let ms = (bytes as u64).saturating_mul(1_000) / BYTES_A_SECOND;
        let until = {
            let mut free_at = self.0.lock();
            *free_at = (*free_at).max(now) + Duration::from_millis(ms);
            *free_at
        };
        sleep_until(until).await;
    }
}

impl Snapshots {
    /// Lets a resync follow each new connection to the store.
    pub(super) fn follow_returns(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        self.kept.on_return(Arc::new(move |again| {
            let Some(this) = this.upgrade() else { return };
            this.slots.returned();
            if again {
                *this.returns.last.lock() = Some(this.clock.now());
            }
            tokio::spawn(this.resync());
        }));
    }

    /// Compares every snapshot with the store, and puts back what is missing there.
    async fn resync(self: Arc<Self>) {
        let number = self.returns.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = self.held();
        all.sort_unstable_by_key(|snapshot| Reverse(snapshot.last_used()));
        let pace = Pace(Mutex::new(self.clock.now()));
        let (mut put_back, mut detached, mut pause) = (0_usize, 0_usize, LATER_PAUSE);
        for _ in 0..ROUNDS_MAX {
            let each = stream::iter(all).map(|snapshot| {
                let (this, pace) = (&self, &pace);
                async move {
                    let is_last = this.returns.begun.load(Ordering::Relaxed) == number;
                    let done = match is_last {
                        true => this.resync_one(&snapshot, pace).await,
                        false => Resynced::Stopped,
                    };
                    (snapshot, done)
                }
            });
            let done: Vec<_> = each.buffer_unordered(AT_ONCE).collect().await;
            let count = |what| done.iter().filter(|(_, done)| *done == what).count();
            put_back += count(Resynced::PutBack);
            detached += count(Resynced::Detached);
            if count(Resynced::Stopped) > 0 {
                // The store's next return begins another one.
                return;
            }
            let later = done.into_iter().filter(|it| it.1 == Resynced::Later);
            all = later.map(|(snapshot, _)| snapshot).collect();
            if all.is_empty() {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LATER_PAUSE_MAX);
        }
        if put_back + detached + all.len() > 0 {
            let left = all.len();
            tracing::info!(
                put_back,
                detached,
                left,
                "snapshots were put back into the store"
            );
        }
    }

    async fn resync_one(self: &Arc<Self>, snapshot: &Arc<Snapshot>, pace: &Pace) -> Resynced {
        if let Some(done) = self.compared(snapshot).await {
            return done;
        }
        let identity = snapshot.key.fingerprint();
        let claim = match self.kept.claim_line(identity).await {
            LineTurn::Mine(claim) => claim,
            LineTurn::Taken => return Resynced::Later,
            LineTurn::Alone => return self.later(),
        };
        // Another gateway may have put it back before the claim was ours.
        if let Some(done) = self.compared(snapshot).await {
            return done;
        }
        let Some(look) = self.kept.look_at_line(identity, LineWant::default()).await else {
            return self.later();
        };
        let current = self.leads(snapshot, &look).await;
        let Some(fence) = claim.fence() else {
            return Resynced::Stopped;
        };
        loop {
            match self.put_some_back(snapshot, fence, current).await {
                Ok((bytes, more)) => {
                    pace.spend(bytes, self.clock.now()).await;
                    if !more {
                        return Resynced::PutBack;
                    }
                }
                Err(NotKept::Refused) => return Resynced::Detached,
                Err(NotKept::Deposed | NotKept::Conflict | NotKept::Gone) => {
                    return Resynced::Later;
                }
                Err(NotKept::Full | NotKept::Unsure) => return self.later(),
            }
        }
    }

    /// Returns whether to try again soon, or with the store's next return.
    fn later(&self) -> Resynced {
        match self.kept.health() {
            StoreHealth::Ok => Resynced::Later,
            StoreHealth::Off | StoreHealth::Opening | StoreHealth::Away => Resynced::Stopped,
        }
    }

    /// Compares a snapshot with the store. `None` if the store lacks something of it.
    async fn compared(self: &Arc<Self>, snapshot: &Arc<Snapshot>) -> Option<Resynced> {
        let _keeping = snapshot.keeping.lock().await;
        if !self.is_worth_keeping(snapshot) {
            return Some(Resynced::Whole);
        }
        let Some(name) = self.kept.name_of_snapshot(snapshot.id().0).await else {
            return Some(self.later());
        };
        match self.compare(snapshot, name).await {
            Compared::Whole => {
                snapshot.kept.lock().unsure = false;
                Some(Resynced::Whole)
            }
            Compared::Lacks => {
                // Until it is put back, only this gateway has it.
                snapshot.kept.lock().unsure = true;
                None
            }
            Compared::Apart => {
                snapshot.kept.lock().off = true;
                Some(Resynced::Detached)
            }
            Compared::Unknown => Some(self.later()),
        }
    }

    /// Returns whether other gateways may have a use for a snapshot, and it may be stored.
    fn is_worth_keeping(&self, snapshot: &Arc<Snapshot>) -> bool {
        let part = snapshot.kept.lock().clone();
        let purged = part
            .begun
            .is_some_and(|begun| self.purged_by(&snapshot.key, begun) == Some(PurgeDepth::Hard));
        let state = snapshot.lock();
        let has_rows = state.told > 0 || state.end != End::Growing;
        let known = state.ages.is_some() && state.loading.is_none() && has_rows;
        drop(state);
        let held = self.held.get(snapshot.id());
        let is_held = held.is_some_and(|held| Arc::ptr_eq(&held, snapshot));
        known && is_held && part.begun.is_some() && !part.off && !purged && !snapshot.is_ended()
    }

    /// Notes which rows of a snapshot the store has under `name`.
    async fn compare(&self, snapshot: &Arc<Snapshot>, name: RecordName) -> Compared {
        let found = match self.kept.look_at_snapshot(name).await {
            Ok(found) => found,
            Err(_) => return Compared::Unknown,
        };
        let mut part = snapshot.kept.lock().clone();
        let Some(found) = found else {
            put_part(snapshot, part.after_loss());
            return Compared::Lacks;
        };
        self.take_ages(snapshot, &found);
        let standing = &found.standing;
        let (told, end, rows) = {
            let state = snapshot.lock();
            (state.told, state.end, state.rows.len())
        };
        let place = KeptPlace {
            name,
            chunks: standing.chunks,
            chain: standing.chain,
        };
        let same = part.place == Some(place) && part.rows == told;
        let kept = match same {
            true => told,
            false => {
                let chains = chains_of(snapshot, told).await;
                let only: Vec<Chain> = chains.iter().map(|(chain, _)| *chain).collect();
                match align(&only, standing.chunks, &standing.chain) {
                    Alignment::Behind(0) => 0,
                    Alignment::Behind(kept) => {
                        let last = usize::try_from(kept - 1).ok();
                        last.and_then(|last| chains.get(last)).map_or(0, |it| it.1)
                    }
                    // Rows of another gateway may follow, and its end was not this one's.
                    Alignment::Ahead if end == End::Growing => return Compared::Whole,
                    Alignment::Ahead | Alignment::Apart => return Compared::Apart,
                }
            }
        };
        let open = standing.end == KeptEnd::Open;
        if !open && kept < told {
            return Compared::Apart;
        }
        part.place = Some(place);
        part.rows = kept;
        part.ended = !open;
        part.lost = false;
        part.ages = self.ages_in_store(snapshot, &found);
        let ended = end != End::Growing && told == rows;
        let aged = {
            let state = snapshot.lock();
            let own = state.ages.map(|ages| (ages.head, ages.whole));
            own != part.ages
        };
        put_part(snapshot, part);
        match kept < told || aged || open && ended {
            true => Compared::Lacks,
            false => Compared::Whole,
        }
    }

    /// Returns the ages that the store has of a snapshot: the snapshot's own, unless those are
    /// newer.
    fn ages_in_store(
        &self,
        snapshot: &Snapshot,
        found: &KeptSnapshot,
    ) -> Option<(Instant, Instant)> {
        let (theirs, known) = self.ages_of(found, snapshot.lifetimes(), self.clock.now())?;
        let own = snapshot.ages()?;
        let newer = |own: Instant, theirs: Instant| own > theirs + SAME_AGE;
        let renewed = newer(own.head, theirs.head) || newer(own.whole, theirs.whole);
        match known && !renewed {
            true => Some((own.head, own.whole)),
            false => Some((theirs.head, theirs.whole)),
        }
    }

    /// Returns whether a snapshot that is put back becomes the current one of its search. It does
    /// not if another gateway has put a newer one there.
    async fn leads(&self, snapshot: &Arc<Snapshot>, look: &LineLook) -> bool {
        if !self.is_current(snapshot) {
            return false;
        }
        let Some(current) = look.current else {
            return true;
        };
        let Ok(Some(found)) = self.kept.look_at_snapshot(current).await else {
            return true;
        };
        let theirs = self.ages_of(&found, snapshot.lifetimes(), self.clock.now());
        let own = snapshot.ages();
        match (own, theirs) {
            (Some(own), Some((theirs, true))) => own.head > theirs.head,
            (Some(_), _) => true,
            (None, _) => false,
        }
    }

    /// Puts the next rows of a snapshot back. Returns their bytes, and whether there are more.
    async fn put_some_back(
        &self,
        snapshot: &Arc<Snapshot>,
        fence: Fence,
        current: bool,
    ) -> Result<(usize, bool), NotKept> {
        // Its walk may store rows between two of these steps, so the lock is not held for long.
        let _keeping = snapshot.keeping.lock().await;
        let mut part = snapshot.kept.lock().clone();
        if part.off || snapshot.is_ended() {
            return Ok((0, false));
        }
        let (upto, end) = {
            let mut state = snapshot.lock();
            // From now on readers of other gateways may have them.
            state.firm = state.firm.max(state.told);
            let whole = state.told == state.rows.len();
            (state.told, Some(state.end).filter(|_| whole))
        };
        let step = KeepStep {
            upto,
            end,
            fence: Some(fence),
            current,
        };
        let kept = self.keep_step(snapshot, &mut part, step).await;
        part.unsure = !matches!(&kept, Ok(kept) if !kept.more);
        part.off |= matches!(kept, Err(NotKept::Refused));
        put_part(snapshot, part);
        kept.map(|kept| (kept.bytes, kept.more))
    }

    /// Returns the snapshot of a token that was found nowhere, if another gateway puts it back
    /// soon.
    pub(super) async fn wait_for_return(
        self: &Arc<Self>,
        id: SnapshotId,
        deadline: Instant,
    ) -> Option<Arc<Snapshot>> {
        let returned = (*self.returns.last.lock())?;
        let now = self.clock.now();
        if now >= returned + RETURN_WINDOW {
            return None;
        }
        let until = (now + TOKEN_WAIT).min(deadline);
        while self.clock.now() < until && self.kept.health() == StoreHealth::Ok {
            sleep(TOKEN_LOOK_EVERY).await;
            self.recall(Recall::Token(id), until).await;
            if let Some(snapshot) = self.held.get(id) {
                return Some(snapshot);
            }
        }
        None
    }
}

/// Returns the chain after each chunk of a snapshot up to row `told`, and the rows up to there.
async fn chains_of(snapshot: &Snapshot, told: usize) -> Vec<(Chain, usize)> {
    let (chunks, _) = snapshot.lock().rows.chunks_within(0, told, usize::MAX);
    let (mut chain, mut rows, mut hashed) = (Chain::default(), 0, 0);
    let mut chains = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        chain = chunk.chain(&chain);
        rows += chunk.ends.len();
        chains.push((chain, rows));
        hashed += chunk.text.len();
        if hashed >= HASH_BYTES {
            hashed = 0;
            yield_now().await;
        }
    }
    chains
}
