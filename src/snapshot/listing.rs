//! What is remembered of searches, as operators see it.

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
    /// Where its growth stands.
    pub end: End,
    /// A walk is at work.
    pub growing: bool,
    /// Rows known.
    pub rows: usize,
    /// Of them, those that were served.
    pub served: usize,
    /// What it is charged.
    pub bytes: u64,
    /// Since the vendor gave its first rows; `None` before its first answer.
    pub age: Option<Duration>,
    /// Since the vendor gave the oldest of all its rows.
    pub age_whole: Option<Duration>,
    /// What its first rows may be used for.
    pub standing: Standing,
    /// A soft purge made it stale.
    pub purged: bool,
    /// New searches are answered from it; the others stay for their page tokens.
    pub current: bool,
    /// A refresh of its search is under way.
    pub refreshing: bool,
    /// Requests that wait for its next rows.
    pub readers: usize,
    /// Since it was used last.
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
