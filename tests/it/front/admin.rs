//! Tests of the operators' listener.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::kit::*;
use msp_gateway::access::Caller;
use msp_gateway::api::Question;
use msp_gateway::api::admin::{
    Admin, AdminParts, AdminReads, PurgeRequest, PurgeTarget, Purged, Readiness, VendorState,
};
use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::domain::{Kind, Vendor};
use msp_gateway::exchange::Boxed;
use msp_gateway::exchange::site::OwnNames;
use msp_gateway::history::samples::WATCHERS_MAX;
use msp_gateway::history::{BucketCounts, DropCounts, History, Reading, ScrollCounts};
use msp_gateway::metrics::Metrics;
use msp_gateway::problem::Problem;
use msp_gateway::server::Drain;
use msp_gateway::server::{Connections, Ending};
use msp_gateway::store::StoreHealth;

struct Stub {
    purges: Mutex<Vec<PurgeRequest>>,
    draining: bool,
    history: Arc<History>,
}

impl Default for Stub {
    fn default() -> Self {
        Self {
            purges: Mutex::default(),
            draining: false,
            history: History::within(1 << 20),
        }
    }
}

impl AdminReads for Stub {
    fn purge(&self, purge: PurgeRequest) -> Boxed<Purged> {
        self.purges.lock().push(purge);
        Box::pin(std::future::ready(Purged {
            entries: 3,
            pending: None,
            reach: None,
        }))
    }

    fn resume(&self, vendor: Vendor) -> Result<Option<Duration>, Problem> {
        Ok((vendor == Vendor::Wiv).then_some(Duration::from_secs(571)))
    }

    fn explain(&self, question: &Question, caller: &Arc<Caller>) -> Result<Value, Problem> {
        Ok(json!({"question": format!("{question:?}"), "caller": &*caller.name}))
    }

    fn status(&self) -> Value {
        json!({"up": true})
    }

    fn snapshots(&self, limit: usize) -> Value {
        json!({"limit": limit})
    }

    fn callers(&self) -> Value {
        json!({"callers": []})
    }

    fn settings(&self) -> Value {
        json!({"settings": []})
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            ready: !self.draining,
            vendors: vec![
                (Vendor::Wiv, VendorState::Ok),
                (Vendor::Nable, VendorState::Disabled),
            ],
            store: StoreHealth::Away,
        }
    }
}

fn listener(stub: &Arc<Stub>, loopback: bool) -> Connections {
    let metrics = Metrics::new().unwrap();
    let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
    let admin = Admin::new(AdminParts {
        reads: stub.clone(),
        metrics: metrics.clone(),
        history: stub.history.clone(),
        clock: clock.clone(),
        callers: callers(&metrics, &clock),
        loopback,
        names: if loopback {
            OwnNames::THIS_MACHINE
        } else {
            OwnNames::Any
        },
        body_timeout: Duration::from_secs(5),
    });
    let stack = msp_gateway::stack::admin(clock.clone(), metrics, Duration::from_secs(10), admin);
    serving(stack, clock, Drain::default())
}

