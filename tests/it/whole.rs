//! The whole gateway without sockets: bytes in at a caller's connection, bytes out at the sandbox
//! vendors. Everything that leaves is kept, so that a test can look for what must never leave.

use std::sync::Arc;

use http::Uri;
use msp_gateway::access::CallerKeyHash;
use msp_gateway::app::{App, Way, open_store, store_seal};
use msp_gateway::cache::FiledBodies;
use msp_gateway::clock::{Clock, Duration, Instant};
use msp_gateway::config::{self, Secrets, Settings};
use msp_gateway::domain::Vendor;
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox::{self, Sandbox};
use msp_gateway::server::{Answering, Connections};
use msp_gateway::store::{Engine, Store};
use msp_gateway::telemetry::{EventLines, Format, LogSink};
use msp_gateway::upstream::connect::InMemory;
use parking_lot::Mutex;
use tokio::io::{DuplexStream, duplex};
use tracing_subscriber::prelude::*;

use crate::kit::NOW;
pub use crate::peer::{Peer, Reply, get, post};

/// Beyond this, an answer that was to come within the request timeout came too late.
const LATE: Duration = Duration::from_millis(50);
/// The settings' request timeout.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of most tests: short lives, small vendor pages, an operator who sees all.
pub const SETTINGS: &str = r#"
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[wiv]
base_url = "http://127.0.0.1:7070"
api_key_env = "UNUSED"
requests_per_minute = 60000
concurrency = 64
[nable]
base_url = "http://127.0.0.1:7070/ws/rest/V1/PSA_API"
account_id = "SANDBOX"
api_key_env = "UNUSED"
requests_per_minute = 60000
concurrency = 64
timeout = "10s"
[customers]
fresh = "1m"
stale = "1m"
on_error = "1h"
[cases.open]
fresh = "1m"
stale = "1m"
on_error = "1h"
[cases.recent]
fresh = "1m"
stale = "1m"
on_error = "1h"
[cases.closed]
fresh = "1m"
stale = "1m"
on_error = "1h"
[billing.current]
fresh = "1m"
stale = "1m"
on_error = "1h"
[billing.closed]
fresh = "1m"
stale = "1m"
on_error = "1h"
[pagination]
vendor_page_size = 50
"#;

/// A `[[callers]]` stanza for the key `k-NAME`; `more` are further lines.
pub fn caller(name: &str, more: &str) -> String {
    let hash = CallerKeyHash::of(format!("k-{name}").as_bytes());
    let customers = match more.contains("customers") {
        true => "",
        false => "customers = [\"*\"]\n",
    };
    format!("[[callers]]\nname = \"{name}\"\nkey_hash = \"{hash}\"\n{customers}{more}\n")
}

/// A small world, without quotas.
pub fn world() -> sandbox::Options {
    sandbox::Options {
        cases: 400,
        customers: 12,
        contracts: 3,
        months: 6,
        wiv_requests_per_minute: None,
        nable_requests_per_minute: None,
        ..sandbox::Options::default()
    }
}

pub fn secrets() -> Secrets {
    let keys = [
        (Vendor::Wiv, "wiv", sandbox::WIV_KEY),
        (Vendor::Nable, "SANDBOX", sandbox::NABLE_KEY),
    ];
    Secrets::of_keys(&keys).unwrap()
}

pub fn settings(text: &str) -> Settings {
    config::from_text("test.toml", text, []).unwrap()
}

/// Where events go: kept, one JSON object a line, down to TRACE.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<u8>>>);

