//! One flight for a fleet: of several gateways over one store, one fetches an answer for all.

use msp_gateway::cache::{Detail, Directives, Lifetimes};
use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::domain::{CacheOutcome, ContractId, FieldSet, Month};
use msp_gateway::reads::billing::SoftFailure;
use msp_gateway::reads::{Answer, Purge, ReadError};
use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};
use msp_gateway::store::FETCH_LEASE;
use tokio::task::{JoinHandle, JoinSet};

use crate::fleet::{FleetRig, customers};
use crate::kit::{Rig, Setup};

/// A vendor that takes its time, so that others come meanwhile.
const VENDOR_MS: u64 = 400;

fn slow(ms: u64) -> impl Fn() -> Setup {
    move || {
        let mut setup = Setup::default();
        setup.world.latency = Duration::from_millis(ms);
        setup
    }
}

fn month() -> Month {
    Month::parse("202610").unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Customers,
    Services,
    Month,
}

async fn ask(rig: &Rig, what: Asked) -> Result<Answer, ReadError> {
    let asker = rig.everyone();
    match what {
        Asked::Customers => rig.reads.customers.list(&asker, FieldSet::ALL).await,
        Asked::Services => {
            let contract = ContractId::parse(&rig.sandbox.contracts()[0].id).unwrap();
            let soft = SoftFailure::Refuse;
            let billing = &rig.reads.billing;
            billing.services(&asker, month(), &contract, soft).await
        }
        Asked::Month => {
            let soft = SoftFailure::Refuse;
            rig.reads.billing.month(&asker, month(), soft).await
        }
    }
}

/// Asks each gateway, one moment after the other.
async fn ask_all(fleet: &FleetRig, what: Asked) -> Vec<Result<Answer, ReadError>> {
    let replicas = fleet.replicas.iter().enumerate();
    let asked = replicas.map(|(n, replica)| async move {
        sleep(Duration::from_millis(10 * n as u64)).await;
        ask(&replica.rig, what).await
    });
    futures_util::future::join_all(asked).await
}

fn calls(fleet: &FleetRig) -> u64 {
    fleet.calls().iter().sum()
}

fn begin_list(rig: &'static Rig) -> JoinHandle<Answer> {
    tokio::spawn(async move { customers(rig).await })
}

