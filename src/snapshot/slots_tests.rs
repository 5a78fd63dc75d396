//! Slots: who gets one, who waits, who is refused at once.

use super::*;
use crate::admission::{PaceSettings, Payer};
use crate::clock::sleep;
use crate::domain::Vendor;

const LINGER: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

fn slots(max: usize) -> Arc<Slots> {
    Slots::new(max, None, Clock::system(), Metrics::new().unwrap())
}

fn spend(lane: Lane, payer: &str) -> Spend {
    Spend {
        lane,
        deadline: Clock::system().now(),
        wanted_until: Clock::system().now(),
        payer: Payer::caller(payer.into(), None),
    }
}

async fn take(slots: &Arc<Slots>, payer: &str, patience: Duration) -> Option<Slot> {
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

fn is_clean(slots: &Slots) -> bool {
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

/// Slots before a budget of one call a second, of which nothing is saved up.
async fn short_of_budget(max: usize) -> (Arc<Slots>, Arc<Governor>) {
    let settings = PaceSettings {
        requests_per_minute: 60,
        concurrency: 8,
        learn_down_to: None,
        concurrency_adaptive: false,
    };
    let (clock, metrics) = (Clock::system(), Metrics::new().unwrap());
    let governor = Governor::new(Vendor::Wiv, settings, clock.clone(), &metrics);
    let patient = wanted(Lane::Interactive, "x", SECOND * 60);
    while governor.snapshot().remaining > 0 {
        drop(governor.admit(&patient).await);
    }
    let slots = Slots::new(max, Some(Arc::clone(&governor)), clock, metrics);
    (slots, governor)
}

fn wanted(lane: Lane, payer: &str, patience: Duration) -> Spend {
    let until = Clock::system().now() + patience;
    Spend {
        deadline: until,
        wanted_until: until,
        ..spend(lane, payer)
    }
}

/// Takes a slot as a walk does, which may wait ten seconds for it whatever its callers do.
async fn search(slots: &Arc<Slots>, spend: Spend) -> Result<Slot, NoSlot> {
    let deadline = Clock::system().now() + SECOND * 10;
    slots.take(&spend, LINGER, deadline).await
}

#[tokio::test(start_paused = true)]
async fn who_would_get_the_budget_too_late_is_told_at_once_and_nobody_else() {
    let (slots, governor) = short_of_budget(4).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(take(&slots, "a", Duration::ZERO).await.unwrap());
    }
    // Each second one call goes: the nth of these gets it after n seconds.
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (slots, spend) = (slots.clone(), wanted(Lane::Interactive, "a", SECOND * 8));
        tasks.push(tokio::spawn(async move { search(&slots, spend).await }));
        tokio::task::yield_now().await;
    }
    assert_eq!(slots.usage(), (4, 4));
    let begun = Clock::system().now();
    let ask = |payer, patience| search(&slots, wanted(Lane::Interactive, payer, patience));
    let why = ask("a", SECOND * 5).await.err();
    assert_eq!(why, Some(NoSlot::Budget(SECOND * 5)));
    assert_eq!((begun.elapsed(), slots.usage()), (Duration::ZERO, (4, 4)));
    // Another payer's turn comes before theirs, background work has time, and so has whoever waits
    // a moment longer.
    for (lane, payer, patience) in [
        (Lane::Interactive, "b", SECOND * 5),
        (Lane::Refresh, "a", SECOND * 5),
        (Lane::Interactive, "a", SECOND * 7),
    ] {
        let (slots, spend) = (slots.clone(), wanted(lane, payer, patience));
        tasks.push(tokio::spawn(async move { search(&slots, spend).await }));
        tokio::task::yield_now().await;
    }
    assert_eq!(slots.usage(), (4, 7));
    // What waits for the vendor already goes before them, too.
    let queued = {
        let (governor, spend) = (
            governor.clone(),
            wanted(Lane::Interactive, "b", SECOND * 60),
        );
        tokio::spawn(async move { governor.admit(&spend).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let why = ask("b", SECOND).await.err();
    assert!(matches!(why, Some(NoSlot::Budget(wait)) if wait > SECOND));
    // A vendor that said stop answers each of them in its turn, and quickly.
    let mut headers = http::HeaderMap::new();
    headers.insert("retry-after", http::HeaderValue::from_static("20"));
    governor.hear(http::StatusCode::TOO_MANY_REQUESTS, &headers);
    assert!(queued.await.unwrap().is_err());
    let last = tokio::spawn({
        let (slots, spend) = (slots.clone(), wanted(Lane::Interactive, "a", SECOND));
        async move { search(&slots, spend).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(slots.usage(), (4, 8));
    held.drain(..).for_each(Slot::end);
    tasks.push(last);
    for task in tasks {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots));
}

/// All of these slots held by `a`, and as many of its searches waiting as patience is named.
async fn crowded(
    slots: &Arc<Slots>,
    patience: &[u32],
) -> (
    Vec<Slot>,
    Vec<tokio::task::JoinHandle<Result<Slot, NoSlot>>>,
) {
    let (mut held, mut waiting) = (Vec::new(), Vec::new());
    while let Some(slot) = take(slots, "a", Duration::ZERO).await {
        held.push(slot);
    }
    for seconds in patience {
        let spend = wanted(Lane::Interactive, "a", SECOND * *seconds);
        let slots = slots.clone();
        waiting.push(tokio::spawn(async move { search(&slots, spend).await }));
        tokio::task::yield_now().await;
    }
    (held, waiting)
}

#[tokio::test(start_paused = true)]
async fn who_comes_now_and_then_and_goes_first_is_reckoned_with() {
    let (slots, _) = short_of_budget(8).await;
    let (mut held, waiting) = crowded(&slots, &[30, 30, 30]).await;
    let ask = |seconds| search(&slots, wanted(Lane::Interactive, "a", SECOND * seconds));
    // Three before it, and three others' slots say nothing yet.
    for _ in 0..3 {
        take(&slots, "b", Duration::ZERO).await.unwrap().end();
    }
    assert_eq!(ask(4).await.err(), Some(NoSlot::Budget(SECOND * 4)));
    // Of all that were given since, as good as every second went to others.
    for _ in 3..GIVEN_MIN {
        take(&slots, "b", Duration::ZERO).await.unwrap().end();
    }
    for _ in 0..GIVEN_MIN {
        let mut state = slots.state.lock();
        state.given.push_back("a".into());
    }
    assert_eq!(ask(7).await.err(), Some(NoSlot::Budget(SECOND * 7)));
    held.drain(..).for_each(Slot::end);
    for task in waiting {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots) && slots.state.lock().given.is_empty());
}

#[tokio::test(start_paused = true)]
async fn scrolls_of_many_pages_cost_many_calls_before_the_next() {
    let (slots, _) = short_of_budget(8).await;
    let deep = || async {
        let slot = take(&slots, "b", Duration::ZERO).await.unwrap();
        (0..3).for_each(|_| slot.page());
        slot.end();
    };
    // While nobody waited they say nothing of those who wait now.
    for _ in 0..LATELY {
        deep().await;
    }
    let (mut held, waiting) = crowded(&slots, &[30]).await;
    let ask = |seconds| search(&slots, wanted(Lane::Interactive, "a", SECOND * seconds));
    assert_eq!(ask(2).await.err(), Some(NoSlot::Budget(SECOND * 2)));
    for _ in 0..LATELY {
        deep().await;
    }
    // Of four pages each: three end a scroll, and the next call is its own; for a second one three
    // more and that one.
    assert_eq!(ask(8).await.err(), Some(NoSlot::Budget(SECOND * 8)));
    // What was read of them already is not read again.
    held.iter().take(2).for_each(Slot::page);
    assert_eq!(ask(6).await.err(), Some(NoSlot::Budget(SECOND * 6)));
    held.drain(..).for_each(Slot::end);
    for task in waiting {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots) && slots.state.lock().lately.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_turn_that_comes_in_time_is_given() {
    let (slots, governor) = short_of_budget(8).await;
    // Two payers, a hundred searches each, whose callers wait twenty seconds: that is twenty calls.
    let (begun, mut tasks) = (Clock::system().now(), tokio::task::JoinSet::new());
    for n in 0..200 {
        let (slots, governor) = (slots.clone(), governor.clone());
        tasks.spawn(async move {
            let spend = wanted(Lane::Interactive, ["a", "b"][n % 2], SECOND * 20);
            let slot = match search(&slots, spend.clone()).await {
                Ok(slot) => slot,
                Err(why) => {
                    assert_eq!(begun.elapsed(), Duration::ZERO, "{why:?}");
                    let NoSlot::Budget(wait) = why else {
                        panic!("{why:?}")
                    };
                    assert!(wait >= SECOND * 20 && wait <= SECOND * 24, "{wait:?}");
                    return None;
                }
            };
            let served = governor.admit(&spend).await.is_ok();
            slot.end();
            served.then_some(n % 2)
        });
        tokio::task::yield_now().await;
    }
    let served: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let of_a = served.iter().filter(|payer| **payer == 0).count();
    assert_eq!((served.len(), of_a), (19, 10));
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn scrolls_that_were_left_tell_when_the_next_slot_is_there() {
    let slots = slots(8);
    for seconds in 0..8 {
        let spend = spend(Lane::Interactive, ["a", "b"][seconds % 2]);
        let linger = SECOND * (6 + 2 * u32::try_from(seconds).unwrap());
        drop(slots.take(&spend, linger, Clock::system().now()).await);
    }
    assert_eq!(slots.usage(), (8, 0));
    let begun = Clock::system().now();
    let soon = |lane| {
        let (slots, spend) = (slots.clone(), spend(lane, "a"));
        let deadline = begun + SECOND * 5;
        async move { slots.take(&spend, LINGER, deadline).await }
    };
    let why = soon(Lane::Interactive).await.err();
    assert_eq!(why, Some(NoSlot::Scrolls(Some(SECOND * 6))));
    // Of these slots a quarter is kept for the others.
    let why = soon(Lane::Export).await.err();
    assert_eq!(why, Some(NoSlot::Scrolls(Some(SECOND * 10))));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // One that comes in time is waited for.
    let patient = spend(Lane::Interactive, "a");
    let patient = slots.take(&patient, LINGER, begun + SECOND * 7).await;
    let slot = patient.ok().unwrap();
    assert_eq!(begun.elapsed(), SECOND * 6);
    // While one is read, nothing is certain.
    let why = soon(Lane::Interactive).await.err();
    assert_eq!(why, Some(NoSlot::Scrolls(None)));
    slot.end();
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
