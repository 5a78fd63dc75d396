//! Builds states: reads every row of a whole snapshot, and hashes its text.
//!
//! That takes some 50 ms for 100,000 rows, so it is done on a thread that serves no requests. A
//! search that a caller follows is likely asked for again. So its next state is built as soon as a
//! walk has read the list anew, and its askers find it. At most one state is built at a time.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::watch;

use super::states::{BuiltFor, FollowedSearch, NewState, States, ViewState, hash_of};
use crate::cache::{CacheKey, Standing};
use crate::domain::SearchQuery;
use crate::domain::record::RowId;
use crate::snapshot::{End, Snapshot, Snapshots, View};

/// Rows read between two looks at the snapshot's lock, which its readers share.
const ROWS_AT_ONCE: usize = 1_000;
/// Below so many rows a state is built where it is asked for: that takes less than a millisecond.
const OFF_THREAD_ROWS: usize = 2_000;

/// A state to be built.
pub(super) struct StateOrder {
    /// The identity of the search.
    pub key: CacheKey,
    /// The search.
    pub query: Arc<SearchQuery>,
    /// The view of an audience.
    pub view: View,
    /// A complete snapshot that has its rows.
    pub snapshot: Arc<Snapshot>,
    /// The view of the snapshot that shows them.
    pub cut: View,
}

impl NewState {
    /// Adds rows. Returns `false` if the table of ids is full.
    pub(super) fn add(&mut self, rows: &[(RowId, Bytes)]) -> bool {
        {
            let mut ids = self.ids.lock();
            for (id, row) in rows {
                let Some(number) = ids.number(*id, row) else {
                    return false;
                };
                self.rows.push(number);
            }
        }
        self.hashes.extend(rows.iter().map(|(_, row)| hash_of(row)));
        true
    }

    /// Adds every row. Returns `None` if the snapshot is not whole, or has too many ids.
    fn fill(mut self, snapshot: &Snapshot, cut: &View) -> Option<Self> {
        loop {
            let (rows, end) = snapshot.rows_with_ids(cut, self.rows.len(), ROWS_AT_ONCE);
            if !self.add(&rows) {
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
    /// Returns the state of a complete snapshot, built if it was not built before. `None` if the
    /// snapshot is not whole, or has too many ids.
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
            // The turn ends with the work, even if the asker has left.
            let _turn = turn;
            let made = states.begin(key, query, view).fill(&snapshot, &cut)?;
            states.remember(made, &snapshot, &cut, &built_for)
        };
        match off_thread {
            true => tokio::task::spawn_blocking(work).await.ok().flatten(),
            false => work(),
        }
    }
}

/// Builds the states of followed searches whenever a walk has reached its end, as long as there are
/// states and snapshots.
pub(super) async fn prepare(
    states: Weak<States>,
    snapshots: Weak<Snapshots>,
    mut completions: watch::Receiver<u64>,
) {
    while completions.changed().await.is_ok() {
        let (Some(states), Some(snapshots)) = (states.upgrade(), snapshots.upgrade()) else {
            return;
        };
        for FollowedSearch { state, source, cut } in states.followed() {
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
