//! Stores snapshots and loads them again: rows go to the store before readers see them, and are
//! loaded if memory does not hold them.
//!
//! A walk passes each vendor page to [`Snapshots::keep_rows`] before readers see it
//! (`State::told`). Stored rows never change. If a new search replaces rows that were stored but
//! never served, the snapshot is stored again from its start.
//!
//! [`Snapshots::recall`] loads a snapshot with its first rows and its true ages. The other rows
//! follow, one vendor page after the other, and readers wait for them as for those of a walk. Rows
//! that do not follow the earlier ones are never served: a new search continues from there.

use std::sync::Arc;

use bytes::Bytes;

use super::frozen::{Ages, End, Snapshot};
use super::load::{Loaded, Loader, Restored};
use super::store::Snapshots;
use super::token::SnapshotId;
use crate::cache::flight::Boarding;
use crate::cache::{CacheKey, Lifetimes, Standing, Subject};
use crate::clock::{Duration, Instant};
use crate::domain::query::SearchRequest;
use crate::domain::{CustomerId, SearchQuery};
use crate::store::pack::{PackReader, PackWriter};
use crate::store::{
    Alignment, Chain, Fence, KeptAges, KeptEnd, KeptNews, KeptOf, KeptPlace, KeptSnapshot, NotKept,
    PurgeDepth, align,
};
use crate::upstream::EnvelopeMember;

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

/// The subject of a lookup in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Recall {
    /// The current snapshot of a search.
    Search(CacheKey),
    /// The snapshot of a page token.
    Token(SnapshotId),
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

