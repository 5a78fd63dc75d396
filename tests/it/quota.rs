//! As few vendor calls as possible, and a failing vendor is left in peace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use msp_gateway::cache::{Detail, Lifetimes};
use msp_gateway::clock::{Duration, Instant, sleep, timeout};
use msp_gateway::domain::{Audience, CacheOutcome, ContractId, FieldSet, Month};
use msp_gateway::reads::billing::SoftFailure;
use msp_gateway::reads::{Answer, Asker, Purge, ReadError};
use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation, SimVendor};
use msp_gateway::upstream::Fault as VendorFault;
use tokio::task::JoinSet;

use crate::kit::{Rig, Setup, first};

/// A question of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Customers,
    Search,
    Billing,
}

pub const ALL: [Ask; 3] = [Ask::Customers, Ask::Search, Ask::Billing];
const MONTH: &str = "202609";

impl Ask {
    fn operation(self) -> SimOperation {
        match self {
            Self::Customers => SimOperation::Customers,
            Self::Search => SimOperation::Search,
            Self::Billing => SimOperation::Billing,
        }
    }

    pub async fn of(self, rig: &Rig, asker: &Asker) -> Result<Answer, ReadError> {
        match self {
            Self::Customers => rig.reads.customers.list(asker, FieldSet::ALL).await,
            Self::Search => {
                let page = rig.page(asker, None, &first(25, "")).await;
                page.map(|page| page.answer)
            }
            Self::Billing => {
                let contract = ContractId::parse(&rig.sandbox.contracts()[0].id).unwrap();
                let month = Month::parse(MONTH).unwrap();
                let soft = SoftFailure::Refuse;
                rig.reads
                    .billing
                    .services(asker, month, &contract, soft)
                    .await
            }
        }
    }

    pub async fn ok(self, rig: &Rig) -> Answer {
        self.of(rig, &rig.everyone()).await.unwrap()
    }
}

pub fn rig(change: impl FnOnce(&mut Setup)) -> Arc<Rig> {
    let mut setup = Setup::default();
    change(&mut setup);
    Arc::new(Rig::new(setup))
}

pub fn seconds(fresh: u64, stale: u64, on_error: u64) -> Lifetimes {
    Lifetimes {
        fresh: Duration::from_secs(fresh),
        stale: Duration::from_secs(stale),
        on_error: Duration::from_secs(on_error),
    }
}