async fn ask(connections: &Connections, request: String) -> Reply {
    let mut peer = connect(connections);
    peer.head_only = request.starts_with("HEAD ");
    peer.send(request.replace("host: x", "host: 127.0.0.1"))
        .await;
    peer.reply().await.unwrap()
}

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test(start_paused = true)]
async fn health_readiness_metrics_and_status() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, false);
    assert_eq!(
        ask(&on, get("/healthz", "")).await.json(),
        json!({"alive": true})
    );
    assert_eq!(
        ask(&on, get("/readyz", "")).await.json(),
        json!({
            "ready": true,
            "vendors": {"wiv": "ok", "nable": "disabled"},
            "store": "away",
        })
    );
    let reply = ask(&on, get("/metrics", "")).await;
    assert!(
        reply
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(
        String::from_utf8(reply.body)
            .unwrap()
            .contains("msp_gateway_build_info")
    );
    assert_eq!(
        ask(&on, get("/admin/status", "")).await.json(),
        json!({"up": true})
    );
    assert_eq!(ask(&on, get("/msp/customers", "")).await.status, 404);
    assert_eq!(
        ask(&on, get("/admin/purge", "")).await.header("allow"),
        "POST"
    );
    let draining = Arc::new(Stub {
        draining: true,
        ..Stub::default()
    });
    let reply = ask(&listener(&draining, false), get("/readyz", "")).await;
    assert_eq!((reply.status, &reply.json()["ready"]), (503, &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn purges_need_an_operator_or_loopback() {
    let stub = Arc::new(Stub::default());
    let purge = |headers: &str| {
        post(
            "/admin/purge",
            &format!("{JSON}{headers}"),
            r#"{"kind":"cases","soft":false}"#,
        )
    };
    let on = listener(&stub, false);
    assert_eq!(ask(&on, purge("")).await.status, 401);
    assert_eq!(ask(&on, purge(KEY)).await.problem().1, "operator_required");
    assert!(stub.purges.lock().is_empty());
    let reply = ask(&on, purge("x-api-key: k-op\r\n")).await;
    assert_eq!(reply.json(), json!({"purged": 3}));
    let on = listener(&stub, true);
    assert_eq!(ask(&on, purge("")).await.status, 200);
    assert_eq!(
        *stub.purges.lock(),
        vec![
            PurgeRequest {
                target: PurgeTarget::Kind(Kind::Cases),
                soft: false
            };
            2
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn waits_are_ended_by_operators_or_on_loopback() {
    let resume = |headers: &str, vendor: &str| {
        let body = format!("{{\"vendor\":\"{vendor}\"}}");
        post("/admin/resume", &format!("{JSON}{headers}"), &body)
    };
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, false);
    assert_eq!(ask(&on, resume("", "wiv")).await.status, 401);
    let reply = ask(&on, resume(KEY, "wiv")).await;
    assert_eq!(reply.problem().1, "operator_required");
    let reply = ask(&on, resume("x-api-key: k-op\r\n", "wiv")).await;
    let ended = json!({"vendor": "wiv", "resumed": true, "left_s": 571});
    assert_eq!(reply.json(), ended);
    let on = listener(&stub, true);
    let reply = ask(&on, resume("", "nable")).await;
    let nothing = json!({"vendor": "nable", "resumed": false, "left_s": null});
    assert_eq!(reply.json(), nothing);
    let reply = ask(&on, resume("", "both")).await;
    assert_eq!(reply.problem().1, "invalid_body");
    let reply = ask(&on, get("/admin/resume", "")).await;
    assert_eq!(reply.problem().1, "method_not_allowed");
}

#[tokio::test(start_paused = true)]
async fn web_pages_cannot_purge() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, true);
    let body = r#"{"all":true}"#;
    for (headers, status) in [
        ("content-type: text/plain\r\n", 415),
        ("content-type: application/x-www-form-urlencoded\r\n", 415),
        ("origin: https://evil.example\r\n", 403),
        ("sec-fetch-site: cross-site\r\n", 403),
        (
            "content-type: application/json\r\norigin: https://evil.example\r\n",
            403,
        ),
        (
            "content-type: application/json\r\nsec-fetch-site: cross-site\r\n",
            403,
        ),
    ] {
        assert_eq!(
            ask(&on, post("/admin/purge", headers, body)).await.status,
            status
        );
    }
    let named = |target: &str, host: &str| get(target, "").replace("host: x", host);
    let rebound = post("/admin/purge", JSON, body).replace("host: x", "host: evil.example");
    assert_eq!(
        ask(&on, rebound).await.problem(),
        (403, "cross_site_refused".to_owned())
    );
    assert!(stub.purges.lock().is_empty());
    for target in [
        "/admin/status",
        "/admin/explain?target=/msp/customers&caller=all",
    ] {
        let reply = ask(&on, named(target, "host: evil.example:9180")).await;
        assert_eq!(reply.problem().1, "cross_site_refused");
        assert_eq!(
            ask(&on, named(target, "host: localhost:9180")).await.status,
            200
        );
    }
    // Scrapers and probes may use any host name.
    for target in ["/metrics", "/healthz", "/readyz"] {
        let reply = ask(&on, named(target, "host: pod-7.gateway.svc:9180")).await;
        assert_eq!(reply.status, 200, "{target}");
    }
    // Beyond loopback any name is accepted: there a browser would need a key, and has none.
    let beyond = listener(&stub, false);
    let reply = ask(&beyond, named("/admin/status", "host: gateway.internal")).await;
    assert_eq!(reply.status, 200);
    let purge = post(
        "/admin/purge",
        &format!("{JSON}x-api-key: k-op\r\norigin: https://evil.example\r\n"),
        body,
    );
    assert_eq!(ask(&beyond, purge).await.problem().1, "cross_site_refused");
}

#[tokio::test(start_paused = true)]
async fn explanations_are_of_a_question_as_its_caller_would_ask_it() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, true);
    let explain = |query: &str| get(&format!("/admin/explain?{query}"), "");
    let reply = ask(
        &on,
        explain("method=POST&target=%2Fv2%2Fcases%2Fmsp%2Fsearch%3Fcustomer_id%3Dorg_1&body=%7B%7D&caller=all"),
    )
    .await;
    let question = reply.json()["question"].as_str().unwrap().to_owned();
    assert!(
        question.starts_with("Search") && question.contains("org_1"),
        "{question}"
    );
    assert_eq!(reply.json()["caller"], "all");
    for bad in [
        "",
        "caller=all",
        "target=/msp/customers&caller=nobody",
        "target=/nope&caller=all",
        "target=/v2/cases/msp/search&caller=all",
        "target=http://x/msp/customers&caller=all",
        "target=/msp/customers&caller=all&x=1",
    ] {
        assert_eq!(
            ask(&on, explain(bad)).await.problem().1,
            "invalid_query",
            "{bad}"
        );
    }
    // Without a named caller, it is one who may see everything.
    let reply = ask(&on, explain("target=/msp/customers")).await;
    assert_eq!(reply.json()["caller"], "all");
    let reply = ask(&on, explain("target=/msp/customers?fields=nope&caller=all")).await;
    assert_eq!(reply.problem().1, "invalid_fields");
}

/// The routes that the console reads.
const CONSOLE_READS: [&str; 7] = [
    "/admin/live",
    "/admin/history?window=24h",
    "/admin/requests?limit=1",
    "/admin/requests/0123456789abcdef0123456789abcdef",
    "/admin/snapshots",
    "/admin/callers",
    "/admin/settings",
];

#[tokio::test(start_paused = true)]
async fn what_the_console_reads_is_for_operators_of_this_site_alone() {
    let stub = Arc::new(Stub::default());
    let (beyond, loopback) = (listener(&stub, false), listener(&stub, true));
    let evil = "x-api-key: k-op\r\norigin: https://evil.example\r\n";
    let cross = "x-api-key: k-op\r\nsec-fetch-site: cross-site\r\n";
    for target in CONSOLE_READS {
        for (headers, status) in [
            ("", 401),
            ("x-api-key: k-none\r\n", 401),
            (KEY, 403),
            (evil, 403),
            (cross, 403),
        ] {
            let reply = ask(&beyond, get(target, headers)).await;
            assert_eq!(reply.problem().0, status, "{target} {headers}");
        }
        for (on, headers) in [(&beyond, "x-api-key: k-op\r\n"), (&loopback, "")] {
            let reply = ask(on, get(target, headers).replace("GET ", "HEAD ")).await;
            let there = !target.contains("0123");
            assert_eq!(reply.status, if there { 200 } else { 404 }, "{target}");
            assert_eq!(reply.header("cache-control"), "no-store");
        }
        let reply = ask(&loopback, get(target, "origin: https://evil.example\r\n")).await;
        assert_eq!(reply.problem().1, "cross_site_refused", "{target}");
        let reply = ask(&loopback, post(target, JSON, "{}")).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, "GET, HEAD"),
            "{target}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_parameters_are_told_what_would_be_right() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, true);
    for (target, right) in [
        ("/admin/history?window=1h", "10m or 24h"),
        ("/admin/history?w=1", "its parameters are window"),
        ("/admin/live?x=1", "takes no parameters"),
        ("/admin/requests?limit=0", "1 to 1000"),
        ("/admin/requests/abc", "32 hexadecimal digits"),
        ("/admin/snapshots?limit=-1", "1 to 1000"),
        ("/admin/callers?name=a", "takes no parameters"),
        ("/admin/settings?all=1", "takes no parameters"),
    ] {
        let reply = ask(&on, get(target, "")).await;
        assert_eq!(
            reply.problem(),
            (400, "invalid_query".to_owned()),
            "{target}"
        );
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(right), "{target}: {detail}");
    }
    assert_eq!(
        ask(&on, get("/admin/snapshots?limit=3", "")).await.json()["limit"],
        3
    );
    assert_eq!(ask(&on, get("/admin/requests/", "")).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn streams_of_samples_are_few_and_end_with_the_gateway() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, true);
    let mut watching = Vec::new();
    for _ in 0..WATCHERS_MAX {
        let mut peer = connect(&on);
        peer.send(get("/admin/live", "").replace("host: x", "host: 127.0.0.1"))
            .await;
        watching.push(peer);
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(1)).await;
    let reply = ask(&on, get("/admin/live", "")).await;
    assert_eq!(reply.problem(), (503, "overloaded".to_owned()));
    stub.history.samples.end();
    for peer in &mut watching {
        let reply = peer.reply().await.unwrap();
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, "text/event-stream")
        );
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        ask(&on, get("/admin/live", "")).await.status,
        200,
        "a place is free again"
    );
}

