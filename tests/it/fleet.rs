//! Several gateways over one store: what one of them fetched answers at all of them, and what
//! one of them purges ends at all of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use msp_gateway::cache::Detail;
use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::domain::{CustomerId, FieldSet, Kind};
use msp_gateway::metrics::Metrics;
use msp_gateway::reads::{Answer, Purge};
use msp_gateway::sandbox;
use msp_gateway::secrets::{SealingKey, Secret};
use msp_gateway::store::bell::RingHook;
use msp_gateway::store::fleet::{Fleet, FleetFuture, FleetOp};
use msp_gateway::store::{
    Engine, EngineState, PurgeReach, SealedRecord, SharedModel, Store, StoreFault, StoreOp,
    WhenAway,
};

use crate::kit::{NOW, Page, Rig, Setup, continued, first};

/// One replica's way to the shared engine, which can be cut.
pub struct Link {
    engine: Arc<SharedModel>,
    cut: Arc<AtomicBool>,
    /// Replies are delayed by this many milliseconds.
    late_ms: Arc<AtomicU64>,
    /// While it is set, no ring arrives.
    deaf: Arc<AtomicBool>,
    mended: AtomicU64,
    when_away: WhenAway,
}

impl Link {
    pub fn to(engine: &Arc<SharedModel>, cut: &Arc<AtomicBool>, late_ms: &Arc<AtomicU64>) -> Self {
        Self {
            engine: engine.clone(),
            cut: cut.clone(),
            late_ms: late_ms.clone(),
            deaf: Arc::default(),
            mended: Default::default(),
            when_away: WhenAway::Open,
        }
    }

    /// The same; no ring arrives while `deaf` is set.
    pub fn deaf_while(self, deaf: &Arc<AtomicBool>) -> Self {
        let deaf = deaf.clone();
        Self { deaf, ..self }
    }

    /// The same; while it is cut, the gateway does this.
    pub fn when_away(self, when_away: WhenAway) -> Self {
        Self { when_away, ..self }
    }
}

impl Engine for Link {
    fn call(&self, op: StoreOp) -> msp_gateway::store::engine::StoreFuture<'_> {
        match self.state() {
            EngineState::Ok => self.engine.call(op),
            _ => Box::pin(std::future::ready(Err(StoreFault::Away))),
        }
    }

    fn state(&self) -> EngineState {
        match self.cut.load(Ordering::Relaxed) {
            true => {
                // A new connection follows.
                self.mended.fetch_add(1, Ordering::Relaxed);
                EngineState::Away
            }
            false => EngineState::Ok,
        }
    }

    fn resets(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }

    fn close(&self, _limit: Duration) {}

    fn when_away(&self) -> WhenAway {
        self.when_away
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        Some(self)
    }
}

impl Fleet for Link {
    fn on_ring(&self, hook: RingHook) {
        let (cut, deaf) = (self.cut.clone(), self.deaf.clone());
        self.engine.on_ring(Box::new(move |ring| {
            if !cut.load(Ordering::Relaxed) && !deaf.load(Ordering::Relaxed) {
                hook(ring);
            }
        }));
    }

    fn ask(&self, op: FleetOp) -> FleetFuture<'_> {
        match self.state() {
            EngineState::Ok => {
                let (reply, late_ms) = (self.engine.ask(op), self.late_ms.load(Ordering::Relaxed));
                Box::pin(async move {
                    if late_ms > 0 {
                        sleep(Duration::from_millis(late_ms)).await;
                    }
                    reply.await
                })
            }
            _ => Box::pin(std::future::ready(Err(StoreFault::Away))),
        }
    }
}

pub fn sealed() -> SealedRecord {
    let key = SealingKey::derive("store", &Secret::parse("secret").unwrap());
    SealedRecord::new(&key, None).unwrap()
}

pub struct Replica {
    pub rig: Rig,
    pub store: Store,
    cut: Arc<AtomicBool>,
    late_ms: Arc<AtomicU64>,
}

pub struct FleetRig {
    pub replicas: Vec<Replica>,
    pub engine: Arc<SharedModel>,
    /// While it is set, no gateway hears a ring.
    pub deaf: Arc<AtomicBool>,
}

impl FleetRig {
    /// Replicas over a model of a shared engine. Their vendors count for each by itself.
    pub fn of(count: usize) -> Self {
        Self::with(count, Setup::default)
    }

