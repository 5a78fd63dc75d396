//! The bell of a shared store: it wakes the gateways that wait for each other. Without it they wait
//! as long as they look apart, and nothing else differs. A forged ring makes them look, no more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use msp_gateway::cache::Detail;
use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::reads::{Answer, Purge};
use msp_gateway::store::claims::LINE_LOOK_EVERY;
use msp_gateway::store::fleet::Fleet as _;
use msp_gateway::store::{RING_REST, RecordName, Ring};
use parking_lot::Mutex;

use crate::fleet::{FleetRig, customers, settle};
use crate::fleet_walks::Fleet;
use crate::kept::latency;
use crate::kit::{Setup, continued, first};

/// How long the vendor takes.
const VENDOR: Duration = Duration::from_millis(100);

/// What one gateway's requests to the store have been so far: looks at lines and renewals.
fn asked(fleet: &Fleet, number: usize, operation: &str) -> u64 {
    let text = fleet.metrics[number].render().unwrap();
    let line = format!("store_requests_total{{operation=\"{operation}\",outcome=\"ok\"}} ");
    let count = text.lines().find_map(|text| text.split_once(&line));
    count.map_or(0, |(_, count)| count.parse().unwrap())
}

/// A fleet whose walk of a search has stood idle, and the token of the first page.
async fn idle_walk(deaf: bool) -> (Fleet, String) {
    let fleet = Fleet::of(2, 290);
    fleet.deaf.store(deaf, Ordering::Relaxed);
    fleet.rigs[0]
        .sandbox
        .fault(latency(VENDOR.as_millis() as u64));
    let head = fleet.page(0, &first(40, "")).await.unwrap();
    // The claim is renewed four times a lease by now, and the next time is a second ahead.
    sleep(Duration::from_millis(20_300)).await;
    (fleet, head.token.unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_owner_hears_a_want_at_once_and_a_follower_its_rows() {
    let mut took = Vec::new();
    for deaf in [false, true] {
        let (fleet, token) = idle_walk(deaf).await;
        let calls = fleet.calls();
        let began = Instant::now();
        // Rows that nobody has read, so that the vendor is asked for them.
        let page = fleet.page(1, &continued(&token, Some(120))).await.unwrap();
        took.push(began.elapsed());
        assert_eq!(page.rows[..], fleet.list()[40..160]);
        let now = fleet.calls();
        assert_eq!(now.0, calls.0, "the walk goes on, deaf: {deaf}");
        assert!(now.1 > calls.1, "deaf: {deaf}");
        let rest = fleet.rest(page.token, |_| 1).await;
        assert_eq!(rest, fleet.list()[160..], "deaf: {deaf}");
        assert_eq!(fleet.calls(), (1, 5), "each page once, deaf: {deaf}");
    }
    let [heard, deaf] = took[..] else { panic!() };
    // Three vendor pages, and a rest for each look after the first.
    assert!(heard <= 3 * VENDOR + 3 * RING_REST, "{heard:?}");
    // The next renewal, then rows within the time between two looks.
    let renewal = Duration::from_millis(1_500);
    let most = renewal + 3 * VENDOR + 3 * LINE_LOOK_EVERY;
    assert!(deaf > heard + LINE_LOOK_EVERY, "{deaf:?}, {heard:?}");
    assert!(deaf <= most, "{deaf:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_gateway_arrives_with_its_ring() {
    for deaf in [false, true] {
        let setup = || {
            let mut setup = Setup::default();
            setup.world.latency = Duration::from_millis(400);
            setup
        };
        let fleet = FleetRig::with(2, setup);
        fleet.deaf.store(deaf, Ordering::Relaxed);
        settle().await;
        let began = Instant::now();
        let second = async {
            // So that it does not look just when the answer is there.
            sleep(Duration::from_millis(5)).await;
            let answer = customers(fleet.rig(1)).await;
            (answer.body, began.elapsed())
        };
        let (one, (two, took)) = tokio::join!(customers(fleet.rig(0)), second);
        assert_eq!(one.body, two);
        assert_eq!(fleet.calls(), [1, 0], "deaf: {deaf}");
        let heard = took < Duration::from_millis(410);
        assert_eq!(heard, !deaf, "{took:?}");
        assert!(took <= Duration::from_millis(505), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_in_force_everywhere_at_its_ring() {
    for (deaf, most) in [(false, RING_REST), (true, Duration::from_millis(500))] {
        let fleet = FleetRig::of(3);
        fleet.deaf.store(deaf, Ordering::Relaxed);
        for number in 0..3 {
            customers(fleet.rig(number)).await;
            settle().await;
        }
        // Between two beats.
        sleep(Duration::from_millis(5_200)).await;
        let began = Instant::now();
        fleet.rig(0).reads.purge(&Purge::All, false);
        assert!(fleet.rig(0).reads.keep_purges().await);
        let number = fleet.replicas[0].store.purges().number();
        for replica in &fleet.replicas[1..] {
            while replica.store.purges().number() < number {
                sleep(Duration::from_millis(1)).await;
            }
        }
        let took = began.elapsed();
        assert!(took <= most, "deaf: {deaf}: {took:?}");
        assert_eq!(took < Duration::from_millis(100), !deaf, "{took:?}");
        customers(fleet.rig(2)).await;
        assert_eq!(fleet.calls(), [1, 0, 1], "deaf: {deaf}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_elsewhere_counts_before_the_next_first_page() {
    for (changes, deaf, unused) in [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (true, false, true),
    ] {
        let what = format!("changes {changes}, deaf {deaf}, unused {unused}");
        let fleet = Fleet::of(2, 120);
        fleet.deaf.store(deaf, Ordering::Relaxed);
        for number in 0..2 {
            let head = fleet.page(number, &first(40, "")).await.unwrap();
            assert_eq!(fleet.rest(head.token, |_| number).await.len(), 80, "{what}");
        }
        let old = fleet.list();
        sleep(Duration::from_secs(if unused { 400 } else { 70 })).await;
        if changes {
            fleet.rigs[0].sandbox.alter(1, 5, 5);
        }
        let list = fleet.list();
        assert_eq!(old != list, changes, "{what}");
        let looks = asked(&fleet, 1, "line");
        fleet.page(0, &first(40, "")).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        let (calls, more) = (fleet.calls(), asked(&fleet, 1, "line") - looks);
        assert_eq!(calls.0, 2, "{what}");
        match deaf || unused {
            true => assert_eq!(more, 0, "{what}"),
            // A ring for the first rows, and one for the rest.
            false => assert!((1..=3).contains(&more), "{what}: {more}"),
        }
        if unused {
            continue;
        }
        let page = fleet.page(1, &first(40, "")).await.unwrap();
        let Answer { note, age, .. } = &page.answer;
        let stale = note.detail == Some(Detail::StaleWhileRevalidate);
        assert_eq!(stale, deaf, "{what}: {note:?}");
        assert_eq!(age.as_secs() == 0, !deaf, "{what}: {age:?}");
        let expected = if deaf { &old } else { &list };
        assert_eq!(page.rows[..], expected[..40], "{what}");
        let rest = fleet.rest(page.token, |_| 1).await;
        assert_eq!(rest, expected[40..], "{what}");
        assert_eq!(fleet.calls().0, calls.0, "no search more, {what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forged_ring_makes_gateways_look_and_nothing_else() {
    let fleet = Fleet::of(2, 290);
    // Their names are on the channel, so a stranger with the right to publish knows them.
    let heard = Arc::new(Mutex::new(vec![
        Ring::Purges,
        Ring::Answer(RecordName([1; 16])),
        Ring::Line(RecordName([2; 16])),
        Ring::Want(RecordName([3; 16])),
    ]));
    let hears = heard.clone();
    let hook = move |ring| match ring {
        Ring::Line(name) | Ring::Head(name) => hears.lock().extend([ring, Ring::Want(name)]),
        _ => hears.lock().push(ring),
    };
    fleet.engine.on_ring(Box::new(hook));
    let head = fleet.page(0, &first(40, "")).await.unwrap();
    let token = head.token.unwrap();
    sleep(Duration::from_secs(20)).await;
    let known: Vec<Ring> = std::mem::take(&mut *heard.lock());
    assert!(known.len() > 6, "{known:?}");
    let storm = async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            known.iter().for_each(|ring| fleet.engine.ring(*ring));
            sleep(Duration::from_millis(1)).await;
        }
    };
    // Nobody waits: the owner renews its claim, and all read the number of the purges.
    let (calls, looks) = (fleet.calls(), asked(&fleet, 1, "want"));
    let renewals = asked(&fleet, 0, "renew");
    storm.await;
    assert_eq!(fleet.calls(), calls);
    assert_eq!(asked(&fleet, 1, "want"), looks);
    let most = Duration::from_secs(1).as_millis() / RING_REST.as_millis();
    let most = u64::try_from(most).unwrap();
    let more = asked(&fleet, 0, "renew") - renewals;
    assert!(more > 10 && more <= most + 2, "{more} renewals");

    // A follower waits for a slow vendor: it looks, and gets its rows once.
    fleet.rigs[0].sandbox.fault(latency(1_500));
    let looks = asked(&fleet, 1, "want");
    let storm = async {
        loop {
            known.iter().for_each(|ring| fleet.engine.ring(*ring));
            sleep(Duration::from_millis(1)).await;
        }
    };
    let body = continued(&token, Some(100));
    let page = tokio::select! {
        never = storm => never,
        page = fleet.page(1, &body) => page.unwrap(),
    };
    assert_eq!(page.rows[..], fleet.list()[40..140]);
    let more = asked(&fleet, 1, "want") - looks;
    assert!((50..=4 * most).contains(&more), "{more} looks");
    let rest = fleet.rest(page.token, |_| 1).await;
    assert_eq!(rest, fleet.list()[140..]);
    assert_eq!(fleet.calls(), (1, 5), "each page once");
}
