//! Tests of a governor: turns, deadlines, hold-downs and what operators see.

use http::HeaderValue;

use super::*;
use crate::admission::pace::tests::settings;
use crate::admission::{Felt, Payer, Spend};
use crate::clock::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn governor(requests_per_minute: u32, concurrency: usize) -> Arc<Governor> {
    let settings = settings(requests_per_minute, concurrency);
    let metrics = Metrics::new().unwrap();
    Governor::new(Vendor::Wiv, settings, Clock::system(), &metrics)
}

fn spend(lane: Lane, caller: &str, wait: Duration) -> Spend {
    Spend {
        lane,
        deadline: Clock::system().now() + wait,
        wanted_until: Clock::system().now() + wait,
        payer: Payer::caller(caller.into(), None),
        within: None,
    }
}

/// Takes a place that is free.
async fn place(governor: &Arc<Governor>) -> VendorPermit {
    let spend = spend(Lane::Interactive, "x", SECOND);
    governor.admit(&spend).await.unwrap()
}

/// Admits in the background and logs its name when it goes.
fn go(
    governor: &Arc<Governor>,
    log: &Arc<Mutex<Vec<&'static str>>>,
    lane: Lane,
    name: &'static str,
) -> tokio::task::JoinHandle<()> {
    let (governor, log) = (Arc::clone(governor), Arc::clone(log));
    let spend = spend(lane, name.split('-').next().unwrap(), SECOND * 600);
    tokio::spawn(async move {
        if let Ok(permit) = governor.admit(&spend).await {
            log.lock().push(name);
            sleep(Duration::from_millis(10)).await;
            drop(permit);
        }
    })
}