impl Events {
    /// From now on this thread's events come here, as long as the guard lives.
    pub fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let events = Self::default();
        let to = events.0.clone();
        let clock = Clock::system();
        let lines = EventLines::new(Format::Json, clock, move |line: String| {
            to.lock().extend_from_slice(format!("{line}\n").as_bytes());
        });
        let guard = tracing_subscriber::registry().with(lines).set_default();
        (events, guard)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

/// A gateway over its own sandbox.
pub struct Whole {
    pub app: Arc<App>,
    pub sandbox: Arc<Sandbox>,
    pub metrics: Arc<Metrics>,
    pub log: LogSink,
    public: Connections,
    admin: Connections,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Whole {
    pub fn with(text: &str, secrets: &Secrets, world: sandbox::Options) -> Self {
        Self::of(&settings(text), secrets, world)
    }

    pub fn of(settings: &Settings, secrets: &Secrets, world: sandbox::Options) -> Self {
        Self::beside(settings, secrets, world, |_| None)
    }

    /// The same, beside something else that is reached at places of its own.
    pub fn beside(
        settings: &Settings,
        secrets: &Secrets,
        world: sandbox::Options,
        other: impl Fn(&Uri) -> Option<DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        let clock = Clock::anchored(NOW.parse().unwrap());
        let metrics = Metrics::new().unwrap();
        let store = open_store(settings, secrets, &clock, &metrics).unwrap();
        let sandbox = Sandbox::new(world, clock.clone());
        let reached = (sandbox, other);
        Self::over(settings, secrets, reached, store, clock, metrics)
    }

    /// A gateway that begins with nothing in memory, over what others left in `engine`.
    pub fn begin(
        text: &str,
        secrets: &Secrets,
        (sandbox, clock): (&Arc<Sandbox>, &Clock),
        engine: impl Engine,
    ) -> Self {
        let metrics = Metrics::new().unwrap();
        let seal = store_seal(secrets).unwrap().unwrap();
        let store = Store::over(engine, seal, clock.clone(), &metrics);
        let attending = store.clone();
        tokio::spawn(async move { attending.attend().await });
        let (reached, clock) = ((sandbox.clone(), |_: &Uri| None), clock.clone());
        Self::over(&settings(text), secrets, reached, store, clock, metrics)
    }

    fn over(
        settings: &Settings,
        secrets: &Secrets,
        (sandbox, other): (
            Arc<Sandbox>,
            impl Fn(&Uri) -> Option<DuplexStream> + Send + Sync + 'static,
        ),
        store: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let log = LogSink::kept(clock.clone());
        let vendors = sandbox.clone();
        let way = Way::InMemory(InMemory::by_place(move |place| {
            if let Some(near) = other(place) {
                return Ok(near);
            }
            let (near, far) = duplex(256 * 1024);
            tokio::spawn(vendors.clone().serve_io(far));
            Ok(near)
        }));
        let (book, clocks) = (metrics.clone(), clock.clone());
        let app =
            App::build_over(way, store, settings, secrets, log.clone(), clocks, book).unwrap();
        let listener = |answering: Answering| Connections {
            answering,
            patience: settings.server.patience(),
            clock: clock.clone(),
            drain: app.drain().clone(),
            files: FiledBodies::default(),
        };
        Self {
            public: listener(app.public()),
            admin: listener(app.admin()),
            app,
            sandbox,
            metrics,
            log,
            heard: Arc::default(),
        }
    }

    /// A caller's new connection.
    pub fn connect(&self) -> Peer {
        self.peer(&self.public)
    }

    /// An operator's new connection.
    pub fn connect_admin(&self) -> Peer {
        self.peer(&self.admin)
    }

    /// The other end of a new connection that is to speak TLS, to either listener.
    pub fn open_tls(&self, admin: bool) -> DuplexStream {
        let (connections, tls) = match admin {
            true => (&self.admin, self.app.admin_tls()),
            false => (&self.public, self.app.public_tls()),
        };
        let (connections, tls) = (connections.clone(), tls.unwrap().clone());
        let (near, far) = duplex(256 * 1024);
        tokio::spawn(async move { connections.serve_tls(&tls, far, None).await });
        near
    }

    fn peer(&self, connections: &Connections) -> Peer {
        let (near, far) = duplex(256 * 1024);
        tokio::spawn(connections.clone().serve(far, None));
        Peer::new(near, self.heard.clone())
    }

    /// One request on a connection of its own; it is answered in time.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let begun = Instant::now();
        let mut peer = self.connect();
        peer.head_only = request.as_ref().starts_with(b"HEAD ");
        peer.send(request).await;
        let reply = peer.reply().await.expect("an answer");
        let took = Instant::now().saturating_duration_since(begun);
        assert!(took <= REQUEST_TIMEOUT + LATE, "answered after {took:?}");
        reply
    }

    /// One request to the admin listener.
    pub async fn ask_admin(&self, request: impl AsRef<str>) -> Reply {
        let mut peer = self.connect_admin();
        // Other names are refused, as a page of another site would come with one.
        let request = request
            .as_ref()
            .replacen("host: x\r\n", "host: localhost\r\n", 1);
        peer.send(request).await;
        peer.reply().await.expect("an answer")
    }

    /// What `/metrics` shows.
    pub async fn metrics_text(&self) -> String {
        let reply = self.ask_admin(get("/metrics", "")).await;
        assert_eq!(reply.status, 200);
        String::from_utf8(reply.body).unwrap()
    }

    /// Lines of `/metrics` that are not comments, without their values: the series.
    pub async fn series(&self) -> Vec<String> {
        let text = self.metrics_text().await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.rsplit_once(' '));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// The value of one series, 0 where it does not stand.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics_text().await;
        let found = text.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name.strip_prefix("msp_gateway_")? == series).then(|| value.parse().unwrap())
        });
        found.unwrap_or(0.0)
    }

    /// Requests that reached the vendors, all operations.
    pub fn vendor_calls(&self) -> u64 {
        self.sandbox.counts().total()
    }

    /// Everything that ever left, as one text: answers, access log, metrics, status.
    pub async fn everything(&self) -> String {
        self.metrics_text().await;
        let status = self.ask_admin(get("/admin/status", "")).await;
        assert_eq!(status.status, 200);
        self.ask_admin(get("/readyz", "")).await;
        let mut out = String::from_utf8_lossy(&self.heard.lock()).into_owned();
        for line in self.log.lines() {
            out.push_str(&line);
        }
        out
    }
}

/// Panics if a vendor's key stands in `text`, as it is or in another spelling.
pub fn assert_no_vendor_key(text: &str, context: &str) {
    for key in [sandbox::WIV_KEY, sandbox::NABLE_KEY] {
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        let bytes = format!("{:?}", key.as_bytes());
        for spelling in [key, &hex, bytes.trim_matches(['[', ']'])] {
            assert!(!text.contains(spelling), "a key left: {context}");
        }
    }
    // The middle of base64, whatever stands before: three alignments of "sandbox-".
    for spelling in ["c2FuZGJveC", "NhbmRib3gt", "zYW5kYm94L"] {
        assert!(!text.contains(spelling), "a key left in base64: {context}");
    }
}

impl Reply {
    /// The problem's code; empty where the answer is none.
    pub fn code(&self) -> String {
        if self.header("content-type") != "application/problem+json" {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }
}

/// The header of the caller `all`.
pub const ALL: &str = "x-api-key: k-all\r\n";

pub fn search(headers: &str, body: &str) -> String {
    post("/v2/cases/msp/search", headers, body)
}