pub fn vendor_calls(rig: &Rig) -> u64 {
    SimOperation::ALL.iter().map(|op| rig.asked(*op)).sum()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_misses_of_one_identity_make_one_call() {
    for ask in ALL {
        let rig = rig(|setup| setup.world.latency = Duration::from_millis(500));
        let mut tasks = JoinSet::new();
        for _ in 0..10_000 {
            let rig = rig.clone();
            tasks.spawn(async move { ask.ok(&rig).await });
        }
        let answers = tasks.join_all().await;
        let etags: Vec<_> = answers.iter().map(|a| a.etag.clone()).collect();
        assert!(etags.iter().all(|etag| etag.is_some() && *etag == etags[0]));
        let led = answers
            .iter()
            .filter(|a| a.note.outcome == CacheOutcome::Miss)
            .count();
        assert_eq!((led, rig.asked(ask.operation())), (1, 1), "{ask:?}");
        assert_eq!(rig.searches(), u64::from(ask == Ask::Search), "{ask:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_fill_the_cache() {
    for ask in ALL {
        let rig = rig(|setup| setup.world.latency = Duration::from_millis(500));
        let mut tasks = JoinSet::new();
        for at in 0..10_000 {
            let rig = rig.clone();
            tasks.spawn(async move {
                let patience = Duration::from_millis(50);
                if at % 2 == 0 {
                    // Hangs up.
                    let asker = rig.everyone();
                    timeout(patience, ask.of(&rig, &asker)).await.is_err()
                } else {
                    // Gets the refusal that its time is up.
                    let asker = rig.asker_within(Audience::All, patience);
                    let answer = ask.of(&rig, &asker).await;
                    matches!(answer, Err(ReadError::DeadlinePassed { .. }))
                }
            });
        }
        assert!(tasks.join_all().await.into_iter().all(|left| left));
        sleep(Duration::from_millis(500)).await;
        let answer = ask.ok(&rig).await;
        assert_eq!(answer.note.outcome, CacheOutcome::Hit, "{ask:?}");
        assert_eq!(rig.asked(ask.operation()), 1, "{ask:?}");
    }
}

/// Asks 200 times a second for this long. Returns how often each word was the answer.
async fn flood(
    rig: &Arc<Rig>,
    ask: Ask,
    time: Duration,
) -> std::collections::BTreeMap<String, u64> {
    let mut tasks = JoinSet::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let rig = rig.clone();
        tasks.spawn(async move {
            match ask.of(&rig, &rig.everyone()).await {
                Ok(answer) => answer
                    .note
                    .detail
                    .map_or("fresh", Detail::as_str)
                    .to_owned(),
                Err(ReadError::Upstream(error)) => {
                    let wait = error.retry_after.unwrap_or_default();
                    assert!(wait <= Duration::from_secs(30), "{wait:?}");
                    error.fault.as_str().to_owned()
                }
                Err(other) => format!("{other:?}"),
            }
        });
        sleep(Duration::from_millis(5)).await;
    }
    let mut words = std::collections::BTreeMap::new();
    for word in tasks.join_all().await {
        *words.entry(word).or_default() += 1;
    }
    words
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_says_not_now_is_left_alone() {
    for ask in ALL {
        for warm in [false, true] {
            let rig = rig(|setup| setup.lifetimes = seconds(10, 10, 3600));
            if warm {
                ask.ok(&rig).await;
                // Past the time in which it is served before a refresh.
                sleep(Duration::from_secs(60)).await;
            }
            let refuse = FaultKind::Status {
                status: 429,
                body: None,
                retry_after: Some("30".into()),
                processed: false,
            };
            rig.sandbox.fault(SimFault::on_any(refuse));
            let before = vendor_calls(&rig);
            let words = flood(&rig, ask, Duration::from_secs(30)).await;
            let calls = vendor_calls(&rig) - before;
            assert!((1..=2).contains(&calls), "{ask:?}: {calls} calls");
            let known: &[&str] = if warm {
                &["stale-no-budget"]
            } else {
                &[
                    VendorFault::RateLimited.as_str(),
                    VendorFault::BudgetExhausted.as_str(),
                ]
            };
            assert_eq!(words.values().sum::<u64>(), 6_000);
            assert!(
                words.keys().all(|word| known.contains(&word.as_str())),
                "{ask:?}, warm {warm}: {words:?}"
            );
        }
    }
}

/// A search that nobody has asked: a day's cases, which fit in one vendor page, with a filter that
/// the vendor does not know.
pub fn one_day(number: u32) -> String {
    let range = r#","date_range":{"start":"2026-11-02","end":"2026-11-02"}"#;
    first(25, &format!("{range},\"number\":{number}"))
}

#[tokio::test(start_paused = true)]
async fn a_dead_vendor_costs_no_hit_and_few_attempts_and_is_noticed_when_back() {
    let rig = rig(|setup| {
        setup.lifetimes = seconds(3600, 3600, 7200);
        // The customer list grows stale while the vendor is dead.
        setup.policy = Box::new(|policy| policy.lists.customers = seconds(60, 60, 7200));
        setup.wiv = Box::new(|wiv| {
            wiv.requests_per_minute = 600;
            wiv.concurrency = 8;
        });
    });
    for ask in ALL {
        ask.ok(&rig).await;
    }
    // Lets the walk that began in the background end.
    sleep(Duration::from_secs(50)).await;
    let before = vendor_calls(&rig);
    rig.sandbox.set_down(SimVendor::Wiv, true);
    let died = Instant::now();
    let mut cold = JoinSet::new();
    let mut asked = 0u32;
    while died.elapsed() < Duration::from_secs(600) {
        for ask in ALL {
            let began = Instant::now();
            let answer = ask.ok(&rig).await;
            // Past its stale window, the list waits for one failing attempt at most.
            assert!(began.elapsed() < Duration::from_secs(2), "{ask:?}");
            let word = answer.note.outcome;
            let right = match ask {
                Ask::Customers => matches!(word, CacheOutcome::Hit | CacheOutcome::Stale),
                Ask::Search | Ask::Billing => word == CacheOutcome::Hit,
            };
            assert!(right, "{ask:?}: {word:?}");
        }
        let (rig, body) = (rig.clone(), one_day(asked));
        asked += 1;
        cold.spawn(async move { rig.page(&rig.everyone(), None, &body).await.is_ok() });
        sleep(Duration::from_millis(100)).await;
    }
    assert!(cold.join_all().await.into_iter().all(|found| !found));
    let attempts = vendor_calls(&rig) - before;
    // Each cold search and each refresh is a first try.
    let allowed = u64::from(asked) * 11 / 10;
    assert!(
        attempts <= allowed,
        "{attempts} attempts for {asked} searches"
    );
    // In fact a probe twice a second.
    assert!(attempts <= 1_400, "{attempts} attempts");

    rig.sandbox.set_down(SimVendor::Wiv, false);
    let (back, before) = (Instant::now(), vendor_calls(&rig));
    loop {
        let body = one_day(asked);
        asked += 1;
        if rig.page(&rig.everyone(), None, &body).await.is_ok() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(
        back.elapsed() <= Duration::from_secs(1),
        "{:?}",
        back.elapsed()
    );
    // Two hundred callers come back at once, each with a search of its own and the stale list.
    let (mut tasks, told_later) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for at in 0..200 {
        let (rig, told_later) = (rig.clone(), told_later.clone());
        tasks.spawn(async move {
            let _ = Ask::Customers.of(&rig, &rig.everyone()).await;
            let body = one_day(10_000 + at);
            // A refused caller tries again later.
            for _ in 0..20 {
                match rig.page(&rig.everyone(), None, &body).await {
                    Ok(_) => return true,
                    Err(ReadError::Overloaded { retry_after, .. }) => {
                        told_later.fetch_add(1, Ordering::Relaxed);
                        sleep(retry_after).await;
                    }
                    Err(ReadError::Upstream(error)) => {
                        told_later.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(error.fault, VendorFault::BudgetExhausted);
                        sleep(error.retry_after.unwrap()).await;
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            false
        });
    }
    sleep(Duration::from_secs(10).saturating_sub(back.elapsed())).await;
    let calls = vendor_calls(&rig) - before;
    // Ten seconds of budget, and no burst on top.
    assert!(calls <= 100 + 2, "{calls} calls in the first ten seconds");
    assert!(
        rig.asked(SimOperation::Customers) <= 3 + attempts,
        "one refresh"
    );
    let good = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    assert_eq!(good, 200);
    // The budget has turns for all of them before their deadlines.
    assert_eq!(told_later.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_never_evicts() {
    for ask in ALL {
        let rig = rig(|setup| setup.lifetimes = seconds(10, 100, 3600));
        let one = ask.ok(&rig).await;
        sleep(Duration::from_secs(50)).await;
        for vendor in [SimVendor::Wiv, SimVendor::Nable] {
            rig.sandbox.set_down(vendor, true);
        }
        for _ in 0..100 {
            let answer = ask.ok(&rig).await;
            assert_eq!(answer.note.outcome, CacheOutcome::Stale, "{ask:?}");
            assert_eq!(answer.etag, one.etag);
            sleep(Duration::from_secs(10)).await;
        }
        rig.sandbox.clear_faults();
        sleep(Duration::from_secs(2)).await;
        let answer = ask.ok(&rig).await;
        assert_eq!(answer.etag, one.etag);
        assert_eq!(
            ask.ok(&rig).await.note.outcome,
            CacheOutcome::Hit,
            "{ask:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_soft_failure_never_overwrites_a_good_answer() {
    let rig = rig(|setup| setup.lifetimes = seconds(10, 10, 3600));
    let one = Ask::Billing.ok(&rig).await;
    let hollow = FaultKind::Status {
        status: 200,
        body: Some(r#"{"AccountName":"Best MSP"}"#.into()),
        retry_after: None,
        processed: true,
    };
    rig.sandbox
        .fault(SimFault::on(SimOperation::Billing, hollow));
    sleep(Duration::from_secs(60)).await;
    for _ in 0..5 {
        let answer = Ask::Billing.ok(&rig).await;
        assert_eq!(answer.etag, one.etag);
        assert_eq!(answer.note.detail, Some(Detail::SoftFailure));
        sleep(Duration::from_secs(1)).await;
    }
    // Remembered for a while, so the vendor was asked once.
    assert_eq!(rig.asked(SimOperation::Billing), 2);
    rig.sandbox.clear_faults();
    sleep(Duration::from_secs(120)).await;
    let answer = Ask::Billing.ok(&rig).await;
    assert_eq!(answer.note.outcome, CacheOutcome::Miss);
}

#[tokio::test(start_paused = true)]
async fn unchanged_answers_keep_their_etag_and_renew_their_ages() {
    for ask in ALL {
        let rig = rig(|setup| setup.lifetimes = seconds(60, 100, 3600));
        let one = ask.ok(&rig).await;
        sleep(Duration::from_secs(70)).await;
        let old = ask.ok(&rig).await;
        assert_eq!(
            (old.note.outcome, old.age.as_secs()),
            (CacheOutcome::Stale, 70)
        );
        sleep(Duration::from_secs(2)).await;
        let renewed = ask.ok(&rig).await;
        assert_eq!(renewed.note.outcome, CacheOutcome::Hit, "{ask:?}");
        assert!(renewed.age <= Duration::from_secs(2), "{ask:?}");
        assert_eq!(renewed.etag, one.etag);
        assert_eq!(rig.asked(ask.operation()), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_refreshes_each_once() {
    for ask in ALL {
        let rig = rig(|setup| setup.lifetimes = seconds(3600, 3600, 7200));
        let one = ask.ok(&rig).await;
        sleep(Duration::from_secs(60)).await;
        rig.reads.purge(&Purge::All, true);
        // Nothing happens by itself.
        sleep(Duration::from_secs(5)).await;
        assert_eq!(rig.asked(ask.operation()), 1);
        let mut tasks = JoinSet::new();
        for _ in 0..500 {
            let rig = rig.clone();
            tasks.spawn(async move { ask.ok(&rig).await });
        }
        for answer in tasks.join_all().await {
            assert_eq!(answer.etag, one.etag);
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!(
            ask.ok(&rig).await.note.outcome,
            CacheOutcome::Hit,
            "{ask:?}"
        );
        assert_eq!(rig.asked(ask.operation()), 2, "{ask:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_began_before_a_purge_is_not_stored_after_it() {
    for ask in ALL {
        for soft in [true, false] {
            let rig = rig(|setup| {
                setup.lifetimes = seconds(3600, 3600, 7200);
                setup.world.latency = Duration::from_secs(2);
            });
            let (asker, filling) = (rig.everyone(), rig.clone());
            let fill = tokio::spawn(async move { ask.of(&filling, &asker).await });
            sleep(Duration::from_secs(1)).await;
            rig.reads.purge(&Purge::All, soft);
            let next = if ask == Ask::Search {
                // A walk that has begun is joined, however old it gets.
                fill.await.unwrap().ok();
                ask.ok(&rig).await
            } else {
                // A request after the purge gets nothing that was fetched before the purge.
                let (asker, asking) = (rig.everyone(), rig.clone());
                let next = tokio::spawn(async move { ask.of(&asking, &asker).await });
                // A request that waited since before the purge may get the answer.
                assert!(!fill.await.unwrap().unwrap().note.stored, "{ask:?}");
                let next = next.await.unwrap().unwrap();
                assert!(next.note.stored, "{ask:?}, soft {soft}");
                next
            };
            assert_ne!(next.note.outcome, CacheOutcome::Hit, "{ask:?}, soft {soft}");
            sleep(Duration::from_secs(3)).await;
            assert_eq!(
                ask.ok(&rig).await.note.outcome,
                CacheOutcome::Hit,
                "{ask:?}, soft {soft}"
            );
            assert_eq!(rig.asked(ask.operation()), 2, "{ask:?}, soft {soft}");
        }
    }
}

pub fn forcing(rig: &Rig, text: &str) -> Asker {
    let mut asker = rig.everyone();
    match text {
        "no-cache" => asker.directives.no_cache = true,
        _ => asker.directives.max_age = Some(Duration::from_secs(1)),
    }
    asker
}

#[tokio::test(start_paused = true)]
async fn a_reload_button_is_obeyed_within_an_allowance() {
    for ask in ALL {
        for text in ["no-cache", "max-age"] {
            let rig = rig(|setup| setup.lifetimes = seconds(3600, 3600, 7200));
            ask.ok(&rig).await;
            sleep(Duration::from_secs(60)).await;
            let asker = forcing(&rig, text);
            let (mut obeyed, mut told) = (0, 0);
            for _ in 0..20 {
                let answer = ask.of(&rig, &asker).await.unwrap();
                match answer.note.detail {
                    Some(Detail::AllowanceExhausted) => told += 1,
                    _ => obeyed += 1,
                }
                // Older than a second, whatever was fetched.
                sleep(Duration::from_millis(1_100)).await;
            }
            // Six at once, and one more every ten seconds.
            let first = rig.asked(ask.operation()) - 1;
            assert!((6..=8).contains(&obeyed), "{ask:?} {text}: {obeyed}");
            assert_eq!((first, told), (obeyed, 20 - obeyed), "{ask:?} {text}");
            sleep(Duration::from_secs(60)).await;
            let later = ask.of(&rig, &asker).await.unwrap();
            assert_ne!(later.note.detail, Some(Detail::AllowanceExhausted));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn forcing_one_customer_out_of_all_costs_the_allowance_too() {
    let rig = rig(|setup| setup.lifetimes = seconds(3600, 3600, 7200));
    let customers = rig.sandbox.customers();
    // All cases, to the end.
    Ask::Search.ok(&rig).await;
    sleep(Duration::from_secs(60)).await;
    let before = vendor_calls(&rig);
    let asker = forcing(&rig, "no-cache");
    let mut words = Vec::new();
    for customer in &customers[..10] {
        let page = rig.page(&asker, Some(&customer.id), "{}").await.unwrap();
        words.push(page.answer.note.detail);
    }
    let exhausted = Some(Detail::AllowanceExhausted);
    assert_eq!(words.iter().filter(|word| **word == exhausted).count(), 4);
    assert_eq!(rig.searches(), 1 + 6);
    assert!(vendor_calls(&rig) - before >= 6);
}

#[tokio::test(start_paused = true)]
async fn what_proved_hot_is_refreshed_before_it_is_stale() {
    for ask in ALL {
        for (hot, ahead) in [(true, true), (true, false), (false, true)] {
            let rig = rig(|setup| {
                setup.lifetimes = seconds(100, 100, 3600);
                setup.policy = Box::new(move |policy| policy.refresh_ahead = ahead);
            });
            ask.ok(&rig).await;
            // Lets the walk end that brought it.
            sleep(Duration::from_secs(60)).await;
            for _ in 0..if hot { 3 } else { 1 } {
                ask.ok(&rig).await;
            }
            assert_eq!(rig.asked(ask.operation()), 1);
            sleep(Duration::from_secs(24)).await;
            // Nearly stale, yet fresh whatever the jitter.
            let answer = ask.ok(&rig).await;
            assert_eq!(answer.note.outcome, CacheOutcome::Hit);
            assert_eq!(answer.note.detail, None);
            sleep(Duration::from_secs(1)).await;
            let calls = if hot && ahead { 2 } else { 1 };
            assert_eq!(rig.asked(ask.operation()), calls, "{ask:?} {hot} {ahead}");
            // A refresh resets the count, and never reads further pages.
            let answer = ask.ok(&rig).await;
            assert_eq!(answer.age.as_secs() < 5, hot && ahead, "{ask:?}");
            assert_eq!(rig.asked(ask.operation()), calls);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn polling_a_first_page_does_not_keep_it_from_its_refresh() {
    let rig = rig(|_| {});
    for _ in 0..120 {
        let answer = Ask::Search.ok(&rig).await;
        // Fresh for a minute, and the poll that finds it stale begins the refresh.
        assert!(answer.age <= Duration::from_secs(75), "{:?}", answer.age);
        sleep(Duration::from_secs(10)).await;
    }
    let calls = rig.searches() + rig.continues();
    // Once a minute, and the first walk to its end.
    assert!(
        (15..=30).contains(&calls),
        "{calls} calls in twenty minutes"
    );
}

#[tokio::test(start_paused = true)]
async fn ranges_are_graded_by_the_day_of_the_configured_zone() {
    use msp_gateway::domain::SearchQuery;
    use msp_gateway::domain::period::{DateRange, RangeGrade};

    let query = |day| SearchQuery {
        range: DateRange::new(jiff::civil::date(2026, 11, 1), day),
        ..SearchQuery::default()
    };
    let (eve, today) = (
        query(jiff::civil::date(2026, 11, 19)),
        query(jiff::civil::date(2026, 11, 20)),
    );
    let settling = query(jiff::civil::date(2026, 11, 14));
    // The kit's clock stands at noon of the 20th in UTC.
    for (zone, hours, of_eve, of_today, of_settling) in [
        (
            "UTC",
            0,
            RangeGrade::Recent,
            RangeGrade::Open,
            RangeGrade::Recent,
        ),
        (
            "UTC",
            12,
            RangeGrade::Recent,
            RangeGrade::Recent,
            RangeGrade::Closed,
        ),
        // 01:00 of the 21st.
        (
            "Pacific/Auckland",
            0,
            RangeGrade::Recent,
            RangeGrade::Recent,
            RangeGrade::Closed,
        ),
        // 01:00 of the 20th, and 23:00.
        (
            "Pacific/Pago_Pago",
            0,
            RangeGrade::Recent,
            RangeGrade::Open,
            RangeGrade::Recent,
        ),
        (
            "Pacific/Pago_Pago",
            22,
            RangeGrade::Recent,
            RangeGrade::Open,
            RangeGrade::Recent,
        ),
        (
            "Pacific/Pago_Pago",
            23,
            RangeGrade::Recent,
            RangeGrade::Recent,
            RangeGrade::Closed,
        ),
    ] {
        let rig = rig(|setup| {
            setup.policy = Box::new(move |policy| {
                policy.time_zone = jiff::tz::TimeZone::get(zone).unwrap();
            });
        });
        sleep(Duration::from_secs(hours * 3600)).await;
        let grade = |query| rig.reads.cases.lifetimes(query).0;
        let grades = (grade(&eve), grade(&today), grade(&settling));
        assert_eq!(grades, (of_eve, of_today, of_settling), "{zone} {hours}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_range_closed_is_not_settled_when_it_closes() {
    let rig = rig(|setup| {
        setup.policy = Box::new(|policy| {
            policy.recent_days = 0;
            policy.cases.open = seconds(60, 600, 3600);
            policy.cases.closed = seconds(36_000, 36_000, 72_000);
        });
    });
    let body = first(
        25,
        r#","date_range":{"start":"2026-11-19","end":"2026-11-20"}"#,
    );
    // Five minutes before midnight.
    sleep(Duration::from_secs(12 * 3600 - 300)).await;
    rig.page(&rig.everyone(), None, &body).await.unwrap();
    rig.sandbox.insert(3, None, None).unwrap();
    // Five minutes after: the range is closed, but the answer is from before.
    sleep(Duration::from_secs(600)).await;
    let old = rig.page(&rig.everyone(), None, &body).await.unwrap();
    assert_eq!(old.answer.note.outcome, CacheOutcome::Stale);
    sleep(Duration::from_secs(2)).await;
    // The refreshed one is graded by its own time.
    sleep(Duration::from_secs(3600)).await;
    let new = rig.page(&rig.everyone(), None, &body).await.unwrap();
    assert_eq!(new.answer.note.outcome, CacheOutcome::Hit);
    assert_eq!(rig.searches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_greedy_caller_delays_another_by_one_turn() {
    let rig = rig(|setup| {
        setup.wiv = Box::new(|wiv| {
            // A burst of ten, then one a second.
            wiv.requests_per_minute = 60;
            wiv.concurrency = 4;
        });
    });
    let named = |name: &str, patience| {
        let mut asker = rig.asker_within(Audience::All, Duration::from_secs(patience));
        asker.payer = msp_gateway::admission::Payer::caller(name.into(), None);
        asker
    };
    let mut tasks = JoinSet::new();
    // Fewer than the scrolls that may be open at once.
    for at in 0..30 {
        let (rig, asker) = (rig.clone(), named("greedy", 55));
        tasks.spawn(async move { rig.page(&asker, None, &one_day(at)).await.is_ok() });
    }
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let asker = named("modest", 55);
    rig.page(&asker, None, &one_day(1_000)).await.unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    // Nothing in the background goes before those who wait, and the rate holds.
    Ask::Customers.of(&rig, &named("modest", 55)).await.unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let calls = vendor_calls(&rig);
    assert!(calls <= 10 + 6, "{calls} calls");
    tasks.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn refreshes_yield_to_callers_when_the_budget_is_short() {
    let rig = rig(|setup| {
        setup.lifetimes = seconds(10, 3600, 7200);
        setup.wiv = Box::new(|wiv| {
            wiv.requests_per_minute = 60;
            wiv.concurrency = 4;
        });
    });
    Ask::Customers.ok(&rig).await;
    sleep(Duration::from_secs(60)).await;
    // Interactive searches take the whole burst; then the list, stale, wants its refresh.
    let mut tasks = JoinSet::new();
    for at in 0..30 {
        let rig = rig.clone();
        tasks.spawn(async move { rig.page(&rig.everyone(), None, &one_day(at)).await.is_ok() });
    }
    sleep(Duration::from_millis(100)).await;
    let stale = Ask::Customers.ok(&rig).await;
    assert_eq!(stale.note.outcome, CacheOutcome::Stale);
    sleep(Duration::from_secs(15)).await;
    assert_eq!(rig.asked(SimOperation::Customers), 1, "callers go first");
    assert!(tasks.join_all().await.into_iter().all(|ok| ok));
    // Budget is left again: a reader of the stale answer starts a refresh.
    sleep(Duration::from_secs(15)).await;
    Ask::Customers.ok(&rig).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.asked(SimOperation::Customers), 2);
}

/// A search of everything, for a filter that the vendor does not know: many vendor pages, of which
/// a caller who looks at the first leaves the rest.
fn everything(number: u64) -> String {
    first(25, &format!(",\"number\":{number}"))
}

#[tokio::test(start_paused = true)]
async fn one_callers_open_scrolls_keep_nobody_out() {
    let rig = rig(|setup| {
        // Forty vendor pages each, at the default budget: what is left open stays open.
        setup.world.cases = 20_000;
        setup.wiv = Box::new(|wiv| {
            wiv.requests_per_minute = 120;
            wiv.concurrency = 8;
        });
    });
    let named = |rig: &Rig, name: &str| {
        let mut asker = rig.everyone();
        asker.payer = msp_gateway::admission::Payer::caller(name.into(), None);
        asker
    };
    let mut greedy = JoinSet::new();
    for at in 0..64 {
        let (rig, asker) = (rig.clone(), named(&rig, "greedy"));
        greedy.spawn(async move { rig.page(&asker, None, &everything(at)).await.is_ok() });
    }
    let mut waits = Vec::new();
    for at in 0..4 {
        sleep(Duration::from_secs(3)).await;
        let began = Instant::now();
        let asker = named(&rig, ["b", "c"][at % 2]);
        let body = everything(1_000 + at as u64);
        rig.page(&asker, None, &body).await.unwrap();
        waits.push(began.elapsed());
    }
    println!("others waited {waits:?}");
    // Each waits for the budget's next turn or two, not for a scroll of the greedy one to end.
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(2)));
    let scrolls = rig.sandbox.counts().scrolls;
    assert!(scrolls.peak_open <= 32, "{scrolls:?}");
    greedy.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn short_slots_end_as_few_scrolls_as_searches_wait() {
    let rig = rig(|setup| {
        setup.world.cases = 4_900;
        setup.snapshots.open_scrolls_max = 4;
    });
    for at in 0..4 {
        rig.page(&rig.everyone(), None, &everything(at))
            .await
            .unwrap();
    }
    assert_eq!((rig.searches(), rig.continues()), (4, 0));
    // One more: one scroll is read to its end, nine pages more, and the others are left alone.
    rig.page(&rig.everyone(), None, &everything(9))
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.searches(), rig.continues()), (5, 9));
}
