//! Slots: who gets one and who waits.

use super::*;
use crate::admission::breaker::{CircuitSettings, CircuitVerdict};
use crate::admission::{Lane, Payer};
use crate::clock::sleep;
use crate::domain::Vendor;

pub const LINGER: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

/// Returns limits with as many walks as scrolls at the vendor.
pub fn limits(max: usize) -> SlotLimits {
    SlotLimits {
        running: max,
        standing: max,
    }
}

/// Returns (slots in use or abandoned, searches waiting).
pub fn usage(slots: &Slots) -> (usize, usize) {
    let usage = slots.usage();
    (usage.standing, usage.waiting)
}

pub fn slots(max: usize) -> Arc<Slots> {
    Slots::new(
        limits(max),
        None,
        None,
        (Store::none(), "wiv".into()),
        Clock::system(),
        Metrics::new().unwrap(),
    )
}

pub fn spend(lane: Lane, payer: &str) -> Spend {
    Spend {
        lane,
        deadline: Clock::system().now(),
        wanted_until: Clock::system().now(),
        payer: Payer::caller(payer.into(), None),
        within: None,
    }
}

pub async fn take(slots: &Arc<Slots>, payer: &str, patience: Duration) -> Option<SlotLease> {
    let deadline = Clock::system().now() + patience;
    let taken = slots
        .take(&spend(Lane::Interactive, payer), LINGER, deadline)
        .await;
    taken.ok().inspect(SlotLease::page)
}

/// Asks in the background and notes its name when it gets one.
async fn queue(
    slots: &Arc<Slots>,
    log: &Arc<Mutex<Vec<&'static str>>>,
    lane: Lane,
    name: &'static str,
) -> tokio::task::JoinHandle<Option<SlotLease>> {
    let (slots, log) = (Arc::clone(slots), Arc::clone(log));
    let task = tokio::spawn(async move {
        let spend = spend(lane, name.split('-').next().unwrap());
        let deadline = Clock::system().now() + SECOND * 60;
        let slot = slots.take(&spend, LINGER, deadline).await;
        log.lock().push(name);
        slot.ok()
    });
    tokio::task::yield_now().await;
    task
}

/// Returns the calls before the search that came last.
pub fn before_the_last(slots: &Slots) -> (usize, Lane) {
    let (state, now) = (slots.state.lock(), slots.clock.now());
    let (id, waiting) = state.waiting.iter().next_back().unwrap();
    state.calls_before(*id, waiting.spend.wanted_until, now)
}

/// Records a slot as given now, with this many pages read.
pub fn gave(slots: &Slots, payer: &str, pages: usize, ended: bool) {
    let mut state = slots.state.lock();
    let id = state.next_id;
    state.next_id += 1;
    let now = slots.clock.now();
    state.recent.give(id, &payer.into(), now);
    state.recent.read(id, pages, ended, now);
}

pub fn is_clean(slots: &Slots) -> bool {
    let state = slots.state.lock();
    let held: usize = state.held.values().map(|held| held.standing()).sum();
    held == state.counted()
        && state.waiting.is_empty()
        && state.held.values().all(|n| n.standing() > 0)
}

