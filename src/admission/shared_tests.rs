//! Tests of a budget that several gateways pay from: rate, places, hold-downs and probes of all of
//! them together, and what they do while the store is away.

use std::future::ready;
use std::sync::atomic::AtomicBool;

use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::*;
use crate::admission::{Governor, HOLD_DOWN_MAX, Lane, PaceSettings, Payer, Spend, VendorPermit};
use crate::clock::{Clock, Duration, Instant, sleep};
use crate::metrics::Metrics;
use crate::secrets::{SealingKey, Secret};
use crate::store::bell::RingHook;
use crate::store::engine::StoreFuture;
use crate::store::fleet::{Fleet, FleetFuture, FleetOp};
use crate::store::{Engine, EngineState, SealedRecord, SharedModel, StoreOp};

const SECOND: Duration = Duration::from_secs(1);

/// One gateway's way to the model, which can be cut and be slow.
struct Link {
    model: Arc<SharedModel>,
    state: Arc<LinkState>,
}

#[derive(Default)]
struct LinkState {
    cut: AtomicBool,
    late_ms: AtomicU64,
    mended: AtomicU64,
    needs_store: bool,
}

impl Engine for Link {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        match self.state() {
            EngineState::Ok => self.model.call(op),
            _ => Box::pin(ready(Err(StoreFault::Away))),
        }
    }

    fn state(&self) -> EngineState {
        match self.state.cut.load(Ordering::Relaxed) {
            true => EngineState::Away,
            false => EngineState::Ok,
        }
    }

    fn resets(&self) -> u64 {
        self.state.mended.load(Ordering::Relaxed)
    }

    fn close(&self, _limit: Duration) {}

    fn fleet(&self) -> Option<&dyn Fleet> {
        Some(self)
    }

    fn replicas_min(&self) -> u32 {
        2
    }

    fn when_away(&self) -> WhenAway {
        match self.state.needs_store {
            true => WhenAway::StaleOnly,
            false => WhenAway::Open,
        }
    }
}

impl Fleet for Link {
    /// Budgets have no bell.
    fn on_ring(&self, _hook: RingHook) {}

    fn ask(&self, op: FleetOp) -> FleetFuture<'_> {
        if self.state() == EngineState::Away {
            return Box::pin(ready(Err(StoreFault::Away)));
        }
        let (reply, late) = (
            self.model.ask(op),
            self.state.late_ms.load(Ordering::Relaxed),
        );
        Box::pin(async move {
            if late > 0 {
                sleep(Duration::from_millis(late)).await;
            }
            reply.await
        })
    }
}

/// Gateways that share one budget, and the times of their calls.
struct Payers {
    governors: Vec<Arc<Governor>>,
    stores: Vec<Store>,
    links: Vec<Arc<LinkState>>,
    sent: Arc<Mutex<Vec<Instant>>>,
    busy: Arc<Mutex<(usize, usize)>>,
}

impl Payers {
    async fn of(count: usize, requests_per_minute: u32, concurrency: usize) -> Self {
        Self::with(false, count, requests_per_minute, concurrency).await
    }

    /// The same; `needs_store` forbids calls that the store does not grant.
    async fn with(
        needs_store: bool,
        count: usize,
        requests_per_minute: u32,
        concurrency: usize,
    ) -> Self {
        // Paused time moves the engine too.
        let clock = Clock::anchored("2026-11-20T12:00:00Z".parse().unwrap());
        let model = Arc::new(SharedModel::new(1 << 20, clock.clone()));
        let key = SealingKey::derive("test", &Secret::parse("secret").unwrap());
        let (mut governors, mut stores, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let state = Arc::new(LinkState {
                needs_store,
                ..LinkState::default()
            });
            let link = Link {
                model: model.clone(),
                state: state.clone(),
            };
            let metrics = Metrics::new().unwrap();
            let records = SealedRecord::new(&key, None).unwrap();
            let store = Store::over(link, records, clock.clone(), &metrics);
            let settings = PaceSettings {
                requests_per_minute,
                concurrency,
                learn_down_to: None,
                concurrency_adaptive: false,
                hold_down_max: HOLD_DOWN_MAX,
            };
            let governor = Governor::new(Vendor::Wiv, settings, clock.clone(), &metrics);
            governor.share(&store, &AccountId::parse("wiv").unwrap());
            governor.open_purse().await;
            let attending = store.clone();
            tokio::spawn(async move { attending.attend().await });
            governors.push(governor);
            stores.push(store);
            links.push(state);
        }
        // Each has heard of all others.
        sleep(SECOND).await;
        Self {
            governors,
            stores,
            links,
            sent: Arc::default(),
            busy: Arc::default(),
        }
    }

