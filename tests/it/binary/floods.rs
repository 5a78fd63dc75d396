//! Frames without end over HTTP/2: each kind of flood ends its connection or costs nothing that
//! lasts, and nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Request;
use msp_gateway::clock::{Duration, Instant, timeout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::encrypted::{Encrypted, Target};
use crate::authority::NAME;
use crate::frames::*;
use crate::process::{PATIENCE, key};

/// Of each kind; the long run takes ten times as many.
const FRAMES: usize = 10_000;
/// Frames written at once.
const BATCH: usize = 500;
/// More memory than before, at the most.
const GROWTH_KIB_MAX: u64 = 32 * 1024;
/// Calls that the settings of these tests admit at once.
const CONCURRENCY: u64 = 32;

fn frames_wanted() -> usize {
    let wanted = std::env::var("MSP_FLOOD_FRAMES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(FRAMES)
}

/// A connection that begins as HTTP/2 does.
async fn opened(target: &Target) -> TlsStream<TcpStream> {
    let mut stream = target.connect().await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream
}

fn get(path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", path),
        ("x-api-key", &key("alice")),
    ])
}

fn post() -> Vec<u8> {
    block(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", "/v2/cases/msp/search"),
        ("x-api-key", &key("alice")),
    ])
}

/// A search that nobody else asks: the vendor would have to be called.
fn cold(n: usize) -> Vec<u8> {
    get(&format!(
        "/v1/cases/export?customer_id=org_{}&start=2026-{:02}-{:02}",
        n % 12 + 1,
        n / 336 % 9 + 1,
        n / 12 % 28 + 1
    ))
}

/// A kind of flood: what comes first on each connection, and then its `n`th frame or pair of them.
struct Flood {
    name: &'static str,
    first: fn() -> Vec<u8>,
    then: fn(usize) -> Vec<u8>,
    /// Frames that `then` makes.
    frames: usize,
    /// Whether the connection must end by itself.
    ends: bool,
}

