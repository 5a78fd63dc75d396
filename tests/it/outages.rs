//! A vendor that hangs makes nobody wait long, and one that comes back is not met by everything at
//! once.

use std::sync::Arc;

use msp_gateway::cache::Detail;
use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::domain::CacheOutcome;
use msp_gateway::reads::ReadError;
use msp_gateway::sandbox::{self, FaultKind, SimFault, SimVendor};
use tokio::task::JoinSet;

use crate::kit::{Rig, Setup, first};
use crate::quota::{ALL, forcing, one_day, rig, seconds, vendor_calls};

fn hangs() -> SimFault {
    SimFault::on_any(FaultKind::Latency { ms: 3_600_000 })
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_hangs_is_waited_for_once_and_briefly() {
    for ask in ALL {
        let rig = rig(|setup| setup.lifetimes = seconds(10, 10, 3600));
        let one = ask.ok(&rig).await;
        // Past the time in which it is served before a refresh.
        sleep(Duration::from_secs(60)).await;
        let before = vendor_calls(&rig);
        rig.sandbox.fault(hangs());
        let (begun, mut tasks) = (Instant::now(), JoinSet::new());
        // Asked when, answered when, in milliseconds.
        for (asked, answered) in [(0, 2_000), (500, 2_000), (3_000, 3_000), (9_000, 9_000)] {
            let at = begun + Duration::from_millis(asked);
            let rig = rig.clone();
            let etag = one.etag.clone();
            tasks.spawn(async move {
                sleep(at.saturating_duration_since(Instant::now())).await;
                let answer = ask.ok(&rig).await;
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
                assert!((answered..answered + 20).contains(&took), "{ask:?}: {took}");
                assert_eq!(answer.note.detail, Some(Detail::StaleOnError), "{ask:?}");
                assert_eq!(answer.etag, etag, "{ask:?}");
            });
        }
        tasks.join_all().await;
        assert_eq!(vendor_calls(&rig) - before, 1, "{ask:?}: the same fetch");
        // A slow vendor's answer is kept, though nobody waited for it.
        rig.sandbox.clear_faults();
        rig.sandbox
            .fault(SimFault::on_any(FaultKind::Latency { ms: 3_000 }));
        sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        let answer = ask.ok(&rig).await;
        assert_eq!(answer.note.detail, Some(Detail::StaleOnError), "{ask:?}");
        assert!(begun.elapsed() < Duration::from_millis(2_020), "{ask:?}");
        sleep(Duration::from_secs(2)).await;
        let answer = ask.ok(&rig).await;
        assert_eq!(answer.note.outcome, CacheOutcome::Hit, "{ask:?}");
        // Who has nothing, or wants something newer, waits as long as it takes.
        let asker = forcing(&rig, "no-cache");
        assert_eq!(
            ask.of(&rig, &asker).await.unwrap().note.outcome,
            CacheOutcome::Miss
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_customer_out_of_all_is_not_waited_for_long_either() {
    let rig = rig(|setup| {
        setup.lifetimes = seconds(10, 10, 3600);
        setup.world.cases = 300;
    });
    rig.page(&rig.everyone(), None, &first(25, ""))
        .await
        .unwrap();
    sleep(Duration::from_secs(120)).await;
    rig.sandbox.fault(hangs());
    let begun = Instant::now();
    for answered in [2_000, 2_000] {
        let everyone = rig.everyone();
        let page = rig.page(&everyone, Some("org_1"), &first(25, "")).await;
        let note = page.unwrap().answer.note;
        assert_eq!(note.detail, Some(Detail::StaleOnError));
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
        assert!((answered..answered + 20).contains(&took), "{took}");
    }
}

/// How many of the vendor's calls were made for searches that were asked before, and how many for
/// new ones, in each ten seconds after the vendor's return from `away`.
async fn return_of_the_vendor(away: impl FnOnce(&Rig), back: impl FnOnce(&Rig)) -> Vec<(u64, u64)> {
    let rig = rig(|setup| {
        setup.lifetimes = seconds(20, 40, 7200);
        setup.wiv = Box::new(|wiv| {
            wiv.requests_per_minute = 600;
            wiv.concurrency = 8;
        });
    });
    for number in 0..400 {
        rig.page(&rig.everyone(), None, &one_day(number))
            .await
            .unwrap();
    }
    away(&rig);
    let ask = |number: u32| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let page = rig.page(&rig.everyone(), None, &one_day(number)).await;
            page.map(|page| page.answer.note)
        })
    };
    // Everything is past the time in which it is served before a refresh.
    let mut probe = 100_000;
    for _ in 0..100 {
        probe += 1;
        let _ = ask(probe).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    back(&rig);
    while ask(probe).await.unwrap().is_err() {
        probe += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let mut seen = Vec::new();
    for tens in 0..4 {
        let before = rig.searches();
        let mut new = JoinSet::new();
        for second in 0..10 {
            for number in 0..400 {
                drop(ask(number));
            }
            for at in 0..2 {
                new.spawn(ask(1_000 + tens * 100 + second * 10 + at));
            }
            sleep(Duration::from_secs(1)).await;
        }
        let begun = Instant::now();
        let fresh = new.join_all().await;
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "new ones go first"
        );
        assert!(fresh.iter().all(|found| matches!(found, Ok(Ok(_)))));
        let new = u64::try_from(fresh.len()).unwrap();
        seen.push((rig.searches() - before - new, new));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn what_grew_stale_is_refreshed_by_and_by_when_the_vendor_is_back() {
    let refuse = FaultKind::Status {
        status: 429,
        body: None,
        retry_after: Some("90".into()),
        processed: false,
    };
    for seen in [
        return_of_the_vendor(
            |rig| rig.sandbox.set_down(SimVendor::Wiv, true),
            |rig| rig.sandbox.set_down(SimVendor::Wiv, false),
        )
        .await,
        return_of_the_vendor(
            |rig| rig.sandbox.fault(SimFault::on_any(refuse)),
            |rig| rig.sandbox.clear_faults(),
        )
        .await,
    ] {
        let refreshes: Vec<u64> = seen.iter().map(|(refreshes, _)| *refreshes).collect();
        // A fifth of the budget at first, and at last what new questions leave of it, without a
        // burst.
        assert!((18..=35).contains(&refreshes[0]), "{refreshes:?}");
        assert!((55..=65).contains(&refreshes[1]), "{refreshes:?}");
        assert!((80..=90).contains(&refreshes[2]), "{refreshes:?}");
        assert!((65..=90).contains(&refreshes[3]), "{refreshes:?}");
    }
}

/// Four new questions a second for 210 s of a vendor with this fault, then one each 250 ms of a
/// vendor that is well. How long the first good answer took, and the errors of both times.
async fn new_questions_before_and_after(
    fault: SimFault,
    tweak: impl FnOnce(&mut Setup),
) -> (Duration, Vec<ReadError>, Vec<ReadError>) {
    let mut setup = Setup::default();
    setup.world.cases = 300;
    setup.wiv = Box::new(|wiv| {
        wiv.requests_per_minute = 600;
        wiv.concurrency = 8;
    });
    tweak(&mut setup);
    let rig = Arc::new(Rig::new(setup));
    rig.sandbox.fault(fault);
    let ask = |rig: &Arc<Rig>, n: u64| {
        let rig = rig.clone();
        async move {
            let body = first(25, &format!(",\"n\":{n}"));
            rig.page(&rig.everyone(), None, &body).await.err()
        }
    };
    let mut during = JoinSet::new();
    for n in 0..4 * 210 {
        during.spawn(ask(&rig, n));
        if n % 4 == 3 {
            sleep(Duration::from_secs(1)).await;
        }
    }
    rig.sandbox.clear_faults();
    let (well, mut first_good, mut after) = (Instant::now(), None, Vec::new());
    for n in 0..240 {
        match ask(&rig, 10_000 + n).await {
            None => _ = first_good.get_or_insert_with(|| well.elapsed()),
            Some(error) => after.push(error),
        }
        sleep(Duration::from_millis(250)).await;
    }
    let during = during.join_all().await.into_iter().flatten().collect();
    (first_good.unwrap_or(Duration::MAX), during, after)
}

#[tokio::test(start_paused = true)]
async fn new_searches_work_again_as_soon_as_the_vendor_does() {
    let minute = || FaultKind::Latency { ms: 60_000 };
    let search = sandbox::SimOperation::Search;
    let faults = [
        ("hangs", 200, SimFault::on_any(minute())),
        ("hangs, few scrolls", 32, SimFault::on_any(minute())),
        ("searches hang", 200, SimFault::on(search, minute())),
        ("resets", 200, SimFault::on_any(FaultKind::DropAfter)),
        (
            "cut",
            200,
            SimFault::on_any(FaultKind::CutBody { at: None }),
        ),
    ];
    for (name, max, fault) in faults {
        let asked = new_questions_before_and_after(fault, |setup| {
            setup.snapshots.vendor_scrolls_max = max;
        });
        let (first_good, during, after) = asked.await;
        println!("{name}: {first_good:?}, then {after:?}");
        assert!(
            first_good <= Duration::from_secs(2),
            "{name}: {first_good:?}"
        );
        // Those that still found the circuit open.
        assert!(after.len() <= 8, "{name}: {after:?}");
        let shed = |error: &&ReadError| matches!(error, ReadError::Overloaded { .. });
        let shed = during.iter().chain(&after).filter(shed).count();
        assert_eq!(shed, 0, "{name}: the vendor is the reason, not the gateway");
    }
}
