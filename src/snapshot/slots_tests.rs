//! Slots: who gets one and who waits.

use super::*;
use crate::admission::Payer;
use crate::clock::sleep;

pub const LINGER: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

pub fn slots(max: usize) -> Arc<Slots> {
    Slots::new(max, None, Clock::system(), Metrics::new().unwrap())
}

pub fn spend(lane: Lane, payer: &str) -> Spend {
    Spend {
        lane,
        deadline: Clock::system().now(),
        wanted_until: Clock::system().now(),
        payer: Payer::caller(payer.into(), None),
    }
}

pub async fn take(slots: &Arc<Slots>, payer: &str, patience: Duration) -> Option<Slot> {
    let deadline = Clock::system().now() + patience;
    let taken = slots
        .take(&spend(Lane::Interactive, payer), LINGER, deadline)
        .await;
    taken.ok().inspect(Slot::page)
}

/// Asks in the background and notes its name when it gets one.
async fn queue(
    slots: &Arc<Slots>,
    log: &Arc<Mutex<Vec<&'static str>>>,
    lane: Lane,
    name: &'static str,
) -> tokio::task::JoinHandle<Option<Slot>> {
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

/// What goes before the one who came last.
pub fn before_the_last(slots: &Slots) -> (usize, Lane) {
    let (state, now) = (slots.state.lock(), slots.clock.now());
    let (id, waiting) = state.waiting.iter().next_back().unwrap();
    state.calls_before(*id, waiting.spend.wanted_until, now)
}

/// As if a slot had been given now, and so many pages read with it.
pub fn gave(slots: &Slots, payer: &str, pages: usize, ended: bool) {
    let mut state = slots.state.lock();
    let id = state.next_id;
    state.next_id += 1;
    let now = slots.clock.now();
    state.lately.give(id, &payer.into(), now);
    state.lately.read(id, pages, ended, now);
}

pub fn is_clean(slots: &Slots) -> bool {
    let state = slots.state.lock();
    let held: usize = state.held.values().sum();
    held == state.used() && state.waiting.is_empty() && state.held.values().all(|n| *n > 0)
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
    assert_eq!(slots.usage(), (2, 0));
    sleep(SECOND * 299).await;
    take(&slots, "a", SECOND * 2).await.unwrap().end();
    assert_eq!(slots.usage(), (0, 0));
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
    assert!(!slots.is_half_used() || slots.usage().1 == 0);
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
    held.drain(..).for_each(Slot::end);
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
    assert_eq!(slots.usage(), (4, 7));
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
    let lanes = |held: &[Slot]| held.iter().map(Slot::idle).collect::<Vec<_>>();
    held[5].busy();
    assert_eq!(lanes(&held[..5]), [None; 5]);
    let log = Arc::default();
    let first = queue(&slots, &log, Lane::Interactive, "d-1").await;
    let second = queue(&slots, &log, Lane::Interactive, "d-2").await;
    let (refresh, export) = (Some(Lane::Refresh), Some(Lane::Export));
    let want = [None, refresh, export, None, None];
    assert_eq!(lanes(&held[..5]), want);
    // Whoever is at it stays at it, and a reader's wish puts another in its place.
    held[1].busy();
    assert_eq!(lanes(&held[2..5]), [refresh, export, None]);
    held.remove(2).end();
    held.remove(2).end();
    for task in [first, second] {
        task.await.unwrap().unwrap().end();
    }
    assert_eq!(lanes(&held[..1]), [None]);
    held.drain(..).for_each(Slot::end);
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
    assert!(is_clean(&slots) && slots.usage() == (0, 0));
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
    assert_eq!(slots.usage().1, WAITING_MAX);
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
    assert_eq!(slots.usage(), (0, 0));
    assert!(is_clean(&slots));
}
