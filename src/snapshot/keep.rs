//! Stores snapshots: rows go to the store before readers see them.
//!
//! A walk passes each vendor page to [`Snapshots::keep_rows`] before readers see it
//! (`State::told`). Stored rows never change. If a new search replaces rows that were stored but
//! never served, the snapshot is stored again from its start. `recall` loads what was stored.

use std::sync::Arc;

use super::frozen::{End, Snapshot};
use super::kept_head::write_head;
use super::store::Snapshots;
use crate::clock::{Duration, Instant};
use crate::store::{
    Alignment, Chain, Fence, KeptAges, KeptEnd, KeptNews, KeptOf, KeptPlace, NotKept, align,
};

/// How often the store records that a snapshot is in use.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// Maximum bytes of rows that go to the store in one step. A single vendor page may be larger.
const KEEP_BATCH_BYTES: usize = 1 << 20;

/// The part of a snapshot that is in the store.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptPart {
    /// `None` before the first rows are stored.
    pub place: Option<KeptPlace>,
    pub rows: usize,
    pub ages: Option<(Instant, Instant)>,
    pub ended: bool,
    /// Whether the snapshot cannot be stored any further.
    pub off: bool,
    /// Whether a shared store may have more or fewer rows, so that it has to be read first.
    pub unsure: bool,
    pub touched: Option<Instant>,
    /// The purges before its scroll began, as its head in the store says.
    pub begun: Option<u64>,
    /// Whether the store lost it, and it is to be stored again.
    pub lost: bool,
}

impl KeptPart {
    /// Returns the part of a snapshot that the store has lost.
    pub fn after_loss(&self) -> Self {
        Self {
            touched: self.touched,
            unsure: self.unsure,
            begun: self.begun,
            lost: true,
            ..Self::default()
        }
    }
}

/// What the next step of storing a snapshot may store.
#[derive(Clone, Copy)]
pub(super) struct KeepStep {
    /// No row after these.
    pub upto: usize,
    /// Stored with the last rows.
    pub end: Option<End>,
    /// A shared store accepts nothing without it.
    pub fence: Option<Fence>,
    /// Whether a snapshot that is stored again becomes the current one of its search.
    pub current: bool,
}

/// What one step has stored.
pub(super) struct KeptStep {
    /// Bytes of rows.
    pub bytes: usize,
    /// Whether there are more rows to store.
    pub more: bool,
}

/// The outcome of storing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsKept {
    /// The rows are in the store, or in the queue of a disk.
    Kept,
    /// The rows are in memory only, so another gateway may walk the search too.
    Alone,
    /// The shared store did not reply. The rows may be in it.
    Unsure,
    /// Another gateway walks the search, and the store rejected the rows.
    Deposed,
}

impl Snapshots {
    /// Returns whether snapshots outlive the process.
    pub fn keeps(&self) -> bool {
        self.kept.is_on()
    }

    /// Stores the new rows of a snapshot, whose scroll began after `begun` purges, and its coming
    /// end. Returns once a crash cannot undo it, or after a short time. A shared store accepts
    /// nothing without a `fence`.
    pub(super) async fn keep_rows(
        &self,
        snapshot: &Arc<Snapshot>,
        begun: u64,
        end: Option<End>,
        fence: Option<Fence>,
    ) -> RowsKept {
        if snapshot.is_ended() {
            // Rows from before the purge would be stored beside new ones.
            return RowsKept::Alone;
        }
        let _keeping = snapshot.keeping.lock().await;
        let mut part = snapshot.kept.lock().clone();
        {
            let mut state = snapshot.lock();
            let cut_to = std::mem::replace(&mut state.cut_to, usize::MAX);
            if cut_to < part.rows {
                // Stored rows were replaced before any reader saw them.
                if let Some(place) = part.place {
                    self.kept.forget_snapshot(place.name);
                }
                part = KeptPart::default();
            }
            if state.ages.is_none() {
                return RowsKept::Alone;
            }
        }
        part.begun.get_or_insert(begun);
        let shared = self.kept.is_shared();
        let keeping = match part.off {
            true => RowsKept::Alone,
            false if shared && fence.is_none() => {
                part.unsure |= part.place.is_some();
                RowsKept::Alone
            }
            false => self.keep(snapshot, &mut part, end, fence).await,
        };
        if part.off {
            tracing::debug!(search = %snapshot.key, "a snapshot is kept no further");
        }
        if shared && matches!(keeping, RowsKept::Kept | RowsKept::Unsure) {
            // Readers of other gateways may have them.
            let mut state = snapshot.lock();
            state.firm = state.firm.max(state.rows.len());
        }
        put_part(snapshot, part);
        keeping
    }

