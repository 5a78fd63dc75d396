//! Spans of requests: what a collector gets, that nothing waits for it, and that no secret is in
//! it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox;
use msp_gateway::traces::{
    CollectorUrl, SpanDraft, SpanId, SpanKind, TraceHeaders, TraceOptions, Traces,
};
use msp_gateway::upstream::connect::InMemory;
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{DuplexStream, duplex};

use crate::kit::NOW;
use crate::whole::{
    ALL, Events, SETTINGS, Whole, assert_no_vendor_key, caller, get, post, search, secrets,
    settings, world,
};

const SECOND: Duration = Duration::from_secs(1);
const COLLECTOR: &str = "http://127.0.0.1:4318";
/// A sampled trace of a caller.
const SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
/// One that its caller does not record.
const UNSAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n";

/// The parts of the protocol that the tests look at.
mod otlp {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Export {
        #[prost(message, repeated, tag = "1")]
        pub resources: Vec<Resources>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Resources {
        #[prost(message, repeated, tag = "2")]
        pub scopes: Vec<Scopes>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Scopes {
        #[prost(message, repeated, tag = "2")]
        pub spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub trace: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub parent: Vec<u8>,
        #[prost(string, tag = "5")]
        pub name: String,
        #[prost(fixed64, tag = "7")]
        pub start_ns: u64,
        #[prost(fixed64, tag = "8")]
        pub end_ns: u64,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the collector does with one export.
#[derive(Clone)]
enum Say {
    /// Answers with this status, header and body.
    Status(u16, Option<(&'static str, &'static str)>, &'static [u8]),
    /// Takes everything and answers nothing.
    Hang,
    /// Accepts no connection.
    Dead,
}

const TAKEN: Say = Say::Status(200, None, b"");

/// A receiver at the other end of a pipe.
#[derive(Clone, Default)]
struct Collector {
    heard: Arc<Mutex<Vec<(Instant, HeaderMap, Bytes)>>>,
    script: Arc<Mutex<VecDeque<Say>>>,
    /// What it does when the script is over.
    then: Arc<Mutex<Option<Say>>>,
}

impl Collector {
    fn saying(then: Say) -> Self {
        let this = Self::default();
        *this.then.lock() = Some(then);
        this
    }

    fn next(&self) -> Say {
        let scripted = self.script.lock().pop_front();
        scripted
            .or_else(|| self.then.lock().clone())
            .unwrap_or(TAKEN)
    }

    fn connect(&self) -> io::Result<DuplexStream> {
        let first = self.script.lock().front().cloned();
        if let Say::Dead = first.or_else(|| self.then.lock().clone()).unwrap_or(TAKEN) {
            self.script.lock().pop_front();
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = duplex(1 << 20);
        let this = self.clone();
        let service = service_fn(move |request| this.clone().take(request));
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(far), service).await;
        });
        Ok(near)
    }

    async fn take(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        assert_eq!(
            (head.method.as_str(), head.uri.path()),
            ("POST", "/v1/traces")
        );
        let body = body.collect().await.unwrap().to_bytes();
        self.heard.lock().push((Instant::now(), head.headers, body));
        match self.next() {
            Say::Status(status, header, body) => {
                let mut answer = Response::builder().status(status);
                if let Some((name, value)) = header {
                    answer = answer.header(name, value);
                }
                Ok(answer.body(Full::new(Bytes::from_static(body))).unwrap())
            }
            Say::Hang | Say::Dead => std::future::pending().await,
        }
    }

    fn exports(&self) -> Vec<Vec<otlp::Span>> {
        let heard = self.heard.lock();
        heard
            .iter()
            .map(|(_, _, body)| {
                let export = otlp::Export::decode(body.clone()).unwrap();
                let scopes = export.resources.into_iter().flat_map(|r| r.scopes);
                scopes.flat_map(|scope| scope.spans).collect()
            })
            .collect()
    }

    fn spans(&self) -> Vec<otlp::Span> {
        self.exports().into_iter().flatten().collect()
    }

    fn named(&self, name: &str) -> Vec<otlp::Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    /// Everything that was sent, as one text: what is written in it stands there as it is.
    fn text(&self) -> String {
        let heard = self.heard.lock();
        let bodies = heard
            .iter()
            .map(|(_, _, body)| String::from_utf8_lossy(body).into_owned());
        bodies.collect()
    }
}

/// An exporter by itself.
struct Rig {
    collector: Collector,
    traces: Traces,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new(collector: Collector, ratio: f64) -> Self {
        let metrics = Metrics::new().unwrap();
        let options = TraceOptions {
            collector: CollectorUrl::parse(COLLECTOR).unwrap(),
            sample_ratio: ratio,
            headers: TraceHeaders::parse("x-key: s3cret").unwrap(),
        };
        let theirs = collector.clone();
        let connector = InMemory::fallible(move || theirs.connect());
        let clock = Clock::anchored(NOW.parse().unwrap());
        let traces = Traces::start(&options, connector, clock, metrics.traces.resolve());
        Self {
            collector,
            traces,
            metrics,
        }
    }

    /// Records `spans` child spans, each of a request of its own. Takes no time at all.
    fn note(&self, spans: usize) {
        let begun = Instant::now();
        for _ in 0..spans {
            let id = *b"4bf92f3577b34da6a3ce929d0e0e4736";
            let live = self.traces.begin(None, &id).unwrap();
            let draft = SpanDraft::new("x", SpanKind::Internal, begun, SECOND);
            live.note(SpanId::fresh(), None, draft);
        }
        assert_eq!(Instant::now(), begun);
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let found = text.lines().find_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.strip_prefix("msp_gateway_traces_")? == name).then(|| value.parse().unwrap())
        });
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.metric(&format!("spans_dropped_total{{reason=\"{reason}\"}}"))
    }

