//! Counts the vendor calls of a dashboard day through msp-gateway, nginx and Varnish: over the same
//! simulated vendors, with the same trace, at the same freshness.
//!
//! `cargo run --release --example vendor_calls [-- [fleet] SECONDS [SEED…]]`. With `fleet`, one
//! gateway without a store is compared with two that share a Valkey and are asked in turns, also
//! for the pages of one list. See `tests/bench/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod bound;
mod parties;
mod reasons;
mod trace;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use msp_gateway::clock::{Clock, Duration, Instant, sleep, sleep_until, timeout};
use msp_gateway::sandbox::{NABLE_ACCOUNT, Options, Sandbox, SimOperation};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use bound::{Bound, World, bound};
use parties::{BILLING_S, CALLER_KEY, CASES_S, CUSTOMERS_S, Party};
use reasons::{CallLog, Lanes, searches};
use trace::{Ask, Event, IMPATIENT, draw};

const SECONDS: u64 = 30;
const SEED: u64 = 7;
/// How long a vendor takes for an answer.
const VENDOR_LATENCY: Duration = Duration::from_millis(60);
/// Pages after which a list that does not end is given up.
const PAGES_MAX: usize = 20;
/// How often a new case appears.
const INSERT_EVERY: Duration = Duration::from_secs(5);
/// How long to wait for another program that is installing packages, in seconds.
const INSTALL_WAIT_S: u32 = 300;
/// How long to wait for the end of background work.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    lists: AtomicU64,
    right: AtomicU64,
}

/// What one party did with one trace, or with several.
#[derive(Clone, Default)]
struct Line {
    name: String,
    requests: u64,
    errors: u64,
    calls: BTreeMap<SimOperation, u64>,
    lists: u64,
    right: u64,
    lanes: Lanes,
    searches: BTreeMap<String, u64>,
}

impl Line {
    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.lists += more.lists;
        self.right += more.right;
        for (operation, calls) in &more.calls {
            *self.calls.entry(*operation).or_default() += calls;
        }
        for (lane, calls) in &more.lanes {
            *self.lanes.entry(lane.clone()).or_default() += calls;
        }
        for (search, calls) in &more.searches {
            *self.searches.entry(search.clone()).or_default() += calls;
        }
    }

    fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    fn per_thousand(&self) -> f64 {
        self.total() as f64 * 1000.0 / self.requests.max(1) as f64
    }
}

/// The state that all callers of one party share.
struct Door {
    addresses: Vec<SocketAddr>,
    sandbox: Arc<Sandbox>,
    customers: Vec<String>,
    contracts: Vec<String>,
    months: Vec<String>,
    http: Client<HttpConnector, Full<Bytes>>,
    tally: Tally,
}

impl Door {
    async fn send(&self, method: Method, path: &str, body: String) -> Option<Bytes> {
        let number = self.tally.requests.fetch_add(1, Ordering::Relaxed);
        let address = self.addresses[number as usize % self.addresses.len()];
        let post = method == Method::POST;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header("x-api-key", CALLER_KEY)
            .header(header::USER_AGENT, "dashboard/1");
        if post {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body)).unwrap();
        let answer = self.http.request(request).await.ok()?;
        let good = answer.status() == 200;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        good.then_some(body)
    }

    async fn ask(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Customers(fields) => {
                let path = format!("/msp/customers{fields}");
                self.send(Method::GET, &path, String::new()).await.is_some()
            }
            Ask::Search { customer, body } => {
                let customer = customer.map(|at| format!("?customer_id={}", self.customers[at]));
                let path = format!("/v2/cases/msp/search{}", customer.unwrap_or_default());
                self.send(Method::POST, &path, body.clone()).await.is_some()
            }
            Ask::Billing {
                contract,
                back,
                body,
            } => {
                let month = &self.months[self.months.len() - 1 - back];
                let contract = &self.contracts[contract % self.contracts.len()];
                let path = format!(
                    "/ws/rest/V1/PSA_API/PSABillableServices/{NABLE_ACCOUNT}/{month}/{contract}"
                );
                let body = (*body).to_owned();
                self.send(Method::POST, &path, body).await.is_some()
            }
            Ask::List {
                body,
                size,
                spelling,
            } => self.list(body, *size, *spelling).await,
        }
    }

    /// Reads a search to its end. It is right if it ends, and contains every case once.
    async fn list(&self, body: &str, size: u64, spelling: usize) -> bool {
        #[derive(serde::Deserialize)]
        struct Page {
            data: Vec<Case>,
            next_page_key: Option<Key>,
        }
        #[derive(serde::Deserialize)]
        struct Case {
            case_id: String,
        }
        #[derive(serde::Deserialize)]
        struct Key {
            scroll_id: String,
        }
        self.tally.lists.fetch_add(1, Ordering::Relaxed);
        let mut body = body.to_owned();
        let (mut seen, mut rows) = (HashSet::new(), 0);
        for _ in 0..PAGES_MAX {
            let path = "/v2/cases/msp/search";
            let Some(bytes) = self.send(Method::POST, path, body).await else {
                return false;
            };
            let Ok(page) = serde_json::from_slice::<Page>(&bytes) else {
                return false;
            };
            rows += page.data.len();
            seen.extend(page.data.into_iter().map(|case| case.case_id));
            if seen.len() < rows {
                // The same cases came again, so the list does not end.
                return true;
            }
            let Some(Key { scroll_id }) = page.next_page_key else {
                let whole = seen.len() == rows && rows >= self.month_of_cases();
                self.tally
                    .right
                    .fetch_add(u64::from(whole), Ordering::Relaxed);
                return true;
            };
            body = match spelling % 2 {
                0 => format!(
                    r#"{{"max_returned_items":{size},"start_page_key":{{"scroll_id":"{scroll_id}"}}}}"#
                ),
                _ => format!(
                    r#"{{"start_page_key": {{"scroll_id": "{scroll_id}"}}, "max_returned_items": {size}}}"#
                ),
            };
            // A person, or a program that works on each page.
            sleep(Duration::from_millis(50)).await;
        }
        true
    }

    /// Cases of the last thirty days when the world began. Later cases are only added.
    fn month_of_cases(&self) -> usize {
        let today = self.sandbox.options().today;
        let start = today.saturating_sub(jiff::Span::new().days(30));
        let rows = self.sandbox.expected_rows(None, Some((start, today)));
        // An answer that may still be used can lack newer cases.
        rows.len().saturating_sub(40)
    }
}

