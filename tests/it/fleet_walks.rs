//! Several gateways over one store and before one vendor: one of them walks a search, the others
//! follow, and one of them takes over when it is gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::metrics::Metrics;
use msp_gateway::reads::{Purge, ReadError};
use msp_gateway::store::{SharedModel, Store};

use crate::fleet::{Link, sealed};
use crate::kept::{latency, paged};
use crate::kit::{NOW, Page, Rig, Setup, continued, first};

/// Gateways before the same vendor: its counts are those of all of them.
pub struct Fleet {
    pub rigs: Vec<Rig>,
    cut: Vec<Arc<AtomicBool>>,
    /// While it is set, no gateway hears a ring.
    pub deaf: Arc<AtomicBool>,
    pub stores: Vec<Store>,
    /// What the stores count.
    pub metrics: Vec<Arc<Metrics>>,
    pub engine: Arc<SharedModel>,
}

impl Fleet {
    /// Vendor pages of 50 rows out of `cases`.
    pub fn of(count: usize, cases: usize) -> Self {
        let clock = Clock::anchored(NOW.parse().unwrap());
        let engine = Arc::new(SharedModel::new(64 << 20, clock.clone()));
        let cut: Vec<Arc<AtomicBool>> = (0..count).map(|_| Arc::default()).collect();
        let deaf = Arc::<AtomicBool>::default();
        let mut rigs: Vec<Rig> = Vec::new();
        let (mut stores, mut metrics) = (Vec::new(), Vec::new());
        for cut in &cut {
            let link = Link::to(&engine, cut, &Arc::default()).deaf_while(&deaf);
            let counts = Metrics::new().unwrap();
            let store = Store::over(link, sealed(), clock.clone(), &counts);
            metrics.push(counts);
            let attending = store.clone();
            tokio::spawn(async move { attending.attend().await });
            stores.push(store.clone());
            let mut setup = Setup {
                store,
                clock: Some(clock.clone()),
                ..Setup::default()
            };
            paged(cases)(&mut setup);
            rigs.push(match rigs.first() {
                None => Rig::new(setup),
                Some(rig) => rig.restarted(setup),
            });
        }
        Self {
            rigs,
            cut,
            deaf,
            stores,
            metrics,
            engine,
        }
    }

    pub fn cut(&self, number: usize, cut: bool) {
        self.cut[number].store(cut, Ordering::Relaxed);
    }

    pub async fn page(&self, number: usize, body: &str) -> Result<Page, ReadError> {
        let rig = &self.rigs[number];
        rig.page(&rig.everyone(), None, body).await
    }

    /// Searches and continuations at the vendor.
    pub fn calls(&self) -> (u64, u64) {
        (self.rigs[0].searches(), self.rigs[0].continues())
    }

    pub fn walks(&self, number: usize, outcome: &str) -> u64 {
        let text = self.rigs[number].metrics.render().unwrap();
        let line = format!("msp_gateway_walks_total{{outcome=\"{outcome}\"}} ");
        let count = text.lines().find_map(|text| text.strip_prefix(&line));
        count.unwrap().parse().unwrap()
    }

    /// Reads on from a token to the end, each page at the gateway that `at` names.
    pub async fn rest(&self, token: Option<String>, at: impl Fn(usize) -> usize) -> Vec<String> {
        let (mut rows, mut token, mut number) = (Vec::new(), token, 0);
        while let Some(next) = token {
            let page = self.page(at(number), &continued(&next, None)).await;
            let page = page.unwrap();
            rows.extend(page.rows);
            (token, number) = (page.token, number + 1);
        }
        rows
    }

    /// Reads on from a token at one gateway, to the end or until a page is refused.
    pub async fn rest_or_refused(
        &self,
        token: Option<String>,
        at: usize,
    ) -> (Vec<String>, Option<ReadError>) {
        let (mut rows, mut token) = (Vec::new(), token);
        while let Some(next) = token {
            match self.page(at, &continued(&next, None)).await {
                Ok(page) => {
                    rows.extend(page.rows);
                    token = page.token;
                }
                Err(error) => return (rows, Some(error)),
            }
        }
        (rows, None)
    }

