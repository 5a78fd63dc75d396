//! Crowds: thousands of callers open a search, read one page and leave. What they leave behind must
//! neither pile up at the vendor nor keep others out.

use std::sync::Arc;

use msp_gateway::clock::{Duration, sleep};
use msp_gateway::reads::ReadError;
use msp_gateway::sandbox;

use crate::kit::{Rig, Setup, first};

const CALLERS: u64 = 5_000;
const SEARCHES: u64 = 200;

/// A fixed spread of numbers.
fn spread(of: u64) -> u64 {
    of.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

/// All of them come within `within`; how many were served, and how many were told to come later.
async fn crowd(rig: &Arc<Rig>, within: Duration) -> (u64, u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let rig = rig.clone();
        let within = u64::try_from(within.as_millis()).unwrap();
        tasks.spawn(async move {
            sleep(Duration::from_millis(spread(caller) % within)).await;
            let body = first(25, &format!(",\"search\":{}", caller % SEARCHES));
            match rig.page(&rig.everyone(), None, &body).await {
                Ok(page) => {
                    assert!(page.rows.len() == 25 && page.token.is_some());
                    (1, 0)
                }
                Err(ReadError::Overloaded { .. }) => (0, 1),
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    let ended = tasks.join_all().await.into_iter();
    ended.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn rig(requests_per_minute: u32) -> Arc<Rig> {
    Arc::new(Rig::new(Setup {
        world: sandbox::Options {
            // Two vendor pages: every search leaves its scroll open after the first.
            cases: 700,
            wiv_requests_per_minute: None,
            nable_requests_per_minute: None,
            ..sandbox::Options::default()
        },
        wiv: Box::new(move |wiv| {
            wiv.requests_per_minute = requests_per_minute;
            wiv.concurrency = 8;
        }),
        ..Setup::default()
    }))
}

/// A search that nobody made before is served, and the vendor never had more scrolls open than it
/// may.
async fn hold(rig: &Rig) {
    let page = rig
        .page(&rig.everyone(), None, &first(25, ",\"search\":\"new\""))
        .await;
    assert_eq!(page.unwrap().rows.len(), 25);
    let scrolls = rig.sandbox.counts().scrolls;
    let max = rig.reads.cases.snapshots().options.load().open_scrolls_max as u64;
    assert!(scrolls.peak_open <= max, "{scrolls:?}");
    assert_eq!(scrolls.expired, 0, "left to the vendor: {scrolls:?}");
}

#[tokio::test(start_paused = true)]
async fn five_thousand_callers_leave_after_page_one() {
    let rig = rig(600_000);
    let served = crowd(&rig, Duration::from_secs(10)).await;
    assert_eq!(served, (CALLERS, 0));
    // One search each, and at most the one page that ends it.
    assert_eq!(rig.searches(), SEARCHES);
    assert!(rig.continues() <= SEARCHES);
    hold(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_beyond_the_budget_is_told_so_and_a_new_search_is_served() {
    // 400 calls are wanted within 20 s, 200 are there.
    let rig = rig(600);
    let (served, overloaded) = crowd(&rig, Duration::from_secs(20)).await;
    println!("{served} served, {overloaded} overloaded");
    assert!(
        served >= CALLERS / 4,
        "{served} served, {overloaded} overloaded"
    );
    hold(&rig).await;
}