/// Something that a second of history can be read from.
fn second(n: u32) -> Reading {
    Reading {
        at: Instant::now(),
        wall: Timestamp::UNIX_EPOCH,
        durations: std::array::from_fn(|_| BucketCounts::default()),
        bounds_s: &[],
        statuses: [n.into(), 0, 0],
        vendors: Vec::new(),
        requests_in_flight: n,
        exports_running: 0,
        connections: 1,
        scrolls: ScrollCounts::default(),
        stores: Vec::new(),
        dropped: DropCounts::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn readers_of_samples_that_take_nothing_are_closed_and_hold_up_nobody() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, true);
    let live = get("/admin/live", "").replace("host: x", "host: 127.0.0.1");
    let mut stuck = Vec::new();
    for _ in 0..WATCHERS_MAX {
        // As a socket whose buffers are full after the first sample.
        let mut peer = connect_through(&on, 1024);
        peer.send(&live).await;
        stuck.push(peer);
    }
    let begun = Instant::now();
    for n in 0..40 {
        sleep(Duration::from_secs(1)).await;
        stub.history.samples.take(second(n));
        // The sampler, the scrape and other operators go on, without a wait.
        let now = Instant::now();
        assert_eq!(ask(&on, get("/metrics", "")).await.status, 200);
        assert_eq!(ask(&on, get("/admin/history", "")).await.status, 200);
        assert_eq!(Instant::now(), now);
        if stuck.iter().all(|peer| peer.task.is_finished()) {
            break;
        }
    }
    let took = Instant::now().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(25), "{took:?}");
    for peer in stuck {
        assert_eq!(peer.task.await.unwrap(), Ending::Slow);
    }
    // Their places are free again.
    let mut peer = connect(&on);
    peer.send(&live).await;
    sleep(Duration::from_secs(1)).await;
    stub.history.samples.end();
    assert_eq!(peer.reply().await.unwrap().status, 200);
}

