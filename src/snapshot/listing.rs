//! The snapshots in memory, as operators see them.

use std::sync::Arc;

use super::frozen::{End, Snapshot};
use super::store::Snapshots;
use crate::cache::Standing;
use crate::clock::Duration;
use crate::domain::SearchQuery;

/// One snapshot as it is now.
#[derive(Clone, Debug)]
pub struct ListedSnapshot {
    /// The start of the search's fingerprint, in hex.
    pub identity: String,
    /// The search.
    pub query: Arc<SearchQuery>,
    /// Whether and why it has stopped growing.
    pub end: End,
    /// Whether a walk is running.
    pub growing: bool,
    /// Number of rows known.
    pub rows: usize,
    /// Number of these rows that were served.
    pub served: usize,
    /// Bytes that it is charged.
    pub bytes: u64,
    /// Time since the vendor gave its first rows. `None` before its first answer.
    pub age: Option<Duration>,
    /// Time since the vendor gave the oldest of its rows.
    pub age_whole: Option<Duration>,
    /// How its first rows may be used.
    pub standing: Standing,
    /// Whether a soft purge made it stale.
    pub purged: bool,
    /// Whether new searches are answered from it. Other snapshots stay for their page tokens.
    pub current: bool,
    /// Whether a refresh of its search is running.
    pub refreshing: bool,
    /// Number of requests that wait for its next rows.
    pub readers: usize,
    /// Time since its last use.
    pub unused: Duration,
}

impl Snapshots {
    /// Returns the snapshots used last, at most `limit`, and how many there are.
    pub fn list(&self, limit: usize) -> (Vec<ListedSnapshot>, usize) {
        let mut held = self.held();
        let all = held.len();
        held.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.last_used()));
        held.truncate(limit);
        (held.iter().map(|one| self.listed(one)).collect(), all)
    }

    fn listed(&self, snapshot: &Arc<Snapshot>) -> ListedSnapshot {
        let now = self.now();
        let look = snapshot.look(false, now);
        let (rows, served, bytes) = snapshot.size();
        let ages = snapshot.ages();
        let current = self.current(&snapshot.key);
        ListedSnapshot {
            identity: snapshot.key.to_string(),
            query: snapshot.query.clone(),
            end: snapshot.end(),
            growing: look.growing,
            rows,
            served,
            bytes,
            age: ages.map(|ages| now.saturating_duration_since(ages.head)),
            age_whole: ages.map(|ages| now.saturating_duration_since(ages.whole)),
            standing: look.standing(),
            purged: look.purged,
            current: current.is_some_and(|current| Arc::ptr_eq(&current, snapshot)),
            refreshing: self.is_refreshing(&snapshot.key),
            readers: snapshot.readers(),
            unused: now.saturating_duration_since(snapshot.last_used()),
        }
    }
}