fn id(n: usize) -> u32 {
    u32::try_from(2 * n + 1).unwrap()
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

fn floods() -> Vec<Flood> {
    let flood = |name, first, then, frames| Flood {
        name,
        first,
        then,
        frames,
        ends: true,
    };
    vec![
        flood(
            "rapid reset",
            settings,
            |n| {
                let mut bytes = frame(HEADERS, END_STREAM | END_HEADERS, id(n), &cold(n));
                bytes.extend(frame(RST_STREAM, 0, id(n), &8_u32.to_be_bytes()));
                bytes
            },
            2,
        ),
        // The peer makes us reset: a window that grows by nothing.
        flood(
            "made you reset",
            settings,
            |n| {
                let mut bytes = frame(HEADERS, END_STREAM | END_HEADERS, id(n), &cold(n));
                bytes.extend(frame(WINDOW_UPDATE, 0, id(n), &[0; 4]));
                bytes
            },
            2,
        ),
        flood(
            "continuation",
            || {
                let mut bytes = settings();
                bytes.extend(frame(HEADERS, END_STREAM, 1, &get("/msp/customers")));
                bytes
            },
            |_| frame(CONTINUATION, 0, 1, &[]),
            1,
        ),
        flood(
            "continuation with headers",
            || {
                let mut bytes = settings();
                bytes.extend(frame(HEADERS, END_STREAM, 1, &get("/msp/customers")));
                bytes
            },
            |_| frame(CONTINUATION, 0, 1, &block(&[("x", "y")])),
            1,
        ),
        flood(
            "empty data",
            || {
                let mut bytes = settings();
                bytes.extend(frame(HEADERS, END_HEADERS, 1, &post()));
                bytes
            },
            |_| frame(DATA, 0, 1, &[]),
            1,
        ),
        flood("settings", settings, |_| settings(), 1),
        flood("ping", settings, |n| frame(PING, 0, 0, &n.to_be_bytes()), 1),
        flood(
            "priority",
            settings,
            |n| frame(PRIORITY, 0, id(n), &[0, 0, 0, 0, 1]),
            1,
        ),
        flood(
            "window update",
            settings,
            |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            1,
        ),
        flood("unknown frames", settings, |_| frame(0xfe, 0, 0, &[0]), 1),
        // Beyond the streams that may be open.
        flood(
            "streams without end",
            settings,
            |n| frame(HEADERS, END_HEADERS, id(n), &post()),
            1,
        ),
    ]
}

/// What a flood came to.
#[derive(Debug, Default)]
struct Came {
    frames: usize,
    connections: usize,
    /// Connections that we closed, and those that said GOAWAY first.
    closed: usize,
    goaways: usize,
}

/// Sends on one connection until `wanted` frames are sent or the connection ends.
async fn one_connection(target: &Target, flood: &Flood, wanted: usize, came: &mut Came) {
    let stream = opened(target).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ended = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let ended = ended.clone();
        async move {
            let mut bytes = Vec::new();
            let _ = reader.read_to_end(&mut bytes).await;
            ended.store(true, Ordering::Relaxed);
            kinds(&bytes).contains(&GOAWAY)
        }
    });
    came.connections += 1;
    let mut sent = 0;
    let mut going = writer.write_all(&(flood.first)()).await.is_ok();
    while going && sent < wanted && !ended.load(Ordering::Relaxed) {
        let batch: Vec<u8> = (sent..sent + BATCH).flat_map(flood.then).collect();
        going = writer.write_all(&batch).await.is_ok() && writer.flush().await.is_ok();
        sent += BATCH;
    }
    came.frames += sent * flood.frames;
    if sent >= wanted {
        // Whatever is still on its way may end it yet.
        let _ = timeout(Duration::from_millis(500), async {
            while !ended.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    if ended.load(Ordering::Relaxed) || !going {
        came.closed += 1;
    }
    // What is left of it goes now, not when it has been silent for long enough.
    let _ = writer.shutdown().await;
    match timeout(PATIENCE, reading).await {
        Ok(Ok(said)) => came.goaways += usize::from(said),
        _ => panic!("{}: the connection does not end", flood.name),
    }
}

/// Somebody else on the same listener, who goes on being answered.
struct Neighbour {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(usize, Duration)>,
}

impl Neighbour {
    async fn start(target: Target) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let stream = target.connect().await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let task = tokio::spawn(async move {
            let (mut answered, mut slowest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let request = Request::builder()
                    .uri(format!("https://{NAME}/msp/customers"))
                    .header("x-api-key", key("alice"))
                    .body(())
                    .unwrap();
                let start = Instant::now();
                requests = requests.ready().await.unwrap();
                let (answer, _) = requests.send_request(request, true).unwrap();
                let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
                assert_eq!(answer.status(), 200);
                let mut body = answer.into_body();
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                answered += 1;
                slowest = slowest.max(start.elapsed());
            }
            (answered, slowest)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_connections_and_nothing_else() {
    let flooded = Encrypted::start(&[]);
    let (world, target) = (&flooded.world, &flooded.target);
    // Warm: caches, buffers of the runtime, the allocator's arenas.
    let warm = Neighbour::start(target.clone()).await;
    for flood in floods() {
        one_connection(target, &flood, BATCH, &mut Came::default()).await;
    }
    warm.stop().await;
    flooded.until_quiet().await;
    let before = flooded.resident_kib();
    for flood in floods() {
        let neighbour = Neighbour::start(target.clone()).await;
        let start = Instant::now();
        let mut came = Came::default();
        while came.frames < frames_wanted() {
            let wanted = (frames_wanted() - came.frames) / flood.frames;
            one_connection(target, &flood, wanted, &mut came).await;
        }
        let took = start.elapsed();
        let (answered, slowest) = neighbour.stop().await;
        flooded.until_quiet().await;
        let after = flooded.resident_kib();
        println!(
            "{:26} {came:?} in {took:?}; a neighbour got {answered} answers, the slowest in {slowest:?}; {} KiB more",
            flood.name,
            after.saturating_sub(before),
        );
        assert!(answered > 0, "{}: nobody else was answered", flood.name);
        // One may be left when enough is sent.
        let all_closed = came.closed + 1 >= came.connections && came.closed > 0;
        assert!(all_closed || !flood.ends, "{}: {came:?}", flood.name);
        let grown = after.saturating_sub(before);
        assert!(grown <= GROWTH_KIB_MAX, "{}: {grown} KiB", flood.name);
    }
    let peak = world.vendors.counts().await["vendors"]["wiv"]["in_flight_peak"].clone();
    assert!(peak.as_u64().unwrap() <= CONCURRENCY, "{peak}");
    for printed in [world.gateway.stdout(), world.gateway.stderr()] {
        assert!(!printed.contains("mspgw_"), "a caller key in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_block_that_unfolds_is_not_unfolded() {
    let flooded = Encrypted::start(&[]);
    let target = &flooded.target;
    // One header of 4,000 bytes goes into the table; then each byte of a frame stands for it.
    let mut bomb = vec![0x40, 1, b'x', 0x7f];
    bomb.extend([0xa1, 0x1e]); // 127 + 3,873
    bomb.extend(vec![b'y'; 4_000]);
    bomb.extend(vec![0xbe; 12_000]);
    let before = flooded.resident_kib();
    let neighbour = Neighbour::start(target.clone()).await;
    for _ in 0..50 {
        let mut stream = opened(target).await;
        let mut bytes = settings();
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(kinds(&answer).contains(&GOAWAY), "{:?}", kinds(&answer));
    }
    let (answered, slowest) = neighbour.stop().await;
    let grown = flooded.resident_kib().saturating_sub(before);
    println!(
        "50 x 48 MB unfolded: {grown} KiB more; a neighbour got {answered} answers, the slowest in {slowest:?}"
    );
    assert!(grown <= GROWTH_KIB_MAX, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_stay_shut_are_not_waited_for() {
    const CONNECTIONS: usize = 8;
    const STREAMS: usize = 100;
    let flooded = Encrypted::start(&[
        ("MSP_GATEWAY__LIMITS__WRITE_STALL_TIMEOUT", "2s"),
        ("MSP_GATEWAY__LIMITS__IDLE_TIMEOUT", "1s"),
        ("MSP_GATEWAY__LIMITS__HEADER_TIMEOUT", "3s"),
    ]);
    let target = &flooded.target;
    let neighbour = Neighbour::start(target.clone()).await;
    let before = flooded.resident_kib();
    let mut ends = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = opened(target).await;
        // SETTINGS_INITIAL_WINDOW_SIZE = 0
        let mut bytes = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        for n in 0..STREAMS {
            let block = get("/msp/customers");
            bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, id(n), &block));
        }
        stream.write_all(&bytes).await.unwrap();
        ends.push(tokio::spawn(async move {
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
                .await
                .expect("an end");
            kinds(&answer)
        }));
    }
    let start = Instant::now();
    for end in ends {
        let kinds = end.await.unwrap();
        // Each was answered, held for lack of a window, and released.
        let answers = kinds.iter().filter(|kind| **kind == HEADERS).count();
        assert_eq!(answers, STREAMS);
        let resets = kinds.iter().filter(|kind| **kind == RST_STREAM).count();
        assert_eq!(resets, STREAMS);
    }
    let took = start.elapsed();
    let (answered, slowest) = neighbour.stop().await;
    flooded.until_quiet().await;
    let grown = flooded.resident_kib().saturating_sub(before);
    println!(
        "{} streams held: connections gone after {took:?}; {grown} KiB more; a neighbour got {answered} answers, the slowest in {slowest:?}",
        CONNECTIONS * STREAMS
    );
    assert!(grown <= GROWTH_KIB_MAX, "{grown} KiB");
}