/// A fleet that tasks may borrow.
fn leaked(fleet: FleetRig) -> &'static FleetRig {
    Box::leak(Box::new(fleet))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_at_three_gateways_cost_one_call() {
    for what in [Asked::Customers, Asked::Services, Asked::Month] {
        let fleet = leaked(FleetRig::with(3, slow(VENDOR_MS)));
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for n in 0..1_000_u64 {
            callers.spawn(async move {
                sleep(Duration::from_millis(n / 10)).await;
                ask(fleet.rig(n as usize % 3), what).await.unwrap()
            });
        }
        let answers = callers.join_all().await;
        assert_eq!(calls(fleet), 1, "{what:?} {:?}", fleet.calls());
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));
        let took = began.elapsed().as_millis() as u64;
        assert!(took <= VENDOR_MS + 150, "{what:?}: {took} ms");
        // One is the vendor call; all others shared it, wherever they asked.
        let of = |outcome| {
            let such = answers.iter().filter(|a| a.note.outcome == outcome);
            such.count()
        };
        let shares = (of(CacheOutcome::Miss), of(CacheOutcome::Collapsed));
        assert_eq!(shares, (1, 999), "{what:?}");
        let elsewhere = answers
            .iter()
            .filter(|a| a.note.detail == Some(Detail::Store));
        assert!((600..700).contains(&elsewhere.count()), "{what:?}");
        // From now on memory answers at all of them, with one age.
        sleep(Duration::from_secs(5)).await;
        for answer in ask_all(fleet, what).await {
            let answer = answer.unwrap();
            assert_eq!(answer.note.outcome, CacheOutcome::Hit);
            assert!(answer.age.as_secs() == 5, "{:?}", answer.age);
        }
        assert_eq!(calls(fleet), 1, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_stale_everywhere_is_refreshed_once() {
    let fleet = FleetRig::with(3, slow(VENDOR_MS));
    ask_all(&fleet, Asked::Customers).await;
    assert_eq!(calls(&fleet), 1);
    sleep(Duration::from_secs(70)).await;
    for answer in ask_all(&fleet, Asked::Customers).await {
        let note = answer.unwrap().note;
        assert_eq!(note.detail, Some(Detail::StaleWhileRevalidate));
    }
    sleep(Duration::from_secs(2)).await;
    for answer in ask_all(&fleet, Asked::Customers).await {
        assert_eq!(answer.unwrap().note.outcome, CacheOutcome::Hit);
    }
    assert_eq!(calls(&fleet), 2, "{:?}", fleet.calls());
}

#[tokio::test(start_paused = true)]
async fn a_vendors_answer_that_is_an_error_is_shared_for_a_moment_and_a_lost_one_is_not() {
    let status = |status| FaultKind::Status {
        status,
        body: None,
        retry_after: None,
        processed: false,
    };
    for (kind, whole) in [
        (status(400), true),
        (status(404), true),
        (status(418), true),
        (status(429), true),
        (FaultKind::MalformedJson, true),
        (status(401), false),
        (FaultKind::DropAfter, false),
        (FaultKind::CutBody { at: None }, false),
    ] {
        let fleet = FleetRig::of(3);
        for replica in &fleet.replicas {
            let fault = SimFault::on(SimOperation::Customers, kind.clone());
            replica.rig.sandbox.fault(fault);
        }
        let answers = ask_all(&fleet, Asked::Customers).await;
        let codes: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().unwrap_err().code())
            .collect();
        assert!(codes.iter().all(|code| *code == codes[0]), "{kind:?}");
        let asked = fleet.calls();
        assert_eq!(asked[1] + asked[2] == 0, whole, "{kind:?} {asked:?}");
        // A moment later it is tried again.
        for replica in &fleet.replicas {
            replica.rig.sandbox.clear_faults();
        }
        sleep(Duration::from_secs(601)).await;
        for answer in ask_all(&fleet, Asked::Customers).await {
            answer.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_gateway_cannot_reach_another_can() {
    let fleet = FleetRig::of(2);
    let broken = SimFault::on(SimOperation::Customers, FaultKind::DropBefore);
    fleet.rig(0).sandbox.fault(broken);
    ask(fleet.rig(0), Asked::Customers).await.unwrap_err();
    ask(fleet.rig(1), Asked::Customers).await.unwrap();
    // And what that one brought answers at the first.
    sleep(Duration::from_secs(1)).await;
    ask(fleet.rig(0), Asked::Customers).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_soft_failure_is_shared_and_takes_no_good_answers_place() {
    let fleet = FleetRig::with(2, || {
        let mut setup = slow(VENDOR_MS)();
        setup.lifetimes = Lifetimes {
            fresh: Duration::from_secs(60),
            stale: Duration::ZERO,
            on_error: Duration::from_secs(3_600),
        };
        setup
    });
    let soft = FaultKind::Status {
        status: 200,
        body: Some(r#"{"status":"No data"}"#.to_owned()),
        retry_after: None,
        processed: false,
    };
    for replica in &fleet.replicas {
        let fault = SimFault::on(SimOperation::Invoices, soft.clone());
        replica.rig.sandbox.fault(fault);
    }
    for answer in ask_all(&fleet, Asked::Month).await {
        answer.unwrap_err();
    }
    assert_eq!(calls(&fleet), 1, "{:?}", fleet.calls());
    for replica in &fleet.replicas {
        replica.rig.sandbox.clear_faults();
    }
    // Past its lifetime it is asked again, once, and the good answer is everyone's.
    sleep(Duration::from_secs(121)).await;
    for answer in ask_all(&fleet, Asked::Month).await {
        answer.unwrap();
    }
    assert_eq!(calls(&fleet), 2, "{:?}", fleet.calls());
    // A soft failure then: the good answer is used as long as it is usable on error.
    for replica in &fleet.replicas {
        let fault = SimFault::on(SimOperation::Invoices, soft.clone());
        replica.rig.sandbox.fault(fault);
    }
    sleep(Duration::from_secs(70)).await;
    for answer in ask_all(&fleet, Asked::Month).await {
        assert_eq!(answer.unwrap().note.detail, Some(Detail::SoftFailure));
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_dies_while_it_fetches_delays_the_others_by_its_lease() {
    let fleet = leaked(FleetRig::with(3, || {
        let mut setup = Setup::default();
        setup.world.latency = Duration::from_secs(5);
        setup.wiv = Box::new(|options| options.timeout = Duration::from_secs(20));
        setup
    }));
    let dying = begin_list(fleet.rig(0));
    sleep(Duration::from_millis(100)).await;
    let died = Instant::now();
    // What it says from now on reaches nobody.
    fleet.cut(0, true);
    let (one, two) = (begin_list(fleet.rig(1)), begin_list(fleet.rig(2)));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!(one.body, two.body);
    let took = died.elapsed();
    let expected = FETCH_LEASE + Duration::from_secs(5);
    let slack = Duration::from_millis(400);
    assert!(took < expected + slack, "{took:?}");
    assert!(took > expected - slack, "{took:?}");
    dying.await.unwrap();
    assert_eq!(calls(fleet), 2, "{:?}", fleet.calls());
}

#[tokio::test(start_paused = true)]
async fn a_slow_fetch_keeps_its_claim() {
    let fleet = leaked(FleetRig::with(3, || {
        let mut setup = Setup::default();
        setup.world.latency = Duration::from_secs(12);
        setup.wiv = Box::new(|options| options.timeout = Duration::from_secs(20));
        setup
    }));
    for answer in ask_all(fleet, Asked::Customers).await {
        answer.unwrap();
    }
    assert_eq!(calls(fleet), 1, "{:?}", fleet.calls());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_newer_answer_gets_one_that_is_newer() {
    let fleet = FleetRig::with(2, slow(VENDOR_MS));
    ask_all(&fleet, Asked::Customers).await;
    let forced = async |number: usize, directives: Directives| {
        let rig = fleet.rig(number);
        let mut asker = rig.everyone();
        asker.directives = directives;
        let list = rig.reads.customers.list(&asker, FieldSet::ALL);
        list.await.unwrap().age.as_secs()
    };
    let no_cache = Directives {
        no_cache: true,
        ..Directives::default()
    };
    let max_age = |secs| Directives {
        max_age: Some(Duration::from_secs(secs)),
        ..Directives::default()
    };
    sleep(Duration::from_secs(10)).await;
    // One of them refreshes; the other one's memory has the old answer still.
    assert_eq!(forced(0, no_cache).await, 0);
    assert_eq!(calls(&fleet), 2);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(forced(1, max_age(7)).await, 5, "the other one's answer");
    assert_eq!(calls(&fleet), 2);
    assert_eq!(forced(1, max_age(3)).await, 0);
    assert_eq!(calls(&fleet), 3);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(forced(0, no_cache).await, 0);
    assert_eq!(calls(&fleet), 4);
    // Two at once are one call.
    let both = tokio::join!(forced(0, no_cache), forced(1, no_cache));
    assert_eq!(both, (0, 0));
    assert_eq!(calls(&fleet), 5, "{:?}", fleet.calls());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_from_before_a_purge_answers_nobody_who_asks_after_it() {
    let fleet = leaked(FleetRig::with(2, slow(VENDOR_MS)));
    let before = begin_list(fleet.rig(0));
    sleep(Duration::from_millis(100)).await;
    fleet.rig(1).reads.purge(&Purge::All, false);
    assert!(fleet.rig(1).reads.keep_purges().await);
    let after = customers(fleet.rig(1)).await;
    before.await.unwrap();
    assert_eq!(fleet.calls(), [1, 1], "each its own");
    assert_eq!(after.note.outcome, CacheOutcome::Miss);
    // The later one is what is kept.
    sleep(Duration::from_secs(3)).await;
    let again = customers(fleet.rig(0)).await;
    assert_eq!(again.note.detail, Some(Detail::Store));
    assert_eq!(calls(fleet), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_store_delays_the_first_misses_by_200_ms_in_all_and_then_none() {
    let fleet = FleetRig::with(2, slow(VENDOR_MS));
    sleep(Duration::from_secs(1)).await;
    for number in 0..2 {
        fleet.delay(number, 10_000);
    }
    for number in 0..2 {
        // The lookups, and what asks for the budget.
        for (what, late) in [(Asked::Customers, 200), (Asked::Month, 5)] {
            let began = Instant::now();
            ask(fleet.rig(number), what).await.unwrap();
            let took = began.elapsed().as_millis() as u64;
            assert!(took <= VENDOR_MS + late, "{what:?}: {took} ms");
        }
    }
    assert_eq!(fleet.calls(), [2, 2], "each goes on alone");
}
