//! Tests of slow and greedy peers, and of more requests than may be in flight.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};

use super::kit::*;
use msp_gateway::clock::{Duration, Instant};
use msp_gateway::exchange::AnswerBody;
use msp_gateway::server::{Ending, ServerTransport};

const SECOND: Duration = Duration::from_secs(1);

/// Returns how long the connection lasts.
async fn lives(peer: Served) -> Duration {
    let start = Instant::now();
    peer.task.await.unwrap();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn slow_heads_end_in_time() {
    let front = Front::new();
    // Nothing at all, half a head, and a head that arrives byte by byte.
    let took = lives(front.connect()).await;
    assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
    let mut peer = front.connect();
    peer.send("GET /msp").await;
    let took = lives(peer).await;
    assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
    let mut peer = front.connect();
    let start = Instant::now();
    let mut ended = false;
    for byte in get("/msp/customers", KEY).as_bytes().iter().take(30) {
        peer.send([*byte]).await;
        ended = msp_gateway::clock::timeout(SECOND, &mut peer.task)
            .await
            .is_ok();
        if ended {
            break;
        }
    }
    assert!(ended && start.elapsed() < 11 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_live_longer_than_slow_heads() {
    let front = Front::new();
    let mut peer = front.connect();
    for wait in [0, 9, 30, 59] {
        msp_gateway::clock::sleep(wait * SECOND).await;
        peer.send(get("/msp/customers", KEY)).await;
        assert_eq!(peer.reply().await.unwrap().status, 200, "after {wait} s");
    }
    let start = Instant::now();
    assert_eq!(peer.rest().await, "");
    let idle = start.elapsed();
    assert!((60 * SECOND..61 * SECOND).contains(&idle), "{idle:?}");
    // The head's time starts with its first byte, not when the connection becomes idle.
    let mut peer = front.connect();
    peer.send(get("/msp/customers", KEY)).await;
    peer.reply().await.unwrap();
    msp_gateway::clock::sleep(50 * SECOND).await;
    peer.send("GET /msp").await;
    msp_gateway::clock::sleep(9 * SECOND).await;
    peer.send(format!("/customers HTTP/1.1\r\nhost: x\r\n{KEY}\r\n"))
        .await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
}

/// A connection on which bytes may have arrived that the runtime has not noticed.
struct Late {
    io: DuplexStream,
    arrived: Arc<AtomicBool>,
}

impl ServerTransport for Late {
    fn has_arrived(&self) -> bool {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Late {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_arrived_finds_its_connection_open() {
    let front = Front::new();
    let (near, io) = duplex(64 * 1024);
    let arrived = Arc::new(AtomicBool::new(false));
    let late = Late {
        io,
        arrived: arrived.clone(),
    };
    let mut peer = Served {
        peer: Peer::new(near, Arc::default()),
        task: tokio::spawn(front.connections.clone().serve(late, None)),
    };
    peer.send(get("/msp/customers", KEY)).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    // The next request arrives just before the idle time is over, and is noticed just after it.
    arrived.store(true, Ordering::Relaxed);
    msp_gateway::clock::sleep(60 * SECOND + Duration::from_millis(50)).await;
    peer.send(get("/msp/customers", KEY)).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    // A connection without arrived bytes is closed.
    arrived.store(false, Ordering::Relaxed);
    let start = Instant::now();
    assert_eq!(peer.rest().await, "");
    let idle = start.elapsed();
    assert!((60 * SECOND..61 * SECOND).contains(&idle), "{idle:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_take_no_place_from_complete_requests() {
    let front = Front::new();
    let mut slow = Vec::new();
    for _ in 0..4 * IN_FLIGHT_MAX {
        let mut peer = front.connect();
        let head = post("/v2/cases/msp/search", KEY, "{}");
        peer.send(&head[..head.len() - 1]).await;
        slow.push(peer);
    }
    msp_gateway::clock::sleep(SECOND).await;
    assert_eq!(front.ask(get("/msp/customers", KEY)).await.status, 200);
    // Each of them is answered once it is complete.
    for peer in &mut slow {
        peer.send("}").await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_told_408() {
    let front = Front::new();
    let start = Instant::now();
    let mut peer = front.connect();
    peer.send(format!(
        "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{KEY}content-length: 20\r\n\r\n{{"
    ))
    .await;
    let reply = peer.reply().await.unwrap();
    assert_eq!(reply.problem(), (408, "request_timeout".into()));
    assert_eq!(reply.header("connection"), "close");
    assert_eq!(start.elapsed(), 15 * SECOND);
    assert_eq!(front.in_flight.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_however_they_come() {
    let front = Front::new();
    let limit = 64 * 1024;
    let search = "/v2/cases/msp/search";
    assert_eq!(
        front
            .ask(post(search, KEY, &"x".repeat(limit)))
            .await
            .status,
        200
    );
    assert_eq!(
        front
            .ask(post(search, KEY, &"x".repeat(limit + 1)))
            .await
            .status,
        413
    );
    let chunks = format!("{:x}\r\n{}\r\n", 1000, "x".repeat(1000)).repeat(66);
    let chunked = format!(
        "POST {search} HTTP/1.1\r\nhost: x\r\n{KEY}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    );
    assert_eq!(front.ask(&chunked).await.status, 413);
    // A body that is announced and never sent: the answer does not wait for it.
    let promised =
        format!("POST {search} HTTP/1.1\r\nhost: x\r\n{KEY}content-length: 1000000000\r\n\r\n");
    let start = Instant::now();
    assert_eq!(front.ask(&promised).await.status, 413);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_dropped() {
    let body = Bytes::from(vec![b'x'; 1024 * 1024]);
    let front = Front::with(move |_| {
        let body = body.clone();
        Box::pin(async move { Ok(http::Response::new(AnswerBody::full(body))) })
    });
    let mut peer = connect_through(&front.connections, 4096);
    peer.send(get("/msp/customers", KEY)).await;
    let start = Instant::now();
    (&mut peer.task).await.unwrap();
    let took = start.elapsed();
    assert!((15 * SECOND..16 * SECOND).contains(&took), "{took:?}");
    // A slow reader that takes something is not cut.
    let mut peer = connect_through(&front.connections, 64 * 1024);
    peer.send(get("/msp/customers", KEY)).await;
    let mut got = 0;
    let mut piece = vec![0; 64 * 1024];
    while got < 1024 * 1024 {
        msp_gateway::clock::sleep(10 * SECOND).await;
        let bytes = peer.io.read(&mut piece).await.unwrap();
        assert!(bytes > 0, "cut after {got} bytes");
        got += bytes;
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_may_be_in_flight_are_shed() {
    let front = Front::with(|_| Box::pin(std::future::pending()));
    let mut waiting = Vec::new();
    for _ in 0..IN_FLIGHT_MAX {
        let mut peer = front.connect();
        peer.send(get("/msp/customers", KEY)).await;
        waiting.push(peer);
    }
    while front.in_flight.now() < IN_FLIGHT_MAX {
        tokio::task::yield_now().await;
    }
    let reply = front.ask(get("/msp/customers", KEY)).await;
    assert_eq!(reply.problem(), (503, "overloaded".into()));
    assert_eq!(reply.header("retry-after"), "1");
    // Callers that leave free their places, at the latest when their answers were due.
    drop(waiting.pop());
    let start = Instant::now();
    while front.in_flight.now() == IN_FLIGHT_MAX {
        msp_gateway::clock::sleep(SECOND / 10).await;
    }
    assert!(start.elapsed() <= REQUEST_TIMEOUT + SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_permit_lasts_until_the_last_byte() {
    use msp_gateway::reads::export::ExportPiece;
    let (to, from) = tokio::sync::mpsc::channel(1);
    let from = parking_lot::Mutex::new(Some(from));
    let front = Front::with(move |_| {
        let from = from.lock().take().unwrap();
        Box::pin(async move { Ok(http::Response::new(AnswerBody::rows(from, false, None))) })
    });
    let mut peer = front.connect();
    peer.send(get("/v1/cases/export", KEY)).await;
    assert_eq!(peer.reply_head().await.unwrap().0, 200);
    assert_eq!(front.in_flight.now(), 1);
    to.send(ExportPiece::Lines("{}\n".into())).await.unwrap();
    to.send(ExportPiece::End { rows: 1 }).await.unwrap();
    drop(to);
    while front.in_flight.now() > 0 {
        tokio::task::yield_now().await;
    }
    drop(peer.peer);
    peer.task.await.unwrap();
}

/// Many clients send their whole body before they read, and take a reset for the answer.
#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_a_caller_who_is_still_sending() {
    let front = Front::new();
    let body = vec![b' '; 1 << 20];
    let head = |line: &str, headers: &str| {
        format!(
            "{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        )
    };
    let search = "POST /v2/cases/msp/search";
    let coded = format!("{KEY}content-encoding: gzip\r\n");
    let typed = format!("{KEY}content-type: text/plain\r\n");
    let refused = [
        (head(search, ""), 401),
        (head("POST /nowhere", KEY), 404),
        (head("PUT /msp/customers", KEY), 405),
        (head(search, KEY), 413),
        (head("GET /msp/customers", KEY), 413),
        (head(search, &coded), 415),
        (head(search, &typed), 415),
        (head(search, "x_y: 1\r\n"), 400),
    ];
    for (head, status) in &refused {
        let mut peer = front.connect();
        peer.io.write_all(head.as_bytes()).await.unwrap();
        // In pieces, slowly: two seconds in all.
        for piece in body.chunks(64 * 1024) {
            msp_gateway::clock::sleep(SECOND / 8).await;
            let sent = peer.io.write_all(piece).await;
            sent.unwrap_or_else(|why| panic!("{status}: {why}"));
        }
        let reply = peer.reply().await.unwrap();
        assert_eq!(reply.status, *status, "{head}");
        assert_eq!(reply.header("connection"), "close", "{head}");
        assert_eq!(peer.rest().await, "");
        drop(peer.peer);
        assert_eq!(peer.task.await.unwrap(), Ending::Done);
    }
    // Reading ends at a limit, for a peer that sends slowly and for one that sends much.
    let head = head(search, "");
    let start = Instant::now();
    let mut peer = front.connect();
    peer.send(&head).await;
    while peer.io.write_all(b" ").await.is_ok() {
        msp_gateway::clock::sleep(SECOND / 2).await;
    }
    assert!(start.elapsed() < 7 * SECOND, "{:?}", start.elapsed());
    let mut peer = front.connect();
    peer.send(&head).await;
    let mut poured = 0;
    while poured < 64 << 20 && peer.io.write_all(&body).await.is_ok() {
        poured += body.len();
    }
    assert!((8 << 20..16 << 20).contains(&poured), "{poured}");
}
