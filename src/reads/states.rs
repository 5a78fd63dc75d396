//! The states that callers synchronise with: which are in memory, who follows which search, and
//! which state is evicted first.
//!
//! A state belongs to a search and an audience, so every caller with the same view shares it.
//! `state_maker` builds states. A state is stored before a caller gets a token for it
//! (`kept_states`), so the token is good after a restart. When all states together exceed
//! `changes.bytes_max`, the least recently used ones are evicted.
//!
//! What must never happen: two rows with one number, or a state made of a list without its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::kept_states::KeptStates;
use super::row_names::Ids;
use super::view_state::{NewState, ViewState, bytes_of};
use crate::cache::CacheKey;
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{Audience, SearchQuery};
use crate::metrics::StoreUsage;
use crate::snapshot::{Snapshot, SnapshotId, View};
use crate::store::Store;

/// Maximum number of searches that one caller may follow at once. Another one is refused.
/// Dashboards follow a few, and a service one for each of its customers.
const SEARCHES_PER_CALLER_MAX: usize = 256;
/// A search that was not requested for this long is no longer followed, and frees its place.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Maximum number of states that one caller may cause: four of each search. Beyond it, the caller's
/// least recently used state is evicted. The newest state of a search is evicted only if it has no
/// older one.
const STATES_PER_CALLER_MAX: usize = 4 * SEARCHES_PER_CALLER_MAX;
/// Maximum number of unused ids in a table, beyond as many as the newest state has rows. Beyond it,
/// the next state starts a new table.
const IDS_UNUSED_MAX: usize = 10_000;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A search that is followed.
#[derive(Clone)]
pub(super) struct FollowedSearch {
    /// Its newest state.
    pub state: Arc<ViewState>,
    /// The identity of the search whose snapshot the state was cut from.
    pub source: CacheKey,
    /// The view by which it was cut.
    pub cut: View,
    /// That snapshot, if it is still in memory.
    pub snapshot: Weak<Snapshot>,
}

/// The reader that a state is built for.
#[derive(Clone)]
pub(super) enum BuiltFor {
    /// A caller that waits for it.
    Caller(Arc<str>),
    /// Callers that will probably request it. Holds the state of the search before this one.
    Followers(Arc<ViewState>),
}

/// All states.
pub struct States {
    table: Mutex<Table>,
    /// Allows one state to be built at a time. Requests that waited then find it.
    pub(super) making: Arc<Semaphore>,
    kept: KeptStates,
    bytes_max: u64,
    evicted: AtomicU64,
    clock: Clock,
    birth: Instant,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<u128, Arc<ViewState>>,
    of_snapshots: HashMap<(SnapshotId, View), Arc<ViewState>>,
    latest: HashMap<(CacheKey, View), FollowedSearch>,
    ids: HashMap<CacheKey, Arc<Mutex<Ids>>>,
}

impl States {
    /// Creates an empty set of states of at most `bytes_max` bytes.
    pub fn new(bytes_max: u64, store: Store, clock: Clock) -> Self {
        Self {
            kept: KeptStates::new(store, clock.clone()),
            table: Mutex::default(),
            making: Arc::new(Semaphore::new(1)),
            bytes_max,
            evicted: AtomicU64::new(0),
            birth: clock.now(),
            clock,
        }
    }

    /// Returns whether a state of this many rows would be kept at all.
    pub fn takes(&self, rows: usize) -> bool {
        bytes_of(rows) <= self.bytes_max / 2
    }

    /// Returns whether a caller may begin to follow a search, or follows it already.
    pub fn admits(&self, key: CacheKey, view: View, caller: &Arc<str>) -> bool {
        let since = self.followed_since();
        let table = self.table.lock();
        let is_followed = |followed: &&FollowedSearch| {
            followed.state.caller() == caller && followed.is_used_since(since)
        };
        table.latest.contains_key(&(key, view))
            || table.latest.values().filter(is_followed).count() < SEARCHES_PER_CALLER_MAX
    }