async fn play(party: Party, sandbox: &Arc<Sandbox>, trace: &[Vec<Event>], log: &CallLog) -> Line {
    sandbox.reset();
    log.take();
    let months = sandbox.months();
    let door = Arc::new(Door {
        addresses: party.addresses.clone(),
        sandbox: sandbox.clone(),
        customers: sandbox.customers().into_iter().map(|c| c.id).collect(),
        contracts: sandbox.contracts().into_iter().map(|c| c.id).collect(),
        months,
        http: Client::builder(TokioExecutor::new()).build_http(),
        tally: Tally::default(),
    });
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for events in trace {
        let (door, events) = (door.clone(), events.clone());
        callers.spawn(async move {
            for event in events {
                sleep_until(began + event.at).await;
                if event.impatient {
                    let _ = timeout(IMPATIENT, door.ask(&event.ask)).await;
                } else if !door.ask(&event.ask).await {
                    door.tally.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let world = sandbox.clone();
    let insert = tokio::spawn(async move {
        loop {
            sleep(INSERT_EVERY).await;
            world.insert(1, None, None);
        }
    });
    callers.join_all().await;
    insert.abort();
    sleep(SETTLE).await;
    let counts = sandbox.counts();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let line = Line {
        name: party.name.to_owned(),
        requests: read(&door.tally.requests),
        errors: read(&door.tally.errors),
        calls: SimOperation::ALL
            .iter()
            .map(|operation| (*operation, counts.requests(*operation)))
            .collect(),
        lists: read(&door.tally.lists),
        right: read(&door.tally.right),
        lanes: log.take(),
        searches: searches(sandbox),
    };
    party.end().await;
    line
}

/// Returns the Debian packages that the comparison needs and that are missing.
fn missing() -> Vec<&'static str> {
    let has = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
        folders
            .into_iter()
            .any(|folder| folder.join(program).is_file())
    };
    let module = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .iter()
        .any(|arch| {
            let file = format!("/usr/lib/{arch}/varnish/vmods/libvmod_bodyaccess.so");
            Path::new(&file).is_file()
        });
    let packages = [
        ("nginx", has("nginx")),
        ("varnish", has("varnishd")),
        // Without it Varnish would pass on every POST, and could not be compared.
        ("varnish-modules", module),
    ];
    let missing = packages.into_iter().filter(|(_, there)| !there);
    missing.map(|(package, _)| package).collect()
}

/// Installs the missing packages, if that is possible.
fn prepare() -> Result<(), String> {
    let wanted = missing();
    let mut said = String::new();
    if !wanted.is_empty() && rustix::process::geteuid().is_root() {
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "-q", "--no-install-recommends"]);
        // Another run may be installing them.
        install.args(["-o", &format!("DPkg::Lock::Timeout={INSTALL_WAIT_S}")]);
        // Debian would start these servers at once, and they are for the comparison only.
        install.env("RUNLEVEL", "1").args(&wanted);
        said = match install.output() {
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(why) => why.to_string(),
        };
    }
    match missing().as_slice() {
        [] => Ok(()),
        missing => Err(format!(
            "the comparison needs nginx, Varnish and its module bodyaccess: apt-get install {} {said}",
            missing.join(" ")
        )),
    }
}

/// The parties, in the order in which they play.
const GATEWAY: usize = 0;
const FIRST_PEER: usize = 2;
/// Peers that cache POST. The peer after them caches no search, so its lists are right.
const CACHING_PEERS: std::ops::Range<usize> = FIRST_PEER..4;
const RIGHT_PEER: usize = 4;
const PARTIES: usize = 5;

fn print_table(lines: &[Line]) {
    println!(
        "| | requests | customers | search | continue | billing | all | per 1,000 requests | lists read right | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for line in lines {
        let of = |operation| line.calls.get(&operation).copied().unwrap_or_default();
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {:.1} | {} of {} | {} |",
            line.name,
            line.requests,
            of(SimOperation::Customers),
            of(SimOperation::Search),
            of(SimOperation::Continue),
            of(SimOperation::Billing),
            line.total(),
            line.per_thousand(),
            line.right,
            line.lists,
            line.errors,
        );
    }
}