/// The error type of an operation that cannot fail.
#[derive(Clone, Debug)]
pub(super) enum NoFailure {}

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
                head: self.write_head(snapshot, part.begun.unwrap_or_default()),
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

    /// Looks up in the store what memory does not hold, and loads it. Concurrent lookups of one
    /// subject share a call. Returns when it is loaded or not found, or when the deadline passes.
    pub(super) async fn recall(self: &Arc<Self>, what: Recall, deadline: Instant) {
        if !self.kept.is_on() {
            return;
        }
        let look = || {
            let (this, what) = (self.clone(), what.clone());
            async move {
                this.read_back(what).await;
                Ok(())
            }
        };
        if let Boarding::Ticket(ticket) = self.recalls.board(&what, look) {
            ticket.wait(deadline).await;
        }
    }

    async fn read_back(self: &Arc<Self>, what: Recall) {
        let found = match &what {
            Recall::Search(key) => self.kept.find_current(key.fingerprint()).await,
            Recall::Token(id) => self.kept.find_snapshot(id.0).await,
        };
        let Some(found) = found else { return };
        let current = matches!(what, Recall::Search(_)) || self.kept.is_current(&found).await;
        if let Some((snapshot, begun)) = self.put_back(&what, found).await {
            self.hold(&snapshot, begun, current);
            self.make_room();
        }
    }

    /// Makes the snapshot of another gateway the current one of its search, unless it cannot be
    /// used.
    pub(super) async fn take_current(
        self: &Arc<Self>,
        key: &CacheKey,
        found: KeptSnapshot,
    ) -> bool {
        let Some(head) = read_head(found.head.clone()) else {
            return false;
        };
        let (snapshot, begun) = match self.held.get(head.id) {
            Some(held) if held.key == *key && !held.is_ended() => (held, head.begun),
            Some(_) => return false,
            None => match self.put_back(&Recall::Search(key.clone()), found).await {
                Some((snapshot, begun)) => {
                    self.hold(&snapshot, begun, false);
                    (snapshot, begun)
                }
                None => return false,
            },
        };
        if let Some(lineage) = self.existing_lineage(key) {
            lineage.replace(snapshot.clone());
        }
        self.end_if_purged(&snapshot, begun);
        self.make_room();
        !snapshot.is_ended()
    }

    /// Brings a snapshot back with its first rows. The others follow. Also returns the number of
    /// the purges before its scroll began.
    async fn put_back(
        self: &Arc<Self>,
        what: &Recall,
        found: KeptSnapshot,
    ) -> Option<(Arc<Snapshot>, u64)> {
        let Some(head) = read_head(found.head.clone()) else {
            self.kept.reject_chain();
            return None;
        };
        let key = CacheKey::new(
            self.walked.account.clone(),
            Subject::Search(head.query.clone()),
        );
        let asked = match what {
            Recall::Search(asked) => *asked == key,
            Recall::Token(id) => *id == head.id,
        };
        if !asked || *key.fingerprint() != head.identity || self.held.get(head.id).is_some() {
            return None;
        }
        let covered = self.purged_by(&key, head.begun);
        if covered == Some(PurgeDepth::Hard) {
            self.kept.forget_snapshot(found.name);
            return None;
        }
        let now = self.clock.now();
        let (ages, known) = self.ages_of(&found, head.lifetimes, now)?;
        if !self.has_room() {
            return None;
        }
        let standing = &found.standing;
        let (snapshot, grower) = Snapshot::restored(
            Restored {
                id: head.id,
                key,
                query: head.query,
                lifetimes: head.lifetimes,
                draw: head.draw,
                envelope: head.envelope.into(),
                end: match standing.end {
                    KeptEnd::Open => End::Growing,
                    KeptEnd::Complete => End::Complete,
                    KeptEnd::Cut => End::Cut("pagination.walk_rows_max"),
                    KeptEnd::Broken => End::Broken,
                },
                ages,
                purged: covered.is_some() || !known,
                kept: KeptPart {
                    place: Some(KeptPlace {
                        name: found.name,
                        chunks: standing.chunks,
                        chain: standing.chain,
                    }),
                    rows: usize::try_from(standing.rows).unwrap_or(usize::MAX),
                    ages: Some((ages.head, ages.whole)),
                    ended: standing.end != KeptEnd::Open,
                    begun: Some(head.begun),
                    ..KeptPart::default()
                },
            },
            self.total.clone(),
            self.clock.clone(),
        );
        if self.kept.is_shared() {
            // The snapshot is in the store because it was used recently.
            snapshot.touch(0);
        }
        if self.is_kept_too_long(&snapshot, now) {
            grower.leave(&mut snapshot.lock());
            self.forget_kept(&snapshot);
            return None;
        }
        snapshot.touch(0);
        let mut loader = Loader::new(self.clone(), snapshot.clone(), found);
        // A first page needs only the first rows. Readers of later pages wait for the others.
        match loader.load_next().await {
            Loaded::More => {
                tokio::spawn(loader.load_rest(grower));
            }
            Loaded::Whole => snapshot.loaded(grower, true),
            Loaded::Damaged | Loaded::Away => {
                grower.leave(&mut snapshot.lock());
                return None;
            }
        }
        Some((snapshot, head.begun))
    }

    /// Makes a snapshot without a row the copy of one that another gateway began, if that one
    /// answers the callers who wait: it still `grows`, is fresh, or is newer than they are. Its
    /// rows are then loaded.
    pub(super) fn adopt(
        &self,
        snapshot: &Arc<Snapshot>,
        found: &KeptSnapshot,
        grows: bool,
    ) -> bool {
        let Some(head) = read_head(found.head.clone()) else {
            self.kept.reject_chain();
            return false;
        };
        let now = self.clock.now();
        let known = self.ages_of(found, head.lifetimes, now);
        let Some((ages, true)) = known.filter(|_| head.identity == *snapshot.key.fingerprint())
        else {
            return false;
        };
        if self.purged_by(&snapshot.key, head.begun).is_some() {
            return false;
        }
        let judged = head.lifetimes.judge(ages.head, head.draw, now).standing();
        let mut state = snapshot.lock();
        let newer = ages.head >= snapshot.birth();
        let serves = newer || !state.forced && (grows || judged == Standing::Fresh);
        if !serves || state.ages.is_some() || state.told > 0 {
            return false;
        }
        state.truncate(0);
        state.cut_to = usize::MAX;
        state.envelope = head.envelope.into();
        state.lifetimes = head.lifetimes;
        state.ages = Some(ages);
        drop(state);
        // No row of it can have been told before, so no token names its id of its own.
        self.held.rename(snapshot, head.id);
        let mut part = snapshot.kept.lock();
        *part = KeptPart {
            place: Some(KeptPlace {
                name: found.name,
                chunks: 0,
                chain: Chain::default(),
            }),
            ages: Some((ages.head, ages.whole)),
            touched: part.touched,
            begun: Some(head.begun),
            ..KeptPart::default()
        };
        true
    }

    /// Takes the ages that another gateway has heard from the vendor.
    pub(super) fn take_ages(&self, snapshot: &Snapshot, found: &KeptSnapshot) {
        let lifetimes = snapshot.lifetimes();
        let known = self.ages_of(found, lifetimes, self.clock.now());
        let Some((theirs, true)) = known else { return };
        let mut state = snapshot.lock();
        if let Some(ages) = &mut state.ages
            && theirs.head > ages.head
        {
            *ages = theirs;
            state.hits = 0;
            drop(state);
            snapshot.kept.lock().ages = Some((theirs.head, theirs.whole));
        }
    }

    /// Returns when the vendor said so, in this process's time, and whether that is known. What is
    /// of unknown age is stale.
    pub(super) fn ages_of(
        &self,
        found: &KeptSnapshot,
        lifetimes: Lifetimes,
        now: Instant,
    ) -> Option<(Ages, bool)> {
        let kept = found.standing.ages?;
        let (head, whole) = (
            self.clock.instant_of(&kept.head),
            self.clock.instant_of(&kept.whole),
        );
        Some(match (head, whole) {
            (Some(head), Some(whole)) => (Ages { head, whole }, true),
            _ => {
                let old = now.checked_sub(lifetimes.fresh).unwrap_or(now);
                let ages = Ages {
                    head: old,
                    whole: old,
                };
                (ages, false)
            }
        })
    }

    fn write_head(&self, snapshot: &Snapshot, begun: u64) -> Vec<u8> {
        let state = snapshot.lock();
        let Lifetimes {
            fresh,
            stale,
            on_error,
        } = state.lifetimes;
        let mut out = PackWriter::default();
        out.fixed(&snapshot.id().0.to_le_bytes())
            .fixed(snapshot.key.fingerprint())
            .u64(snapshot.draw.to_bits())
            .u64(begun);
        for time in [fresh, stale, on_error] {
            out.u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
        let customer = snapshot.query.customer.as_ref();
        out.bytes(customer.map_or("", CustomerId::as_str).as_bytes());
        out.bytes(snapshot.query.body_text().as_bytes());
        out.u32(u32::try_from(state.envelope.len()).unwrap_or(u32::MAX));
        for member in state.envelope.iter() {
            match member {
                EnvelopeMember::Data => {
                    out.u8(b'd');
                }
                EnvelopeMember::NextPageKey => {
                    out.u8(b'n');
                }
                EnvelopeMember::Other(name, raw) => {
                    out.u8(b'o').bytes(name.as_bytes()).bytes(raw.as_bytes());
                }
            }
        }
        out.done()
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

/// The stored head of a snapshot.
struct Head {
    id: SnapshotId,
    identity: [u8; 32],
    draw: f64,
    begun: u64,
    lifetimes: Lifetimes,
    query: Arc<SearchQuery>,
    envelope: Vec<EnvelopeMember>,
}

fn read_head(bytes: Bytes) -> Option<Head> {
    let mut reader = PackReader::new(bytes);
    let text = |bytes: Bytes| String::from_utf8(bytes.into()).ok();
    let id = SnapshotId(u128::from_le_bytes(reader.fixed()?));
    let identity = reader.fixed()?;
    let draw = f64::from_bits(reader.u64()?).clamp(0.0, 1.0);
    let begun = reader.u64()?;
    let mut time = || reader.u64().map(Duration::from_millis);
    let lifetimes = Lifetimes {
        fresh: time()?,
        stale: time()?,
        on_error: time()?,
    };
    let customer = match text(reader.bytes()?)?.as_str() {
        "" => None,
        customer => Some(CustomerId::parse(customer).ok()?),
    };
    let request = SearchRequest::parse(&reader.bytes()?, customer).ok()?;
    let mut envelope = Vec::new();
    for _ in 0..reader.u32()? {
        envelope.push(match reader.u8()? {
            b'd' => EnvelopeMember::Data,
            b'n' => EnvelopeMember::NextPageKey,
            b'o' => EnvelopeMember::Other(text(reader.bytes()?)?, text(reader.bytes()?)?),
            _ => return None,
        });
    }
    reader.is_over().then_some(Head {
        id,
        identity,
        draw,
        begun,
        lifetimes,
        query: Arc::new(request.query),
        envelope,
    })
}
