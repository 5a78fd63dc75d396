//! The snapshots in memory, found by id and evicted in the order of their last use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::frozen::Snapshot;
use super::token::SnapshotId;
use crate::clock::Instant;

/// The snapshots in memory. While its lock is held, only a snapshot's own lock may be taken.
#[derive(Default)]
pub struct Held(RwLock<Tables>);

#[derive(Default)]
struct Tables {
    /// Each with the time under which it is in the other table.
    by_id: HashMap<SnapshotId, (Arc<Snapshot>, Instant), RandomState>,
    /// In the order of last use, as far as it is known here. A use is recorded in the snapshot
    /// alone. When the snapshot's turn to be evicted comes, its newer time is read and it moves
    /// back. So a use costs nothing here, and the order is still exact: no snapshot was last used
    /// before the time under which it is stored.
    by_use: BTreeMap<(Instant, SnapshotId), Arc<Snapshot>>,
}

impl Tables {
    fn put(&mut self, snapshot: Arc<Snapshot>) {
        let used = snapshot.last_used();
        self.by_use.insert((used, snapshot.id()), snapshot.clone());
        self.by_id.insert(snapshot.id(), (snapshot, used));
    }
}

impl Held {
    /// Adds a snapshot.
    pub fn insert(&self, snapshot: Arc<Snapshot>) {
        self.0.write().put(snapshot);
    }

    /// Returns the snapshot with this id.
    pub fn get(&self, id: SnapshotId) -> Option<Arc<Snapshot>> {
        let tables = self.0.read();
        tables.by_id.get(&id).map(|(snapshot, _)| snapshot.clone())
    }

    /// Gives a snapshot the id of one that another gateway began, and finds it by that.
    pub fn rename(&self, snapshot: &Arc<Snapshot>, id: SnapshotId) {
        let mut tables = self.0.write();
        for id in [snapshot.id(), id] {
            if let Some((_, used)) = tables.by_id.remove(&id) {
                tables.by_use.remove(&(used, id));
            }
        }
        snapshot.adopt_id(id);
        tables.put(snapshot.clone());
    }

    /// Removes a snapshot.
    pub fn remove(&self, id: SnapshotId) {
        let mut tables = self.0.write();
        if let Some((_, used)) = tables.by_id.remove(&id) {
            tables.by_use.remove(&(used, id));
        }
    }

    /// Returns all snapshots.
    pub fn all(&self) -> Vec<Arc<Snapshot>> {
        let tables = self.0.read();
        tables.by_id.values().map(|(s, _)| s.clone()).collect()
    }

    /// Returns the number of snapshots.
    pub fn len(&self) -> usize {
        self.0.read().by_id.len()
    }

    /// Removes and returns the least recently used snapshot for which `may_go` returns true.
    pub fn take_oldest(&self, may_go: impl Fn(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        let mut tables = self.0.write();
        // These are few: snapshots with a running walk.
        let mut staying = Vec::new();
        let oldest = loop {
            let Some(((known, id), snapshot)) = tables.by_use.pop_first() else {
                break None;
            };
            if snapshot.last_used() > known {
                tables.put(snapshot);
            } else if may_go(&snapshot) {
                tables.by_id.remove(&id);
                break Some(snapshot);
            } else {
                staying.push(snapshot);
            }
        };
        for snapshot in staying {
            tables.put(snapshot);
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::cache::{CacheKey, Lifetimes, Subject};
    use crate::clock::{Clock, Duration, sleep};
    use crate::domain::{AccountId, SearchQuery};

    fn snapshot(clock: &Clock) -> Arc<Snapshot> {
        let query = Arc::new(SearchQuery::default());
        let key = CacheKey::new(AccountId::of_disabled(), Subject::Search(query.clone()));
        let hour = Duration::from_secs(3600);
        let lifetimes = Lifetimes {
            fresh: hour,
            stale: hour,
            on_error: hour,
        };
        let total = Arc::new(AtomicU64::new(0));
        Snapshot::new(key, query, lifetimes, total, clock.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn they_go_in_the_order_of_their_last_use() {
        let (clock, held) = (Clock::system(), Held::default());
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(snapshot(&clock));
            held.insert(all.last().unwrap().clone());
            sleep(Duration::from_secs(1)).await;
        }
        // The second is used, then the first. The third must not be evicted.
        all[1].touch(0);
        sleep(Duration::from_secs(1)).await;
        all[0].touch(0);
        let third = all[2].id();
        let oldest = || {
            held.take_oldest(|one| one.id() != third)
                .map(|one| one.id())
        };
        assert_eq!(oldest(), Some(all[3].id()));
        assert!(held.get(all[3].id()).is_none() && held.get(third).is_some());
        assert_eq!(oldest(), Some(all[1].id()));
        assert_eq!(oldest(), Some(all[0].id()));
        assert_eq!(oldest(), None);
        assert_eq!((held.len(), held.all().len()), (1, 1));
        assert_eq!(held.take_oldest(|_| true).map(|one| one.id()), Some(third));
        assert_eq!(held.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_removed_is_in_neither_table() {
        let (clock, held) = (Clock::system(), Held::default());
        let (one, other) = (snapshot(&clock), snapshot(&clock));
        assert_ne!(one.id(), other.id());
        held.insert(one.clone());
        held.insert(other.clone());
        sleep(Duration::from_secs(1)).await;
        one.touch(0);
        held.remove(one.id());
        held.remove(one.id());
        assert!(held.get(one.id()).is_none());
        assert_eq!(held.take_oldest(|_| true).map(|s| s.id()), Some(other.id()));
        assert!(held.take_oldest(|_| true).is_none());
    }
}
