//! The proof: thousands of whole paginations while the vendor fails, each checked row by row.
//!
//! Every group is a gateway of its own over a sandbox of its own, in paused time: ten callers page
//! one search at random page sizes, with pauses, replays and different audiences, while a share of
//! the vendor's calls goes wrong in nine ways. A list is right if it is, text for text and in
//! order, what the vendor held at some moment. `MSP_PROOF_PAGINATIONS` and `MSP_PROOF_SEED` change
//! the run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use msp_gateway::clock::{Duration, sleep};
use msp_gateway::domain::{Audience, CustomerId};
use msp_gateway::reads::ReadError;
use msp_gateway::sandbox::{self, FaultKind, SimFault, SimOperation};
use msp_gateway::snapshot::SnapshotOptions;

use crate::kit::{Page, Rig, Setup, continued, first};

const CALLERS: usize = 10;
const VENDOR_PAGE: u64 = 50;

/// How a pagination ended.
#[derive(Default, Debug)]
struct Tally {
    /// Read to the end without any error.
    straight: u64,
    /// Read to the end, after a retry of a token or a new search as the errors advise.
    advised: u64,
    /// Ended in a typed error, by its code.
    unfinished: BTreeMap<&'static str, u64>,
    /// Errors that callers got on the way, by code.
    errors: BTreeMap<&'static str, u64>,
    pages: u64,
    replays: u64,
    vendor_calls: u64,
    overlaps: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.straight += other.straight;
        self.advised += other.advised;
        self.pages += other.pages;
        self.replays += other.replays;
        self.vendor_calls += other.vendor_calls;
        self.overlaps += other.overlaps;
        for (code, count) in other.unfinished {
            *self.unfinished.entry(code).or_default() += count;
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }

    fn total(&self) -> u64 {
        self.straight + self.advised + self.unfinished.values().sum::<u64>()
    }
}

fn faults(share: f64) -> Vec<SimFault> {
    let kinds = [
        FaultKind::DropBefore,
        FaultKind::DropAfter,
        FaultKind::CutBody { at: None },
        FaultKind::StallBody { ms: None },
        status(500, None),
        status(503, None),
        status(429, Some("1")),
        FaultKind::ScrollExpired,
        FaultKind::Insert { count: 1 },
    ];
    let each = share / kinds.len() as f64;
    kinds
        .into_iter()
        .flat_map(|kind| {
            [SimOperation::Search, SimOperation::Continue]
                .map(|operation| SimFault::on(operation, kind.clone()).probability(each))
        })
        .collect()
}

fn status(status: u16, retry_after: Option<&str>) -> FaultKind {
    FaultKind::Status {
        status,
        body: None,
        retry_after: retry_after.map(str::to_owned),
        processed: true,
    }
}

/// Case numbers and customers, by a row's text. The same rows are read by ten callers, and parsed
/// once.
#[derive(Default)]
struct Numbers(Mutex<BTreeMap<String, (u64, String)>>);

impl Numbers {
    fn of(&self, row: &str) -> (u64, String) {
        #[derive(serde::Deserialize)]
        struct Row {
            case_id: String,
            customer_id: String,
        }
        let mut known = self.0.lock().unwrap();
        if let Some(number) = known.get(row) {
            return number.clone();
        }
        let parsed: Row = serde_json::from_str(row).unwrap();
        let digits = parsed
            .case_id
            .trim_start_matches(|c: char| !c.is_ascii_digit());
        let number = (digits.parse().unwrap(), parsed.customer_id);
        known.insert(row.to_owned(), number.clone());
        number
    }
}

/// Panics unless `rows` is what the vendor held for `customers` at some moment: new cases only ever
/// come, numbered in order, so the highest number tells the moment.
fn check(
    rig: &Rig,
    numbers: &Numbers,
    rows: &[String],
    customers: Option<&[CustomerId]>,
    context: &str,
) {
    let newest = rows.iter().map(|row| numbers.of(row).0).max().unwrap_or(0);
    let mut expected = rig.sandbox.expected_rows(None, None);
    expected.retain(|row| {
        let (at, customer) = numbers.of(row);
        let made = rig.sandbox.options().cases as u64;
        at <= newest.max(made)
            && customers.is_none_or(|ids| ids.iter().any(|id| id.as_str() == customer))
    });
    assert_eq!(
        rows.len(),
        expected.len(),
        "lost or repeated rows: {context}"
    );
    let wrong = rows.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(wrong, None, "wrong row or order: {context}");
}

