//! The outbound stack against a vendor that speaks bytes: what reaches it, and what comes of what
//! it does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri};
use parking_lot::Mutex;
use tower::Service as _;
use tracing_subscriber::fmt::MakeWriter;

use super::test_vendor::{
    CANARY, CANARY_TWO, Rig, TestVendor, VendorReply, key, options, rig, spend, spend_of,
};
use msp_gateway::admission::{CircuitState, Lane, Payer, Spend};
use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::domain::{
    ContractId, CustomerId, Month, Operation, PageSize, SearchQuery, Vendor,
};
use msp_gateway::secrets::VendorKeys;
use msp_gateway::stack::outbound;
use msp_gateway::upstream::{
    Cursor, EnvelopeMember, Fault, Over, Source as _, UpstreamError, VendorAnswer, VendorCall,
    VendorRow,
};
use msp_gateway::vendors::nable::NableAnswer;
use msp_gateway::vendors::wiv::ScrollId;
use msp_gateway::vendors::{Nable, ROWS, Wiv};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const PAGE: &str = r#"{"data":[],"next_page_key":null}"#;

pub(super) fn wiv_rig(vendor: TestVendor) -> Rig {
    rig(vendor, options(Vendor::Wiv), None)
}

pub(super) async fn ask(
    rig: &Rig,
    operation: Operation,
    spend: Spend,
) -> Result<VendorAnswer, UpstreamError> {
    let (method, path) = match operation {
        Operation::Customers => (Method::GET, "/msp/customers"),
        Operation::Search | Operation::Continue => (Method::POST, "/v2/cases/msp/search"),
        _ => (Method::POST, "/InvoicesReady/a/202601"),
    };
    let call = VendorCall {
        operation,
        method,
        path_and_query: path.into(),
        body: Bytes::from_static(b"{}"),
        spend,
        over: Over::Any,
        resends: 0,
        span: None,
    };
    rig.service.call(call).await
}

pub(super) async fn fault(rig: &Rig, operation: Operation) -> Fault {
    ask(rig, operation, spend()).await.unwrap_err().fault
}

