//! Followers: a caller that only applies the lines of `GET /v1/cases/changes` holds the rows of a
//! new search.
//!
//! Each round changes the vendor's cases at random, while a tenth of its calls fails. Gateways are
//! restarted, with their store and without, states are evicted, and streams are cut. Followers of
//! different audiences and searches apply the lines of a stream if it ended with `sync`. What they
//! hold is compared with what the vendor had from their `as_of` on, and with a whole search.
//! `MSP_FOLLOW_ROUNDS` sets the number of rounds, `MSP_FOLLOW_SEED` the run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::sandbox::{self, FaultKind, Sandbox, SimFault, SimOperation};
use msp_gateway::store::Model;
use serde_json::{Value, value::RawValue};

use crate::kept_rows::SlowDisk;
use crate::kit::NOW;
use crate::whole::{ALL, SETTINGS, Whole, caller, get, post, search, secrets, world};

const TENANT: &str = "x-api-key: k-tenant\r\n";
const OTHER: &str = "x-api-key: k-other\r\n";
const CHANGES: &str = "/v1/cases/changes";

fn gateway(more: &str, world: sandbox::Options) -> Whole {
    Whole::with(&text(more), &secrets(), world)
}

fn text(more: &str) -> String {
    let tenant = caller("tenant", "customers = [\"org_1\", \"org_2\"]\n");
    let other = caller("other", "customers = [\"org_1\"]\n");
    let all = caller("all", "role = \"operator\"");
    format!("{SETTINGS}{more}{all}{tenant}{other}")
}

fn small() -> sandbox::Options {
    sandbox::Options {
        cases: 150,
        without_case_id_every: 9,
        without_customer_id_every: 14,
        ..world()
    }
}

/// What comes as the answer to one request, on a connection of its own.
async fn raw(whole: &Whole, target: &str, headers: &str) -> String {
    let mut peer = whole.connect();
    peer.send(get(target, &format!("{headers}connection: close\r\n")))
        .await;
    peer.rest().await
}

/// The status, and the lines of the body, if that came whole. The status is 0 without a whole head.
fn read(all: &str) -> (u16, Option<Vec<String>>) {
    let Some((head, mut rest)) = all.split_once("\r\n\r\n") else {
        return (0, None);
    };
    let status = head
        .get(9..12)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if !head.contains("transfer-encoding: chunked") {
        return (status, Some(vec![rest.to_owned()]));
    }
    let mut body = String::new();
    loop {
        let Some((size, after)) = rest.split_once("\r\n") else {
            return (status, None);
        };
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            let whole = after == "\r\n";
            let lines = || body.lines().map(str::to_owned).collect();
            return (status, whole.then(lines));
        }
        let Some(chunk) = after.get(..size) else {
            return (status, None);
        };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or("");
    }
}

/// By what a row is named, its text.
type Rows = BTreeMap<String, String>;

#[derive(serde::Deserialize)]
struct Line<'a> {
    op: &'a str,
    #[serde(borrow)]
    row: Option<&'a RawValue>,
    row_hash: Option<&'a str>,
    customer_id: Option<Value>,
    case_id: Option<Value>,
    since: Option<&'a str>,
    rows: Option<usize>,
    as_of: Option<&'a str>,
}

fn name_of(row: &str) -> String {
    let value: Value = serde_json::from_str(row).unwrap();
    match &value["case_id"] {
        Value::Null => format!("hash {}", blake3_of(row)),
        case => format!("{} {case}", value["customer_id"]),
    }
}

fn blake3_of(row: &str) -> String {
    let hash = blake3::hash(row.as_bytes()).to_hex();
    hash.as_str()[..32].to_owned()
}

struct Follower {
    key: &'static str,
    search: &'static str,
    held: Rows,
    since: Option<String>,
    as_of: String,
    told: usize,
    unfinished: usize,
    /// How often it started from nothing because its state was gone.
    lost: usize,
    /// The next stream is cut here, as a part of its bytes.
    cut: Option<f64>,
}