    async fn admit(&self, number: usize, lane: Lane, wait: Duration) -> Option<VendorPermit> {
        let permit = self.governors[number].admit(&spend(lane, wait)).await.ok();
        if permit.is_some() {
            self.sent.lock().push(Clock::system().now());
        }
        permit
    }

    /// Keeps `calls` calls waiting or on their way at each gateway, each taking `takes`, for
    /// `span`.
    async fn saturate(&self, calls: usize, takes: Duration, span: Duration) {
        let until = Clock::system().now() + span;
        let mut tasks = tokio::task::JoinSet::new();
        for governor in &self.governors {
            for _ in 0..calls {
                let (governor, sent, busy) =
                    (governor.clone(), self.sent.clone(), self.busy.clone());
                tasks.spawn(async move {
                    while Clock::system().now() < until {
                        let left = until.saturating_duration_since(Clock::system().now());
                        let spend = spend(Lane::Interactive, left.max(SECOND));
                        let Ok(permit) = governor.admit(&spend).await else {
                            sleep(Duration::from_millis(100)).await;
                            continue;
                        };
                        sent.lock().push(Clock::system().now());
                        {
                            let mut busy = busy.lock();
                            busy.0 += 1;
                            busy.1 = busy.1.max(busy.0);
                        }
                        sleep(takes).await;
                        busy.lock().0 -= 1;
                        drop(permit);
                    }
                });
            }
        }
        tasks.join_all().await;
    }

    /// The most calls in any stretch of this length.
    fn most_within(&self, span: Duration) -> usize {
        let mut sent = self.sent.lock().clone();
        sent.sort();
        let within = |(n, begin): (usize, &Instant)| {
            sent[n..]
                .iter()
                .take_while(|at| **at < *begin + span)
                .count()
        };
        sent.iter().enumerate().map(within).max().unwrap_or(0)
    }