    fn exported(&self) -> u64 {
        self.metric("spans_exported_total")
    }
}

#[tokio::test(start_paused = true)]
async fn spans_are_gathered_and_sent_with_their_headers() {
    let rig = Rig::new(Collector::default(), 1.0);
    let begun = Instant::now();
    rig.note(3);
    sleep(SECOND).await;
    rig.note(2);
    sleep(2 * SECOND).await;
    rig.note(1_200);
    sleep(10 * SECOND).await;
    let sizes: Vec<_> = rig.collector.exports().iter().map(Vec::len).collect();
    assert_eq!(sizes, [5, 512, 512, 176]);
    let (at, headers, _) = rig.collector.heard.lock()[0].clone();
    assert_eq!(at - begun, 2 * SECOND);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["x-key"], "s3cret");
    assert_eq!(rig.exported(), 1_205);
    assert_eq!(rig.metric("up"), 1);
    let span = &rig.collector.spans()[0];
    assert_eq!(hex(&span.trace), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((span.id.len(), span.parent.len()), (8, 8));
    assert_eq!(span.end_ns - span.start_ns, 1_000_000_000);
    let began: jiff::Timestamp = NOW.parse().unwrap();
    assert_eq!(i128::from(span.start_ns), began.as_nanosecond());
}

/// What a collector does, and what becomes of one span: how it is counted, how often it was sent,
/// and how long after it was noted the last attempt came.
#[tokio::test(start_paused = true)]
async fn a_collector_that_fails_costs_spans_and_each_is_counted() {
    let refusing = |status, after| Collector::saying(Say::Status(status, after, b"no"));
    let some: &'static [u8] = b"\x0a\x02\x08\x01";
    let location = Some(("location", "http://127.0.0.1:9/v1/traces"));
    for (what, collector, counted, sent, last_s) in [
        ("dead", Collector::saying(Say::Dead), "unreachable", 0, 0),
        (
            "hangs",
            Collector::saying(Say::Hang),
            "timeout",
            3,
            2 + 10 + 1 + 10 + 2,
        ),
        (
            "asks for patience",
            refusing(503, Some(("retry-after", "5"))),
            "refused",
            3,
            2 + 5 + 5,
        ),
        (
            "asks for too much",
            refusing(429, Some(("retry-after", "99999"))),
            "refused",
            3,
            2 + 60,
        ),
        (
            "is overloaded",
            refusing(502, None),
            "refused",
            3,
            2 + 1 + 2,
        ),
        ("wants none", refusing(400, None), "refused", 1, 2),
        ("wants a key", refusing(401, None), "refused", 1, 2),
        ("sends elsewhere", refusing(307, location), "refused", 1, 2),
        (
            "rejects it",
            Collector::saying(Say::Status(200, None, some)),
            "rejected",
            1,
            2,
        ),
    ] {
        let (events, _guard) = Events::listen();
        let rig = Rig::new(collector, 1.0);
        let begun = Instant::now();
        rig.note(1);
        sleep(120 * SECOND).await;
        assert_eq!(rig.dropped(counted), 1, "{what}");
        assert_eq!(rig.exported(), 0, "{what}");
        let heard = rig.collector.heard.lock().clone();
        assert_eq!(heard.len(), sent, "{what}");
        if let Some((at, _, _)) = heard.last() {
            assert_eq!((*at - begun).as_secs(), last_s, "{what}");
        }
        let failed = counted != "rejected";
        assert_eq!(rig.metric("up"), u64::from(!failed), "{what}");
        // Told once, and again when it works.
        let told = |words: &str| events.text().matches(words).count();
        rig.note(1);
        sleep(120 * SECOND).await;
        assert_eq!(
            told("spans cannot be exported"),
            usize::from(failed),
            "{what}"
        );
        *rig.collector.then.lock() = Some(TAKEN);
        rig.note(1);
        sleep(120 * SECOND).await;
        assert_eq!((rig.exported(), rig.metric("up")), (1, 1), "{what}");
        assert_eq!(told("spans are exported"), usize::from(failed), "{what}");
        assert!(!events.text().contains("s3cret"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_that_fails_in_passing_is_sent_again() {
    let collector = Collector::default();
    collector
        .script
        .lock()
        .extend([Say::Dead, Say::Status(503, None, b"")]);
    let rig = Rig::new(collector, 1.0);
    rig.note(7);
    sleep(30 * SECOND).await;
    assert_eq!(rig.exported(), 7);
    assert_eq!(rig.collector.exports().len(), 2);
    let reasons = ["unreachable", "refused", "timeout", "queue_full"];
    assert!(reasons.iter().all(|reason| rig.dropped(reason) == 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_counts_and_nothing_waits() {
    let rig = Rig::new(Collector::saying(Say::Hang), 1.0);
    rig.note(512);
    // The exporter has a batch in hand, and its attempts take some half a minute.
    sleep(3 * SECOND).await;
    rig.note(5_000);
    assert_eq!(rig.dropped("queue_full"), 5_000 - 4_096);
    assert_eq!(rig.collector.heard.lock().len(), 1);
    // Whatever happened to it, each span is counted once.
    *rig.collector.then.lock() = Some(TAKEN);
    sleep(300 * SECOND).await;
    let counted = rig.exported() + rig.dropped("queue_full") + rig.dropped("timeout");
    assert_eq!(counted, 5_512);
    assert_eq!(rig.exported() + rig.dropped("timeout"), 512 + 4_096);
}

#[tokio::test(start_paused = true)]
async fn one_request_does_not_fill_the_queue() {
    let rig = Rig::new(Collector::default(), 1.0);
    let live = rig
        .traces
        .begin(None, b"4bf92f3577b34da6a3ce929d0e0e4736")
        .unwrap();
    let draft = || SpanDraft::new("x", SpanKind::Internal, Instant::now(), SECOND);
    for _ in 0..1_000 {
        live.note(SpanId::fresh(), None, draft());
    }
    live.finish(draft());
    sleep(10 * SECOND).await;
    // 128 children and the request's own.
    assert_eq!((rig.exported(), rig.dropped("trace_full")), (129, 872));
}

/// What the collector does when the process ends, how long that may take, and what is counted.
#[tokio::test(start_paused = true)]
async fn the_end_waits_for_the_collector_for_a_second_at_most() {
    for (what, collector, exported, lost) in [
        ("takes them", Collector::default(), 700, 0),
        ("hangs", Collector::saying(Say::Hang), 0, 700),
        ("is dead", Collector::saying(Say::Dead), 0, 700),
        (
            "refuses",
            Collector::saying(Say::Status(503, None, b"")),
            0,
            700,
        ),
    ] {
        // Just noted, in the first wait of a batch, and in the middle of an attempt.
        for before in [Duration::ZERO, SECOND, 4 * SECOND] {
            let rig = Rig::new(collector.clone(), 1.0);
            rig.note(700);
            sleep(before).await;
            let begun = Instant::now();
            rig.traces.close(SECOND).await;
            let took = Instant::now() - begun;
            assert!(took <= SECOND, "{what}: {took:?}");
            assert_eq!(rig.exported(), exported, "{what}, after {before:?}");
            let reasons = ["closed", "unreachable", "refused", "timeout"];
            let dropped: u64 = reasons.iter().map(|reason| rig.dropped(reason)).sum();
            assert_eq!(dropped, lost, "{what}, after {before:?}");
            // Too late.
            rig.note(5);
            let closed = rig.dropped("closed");
            assert!(closed >= 5, "{what}: {closed}");
            rig.traces.close(SECOND).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_exporter_ends_with_the_last_that_could_send_a_span() {
    let rig = Rig::new(Collector::default(), 1.0);
    let live = rig
        .traces
        .begin(None, b"4bf92f3577b34da6a3ce929d0e0e4736")
        .unwrap();
    let Rig {
        collector,
        traces,
        metrics: _metrics,
    } = rig;
    drop(traces);
    sleep(SECOND).await;
    live.finish(SpanDraft::new(
        "late",
        SpanKind::Server,
        Instant::now(),
        SECOND,
    ));
    drop(live);
    sleep(SECOND).await;
    // It did not wait for more.
    assert_eq!(collector.named("late").len(), 1);
}

// ------------------------------------------------------------------------------------------------
// The whole gateway
// ------------------------------------------------------------------------------------------------

fn whole(table: &str, collector: &Collector) -> Whole {
    let text = format!(
        "{SETTINGS}\n[traces]\notlp_endpoint = \"{COLLECTOR}\"\n{table}\n{}",
        caller("all", "")
    );
    let collector = collector.clone();
    Whole::beside(&settings(&text), &secrets(), world(), move |place: &Uri| {
        (place.port_u16() == Some(4318)).then(|| collector.connect().unwrap())
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_becomes_a_tree_of_spans() {
    let collector = Collector::default();
    let whole = whole("sample_ratio = 1", &collector);
    let reply = whole.ask(search(ALL, r#"{"max_returned_items":75}"#)).await;
    assert_eq!(reply.status, 200);
    sleep(5 * SECOND).await;
    let [request] = &collector
        .named("POST /v2/cases/msp/search")
        .into_iter()
        .filter(|span| span.parent.is_empty())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", collector.spans());
    };
    // The trace has the request's name, so that logs and traces name each other.
    assert_eq!(hex(&request.trace), reply.header("x-request-id"));
    let pages = collector.named("walk page");
    assert!(pages.len() >= 2, "{:?}", collector.spans());
    let attempts: Vec<_> = collector
        .named("POST /v2/cases/msp/search")
        .into_iter()
        .filter(|span| !span.parent.is_empty())
        .collect();
    for page in &pages {
        assert_eq!((&page.trace, &page.parent), (&request.trace, &request.id));
        let of_page = attempts.iter().filter(|attempt| attempt.parent == page.id);
        assert_eq!(of_page.count(), 1);
    }
    let text = whole.log.lines().concat();
    let trace_id = format!("\"trace_id\":\"{}\"", reply.header("x-request-id"));
    assert!(text.contains(&trace_id), "{text}");
    // A hit is one span.
    let before = collector.spans().len();
    let hit = whole.ask(search(ALL, r#"{"max_returned_items":75}"#)).await;
    sleep(5 * SECOND).await;
    assert_eq!(collector.spans().len(), before + 1);
    assert_ne!(hit.header("x-request-id"), reply.header("x-request-id"));
}

/// Which requests are traced: the caller's word where it sends one, the share of the settings else.
#[tokio::test(start_paused = true)]
async fn a_callers_traceparent_decides_and_the_share_where_there_is_none() {
    for (ratio, headers, spans) in [
        ("0", "", 0),
        ("1", "", 1),
        ("0", SAMPLED, 1),
        ("1", UNSAMPLED, 0),
        // A bad one is none.
        ("0", "traceparent: 00-x-y-01\r\n", 0),
        ("1", "traceparent: 00-x-y-01\r\n", 1),
    ] {
        let collector = Collector::default();
        let whole = whole(&format!("sample_ratio = {ratio}"), &collector);
        let headers = format!("{ALL}{headers}");
        assert_eq!(whole.ask(get("/msp/customers", &headers)).await.status, 200);
        sleep(5 * SECOND).await;
        let found: Vec<_> = collector
            .named("GET /msp/customers")
            .into_iter()
            .filter(|span| span.parent.is_empty() || hex(&span.parent) == "00f067aa0ba902b7")
            .collect();
        assert_eq!(found.len(), spans, "{ratio} {headers:?}");
        if headers.contains("-01\r\n") && spans == 1 && headers.contains("4bf9") {
            assert_eq!(hex(&found[0].trace), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
    }
}

/// The vendor continues the trace below the attempt that it answers. Without a caller's trace it
/// gets no trace headers.
#[tokio::test(start_paused = true)]
async fn a_vendor_is_told_the_span_of_the_attempt() {
    let collector = Collector::default();
    let whole = whole("sample_ratio = 1", &collector);
    let asked = |path: &str, headers: &str| get(path, &format!("{ALL}{headers}"));
    whole.ask(asked("/msp/customers", SAMPLED)).await;
    whole.ask(asked("/v1/billing/202610", "")).await;
    sleep(5 * SECOND).await;
    let seen = whole.sandbox.requests();
    let told: Vec<_> = seen
        .iter()
        .flat_map(|request| &request.headers)
        .filter(|(name, _)| name == "traceparent")
        .map(|(_, value)| value)
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let parts: Vec<_> = told[0].split('-').collect();
    let attempt = collector
        .named("GET /msp/customers")
        .into_iter()
        .find(|span| hex(&span.id) == parts[2]);
    let attempt = attempt.expect("the vendor's parent is a span of ours");
    assert_eq!(parts[1], hex(&attempt.trace));
    assert_eq!(parts[3], "01");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_delays_no_request() {
    let collector = Collector::saying(Say::Hang);
    let whole = whole("sample_ratio = 1", &collector);
    whole.ask(get("/msp/customers", ALL)).await;
    let begun = Instant::now();
    for _ in 0..6_000 {
        assert_eq!(whole.ask(get("/msp/customers", ALL)).await.status, 200);
    }
    assert_eq!(Instant::now(), begun);
    let dropped = "traces_spans_dropped_total{reason=\"queue_full\"}";
    assert!(whole.metric(dropped).await > 0.0);
}

/// Whatever a caller writes, and whatever vendors answer: no span holds it.
#[tokio::test(start_paused = true)]
async fn no_secret_and_no_word_of_a_caller_is_in_any_span() {
    const CANARY: &str = "cAnArY7f3a9c";
    let collector = Collector::default();
    let whole = whole("sample_ratio = 1", &collector);
    let page = whole
        .ask(search(ALL, r#"{"max_returned_items":75}"#))
        .await
        .json();
    let token = page["next_page_key"]["scroll_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let next = format!(r#"{{"start_page_key":{{"scroll_id":"{token}"}}}}"#);
    assert_eq!(whole.ask(search(ALL, &next)).await.status, 200);
    let bad_key = format!("x-api-key: {CANARY}\r\n");
    let noisy = format!(
        "{ALL}user-agent: {CANARY}\r\nx-forwarded-for: {CANARY}\r\nreferer: http://{CANARY}/\r\ntracestate: a={CANARY}\r\n{SAMPLED}"
    );
    for request in [
        get("/msp/customers", &bad_key),
        get(
            "/msp/customers",
            &format!("authorization: Bearer {CANARY}\r\n"),
        ),
        get(&format!("/{CANARY}"), &noisy),
        get(&format!("/msp/customers?fields={CANARY}"), &noisy),
        get(&format!("/msp/customers?{CANARY}=1"), &noisy),
        get(&format!("/v1/billing/202610/{CANARY}"), &noisy),
        get(&format!("/v1/billing/{CANARY}"), &noisy),
        get(
            &format!("/v1/cases/export?customer_id={CANARY}&format=csv"),
            &noisy,
        ),
        get(&format!("/v1/cases/changes?since={CANARY}"), &noisy),
        post(
            &format!("/v2/cases/msp/search?customer_id={CANARY}"),
            &noisy,
            &format!(r#"{{"x":"{CANARY}"}}"#),
        ),
        search(
            &noisy,
            &format!(r#"{{"start_page_key":{{"scroll_id":"{CANARY}"}}}}"#),
        ),
        search(&noisy, CANARY),
        format!("{CANARY} /msp/customers HTTP/1.1\r\nhost: x\r\n{noisy}\r\n"),
    ] {
        whole.ask(&request).await;
    }
    // Vendors that fail, with words of theirs.
    whole
        .sandbox
        .fault(sandbox::SimFault::on_any(sandbox::FaultKind::Status {
            status: 500,
            body: Some(format!("{{\"error\":\"{CANARY} {}\"}}", sandbox::WIV_KEY)),
            retry_after: None,
            processed: false,
        }));
    for path in ["/msp/customers", "/v1/overview"] {
        whole
            .ask(get(path, &format!("{noisy}cache-control: no-cache\r\n")))
            .await;
    }
    sleep(10 * SECOND).await;
    let text = collector.text();
    assert!(collector.spans().len() > 15);
    // Of 13 requests and the vendors' answers, only our own words.
    assert!(!text.contains(CANARY), "{text}");
    assert!(!text.contains(&token) && !text.contains("k-all"));
    // How every scroll id begins.
    assert!(!text.contains("FGluY2x1ZGVf"));
    assert_no_vendor_key(&text, "a span");
    assert!(
        !text.contains(sandbox::NABLE_ACCOUNT),
        "the account is in a span"
    );
}
