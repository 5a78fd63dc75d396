//! `store.valkey.when_away`: what each mode makes of each read while the store is away, and what
//! reaches the vendors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::sandbox::{Sandbox, SimOperation};
use msp_gateway::store::{CLOSES_AFTER, SharedModel, WhenAway};

use crate::fleet::Link;
use crate::kept::latency;
use crate::kit::NOW;
use crate::matrix::{question, told};
use crate::whole::{ALL, SETTINGS, Whole, caller, get, post, search, secrets, world};

/// A gateway of one mode, and the way to its store.
struct Away {
    whole: Whole,
    cut: Arc<AtomicBool>,
}

impl Away {
    fn of(mode: WhenAway) -> Self {
        let [one] = Self::together(mode);
        one
    }

    /// Gateways over one store and before one vendor.
    fn together<const N: usize>(mode: WhenAway) -> [Self; N] {
        let caller = caller("all", "role = \"operator\"");
        let text = format!("{SETTINGS}read_ahead_pages = 0\n{caller}");
        let clock = Clock::anchored(NOW.parse().unwrap());
        let sandbox = Sandbox::new(world(), clock.clone());
        let engine = Arc::new(SharedModel::new(64 << 20, clock.clone()));
        std::array::from_fn(|_| {
            let cut = Arc::<AtomicBool>::default();
            let link = Link::to(&engine, &cut, &Arc::default()).when_away(mode);
            let whole = Whole::begin(&text, &secrets(), (&sandbox, &clock), link);
            Self { whole, cut }
        })
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    async fn ready(&self) -> (u16, serde_json::Value) {
        let reply = self.whole.ask_admin(get("/readyz", "")).await;
        (reply.status, reply.json()["store"].clone())
    }

    async fn refuses(&self) -> serde_json::Value {
        let reply = self.whole.ask_admin(get("/admin/status", "")).await;
        reply.json()["store"]["refuses"].clone()
    }
}

const CLOSED: [&str; 4] = ["503 store_unavailable after 2"; 4];
const HITS: &str = "customers search billing invoices drop_in export changes";

/// Mode, how many seconds the store is away, reads, and what each is answered with nothing cached,
/// a fresh answer, a stale one, and one that is good on errors only.
const TABLE: &[(WhenAway, u64, &str, [&str; 4])] = &[
    (WhenAway::Open, 30, "customers search", AS_EVER),
    (
        WhenAway::StaleOnly,
        0,
        HITS,
        [
            "503 store_unavailable after 2",
            "200 hit",
            "200 hit stale-while-revalidate",
            "200 hit stale-on-error",
        ],
    ),
    (
        WhenAway::StaleOnly,
        30,
        "continuation",
        [
            "503 store_unavailable after 2",
            "200 hit snapshot",
            "200 hit snapshot",
            "200 hit snapshot",
        ],
    ),
    (
        WhenAway::StaleOnly,
        1,
        "overview",
        [
            "200 fwd=uri-miss c:store_unavailable w:store_unavailable n:store_unavailable",
            "200 hit c:fresh w:fresh n:fresh",
            "200 hit stale-while-revalidate c:stale w:stale n:stale",
            "200 hit stale-on-error c:stale w:stale n:stale",
        ],
    ),
    (WhenAway::Closed, 1, "customers search", AS_EVER),
    (WhenAway::Closed, 1, "continuation", PAGES_AS_EVER),
    (WhenAway::Closed, 1, "overview", JOINED_AS_EVER),
    (WhenAway::Closed, 6, HITS, CLOSED),
    (WhenAway::Closed, 6, "continuation overview", CLOSED),
];

const AS_EVER: [&str; 4] = [
    "200 fwd=uri-miss",
    "200 hit",
    "200 hit stale-while-revalidate",
    "200 fwd=stale",
];
const PAGES_AS_EVER: [&str; 4] = [
    "200 fwd=uri-miss",
    "200 hit snapshot",
    "200 hit snapshot",
    "200 hit snapshot",
];
const JOINED_AS_EVER: [&str; 4] = [
    "200 fwd=uri-miss c:fresh w:fresh n:fresh",
    "200 hit c:fresh w:fresh n:fresh",
    "200 hit stale-while-revalidate c:stale w:stale n:stale",
    "200 fwd=stale c:fresh w:fresh n:fresh",
];

/// Ages of the four states; lives are 1 m fresh, 1 m stale, 1 h on errors.
const AGES: [u64; 4] = [0, 10, 70, 200];

async fn asked(away: &Away, read: &str) -> String {
    match read {
        "export" => get("/v1/cases/export?format=ndjson", ALL),
        "changes" => get("/v1/cases/changes", ALL),
        "drop_in" => post("/ws/rest/V1/PSA_API/InvoicesReady/-/202609", ALL, ""),
        _ => question(&away.whole, read).await,
    }
}

async fn cell(mode: WhenAway, seconds: u64, read: &str, age: u64) -> (String, u64) {
    let away = Away::of(mode);
    // The gateway has heard of its store.
    sleep(Duration::from_secs(1)).await;
    let question = asked(&away, read).await;
    if age > 0 {
        assert_eq!(away.whole.ask(&question).await.status, 200, "{read}");
        sleep(Duration::from_secs(age)).await;
    }
    away.cut(true);
    sleep(Duration::from_secs(seconds)).await;
    let closed = mode == WhenAway::Closed && seconds >= CLOSES_AFTER.as_secs();
    let ready = if closed { 503 } else { 200 };
    assert_eq!(
        away.ready().await,
        (ready, "away".into()),
        "{mode:?} {read}"
    );
    let refuses = match mode {
        WhenAway::StaleOnly => "vendor_calls",
        _ if closed => "everything",
        _ => "nothing",
    };
    assert_eq!(away.refuses().await, refuses, "{mode:?} {read}");
    let before = away.whole.vendor_calls();
    let said = told(read, &away.whole.ask(&question).await);
    // Refreshes in the background, and a probe of whatever might try again by itself.
    sleep(Duration::from_secs(3)).await;
    let calls = away.whole.vendor_calls() - before;
    // It is whole once the store is back, whatever happened meanwhile.
    away.cut(false);
    sleep(Duration::from_secs(5)).await;
    let reply = away.whole.ask(&question).await;
    let context = format!("{mode:?} {read} {age}: {}", told(read, &reply));
    assert_eq!(reply.status, 200, "{context}");
    assert_eq!(away.ready().await, (200, "ok".into()), "{context}");
    assert_eq!(away.whole.metrics.panics.get(), 0, "{context}");
    (said, calls)
}

#[tokio::test(start_paused = true)]
async fn every_read_has_its_stated_answer_in_every_mode() {
    let mut wrong = Vec::new();
    for (mode, seconds, reads, stated) in TABLE {
        for read in reads.split(' ') {
            for (age, stated) in AGES.into_iter().zip(stated) {
                let (said, calls) = cell(*mode, *seconds, read, age).await;
                // Only where the gateway goes on alone, and has no answer that is fresh.
                let may_call = !said.starts_with("503")
                    && !said.starts_with("200 hit c:fresh")
                    && said != "200 hit"
                    && *mode != WhenAway::StaleOnly;
                if said != *stated || (calls > 0 && !may_call) {
                    wrong.push(format!("{mode:?} {read} {age}: {said} and {calls} calls"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_may_not_call_keeps_its_scroll_and_goes_on_when_the_store_is_back() {
    let away = Away::of(WhenAway::StaleOnly);
    sleep(Duration::from_secs(1)).await;
    let asked = |operation| away.whole.sandbox.counts().requests(operation);
    let mut rows = Vec::new();
    let mut page = async |token: Option<String>| {
        let key = token.map_or(String::new(), |token| {
            format!(",\"start_page_key\":{{\"scroll_id\":\"{token}\"}}")
        });
        let body = format!("{{\"max_returned_items\":50{key}}}");
        let reply = away.whole.ask(search(ALL, &body)).await;
        if reply.status == 200 {
            let data = reply.json()["data"].clone();
            rows.extend(
                data.as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["case_id"].clone()),
            );
        }
        reply
    };
    let token = |reply: &crate::whole::Reply| {
        let key = reply.json()["next_page_key"]["scroll_id"].clone();
        key.as_str().map(str::to_owned)
    };
    let first = page(None).await;
    let second = page(token(&first)).await;
    let calls = away.whole.vendor_calls();
    away.cut(true);
    for seconds in [0, 1, 20] {
        sleep(Duration::from_secs(seconds)).await;
        let refused = page(token(&second)).await;
        assert_eq!(
            (refused.status, refused.code()),
            (503, "store_unavailable".to_owned())
        );
        assert_eq!(refused.header("retry-after"), "2");
    }
    assert_eq!(
        away.whole.vendor_calls(),
        calls,
        "nothing reached the vendor"
    );
    away.cut(false);
    sleep(Duration::from_secs(3)).await;
    let mut next = token(&second);
    while let Some(token_of_next) = next {
        let reply = page(Some(token_of_next)).await;
        assert_eq!(reply.status, 200);
        next = token(&reply);
    }
    rows.sort_by_key(ToString::to_string);
    rows.dedup();
    assert_eq!(rows.len(), 400, "every row, once");
    // The scroll was not lost, so there was no search more.
    assert_eq!(asked(SimOperation::Search), 1);
    assert_eq!(asked(SimOperation::Continue), 8);
}

#[tokio::test(start_paused = true)]
async fn an_export_that_may_not_go_on_is_cut_visibly_and_gives_its_place_back() {
    for mode in [WhenAway::StaleOnly, WhenAway::Closed] {
        let away = Away::of(mode);
        sleep(Duration::from_secs(1)).await;
        let export = get("/v1/cases/export", ALL);
        // The list is eight vendor pages, of which the store is there for some.
        away.whole.sandbox.fault(latency(700));
        let mut peer = away.whole.connect();
        peer.send(&export).await;
        sleep(Duration::from_secs(2)).await;
        away.cut(true);
        let cut = peer.rest().await;
        let rows = cut.lines().filter(|line| line.starts_with('{')).count();
        assert!((50..400).contains(&rows), "{mode:?}: {rows} rows");
        assert!(!cut.ends_with("0\r\n\r\n"), "{mode:?}");
        let status = away.whole.ask_admin(get("/admin/status", "")).await;
        assert_eq!(status.json()["exports_running"], 0, "{mode:?}");

        away.cut(false);
        sleep(Duration::from_secs(5)).await;
        let whole = away.whole.ask(&export).await;
        assert_eq!(whole.status, 200, "{mode:?}");
        let rows = whole.body.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(rows, 400, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_gateway_misses_no_purge() {
    let [one, two] = Away::together(WhenAway::Closed);
    sleep(Duration::from_secs(1)).await;
    let question = get("/msp/customers", ALL);
    assert_eq!(one.whole.ask(&question).await.status, 200);
    one.cut(true);
    // The other gateway purges, and does not hear from this one.
    sleep(Duration::from_secs(1)).await;
    let body = "{\"all\":true,\"soft\":false}";
    let purged = two.whole.ask_admin(post("/admin/purge", ALL, body)).await;
    assert_eq!(purged.status, 200);
    let mut served = Vec::new();
    // The purge waited a second for this gateway.
    for tenth in 20..70 {
        served.push((tenth, one.whole.ask(&question).await.status));
        sleep(Duration::from_millis(100)).await;
    }
    // A beat may have been answered half a second before the store went away.
    let closed = served.iter().find(|(_, status)| *status == 503).unwrap().0;
    assert!((45..=51).contains(&closed), "{closed}");
    assert!(
        served
            .iter()
            .all(|(tenth, status)| (*status == 503) == (*tenth >= closed))
    );
    // Streams are refused too; what needs no key and holds no answer is there.
    for (target, status) in [
        ("/v1/events", 503),
        ("/healthz", 200),
        ("/openapi.json", 200),
    ] {
        assert_eq!(
            one.whole.ask(get(target, ALL)).await.status,
            status,
            "{target}"
        );
    }
    assert_eq!(
        one.whole
            .metric("requests_shed_total{what=\"store\"}")
            .await,
        // Those of the list above, and the stream.
        f64::from(70 - closed + 1)
    );

    one.cut(false);
    let calls = one.whole.vendor_calls();
    let mut refused = 0;
    let answer = loop {
        let reply = one.whole.ask(&question).await;
        if reply.status == 200 {
            break told("customers", &reply);
        }
        refused += 1;
        assert!(refused < 300, "it opens again within three seconds");
        sleep(Duration::from_millis(10)).await;
    };
    // The first answer after it is the vendor's, and not the one that was purged meanwhile.
    assert_eq!(answer, "200 fwd=uri-miss");
    assert_eq!(one.whole.vendor_calls(), calls + 1);
    assert_eq!(one.ready().await, (200, "ok".into()));
}