/// Everything a vendor can do wrong, and what it is called.
fn wrongs() -> Vec<(&'static str, VendorReply, Fault)> {
    let raw = |text: &str| VendorReply::Last(text.as_bytes().to_vec());
    let stalled = |text: &str| VendorReply::Stall(text.as_bytes().to_vec());
    let echo = format!("{{\"error\":\"your key {CANARY} is bad\"}}");
    let status = |code| VendorReply::status(code, &format!("x-echo: {CANARY}\r\n"), &echo);
    let mut all = vec![
        ("closed", raw(""), Fault::Reset),
        (
            "half a head",
            raw("HTTP/1.1 200 OK\r\ncontent-"),
            Fault::Reset,
        ),
        (
            "garbage",
            raw("\x16\x03\x01 no http at all\r\n\r\n"),
            Fault::Malformed,
        ),
        ("silence", VendorReply::Hang, Fault::Timeout),
        (
            "stalled body",
            stalled("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"a\""),
            Fault::Timeout,
        ),
        (
            "short body",
            raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"a\""),
            Fault::BodyCut,
        ),
        (
            "cut chunk",
            raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n{\"a\""),
            Fault::BodyCut,
        ),
        (
            "no last chunk",
            raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"),
            Fault::BodyCut,
        ),
        (
            "bad chunk",
            raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
            Fault::BodyCut,
        ),
        (
            "declared too large",
            raw("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{"),
            Fault::TooLarge,
        ),
        (
            "gzip",
            VendorReply::status(200, "content-encoding: gzip\r\n", "{}"),
            Fault::Malformed,
        ),
        (
            "partial",
            VendorReply::status(206, "", "{}"),
            Fault::UnexpectedStatus,
        ),
        ("teapot", status(418), Fault::UnexpectedStatus),
        ("400", status(400), Fault::Rejected),
        ("404", status(404), Fault::NotFound),
        ("429", status(429), Fault::RateLimited),
        ("401", status(401), Fault::CredentialRejected),
        ("403", status(403), Fault::CredentialRejected),
    ];
    for code in [500, 502, 503, 504, 599] {
        all.push(("5xx", status(code), Fault::ServerError));
    }
    for code in [300, 301, 302, 303, 304, 307, 308] {
        for to in [
            "http://127.0.0.1:9/",
            "//evil.example/",
            "/self",
            "https://evil.example/",
        ] {
            let reply = VendorReply::status(code, &format!("location: {to}\r\n"), "");
            all.push(("redirect", reply, Fault::Redirected));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn every_fault_has_its_name_and_a_continuation_is_sent_once() {
    for (name, reply, expected) in wrongs() {
        for operation in [Operation::Search, Operation::Continue] {
            let rig = wiv_rig(TestVendor::replies([reply.clone()]));
            let spend = spend();
            let payer = Arc::clone(&spend.payer);
            let error = ask(&rig, operation, spend).await.unwrap_err();
            assert_eq!(error.fault, expected, "{name}");
            assert_eq!(error.vendor_body, None, "{name}");
            let sent = rig.vendor.count();
            assert_eq!(payer.calls() as usize, sent, "{name}");
            let tries = match (operation, expected.is_passing()) {
                // The second retry of a hanging call would end after its deadline.
                (Operation::Search, true) if expected == Fault::Timeout => 2..=3,
                (Operation::Search, true) => 3..=3,
                _ => 1..=1,
            };
            assert!(
                tries.contains(&sent),
                "{name}: {operation:?} sent {sent} times"
            );
            assert_eq!(rig.gates.governor.snapshot().in_flight, 0, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_vendor_sees_one_key_and_nothing_of_the_caller() {
    let rig = wiv_rig(TestVendor::replies([VendorReply::ok(PAGE)]));
    let trace = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let spend = Spend {
        payer: Payer::caller("dash".into(), Some(trace.clone())),
        ..spend()
    };
    ask(&rig, Operation::Search, spend).await.unwrap();
    ask(&rig, Operation::Customers, self::spend())
        .await
        .unwrap();
    let [post, get] = &rig.vendor.seen()[..] else {
        panic!("two requests");
    };
    assert_eq!(post.line(), "POST /v2/cases/msp/search HTTP/1.1");
    assert_eq!(post.all("x-api-key"), [CANARY]);
    assert_eq!(
        post.all("user-agent"),
        [concat!("msp-gateway/", env!("CARGO_PKG_VERSION"))]
    );
    assert_eq!(post.all("accept"), ["application/json"]);
    assert_eq!(post.all("accept-encoding"), ["identity"]);
    assert_eq!(post.all("content-type"), ["application/json"]);
    assert_eq!(post.all("traceparent"), [trace.to_str().unwrap()]);
    assert_eq!(post.all("host"), ["127.0.0.1:7070"]);
    assert_eq!(get.line(), "GET /msp/customers HTTP/1.1");
    assert!(get.all("content-type").is_empty() && get.all("traceparent").is_empty());
    assert_eq!(rig.vendor.connections(), 1, "the connection is used again");
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_wants_its_account_in_a_header_gets_it_beside_the_key() {
    let row = VendorRow {
        account_header: Some("x-account"),
        ..*ROWS.get(Vendor::Wiv)
    };
    let mut options = options(Vendor::Wiv);
    options.row = Box::leak(Box::new(row));
    let vendor = TestVendor::replies([VendorReply::ok(PAGE)]);
    let rig = rig(vendor, options, None);
    ask(&rig, Operation::Search, spend()).await.unwrap();
    let seen = rig.vendor.seen();
    assert_eq!(seen[0].all("x-account"), ["001H|x"]);
    assert_eq!(seen[0].all("x-api-key"), [CANARY]);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn trace_into(lines: Lines) -> impl tracing::Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines)
        .finish()
}

#[tokio::test(start_paused = true)]
async fn keys_and_scrolls_show_nowhere() {
    let lines = Lines::default();
    // With only one subscriber, tracing asks the thread that first meets a log line whether it
    // listens, and other tests' threads don't; a second one makes it ask the subscribers.
    let _second = tracing::Dispatch::new(trace_into(Lines::default()));
    let guard = tracing::subscriber::set_default(trace_into(lines.clone()));
    let mut shown = String::new();
    let secret = "FGluY2x1ZGVfY29u-scroll";
    for (_, reply, _) in wrongs() {
        let rig = rig(
            TestVendor::replies([reply]),
            options(Vendor::Wiv),
            Some(CANARY_TWO),
        );
        let wiv = Wiv::new(rig.service.clone(), &rig.options);
        let scroll = ScrollId::new(secret.into()).unwrap();
        let cursor = Cursor::new(scroll.clone());
        let size = PageSize::DEFAULT;
        let query = SearchQuery::default();
        let error = wiv.first(&query, size, spend()).await.unwrap_err();
        shown += &format!("{error} {error:?} {:?} {scroll:?} {cursor:?}", rig.options);
        let error = wiv.next(&cursor, &query, size, spend()).await.unwrap_err();
        shown += &format!("{error} {error:?}");
        shown += &rig.metrics.render().unwrap();
    }
    drop(guard);
    let log = String::from_utf8(lines.0.lock().clone()).unwrap();
    assert!(log.contains("vendor call") && log.contains("server_error"));
    for text in [&log, &shown] {
        assert!(!text.contains("canary"), "{text}");
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_nable_are_kept_if_they_are_json_and_echo_no_key() {
    let kept = |reply: VendorReply| async move {
        let rig = rig(TestVendor::replies([reply]), options(Vendor::Nable), None);
        let error = ask(&rig, Operation::Invoices, spend()).await.unwrap_err();
        error.vendor_body
    };
    let said = r#"{"message":"wrong contract"}"#;
    for code in [400, 404] {
        assert_eq!(
            kept(VendorReply::status(code, "", said)).await.unwrap(),
            said
        );
    }
    assert_eq!(kept(VendorReply::status(500, "", said)).await, None);
    assert_eq!(kept(VendorReply::status(401, "", said)).await, None);
    assert_eq!(kept(VendorReply::status(400, "", "<html>")).await, None);
    let echo = format!("{{\"message\":\"{CANARY}\"}}");
    assert_eq!(kept(VendorReply::status(400, "", &echo)).await, None);
    let long = format!("\"{}\"", "x".repeat(70_000));
    assert_eq!(kept(VendorReply::status(400, "", &long)).await, None);
    let packed = "content-encoding: gzip\r\n";
    assert_eq!(kept(VendorReply::status(400, packed, said)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_that_repeats_the_key_is_no_good_answer() {
    let escaped: String = CANARY.bytes().map(|b| format!("\\u{b:04x}")).collect();
    for said in [CANARY, &escaped, &CANARY.replace('-', "\\u002D")] {
        let echo = format!("{{\"data\":[],\"you\":\"{said}\"}}");
        let replies = [
            VendorReply::ok(&echo),
            VendorReply::ok(&echo),
            VendorReply::ok(&echo),
        ];
        let rig = wiv_rig(TestVendor::replies(replies));
        let error = ask(&rig, Operation::Search, spend()).await.unwrap_err();
        assert_eq!(error.fault, Fault::Malformed);
        assert!(!format!("{error} {error:?}").contains(CANARY));
    }
}

#[tokio::test(start_paused = true)]
async fn a_passing_fault_is_tried_again() {
    let bad = VendorReply::status(503, "", "");
    let rig = wiv_rig(TestVendor::replies([
        bad.clone(),
        bad,
        VendorReply::ok(PAGE),
    ]));
    let spend = spend();
    let payer = Arc::clone(&spend.payer);
    let answer = ask(&rig, Operation::Search, spend).await.unwrap();
    assert_eq!(answer.body, PAGE);
    assert_eq!((rig.vendor.count(), payer.calls()), (3, 3));
    let metrics = rig.metrics.render().unwrap();
    let line =
        "vendor_requests_total{operation=\"search\",outcome=\"server_error\",vendor=\"wiv\"} 2";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn background_work_and_long_pauses_are_not_retried() {
    for lane in [Lane::ReadAhead, Lane::Export] {
        let rig = wiv_rig(TestVendor::replies([VendorReply::status(503, "", "")]));
        let spend = spend_of(lane, "dash", SECOND * 30);
        assert!(ask(&rig, Operation::Search, spend).await.is_err());
        assert_eq!(rig.vendor.count(), 1);
    }
    let later = VendorReply::status(503, "retry-after: 30\r\n", "");
    let rig = wiv_rig(TestVendor::replies([later]));
    let error = ask(&rig, Operation::Search, spend()).await.unwrap_err();
    assert_eq!(error.retry_after, Some(SECOND * 30));
    assert_eq!(rig.vendor.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_cost_a_tenth_at_most() {
    let mut options = options(Vendor::Wiv);
    options.circuit.consecutive_failures = u32::MAX;
    options.circuit.failure_percent = 101;
    options.concurrency = 64;
    let rig = rig(
        TestVendor::replies([VendorReply::status(503, "", "")]),
        options,
        None,
    );
    let rig = Arc::new(rig);
    let mut tasks = Vec::new();
    for _ in 0..600 {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(async move {
            assert_eq!(fault(&rig, Operation::Search).await, Fault::ServerError);
        }));
        sleep(MS * 20).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let sent = rig.vendor.count();
    assert!((620..=660).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_outlasts_its_time_or_the_deadline() {
    let rig = wiv_rig(TestVendor::replies([VendorReply::Hang]));
    let clock = Clock::system();
    let begun = clock.now();
    assert_eq!(fault(&rig, Operation::Continue).await, Fault::Timeout);
    assert_eq!(begun.elapsed(), SECOND * 10);
    let begun = clock.now();
    let short = spend_of(Lane::Interactive, "dash", SECOND * 3);
    let error = ask(&rig, Operation::Search, short).await.unwrap_err();
    assert_eq!(error.fault, Fault::Timeout);
    assert_eq!(begun.elapsed(), SECOND * 3);
    assert_eq!(
        rig.vendor.connections(),
        2,
        "hanging ones are not used again"
    );
}

#[tokio::test(start_paused = true)]
async fn deadlines_that_were_nearly_over_do_not_open_the_circuit() {
    let rig = wiv_rig(TestVendor::replies([
        VendorReply::ok(PAGE).after(SECOND / 2)
    ]));
    for _ in 0..20 {
        let hasty = spend_of(Lane::Interactive, "dash", MS * 100);
        let error = ask(&rig, Operation::Search, hasty).await.unwrap_err();
        assert_eq!(error.fault, Fault::Timeout);
    }
    assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_sends_probes_only_and_closes_within_a_second() {
    for wrong in [
        VendorReply::status(503, "", ""),
        VendorReply::Last(Vec::new()),
    ] {
        let rig = wiv_rig(TestVendor::replies([wrong]));
        while rig.gates.circuit.snapshot().state != CircuitState::Open {
            let _ = ask(&rig, Operation::Search, spend()).await;
        }
        let before = rig.vendor.count();
        assert!(before <= 7, "{before}");
        for _ in 0..1000 {
            let error = ask(&rig, Operation::Search, spend()).await.unwrap_err();
            assert!(error.retry_after.is_none_or(|wait| wait <= SECOND / 2));
            sleep(MS * 10).await;
        }
        let probes = rig.vendor.count() - before;
        assert!(
            (15..=25).contains(&probes),
            "{probes} probes in ten seconds"
        );
        rig.vendor.now_does(|_| VendorReply::ok(PAGE));
        let back = Clock::system().now();
        while ask(&rig, Operation::Search, spend()).await.is_err() {
            sleep(MS * 10).await;
        }
        assert!(back.elapsed() <= SECOND, "{:?}", back.elapsed());
        assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
        let text = rig.metrics.render().unwrap();
        assert!(text.contains("vendor_circuit_state{vendor=\"wiv\"} 0"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_vendor_is_found_again() {
    let rig = wiv_rig(TestVendor::replies([VendorReply::ok(PAGE)]));
    rig.vendor.set_reachable(false);
    let spend_seen = spend();
    let payer = Arc::clone(&spend_seen.payer);
    let error = ask(&rig, Operation::Search, spend_seen).await.unwrap_err();
    assert_eq!(error.fault, Fault::Connect);
    assert_eq!(payer.calls(), 0, "nothing was sent");
    for _ in 0..10 {
        assert!(ask(&rig, Operation::Search, spend()).await.is_err());
    }
    assert_eq!(fault(&rig, Operation::Search).await, Fault::CircuitOpen);
    rig.vendor.set_reachable(true);
    sleep(SECOND / 2).await;
    assert!(ask(&rig, Operation::Search, spend()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_swallowed_requests_is_found_again_before_they_time_out() {
    let rig = Arc::new(wiv_rig(TestVendor::replies([VendorReply::Hang])));
    while rig.gates.circuit.snapshot().state == CircuitState::Closed {
        let _ = ask(&rig, Operation::Customers, spend()).await;
    }
    let mut probing = Vec::new();
    for _ in 0..30 {
        let rig = Arc::clone(&rig);
        probing.push(tokio::spawn(async move {
            ask(&rig, Operation::Customers, spend()).await.is_ok()
        }));
        sleep(MS * 100).await;
    }
    let asked = rig.vendor.count();
    rig.vendor.now_does(|_| VendorReply::ok("[]"));
    let back = Clock::system().now();
    while ask(&rig, Operation::Customers, spend()).await.is_err() {
        sleep(MS * 10).await;
    }
    assert!(back.elapsed() <= MS * 1300, "{:?}", back.elapsed());
    assert!(asked < 15, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_shown_once_per_interval_until_it_is_replaced() {
    let rig = wiv_rig(TestVendor::new(|seen| {
        if seen.all("x-api-key") == ["good"] {
            VendorReply::ok(PAGE)
        } else {
            VendorReply::status(401, "", "{}")
        }
    }));
    for _ in 0..3000 {
        assert_eq!(
            fault(&rig, Operation::Search).await,
            Fault::CredentialRejected
        );
        sleep(MS * 100).await;
    }
    let sent = rig.vendor.count();
    assert!((9..=11).contains(&sent), "{sent} in five minutes");
    assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
    rig.ring.store(Arc::new(VendorKeys {
        primary: key("good"),
        fallback: None,
    }));
    assert!(ask(&rig, Operation::Search, spend()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_fallback_key_takes_over_but_no_continuation_is_repeated() {
    for first in [Operation::Search, Operation::Continue] {
        for code in [401, 403] {
            let vendor = TestVendor::new(move |seen| {
                if seen.all("x-api-key") == [CANARY_TWO] {
                    VendorReply::ok(PAGE)
                } else {
                    VendorReply::status(code, "", "{}")
                }
            });
            let rig = rig(vendor, options(Vendor::Wiv), Some(CANARY_TWO));
            let result = ask(&rig, first, spend()).await;
            let mut sent = vec![CANARY];
            match first {
                Operation::Continue => {
                    assert_eq!(result.unwrap_err().fault, Fault::CredentialRejected);
                }
                _ => {
                    result.unwrap();
                    sent.push(CANARY_TWO);
                }
            }
            for operation in [Operation::Continue, Operation::Search] {
                ask(&rig, operation, spend()).await.unwrap();
                sent.push(CANARY_TWO);
            }
            let seen = rig.vendor.seen();
            let keys: Vec<_> = seen.iter().flat_map(|s| s.all("x-api-key")).collect();
            assert_eq!(keys, sent);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_everything_down() {
    let limited = VendorReply::status(429, "retry-after: 7\r\n", "{}");
    let rig = wiv_rig(TestVendor::replies([limited]));
    let error = ask(&rig, Operation::Search, spend()).await.unwrap_err();
    assert_eq!(
        (error.fault, error.retry_after),
        (Fault::RateLimited, Some(SECOND * 7))
    );
    for _ in 0..60 {
        let error = ask(&rig, Operation::Search, spend()).await.unwrap_err();
        assert_eq!(error.fault, Fault::BudgetExhausted);
        assert!(error.retry_after.unwrap() <= SECOND * 7);
        sleep(MS * 100).await;
    }
    assert_eq!(rig.vendor.count(), 1);
    // As a scrape does.
    rig.gates.governor.snapshot();
    let text = rig.metrics.render().unwrap();
    assert!(text.contains("vendor_budget_remaining{vendor=\"wiv\"} 0"));
    sleep(SECOND).await;
    // The hold-down is over, but only one may try.
    rig.vendor
        .now_does(|_| VendorReply::status(429, "retry-after: 7\r\n", "{}").after(SECOND));
    let rig = Arc::new(rig);
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(
            async move { fault(&rig, Operation::Search).await },
        ));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rig.vendor.count(), 2);
    sleep(SECOND * 7).await;
    rig.vendor.now_does(|_| VendorReply::ok(PAGE));
    assert!(ask(&rig, Operation::Search, spend()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_connection_is_not_sent_after_a_429() {
    // The first answer comes while the others are making their connections. They would get the
    // first one's, which is free again, or have to wait for their own.
    for extra in ["", "connection: close\r\n"] {
        let head = format!("retry-after: 30\r\n{extra}");
        let vendor = TestVendor::replies([VendorReply::status(429, &head, "{}")]);
        let rig = wiv_rig(vendor);
        let begun = Arc::new(AtomicU32::new(0));
        let connector = rig.vendor.connector();
        let slower_each = tower::service_fn(move |uri: Uri| {
            let mut connector = connector.clone();
            let takes = MS * 100 * begun.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(takes).await;
                connector.call(uri).await
            }
        });
        let (clock, gates) = (Clock::system(), &rig.gates);
        let service = outbound(&rig.options, gates, &clock, &rig.metrics, slower_each);
        let rig = Arc::new(Rig { service, ..rig });
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let rig = Arc::clone(&rig);
                tokio::spawn(async move { ask(&rig, Operation::Search, spend()).await })
            })
            .collect();
        let mut faults = Vec::new();
        for task in tasks {
            let error = task.await.unwrap().unwrap_err();
            assert!(error.retry_after.unwrap() > SECOND * 29);
            faults.push(error.fault);
        }
        assert_eq!(faults[0], Fault::RateLimited);
        assert_eq!(faults[1..], [Fault::BudgetExhausted; 4]);
        assert_eq!(rig.vendor.count(), 1);
        // Nothing else was attempted, so nothing else is counted, and no place is left behind.
        let text = rig.metrics.render().unwrap();
        let attempts: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("msp_gateway_vendor_requests_total"))
            .filter(|line| !line.ends_with(" 0"))
            .collect();
        assert!(
            matches!(attempts[..], [only] if only.contains("rate_limited") && only.ends_with(" 1")),
            "{attempts:?}"
        );
        assert_eq!(rig.gates.governor.snapshot().in_flight, 0);
        assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_vendor_says_it_has_left_is_respected() {
    let rig = wiv_rig(TestVendor::replies([
        VendorReply::status(200, "ratelimit: \"min\";r=0;t=5\r\n", PAGE),
        VendorReply::ok(PAGE),
    ]));
    ask(&rig, Operation::Search, spend()).await.unwrap();
    let begun = Clock::system().now();
    ask(&rig, Operation::Search, spend()).await.unwrap();
    assert_eq!(begun.elapsed(), SECOND * 5);
    let hasty = spend_of(Lane::Interactive, "dash", SECOND);
    assert!(ask(&rig, Operation::Search, hasty).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_is_held_until_the_body_was_read() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{";
    let vendor = TestVendor::replies([VendorReply::Stall(head.as_bytes().to_vec())]);
    let rig = Arc::new(wiv_rig(vendor));
    let mut tasks = Vec::new();
    for _ in 0..40 {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(async move {
            let spend = spend_of(Lane::Interactive, "dash", SECOND * 5);
            ask(&rig, Operation::Search, spend).await.unwrap_err().fault
        }));
    }
    for task in tasks {
        assert!(matches!(
            task.await.unwrap(),
            Fault::Timeout | Fault::BudgetExhausted
        ));
    }
    assert_eq!(rig.vendor.most_at_once(), 8);
    assert_eq!(rig.gates.governor.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn endless_bodies_are_cut_at_the_limit() {
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
        chunk.repeat(64)
    );
    let mut options = options(Vendor::Wiv);
    options.body_bytes_max = 1 << 20;
    let exact = format!("\"{}\"", "y".repeat((1 << 20) - 2));
    let vendor = TestVendor::replies([
        VendorReply::ok(&exact),
        VendorReply::Stall(endless.into_bytes()),
    ]);
    let rig = rig(vendor, options, None);
    let answer = ask(&rig, Operation::Search, spend()).await.unwrap();
    assert_eq!(answer.body, exact);
    assert_eq!(fault(&rig, Operation::Search).await, Fault::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_no_answer_to_the_next() {
    // The vendor answers with the caller's own number; every other call is dropped somewhere.
    let rig = wiv_rig(TestVendor::new(|seen| {
        let number: u64 = seen.all("traceparent")[0].parse().unwrap();
        let reply = VendorReply::ok(&format!("{{\"data\":[{number}]}}"));
        reply.after(MS * u32::try_from(number % 7).unwrap())
    }));
    let mut rng = fastrand::Rng::with_seed(3);
    for number in 0..400u64 {
        let mut spend = spend();
        let trace = HeaderValue::from(number);
        spend.payer = Payer::caller("dash".into(), Some(trace));
        let call = ask(&rig, Operation::Search, spend);
        if rng.bool() {
            let patience = MS * rng.u32(0..8);
            let _ = msp_gateway::clock::timeout(patience, call).await;
        } else {
            let body = call.await.unwrap().body;
            assert_eq!(body, format!("{{\"data\":[{number}]}}"));
        }
    }
    assert_eq!(rig.gates.governor.snapshot().in_flight, 0);
    assert_eq!(rig.gates.circuit.snapshot().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn bytes_after_an_answer_are_nobodys_answer() {
    for extra in [
        "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n\"stolen\"",
        "}",
        "\r\n\r\nx",
    ] {
        let VendorReply::Bytes(mut answer) = VendorReply::ok(PAGE) else {
            panic!("bytes");
        };
        answer.extend_from_slice(extra.as_bytes());
        let rig = wiv_rig(TestVendor::replies([VendorReply::Bytes(answer)]));
        for _ in 0..10 {
            match ask(&rig, Operation::Continue, spend()).await {
                Ok(answer) => assert_eq!(answer.body, PAGE),
                Err(error) => assert!(error.status.is_none(), "{error}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_idle_connection_loses_no_continuation() {
    let VendorReply::Bytes(answer) = VendorReply::ok(PAGE) else {
        panic!("bytes");
    };
    // The vendor closes its idle connection in the very moment of the second request.
    let vendor = TestVendor::replies([VendorReply::LastIn(answer, SECOND)]);
    let rig = Arc::new(wiv_rig(vendor));
    for _ in 0..20 {
        let rig = Arc::clone(&rig);
        let twice = tokio::spawn(async move {
            ask(&rig, Operation::Continue, spend()).await.unwrap();
            sleep(SECOND).await;
            let sent = rig.vendor.count();
            let result = ask(&rig, Operation::Continue, spend()).await;
            (result, rig.vendor.count() - sent)
        });
        // Nothing was written to the connection that closed, so another one carries it.
        let (result, sent) = twice.await.unwrap();
        assert_eq!((result.unwrap().body, sent), (PAGE.into(), 1));
        sleep(SECOND * 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_many_calls_delays_another_by_one() {
    let mut options = options(Vendor::Wiv);
    options.concurrency = 1;
    let rig = Arc::new(rig(
        TestVendor::replies([VendorReply::ok(PAGE).after(MS * 10)]),
        options,
        None,
    ));
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(async move {
            let greedy = spend_of(Lane::Interactive, "greedy", SECOND * 30);
            ask(&rig, Operation::Search, greedy).await.is_ok()
        }));
    }
    sleep(MS).await;
    let begun = Clock::system().now();
    let modest = spend_of(Lane::Interactive, "modest", SECOND * 30);
    ask(&rig, Operation::Customers, modest).await.unwrap();
    assert!(begun.elapsed() <= MS * 40, "{:?}", begun.elapsed());
    for task in tasks {
        assert!(task.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn wiv_asks_what_is_documented() {
    let page = r#"{"data":[{"case_id":"c1","n":1.50},{"case_id":"c2"}],"next_page_key":{"scroll_id":"S\"1"},"total":9}"#;
    let rig = wiv_rig(TestVendor::new(move |seen| {
        VendorReply::ok(if seen.line().starts_with("GET") {
            r#"{"data":[{"customer_id":"a"}]}"#
        } else {
            page
        })
    }));
    let wiv = Wiv::new(rig.service.clone(), &rig.options);
    assert_eq!(wiv.credential().as_str(), "001H|x");
    let query = SearchQuery {
        customer: Some(CustomerId::parse("org_1").unwrap()),
        ..SearchQuery::default()
    };
    let size = PageSize::new(25).unwrap();
    let first = wiv.first(&query, PageSize::MAX, spend()).await.unwrap();
    assert_eq!(first.rows.get(0), r#"{"case_id":"c1","n":1.50}"#);
    let total = EnvelopeMember::Other("total".to_owned(), "9".to_owned());
    assert!(first.envelope.contains(&total));
    let cursor = first.next.unwrap();
    wiv.next(&cursor, &query, size, spend()).await.unwrap();
    let foreign = Cursor::new(7_u32);
    let error = wiv.next(&foreign, &query, size, spend()).await.unwrap_err();
    assert_eq!(error.fault, Fault::Internal);
    let list = wiv.customers(spend()).await.unwrap();
    assert_eq!(list.body, r#"{"data":[{"customer_id":"a"}]}"#);
    let seen = rig.vendor.seen();
    let path = "POST /v2/cases/msp/search?customer_id=org_1 HTTP/1.1";
    assert_eq!((seen[0].line(), seen[1].line()), (path, path));
    assert_eq!(seen[0].body, r#"{"max_returned_items":500}"#);
    assert_eq!(
        seen[1].body,
        r#"{"max_returned_items":25,"start_page_key":{"scroll_id":"S\"1"}}"#
    );
    assert_eq!(
        (seen[2].line(), &*seen[2].body),
        ("GET /msp/customers HTTP/1.1", "")
    );

    rig.vendor.now_does(|_| {
        let page = "<html>sign in</html>";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n";
        VendorReply::Bytes(
            format!("{head}content-length: {}\r\n\r\n{page}", page.len()).into_bytes(),
        )
    });
    let error = wiv.first(&query, size, spend()).await.unwrap_err();
    assert_eq!(error.fault, Fault::Malformed);
    let error = Wiv::disabled().customers(spend()).await.unwrap_err();
    assert_eq!(error.fault, Fault::Disabled);
}

#[tokio::test(start_paused = true)]
async fn nable_asks_what_is_documented() {
    let good = r#"{"InvoicesReady":[], "Billable Services" : [ ]}"#;
    let rig = rig(
        TestVendor::replies([
            VendorReply::ok(good),
            VendorReply::ok(good),
            VendorReply::ok("{\"Cid\":1}"),
        ]),
        options(Vendor::Nable),
        None,
    );
    let nable = Nable::new(rig.service.clone(), &rig.options);
    let month = Month::parse("202409").unwrap();
    let contract = ContractId::parse("789012").unwrap();
    let body = Bytes::from_static(good.as_bytes());
    let answer = nable.invoices(&month, spend()).await.unwrap();
    assert_eq!(answer, NableAnswer::Good(body.clone()));
    let answer = nable.billable_services(&month, &contract, spend()).await;
    assert_eq!(answer.unwrap(), NableAnswer::Good(body));
    let answer = nable.billable_services(&month, &contract, spend()).await;
    assert_eq!(
        answer.unwrap(),
        NableAnswer::SoftFailed(Bytes::from_static(b"{\"Cid\":1}"))
    );
    let seen = rig.vendor.seen();
    assert_eq!(
        seen[0].line(),
        "POST /ws/rest/V1/PSA_API/InvoicesReady/001H%7Cx/202409 HTTP/1.1"
    );
    assert_eq!(
        seen[1].line(),
        "POST /ws/rest/V1/PSA_API/PSABillableServices/001H%7Cx/202409/789012 HTTP/1.1"
    );
    assert_eq!(seen[1].body, "{}");
    assert_eq!(seen[1].all("x-api-key"), [CANARY]);
}