    fn followed_since(&self) -> u64 {
        let now = self.ms_of(self.clock.now());
        now.saturating_sub(millis(FOLLOWED_WITHIN))
    }

    /// Returns the newest state of a search's view.
    pub(super) fn latest(&self, key: &CacheKey, view: &View) -> Option<FollowedSearch> {
        let table = self.table.lock();
        table.latest.get(&(key.clone(), view.clone())).cloned()
    }

    /// Returns the searches with a recent follower.
    pub(super) fn followed(&self) -> Vec<FollowedSearch> {
        let since = self.followed_since();
        let table = self.table.lock();
        let all = table.latest.values();
        all.filter(|one| one.is_used_since(since))
            .cloned()
            .collect()
    }

    /// Returns the state that a token names.
    pub fn find(&self, id: u128) -> Option<Arc<ViewState>> {
        let state = self.table.lock().by_id.get(&id).cloned()?;
        self.touch(&state);
        Some(state)
    }

    /// Returns the state that a token names, from the store if it is not in memory. `key` gives the
    /// identity of its search.
    pub async fn find_kept(
        &self,
        id: u128,
        audience: &Audience,
        key: impl FnOnce(&Arc<SearchQuery>) -> CacheKey,
        caller: &Arc<str>,
    ) -> Option<Arc<ViewState>> {
        if let Some(state) = self.find(id) {
            return Some(state);
        }
        let _turn = self.making.acquire().await.ok()?;
        if let Some(state) = self.find(id) {
            return Some(state);
        }
        let found = self.kept.find(id).await?;
        if found.audience != audience.fingerprint() || !self.takes(found.rows.len()) {
            return None;
        }
        let known = self.table.lock().table_of(found.table, found.ids);
        let ids = match known {
            Some(ids) => ids,
            None => {
                let ids = self.kept.find_ids(found.table, found.ids).await?;
                Arc::new(Mutex::new(ids))
            }
        };
        let query = Arc::new(found.query);
        let new = NewState {
            key: key(&query),
            query,
            view: View::new(None, audience.clone()),
            ids,
            rows: found.rows,
            hashes: found.hashes,
        };
        let mut state = ViewState::new(id, new, found.as_of, caller.clone(), 0);
        state.told = OnceCell::new_with(Some(()));
        let state = Arc::new(state);
        let mut table = self.table.lock();
        table.by_id.insert(id, state.clone());
        self.touch(&state);
        self.make_room(&mut table, &state);
        Some(state)
    }

    /// Returns the state that was built from a snapshot.
    pub fn of_snapshot(&self, snapshot: &Snapshot, view: &View) -> Option<Arc<ViewState>> {
        let key = (snapshot.id(), view.clone());
        let state = self.table.lock().of_snapshots.get(&key).cloned()?;
        if let Some(ages) = snapshot.ages() {
            state.renew(ages.whole, self.wall_at(ages.whole));
        }
        Some(state)
    }