/// A reader takes nothing when the gateway leaves. The end of its stream cannot be sent, so it is
/// cut with the grace at the latest.
#[tokio::test(start_paused = true)]
async fn a_reader_of_samples_that_takes_nothing_does_not_hold_up_the_end() {
    let stub = Arc::new(Stub::default());
    let on = listener(&stub, true);
    let mut peer = connect_through(&on, 1024);
    peer.send(get("/admin/live", "").replace("host: x", "host: 127.0.0.1"))
        .await;
    for n in 0..4 {
        sleep(Duration::from_secs(1)).await;
        stub.history.samples.take(second(n));
    }
    assert!(!peer.task.is_finished());
    let begun = Instant::now();
    stub.history.samples.end();
    on.drain.begin();
    on.drain.cut();
    assert_eq!(peer.task.await.unwrap(), Ending::Cut);
    assert_eq!(Instant::now(), begun);
}

#[tokio::test(start_paused = true)]
async fn the_console_is_there_for_everyone_and_asks_nobody_else() {
    let stub = Arc::new(Stub::default());
    for (on, loopback) in [
        (listener(&stub, true), true),
        (listener(&stub, false), false),
    ] {
        for target in ["/", "/console"] {
            let reply = ask(&on, get(target, "")).await;
            assert_eq!((reply.status, reply.header("location")), (307, "/console/"));
        }
        let page = ask(&on, get("/console/", "")).await;
        assert_eq!(page.status, 200, "loopback: {loopback}");
        assert!(page.header("content-type").starts_with("text/html"));
        let policy = page.header("content-security-policy");
        assert!(
            policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        let text = String::from_utf8(page.body.clone()).unwrap();
        assert!(!text.contains("://"), "an absolute URL");
        // Every file that the page names exists, with its own type and tag.
        let named = text.split(['"', '\'']).filter(|part| {
            part.ends_with(".js") || part.ends_with(".css") || part.ends_with(".svg")
        });
        let named: Vec<_> = named.collect();
        assert!(named.len() >= 3, "{named:?}");
        for name in named {
            let target = format!("/console/{name}");
            let reply = ask(&on, get(&target, "")).await;
            assert_eq!(reply.status, 200, "{target}");
            assert_eq!(reply.header("cache-control"), "no-cache");
            let held = format!("if-none-match: {}\r\n", reply.header("etag"));
            assert_eq!(ask(&on, get(&target, &held)).await.status, 304, "{target}");
        }
        for target in [
            "/console/mod.rs",
            "/console/../admin/status",
            "/console/console.js/",
            "/consol",
        ] {
            assert_eq!(ask(&on, get(target, "")).await.status, 404, "{target}");
        }
        assert_eq!(
            ask(&on, post("/console/", "", "")).await.header("allow"),
            "GET, HEAD"
        );
    }
}