impl Follower {
    fn new(key: &'static str, search: &'static str) -> Self {
        Self {
            key,
            search,
            held: Rows::new(),
            since: None,
            as_of: String::new(),
            told: 0,
            unfinished: 0,
            lost: 0,
            cut: None,
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.key.trim_end(), self.search)
    }

    /// Asks once, and applies what was told if it was told whole. How many lines that were.
    async fn follow(&mut self, whole: &Whole, more: &str) -> Option<usize> {
        let target = match &self.since {
            None => format!("{CHANGES}{}", self.search),
            Some(token) => format!("{CHANGES}?since={token}{more}"),
        };
        let mut all = raw(whole, &target, self.key).await;
        let cut = self.cut.take();
        if let Some(part) = cut {
            let bytes = (all.len() as f64 * part) as usize;
            all.truncate(all.floor_char_boundary(bytes));
        }
        let (status, lines) = read(&all);
        if status == 410 {
            // The state is gone: from the start.
            self.since = None;
            self.held.clear();
            self.lost += 1;
            return None;
        }
        let Some(lines) = lines.filter(|_| status == 200) else {
            assert!(
                cut.is_some() || matches!(status, 200 | 502 | 503 | 504),
                "{status}"
            );
            self.unfinished += 1;
            return None;
        };
        assert!(cut.is_none(), "cut, and seems whole");
        let (last, changes) = lines.split_last().expect("a line");
        let last: Line<'_> = serde_json::from_str(last).unwrap();
        assert_eq!(last.op, "sync", "whole without sync");
        if self.since.is_none() {
            self.held.clear();
        }
        let mut names = std::collections::BTreeSet::new();
        for line in changes {
            let read: Line<'_> = serde_json::from_str(line).unwrap();
            let name = match (read.op, read.row) {
                ("upsert", Some(row)) => {
                    let name = name_of(row.get());
                    assert_eq!(read.row_hash.is_some(), name.starts_with("hash"), "{line}");
                    self.held.insert(name.clone(), row.get().to_owned());
                    name
                }
                ("remove", None) => {
                    let name = match read.row_hash {
                        Some(hash) => format!("hash {hash}"),
                        None => format!(
                            "{} {}",
                            read.customer_id.unwrap_or(Value::Null),
                            read.case_id.unwrap()
                        ),
                    };
                    assert!(self.held.remove(&name).is_some(), "gone before: {line}");
                    name
                }
                _ => panic!("{line}"),
            };
            assert!(names.insert(name), "told twice: {line}");
        }
        assert_eq!(last.rows, Some(self.held.len()));
        let as_of = last.as_of.unwrap().to_owned();
        assert!(as_of >= self.as_of, "{as_of} before {}", self.as_of);
        self.as_of = as_of;
        self.since = last.since.map(str::to_owned);
        self.told += changes.len();
        Some(changes.len())
    }

    /// The status of the answer to its next question, which it does not apply.
    async fn ask(&self, whole: &Whole, more: &str) -> u16 {
        let token = self.since.as_deref().unwrap();
        let target = format!("{CHANGES}?since={token}{more}");
        read(&raw(whole, &target, self.key).await).0
    }

    /// Whether it holds what a new search gives; nothing if that could not be read.
    async fn is_right(&self, whole: &Whole) -> Option<bool> {
        Some(self.searched(whole).await? == self.held)
    }

    /// What a new search gives.
    async fn searched(&self, whole: &Whole) -> Option<Rows> {
        #[derive(serde::Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            data: Vec<&'a RawValue>,
            next_page_key: Option<Value>,
        }
        // The days of a search stand in its body.
        let (customer, days) = self
            .search
            .split_once("&start=")
            .unwrap_or((self.search, ""));
        let range = days
            .split_once("&end=")
            .map_or(String::new(), |(start, end)| {
                format!(",\"date_range\":{{\"start\":\"{start}\",\"end\":\"{end}\"}}")
            });
        let target = format!("/v2/cases/msp/search{customer}");
        let all = format!("{{\"max_returned_items\":500{range}}}");
        let reply = whole.ask(post(&target, self.key, &all)).await;
        let page: Page<'_> = match reply.status {
            200 => serde_json::from_slice(&reply.body).unwrap(),
            _ => return None,
        };
        assert!(page.next_page_key.is_none(), "more than a page");
        let rows = page.data.iter().map(|row| row.get());
        let right: Rows = rows.map(|row| (name_of(row), row.to_owned())).collect();
        assert_eq!(right.len(), page.data.len());
        Some(right)
    }
}

