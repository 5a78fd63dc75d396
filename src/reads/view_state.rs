//! One state of a view that callers synchronise with, and the difference between two states.
//!
//! A state does not contain its rows. For each row it has the number of its id and a hash of its
//! text, 20 bytes together. The ids of a search are in one table that its states share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::row_names::{Ids, RowHash};
use crate::cache::CacheKey;
use crate::clock::Instant;
use crate::domain::SearchQuery;
use crate::snapshot::View;

/// Bytes of a state besides its rows.
const STATE_OVERHEAD_BYTES: u64 = 512;
/// The place of a row that a state does not have. No state has that many rows.
const NOWHERE: u32 = u32::MAX;

/// The rows of a view of a search at one time.
#[derive(Debug)]
pub struct ViewState {
    /// Its id in tokens.
    pub id: u128,
    /// The search.
    pub query: Arc<SearchQuery>,
    /// The view of an audience. A customer is part of the search.
    pub view: View,
    key: CacheKey,
    ids: Arc<Mutex<Ids>>,
    rows: Box<[u32]>,
    hashes: Box<[RowHash]>,
    /// When the vendor last confirmed it.
    as_of: Mutex<(Instant, Timestamp)>,
    caller: Arc<str>,
    last_used: AtomicU64,
    /// Set once a token may name it.
    pub(super) told: OnceCell<()>,
}

/// The difference between two states.
#[derive(Debug, Default)]
pub struct Difference {
    /// Places of the new or changed rows of the newer state, in its order.
    pub upserts: Vec<u32>,
    /// The identifying members of each removed row.
    pub removes: Vec<String>,
}

impl Difference {
    /// Returns whether the states are equal.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removes.is_empty()
    }
}

impl ViewState {
    /// Creates the state `new`, which the vendor confirmed at `as_of`. No token names it yet.
    /// `caller` caused it, and used it at `last_used`, as [`Self::last_used`] counts.
    pub(super) fn new(
        id: u128,
        new: NewState,
        as_of: (Instant, Timestamp),
        caller: Arc<str>,
        last_used: u64,
    ) -> Self {
        Self {
            id,
            query: new.query,
            view: new.view,
            key: new.key,
            ids: new.ids,
            rows: new.rows.into(),
            hashes: new.hashes.into(),
            as_of: Mutex::new(as_of),
            caller,
            last_used: AtomicU64::new(last_used),
            told: OnceCell::new(),
        }
    }

    /// Returns the number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Returns the identity of its search.
    pub(super) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Returns the table of its ids.
    pub(super) fn ids(&self) -> &Arc<Mutex<Ids>> {
        &self.ids
    }

    /// Returns its rows: their numbers in the table, and their hashes.
    pub(super) fn rows(&self) -> (&[u32], &[RowHash]) {
        (&self.rows, &self.hashes)
    }

    /// Returns when the vendor last confirmed it.
    pub fn as_of(&self) -> (Instant, Timestamp) {
        *self.as_of.lock()
    }

    /// Records that the vendor confirmed it again.
    pub(super) fn renew(&self, at: Instant, wall: Timestamp) {
        let mut as_of = self.as_of.lock();
        if at > as_of.0 {
            // The wall clock may be set back. The time that callers see never goes back.
            *as_of = (at, wall.max(as_of.1));
        }
    }

    /// Records from a token when the vendor last confirmed the state. The time in the store may be
    /// older, because a state is written only once.
    pub(super) fn told_as_of(&self, told: Timestamp, now: Instant) {
        let mut as_of = self.as_of.lock();
        if told > as_of.1 {
            let later = told.duration_since(as_of.1);
            let at = as_of.0 + later.unsigned_abs();
            *as_of = (at.min(now).max(as_of.0), told);
        }
    }

    /// Returns the caller that caused it.
    pub(super) fn caller(&self) -> &Arc<str> {
        &self.caller
    }

    /// Returns when it was last used, in milliseconds since the table of all states began.
    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Records a use.
    pub(super) fn use_at(&self, ms: u64) {
        self.last_used.fetch_max(ms, Ordering::Relaxed);
    }

    /// Returns its bytes, without the table of its ids.
    pub(super) fn bytes(&self) -> u64 {
        STATE_OVERHEAD_BYTES + bytes_of(self.rows.len())
    }

    /// Returns whether the other state of the same view has equal rows in the same order.
    pub(super) fn same_rows(&self, other: &Self) -> bool {
        let same_ids = Arc::ptr_eq(&self.ids, &other.ids);
        self.id == other.id || same_ids && self.rows == other.rows && self.hashes == other.hashes
    }

    /// Returns the difference from this state to the newer one.
    pub fn difference(&self, newer: &Self) -> Difference {
        let mut out = Difference::default();
        if self.same_rows(newer) {
            return out;
        }
        // Maps a number of the newer table to the place of the row in this state.
        let mut places = vec![NOWHERE; newer.ids.lock().len()];
        let mut unknown = Vec::new();
        // Two tables are never locked at once.
        let ours = match Arc::ptr_eq(&self.ids, &newer.ids) {
            true => None,
            false => Some(self.ids.lock().ids.clone()),
        };
        {
            let theirs = newer.ids.lock();
            for (place, number) in (0..).zip(&self.rows) {
                let there = match &ours {
                    None => Some(*number),
                    Some(ours) => {
                        let id = ours.get(*number as usize);
                        id.and_then(|id| theirs.numbers.get(id).copied())
                    }
                };
                match there.and_then(|there| places.get_mut(there as usize)) {
                    Some(known) => *known = place,
                    None => unknown.push(*number),
                }
            }
        }
        for (place, (number, hash)) in (0..).zip(newer.rows.iter().zip(&newer.hashes)) {
            let known = places.get_mut(*number as usize);
            let before = known.map_or(NOWHERE, |known| std::mem::replace(known, NOWHERE));
            if self.hashes.get(before as usize) != Some(hash) {
                out.upserts.push(place);
            }
        }
        let ids = newer.ids.lock();
        let gone = (0..).zip(&places).filter(|(_, place)| **place != NOWHERE);
        out.removes = gone
            .map(|(number, _)| ids.name(number).to_owned())
            .collect();
        drop(ids);
        let ids = self.ids.lock();
        let unknown = unknown.into_iter().map(|n| ids.name(n).to_owned());
        out.removes.extend(unknown);
        out
    }
}

/// A state that is being built.
pub(super) struct NewState {
    /// The identity of its search.
    pub key: CacheKey,
    /// The search.
    pub query: Arc<SearchQuery>,
    /// The view of an audience.
    pub view: View,
    /// The table of its ids.
    pub ids: Arc<Mutex<Ids>>,
    /// For each row the number of its id.
    pub rows: Vec<u32>,
    /// For each row the hash of its text.
    pub hashes: Vec<RowHash>,
}

/// Returns the bytes of this many rows in a state.
pub fn bytes_of(rows: usize) -> u64 {
    rows as u64 * (size_of::<u32>() + size_of::<RowHash>()) as u64
}
