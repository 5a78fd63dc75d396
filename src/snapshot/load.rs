//! Loads snapshots from the store: first without rows, which then follow one vendor page after the
//! other.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::task::yield_now;

use super::frozen::{Ages, End, Grower, Snapshot};
use super::keep::KeptPart;
use super::store::Snapshots;
use super::token::SnapshotId;
use crate::cache::{CacheKey, Lifetimes};
use crate::clock::{Clock, Duration, sleep};
use crate::domain::SearchQuery;
use crate::store::{Chain, KeptPlace, KeptSnapshot};
use crate::upstream::{EnvelopeMember, RawRows};

/// How often in a row a vendor page is requested again after a late reply of the store.
const LATE_MAX: u32 = 10;
/// The pause before such a retry.
const LATE_PAUSE: Duration = Duration::from_millis(100);

/// A snapshot that outlived its process.
pub(super) struct Restored {
    pub id: SnapshotId,
    pub key: CacheKey,
    pub query: Arc<SearchQuery>,
    pub lifetimes: Lifetimes,
    pub draw: f64,
    pub envelope: Arc<[EnvelopeMember]>,
    /// Its end, once its rows have been read.
    pub end: End,
    pub ages: Ages,
    pub purged: bool,
    pub kept: KeptPart,
}

impl Snapshot {
    /// Creates a snapshot that outlived its process, without its rows. They follow by
    /// [`Self::load`] until [`Self::loaded`] takes the returned [`Grower`] back. Readers wait for
    /// them meanwhile.
    pub(super) fn restored(
        from: Restored,
        total: Arc<AtomicU64>,
        clock: Clock,
    ) -> (Arc<Self>, Grower) {
        let fresh = Self::new(from.key, from.query, from.lifetimes, total, clock);
        let mut restored = match Arc::try_unwrap(fresh) {
            Ok(fresh) => fresh,
            // Unreachable: the snapshot is not shared yet.
            Err(shared) => {
                let grower = Grower::begin(&shared, &mut shared.lock());
                return (shared, grower);
            }
        };
        restored.set_own_id(from.id);
        restored.draw = from.draw;
        restored.birth = from.ages.head;
        *restored.kept.get_mut() = from.kept;
        let state = restored.state.get_mut();
        state.loading = Some(from.end);
        state.envelope = from.envelope;
        state.ages = Some(from.ages);
        state.purged = from.purged;
        let restored = Arc::new(restored);
        let grower = Grower::begin(&restored, &mut restored.lock());
        (restored, grower)
    }

    /// Adds rows that were kept. They never change, because a reader may hold any of them. Where
    /// the store is not `shared`, that reader was one of this gateway, and a refresh covers them.
    pub(super) fn load(&self, rows: RawRows, shared: bool) {
        let mut state = self.lock();
        state.rows.append(rows, |_| true);
        let len = state.rows.len();
        state.told = len;
        state.firm = len;
        if !shared {
            state.published = len;
            state.promised = len;
        }
        drop(state);
        self.announce();
    }

    /// Records that all stored rows are loaded (`whole`), or that no more of them can be read.
    pub(super) fn loaded(&self, grower: Grower, whole: bool) {
        let mut state = self.lock();
        if let Some(end) = state.loading.take().filter(|_| whole) {
            state.end = end;
        }
        grower.leave(&mut state);
        drop(state);
        self.announce();
    }

    /// Waits until all rows have been loaded from the store.
    pub(super) async fn until_loaded(&self) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if self.lock().loading.is_none() || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Reads the rows of a stored snapshot, one vendor page after the other.
pub(super) struct Loader {
    store: Arc<Snapshots>,
    snapshot: Arc<Snapshot>,
    found: KeptSnapshot,
    /// The chain before the next chunk.
    chain: Chain,
    number: u32,
}

/// The outcome of reading the next rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Loaded {
    /// There are more rows.
    More,
    /// These were the last rows.
    Whole,
    /// The rows do not follow the earlier ones. The snapshot was removed from the store.
    Damaged,
    /// The store did not answer.
    Away,
}

impl Loader {
    /// Reads from the start of `found`.
    pub fn new(store: Arc<Snapshots>, snapshot: Arc<Snapshot>, found: KeptSnapshot) -> Self {
        Self {
            store,
            snapshot,
            found,
            chain: Chain::default(),
            number: 0,
        }
    }

    /// Reads the chunks that follow those of the snapshot.
    pub fn after(
        store: Arc<Snapshots>,
        snapshot: Arc<Snapshot>,
        found: KeptSnapshot,
        place: &KeptPlace,
    ) -> Self {
        Self {
            chain: place.chain,
            number: place.chunks,
            ..Self::new(store, snapshot, found)
        }
    }

    /// Returns how far it has read.
    pub fn place(&self) -> KeptPlace {
        KeptPlace {
            name: self.found.name,
            chunks: self.number,
            chain: self.chain,
        }
    }

    /// Reads the next vendor page, and shows its rows.
    pub async fn load_next(&mut self) -> Loaded {
        let standing = &self.found.standing;
        if self.number < standing.chunks {
            let kept = &self.store.kept;
            let found = kept
                .find_rows(self.found.name, self.number, self.chain)
                .await;
            let rows = match found {
                Ok(Some((rows, next))) => {
                    self.chain = next;
                    self.number += 1;
                    rows
                }
                Ok(None) => return self.damaged(),
                Err(_) => return Loaded::Away,
            };
            let rows = RawRows {
                text: rows.text,
                ends: rows.ends,
                places: Vec::new(),
            };
            self.snapshot.load(rows, self.store.kept.is_shared());
        }
        if self.number < standing.chunks {
            return Loaded::More;
        }
        let rows = self.snapshot.size().0 as u64;
        match self.chain == standing.chain && rows == standing.rows {
            true => Loaded::Whole,
            false => self.damaged(),
        }
    }

    fn damaged(&self) -> Loaded {
        self.store.kept.reject_chain();
        self.store.forget_kept(&self.snapshot);
        Loaded::Damaged
    }

    /// Reads the other rows. If some cannot be read, a new search continues after the last good
    /// row, as after a walk that had not ended.
    pub async fn load_rest(mut self, grower: Grower) {
        let mut late = 0;
        let ended = loop {
            // Lets other tasks run in between.
            yield_now().await;
            match self.load_next().await {
                Loaded::More => late = 0,
                // A short wait for stored rows costs less than a new search.
                Loaded::Away if late < LATE_MAX => {
                    late += 1;
                    sleep(LATE_PAUSE).await;
                }
                ended => break ended,
            }
        };
        if ended != Loaded::Whole {
            let mut part = self.snapshot.kept.lock();
            *part = KeptPart {
                touched: part.touched,
                begun: part.begun,
                // The rows in the store are good, and more than this copy has.
                off: ended == Loaded::Away,
                ..KeptPart::default()
            };
        }
        self.snapshot.loaded(grower, ended == Loaded::Whole);
        self.store.make_room();
    }
}
