//! Crowds: thousands of callers open a search, read one page and leave. What they leave behind must
//! neither pile up at the vendor nor keep others out.

use std::sync::Arc;

use msp_gateway::admission::Payer;
use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::domain::PageSize;
use msp_gateway::reads::ReadError;
use msp_gateway::sandbox;
use msp_gateway::snapshot::SnapshotOptions;
use msp_gateway::upstream::Fault;

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
                Err(ReadError::Upstream(error)) if error.fault == Fault::BudgetExhausted => (0, 1),
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

/// New questions of one vendor page each, this many in each of `seconds`. How long each took, and
/// whether it was answered.
async fn questions(
    rig: &Arc<Rig>,
    payer: &'static str,
    each_second: u32,
    seconds: u32,
) -> Vec<(Duration, bool)> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..each_second * seconds {
        let rig = rig.clone();
        tasks.spawn(async move {
            sleep(Duration::from_secs(1) * number / each_second).await;
            let (begun, mut asker) = (Instant::now(), rig.everyone());
            asker.payer = Payer::caller(payer.into(), None);
            let question = first(25, &format!(",\"{payer}\":{number}"));
            match rig.page(&asker, None, &question).await {
                Ok(_) => (begun.elapsed(), true),
                Err(ReadError::Upstream(error)) => {
                    assert_eq!(error.fault, Fault::BudgetExhausted);
                    let wait = error.retry_after.unwrap();
                    if begun.elapsed().is_zero() {
                        // Who waits already has thirty seconds of it.
                        let until = Duration::from_secs(26);
                        assert!(wait >= until && wait < until * 2, "{wait:?}");
                    }
                    (begun.elapsed(), false)
                }
                Err(ReadError::DeadlinePassed { .. }) => (begun.elapsed(), false),
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    tasks.join_all().await
}

/// A rig before a vendor with `cases` cases and a budget of ten calls a second.
fn ten_calls_a_second(cases: usize, snapshots: SnapshotOptions) -> Arc<Rig> {
    Arc::new(Rig::new(Setup {
        world: sandbox::Options {
            cases,
            wiv_requests_per_minute: None,
            nable_requests_per_minute: None,
            ..sandbox::Options::default()
        },
        wiv: Box::new(|wiv| {
            wiv.requests_per_minute = 600;
            wiv.concurrency = 8;
        }),
        snapshots,
        ..Setup::default()
    }))
}

#[tokio::test(start_paused = true)]
async fn five_times_the_budget_is_refused_at_once_and_the_budget_is_used() {
    let rig = ten_calls_a_second(10, SnapshotOptions::default());
    // Ten calls a second are there; a hundred at first, and those of the thirty seconds after.
    let (many, few) = tokio::join!(
        questions(&rig, "many", 50, 60),
        questions(&rig, "few", 1, 60)
    );
    let answered = many.iter().filter(|(_, is_good)| *is_good).count();
    let left = 100 + 10 * 90 - few.len();
    assert!(
        answered * 100 >= left * 95 && answered <= left,
        "{answered} of {left}"
    );
    let refused = many.len() - answered;
    let late = many
        .iter()
        .filter(|(took, is_good)| !is_good && !took.is_zero());
    let late = late.count();
    println!("{answered} answered, {refused} refused, of them {late} late");
    // Only who was let in before it was known how often another goes first.
    assert!(late * 50 <= refused, "{late} of {refused}");
    // Turns are taken between payers, however much one of them asks.
    for (took, is_good) in few {
        assert!(is_good && took < Duration::from_secs(1), "{took:?}");
    }
    assert_eq!(rig.searches() as usize, answered + 60);
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Answered,
    AtOnce,
    Late,
}

/// New questions of three vendor pages each, at random times, this many a second in `seconds`.
async fn deep_questions(
    rig: &Arc<Rig>,
    payer: &'static str,
    each_second: f64,
    seconds: f64,
) -> Vec<(Duration, Told)> {
    let (mut tasks, mut at) = (tokio::task::JoinSet::new(), 0.0);
    let mut random = fastrand::Rng::with_seed(payer.len() as u64);
    while at < seconds {
        at -= (1.0 - random.f64()).ln() / each_second;
        let rig = rig.clone();
        tasks.spawn(async move {
            sleep(Duration::from_secs_f64(at)).await;
            let (begun, mut asker) = (Instant::now(), rig.everyone());
            asker.payer = Payer::caller(payer.into(), None);
            let question = first(5, &format!(",\"{payer}\":\"{at}\""));
            let told = match rig.page(&asker, None, &question).await {
                Ok(_) => Told::Answered,
                Err(ReadError::Upstream(error)) if begun.elapsed().is_zero() => {
                    assert_eq!(error.fault, Fault::BudgetExhausted);
                    let (wait, until) = (error.retry_after.unwrap(), Duration::from_secs(29));
                    assert!(wait >= until && wait < until * 2, "{wait:?}");
                    Told::AtOnce
                }
                Err(ReadError::Overloaded { retry_after, .. }) => {
                    println!("{payer} asked after {at:.1} s is refused late: {retry_after:?}");
                    Told::Late
                }
                Err(other) => panic!("{other:?}"),
            };
            (begun.elapsed(), told)
        });
    }
    tasks.join_all().await
}

#[tokio::test(start_paused = true)]
async fn deep_questions_beyond_the_budget_are_refused_at_once_too() {
    let snapshots = SnapshotOptions {
        vendor_page_size: PageSize::new(10).unwrap(),
        ..SnapshotOptions::default()
    };
    let rig = ten_calls_a_second(28, snapshots);
    // Ten calls a second are there, and three are wanted for each question. A hundred are saved up.
    let (many, few) = tokio::join!(
        deep_questions(&rig, "many", 16.7, 60.0),
        deep_questions(&rig, "a few", 0.17, 60.0)
    );
    let count = |what| many.iter().filter(|(_, told)| *told == what).count();
    let (answered, at_once, late) = (
        count(Told::Answered),
        count(Told::AtOnce),
        count(Told::Late),
    );
    println!("{answered} answered, {at_once} refused at once, {late} late");
    let left = (100 + 10 * 90) / 3 - few.len();
    assert!(answered * 100 >= left * 93, "{answered} of {left}");
    assert!(late * 100 <= at_once, "{late} of {at_once}");
    for (took, told) in few {
        assert!(
            told == Told::Answered && took < Duration::from_secs(1),
            "{took:?}"
        );
    }
    hold(&rig).await;
}
