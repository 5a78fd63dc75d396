//! A vendor for tests: speaks bytes over in-memory pipes by a script, and notes what reached it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use msp_gateway::admission::{Gates, Lane, Payer, Spend};
use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::domain::{AccountId, Vendor};
use msp_gateway::metrics::Metrics;
use msp_gateway::secrets::{Secret, VendorKey, VendorKeyring, VendorKeys};
use msp_gateway::stack::outbound;
use msp_gateway::upstream::connect::InMemory;
use msp_gateway::upstream::{BaseUrl, VendorOptions, VendorService};
use msp_gateway::vendors::ROWS;

/// The key that must never be seen anywhere but at the vendor.
pub(crate) const CANARY: &str = "canary-5f0c1d";
/// A second one.
pub(crate) const CANARY_TWO: &str = "canary-two-77a1";

/// What the vendor does with one request.
#[derive(Clone, Debug)]
pub(crate) enum VendorReply {
    /// Sends these bytes and keeps the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes.
    Last(Vec<u8>),
    /// Sends these bytes and closes after a time.
    LastIn(Vec<u8>, Duration),
    /// Says nothing more, but keeps the connection open.
    Hang,
    /// Sends these bytes, then as [`VendorReply::Hang`].
    Stall(Vec<u8>),
    /// As the inner one, after a time.
    After(Duration, Box<VendorReply>),
}

impl VendorReply {
    pub(crate) fn status(status: u16, extra: &str, body: &str) -> Self {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{extra}\r\n{body}"
        );
        Self::Bytes(text.into_bytes())
    }

    pub(crate) fn ok(body: &str) -> Self {
        Self::status(200, "", body)
    }

    pub(crate) fn after(self, time: Duration) -> Self {
        Self::After(time, Box::new(self))
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct SeenRequest {
    pub head: String,
    pub body: String,
    /// How many requests its connection carried, this one among them.
    pub nth: usize,
}

impl SeenRequest {
    /// Returns all values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

type Script = dyn Fn(&SeenRequest) -> VendorReply + Send + Sync;

struct World {
    script: Mutex<Arc<Script>>,
    seen: Mutex<Vec<SeenRequest>>,
    connections: Mutex<usize>,
    reachable: Mutex<bool>,
    open: Mutex<(usize, usize)>,
}

/// The vendor.
#[derive(Clone)]
pub(crate) struct TestVendor(Arc<World>);

impl TestVendor {
    pub(crate) fn new(
        script: impl Fn(&SeenRequest) -> VendorReply + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(World {
            script: Mutex::new(Arc::new(script)),
            seen: Mutex::default(),
            connections: Mutex::new(0),
            reachable: Mutex::new(true),
            open: Mutex::default(),
        }))
    }

    /// Answers with these in turn. The last one is repeated.
    pub(crate) fn replies(replies: impl IntoIterator<Item = VendorReply>) -> Self {
        let left: Mutex<VecDeque<VendorReply>> = Mutex::new(replies.into_iter().collect());
        Self::new(move |_| {
            let mut left = left.lock();
            match left.len() {
                1 => left[0].clone(),
                _ => left.pop_front().unwrap(),
            }
        })
    }

    pub(crate) fn now_does(
        &self,
        script: impl Fn(&SeenRequest) -> VendorReply + Send + Sync + 'static,
    ) {
        *self.0.script.lock() = Arc::new(script);
    }

    pub(crate) fn set_reachable(&self, reachable: bool) {
        *self.0.reachable.lock() = reachable;
    }

    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        self.0.seen.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.seen.lock().len()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.0.connections.lock()
    }

    /// Returns the maximum of requests that were in flight at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.0.open.lock().1
    }

    pub(crate) fn connector(&self) -> InMemory {
        let world = Arc::clone(&self.0);
        InMemory::fallible(move || {
            if !*world.reachable.lock() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            *world.connections.lock() += 1;
            tokio::spawn(serve(Arc::clone(&world), theirs));
            Ok(ours)
        })
    }
}

async fn serve(world: Arc<World>, mut pipe: DuplexStream) {
    let mut nth = 0;
    while let Some((head, body)) = request(&mut pipe).await {
        nth += 1;
        let seen = SeenRequest { head, body, nth };
        world.seen.lock().push(seen.clone());
        {
            let mut open = world.open.lock();
            open.0 += 1;
            open.1 = open.1.max(open.0);
        }
        let script = Arc::clone(&world.script.lock());
        let mut reply = script(&seen);
        while let VendorReply::After(time, inner) = reply {
            sleep(time).await;
            reply = *inner;
        }
        let keep = match reply {
            VendorReply::Bytes(bytes) => pipe.write_all(&bytes).await.is_ok(),
            VendorReply::Last(bytes) => {
                let _ = pipe.write_all(&bytes).await;
                false
            }
            VendorReply::LastIn(bytes, time) => {
                let _ = pipe.write_all(&bytes).await;
                sleep(time).await;
                false
            }
            VendorReply::Stall(bytes) => {
                let _ = pipe.write_all(&bytes).await;
                gone(&mut pipe).await
            }
            VendorReply::Hang => gone(&mut pipe).await,
            VendorReply::After(..) => false,
        };
        world.open.lock().0 -= 1;
        if !keep {
            return;
        }
    }
}

/// Waits until the other side hangs up.
async fn gone(pipe: &mut DuplexStream) -> bool {
    let mut byte = [0];
    let more = pipe.read(&mut byte).await;
    assert!(!matches!(more, Ok(1)), "bytes on a hanging connection");
    false
}

async fn request(pipe: &mut DuplexStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(pipe.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    pipe.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// A gateway's outbound side against a test vendor.
pub(crate) struct Rig {
    pub vendor: TestVendor,
    pub options: VendorOptions,
    pub ring: VendorKeyring,
    pub gates: Gates,
    pub metrics: Arc<Metrics>,
    pub service: VendorService,
}

pub(crate) fn key(text: &str) -> VendorKey {
    VendorKey::new(Secret::parse(text).unwrap())
}

pub(crate) fn options(vendor: Vendor) -> VendorOptions {
    let (_, path) = ROWS.get(vendor).base;
    let base = BaseUrl::parse(&format!("http://127.0.0.1:7070{path}/"));
    let account = AccountId::parse("001H|x").unwrap();
    let mut options = VendorOptions::new(vendor, base.unwrap(), account);
    options.requests_per_minute = 60_000;
    options
}

pub(crate) fn rig(vendor: TestVendor, options: VendorOptions, fallback: Option<&str>) -> Rig {
    let ring: VendorKeyring = Arc::new(ArcSwap::from_pointee(VendorKeys {
        primary: key(CANARY),
        fallback: fallback.map(key),
    }));
    let (clock, metrics) = (Clock::system(), Metrics::new().unwrap());
    let gates = options.gates(Arc::clone(&ring), &clock, &metrics);
    let service = outbound(&options, &gates, &clock, &metrics, vendor.connector());
    Rig {
        vendor,
        options,
        ring,
        gates,
        metrics,
        service,
    }
}

pub(crate) fn spend_of(lane: Lane, caller: &str, wait: Duration) -> Spend {
    Spend {
        lane,
        deadline: Clock::system().now() + wait,
        wanted_until: Clock::system().now() + wait,
        payer: Payer::caller(caller.into(), None),
        within: None,
    }
}

/// Returns interactive terms with a deadline in half a minute.
pub(crate) fn spend() -> Spend {
    spend_of(Lane::Interactive, "dash", Duration::from_secs(30))
}