fn number_of(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What each kind of follower was to see since when: hashes of all rows.
struct Versions(VecDeque<(Timestamp, [blake3::Hash; 3])>);

impl Versions {
    /// More than a follower can be behind: a round takes a minute, and nothing is served past an
    /// hour.
    const KEPT: usize = 300;

    fn note(&mut self, sandbox: &Sandbox, now: Timestamp) {
        let rows = |customers: &[Option<&str>]| {
            let each = customers.iter();
            hash_of(each.flat_map(|customer| sandbox.expected_rows(*customer, None)))
        };
        let (one, two) = (Some("org_1"), Some("org_2"));
        let seen = [rows(&[None]), rows(&[one, two]), rows(&[one])];
        self.0.push_back((now, seen));
        if self.0.len() > Self::KEPT {
            self.0.pop_front();
        }
    }

    fn kind(follower: &Follower) -> usize {
        match (follower.key, follower.search) {
            (ALL, "") => 0,
            (TENANT, "") => 1,
            _ => 2,
        }
    }

    /// Whether a follower holds something newer than these rows, which the vendor had once.
    fn is_behind(&self, rows: &Rows, follower: &Follower) -> bool {
        let kind = Self::kind(follower);
        let last = |rows: &Rows| {
            let hash = hash_of(rows.values().cloned());
            self.0.iter().rposition(|(_, seen)| seen[kind] == hash)
        };
        last(rows).is_some() && last(rows) < last(&follower.held)
    }

    /// Whether what a follower holds is what the vendor had at some time from its `as_of` on.
    fn has(&self, follower: &Follower) -> bool {
        let kind = Self::kind(follower);
        let as_of: Timestamp = follower.as_of.parse().unwrap();
        // What was read at the very moment of a change was read before it.
        let current = self.0.iter().rposition(|(since, _)| *since < as_of);
        let held = hash_of(follower.held.values().cloned());
        let mut later = self.0.iter().skip(current.unwrap_or(0));
        later.any(|(_, seen)| seen[kind] == held)
    }
}

fn hash_of(rows: impl Iterator<Item = String>) -> blake3::Hash {
    let mut rows: Vec<String> = rows.collect();
    rows.sort_unstable();
    blake3::hash(rows.join("\n").as_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_follower_holds_what_a_new_search_gives() {
    let rounds = number_of("MSP_FOLLOW_ROUNDS", 150);
    let mut dice = fastrand::Rng::with_seed(number_of("MSP_FOLLOW_SEED", 1));
    // Room for some twenty states and their ids: old ones are evicted all the time.
    let mut succession = Succession::new("[changes]\nbytes_max = \"128KiB\"\n", small());
    let mut whole = succession.begin();
    let sandbox = succession.sandbox.clone();
    let mut versions = Versions(VecDeque::new());
    versions.note(&sandbox, succession.clock.wall());
    let mut followers = [
        Follower::new(ALL, ""),
        Follower::new(TENANT, ""),
        Follower::new(OTHER, ""),
        Follower::new(ALL, "?customer_id=org_1"),
        Follower::new(TENANT, "?customer_id=org_1"),
    ];
    let (mut compared, mut unread, mut restarts, mut cut, mut ahead) = (0, 0, 0, 0, 0);
    for round in 0..rounds {
        sandbox.clear_faults();
        if round % 3 > 0 {
            // As many come as go, in the long run.
            let few = sandbox.expected_rows(None, None).len() < 150;
            sandbox.insert(dice.usize(0..4) + 2 * usize::from(few), None, None);
            sandbox.alter(dice.usize(0..6), dice.usize(0..5), dice.usize(0..6));
            versions.note(&sandbox, succession.clock.wall());
        }
        // A tenth of the calls, and now and then all continuations or all calls.
        let worse = dice.u8(..);
        for operation in [SimOperation::Search, SimOperation::Continue] {
            let is_dead = worse < 6 || worse < 12 && operation == SimOperation::Continue;
            for kind in [
                FaultKind::DropBefore,
                FaultKind::DropAfter,
                FaultKind::CutBody { at: None },
            ] {
                sandbox.fault(SimFault {
                    probability: Some(if is_dead { 1.0 } else { 0.034 }),
                    ..SimFault::on(operation, kind)
                });
            }
        }
        // Past its freshness, and sometimes past all use.
        let longer = if dice.u8(..) < 16 { 7_200 } else { 61 };
        sleep(Duration::from_secs(longer)).await;
        if dice.u8(..) < 8 {
            let purge = "{\"all\":true,\"soft\":false}";
            let json = "content-type: application/json\r\n";
            whole.ask_admin(post("/admin/purge", json, purge)).await;
        }
        if dice.u8(..) < 8 {
            restarts += 1;
            if dice.u8(..) < 64 {
                // With a new disk.
                succession.model = Arc::new(Model::new(256 << 20));
            }
            whole = succession.begin();
        }
        for follower in &mut followers {
            if dice.u8(..) < 24 {
                follower.cut = Some(dice.f64());
                cut += 1;
            }
            if follower.follow(&whole, "").await.is_some() {
                assert!(versions.has(follower), "round {round}, {}", follower.name());
            }
        }
        // Stale lists are refreshed meanwhile.
        sleep(Duration::from_secs(20)).await;
        for follower in &mut followers {
            // Other searches of the same round may bring something newer in between.
            for _ in 0..5 {
                let told = follower.follow(&whole, "").await;
                if told.is_some() {
                    assert!(versions.has(follower), "round {round}, {}", follower.name());
                }
                if told != Some(0) {
                    continue;
                }
                match follower.searched(&whole).await {
                    None => unread += 1,
                    Some(right) => {
                        compared += 1;
                        let is_right = right == follower.held;
                        let quiet = follower.follow(&whole, "").await == Some(0);
                        // A search may be answered stale, and the follower be ahead of it.
                        let is_ahead = || versions.is_behind(&right, follower);
                        let name = follower.name();
                        assert!(is_right || !quiet || is_ahead(), "round {round}, {name}");
                        ahead += usize::from(!is_right && quiet);
                    }
                }
                break;
            }
        }
    }
    let sum = |of: fn(&Follower) -> usize| followers.iter().map(of).sum::<usize>();
    let (told, unfinished) = (sum(|of| of.told), sum(|of| of.unfinished));
    let lost = sum(|of| of.lost);
    let failed = sandbox.counts().total();
    println!(
        "follow: {rounds} rounds, {restarts} restarts, {compared} compared, {ahead} ahead, {told} lines, {cut} cut, \
         {unfinished} unfinished, {lost} restarted, {unread} unread, {failed} vendor calls"
    );
    assert!(compared as u64 > 3 * rounds && told > 0);
    assert!(unfinished > 0 && cut > 0 && restarts > 0 && lost > 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_are_one_refresh_in_each_period() {
    let whole = gateway(
        "",
        sandbox::Options {
            cases: 40,
            ..small()
        },
    );
    let mut first = Follower::new(ALL, "");
    first.follow(&whole, "").await.unwrap();
    let token = first.since.clone().unwrap();
    let before = whole.vendor_calls();
    // The freshness of a minute, or somewhat less, ends well within the time that they wait.
    sleep(Duration::from_secs(20)).await;
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        let mut peer = whole.connect();
        let target = format!("{CHANGES}?since={token}&wait=60s");
        peer.send(get(&target, &format!("{ALL}connection: close\r\n")))
            .await;
        waiting.push(peer);
    }
    sleep(Duration::from_secs(10)).await;
    whole.sandbox.alter(3, 2, 1);
    let start = Instant::now();
    for mut peer in waiting {
        let told = peer.rest().await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(
            told.contains("\"op\":\"upsert\"") && told.contains("\"op\":\"sync\""),
            "{told}"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(51),
        "{:?}",
        start.elapsed()
    );
    // One page holds all rows: one call.
    assert_eq!(whole.vendor_calls() - before, 1);
    // Others ask in between: they hold no places.
    let status = whole.ask_admin(get("/admin/status", "")).await.json();
    assert_eq!(status["requests_in_flight"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_difference_with_its_time_or_with_the_gateway() {
    let whole = gateway("", small());
    let mut follower = Follower::new(TENANT, "");
    assert!(follower.follow(&whole, "").await.unwrap() > 0);
    let start = Instant::now();
    assert_eq!(follower.follow(&whole, "&wait=30s").await, Some(0));
    let waited = start.elapsed();
    assert!((30..32).contains(&waited.as_secs()), "{waited:?}");
    // Others' rows are no difference.
    whole.sandbox.insert(5, Some("org_3"), None);
    assert_eq!(follower.follow(&whole, "&wait=60s").await, Some(0));
    whole.sandbox.insert(5, Some("org_1"), None);
    let start = Instant::now();
    let mut told = follower.follow(&whole, "&wait=60s").await;
    if told == Some(0) {
        told = follower.follow(&whole, "&wait=60s").await;
    }
    assert_eq!(told, Some(5));
    assert!(start.elapsed() < Duration::from_secs(119));
    let waiting = async { follower.follow(&whole, "&wait=60s").await };
    let leaving = async {
        sleep(Duration::from_secs(5)).await;
        whole.app.drain().begin();
    };
    let start = Instant::now();
    let (told, ()) = tokio::join!(waiting, leaving);
    assert_eq!(told, Some(0));
    assert!(start.elapsed() < Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_for_their_audience_and_search_alone() {
    let whole = gateway("", small());
    let mut tenant = Follower::new(TENANT, "?customer_id=org_1&start=2025-01-01&end=2026-11-20");
    tenant.follow(&whole, "").await.unwrap();
    let token = tenant.since.clone().unwrap();
    let page = whole
        .ask(search(ALL, "{\"max_returned_items\":1}"))
        .await
        .json();
    let page = page["next_page_key"]["scroll_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = ["A", "B"][usize::from(token[20..].starts_with('A'))];
    let altered = format!("{}{other}{}", &token[..20], &token[21..]);
    let ask = async |key: &str, query: String| {
        let reply = whole.ask(get(&format!("{CHANGES}?{query}"), key)).await;
        let code = match reply.header("content-type") {
            "application/problem+json" => reply.code(),
            _ => String::new(),
        };
        (reply.status, code)
    };
    let code = |status, code: &str| (status, code.to_owned());
    for (key, query, right) in [
        (TENANT, format!("since={token}"), code(200, "")),
        (TENANT, format!("since={token}&wait=0"), code(200, "")),
        (
            TENANT,
            format!("since={token}&customer_id=org_1"),
            code(200, ""),
        ),
        (
            TENANT,
            format!("since={token}&start=2025-01-01&end=2026-11-20"),
            code(200, ""),
        ),
        (
            TENANT,
            format!("since={token}&customer_id=org_2"),
            code(400, "invalid_sync_token"),
        ),
        (
            TENANT,
            format!("since={token}&start=2025-01-02&end=2026-11-20"),
            code(400, "invalid_sync_token"),
        ),
        (
            ALL,
            format!("since={token}"),
            code(400, "invalid_sync_token"),
        ),
        (
            OTHER,
            format!("since={token}"),
            code(400, "invalid_sync_token"),
        ),
        (
            TENANT,
            format!("since={altered}"),
            code(400, "invalid_sync_token"),
        ),
        (TENANT, "since=".to_owned(), code(400, "invalid_sync_token")),
        (
            TENANT,
            "since=x".to_owned(),
            code(400, "invalid_sync_token"),
        ),
        (
            ALL,
            format!("since={page}"),
            code(400, "invalid_sync_token"),
        ),
        (
            TENANT,
            "customer_id=org_3".to_owned(),
            code(403, "customer_not_allowed"),
        ),
        (
            TENANT,
            format!("since={token}&wait=61s"),
            code(400, "invalid_query"),
        ),
        (
            TENANT,
            format!("since={token}&wait=-1s"),
            code(400, "invalid_query"),
        ),
        (
            TENANT,
            format!("since={token}&wait=1m"),
            code(400, "invalid_query"),
        ),
        (
            TENANT,
            format!("since={token}&wait="),
            code(400, "invalid_query"),
        ),
        (TENANT, "wait=1s".to_owned(), code(400, "invalid_query")),
        (
            TENANT,
            format!("since={token}&since={token}"),
            code(400, "invalid_query"),
        ),
        (TENANT, "format=csv".to_owned(), code(400, "invalid_query")),
    ] {
        assert_eq!(ask(key, query.clone()).await, right, "{query}");
    }
    // A sync token is no page token either.
    let body = format!("{{\"start_page_key\":{{\"scroll_id\":\"{token}\"}}}}");
    let reply = whole.ask(search(TENANT, &body)).await;
    assert_eq!(reply.code(), "invalid_page_token");
}

#[tokio::test(start_paused = true)]
async fn states_go_when_their_room_is_short_and_that_is_told() {
    let whole = gateway(
        "[changes]\nbytes_max = \"64KiB\"\nfollowers_max = 8\n",
        small(),
    );
    let mut follower = Follower::new(ALL, "");
    follower.follow(&whole, "").await.unwrap();
    let old = follower.since.clone().unwrap();
    for _ in 0..40 {
        whole.sandbox.alter(30, 0, 0);
        sleep(Duration::from_secs(61)).await;
        follower.follow(&whole, "").await;
        sleep(Duration::from_secs(5)).await;
        follower.follow(&whole, "").await.unwrap();
    }
    let reply = whole.ask(get(&format!("{CHANGES}?since={old}"), ALL)).await;
    assert_eq!((reply.status, &*reply.code()), (410, "sync_token_expired"));
    let metrics = whole.metrics_text().await;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("msp_gateway_cache_bytes{store=\"changes\"}") <= 65_536.0);
    assert!(value("msp_gateway_cache_evictions_total{store=\"changes\"}") > 0.0);
    // More who wait than may.
    let token = follower.since.clone().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..7 {
        let mut peer = whole.connect();
        peer.send(get(&format!("{CHANGES}?since={token}&wait=60s"), ALL))
            .await;
        assert_eq!(peer.reply_head().await.unwrap().0, 200);
        waiting.push(peer);
    }
    let refused = whole
        .ask(get(&format!("{CHANGES}?since={token}&wait=60s"), ALL))
        .await;
    assert_eq!((refused.status, &*refused.code()), (503, "overloaded"));
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("changes.followers_max")
    );
    assert_eq!(whole.ask(search(ALL, "{}")).await.status, 200);
}

/// One gateway after the other before the same vendors, over the same store.
struct Succession {
    text: String,
    sandbox: Arc<Sandbox>,
    clock: Clock,
    model: Arc<Model>,
}

impl Succession {
    fn new(more: &str, world: sandbox::Options) -> Self {
        let clock = Clock::anchored(NOW.parse().unwrap());
        Self {
            text: text(more),
            sandbox: Sandbox::new(world, clock.clone()),
            clock,
            model: Arc::new(Model::new(256 << 20)),
        }
    }

    fn begin(&self) -> Whole {
        let before = (&self.sandbox, &self.clock);
        Whole::begin(&self.text, &secrets(), before, self.model.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_gives_the_difference_after_a_restart_and_nothing_else() {
    let succession = Succession::new("", small());
    let mut whole = succession.begin();
    let mut followers = [
        Follower::new(ALL, ""),
        Follower::new(TENANT, ""),
        Follower::new(ALL, "?customer_id=org_1"),
        Follower::new(TENANT, "?customer_id=org_1&start=2025-01-01&end=2026-11-20"),
    ];
    for follower in &mut followers {
        assert!(follower.follow(&whole, "").await.unwrap() > 0);
    }
    for round in 0..6 {
        // The gateway is dropped without a drain, while requests wait.
        sleep(Duration::from_secs(1)).await;
        drop(std::mem::replace(&mut whole, succession.begin()));
        // Nothing differs yet, and nothing but the store is asked.
        let calls = whole.vendor_calls();
        for follower in &mut followers {
            assert_eq!(follower.follow(&whole, "").await, Some(0), "{round}");
            let status = follower.ask(&whole, "&wait=5s").await;
            assert_eq!(status, 200);
        }
        assert_eq!(whole.vendor_calls(), calls, "{round}");
        succession.sandbox.insert(2, Some("org_1"), None);
        succession.sandbox.alter(10, 5, 5);
        if round % 2 == 1 {
            drop(std::mem::replace(&mut whole, succession.begin()));
        }
        // Past `on_error`, so the list is fetched again.
        sleep(Duration::from_secs(3_700)).await;
        for follower in &mut followers {
            let told = follower.follow(&whole, "").await.unwrap();
            assert!(told > 0 && told <= 20, "{round}: {told}");
            assert_eq!(follower.is_right(&whole).await, Some(true), "{round}");
        }
    }
    // The states of both are one in the store and not again for each of its callers.
    let entries = whole.metric("cache_entries{store=\"changes\"}").await;
    assert!(entries <= 8.0, "{entries}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_told_outlives_a_crash_and_no_disk_is_waited_for_long() {
    for (takes, outlives) in [(20, true), (200, false)] {
        let succession = Succession::new("", small());
        let before = (&succession.sandbox, &succession.clock);
        let (disk, platter) = SlowDisk::new(Duration::from_millis(takes));
        let whole = Whole::begin(&succession.text, &secrets(), before, disk);
        // Past the pages of the search, which are stored before callers see them, too.
        whole.ask(get("/v1/cases/export", ALL)).await;
        let mut follower = Follower::new(ALL, "");
        let begun = Instant::now();
        assert!(follower.follow(&whole, "").await.unwrap() > 0);
        let waited = begun.elapsed().as_millis();
        assert!((20..=55).contains(&waited), "{takes}: {waited}");
        // A second one has nothing to wait for.
        let begun = Instant::now();
        follower.follow(&whole, "").await.unwrap();
        assert!(begun.elapsed().as_millis() <= 5, "{takes}");
        // The power goes now: what is on the platter is all that is left.
        let next = Whole::begin(&succession.text, &secrets(), before, platter);
        let told = follower.follow(&next, "").await;
        assert_eq!(told, outlives.then_some(0), "{takes}");
        assert_eq!(follower.lost, usize::from(!outlives), "{takes}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_state_of_a_followed_search_is_built_before_it_is_asked_for() {
    let whole = gateway("", small());
    let states = async || whole.metric("cache_entries{store=\"changes\"}").await;
    // Another caller asks until the list is refreshed.
    let refresh = async || {
        sleep(Duration::from_secs(70)).await;
        for _ in 0..3 {
            assert_eq!(whole.ask(get("/v1/cases/export", ALL)).await.status, 200);
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut followers = [
        Follower::new(ALL, ""),
        Follower::new(TENANT, "?customer_id=org_1"),
    ];
    for follower in &mut followers {
        follower.follow(&whole, "").await.unwrap();
    }
    assert_eq!(states().await, 2.0);
    for round in 0..3 {
        whole.sandbox.alter(4, 0, 0);
        whole.sandbox.insert(2, Some("org_1"), None);
        refresh().await;
        // One more of each, whether or not the one before was ever asked for.
        assert_eq!(states().await, 4.0, "{round}");
    }
    let calls = whole.vendor_calls();
    for follower in &mut followers {
        assert!(follower.follow(&whole, "").await.unwrap() >= 6);
        assert_eq!(follower.is_right(&whole).await, Some(true));
    }
    assert_eq!(whole.vendor_calls(), calls);
    assert_eq!(states().await, 4.0);
    // A search that nobody followed for ten minutes costs nothing any more.
    sleep(Duration::from_secs(11 * 60)).await;
    whole.sandbox.alter(4, 0, 0);
    refresh().await;
    assert_eq!(states().await, 4.0);
    for follower in &mut followers {
        follower.follow(&whole, "").await.unwrap();
        assert_eq!(follower.is_right(&whole).await, Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_store_a_restart_ends_tokens_and_says_so() {
    let whole = gateway("", small());
    let mut follower = Follower::new(ALL, "");
    follower.follow(&whole, "").await.unwrap();
    let token = follower.since.clone().unwrap();
    let after = gateway("", small());
    let reply = after
        .ask(get(&format!("{CHANGES}?since={token}"), ALL))
        .await;
    assert_eq!((reply.status, &*reply.code()), (410, "sync_token_expired"));
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_hold_whole_is_told_and_never_half_of_it() {
    let mut lost = 0;
    // The store holds ever less: each bound evicts another part of the states.
    for bytes in (4..60).step_by(4) {
        let mut succession = Succession::new("", small());
        succession.model = Arc::new(Model::new(bytes << 10));
        let whole = succession.begin();
        let mut followers = [Follower::new(ALL, ""), Follower::new(TENANT, "")];
        for follower in &mut followers {
            follower.follow(&whole, "").await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        drop(whole);
        let whole = succession.begin();
        succession.sandbox.alter(10, 5, 5);
        sleep(Duration::from_secs(3_700)).await;
        for follower in &mut followers {
            if follower.follow(&whole, "").await.is_none() {
                lost += 1;
                follower.follow(&whole, "").await.unwrap();
            }
            assert_eq!(follower.is_right(&whole).await, Some(true), "{bytes}");
        }
    }
    assert!((4..24).contains(&lost), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_follows_so_many_searches_and_more_are_refused_until_one_is_left() {
    let few = sandbox::Options {
        cases: 20,
        ..world()
    };
    let whole = gateway("", few);
    let ask = async |key: &str, at: usize| {
        let days = format!(
            "start=2025-01-01&end=2026-{:02}-{:02}",
            1 + at / 28,
            1 + at % 28
        );
        let reply = whole.ask(get(&format!("{CHANGES}?{days}"), key)).await;
        (reply.status, reply)
    };
    let mut tokens = Vec::new();
    for at in 0..256 {
        let (status, reply) = ask(ALL, at).await;
        assert_eq!(status, 200, "{at}");
        let text = String::from_utf8(reply.body).unwrap();
        let (_, token) = text.split_once("\"since\":\"").unwrap();
        tokens.push(token.split_once('"').unwrap().0.to_owned());
    }
    let (status, refused) = ask(ALL, 256).await;
    assert_eq!((status, &*refused.code()), (503, "overloaded"));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("256 searches"), "{detail}");
    assert!(!refused.header("retry-after").is_empty());
    let shed = whole
        .metric("requests_shed_total{what=\"caller_searches\"}")
        .await;
    assert_eq!(shed, 1.0);
    // Those that it follows go on, from the start as well, and other callers are not concerned.
    for at in [0, 255] {
        assert_eq!(ask(ALL, at).await.0, 200);
        let since = format!("{CHANGES}?since={}", tokens[at]);
        assert_eq!(whole.ask(get(&since, ALL)).await.status, 200);
    }
    assert_eq!(ask(TENANT, 256).await.0, 200);
    // One that was left makes room; the others' tokens are good still.
    sleep(Duration::from_secs(601)).await;
    assert_eq!(ask(ALL, 256).await.0, 200);
    for token in [&tokens[1], &tokens[254]] {
        let since = format!("{CHANGES}?since={token}");
        assert_eq!(whole.ask(get(&since, ALL)).await.status, 200);
    }
}