    fn cut(&self, number: usize, cut: bool) {
        let link = &self.links[number];
        link.cut.store(cut, Ordering::Relaxed);
        if !cut {
            link.mended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn spend(lane: Lane, wait: Duration) -> Spend {
    let until = Clock::system().now() + wait;
    Spend {
        lane,
        deadline: until,
        wanted_until: until,
        payer: Payer::caller("a".into(), None),
        within: None,
    }
}

#[tokio::test(start_paused = true)]
async fn three_gateways_together_send_at_the_rate_of_one() {
    let payers = Payers::of(3, 120, 8).await;
    let begun = Clock::system().now();
    payers
        .saturate(5, Duration::from_millis(50), SECOND * 120)
        .await;
    let sent = payers.sent.lock().len();
    // The bucket began empty and grew for a second or less.
    assert!(
        (238..=246).contains(&sent),
        "{sent} in {:?}",
        begun.elapsed()
    );
    assert!(payers.most_within(SECOND * 60) <= 140);
    // All of them had their share.
    assert!(payers.busy.lock().1 <= 8);
}

#[tokio::test(start_paused = true)]
async fn places_are_counted_over_all_gateways() {
    let payers = Payers::of(3, 60_000, 4).await;
    payers
        .saturate(6, Duration::from_millis(400), SECOND * 20)
        .await;
    let (now, most) = *payers.busy.lock();
    assert_eq!((now, most), (0, 4));
    // The places are in use nearly all the time.
    let sent = payers.sent.lock().len();
    assert!(sent > 150, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn the_places_of_a_gateway_that_dies_are_free_before_the_lease_of_a_walk_ends() {
    let payers = Payers::of(2, 60_000, 2).await;
    let wait = SECOND * 60;
    let one = payers.admit(0, Lane::Interactive, wait).await.unwrap();
    let two = payers.admit(0, Lane::Interactive, wait).await.unwrap();
    payers.cut(0, true);
    let died = Clock::system().now();
    // Their ends are not recorded.
    drop((one, two));
    drop(payers.admit(1, Lane::Interactive, wait).await.unwrap());
    let took = died.elapsed();
    assert!(took < PLACE_LEASE + SECOND / 10, "{took:?}");
    // The default of `store.valkey.lease`.
    assert!(PLACE_LEASE < SECOND * 6);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_keeps_its_place() {
    let payers = Payers::of(2, 60_000, 1).await;
    let begun = Clock::system().now();
    let long = payers.admit(0, Lane::Interactive, SECOND).await.unwrap();
    tokio::join!(
        async {
            sleep(PLACE_LEASE * 6).await;
            drop(long);
        },
        async {
            drop(
                payers
                    .admit(1, Lane::Interactive, SECOND * 60)
                    .await
                    .unwrap(),
            );
            let took = begun.elapsed();
            assert!(took >= PLACE_LEASE * 6, "{took:?}");
        }
    );
}

#[tokio::test(start_paused = true)]
async fn background_work_leaves_callers_of_all_gateways_a_reserve() {
    let payers = Payers::of(2, 120, 100).await;
    sleep(SECOND * 30).await;
    let mut sent = [0, 0, 0];
    for (kind, lane) in [Lane::Export, Lane::Refresh, Lane::Interactive]
        .into_iter()
        .enumerate()
    {
        for number in [0, 1].repeat(20) {
            let short = Duration::from_millis(1);
            let permit = payers.admit(number, lane, short).await;
            sent[kind] += usize::from(permit.is_some());
        }
    }
    // As with one gateway: 15, 3 and 2 of 20. Asking takes time, in which the bucket grows.
    assert!((15..=16).contains(&sent[0]), "{sent:?}");
    assert!((3..=4).contains(&sent[1]), "{sent:?}");
    assert!((2..=3).contains(&sent[2]), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_costs_nothing_anywhere() {
    let payers = Payers::of(2, 60, 4).await;
    sleep(SECOND * 30).await;
    for _ in 0..50 {
        let permit = payers.admit(0, Lane::Interactive, SECOND).await;
        permit.unwrap().unsent();
    }
    // And a call that is given up while it waits for its turn, or for the store.
    for link in &payers.links {
        link.late_ms.store(20, Ordering::Relaxed);
    }
    for ms in [1, 10, 19, 21] {
        let asked = payers.governors[0].clone();
        let task = tokio::spawn(async move {
            let spend = spend(Lane::Interactive, SECOND);
            asked.admit(&spend).await.map(VendorPermit::unsent).ok()
        });
        sleep(Duration::from_millis(ms)).await;
        task.abort();
        let _ = task.await;
        sleep(Duration::from_millis(50)).await;
    }
    for link in &payers.links {
        link.late_ms.store(0, Ordering::Relaxed);
    }
    let mut sent = Vec::new();
    for _ in 0..10 {
        sent.push(payers.admit(1, Lane::Interactive, SECOND).await.is_some());
        if sent.len() % 4 == 0 {
            // Places are free again at once.
            sent.push(true);
        }
    }
    assert!(sent.iter().all(|sent| *sent), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_429_at_one_gateway_stops_all_until_its_end_and_then_they_go_one_by_one() {
    let payers = Payers::of(3, 600, 8).await;
    sleep(SECOND * 30).await;
    let first = payers.admit(0, Lane::Interactive, SECOND).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("9"));
    payers.governors[0].hear(StatusCode::TOO_MANY_REQUESTS, &headers);
    drop(first);
    payers.sent.lock().clear();
    let stopped = Clock::system().now();
    let end = stopped + SECOND * 9;
    for number in [0, 1, 2].repeat(20) {
        let refused = payers.governors[number]
            .admit(&spend(Lane::Interactive, SECOND * 30))
            .await;
        let refusal = refused.err().expect("refused");
        let left = end.saturating_duration_since(Clock::system().now());
        let told = refusal.retry_after;
        assert!(
            told <= left + SECOND / 100 && told + SECOND / 100 >= left,
            "{told:?} {left:?}"
        );
        sleep(SECOND / 10).await;
    }
    sleep(end.saturating_duration_since(Clock::system().now())).await;
    // One at a time, whichever of them asks, until the vendor answers.
    let one = payers
        .admit(1, Lane::Interactive, SECOND * 5)
        .await
        .unwrap();
    assert!(payers.admit(2, Lane::Interactive, SECOND).await.is_none());
    assert!(payers.admit(0, Lane::Interactive, SECOND).await.is_none());
    payers.governors[1].hear(StatusCode::OK, &HeaderMap::new());
    drop(one);
    let mut held = Vec::new();
    for number in [0, 2, 1, 0] {
        held.push(
            payers
                .admit(number, Lane::Interactive, SECOND)
                .await
                .unwrap(),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn all_gateways_send_one_probe_a_minute_and_hear_what_it_brought() {
    let payers = Payers::of(3, 600, 8).await;
    let first = payers.admit(0, Lane::Interactive, SECOND).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("590"));
    payers.governors[0].hear(StatusCode::TOO_MANY_REQUESTS, &headers);
    drop(first);
    payers.sent.lock().clear();
    // Everyone asks all the time; the vendor still says 429.
    for _ in 0..200 {
        for number in 0..3 {
            if let Some(probe) = payers.admit(number, Lane::Interactive, SECOND).await {
                payers.governors[number].hear(StatusCode::TOO_MANY_REQUESTS, &headers);
                drop(probe);
            }
        }
        sleep(SECOND).await;
    }
    let probes = payers.sent.lock().len();
    assert!((2..=4).contains(&probes), "{probes} in 200 s");
    // Then one is answered: all may go.
    let probe = loop {
        if let Some(probe) = payers.admit(2, Lane::Interactive, SECOND).await {
            break probe;
        }
        sleep(SECOND).await;
    };
    payers.governors[2].hear(StatusCode::OK, &HeaderMap::new());
    probe.answered();
    drop(probe);
    sleep(SECOND * 2).await;
    for number in 0..3 {
        let permit = payers.admit(number, Lane::Interactive, SECOND * 2).await;
        assert!(permit.is_some(), "{number}");
        payers.governors[number].hear(StatusCode::OK, &HeaderMap::new());
    }
}

/// Sends calls from every gateway for this long, as many as are admitted.
fn busy(payers: &Arc<Payers>, time: Duration) -> tokio::task::JoinHandle<()> {
    let payers = payers.clone();
    tokio::spawn(async move { payers.saturate(4, Duration::from_millis(100), time).await })
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_each_takes_its_part_and_no_minute_sees_more_than_rate_and_burst() {
    let payers = Arc::new(Payers::of(3, 120, 9).await);
    sleep(SECOND * 30).await;
    let busy = busy(&payers, SECOND * 240);
    // All are cut off, then one alone, and they come back in between.
    for (cut, seconds) in [
        (&[0, 1, 2][..], 40),
        (&[][..], 20),
        (&[1][..], 50),
        (&[][..], 30),
        (&[0, 1, 2][..], 15),
        (&[][..], 10),
        (&[0, 1, 2][..], 15),
        (&[][..], 20),
    ] {
        for number in 0..3 {
            let is_cut = payers.links[number].cut.load(Ordering::Relaxed);
            if is_cut != cut.contains(&number) {
                payers.cut(number, !is_cut);
            }
        }
        sleep(SECOND * seconds).await;
    }
    busy.await.unwrap();
    let most = payers.most_within(SECOND * 60);
    // One that is cut off alone takes its part beside the others: a third too much.
    assert!(most <= 140 + 40, "{most}");
    let sent = payers.sent.lock().len();
    assert!(sent > 400, "work went on: {sent}");
    assert_eq!(payers.stores[0].fleet_view().replicas, 3);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_cut_off_together_the_budget_is_kept_exactly() {
    let payers = Arc::new(Payers::of(3, 120, 9).await);
    sleep(SECOND * 30).await;
    let busy = busy(&payers, SECOND * 200);
    for round in 0..10 {
        sleep(SECOND * (5 + round)).await;
        (0..3).for_each(|number| payers.cut(number, true));
        sleep(SECOND * (14 - round)).await;
        (0..3).for_each(|number| payers.cut(number, false));
    }
    busy.await.unwrap();
    let most = payers.most_within(SECOND * 60);
    assert!(most <= 140, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_borne_a_few_times_and_then_left() {
    let payers = Payers::of(2, 600, 8).await;
    for link in &payers.links {
        link.late_ms.store(5_000, Ordering::Relaxed);
    }
    let begun = Clock::system().now();
    let permit = payers.admit(0, Lane::Interactive, SECOND * 10).await;
    assert!(permit.is_some());
    let took = begun.elapsed();
    assert!(took < SECOND, "{took:?}");
    assert!(!payers.governors[0].is_shared());
    // Back as soon as it answers in time again.
    for link in &payers.links {
        link.late_ms.store(0, Ordering::Relaxed);
    }
    sleep(SECOND * 12).await;
    drop(
        payers
            .admit(0, Lane::Interactive, SECOND * 10)
            .await
            .unwrap(),
    );
    assert!(payers.governors[0].is_shared());
}

#[tokio::test(start_paused = true)]
async fn no_call_goes_without_a_grant_where_the_store_must_give_one() {
    // One call at once, then one every ten seconds.
    let payers = Payers::with(true, 1, 6, 4).await;
    let governor = payers.governors[0].clone();
    let wait = 60 * SECOND;
    let refused = |result: Result<VendorPermit, PaceRefusal>| {
        let refusal = result.err().unwrap();
        assert_eq!(refusal, BARRED);
    };
    while governor
        .admit(&spend(Lane::Interactive, Duration::ZERO))
        .await
        .is_ok()
    {}
    // Calls that wait for budget are refused when the store goes away, and none of them goes.
    let waiting = (0..3).map(|_| async {
        let permit = governor.admit(&spend(Lane::Interactive, wait)).await;
        (permit, Clock::system().now())
    });
    let began = Clock::system().now();
    let cut = async {
        sleep(SECOND).await;
        payers.cut(0, true);
    };
    let (ended, ()) = tokio::join!(futures_util::future::join_all(waiting), cut);
    for (result, at) in ended {
        refused(result);
        assert!(
            at - began <= 11 * SECOND,
            "when its turn comes, at the latest"
        );
    }
    refused(governor.admit(&spend(Lane::Interactive, wait)).await);
    assert!(governor.barred().is_some() && governor.may_still_send().is_err());

    // It answers, but late. Without a reply there is no call, even before it counts as away.
    payers.cut(0, false);
    sleep(60 * SECOND).await;
    assert!(governor.barred().is_none());
    payers.links[0].late_ms.store(200, Ordering::Relaxed);
    for _ in 0..10 {
        refused(governor.admit(&spend(Lane::Interactive, wait)).await);
        sleep(SECOND).await;
    }
    payers.links[0].late_ms.store(0, Ordering::Relaxed);
    sleep(15 * SECOND).await;
    assert!(
        governor
            .admit(&spend(Lane::Interactive, wait))
            .await
            .is_ok()
    );
    assert!(governor.is_shared(), "it never went alone");
}