/// The page, after as many retries as the errors advise.
async fn patient_page(
    rig: &Rig,
    audience: &Audience,
    body: &str,
    dice: &mut fastrand::Rng,
    errors: &mut BTreeMap<&'static str, u64>,
) -> Result<Page, ReadError> {
    let mut tries = 0;
    loop {
        match rig.page(&rig.asker(audience.clone()), None, body).await {
            Ok(page) => return Ok(page),
            Err(error) if error.allows_stale() && tries < 3 => {
                *errors.entry(error.code().as_str()).or_default() += 1;
                tries += 1;
                sleep(Duration::from_millis(dice.u64(500..3_000))).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn paginate(
    rig: Arc<Rig>,
    numbers: Arc<Numbers>,
    mut dice: fastrand::Rng,
    context: String,
) -> Tally {
    let customers: Vec<_> = rig.sandbox.customers();
    let some: Vec<CustomerId> = customers
        .iter()
        .take(3)
        .map(|c| CustomerId::parse(&c.id).unwrap())
        .collect();
    let scoped = dice.u8(0..4) == 0;
    let audience = if scoped {
        Audience::only(some.clone())
    } else {
        Audience::All
    };
    let customers = scoped.then_some(&some[..]);
    let mut tally = Tally::default();
    'search: for search in 0.. {
        let mut rows = Vec::new();
        let mut body = first(dice.usize(1..=120), "");
        loop {
            let asked = patient_page(&rig, &audience, &body, &mut dice, &mut tally.errors);
            let page = match asked.await {
                Ok(page) => page,
                Err(error @ ReadError::PageTokenExpired) if search < 3 => {
                    *tally.errors.entry(error.code().as_str()).or_default() += 1;
                    continue 'search;
                }
                Err(error) => {
                    *tally.unfinished.entry(error.code().as_str()).or_default() += 1;
                    return tally;
                }
            };
            tally.pages += 1;
            rows.extend(page.rows);
            // A small page on a slow day, a whole vendor page on another.
            sleep(Duration::from_millis(dice.u64(0..400))).await;
            if dice.u8(0..10) == 0 {
                tally.replays += 1;
                let mut ignored = BTreeMap::new();
                let again = patient_page(&rig, &audience, &body, &mut dice, &mut ignored);
                if let Ok(again) = again.await
                    && body.contains("start_page_key")
                {
                    assert!(
                        again.answer.body == page.answer.body,
                        "replay differs: {context}"
                    );
                }
            }
            let Some(token) = page.token else { break };
            let size = match dice.u8(0..3) {
                0 => None,
                1 => Some(dice.usize(1..=60)),
                _ => Some(dice.usize(1..=200)),
            };
            body = continued(&token, size);
        }
        check(&rig, &numbers, &rows, customers, &context);
        break;
    }
    if tally.errors.is_empty() {
        tally.straight += 1;
    } else {
        tally.advised += 1;
    }
    tally
}

fn group(seed: u64, share: f64) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async move {
        let mut dice = fastrand::Rng::with_seed(seed);
        // 5 to 9 vendor pages.
        let cases = dice.u64(4 * VENDOR_PAGE + 1..=9 * VENDOR_PAGE) as usize;
        let ends = [
            sandbox::EndOfScroll::Short,
            sandbox::EndOfScroll::Full,
            sandbox::EndOfScroll::EmptyNull,
            sandbox::EndOfScroll::EmptyCursor,
        ];
        let mut setup = Setup::default();
        setup.world.seed = seed;
        setup.world.cases = cases;
        setup.world.end_of_scroll = ends[dice.usize(0..4)];
        setup.world.latency = Duration::from_millis(dice.u64(1..200));
        setup.snapshots = SnapshotOptions {
            vendor_page_size: msp_gateway::domain::PageSize::new(VENDOR_PAGE).unwrap(),
            ..SnapshotOptions::default()
        };
        let rig = Arc::new(Rig::new(setup));
        for fault in faults(share) {
            rig.sandbox.fault(fault);
        }
        let numbers = Arc::new(Numbers::default());
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let context = format!("MSP_PROOF_SEED={seed} share={share} caller={caller}");
            tasks.spawn(paginate(rig.clone(), numbers.clone(), dice.fork(), context));
        }
        let mut tally = Tally::default();
        while let Some(end) = tasks.join_next().await {
            match end {
                Ok(one) => tally.add(one),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        tally.vendor_calls = rig.searches() + rig.continues();
        tally.overlaps = rig.sandbox.counts().scroll_overlaps;
        tally
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(share: f64, paginations: u64) -> Tally {
    if let Some(seed) = setting("MSP_PROOF_SEED") {
        return group(seed, share);
    }
    let groups = paginations.div_ceil(CALLERS as u64);
    let next = AtomicU64::new(0);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= groups {
                            return tally;
                        }
                        tally.add(group(1_000 + at, share));
                    }
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(one) => tally.add(one),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    tally
}

fn report(share: f64, tally: &Tally) -> f64 {
    let finished = (tally.straight + tally.advised) as f64 / tally.total() as f64;
    println!(
        "proof: {:.0} % faulted: {} paginations, {} pages, {} replays, {} vendor calls; lost 0, repeated 0, \
         reordered 0, foreign 0; finished {:.2} % ({:.2} % without any error); errors on the way {:?}; unfinished {:?}",
        share * 100.0,
        tally.total(),
        tally.pages,
        tally.replays,
        tally.vendor_calls,
        finished * 100.0,
        tally.straight as f64 / tally.total() as f64 * 100.0,
        tally.errors,
        tally.unfinished,
    );
    finished
}

#[test]
fn ten_percent_of_vendor_calls_fail_and_no_list_is_wrong() {
    let paginations = setting("MSP_PROOF_PAGINATIONS").unwrap_or(10_000);
    let tally = run(0.10, paginations);
    let finished = report(0.10, &tally);
    assert_eq!(tally.overlaps, 0, "two continuations met on one scroll");
    assert!(finished >= 0.99, "only {finished} finished");
}

#[test]
fn thirty_percent_of_vendor_calls_fail_and_no_list_is_wrong() {
    let paginations = setting("MSP_PROOF_PAGINATIONS").unwrap_or(10_000) / 4;
    let tally = run(0.30, paginations);
    report(0.30, &tally);
    assert_eq!(tally.overlaps, 0, "two continuations met on one scroll");
}
