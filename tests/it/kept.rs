//! What outlives the process: a second gateway over the store of the first asks no vendor for what
//! is kept there, and serves nothing that a purge ended.

use std::sync::Arc;

use msp_gateway::cache::Detail;
use msp_gateway::clock::{Clock, Duration, Instant, sleep, timeout_at};
use msp_gateway::domain::{CacheOutcome, ContractId, CustomerId, FieldSet, Kind, Month, PageSize};
use msp_gateway::metrics::Metrics;
use msp_gateway::reads::billing::SoftFailure;
use msp_gateway::reads::{Answer, Purge, ReadError};
use msp_gateway::sandbox;
use msp_gateway::secrets::{SealingKey, Secret};
use msp_gateway::server::{Inherited, Listeners};
use msp_gateway::store::{Model, SealedRecord, Store};

use crate::kit::{NOW, Page, Rig, Setup, continued};
use crate::whole::{ALL, SETTINGS, Whole, caller, search, secrets, settings, world};

/// What two gateways have in common that run one after the other.
struct Machine {
    model: Arc<Model>,
    clock: Clock,
}

impl Machine {
    fn new() -> Self {
        Self {
            model: Arc::new(Model::new(64 << 20)),
            clock: Clock::anchored(NOW.parse().unwrap()),
        }
    }

    /// A gateway that begins with nothing in memory. Its vendors count from zero.
    fn start(&self, secret: &str, previous: Option<&str>) -> Rig {
        self.start_with(secret, previous, |_| {})
    }

    fn start_with(
        &self,
        secret: &str,
        previous: Option<&str>,
        change: impl FnOnce(&mut Setup),
    ) -> Rig {
        let key = |text: &str| SealingKey::derive("store", &Secret::parse(text).unwrap());
        let previous = previous.map(key);
        let records = SealedRecord::new(&key(secret), previous.as_ref()).unwrap();
        let metrics = Metrics::new().unwrap();
        let store = Store::over(self.model.clone(), records, self.clock.clone(), &metrics);
        let mut setup = Setup {
            store,
            clock: Some(self.clock.clone()),
            ..Setup::default()
        };
        change(&mut setup);
        Rig::new(setup)
    }
}

async fn customers(rig: &Rig) -> Answer {
    let (customers, asker) = (&rig.reads.customers, rig.everyone());
    customers.list(&asker, FieldSet::ALL).await.unwrap()
}

fn month() -> Month {
    Month::parse("202610").unwrap()
}

async fn bill(rig: &Rig, contract: &str) -> Result<Answer, ReadError> {
    let contract = ContractId::parse(contract).unwrap();
    let asker = rig.everyone();
    let billing = &rig.reads.billing;
    billing
        .services(&asker, month(), &contract, SoftFailure::Refuse)
        .await
}

fn vendor_calls(rig: &Rig) -> u64 {
    let all = [
        sandbox::SimOperation::Customers,
        sandbox::SimOperation::Billing,
        sandbox::SimOperation::Invoices,
    ];
    all.map(|operation| rig.asked(operation)).iter().sum()
}