    async fn keep(
        &self,
        snapshot: &Snapshot,
        part: &mut KeptPart,
        end: Option<End>,
        fence: Option<Fence>,
    ) -> RowsKept {
        // The second attempt follows if the store has other rows or none.
        for _ in 0..2 {
            if part.unsure {
                match self.realign(snapshot, part).await {
                    Ok(()) => {}
                    Err(keeping) => return keeping,
                }
            }
            match self.try_to_keep(snapshot, part, end, fence).await {
                Ok(()) => return RowsKept::Kept,
                Err(NotKept::Deposed) => return RowsKept::Deposed,
                Err(NotKept::Unsure) => {
                    part.unsure = true;
                    return RowsKept::Unsure;
                }
                Err(NotKept::Full) => {
                    part.unsure = true;
                    return RowsKept::Alone;
                }
                Err(NotKept::Conflict) if fence.is_some() && part.place.is_some() => {
                    part.unsure = true;
                }
                Err(NotKept::Gone) if fence.is_some() && !snapshot.is_ended() => {
                    *part = part.after_loss();
                }
                Err(NotKept::Conflict | NotKept::Gone | NotKept::Refused) => break,
            }
        }
        part.off = true;
        RowsKept::Alone
    }

    /// Returns whether first pages are cut from a snapshot.
    pub(super) fn is_current(&self, snapshot: &Snapshot) -> bool {
        let current = self.current(&snapshot.key);
        current.is_some_and(|current| current.id() == snapshot.id())
    }

    /// Reads which of a snapshot's rows the shared store has.
    async fn realign(&self, snapshot: &Snapshot, part: &mut KeptPart) -> Result<(), RowsKept> {
        let Some(place) = part.place else {
            // Repeating the operations changes nothing.
            part.unsure = false;
            return Ok(());
        };
        let standing = match self.kept.look_at_snapshot(place.name).await {
            Ok(Some(found)) => found.standing,
            // Purged.
            Ok(None) if snapshot.is_ended() => {
                part.off = true;
                return Err(RowsKept::Alone);
            }
            Ok(None) => {
                *part = part.after_loss();
                part.unsure = false;
                return Ok(());
            }
            Err(_) => return Err(RowsKept::Unsure),
        };
        let chunks = chunks_of(snapshot);
        let chains: Vec<Chain> = chunks.iter().map(|(chain, _)| *chain).collect();
        match align(&chains, standing.chunks, &standing.chain) {
            Alignment::Behind(kept) => {
                let last = kept.checked_sub(1).and_then(|last| {
                    let last = usize::try_from(last).ok()?;
                    chunks.get(last).copied()
                });
                let (chain, rows) = last.unwrap_or_default();
                part.place = Some(KeptPlace {
                    name: place.name,
                    chunks: kept,
                    chain,
                });
                part.rows = rows;
                part.unsure = false;
                Ok(())
            }
            Alignment::Ahead => Err(RowsKept::Deposed),
            Alignment::Apart => {
                part.off = true;
                Err(RowsKept::Alone)
            }
        }
    }

    async fn try_to_keep(
        &self,
        snapshot: &Snapshot,
        part: &mut KeptPart,
        end: Option<End>,
        fence: Option<Fence>,
    ) -> Result<(), NotKept> {
        let step = KeepStep {
            upto: usize::MAX,
            end,
            fence,
            current: !part.lost || self.is_current(snapshot),
        };
        while self.keep_step(snapshot, part, step).await?.more {}
        Ok(())
    }