    /// Starts to build the state of a snapshot's view.
    pub(super) fn begin(&self, key: CacheKey, query: Arc<SearchQuery>, view: View) -> NewState {
        let mut table = self.table.lock();
        let latest = table.latest.get(&(key.clone(), view.clone()));
        let used = latest.map_or(0, |latest| latest.state.row_count());
        let known = table.ids.get(&key).cloned();
        let fits = |ids: &Arc<Mutex<Ids>>| ids.lock().ids.len() <= 4 * used + IDS_UNUSED_MAX;
        // The views of one search share a table. The largest view shows which ids are unused.
        let known = known.filter(|ids| fits(ids) || !view.is_whole());
        let ids = known.unwrap_or_default();
        table.ids.insert(key.clone(), ids.clone());
        drop(table);
        NewState {
            key,
            query,
            view,
            ids,
            rows: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Remembers a state that was built from a whole snapshot, cut by `cut`. Equal rows give the
    /// same state. A newer state of a search replaces the previous one if no token names it.
    pub(super) fn remember(
        &self,
        made: NewState,
        snapshot: &Arc<Snapshot>,
        cut: &View,
        built_for: &BuiltFor,
    ) -> Option<Arc<ViewState>> {
        let at = snapshot.ages()?.whole;
        let (caller, last_used) = match built_for {
            BuiltFor::Caller(caller) => (caller, self.ms_of(self.clock.now())),
            // No caller requested it, so the search is not followed for longer.
            BuiltFor::Followers(of) => (of.caller(), of.last_used()),
        };
        let as_of = (at, self.wall_at(at));
        let state = ViewState::new(fastrand::u128(..), made, as_of, caller.clone(), last_used);
        let mut table = self.table.lock();
        let place = (state.key().clone(), state.view.clone());
        let before = table.latest.get(&place).map(|latest| latest.state.clone());
        let state = match &before {
            Some(before) if before.same_rows(&state) => {
                before.renew(at, self.wall_at(at));
                before.use_at(last_used);
                before.clone()
            }
            _ => Arc::new(state),
        };
        if let Some(before) = before.filter(|before| before.id != state.id)
            && !before.told.initialized()
        {
            table.remove(before.id);
        }
        table.by_id.insert(state.id, state.clone());
        let of_snapshot = (snapshot.id(), cut.clone());
        table.of_snapshots.insert(of_snapshot, state.clone());
        let followed = FollowedSearch {
            state: state.clone(),
            source: snapshot.key.clone(),
            cut: cut.clone(),
            snapshot: Arc::downgrade(snapshot),
        };
        table.latest.insert(place, followed);
        self.make_room(&mut table, &state);
        Some(state)
    }

    /// Keeps a state in the store. Waits until a crash cannot undo that, 50 ms at most. Call it
    /// before a caller gets a token for the state.
    pub(super) async fn keep(&self, state: &Arc<ViewState>) {
        self.touch(state);
        let keeping = async {
            self.kept.keep(state).await;
            let mut table = self.table.lock();
            // A newer state may have taken its place meanwhile.
            if table.by_id.insert(state.id, state.clone()).is_none() {
                self.make_room(&mut table, state);
            }
        };
        state.told.get_or_init(|| keeping).await;
    }

    /// Returns how full it is.
    pub fn usage(&self) -> StoreUsage {
        let table = self.table.lock();
        StoreUsage {
            entries: table.by_id.len() as u64,
            bytes: table.bytes(),
            bytes_max: self.bytes_max,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    fn wall_at(&self, at: Instant) -> Timestamp {
        let ago = self.clock.now().saturating_duration_since(at);
        let ago = jiff::SignedDuration::try_from(ago).unwrap_or(jiff::SignedDuration::ZERO);
        let wall = self.clock.wall();
        wall.checked_sub(ago).unwrap_or(wall)
    }

    fn touch(&self, state: &ViewState) {
        state.use_at(self.ms_of(self.clock.now()));
    }

    fn ms_of(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.birth))
    }

    /// Evicts the least recently used states until the limits hold, but never `newest`.
    fn make_room(&self, table: &mut Table, newest: &ViewState) {
        let oldest = |table: &Table, which: &dyn Fn(&ViewState) -> bool| {
            let all = table.by_id.values();
            let others = all.filter(|state| state.id != newest.id && which(state));
            let oldest = others.min_by_key(|state| state.last_used());
            oldest.map(|state| state.id)
        };
        let own = |state: &ViewState| state.caller() == newest.caller();
        while table.by_id.values().filter(|state| own(state)).count() > STATES_PER_CALLER_MAX {
            let is_newest = |state: &ViewState| {
                let mut latest = table.latest.values();
                latest.any(|latest| latest.state.id == state.id)
            };
            let id = oldest(table, &|state| own(state) && !is_newest(state));
            let Some(id) = id.or_else(|| oldest(table, &own)) else {
                break;
            };
            self.let_go(table, id);
        }
        while table.bytes() > self.bytes_max {
            let Some(id) = oldest(table, &|_| true) else {
                break;
            };
            self.let_go(table, id);
        }
    }

    fn let_go(&self, table: &mut Table, id: u128) {
        let Some(state) = table.remove(id) else {
            return;
        };
        self.evicted.fetch_add(1, Ordering::Relaxed);
        let key = state.key().clone();
        if !table.by_id.values().any(|other| *other.key() == key) {
            table.ids.remove(&key);
        }
        // States of other processes are left to those processes, or to the store's own limit.
        if state.told.initialized() && !state.ids().lock().is_loaded {
            let is_used = table.all_ids().any(|ids| Arc::ptr_eq(ids, state.ids()));
            self.kept.forget(&state, !is_used);
        }
    }
}

impl FollowedSearch {
    fn is_used_since(&self, since: u64) -> bool {
        self.state.last_used() >= since
    }
}

impl Table {
    fn remove(&mut self, id: u128) -> Option<Arc<ViewState>> {
        let state = self.by_id.remove(&id)?;
        self.of_snapshots.retain(|_, of| of.id != id);
        self.latest.retain(|_, latest| latest.state.id != id);
        Some(state)
    }

    fn bytes(&self) -> u64 {
        let states: u64 = self.by_id.values().map(|state| state.bytes()).sum();
        let mut tables: Vec<_> = self.all_ids().collect();
        tables.sort_unstable_by_key(|ids| Arc::as_ptr(ids));
        tables.dedup_by_key(|ids| Arc::as_ptr(ids));
        let ids: u64 = tables.iter().map(|ids| ids.lock().bytes()).sum();
        states + ids
    }

    /// Returns every table of ids in use, some of them several times.
    fn all_ids(&self) -> impl Iterator<Item = &Arc<Mutex<Ids>>> {
        let of_states = self.by_id.values().map(|state| state.ids());
        of_states.chain(self.ids.values())
    }

    /// Returns the table of this id in the store, if it is in memory with this many ids.
    fn table_of(&self, table: u128, ids: usize) -> Option<Arc<Mutex<Ids>>> {
        let is_it = |one: &&Arc<Mutex<Ids>>| {
            let one = one.lock();
            one.table == table && one.len() >= ids
        };
        self.all_ids().find(is_it).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Subject;
    use crate::domain::record::CaseHead;
    use crate::domain::{AccountId, CustomerId};
    use crate::metrics::Metrics;
    use crate::secrets::{SealingKey, Secret};
    use crate::store::{Model, SealedRecord};

    const NOBODY: &str = "nobody";

    fn states(model: &Arc<Model>, clock: &Clock) -> States {
        let key = SealingKey::derive("test", &Secret::parse("sealing").unwrap());
        let records = SealedRecord::new(&key, None).unwrap();
        let metrics = Metrics::new().unwrap();
        let store = Store::over(model.clone(), records, clock.clone(), &metrics);
        States::new(64 << 20, store, clock.clone())
    }

    fn key(query: &Arc<SearchQuery>) -> CacheKey {
        let account = AccountId::parse("wiv").unwrap();
        CacheKey::new(account, Subject::Search(query.clone()))
    }

    fn row(number: usize, text: &str) -> Vec<u8> {
        format!("{{\"customer_id\":\"org_1\",\"case_id\":\"case-{number}\",\"t\":\"{text}\"}}")
            .into()
    }

    /// A state of these rows, in the table of `ids`, kept as one that was built from a snapshot.
    async fn keep(
        states: &States,
        query: &Arc<SearchQuery>,
        ids: &Arc<Mutex<Ids>>,
        rows: impl Iterator<Item = Vec<u8>>,
    ) -> Arc<ViewState> {
        let mut made = states.begin(key(query), query.clone(), View::new(None, Audience::All));
        made.ids = ids.clone();
        for row in rows {
            let id = CaseHead::read(str::from_utf8(&row).unwrap()).id;
            assert!(made.add(&[(id, row.into())], None));
        }
        let now = states.clock.now();
        let as_of = (now, states.wall_at(now));
        let state = ViewState::new(fastrand::u128(..), made, as_of, NOBODY.into(), 0);
        states.kept.keep(&state).await;
        Arc::new(state)
    }

    async fn find(states: &States, id: u128) -> Option<Arc<ViewState>> {
        let nobody = NOBODY.into();
        let found = states.find_kept(id, &Audience::All, key, &nobody).await;
        crate::clock::sleep(crate::clock::Duration::from_millis(1)).await;
        found
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_state_comes_back_in_parts_and_its_table_grows_on() {
        let model = Arc::new(Model::new(256 << 20));
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let before = states(&model, &clock);
        let query = Arc::new(SearchQuery {
            customer: Some(CustomerId::parse("org_1").unwrap()),
            ..SearchQuery::default()
        });
        let ids = Arc::default();
        let old = keep(&before, &query, &ids, (0..140_000).map(|n| row(n, "a"))).await;
        // Later states share the table and add to it.
        let changed = (3..140_010).map(|n| row(n, if n % 10_000 == 5 { "b" } else { "a" }));
        let new = keep(&before, &query, &ids, changed).await;
        crate::clock::sleep(crate::clock::Duration::from_millis(1)).await;

        let after = states(&model, &clock);
        let (one, other) = (find(&after, old.id).await, find(&after, new.id).await);
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.rows(), old.rows());
        assert_eq!(other.rows(), new.rows());
        assert_eq!(one.query, query);
        let told = one.difference(&other);
        assert_eq!((told.upserts.len(), told.removes.len()), (14 + 10, 3));
        assert_eq!(
            told.removes[0],
            "\"customer_id\":\"org_1\",\"case_id\":\"case-0\""
        );
        // An id is stored once. A row costs 20 bytes in each state, in the store and in memory.
        let of_rows = 2 * bytes_of(140_007);
        assert!(after.usage().bytes >= of_rows);
        assert!(model.bytes() <= of_rows + 140_010 * 64, "{}", model.bytes());

        // A token of another audience finds nothing, and neither does one whose state was evicted.
        let few = Audience::only([]);
        let found = states(&model, &clock);
        assert!(
            found
                .find_kept(old.id, &few, key, &NOBODY.into())
                .await
                .is_none()
        );
        before.kept.forget(&old, false);
        crate::clock::sleep(crate::clock::Duration::from_millis(1)).await;
        let after = states(&model, &clock);
        assert!(find(&after, old.id).await.is_none());
        assert!(find(&after, new.id).await.is_some());
        before.kept.forget(&new, true);
        crate::clock::sleep(crate::clock::Duration::from_millis(1)).await;
        assert!(model.bytes() < 256 << 10, "{}", model.bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_process_that_began_a_table_adds_to_it() {
        let model = Arc::new(Model::new(64 << 20));
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let one = states(&model, &clock);
        let query = Arc::new(SearchQuery::default());
        let ids = Arc::default();
        let rows = (0..100).map(|n| row(n, "a"));
        let first = keep(&one, &query, &ids, rows).await;
        crate::clock::sleep(crate::clock::Duration::from_millis(1)).await;
        let other = states(&model, &clock);
        let found = find(&other, first.id).await.unwrap();
        assert!(found.ids().lock().is_loaded);
        // The next state of the same search in this process starts a new table.
        let next = other.begin(key(&query), query.clone(), View::new(None, Audience::All));
        assert!(!Arc::ptr_eq(&next.ids, found.ids()));
        assert_ne!(next.ids.lock().table, found.ids().lock().table);
        // The difference across both tables is exact.
        let rows = (50..110).map(|n| row(n, "a"));
        let theirs = keep(&other, &query, &next.ids, rows).await;
        let told = found.difference(&theirs);
        assert_eq!((told.upserts.len(), told.removes.len()), (10, 50));
    }
}