#[tokio::test(start_paused = true)]
async fn left_scrolls_linger_until_they_expire() {
    let slots = slots(2);
    let one = take(&slots, "a", Duration::ZERO).await.unwrap();
    let two = take(&slots, "a", Duration::ZERO).await.unwrap();
    assert!(take(&slots, "a", SECOND).await.is_none());
    one.end();
    let three = take(&slots, "a", Duration::ZERO).await.unwrap();
    drop(two);
    drop(three);
    assert_eq!(usage(&slots), (2, 0));
    sleep(SECOND * 299).await;
    take(&slots, "a", SECOND * 2).await.unwrap().end();
    assert_eq!(usage(&slots), (0, 0));
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_search_presses_and_is_woken() {
    let slots = slots(1);
    let held = take(&slots, "a", Duration::ZERO).await.unwrap();
    assert_eq!(held.idle(), None);
    let pressed = slots.pressed.notified();
    let waiting = tokio::spawn({
        let slots = slots.clone();
        async move { take(&slots, "a", SECOND * 10).await.is_some() }
    });
    pressed.await;
    assert_eq!(held.idle(), Some(Lane::Refresh));
    held.end();
    assert!(waiting.await.unwrap());
    assert!(!slots.is_half_used() || usage(&slots).1 == 0);
}

#[tokio::test(start_paused = true)]
async fn one_payer_leaves_room_for_another() {
    let slots = slots(32);
    let mut held = Vec::new();
    while let Some(slot) = take(&slots, "greedy", Duration::ZERO).await {
        held.push(slot);
    }
    assert_eq!(held.len(), 28);
    for payer in ["b", "c", "d", "e"] {
        held.push(take(&slots, payer, Duration::ZERO).await.unwrap());
    }
    assert!(take(&slots, "f", Duration::ZERO).await.is_none());
    // Few slots have no reserve.
    let few = self::slots(4);
    for _ in 0..4 {
        held.push(take(&few, "greedy", Duration::ZERO).await.unwrap());
    }
    held.drain(..).for_each(SlotLease::end);
    assert!(is_clean(&slots) && is_clean(&few));
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_goes_to_the_urgent_and_then_to_whoever_holds_fewest() {
    let slots = slots(4);
    let mut held = Vec::new();
    for payer in ["a", "a", "a", "b"] {
        held.push(take(&slots, payer, Duration::ZERO).await.unwrap());
    }
    let log = Arc::default();
    let mut tasks = Vec::new();
    for (lane, name) in [
        (Lane::Export, "e-1"),
        (Lane::Interactive, "a-1"),
        (Lane::Interactive, "a-2"),
        (Lane::Interactive, "b-1"),
        (Lane::Interactive, "b-2"),
        (Lane::Interactive, "c-1"),
        (Lane::Refresh, "r-1"),
    ] {
        tasks.push(queue(&slots, &log, lane, name).await);
    }
    assert_eq!(usage(&slots), (4, 7));
    // a holds 3, b 1, c 0; then a 2, b 0, c 1; then a 1 and b 1, twice.
    for at in [0, 2, 0, 0] {
        held.remove(at).end();
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(*log.lock(), ["c-1", "b-1", "a-1", "a-2"]);
    // What waits still: b-2, r-1, e-1.
    for (name, at) in [("c-1", 5), ("b-1", 3), ("a-1", 1)] {
        let slot = (&mut tasks[at]).await.unwrap().unwrap();
        assert_eq!(
            log.lock().iter().position(|n| *n == name).map(|p| p < 4),
            Some(true)
        );
        slot.end();
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(log.lock()[4..], ["b-2", "r-1", "e-1"]);
}

#[tokio::test(start_paused = true)]
async fn as_many_idle_scrolls_end_as_searches_wait_and_the_greediest_first() {
    let slots = slots(6);
    let mut held = Vec::new();
    for payer in ["b", "a", "a", "a", "c", "a"] {
        held.push(take(&slots, payer, Duration::ZERO).await.unwrap());
    }
    let lanes = |held: &[SlotLease]| held.iter().map(SlotLease::idle).collect::<Vec<_>>();
    held[5].busy();
    assert_eq!(lanes(&held[..5]), [None; 5]);
    let log = Arc::default();
    let first = queue(&slots, &log, Lane::Interactive, "d-1").await;
    let second = queue(&slots, &log, Lane::Interactive, "d-2").await;
    let (refresh, export) = (Some(Lane::Refresh), Some(Lane::Export));
    let want = [None, refresh, export, None, None];
    assert_eq!(lanes(&held[..5]), want);
    // A scroll that is being drained goes on. If a reader wants its rows, another one is drained
    // instead.
    held[1].busy();
    assert_eq!(lanes(&held[2..5]), [refresh, export, None]);
    held.remove(2).end();
    held.remove(2).end();
    for task in [first, second] {
        task.await.unwrap().unwrap().end();
    }
    assert_eq!(lanes(&held[..1]), [None]);
    held.drain(..).for_each(SlotLease::end);
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_keeps_nothing() {
    let slots = slots(1);
    let held = take(&slots, "a", Duration::ZERO).await.unwrap();
    let log = Arc::default();
    let gone = queue(&slots, &log, Lane::Interactive, "b-1").await;
    let next = queue(&slots, &log, Lane::Interactive, "c-1").await;
    // Granted and gone in the same moment: the slot passes on.
    held.end();
    gone.abort();
    next.await.unwrap().unwrap().end();
    assert_eq!(*log.lock(), ["c-1"]);
    assert!(is_clean(&slots) && usage(&slots) == (0, 0));
}

#[tokio::test(start_paused = true)]
async fn among_too_many_the_modest_find_a_place() {
    let slots = slots(1);
    let held = take(&slots, "a", Duration::ZERO).await.unwrap();
    let log = Arc::default();
    let mut tasks = Vec::new();
    for _ in 0..WAITING_MAX {
        tasks.push(queue(&slots, &log, Lane::Interactive, "a-1").await);
    }
    assert!(take(&slots, "a", SECOND).await.is_none());
    let modest = queue(&slots, &log, Lane::Interactive, "b-1").await;
    assert_eq!(usage(&slots).1, WAITING_MAX);
    // The newest of the many was told.
    assert!(tasks.pop().unwrap().await.unwrap().is_none());
    for task in tasks {
        task.abort();
        assert!(task.await.is_err());
    }
    held.end();
    modest.await.unwrap().unwrap().end();
    assert!(is_clean(&slots));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_searches_come_and_go_on_many_threads() {
    let slots = slots(5);
    let mut tasks = Vec::new();
    for n in 0..2_000usize {
        let slots = Arc::clone(&slots);
        tasks.push(tokio::spawn(async move {
            let spend = spend(Lane::ALL[n % 4], ["a", "b", "c"][n % 3]);
            let deadline = Clock::system().now() + SECOND * 600;
            let slot = slots.take(&spend, Duration::ZERO, deadline).await;
            tokio::task::yield_now().await;
            if let Ok(slot) = slot
                && n % 2 == 0
            {
                slot.end();
            }
        }));
        if n % 5 == 0 {
            tasks[fastrand::usize(..tasks.len())].abort();
        }
    }
    for task in tasks {
        let _ = task.await;
    }
    assert_eq!(usage(&slots), (0, 0));
    assert!(is_clean(&slots));
}

/// Slots before a vendor whose circuit is known, of which `walks` may run and 4 may be open.
fn before_a_circuit(walks: usize) -> (Arc<Slots>, Arc<Circuit>) {
    let (clock, metrics) = (Clock::system(), Metrics::new().unwrap());
    let circuit = Circuit::new(
        Vendor::Wiv,
        CircuitSettings::default(),
        clock.clone(),
        metrics.clone(),
    );
    let limits = SlotLimits {
        running: walks,
        standing: 4,
    };
    let slots = Slots::new(
        limits,
        None,
        Some(circuit.clone()),
        (Store::none(), "wiv".into()),
        clock,
        metrics,
    );
    (slots, circuit)
}

/// A search that asks for a slot now and waits for ten seconds, but has no answer yet.
async fn ask(slots: &Arc<Slots>) -> Result<SlotLease, NoSlot> {
    let deadline = Clock::system().now() + SECOND * 10;
    let spend = spend(Lane::Interactive, "a");
    slots.take(&spend, LINGER, deadline).await
}

#[tokio::test(start_paused = true)]
async fn walks_and_scrolls_at_the_vendor_are_two_limits_and_each_is_named() {
    let (slots, _) = before_a_circuit(2);
    let held = [
        take(&slots, "a", SECOND).await,
        take(&slots, "a", SECOND).await,
    ];
    let why = ask(&slots).await.err();
    assert_eq!(why, Some(NoSlot::Short(Shortage::OpenScrolls, None)));
    // Abandoned scrolls make room for other walks, until too many scrolls are open.
    drop(held);
    let usage = |running, standing| SlotUsage {
        running,
        standing,
        waiting: 0,
    };
    assert_eq!(slots.usage(), usage(0, 2));
    for _ in 0..2 {
        drop(take(&slots, "a", SECOND).await.unwrap());
    }
    let begun = Clock::system().now();
    let why = ask(&slots).await.err();
    assert_eq!(slots.usage(), usage(0, 4));
    let Some(NoSlot::Short(Shortage::VendorScrolls, Some(wait))) = why else {
        panic!("{why:?}")
    };
    assert!(wait > SECOND * 200 && begun.elapsed().is_zero(), "{wait:?}");
    sleep(wait).await;
    ask(&slots).await.ok().unwrap().end();
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn unanswered_searches_hold_no_slot_once_the_vendor_answers_another() {
    let (slots, circuit) = before_a_circuit(4);
    for _ in 0..3 {
        drop(ask(&slots).await.ok().unwrap());
    }
    // Answered with something that is no page: that scroll is open, whatever comes.
    let odd = ask(&slots).await.ok().unwrap();
    odd.opened();
    drop(odd);
    assert!(circuit.is_closed());
    // Nothing shows that the vendor fails, so one search at a time finds out.
    let probe = ask(&slots).await.ok().unwrap();
    let begun = Clock::system().now();
    drop(ask(&slots).await.ok().unwrap());
    assert_eq!(begun.elapsed(), PROBE_EVERY);
    assert_eq!(slots.usage().standing, 6);
    probe.page();
    // The gauge still counts all that may be open; only one of them holds up a search.
    assert_eq!(slots.usage().standing, 6);
    let more = [
        take(&slots, "b", Duration::ZERO).await.unwrap(),
        take(&slots, "b", Duration::ZERO).await.unwrap(),
    ];
    assert!(take(&slots, "b", SECOND).await.is_none());
    more.into_iter().for_each(SlotLease::end);
    probe.end();
    sleep(LINGER).await;
    assert_eq!(slots.usage().standing, 0);
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn while_the_vendor_fails_a_probe_finds_a_slot_and_others_are_told_why() {
    let (slots, circuit) = before_a_circuit(1);
    let hanging = ask(&slots).await.ok().unwrap();
    let waiting = tokio::spawn({
        let slots = slots.clone();
        async move { ask(&slots).await.err() }
    });
    tokio::task::yield_now().await;
    for _ in 0..5 {
        circuit.admit().unwrap().heard(CircuitVerdict::Failed);
    }
    let Some(NoSlot::VendorFails(_)) = ask(&slots).await.err() else {
        panic!("a search is refused in the circuit's words");
    };
    slots.usage();
    let told = waiting.await.unwrap();
    assert!(matches!(told, Some(NoSlot::VendorFails(_))), "{told:?}");
    // A probe is due.
    sleep(SECOND / 2).await;
    let probe = ask(&slots).await.ok().unwrap();
    assert!(ask(&slots).await.is_err());
    assert_eq!(slots.usage().running, 2);
    probe.end();
    hanging.end();
    assert!(is_clean(&slots));
}
