//! Several gateways over one store count the scrolls that may be open at the vendor together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use msp_gateway::admission::{Lane, Payer, Spend};
use msp_gateway::clock::{Clock, Duration, Instant, sleep, timeout};
use msp_gateway::domain::{PageSize, Shortage};
use msp_gateway::metrics::Metrics;
use msp_gateway::reads::ReadError;
use msp_gateway::snapshot::slots::{SlotLease, SlotLimits, Slots};
use msp_gateway::store::{SharedModel, Store};

use crate::fleet::{FleetRig, Link, Replica, sealed};
use crate::kept::latency;
use crate::kit::{NOW, Page, Setup, first};

/// Scrolls at once, of all gateways.
const MAX: usize = 12;
const EXPIRY: Duration = Duration::from_secs(300);

/// Lists of six vendor pages, which nobody reads to their end.
fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.world.cases = 290;
    setup.snapshots.vendor_page_size = PageSize::new(50).unwrap();
    setup.snapshots.open_scrolls_max = MAX;
    setup.snapshots.vendor_scrolls_max = MAX;
    setup.snapshots.scroll_expiry = EXPIRY;
    setup.snapshots.drain_pages_max = 0;
    setup
}

/// A search of its own at one gateway.
async fn search(replica: &Replica, number: usize) -> Result<Page, ReadError> {
    let rig = &replica.rig;
    let body = first(40, &format!(",\"x\":{number}"));
    rig.page(&rig.everyone(), None, &body).await
}

fn scrolls(fleet: &FleetRig) -> u64 {
    fleet.rig(0).sandbox.counts().scrolls.open
}

/// How many scrolls the gateways believe to be open.
fn counted(fleet: &FleetRig) -> usize {
    let text = fleet.rig(0).metrics.render().unwrap();
    let line = "msp_gateway_vendor_scrolls ";
    let count = text.lines().find_map(|text| text.strip_prefix(line));
    count.unwrap().parse().unwrap()
}

/// The most scrolls that were open at the vendor at once.
fn most(fleet: &FleetRig) -> usize {
    let most = fleet.rig(0).sandbox.counts().scrolls.peak_open;
    usize::try_from(most).unwrap()
}

/// Lets the gateways sweep every two seconds, as the program does.
async fn sweep(fleet: &FleetRig) {
    loop {
        sleep(Duration::from_secs(2)).await;
        fleet.replicas.iter().for_each(|one| one.rig.reads.sweep());
    }
}

