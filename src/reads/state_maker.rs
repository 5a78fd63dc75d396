//! Builds states: reads every row of a complete snapshot and hashes its text.
//!
//! Hashing 100,000 rows takes about 50 ms, so it runs on a thread that serves no requests. Few rows
//! of a list change between two walks. While the snapshot of the earlier state is in memory, a row
//! with the same text in it keeps its hash, even at another place in the list.
//!
//! A followed search is likely to be requested again. So its next state is built as soon as a walk
//! has read the list again, and requests find it ready. At most one state is built at a time.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::watch;

use super::row_names::{RowHash, hash_of};
use super::states::{BuiltFor, FollowedSearch, States};
use super::view_state::{NewState, ViewState};
use crate::cache::{CacheKey, Standing};
use crate::domain::SearchQuery;
use crate::domain::record::RowId;
use crate::snapshot::{End, Snapshot, Snapshots, View};

/// Rows read under the snapshot's lock at once. Its readers share the lock.
const ROWS_AT_ONCE: usize = 1_000;
/// A state with fewer rows is built on the request's own thread, which takes less than a
/// millisecond.
const OFF_THREAD_ROWS: usize = 2_000;

/// A state to be built.
pub(super) struct StateOrder {
    /// The identity of the search.
    pub key: CacheKey,
    /// The search.
    pub query: Arc<SearchQuery>,
    /// The view of an audience.
    pub view: View,
    /// The complete snapshot with its rows.
    pub snapshot: Arc<Snapshot>,
    /// The view of the snapshot that selects the rows.
    pub cut: View,
}

/// The rows of the earlier state, by place.
pub(super) struct EarlierRows {
    state: Arc<ViewState>,
    texts: Vec<Bytes>,
    /// The place of each row, by the number of its id.
    places: Vec<u32>,
}

impl EarlierRows {
    /// Returns the rows of a state, if its snapshot is in memory and its ids are in the table of
    /// `new`.
    fn of(before: FollowedSearch, new: &NewState) -> Option<Self> {
        let state = before.state;
        if !Arc::ptr_eq(state.ids(), &new.ids) {
            return None;
        }
        let snapshot = before.snapshot.upgrade()?;
        let mut texts = Vec::with_capacity(state.row_count());
        loop {
            let (rows, _) = snapshot.rows_with_ids(&before.cut, texts.len(), ROWS_AT_ONCE);
            if rows.is_empty() {
                break;
            }
            texts.extend(rows.into_iter().map(|(_, text)| text));
        }
        if texts.len() != state.row_count() {
            return None;
        }
        let mut places = vec![u32::MAX; new.ids.lock().len()];
        for (place, number) in (0..).zip(state.rows().0) {
            if let Some(known) = places.get_mut(*number as usize) {
                *known = place;
            }
        }
        Some(Self {
            state,
            texts,
            places,
        })
    }

    /// Returns the number and the hash of a row if it was at this place.
    fn at(&self, place: usize, row: &Bytes) -> Option<(u32, RowHash)> {
        let (numbers, hashes) = self.state.rows();
        let is_same = is_same_text(self.texts.get(place)?, row);
        is_same.then_some((*numbers.get(place)?, *hashes.get(place)?))
    }

    /// Returns the hash of a row if it was at any place.
    fn hash(&self, number: u32, row: &Bytes) -> Option<RowHash> {
        let place = *self.places.get(number as usize)? as usize;
        Some(self.at(place, row)?.1)
    }
}

fn is_same_text(one: &Bytes, other: &Bytes) -> bool {
    // Lists from consecutive walks share the memory of equal pages.
    let same_place = one.as_ptr() == other.as_ptr() && one.len() == other.len();
    same_place || one == other
}

impl NewState {
    /// Adds rows. Returns `false` if the table of ids is full.
    pub(super) fn add(&mut self, rows: &[(RowId, Bytes)], before: Option<&EarlierRows>) -> bool {
        let mut ids = self.ids.lock();
        for (id, row) in rows {
            let stood = before.and_then(|before| before.at(self.rows.len(), row));
            let (number, hash) = match stood {
                Some(stood) => stood,
                None => {
                    let Some(number) = ids.number(*id, row) else {
                        return false;
                    };
                    let known = before.and_then(|before| before.hash(number, row));
                    (number, known.unwrap_or_else(|| hash_of(row)))
                }
            };
            self.rows.push(number);
            self.hashes.push(hash);
        }
        true
    }

    /// Adds every row. Returns `None` if the snapshot is not complete or has too many ids.
    fn fill(
        mut self,
        snapshot: &Snapshot,
        cut: &View,
        before: Option<&EarlierRows>,
    ) -> Option<Self> {
        loop {
            let (rows, end) = snapshot.rows_with_ids(cut, self.rows.len(), ROWS_AT_ONCE);
            if !self.add(&rows, before) {
                tracing::warn!("changes cut: a search has too many ids");
                return None;
            }
            match end {
                End::Complete => return Some(self),
                _ if rows.is_empty() => return None,
                _ => {}
            }
        }
    }
}

impl States {
    /// Returns the state of a complete snapshot. Builds it if there is none. `None` if the snapshot
    /// is not complete or has too many ids.
    pub(super) async fn build(
        self: &Arc<Self>,
        order: StateOrder,
        built_for: &BuiltFor,
    ) -> Option<Arc<ViewState>> {
        if let Some(state) = self.of_snapshot(&order.snapshot, &order.cut) {
            return Some(state);
        }
        let turn = self.making.clone().acquire_owned().await.ok()?;
        if let Some(state) = self.of_snapshot(&order.snapshot, &order.cut) {
            return Some(state);
        }
        let StateOrder {
            key,
            query,
            view,
            snapshot,
            cut,
        } = order;
        let (states, built_for) = (self.clone(), built_for.clone());
        let off_thread = snapshot.size().0 >= OFF_THREAD_ROWS;
        let work = move || {
            // The turn ends with the work, even if the caller has disconnected.
            let _turn = turn;
            let before = states.latest(&key, &view);
            let new = states.begin(key, query, view);
            let before = before.and_then(|before| EarlierRows::of(before, &new));
            let made = new.fill(&snapshot, &cut, before.as_ref())?;
            states.remember(made, &snapshot, &cut, &built_for)
        };
        match off_thread {
            true => tokio::task::spawn_blocking(work).await.ok().flatten(),
            false => work(),
        }
    }
}

/// Builds the states of followed searches after every completed walk, while there are states and
/// snapshots.
pub(super) async fn prepare(
    states: Weak<States>,
    snapshots: Weak<Snapshots>,
    mut completions: watch::Receiver<u64>,
) {
    while completions.changed().await.is_ok() {
        let (Some(states), Some(snapshots)) = (states.upgrade(), snapshots.upgrade()) else {
            return;
        };
        for followed in states.followed() {
            let FollowedSearch {
                state, source, cut, ..
            } = followed;
            let Some(snapshot) = snapshots.complete(&source, &[Standing::Fresh]) else {
                continue;
            };
            if !states.takes(snapshot.size().0) {
                continue;
            }
            let order = StateOrder {
                key: state.key().clone(),
                query: state.query.clone(),
                view: state.view.clone(),
                snapshot,
                cut,
            };
            states.build(order, &BuiltFor::Followers(state)).await;
        }
    }
}
