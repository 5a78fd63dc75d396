//! Tests which searches are refused at once because of the calls before them.

use super::*;
use crate::admission::{HOLD_DOWN_MAX, PaceSettings, Spend};
use crate::clock::{Clock, sleep};
use crate::domain::Vendor;
use crate::metrics::Metrics;
use crate::snapshot::slots::tests::{
    LINGER, before_the_last, gave, is_clean, limits, slots, spend, take, usage,
};
use crate::snapshot::slots::{SlotLease, Slots};
use crate::store::Store;

const SECOND: Duration = Duration::from_secs(1);

/// Slots in front of a budget of one call a second, with nothing saved up.
async fn short_of_budget(max: usize) -> (Arc<Slots>, Arc<Governor>) {
    let settings = PaceSettings {
        requests_per_minute: 60,
        concurrency: 8,
        learn_down_to: None,
        concurrency_adaptive: false,
        hold_down_max: HOLD_DOWN_MAX,
    };
    let (clock, metrics) = (Clock::system(), Metrics::new().unwrap());
    let governor = Governor::new(Vendor::Wiv, settings, clock.clone(), &metrics);
    spend_all(&governor).await;
    let slots = Slots::new(
        limits(max),
        Some(Arc::clone(&governor)),
        None,
        (Store::none(), "wiv".into()),
        clock,
        metrics,
    );
    (slots, governor)
}

async fn spend_all(governor: &Arc<Governor>) {
    let patient = wanted(Lane::Interactive, "x", SECOND * 60);
    while governor.snapshot().remaining > 0 {
        drop(governor.admit(&patient).await);
    }
}

fn wanted(lane: Lane, payer: &str, patience: Duration) -> Spend {
    let until = Clock::system().now() + patience;
    Spend {
        deadline: until,
        wanted_until: until,
        ..spend(lane, payer)
    }
}