/// Lets the tasks run that keep what was fetched.
pub async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn answers_and_soft_failures_outlive_the_process_with_their_age() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    let contract = first.sandbox.contracts()[0].id.clone();
    let list = customers(&first).await;
    let good = bill(&first, &contract).await.unwrap();
    let Err(soft) = bill(&first, "9999999").await else {
        panic!("no such contract");
    };
    assert_eq!((vendor_calls(&first), list.note.stored), (3, true));
    settle().await;
    sleep(Duration::from_secs(30)).await;
    drop(first);

    let second = machine.start("secret", None);
    for _ in 0..2 {
        let again = customers(&second).await;
        assert_eq!(again.body, list.body);
        assert_eq!(again.etag, list.etag);
        assert_eq!(again.age.as_secs(), 30);
        assert_eq!(again.note.outcome, CacheOutcome::Hit);
        let again = bill(&second, &contract).await.unwrap();
        assert_eq!((again.body, again.age.as_secs()), (good.body.clone(), 30));
        let Err(again) = bill(&second, "9999999").await else {
            panic!("no such contract");
        };
        let told = |error: &ReadError| match error {
            ReadError::BillingNotFound { vendor_body, .. } => vendor_body.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(told(&again), told(&soft));
    }
    assert_eq!(vendor_calls(&second), 0);

    // Said once: afterwards memory answers.
    let third = machine.start("secret", None);
    let details = [customers(&third).await, customers(&third).await].map(|a| a.note.detail);
    assert_eq!(details, [Some(Detail::Store), None]);
    // Stale by now: served, and refreshed on the side.
    sleep(Duration::from_secs(40)).await;
    let fourth = machine.start("secret", None);
    let stale = customers(&fourth).await;
    assert_eq!(stale.note.detail, Some(Detail::StaleWhileRevalidate));
    assert_eq!(stale.age.as_secs(), 70);
    settle().await;
    assert_eq!(vendor_calls(&fourth), 1);
    // The soft failure's two minutes are over.
    sleep(Duration::from_secs(60)).await;
    let fifth = machine.start("secret", None);
    assert!(bill(&fifth, "9999999").await.is_err());
    assert_eq!(fifth.asked(sandbox::SimOperation::Billing), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_after_the_restart_is_bridged_by_what_is_kept() {
    let machine = Machine::new();
    let list = customers(&machine.start("secret", None)).await;
    settle().await;
    // Past fresh and stale, usable on error.
    sleep(Duration::from_secs(600)).await;
    let second = machine.start("secret", None);
    second.sandbox.set_down(sandbox::SimVendor::Wiv, true);
    let again = customers(&second).await;
    assert_eq!(again.note.detail, Some(Detail::StaleOnError));
    assert_eq!((again.body, again.age.as_secs()), (list.body, 600));
}

#[tokio::test(start_paused = true)]
async fn purges_outlive_the_process() {
    let customer = CustomerId::parse("org_1").unwrap();
    for (what, soft, calls) in [
        (Purge::All, true, 1),
        (Purge::All, false, 1),
        (Purge::Customer(customer), false, 1),
        (Purge::Kind(Kind::Customers), false, 1),
        (Purge::Kind(Kind::Billing), false, 0),
    ] {
        let machine = Machine::new();
        let first = machine.start("secret", None);
        customers(&first).await;
        settle().await;
        first.reads.purge(&what, soft);
        assert!(first.reads.keep_purges().await);
        drop(first);
        let second = machine.start("secret", None);
        let again = customers(&second).await;
        let served_stale = again.note.detail == Some(Detail::StaleWhileRevalidate);
        assert_eq!(served_stale, soft, "{what:?} {soft}");
        // Background calls wait until the budget has grown.
        sleep(Duration::from_secs(5)).await;
        assert_eq!(vendor_calls(&second), calls, "{what:?} {soft}");
        // What was fetched after the purge is kept as ever.
        settle().await;
        let third = machine.start("secret", None);
        customers(&third).await;
        assert_eq!(vendor_calls(&third), 0, "{what:?} {soft}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_before_a_purge_is_not_kept() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    let slow = sandbox::SimFault::on_any(sandbox::FaultKind::Latency { ms: 500 });
    first.sandbox.fault(slow);
    let (first, begun) = (Arc::new(first), machine.clock.now());
    let asked = tokio::spawn({
        let first = first.clone();
        async move { customers(&first).await }
    });
    sleep(Duration::from_millis(100)).await;
    first.reads.purge(&Purge::All, false);
    assert!(!asked.await.unwrap().note.stored);
    assert!(begun.elapsed() >= Duration::from_millis(500));
    settle().await;
    let second = machine.start("secret", None);
    customers(&second).await;
    assert_eq!(vendor_calls(&second), 1);
}

#[tokio::test(start_paused = true)]
async fn records_open_with_the_current_secret_and_the_one_before_and_no_other() {
    let machine = Machine::new();
    customers(&machine.start("old", None)).await;
    settle().await;
    let calls = |rig: Rig| async move {
        customers(&rig).await;
        settle().await;
        vendor_calls(&rig)
    };
    // Another secret finds nothing, and loses nothing either.
    assert_eq!(calls(machine.start("other", None)).await, 1);
    assert_eq!(calls(machine.start("old", None)).await, 0);
    // A rotation, then the end of the old one.
    assert_eq!(calls(machine.start("new", Some("old"))).await, 0);
    assert_eq!(calls(machine.start("new", None)).await, 1);
    assert_eq!(calls(machine.start("new", None)).await, 0);
}

/// This many requests a minute to N-able, a sixth of them at once.
fn paced(requests_per_minute: u32) -> impl FnOnce(&mut Setup) {
    move |setup| {
        setup.nable = Box::new(move |options| options.requests_per_minute = requests_per_minute);
    }
}

fn refused(status: u16, retry_after: Option<&str>) -> sandbox::SimFault {
    sandbox::SimFault::on_any(sandbox::FaultKind::Status {
        status,
        body: None,
        retry_after: retry_after.map(str::to_owned),
        processed: false,
    })
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_said_wait_is_not_asked_after_a_restart_either() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    first.sandbox.fault(refused(429, Some("40")));
    assert!(bill(&first, "1").await.is_err());
    settle().await;
    drop(first);
    sleep(Duration::from_secs(10)).await;
    let second = machine.start("secret", None);
    settle().await;
    let Err(ReadError::Upstream(error)) = bill(&second, "1").await else {
        panic!("refused");
    };
    assert_eq!(error.fault.as_str(), "budget_exhausted");
    sleep(Duration::from_secs(29)).await;
    assert!(bill(&second, "2").await.is_err());
    assert_eq!(second.asked(sandbox::SimOperation::Billing), 0);
    sleep(Duration::from_secs(1)).await;
    let _ = bill(&second, "3").await;
    assert_eq!(second.asked(sandbox::SimOperation::Billing), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_refused_is_not_presented_at_each_start() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    first.sandbox.fault(refused(401, None));
    assert!(bill(&first, "1").await.is_err());
    let presented = first.asked(sandbox::SimOperation::Billing);
    settle().await;
    drop(first);
    for second in 0..3 {
        let next = machine.start("secret", None);
        settle().await;
        assert!(bill(&next, "1").await.is_err(), "start {second}");
        assert_eq!(
            next.asked(sandbox::SimOperation::Billing),
            0,
            "of {presented}"
        );
        sleep(Duration::from_secs(5)).await;
    }
    sleep(Duration::from_secs(30)).await;
    let next = machine.start("secret", None);
    settle().await;
    // No such contract, but the key is taken.
    let _ = bill(&next, "1").await;
    assert_eq!(next.asked(sandbox::SimOperation::Billing), 1);
}

#[tokio::test(start_paused = true)]
async fn no_minute_sees_more_than_rate_and_burst_however_often_it_is_restarted() {
    let machine = Machine::new();
    let begun = machine.clock.now();
    let mut calls = 0;
    let mut contract = 0;
    // A start every three seconds, each of which asks as fast as it may.
    while begun.elapsed() < Duration::from_secs(60) {
        let rig = machine.start_with("secret", None, paced(60));
        settle().await;
        let until = machine.clock.now() + Duration::from_secs(3);
        while machine.clock.now() < until {
            contract += 1;
            let name = contract.to_string();
            let _ = timeout_at(until, bill(&rig, &name)).await;
        }
        settle().await;
        calls += rig.asked(sandbox::SimOperation::Billing);
    }
    assert!(calls <= 60 + 10, "{calls} calls in a minute");
    assert!(calls >= 20, "{calls} calls: it never came to anything");
}

#[tokio::test(start_paused = true)]
async fn scrolls_that_were_left_open_count_after_a_restart() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    let asker = first.everyone();
    let page = first.page(&asker, None, &crate::kit::first(25, "")).await;
    assert!(page.unwrap().token.is_some());
    settle().await;
    drop((first, asker));
    let standing = |rig: &Rig| rig.reads.cases.snapshots().slots.usage().standing;
    sleep(Duration::from_secs(20)).await;
    let second = machine.start("secret", None);
    settle().await;
    assert_eq!(standing(&second), 1);
    // The scroll expires at the vendor five minutes after its last page.
    sleep(Duration::from_secs(280)).await;
    assert_eq!(standing(&second), 0);
}

/// Pages from `token` on to the end: the rows, and the bytes of each page.
pub async fn pages(
    rig: &Rig,
    mut token: Option<String>,
    at_most: usize,
) -> (Vec<Page>, Option<String>) {
    let asker = rig.everyone();
    let mut pages = Vec::new();
    while let Some(next) = token.take() {
        let body = continued(&next, None);
        let page = rig.page(&asker, None, &body).await.unwrap();
        token = page.token.clone();
        pages.push(page);
        if pages.len() == at_most {
            break;
        }
    }
    (pages, token)
}

#[tokio::test(start_paused = true)]
async fn tokens_go_on_after_a_restart_without_a_vendor_call_for_what_is_kept() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    let asker = first.everyone();
    let head = first.page(&asker, None, &crate::kit::first(100, "")).await;
    let head = head.unwrap();
    let (read, on) = pages(&first, head.token.clone(), 9).await;
    assert_eq!((first.searches(), read.len()), (1, 9));
    settle().await;
    drop((first, asker));
    sleep(Duration::from_secs(10)).await;

    let second = machine.start("secret", None);
    let again = second
        .page(&second.everyone(), None, &crate::kit::first(100, ""))
        .await;
    let again = again.unwrap();
    assert_eq!(again.answer.body, head.answer.body, "the very same page");
    assert_eq!(again.answer.note.detail, Some(Detail::Store));
    assert_eq!(again.answer.age.as_secs(), 10);
    // Every page that was read before is the same, the tokens in it among it.
    let third = machine.start("secret", None);
    let (replayed, _) = pages(&third, head.token.clone(), 9).await;
    for (before, after) in read.iter().zip(&replayed) {
        assert_eq!(before.answer.body, after.answer.body);
    }
    for rig in [&second, &third] {
        assert_eq!((rig.searches(), rig.continues()), (0, 0));
    }
    // Beyond what is kept, a new search goes on from there.
    let (rest, _) = pages(&third, on, usize::MAX).await;
    let all: Vec<&String> = [&head]
        .into_iter()
        .chain(&read)
        .chain(&rest)
        .flat_map(|p| &p.rows)
        .collect();
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (2_000, 2_000));
    assert_eq!(third.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_complete_search_outlives_the_process_whole() {
    let machine = Machine::new();
    let first = machine.start("secret", None);
    let asker = first.everyone();
    let head = first
        .page(&asker, None, &crate::kit::first(500, ""))
        .await
        .unwrap();
    let (read, end) = pages(&first, head.token.clone(), usize::MAX).await;
    assert_eq!((read.len(), end), (3, None));
    settle().await;
    let second = machine.start("secret", None);
    let (replayed, _) = pages(&second, head.token.clone(), usize::MAX).await;
    let bodies = |pages: &[Page]| {
        pages
            .iter()
            .map(|p| p.answer.body.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(bodies(&replayed), bodies(&read));
    assert_eq!((second.searches(), second.continues()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_purge_also_ends_the_snapshots_that_a_file_brings_back() {
    let machine = Machine::new();
    for (soft, searches) in [(true, 0), (false, 1)] {
        let first = machine.start("secret", None);
        let asker = first.everyone();
        let head = first
            .page(&asker, None, &crate::kit::first(100, ""))
            .await
            .unwrap();
        settle().await;
        // Another process holds nothing in memory of what it purges.
        let second = machine.start("secret", None);
        settle().await;
        second.reads.purge(&Purge::All, soft);
        assert!(second.reads.keep_purges().await);
        let third = machine.start("secret", None);
        let asker = third.everyone();
        let again = third
            .page(&asker, None, &crate::kit::first(100, ""))
            .await
            .unwrap();
        assert_eq!(third.searches(), searches, "soft: {soft}");
        let stale = again.answer.note.detail == Some(Detail::StaleWhileRevalidate);
        assert_eq!(stale, soft);
        // A token goes on from what was fetched after the purge, if the list is the same still.
        let token = head.token.unwrap();
        let page = third.page(&asker, None, &continued(&token, None)).await;
        assert_eq!(page.unwrap().rows.len(), 100, "soft: {soft}");
        assert_eq!(third.searches(), searches, "soft: {soft}");
        sleep(Duration::from_secs(4_000)).await;
    }
}

/// Vendor pages of 50 rows out of `cases`, each after 100 ms.
pub fn paged(cases: usize) -> impl Fn(&mut Setup) {
    move |setup| {
        setup.world.cases = cases;
        setup.snapshots.vendor_page_size = PageSize::new(50).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn walks_that_were_paged_lately_read_on_while_the_gateway_leaves() {
    let drain = Duration::from_secs(2);
    // (what, cases, pages read before, idle before, told to leave, continuations while it leaves,
    // vendor calls after the restart)
    for (what, cases, read, idle, told, while_leaving, after) in [
        ("a few pages", 290, 2, 0, true, 4, 0),
        ("not told", 290, 2, 0, false, 0, 6),
        ("only page one", 290, 1, 0, true, 0, 6),
        ("idle for half a minute", 290, 2, 30, true, 4, 0),
        ("more than drain_pages_max", 990, 2, 0, true, 10, 20),
    ] {
        let machine = Machine::new();
        let first = machine.start_with("secret", None, paged(cases));
        first.sandbox.fault(latency(100));
        let asker = first.everyone();
        let head = first.page(&asker, None, &crate::kit::first(10, "")).await;
        let mut token = head.unwrap().token.unwrap();
        for _ in 1..read {
            let page = first.page(&asker, None, &continued(&token, None)).await;
            token = page.unwrap().token.unwrap();
        }
        sleep(Duration::from_secs(1 + idle)).await;
        let before = first.continues();
        if told {
            first.reads.cases.snapshots().leave();
        }
        sleep(drain).await;
        assert_eq!(first.continues() - before, while_leaving, "{what}");
        drop((first, asker));
        let second = machine.start_with("secret", None, paged(cases));
        let (rest, _) = pages(&second, Some(token), usize::MAX).await;
        let rows: usize = rest.iter().map(|page| page.rows.len()).sum();
        assert_eq!(rows, cases - 10 * read, "{what}");
        let calls = second.searches() + second.continues();
        assert_eq!(calls, after, "{what}");
    }
}

pub fn latency(ms: u64) -> sandbox::SimFault {
    sandbox::SimFault::on_any(sandbox::FaultKind::Latency { ms })
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_hangs_does_not_prolong_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "{SETTINGS}[store]\ndirectory = \"{}\"\n[limits]\ndrain_delay = \"2s\"\n{}",
        directory.path().display(),
        caller("all", "")
    );
    let whole = Whole::with(&text, &secrets(), world());
    let head = whole.ask(search(ALL, &crate::kit::first(10, ""))).await;
    let token = head.json()["next_page_key"]["scroll_id"].clone();
    let on = continued(token.as_str().unwrap(), None);
    assert_eq!(whole.ask(search(ALL, &on)).await.status, 200);
    let hangs = sandbox::FaultKind::Latency { ms: 3_600_000 };
    whole.sandbox.fault(sandbox::SimFault::on_any(hangs));
    let asked = whole
        .sandbox
        .counts()
        .requests(sandbox::SimOperation::Continue);
    let server = settings(&text).server;
    let listeners = Listeners::bind(&server, Inherited::default()).await;
    let app = whole.app.clone();
    let running = tokio::spawn(async move { app.run(listeners.unwrap()).await });
    let begun = Instant::now();
    whole.app.drain().begin();
    running.await.unwrap();
    let asked = whole
        .sandbox
        .counts()
        .requests(sandbox::SimOperation::Continue)
        - asked;
    assert_eq!(asked, 1, "the walk reads on, and gets no answer");
    assert_eq!(
        begun.elapsed().as_millis() / 100,
        20,
        "{:?}",
        begun.elapsed()
    );
}