#[tokio::test(start_paused = true)]
async fn turns_come_by_lane_and_caller() {
    let governor = governor(60, 1);
    let log = Arc::default();
    let held = place(&governor).await;
    let mut tasks = Vec::new();
    for (lane, name) in [
        (Lane::Export, "e-1"),
        (Lane::Interactive, "a-1"),
        (Lane::Interactive, "a-2"),
        (Lane::Interactive, "a-3"),
        (Lane::ReadAhead, "r-1"),
        (Lane::Interactive, "b-1"),
        (Lane::Refresh, "f-1"),
    ] {
        tasks.push(go(&governor, &log, lane, name));
        tokio::task::yield_now().await;
    }
    assert_eq!(governor.snapshot().queued[0], (Lane::Interactive, 4));
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    let order = log.lock().clone();
    assert_eq!(order, ["a-1", "b-1", "a-2", "a-3", "f-1", "r-1", "e-1"]);
    assert_eq!(governor.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_saturated_budget_gives_exactly_the_rate() {
    let governor = governor(120, 8);
    let start = Clock::system().now();
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let mut tasks = Vec::new();
    for n in 0..140 {
        let name = if n % 2 == 0 { "a-1" } else { "b-1" };
        tasks.push(go(&governor, &log, Lane::Interactive, name));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(log.lock().len(), 140);
    // 20 go at once, 120 at two a second.
    let took = start.elapsed();
    assert!(took >= SECOND * 60 && took < SECOND * 61, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_holds_nobody_up() {
    let governor = governor(60_000, 1);
    let log = Arc::default();
    let held = place(&governor).await;
    let first = go(&governor, &log, Lane::Interactive, "a-1");
    tokio::task::yield_now().await;
    let second = go(&governor, &log, Lane::Interactive, "b-1");
    tokio::task::yield_now().await;
    // Admitted and cancelled in the same moment: the turn passes on.
    drop(held);
    first.abort();
    second.await.unwrap();
    assert_eq!(*log.lock(), ["b-1"]);
    let after = governor.snapshot();
    assert_eq!((after.in_flight, after.queued[0].1), (0, 0));
    assert!(governor.inner.lock().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_wait_outlasts_its_deadline() {
    let governor = governor(60_000, 1);
    let held = place(&governor).await;
    let start = Clock::system().now();
    let late = governor.admit(&spend(Lane::Interactive, "a", SECOND)).await;
    assert!(late.is_err());
    assert_eq!(start.elapsed(), SECOND);
    drop(held);
    assert!(governor.inner.lock().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whom_nobody_waits_for_any_more_lets_others_pass() {
    let governor = governor(60, 1);
    let left = |wait| Spend {
        wanted_until: Clock::system().now() + wait,
        ..spend(Lane::Interactive, "a", SECOND * 60)
    };
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let held = place(&governor).await;
    let abandoned = {
        let (governor, log, spend) = (Arc::clone(&governor), Arc::clone(&log), left(SECOND));
        tokio::spawn(async move {
            let permit = governor.admit(&spend).await;
            log.lock().push("abandoned");
            drop(permit);
        })
    };
    sleep(SECOND * 2).await;
    assert_eq!(governor.snapshot().queued[1], (Lane::Refresh, 1));
    let wanted = go(&governor, &log, Lane::Interactive, "b-1");
    tokio::task::yield_now().await;
    drop(held);
    wanted.await.unwrap();
    abandoned.await.unwrap();
    assert_eq!(*log.lock(), ["b-1", "abandoned"]);
    // A call that would be too late is refused at once. A call whose callers have left waits in
    // a background lane.
    let governor = self::governor(6, 1);
    drop(place(&governor).await);
    assert!(governor.admit(&left(SECOND)).await.is_err());
    let start = Clock::system().now();
    drop(governor.admit(&left(Duration::ZERO)).await.unwrap());
    assert_eq!(start.elapsed(), SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn a_429_refuses_the_waiting_and_a_reset_lets_them_wait() {
    let governor = governor(600, 1);
    let held = place(&governor).await;
    let waiting = {
        let (governor, spend) = (
            Arc::clone(&governor),
            spend(Lane::Interactive, "a", SECOND * 60),
        );
        tokio::spawn(async move { governor.admit(&spend).await.map(drop) })
    };
    tokio::task::yield_now().await;
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("9"));
    let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
    assert_eq!(hold, Some(SECOND * 9));
    assert_eq!(waiting.await.unwrap().unwrap_err().retry_after, SECOND * 9);
    drop(held);

    sleep(SECOND * 9).await;
    headers.clear();
    headers.insert("ratelimit", HeaderValue::from_static("\"a\";r=0;t=4"));
    governor.hear(StatusCode::OK, &headers);
    assert_eq!(governor.snapshot().hold_down, Some(SECOND * 4));
    let start = Clock::system().now();
    let patient = spend(Lane::Interactive, "a", SECOND * 5);
    let permit = timeout(SECOND * 5, governor.admit(&patient));
    permit.await.unwrap().unwrap().unsent();
    assert_eq!(start.elapsed(), SECOND * 4);
    assert_eq!(governor.snapshot().remaining, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_force_is_told_at_every_look() {
    let metrics = Metrics::new().unwrap();
    let governor = Governor::new(Vendor::Wiv, settings(120, 8), Clock::system(), &metrics);
    let told = || {
        // As every scrape does.
        governor.snapshot();
        let text = metrics.render().unwrap();
        ["budget_remaining", "rate_limit", "concurrency_limit"].map(|name| {
            let line = format!("msp_gateway_vendor_{name}{{vendor=\"wiv\"}} ");
            let value = text.lines().find_map(|text| text.strip_prefix(&line));
            value.unwrap().parse::<u32>().unwrap()
        })
    };
    assert_eq!(told(), [20, 120, 8]);
    let wanted = spend(Lane::Interactive, "a", SECOND * 9);
    let permit = governor.admit(&wanted).await.unwrap();
    assert_eq!(told(), [19, 120, 8]);
    permit.unsent();
    assert_eq!(told(), [20, 120, 8]);
    governor.set(settings(60, 2));
    assert_eq!(told(), [10, 60, 2]);
    governor.begin_anew();
    assert_eq!(told(), [1, 60, 2]);
    sleep(SECOND * 3).await;
    assert_eq!(governor.snapshot().remaining, 4);
    assert_eq!(told(), [4, 60, 2]);
    // A late vendor gets fewer concurrent calls, if `concurrency_adaptive` is on.
    governor.set(PaceSettings {
        concurrency_adaptive: true,
        ..settings(60, 5)
    });
    let permit = governor.admit(&wanted).await.unwrap();
    sleep(SECOND * 6).await;
    assert_eq!(permit.age(), SECOND * 6);
    permit.ended(Felt::Late);
    assert_eq!(told(), [9, 60, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_comes_after_the_turn_is_told_before_anything_is_sent() {
    let governor = governor(120, 8);
    assert_eq!(governor.may_still_send(), Ok(()));
    let none = HeaderMap::new();
    assert_eq!(governor.hear(StatusCode::OK, &none), None);
    let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &none);
    assert_eq!(hold, Some(SECOND * 5));
    sleep(SECOND * 2).await;
    let refused = governor.may_still_send().unwrap_err();
    assert_eq!(refused.retry_after, SECOND * 3);
    sleep(SECOND * 3).await;
    assert_eq!(governor.may_still_send(), Ok(()));
    // Without a `Retry-After`, the reset of an exhausted count is the time to come back. The
    // reset of a count that is not exhausted says nothing.
    let mut headers = HeaderMap::new();
    headers.insert("ratelimit", HeaderValue::from_static("\"a\";r=0;t=40"));
    let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
    assert_eq!(hold, Some(SECOND * 40));
    sleep(SECOND * 40).await;
    headers.insert("ratelimit", HeaderValue::from_static("\"a\";r=1;t=40"));
    let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
    assert_eq!(hold, Some(SECOND * 20));
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_too_long_for_those_who_would_be_gone() {
    let governor = governor(60, 8);
    governor.begin_anew();
    drop(place(&governor).await);
    let others = (3, Lane::Interactive);
    let wanted = |wait| Spend {
        wanted_until: Clock::system().now() + wait,
        ..spend(Lane::Interactive, "a", SECOND * 60)
    };
    let wait = |spend: &Spend| governor.too_long(spend, others);
    assert_eq!(wait(&wanted(SECOND * 4)), Some(SECOND * 4));
    assert_eq!(wait(&wanted(SECOND * 5)), None);
    assert_eq!(wait(&spend(Lane::Refresh, "a", SECOND * 60)), None);
    // A call that no caller waits for uses a background lane. The ramp gives that lane four
    // calls in eleven seconds.
    let late = |wait| Spend {
        wanted_until: Clock::system().now(),
        ..spend(Lane::Interactive, "a", wait)
    };
    assert_eq!(wait(&late(SECOND * 60)), None);
    let told = wait(&late(SECOND * 5)).unwrap();
    assert_eq!(told.as_millis() / 10, 1137);
}

#[tokio::test(start_paused = true)]
async fn new_rates_reach_those_who_wait() {
    let governor = governor(1, 1);
    drop(place(&governor).await);
    let log = Arc::default();
    let waiting = go(&governor, &log, Lane::Interactive, "a-1");
    tokio::task::yield_now().await;
    let start = Clock::system().now();
    governor.set(settings(600, 1));
    waiting.await.unwrap();
    assert!(start.elapsed() < SECOND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_when_calls_come_and_go_on_many_threads() {
    let governor = governor(u32::MAX, 3);
    let mut tasks = Vec::new();
    for n in 0..2000usize {
        let governor = Arc::clone(&governor);
        let spend = spend(Lane::ALL[n % 4], ["a", "b", "c"][n % 3], SECOND * 600);
        tasks.push(tokio::spawn(async move {
            let permit = governor.admit(&spend).await;
            tokio::task::yield_now().await;
            drop(permit);
        }));
        if n % 5 == 0 {
            tasks[fastrand::usize(..tasks.len())].abort();
        }
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for task in tasks {
        let _ = task.await;
    }
    let after = governor.snapshot();
    assert_eq!(after.in_flight, 0);
    assert!(after.queued.iter().all(|(_, n)| *n == 0));
    assert!(governor.inner.lock().waiting.is_empty());
}