/// Takes a slot like a walk, which may wait ten seconds whatever its callers do.
async fn search(slots: &Arc<Slots>, spend: Spend) -> Result<SlotLease, NoSlot> {
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
    // One call goes each second, so the nth of these gets its turn after n seconds.
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (slots, spend) = (slots.clone(), wanted(Lane::Interactive, "a", SECOND * 8));
        tasks.push(tokio::spawn(async move { search(&slots, spend).await }));
        tokio::task::yield_now().await;
    }
    assert_eq!(usage(&slots), (4, 4));
    let begun = Clock::system().now();
    let ask = |payer, patience| search(&slots, wanted(Lane::Interactive, payer, patience));
    let why = ask("a", SECOND * 5).await.err();
    assert_eq!(why, Some(NoSlot::Budget(SECOND * 5)));
    assert_eq!((begun.elapsed(), usage(&slots)), (Duration::ZERO, (4, 4)));
    // Another payer's turn comes first, background work has time, and so has a caller that waits a
    // moment longer.
    for (lane, payer, patience) in [
        (Lane::Interactive, "b", SECOND * 5),
        (Lane::Refresh, "a", SECOND * 5),
        (Lane::Interactive, "a", SECOND * 7),
    ] {
        let (slots, spend) = (slots.clone(), wanted(lane, payer, patience));
        tasks.push(tokio::spawn(async move { search(&slots, spend).await }));
        tokio::task::yield_now().await;
    }
    assert_eq!(usage(&slots), (4, 7));
    // Calls that already wait for the vendor go first, too.
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
    // During a hold-down each of them is answered in its turn, and quickly.
    let mut headers = http::HeaderMap::new();
    headers.insert("retry-after", http::HeaderValue::from_static("20"));
    governor.hear(http::StatusCode::TOO_MANY_REQUESTS, &headers);
    assert!(queued.await.unwrap().is_err());
    let last = tokio::spawn({
        let (slots, spend) = (slots.clone(), wanted(Lane::Interactive, "a", SECOND));
        async move { search(&slots, spend).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(usage(&slots), (4, 8));
    held.drain(..).for_each(SlotLease::end);
    tasks.push(last);
    for task in tasks {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots));
}

/// All of these slots are held by `a`, and one of its searches waits for each given patience.
async fn crowded(
    slots: &Arc<Slots>,
    patience: &[u32],
) -> (
    Vec<SlotLease>,
    Vec<tokio::task::JoinHandle<Result<SlotLease, NoSlot>>>,
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
    // Three searches are before it. The slots of three others are too few for an estimate.
    for _ in 0..3 {
        take(&slots, "b", Duration::ZERO).await.unwrap().end();
    }
    assert_eq!(ask(4).await.err(), Some(NoSlot::Budget(SECOND * 4)));
    // Now about every second slot went to another payer.
    for _ in 3..AMID_MIN {
        take(&slots, "b", Duration::ZERO).await.unwrap().end();
    }
    for _ in 0..AMID_MIN {
        gave(&slots, "a", 0, false);
    }
    assert_eq!(ask(7).await.err(), Some(NoSlot::Budget(SECOND * 7)));
    held.drain(..).for_each(SlotLease::end);
    for task in waiting {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn scrolls_of_many_pages_cost_many_calls_before_the_next() {
    let (slots, governor) = short_of_budget(8).await;
    let deep = |payer| (0..READ_MIN).for_each(|_| gave(&slots, payer, 4, true));
    // Old scrolls, and those of others, say nothing about the searches that wait now.
    deep("a");
    sleep(LATELY + SECOND).await;
    deep("b");
    spend_all(&governor).await;
    let (mut held, waiting) = crowded(&slots, &[30]).await;
    let ask = |seconds| search(&slots, wanted(Lane::Interactive, "a", SECOND * seconds));
    assert_eq!(ask(2).await.err(), Some(NoSlot::Budget(SECOND * 2)));
    deep("a");
    // With four pages each, three more calls end a scroll, and the next call is its own. A second
    // search needs three more and one.
    assert_eq!(ask(8).await.err(), Some(NoSlot::Budget(SECOND * 8)));
    // Pages that were already read are not counted again.
    held.iter().take(2).for_each(SlotLease::page);
    assert_eq!(ask(6).await.err(), Some(NoSlot::Budget(SECOND * 6)));
    // A scroll with many more pages than most does not make up for another.
    (0..100).for_each(|_| held[2].page());
    assert_eq!(ask(4).await.err(), Some(NoSlot::Budget(SECOND * 4)));
    held.drain(..).for_each(SlotLease::end);
    for task in waiting {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots));
}

#[tokio::test(start_paused = true)]
async fn slots_that_wait_for_the_budget_say_nothing_of_scrolls() {
    let (slots, _) = short_of_budget(8).await;
    (0..READ_MIN).for_each(|_| gave(&slots, "a", 20, true));
    // There are as many searches as slots, and none has had an answer. The next scrolls may be
    // short.
    let mut held = Vec::new();
    while let Ok(slot) = {
        let spend = spend(Lane::Interactive, "a");
        slots.take(&spend, LINGER, Clock::system().now()).await
    } {
        held.push(slot);
    }
    let next = tokio::spawn({
        let (slots, spend) = (slots.clone(), wanted(Lane::Interactive, "a", SECOND * 2));
        async move { search(&slots, spend).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(usage(&slots), (7, 1));
    held.drain(..).for_each(SlotLease::end);
    next.await.unwrap().ok().unwrap().end();
    assert!(is_clean(&slots));
}

/// Runs a walk: a first page that its caller waits for, and the others once searches wait. Returns
/// how long the first page took.
async fn walked(
    slots: Arc<Slots>,
    governor: Arc<Governor>,
    spend: Spend,
    pages: usize,
) -> Result<Duration, NoSlot> {
    let begun = Clock::system().now();
    let slot = search(&slots, spend.clone()).await?;
    drop(governor.admit(&spend).await);
    slot.page();
    let took = begun.elapsed();
    tokio::spawn(async move {
        for _ in 1..pages {
            let lane = loop {
                let pressed = slots.pressed.notified();
                match slot.idle() {
                    Some(lane) => break lane,
                    None => pressed.await,
                }
            };
            drop(governor.admit(&wanted(lane, "gateway", SECOND * 600)).await);
            slot.page();
        }
        slot.end();
    });
    Ok(took)
}

#[tokio::test(start_paused = true)]
async fn within_the_budget_nobody_is_refused_whatever_was_asked_before() {
    for seed in 0..8 {
        let (slots, governor) = short_of_budget(16).await;
        let (mut random, mut tasks) = (fastrand::Rng::with_seed(seed), tokio::task::JoinSet::new());
        // Nine calls in ten seconds, in bursts, of searches of one to six pages. Nothing is saved
        // up.
        for burst in 0..60 {
            let mut calls = 9;
            while calls > 0 {
                let pages = if burst % 8 < 4 {
                    6
                } else {
                    1 + random.usize(..3)
                }
                .min(calls);
                calls -= pages;
                let payer = ["a", "b", "c"][random.usize(..3)];
                let (slots, governor) = (slots.clone(), governor.clone());
                tasks.spawn(async move {
                    sleep(SECOND * 10 * burst).await;
                    let spend = wanted(Lane::Interactive, payer, SECOND * 30);
                    walked(slots, governor, spend, pages).await
                });
            }
        }
        for took in tasks.join_all().await {
            let took = took.expect("in time");
            assert!(took < SECOND * 30, "{took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn short_questions_after_deep_ones_are_refused_only_where_they_would_come_too_late() {
    let (slots, governor) = short_of_budget(32).await;
    let ask = |pages, patience| {
        let spend = wanted(Lane::Interactive, "a", SECOND * patience);
        tokio::spawn(walked(slots.clone(), governor.clone(), spend, pages))
    };
    // Ten scrolls of ten pages each, read to their end because others waited.
    (0..READ_MIN + 2).for_each(|_| gave(&slots, "a", 10, true));
    // At one call a second, the sixtieth search gets its call after sixty seconds. No later one is
    // admitted.
    let mut tasks = Vec::new();
    for _ in 0..65 {
        tasks.push(ask(1, 60));
        tokio::task::yield_now().await;
    }
    let mut answered = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(took) => {
                assert!(took < SECOND * 60, "{took:?}");
                answered += 1;
            }
            Err(why) => assert!(matches!(why, NoSlot::Budget(wait) if wait >= SECOND * 60)),
        }
    }
    assert_eq!(answered, 59);
}

#[tokio::test(start_paused = true)]
async fn each_guess_adds_for_its_error_and_what_is_known_does_not() {
    let (slots, _) = short_of_budget(8).await;
    let (mut held, waiting) = crowded(&slots, &[600; 17]).await;
    // Sixteen searches are before the last one.
    assert_eq!(before_the_last(&slots), (16, Lane::Interactive));
    // Seven running scrolls and ten to come have two more pages each, which is 34. All 50 are
    // padded by a sixteenth.
    (0..READ_MIN).for_each(|_| gave(&slots, "a", 3, true));
    assert_eq!(before_the_last(&slots), (53, Lane::Refresh));
    // Of every two slots, one goes to another payer.
    (READ_MIN..AMID_MIN).for_each(|_| gave(&slots, "a", 0, false));
    (0..AMID_MIN).for_each(|_| gave(&slots, "b", 0, false));
    assert_eq!(before_the_last(&slots), (106 + 6, Lane::Refresh));
    held.drain(..).for_each(SlotLease::end);
    for task in waiting {
        task.await.unwrap().ok().unwrap().end();
    }
    assert!(is_clean(&slots));
}

#[test]
fn pages_are_guessed_from_those_under_way_and_the_deep_count_for_no_more_than_they_are() {
    let (now, payer) = (Clock::system().now(), "a".into());
    let mut recent = RecentSlots::default();
    let begin = |recent: &mut RecentSlots, id, pages, ended| {
        recent.give(id, &payer, now);
        recent.read(id, pages, ended, now);
    };
    let pages = |recent: &RecentSlots| recent.pages_of(&HashSet::from([&"a".into()]), now);
    // Too few scrolls say nothing. Eight of them show that there is a second page, then a third.
    for id in 1..8 {
        begin(&mut recent, id, 1, false);
    }
    assert_eq!(pages(&recent), 1.0);
    begin(&mut recent, 8, 1, false);
    assert_eq!(pages(&recent), 2.0);
    for id in 1..9 {
        recent.read(id, 2, false, now);
    }
    assert_eq!(pages(&recent), 3.0);
    // Eight of thirty-two go on after their first page, however long they hold their slots.
    for id in 9..33 {
        begin(&mut recent, id, 1, true);
    }
    assert_eq!(pages(&recent), 1.0 + 0.25 + 0.25);
    for id in 1..9 {
        recent.read(id, 3, id % 2 == 0, now);
    }
    assert_eq!(pages(&recent), 1.0 + 0.25 + 0.25 + 0.125);
    // Old scrolls, and slots of others, do not count.
    let later = now + LATELY + Duration::from_millis(1);
    let of_a = ["a".into()];
    assert_eq!(recent.pages_of(&of_a.iter().collect(), later), 1.0);
    let of_b = ["b".into()];
    assert_eq!(recent.pages_of(&of_b.iter().collect(), now), 1.0);
    // No more of them are kept than are counted.
    for id in 100..400 {
        recent.give(id, &payer, now);
    }
    assert_eq!((recent.given.len(), recent.amid), (GIVEN, GIVEN));
    recent.give(400, &payer, later);
    assert_eq!((recent.given.len(), recent.amid), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn every_turn_that_comes_in_time_is_given() {
    let (slots, governor) = short_of_budget(8).await;
    // Two payers with a hundred searches each, whose callers wait twenty seconds: that is twenty
    // calls.
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
        let slot = slots.take(&spend, linger, Clock::system().now()).await;
        slot.ok().unwrap().opened();
    }
    assert_eq!(usage(&slots), (8, 0));
    let begun = Clock::system().now();
    let soon = |lane| {
        let (slots, spend) = (slots.clone(), spend(lane, "a"));
        let deadline = begun + SECOND * 5;
        async move { slots.take(&spend, LINGER, deadline).await }
    };
    let why = soon(Lane::Interactive).await.err();
    assert_eq!(
        why,
        Some(NoSlot::Short(Shortage::VendorScrolls, Some(SECOND * 6)))
    );
    // A quarter of these slots is reserved for the other lanes.
    let why = soon(Lane::Export).await.err();
    assert_eq!(
        why,
        Some(NoSlot::Short(Shortage::VendorScrolls, Some(SECOND * 10)))
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // A search that comes in time waits.
    let patient = spend(Lane::Interactive, "a");
    let patient = slots.take(&patient, LINGER, begun + SECOND * 7).await;
    let slot = patient.ok().unwrap();
    assert_eq!(begun.elapsed(), SECOND * 6);
    // While a scroll is being read, the time is unknown.
    let why = soon(Lane::Interactive).await.err();
    assert_eq!(why, Some(NoSlot::Short(Shortage::VendorScrolls, None)));
    slot.end();
}

proptest::proptest! {
    #[test]
    fn the_mean_is_taken_page_by_page(known in proptest::collection::vec((0..40_usize, proptest::bool::ANY), 0..40)) {
        let (mut mean, mut go_on) = (1.0, 1.0);
        for page in 1.. {
            let reached = known.iter().filter(|one| one.0 >= page).count();
            if reached < READ_MIN {
                break;
            }
            let ended = known.iter().filter(|one| **one == (page, true)).count();
            go_on *= (reached - ended) as f64 / reached as f64;
            mean += go_on;
        }
        let quick = mean_pages(known);
        proptest::prop_assert!((quick - mean).abs() < 1e-9, "{quick} {mean}");
    }

    #[test]
    fn long_walks_take_no_longer(pages in 1_000_000_000..usize::MAX / 64) {
        // A step for each page would take seconds.
        proptest::prop_assert!(mean_pages(vec![(pages, false); 32]) >= pages as f64);
    }
}