    /// Reads on as [`Self::rest_or_refused`] does. Only an expired token may end it early. Returns
    /// whether one did.
    pub async fn rest_or_expired(&self, token: Option<String>, at: usize) -> (Vec<String>, bool) {
        let (rows, refused) = self.rest_or_refused(token, at).await;
        let is_expired = matches!(refused, Some(ReadError::PageTokenExpired));
        assert!(is_expired || refused.is_none(), "{refused:?}");
        (rows, is_expired)
    }

    /// The whole list at the vendor.
    pub fn list(&self) -> Vec<String> {
        self.rigs[0].sandbox.expected_rows(None, None)
    }
}

#[tokio::test(start_paused = true)]
async fn one_cold_search_at_several_gateways_is_one_walk() {
    let fleet = Fleet::of(3, 290);
    fleet.rigs[0].sandbox.fault(latency(100));
    let body = first(40, "");
    let (one, two, three) = tokio::join!(
        fleet.page(0, &body),
        fleet.page(1, &body),
        fleet.page(2, &body)
    );
    let heads = [one.unwrap(), two.unwrap(), three.unwrap()];
    assert_eq!(heads[0].answer.body, heads[1].answer.body);
    assert_eq!(heads[0].answer.body, heads[2].answer.body);
    // All read to the end at the same time, and each page of each comes from another gateway.
    let token = || heads[0].token.clone();
    let began = Instant::now();
    let (a, b, c) = tokio::join!(
        fleet.rest(token(), |n| n % 3),
        fleet.rest(token(), |n| (n + 1) % 3),
        fleet.rest(token(), |n| (n + 2) % 3)
    );
    let list = fleet.list();
    assert_eq!(list.len(), 290);
    for rest in [a, b, c] {
        let rows: Vec<String> = heads[0].rows.iter().cloned().chain(rest).collect();
        assert_eq!(rows, list);
    }
    assert_eq!(fleet.calls(), (1, 5), "the vendor's pages, each once");
    // Six vendor pages of 100 ms; each may be heard of and be looked for 250 ms later.
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    // Readers elsewhere have the last rows before the walk's own gateway counts it.
    sleep(Duration::from_millis(1)).await;
    let complete: u64 = (0..3).map(|n| fleet.walks(n, "complete")).sum();
    assert_eq!(complete, 1);
    for number in 0..3 {
        for outcome in ["lost", "broken", "deposed", "taken_over", "rewalked"] {
            assert_eq!(fleet.walks(number, outcome), 0, "{number} {outcome}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_that_gives_nothing_or_one_page_is_asked_once() {
    for cases in [0, 1, 30] {
        let fleet = Fleet::of(2, cases);
        fleet.rigs[0].sandbox.fault(latency(100));
        let body = first(40, "");
        let (one, two) = tokio::join!(fleet.page(0, &body), fleet.page(1, &body));
        assert_eq!(one.unwrap().answer.body, two.unwrap().answer.body);
        assert_eq!(fleet.calls(), (1, 0), "{cases}");
        // Nor later, at a gateway that held nothing of it.
        let later = fleet.page(1, &body).await.unwrap();
        assert_eq!(later.rows.len(), cases.min(40));
        assert_eq!(fleet.calls(), (1, 0), "{cases}");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_elsewhere_keep_a_walk_going_that_its_own_readers_left() {
    let fleet = Fleet::of(2, 290);
    let head = fleet.page(0, &first(40, "")).await.unwrap();
    // Longer than the walk would be idle, page by page.
    let (mut rows, mut token) = (head.rows, head.token);
    while let Some(next) = token {
        sleep(Duration::from_secs(30)).await;
        let page = fleet.page(1, &continued(&next, None)).await.unwrap();
        rows.extend(page.rows);
        token = page.token;
    }
    assert_eq!(rows, fleet.list());
    assert_eq!(fleet.calls(), (1, 5));
    assert_eq!(fleet.walks(1, "taken_over"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_walk_whose_gateway_is_gone_is_taken_over_within_eight_seconds() {
    let fleet = Fleet::of(3, 290);
    let head = fleet.page(0, &first(40, "")).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let kept = fleet.calls();
    // As if stopped: it renews nothing, and asks the vendor for nothing.
    fleet.cut(0, true);
    let began = Instant::now();
    let token = || head.token.clone();
    let (one, two) = tokio::join!(
        fleet.rest(token(), |_| 1),
        fleet.rest(token(), |n| 1 + n % 2)
    );
    assert!(
        began.elapsed() <= Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(one, fleet.list()[40..]);
    assert_eq!(two, one);
    // One search, and the whole list: the pages that were kept once more.
    assert_eq!(fleet.calls(), (kept.0 + 1, kept.1 + 5));
    let taken: u64 = (0..3).map(|n| fleet.walks(n, "taken_over")).sum();
    assert_eq!(taken, 1);

    // It comes back with its scroll, and continues it no more.
    let calls = fleet.calls();
    fleet.cut(0, false);
    sleep(Duration::from_secs(1)).await;
    let rest = fleet.rest(head.token, |_| 0).await;
    assert_eq!(rest, one);
    assert_eq!(fleet.calls(), calls, "nothing more of the vendor");
    assert_eq!(fleet.walks(0, "deposed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changed_before_a_takeover_is_broken_and_never_mixed() {
    let fleet = Fleet::of(2, 290);
    let head = fleet.page(0, &first(40, "")).await.unwrap();
    let second = continued(head.token.as_ref().unwrap(), None);
    fleet.page(0, &second).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    fleet.cut(0, true);
    fleet.rigs[0].sandbox.alter(1, 5, 5);
    let mut token = head.token;
    let mut rows = 40;
    let refused = loop {
        let next = token.take().expect("the list does not end");
        match fleet.page(1, &continued(&next, None)).await {
            Ok(page) => {
                rows += page.rows.len();
                token = page.token;
            }
            Err(refused) => break refused,
        }
    };
    let gone = matches!(refused, ReadError::PageTokenExpired);
    assert!(gone, "{refused:?}");
    assert_eq!(rows, 80, "what was kept is served");
    assert_eq!(fleet.walks(1, "broken"), 1);
    // First pages at both are of the new list.
    fleet.cut(0, false);
    sleep(Duration::from_secs(1)).await;
    let new = fleet.page(1, &first(40, "")).await.unwrap();
    assert_eq!(new.rows, fleet.list()[..40]);
    let rest = fleet.rest(new.token, |n| n % 2).await;
    assert_eq!(rest, fleet.list()[40..]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_search_is_refreshed_by_one_gateway_for_all() {
    let fleet = Fleet::of(3, 40);
    for number in 0..3 {
        fleet.page(number, &first(40, "")).await.unwrap();
    }
    assert_eq!(fleet.calls(), (1, 0));
    sleep(Duration::from_secs(70)).await;
    for _ in 0..2 {
        for number in 0..3 {
            fleet.page(number, &first(40, "")).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(fleet.calls(), (2, 0), "one refresh");
    let ages: HashSet<u64> = {
        let mut ages = HashSet::new();
        for number in 0..3 {
            let page = fleet.page(number, &first(40, "")).await.unwrap();
            ages.insert(page.answer.age.as_secs());
        }
        ages
    };
    assert_eq!(ages, [0].into(), "all have its age");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_away_in_mid_walk_stops_no_reader_and_gets_the_rows_later() {
    let fleet = Fleet::of(2, 290);
    let head = fleet.page(0, &first(40, "")).await.unwrap();
    for cut in [0, 1] {
        fleet.cut(cut, true);
    }
    // Alone, on its own scroll.
    let mut page = head;
    for _ in 0..3 {
        let next = page.token.unwrap();
        page = fleet.page(0, &continued(&next, None)).await.unwrap();
    }
    let calls = fleet.calls();
    assert_eq!(calls.0, 1);
    fleet.rigs[0].reads.sweep();
    assert_eq!(fleet.stores[0].detached(), 1);
    for cut in [0, 1] {
        fleet.cut(cut, false);
    }
    sleep(Duration::from_secs(2)).await;
    // The next vendor page brings those before it to the store.
    let rest = fleet.rest(page.token.clone(), |_| 0).await;
    assert_eq!(rest, fleet.list()[160..]);
    fleet.rigs[0].reads.sweep();
    assert_eq!(fleet.stores[0].detached(), 0);
    let elsewhere = fleet.rest(page.token, |_| 1).await;
    assert_eq!(elsewhere, rest);
    assert_eq!(fleet.calls(), (1, 5), "read by one gateway, once");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_went_on_alone_goes_on_with_the_rows_of_the_one_that_took_over() {
    // The list as it is, and changed where one went on alone and the other had not read.
    for changes in [false, true] {
        let fleet = Fleet::of(2, 290);
        let head = fleet.page(0, &first(40, "")).await.unwrap();
        let token = head.token.clone();
        fleet.cut(0, true);
        let mut alone = head;
        for _ in 0..2 {
            let next = alone.token.unwrap();
            alone = fleet.page(0, &continued(&next, None)).await.unwrap();
        }
        if changes {
            fleet.rigs[0].sandbox.alter(0, 8, 8);
        }
        // The other one takes over, reads all of it, or finds that it has changed.
        let list = fleet.list();
        fleet.rest_or_refused(token, 1).await;
        let calls = fleet.calls();
        fleet.cut(0, false);
        sleep(Duration::from_secs(2)).await;
        // Each row once, in the vendor's order at one moment; or the list has changed.
        let (rows, refused) = fleet.rest_or_expired(alone.token, 0).await;
        if !changes {
            assert!(!refused);
            assert_eq!(rows, list[120..]);
            assert!(fleet.calls().0 == calls.0, "no search more");
        } else if !refused {
            assert_eq!(rows.len(), 170, "its own scroll's list");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_want_newer_rows_wait_for_a_walk_elsewhere_and_get_them() {
    let fleet = Fleet::of(2, 290);
    fleet.page(0, &first(40, "")).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let rig = &fleet.rigs[1];
    let mut asker = rig.everyone();
    asker.directives.no_cache = true;
    let page = rig.page(&asker, None, &first(40, "")).await.unwrap();
    assert_eq!(page.rows, fleet.list()[..40]);
    assert_eq!(page.answer.age.as_secs(), 0);
    assert_eq!(fleet.calls().0, 2, "a search of its own");
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_a_purge_ended_gives_way_to_searches_of_other_gateways() {
    let fleet = Fleet::of(2, 290);
    fleet.rigs[0].sandbox.fault(latency(100));
    fleet.page(0, &first(40, "")).await.unwrap();
    fleet.rigs[1].reads.purge(&Purge::All, false);
    assert!(fleet.rigs[1].reads.keep_purges().await);
    sleep(Duration::from_secs(1)).await;
    for number in [1, 0] {
        let began = Instant::now();
        let page = fleet.page(number, &first(60, "")).await.unwrap();
        assert_eq!(page.rows[..], fleet.list()[..60]);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "gateway {number}: {took:?}");
    }
    assert_eq!(fleet.calls().0, 2, "one search after the purge");
}

#[tokio::test(start_paused = true)]
async fn a_search_that_a_soft_purge_met_gives_way_to_searches_of_other_gateways() {
    let fleet = Fleet::of(2, 290);
    fleet.rigs[0].sandbox.fault(latency(1_000));
    let began = Instant::now();
    let purge = async {
        sleep(Duration::from_millis(500)).await;
        fleet.rigs[1].reads.purge(&Purge::All, true);
    };
    let (one, two) = (first(40, ""), first(60, ""));
    let (one, two, ()) = tokio::join!(fleet.page(0, &one), fleet.page(1, &two), purge);
    assert_eq!(one.unwrap().rows[..], fleet.list()[..40]);
    assert_eq!(two.unwrap().rows[..], fleet.list()[..60]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