async fn all(fleet: &FleetRig, count: usize, from: usize) -> Vec<Result<Page, ReadError>> {
    let each = (0..count).map(|n| search(&fleet.replicas[n % fleet.replicas.len()], from + n));
    tokio::select! {
        answers = join_all(each) => answers,
        () = sweep(fleet) => unreachable!("it sweeps for ever"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_scrolls_are_open_than_all_gateways_may_have() {
    let fleet = FleetRig::before_one_vendor(3, setup);
    sleep(Duration::from_secs(1)).await;
    fleet.rig(0).sandbox.fault(latency(200));
    // Three times as many as may be open. Idle scrolls are read to their end for those that wait,
    // at other gateways too.
    let answers = all(&fleet, 3 * MAX, 0).await;
    for (number, answer) in answers.iter().enumerate() {
        assert!(answer.is_ok(), "{number}: {:?}", answer.as_ref().err());
    }
    let most = most(&fleet);
    assert!(most > MAX / 2 && most <= MAX, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_dies_leaves_its_scrolls_until_they_expire() {
    let fleet = FleetRig::before_one_vendor(2, setup);
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    for number in 0..11 {
        search(&fleet.replicas[0], number).await.unwrap();
    }
    assert_eq!(scrolls(&fleet), 11);
    fleet.cut(0, true);
    // One payer may hold seven times what is free.
    let refused = search(&fleet.replicas[1], 11).await.err().unwrap();
    let short = matches!(
        refused,
        ReadError::Overloaded {
            shortage: Shortage::VendorScrolls,
            ..
        }
    );
    assert!(short, "{refused:?}");
    assert_eq!(scrolls(&fleet), 11, "nothing was sent");
    sleep(EXPIRY.saturating_sub(began.elapsed()) + Duration::from_secs(1)).await;
    search(&fleet.replicas[1], 12).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_gateway_takes_its_part_and_then_counts_all_again() {
    let fleet = FleetRig::before_one_vendor(3, setup);
    sleep(Duration::from_secs(1)).await;
    // Most of these end while the store is away.
    let before = all(&fleet, MAX / 2, 10 * MAX).await;
    assert!(before.iter().all(Result::is_ok));
    for number in 0..3 {
        fleet.cut(number, true);
    }
    for round in 0..2 {
        let answers = all(&fleet, MAX, round * MAX).await;
        assert!(answers.iter().all(Result::is_ok), "{round}");
    }
    let alone = most(&fleet);
    assert!(alone > MAX / 2 && alone <= MAX, "{alone}");
    for number in 0..3 {
        fleet.cut(number, false);
    }
    sleep(Duration::from_secs(2)).await;
    // What was opened alone is counted, and what ended alone is not.
    fleet.rig(0).reads.sweep();
    sleep(Duration::from_secs(1)).await;
    let open = usize::try_from(scrolls(&fleet)).unwrap();
    assert_eq!(counted(&fleet), open);
    let answers = all(&fleet, MAX, 2 * MAX).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(most(&fleet) <= MAX, "{}", most(&fleet));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_the_scrolls_gets_them_back_from_their_gateways() {
    let fleet = FleetRig::before_one_vendor(2, setup);
    sleep(Duration::from_secs(1)).await;
    for number in 0..11 {
        search(&fleet.replicas[0], number).await.unwrap();
    }
    fleet.cut(0, true);
    fleet.cut(1, true);
    sleep(Duration::from_secs(1)).await;
    let empty = SharedModel::new(1 << 20, fleet.rig(0).clock.clone());
    fleet.engine.become_copy_of(&empty);
    fleet.cut(0, false);
    fleet.cut(1, false);
    sleep(Duration::from_secs(2)).await;
    assert!(search(&fleet.replicas[1], 11).await.is_err());
    assert_eq!(scrolls(&fleet), 11);
}

/// Slots over a link to an engine, without walks.
fn slots(
    engine: &Arc<SharedModel>,
    late_ms: &Arc<AtomicU64>,
    clock: &Clock,
) -> (Arc<Slots>, Store) {
    let metrics = Metrics::new().unwrap();
    let link = Link::to(engine, &Arc::default(), late_ms);
    let store = Store::over(link, sealed(), clock.clone(), &metrics);
    let limits = SlotLimits {
        running: MAX,
        standing: MAX,
    };
    let shared = (store.clone(), "wiv/wiv".into());
    let slots = Slots::new(limits, None, None, shared, clock.clone(), metrics);
    (slots, store)
}

fn spend(payer: &str) -> Spend {
    let until = Instant::now() + Duration::from_secs(60);
    Spend {
        lane: Lane::Interactive,
        deadline: until,
        wanted_until: until,
        payer: Payer::caller(payer.into(), None),
        within: None,
    }
}

#[tokio::test(start_paused = true)]
async fn searches_that_leave_while_the_store_is_asked_leave_no_slot_behind() {
    let clock = Clock::anchored(NOW.parse().unwrap());
    let engine = Arc::new(SharedModel::new(1 << 20, clock.clone()));
    let late_ms = Arc::<AtomicU64>::default();
    let (one, store) = slots(&engine, &late_ms, &clock);
    store.warm().await;
    late_ms.store(20, Ordering::Relaxed);
    let soon = || Instant::now() + Duration::from_secs(10);
    let mut leases = Vec::new();
    for round in 0..200_u64 {
        // Before the question, while it is under way, or with the reply.
        let patience = Duration::from_millis(round % 50);
        let payer = spend(["a", "b", "c"][round as usize % 3]);
        let first = one.take(&payer, EXPIRY, soon());
        let second = one.take(&payer, EXPIRY, soon());
        let (first, second) = tokio::join!(timeout(patience, first), timeout(patience * 2, second));
        leases.extend(first.ok().and_then(Result::ok));
        leases.extend(second.ok().and_then(Result::ok));
        if round % 4 == 3 {
            leases.drain(..).for_each(SlotLease::end);
        }
    }
    leases.drain(..).for_each(SlotLease::end);
    late_ms.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    // All may be taken, by two payers who leave each other room.
    let (two, store) = slots(&engine, &late_ms, &clock);
    store.warm().await;
    let mut held = Vec::new();
    for payer in ["a", "b"] {
        while let Ok(lease) = two.take(&spend(payer), EXPIRY, Instant::now()).await {
            held.push(lease);
        }
    }
    assert_eq!(held.len(), MAX, "none was left behind");
    assert_eq!(two.usage().standing, MAX);
}