/// Returns the gateway's calls relative to those of the best caching peer: (for each request, of
/// the whole trace, of the whole trace relative to the peer with right lists).
fn ratios(lines: &[Line]) -> (f64, f64, f64) {
    let best = |of: fn(&Line) -> f64| {
        let peers = lines[CACHING_PEERS].iter().map(of);
        of(&lines[GATEWAY]) / peers.fold(f64::MAX, f64::min)
    };
    let total = |line: &Line| line.total() as f64;
    (
        best(Line::per_thousand),
        best(total),
        total(&lines[GATEWAY]) / total(&lines[RIGHT_PEER]),
    )
}

fn print_ratios(lines: &[Line]) {
    let (each, whole, right) = ratios(lines);
    println!(
        "\nmsp-gateway / best caching peer = {each:.3} in calls per request (target: at most 0.200), {whole:.3} in calls of the trace; \
         / nginx that caches no search = {right:.3} in calls of the trace\n"
    );
}

/// How long an answer may be used.
#[derive(Clone, Copy)]
enum Life {
    /// While it is fresh.
    Fresh,
    /// While it is fresh and while it is stale, which is twice as long again.
    Stale,
}

/// The offline bounds of a trace, or of several.
#[derive(Default)]
struct Bounds {
    stale: Bound,
    fresh: Bound,
}

/// The offline bound of a trace, in this world.
fn bound_of(trace: &[Vec<Event>], sandbox: &Sandbox, life: Life) -> Bound {
    let times = match life {
        Life::Fresh => 1,
        Life::Stale => 3,
    };
    let life = |fresh_s: u64| Duration::from_secs(fresh_s * times);
    let day = |value: &serde_json::Value| value.as_str()?.parse().ok();
    let rows = |range: &serde_json::Value| {
        let range = day(&range["start"]).zip(day(&range["end"]));
        sandbox.expected_rows(None, range).len()
    };
    let world = World {
        customers: life(CUSTOMERS_S),
        cases: life(CASES_S),
        billing: life(BILLING_S),
        rows: &rows,
    };
    bound(trace, &world)
}

fn print_bounds(line: &Line, bounds: &Bounds) {
    for (what, bound) in [
        ("knowing the future (aim: at most 1.15)", &bounds.stale),
        ("if stale answers were never used", &bounds.fresh),
    ] {
        println!(
            "the fewest calls {what}: {} ({} customer lists, {} for cases, {} bills); {} / that = {:.2}",
            bound.total(),
            bound.customers,
            bound.cases,
            bound.billing,
            line.name,
            line.total() as f64 / bound.total() as f64,
        );
    }
    println!();
}

fn print_reasons(line: &Line) {
    println!("where the calls of {} come from\n", line.name);
    println!("| operation | lane | calls |\n|---|---|---|");
    for ((operation, lane), calls) in &line.lanes {
        println!("| {operation} | {lane} | {calls} |");
    }
    println!("\n| first searches of | calls |\n|---|---|");
    for (search, calls) in &line.searches {
        println!("| {search} | {calls} |");
    }
    println!();
}