    /// The same, each set up in this way.
    pub fn with(count: usize, setup: impl Fn() -> Setup) -> Self {
        let clock = Clock::anchored(NOW.parse().unwrap());
        let engine = Arc::new(SharedModel::new(64 << 20, clock.clone()));
        let deaf = Arc::<AtomicBool>::default();
        let replicas = (0..count).map(|_| {
            let (cut, late_ms) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
            let link = Link::to(&engine, &cut, &late_ms).deaf_while(&deaf);
            let metrics = Metrics::new().unwrap();
            let store = Store::over(link, sealed(), clock.clone(), &metrics);
            Replica {
                cut,
                late_ms,
                ..replica_of(store, clock.clone(), setup())
            }
        });
        Self {
            replicas: replicas.collect(),
            engine,
            deaf,
        }
    }

    /// The same before one vendor, which counts for all.
    pub fn before_one_vendor(count: usize, setup: impl Fn() -> Setup) -> Self {
        let mut fleet = Self::with(count, &setup);
        let clock = fleet.rig(0).clock.clone();
        for number in 1..count {
            let one = Setup {
                store: fleet.replicas[number].store.clone(),
                clock: Some(clock.clone()),
                ..setup()
            };
            fleet.replicas[number].rig = fleet.rig(0).restarted(one);
        }
        fleet
    }

    pub fn rig(&self, number: usize) -> &Rig {
        &self.replicas[number].rig
    }

    pub fn cut(&self, number: usize, cut: bool) {
        self.replicas[number].cut.store(cut, Ordering::Relaxed);
    }

    pub fn delay(&self, number: usize, late_ms: u64) {
        self.replicas[number]
            .late_ms
            .store(late_ms, Ordering::Relaxed);
    }

    pub fn calls(&self) -> Vec<u64> {
        self.replicas.iter().map(|r| vendor_calls(&r.rig)).collect()
    }
}

pub fn replica_of(store: Store, clock: Clock, setup: Setup) -> Replica {
    let rig = Rig::new(Setup {
        store: store.clone(),
        clock: Some(clock),
        ..setup
    });
    let attending = store.clone();
    tokio::spawn(async move { attending.attend().await });
    Replica {
        rig,
        store,
        cut: Arc::default(),
        late_ms: Arc::default(),
    }
}

pub fn vendor_calls(rig: &Rig) -> u64 {
    let counts = rig.sandbox.counts();
    let all = [
        sandbox::SimOperation::Customers,
        sandbox::SimOperation::Search,
        sandbox::SimOperation::Continue,
        sandbox::SimOperation::Billing,
        sandbox::SimOperation::Invoices,
    ];
    all.map(|operation| counts.requests(operation)).iter().sum()
}

pub async fn customers(rig: &Rig) -> Answer {
    let (customers, asker) = (&rig.reads.customers, rig.everyone());
    customers.list(&asker, FieldSet::ALL).await.unwrap()
}

