//! The gateway that walks a search stands still, as under SIGSTOP: another one, whose reader waits,
//! takes the walk over. When the first one goes on, it sends no continuation of its scroll and
//! stores no row.
//!
//! Both are over a real server, and each has a runtime of its own, so that one of them can be
//! stopped with all its tasks and connections.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use msp_gateway::clock::{Clock, Duration, Instant};
use msp_gateway::domain::PageSize;
use msp_gateway::reads::ReadError;
use msp_gateway::sandbox::Sandbox;
use msp_gateway::store::WhenAway;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fleet_server::store_at;
use crate::kit::{NOW, Page, Rig, Setup, continued, first};
use crate::test_server::{ServerKind, TestServer};

/// Shorter than that of a gateway, so that the test is not long.
const LEASE: Duration = Duration::from_secs(2);
/// A reader waits for a takeover at most this long.
const TAKEOVER_MAX: Duration = Duration::from_secs(8);

/// A gateway with a thread of its own.
struct Gateway {
    rig: Arc<Rig>,
    runtime: Handle,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

impl Gateway {
    async fn start(make: impl FnOnce() -> (Rig, Attendance) + Send + 'static) -> Self {
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (rig, attendance) = make();
                tokio::spawn(attendance);
                let told = tell.send((Arc::new(rig), Handle::current()));
                assert!(told.is_ok(), "the test waits for it");
                // The sender is dropped with the test.
                let _ = ended.await;
            });
        });
        let (rig, runtime) = told.await.unwrap();
        Self {
            rig,
            runtime,
            _end: end,
        }
    }

    fn page(&self, body: String) -> JoinHandle<Result<Page, ReadError>> {
        let rig = self.rig.clone();
        let page = async move { rig.page(&rig.everyone(), None, &body).await };
        self.runtime.spawn(page)
    }

    /// Stops everything that the gateway does until the returned sender is dropped.
    async fn stop(&self) -> mpsc::Sender<()> {
        let (go_on, waits) = mpsc::channel();
        let (stopped, has_stopped) = oneshot::channel();
        self.runtime.spawn(async move {
            let heard = stopped.send(());
            assert!(heard.is_ok(), "the test waits for it");
            // Blocks the thread, and ends with an error once the sender is dropped.
            let _ = waits.recv();
        });
        has_stopped.await.unwrap();
        go_on
    }

    fn walks(&self, outcome: &str) -> u64 {
        let text = self.rig.metrics.render().unwrap();
        let line = format!("msp_gateway_walks_total{{outcome=\"{outcome}\"}} ");
        let count = text.lines().find_map(|text| text.strip_prefix(&line));
        count.unwrap().parse().unwrap()
    }
}

type Attendance = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn setup(clock: &Clock, port: u16) -> (Setup, Attendance) {
    let store = store_at(port, clock, LEASE, WhenAway::Open);
    let mut setup = Setup {
        store: store.clone(),
        clock: Some(clock.clone()),
        ..Setup::default()
    };
    setup.world.cases = 400;
    // Longer than it takes to stop a gateway.
    setup.world.latency = Duration::from_millis(100);
    setup.snapshots.vendor_page_size = PageSize::new(50).unwrap();
    (setup, Box::pin(async move { store.attend().await }))
}

/// Reads on from a token, and returns the longest wait for a page too.
async fn rest(gateway: &Gateway, token: Option<String>) -> (Vec<String>, Duration) {
    let (mut rows, mut token, mut longest) = (Vec::new(), token, Duration::ZERO);
    while let Some(next) = token {
        let began = Instant::now();
        let page = gateway.page(continued(&next, None)).await.unwrap();
        let page = page.expect("a page");
        longest = longest.max(began.elapsed());
        rows.extend(page.rows);
        token = page.token;
    }
    (rows, longest)
}

/// How often each scroll was continued.
fn continuations(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in sandbox.requests() {
        if let Some((_, rest)) = request.body.split_once("scroll:") {
            *counts.entry(rest[..8].to_owned()).or_default() += 1;
        }
    }
    counts
}

/// What the server holds of the one snapshot.
async fn kept(port: u16) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*}:s")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    redis::cmd("HGETALL")
        .arg(&keys)
        .query_async(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stopped_gateway_is_taken_over_and_brings_nothing_when_it_goes_on() {
    // Stopped while nothing is under way, or while it waits for the vendor's answer.
    for in_call in [false, true] {
        let server = TestServer::start(ServerKind::Valkey, &[]);
        let (port, clock) = (server.port, Clock::anchored(NOW.parse().unwrap()));
        let of_one = clock.clone();
        let one = Gateway::start(move || {
            let (setup, attendance) = setup(&of_one, port);
            (Rig::new(setup), attendance)
        })
        .await;
        let before = one.rig.clone();
        let two = Gateway::start(move || {
            let (setup, attendance) = setup(&clock, port);
            (before.restarted(setup), attendance)
        })
        .await;
        let sandbox = one.rig.sandbox.clone();
        let page = one.page(first(40, "")).await.unwrap().expect("a page");
        // Each of the two has the rows so far.
        let body = continued(page.token.as_deref().unwrap(), Some(10));
        let second = two.page(body).await.unwrap().expect("a page");
        let own = in_call.then(|| one.page(continued(second.token.as_deref().unwrap(), Some(200))));
        if in_call {
            let known = sandbox.requests().len();
            while sandbox.requests().len() == known {
                tokio::task::yield_now().await;
            }
        } else {
            // It has read one page ahead, and that is stored.
            while kept(port).await[&b"rows"[..]] != b"100" {
                tokio::task::yield_now().await;
            }
        }
        let stopped = one.stop().await;
        let known = continuations(&sandbox);
        assert_eq!(known.len(), 1, "the scroll of the first gateway: {known:?}");

        let (rows, longest) = rest(&two, second.token.clone()).await;
        let list = sandbox.expected_rows(None, None);
        let whole = [&page.rows[..], &second.rows, &rows].concat();
        assert!(whole == list, "in a call: {in_call}");
        assert!(longest <= TAKEOVER_MAX, "in a call: {in_call}: {longest:?}");
        assert_eq!(two.walks("taken_over"), 1, "in a call: {in_call}");

        let (calls, stored) = (sandbox.requests().len(), kept(port).await);
        drop(stopped);
        if let Some(own) = own {
            let page = own.await.unwrap().expect("a page");
            assert!(page.rows[..] == list[50..250]);
        }
        let (rows, _) = rest(&one, page.token.clone()).await;
        assert!(rows[..] == list[40..], "in a call: {in_call}");
        // A call that was just being sent may still arrive. No second one follows.
        let spare = usize::from(in_call);
        let (scroll, sent) = known.iter().next().expect("one scroll");
        let after = continuations(&sandbox)[scroll];
        assert!(after <= sent + spare, "in a call: {in_call}: {after}");
        let after = sandbox.requests().len();
        assert!(after <= calls + spare, "in a call: {in_call}: {after}");
        assert!(kept(port).await == stored, "in a call: {in_call}");
        let counts = sandbox.counts();
        assert_eq!(counts.scroll_overlaps, 0, "in a call: {in_call}");
    }
}