/// The vendors that all parties share: their world, and their address.
async fn vendors() -> Result<(Arc<Sandbox>, SocketAddr), String> {
    let options = Options {
        wiv_requests_per_minute: None,
        nable_requests_per_minute: None,
        latency: VENDOR_LATENCY,
        // Peers leave scrolls open. The comparison ignores that.
        open_scrolls_max: 100_000,
        ..Options::default()
    };
    let sandbox = Sandbox::new(options, Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|why| why.to_string())?;
    let address = listener.local_addr().map_err(|why| why.to_string())?;
    // It ends with the runtime.
    tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
    Ok((sandbox, address))
}

/// Plays each trace with one gateway, and with two that share a store.
async fn run_fleet(seconds: u64, seeds: &[u64]) -> Result<(), String> {
    let log = CallLog::install()?;
    let work = tempfile::tempdir().map_err(|why| why.to_string())?;
    let (sandbox, vendors) = vendors().await?;
    let mut sums = [Line::default(), Line::default()];
    for seed in seeds {
        let trace = draw(*seed, Duration::from_secs(seconds), sandbox.options().today);
        for (at, sum) in sums.iter_mut().enumerate() {
            let party = match at {
                0 => parties::gateway(vendors, false).await?,
                _ => parties::fleet(vendors, work.path()).await?,
            };
            eprintln!("seed {seed}: {} on {:?} …", party.name, party.addresses);
            let line = play(party, &sandbox, &trace, &log).await;
            sum.name = line.name.clone();
            sum.add(&line);
        }
    }
    let [one, two] = &sums;
    print_table(&sums);
    println!(
        "\ntwo gateways over one Valkey / one = {:.3} in vendor calls (aim: at most 1.05)\n",
        two.total() as f64 / one.total().max(1) as f64,
    );
    print_reasons(one);
    print_reasons(two);
    Ok(())
}

async fn run(seconds: u64, seeds: &[u64]) -> Result<(), String> {
    prepare()?;
    let log = CallLog::install()?;
    let work = tempfile::tempdir().map_err(|why| why.to_string())?;
    let (sandbox, vendors) = vendors().await?;
    let mut sums: Vec<Line> = Vec::new();
    let mut bounds = Bounds::default();
    for seed in seeds {
        let trace = draw(*seed, Duration::from_secs(seconds), sandbox.options().today);
        let mut lines = Vec::new();
        for party in 0..PARTIES {
            let party = match party {
                0 => parties::gateway(vendors, false).await?,
                1 => parties::gateway(vendors, true).await?,
                2 => parties::nginx(vendors, work.path(), true).await?,
                3 => parties::varnish(vendors, work.path()).await?,
                _ => parties::nginx(vendors, work.path(), false).await?,
            };
            eprintln!("seed {seed}: {} on {:?} …", party.name, party.addresses);
            lines.push(play(party, &sandbox, &trace, &log).await);
        }
        println!("\nseed {seed}, {seconds} s of trace\n");
        print_table(&lines);
        print_ratios(&lines);
        let fewest = Bounds {
            stale: bound_of(&trace, &sandbox, Life::Stale),
            fresh: bound_of(&trace, &sandbox, Life::Fresh),
        };
        print_bounds(&lines[GATEWAY], &fewest);
        bounds.stale.add(&fewest.stale);
        bounds.fresh.add(&fewest.fresh);
        match sums.as_mut_slice() {
            [] => sums = lines,
            sums => sums
                .iter_mut()
                .zip(&lines)
                .for_each(|(sum, line)| sum.add(line)),
        }
    }
    if seeds.len() > 1 {
        println!("all {} seeds together\n", seeds.len());
        print_table(&sums);
        print_ratios(&sums);
        print_bounds(&sums[GATEWAY], &bounds);
    }
    print_reasons(&sums[GATEWAY]);
    Ok(())
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let fleet = words.first().is_some_and(|word| word == "fleet");
    if fleet {
        words.remove(0);
    }
    let numbers: Result<Vec<u64>, _> = words.iter().map(|text| text.parse()).collect();
    let (seconds, seeds) = match numbers.as_deref() {
        Ok([]) => (SECONDS, vec![SEED]),
        Ok([seconds @ 1..=600]) => (*seconds, vec![SEED]),
        Ok([seconds @ 1..=600, seeds @ ..]) => (*seconds, seeds.to_vec()),
        _ => {
            eprintln!("usage: vendor_calls [fleet] [SECONDS (1 to 600) [SEED…]]");
            std::process::exit(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ran = match fleet {
        true => runtime.block_on(run_fleet(seconds, &seeds)),
        false => runtime.block_on(run(seconds, &seeds)),
    };
    if let Err(why) = ran {
        eprintln!("vendor_calls: {why}");
        std::process::exit(1);
    }
}