/// Lets the tasks run that keep what was fetched.
pub async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_one_gateway_fetched_answers_at_all_with_its_age() {
    let fleet = FleetRig::of(3);
    let list = customers(fleet.rig(0)).await;
    settle().await;
    sleep(Duration::from_secs(20)).await;
    for number in 1..3 {
        let again = customers(fleet.rig(number)).await;
        assert_eq!((again.body, again.age.as_secs()), (list.body.clone(), 20));
        assert_eq!(again.note.detail, Some(Detail::Store));
    }
    assert_eq!(fleet.calls(), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn any_gateway_answers_any_token_for_rows_that_are_kept() {
    let fleet = FleetRig::of(3);
    let read = async |number: usize, token: Option<&str>| -> Page {
        let rig = fleet.rig(number);
        let body = token.map_or(first(500, ""), |token| continued(token, None));
        let page = rig.page(&rig.everyone(), None, &body).await.unwrap();
        settle().await;
        page
    };
    // One gateway reads the whole search; then each page comes from another one.
    let mut token = read(0, None).await.token;
    while let Some(next) = token {
        token = read(0, Some(&next)).await.token;
    }
    let walked = fleet.calls();
    let mut rows = HashSet::new();
    let mut page = read(1, None).await;
    let mut number = 2;
    loop {
        rows.extend(page.rows.clone());
        let Some(token) = page.token else { break };
        page = read(number % 3, Some(&token)).await;
        number += 1;
    }
    assert_eq!(rows.len(), 2_000);
    assert_eq!(fleet.calls(), walked, "no vendor call more");
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_everywhere_within_a_second() {
    for (what, soft) in [
        (Purge::All, false),
        (Purge::All, true),
        (Purge::Kind(Kind::Customers), false),
        (Purge::Customer(CustomerId::parse("org_1").unwrap()), false),
    ] {
        let fleet = FleetRig::of(3);
        for number in 0..3 {
            customers(fleet.rig(number)).await;
            settle().await;
        }
        assert_eq!(fleet.calls(), [1, 0, 0]);
        let (rig, began) = (fleet.rig(1), fleet.rig(1).clock.now());
        assert_eq!(rig.reads.purge(&what, soft), 1);
        assert!(rig.reads.keep_purges().await);
        let reach = rig.reads.purge_reach().await;
        assert_eq!(reach, Some(PurgeReach { applied: 3, of: 3 }), "{what:?}");
        assert!(began.elapsed() <= Duration::from_secs(1));
        // The others' memory and the store hold nothing that is fresh.
        let again = customers(fleet.rig(2)).await;
        assert_eq!(
            again.note.detail == Some(Detail::StaleWhileRevalidate),
            soft,
            "{what:?}"
        );
        sleep(Duration::from_secs(5)).await;
        assert_eq!(fleet.calls(), [1, 0, 1], "{what:?} {soft}");
        // What is fetched after it is shared as ever.
        customers(fleet.rig(0)).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(fleet.calls().iter().sum::<u64>(), 2, "{what:?} {soft}");
    }
}

#[tokio::test(start_paused = true)]
async fn purges_at_the_same_time_and_during_a_partition_all_hold() {
    let fleet = FleetRig::of(3);
    for number in 0..3 {
        customers(fleet.rig(number)).await;
        settle().await;
    }
    // Two at once: both are in force everywhere.
    let [one, two] = [Purge::Kind(Kind::Billing), Purge::Kind(Kind::Customers)];
    fleet.rig(0).reads.purge(&one, false);
    fleet.rig(1).reads.purge(&two, false);
    let (first, second) = tokio::join!(
        fleet.rig(0).reads.keep_purges(),
        fleet.rig(1).reads.keep_purges()
    );
    assert!(first && second);
    sleep(Duration::from_secs(1)).await;
    customers(fleet.rig(2)).await;
    settle().await;
    assert_eq!(fleet.calls(), [1, 0, 1]);

    // One is cut off. It purges, and so does another, and each fetches after its own purge.
    fleet.cut(2, true);
    sleep(Duration::from_secs(3)).await;
    fleet.rig(0).reads.purge(&two, false);
    assert!(fleet.rig(0).reads.keep_purges().await);
    let reach = fleet.rig(0).reads.purge_reach().await;
    assert_eq!(reach, Some(PurgeReach { applied: 2, of: 2 }));
    fleet.rig(2).reads.purge(&one, false);
    assert!(!fleet.rig(2).reads.keep_purges().await, "pending");
    customers(fleet.rig(2)).await;
    assert_eq!(fleet.calls(), [1, 0, 1], "in its memory still");
    fleet.cut(2, false);
    sleep(Duration::from_secs(1)).await;
    customers(fleet.rig(2)).await;
    assert_eq!(fleet.calls(), [1, 0, 2], "not after it is back");
    let reach = fleet.rig(2).reads.purge_reach().await;
    assert_eq!(reach, Some(PurgeReach { applied: 3, of: 3 }));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_costs_nobody_an_error() {
    let fleet = FleetRig::of(2);
    customers(fleet.rig(0)).await;
    settle().await;
    fleet.cut(0, true);
    fleet.cut(1, true);
    let began = fleet.rig(1).clock.now();
    // Memory answers, and where it does not, the vendor does.
    customers(fleet.rig(0)).await;
    customers(fleet.rig(1)).await;
    assert!(began.elapsed() < Duration::from_millis(100));
    assert_eq!(fleet.calls(), [1, 1]);
    assert!(fleet.replicas[0].store.is_shared());
}