    /// Stores the next rows of a snapshot after those in `part`, and its ages and its end with the
    /// last ones.
    pub(super) async fn keep_step(
        &self,
        snapshot: &Snapshot,
        part: &mut KeptPart,
        step: KeepStep,
    ) -> Result<KeptStep, NotKept> {
        let nothing = KeptStep {
            bytes: 0,
            more: false,
        };
        let (rows, more, ages) = {
            let state = snapshot.lock();
            let Some(ages) = state.ages else {
                return Ok(nothing);
            };
            let within = state
                .rows
                .chunks_within(part.rows, step.upto, KEEP_BATCH_BYTES);
            (within.0, within.1, ages)
        };
        let end = step.end.and_then(kept_end);
        let end = end.filter(|_| !part.ended && !more);
        let count: usize = rows.iter().map(|rows| rows.ends.len()).sum();
        let bytes = rows.iter().map(|rows| rows.text.len()).sum();
        let renewed = part
            .ages
            .is_some_and(|kept| kept != (ages.head, ages.whole));
        if part.place.is_some() && rows.is_empty() && !renewed && end.is_none() {
            return Ok(nothing);
        }
        let of = match part.place {
            Some(place) => KeptOf::At(place),
            None => KeptOf::New {
                identity: snapshot.key.fingerprint(),
                id: snapshot.id().0,
                head: write_head(snapshot, part.begun.unwrap_or_default()),
                current: step.current,
            },
        };
        let fetched = self.clock.stamp_of(ages.head);
        let whole = self.clock.stamp_of(ages.whole);
        // An empty list has no rows that carry its age.
        let ageless = step.fence.is_some() && part.place.is_none() && count == 0;
        let new = KeptNews {
            of,
            rows,
            fetched,
            ages: (renewed || ages.head != ages.whole || ageless).then_some(KeptAges {
                head: fetched,
                whole,
            }),
            end,
            fence: step.fence,
        };
        part.place = Some(self.kept.keep_snapshot(new).await?);
        part.lost = false;
        part.rows += count;
        part.ages = Some((ages.head, ages.whole));
        part.ended |= end.is_some();
        Ok(KeptStep { bytes, more })
    }

    /// Records that a snapshot was replaced, so that no rows will follow.
    pub(super) fn end_kept(&self, snapshot: &Snapshot, end: End, fence: Option<Fence>) {
        if self.kept.is_shared() && fence.is_none() {
            return;
        }
        let mut part = snapshot.kept.lock();
        let end = kept_end(end).filter(|_| !part.ended && !part.off);
        if let (Some(place), Some(end)) = (part.place, end) {
            part.ended = true;
            self.kept.end_snapshot(place.name, end, fence);
        }
    }

    /// Records recent uses of snapshots in the store. Call it every few seconds.
    pub(super) fn touch_kept(&self, snapshot: &Snapshot, now: Instant) {
        let mut part = snapshot.kept.lock();
        let used = snapshot.last_used();
        let told = part.touched.unwrap_or_else(|| snapshot.birth());
        if let Some(place) = part.place
            && used > told
            && now.saturating_duration_since(told) >= TOUCH_EVERY
        {
            part.touched = Some(now);
            self.kept.touch_snapshot(place.name);
        }
    }

    /// Returns whether only this gateway can continue a snapshot, although the store is shared.
    pub(super) fn is_detached(&self, snapshot: &Snapshot) -> bool {
        let told = snapshot.lock().told;
        let part = snapshot.kept.lock();
        let unknown = part.place.is_none() && told > 0;
        self.kept.is_shared() && (part.off || part.unsure || unknown)
    }

    /// Removes a snapshot from the store as well.
    pub(super) fn forget_kept(&self, snapshot: &Snapshot) {
        // Other gateways may still use it. The engine evicts unused snapshots.
        if self.kept.is_shared() && !snapshot.is_ended() {
            return;
        }
        if let Some(place) = snapshot.kept.lock().place.take() {
            self.kept.forget_snapshot(place.name);
        }
    }
}

/// Records the part of a snapshot that is in the store now.
pub(super) fn put_part(snapshot: &Snapshot, part: KeptPart) {
    let mut kept = snapshot.kept.lock();
    let touched = kept.touched;
    *kept = KeptPart { touched, ..part };
}

/// Returns the chain after each chunk of a snapshot, and the rows up to there.
pub(super) fn chunks_of(snapshot: &Snapshot) -> Vec<(Chain, usize)> {
    let chunks = snapshot.lock().rows.chunks_from(0);
    let (mut chain, mut rows) = (Chain::default(), 0);
    let each = chunks.iter().map(|chunk| {
        (chain, rows) = (chunk.chain(&chain), rows + chunk.ends.len());
        (chain, rows)
    });
    each.collect()
}

/// `None` while more rows may come.
fn kept_end(end: End) -> Option<KeptEnd> {
    match end {
        End::Growing => None,
        End::Complete => Some(KeptEnd::Complete),
        End::Cut(_) => Some(KeptEnd::Cut),
        End::Broken => Some(KeptEnd::Broken),
    }
}
