//! Tests of HTTP/2: the same answers, and the same time limits.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::kit::*;
use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::exchange::{AnswerBody, PeerIdentity};
use msp_gateway::server::DrainPhase;
use msp_gateway::server::{Ending, serve_http2};

const SECOND: Duration = Duration::from_secs(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A caller on one connection.
struct Caller {
    requests: SendRequest<Bytes>,
    /// How the connection ended for the caller.
    heard: JoinHandle<Result<(), h2::Error>>,
    /// How it ended for the server.
    task: JoinHandle<Ending>,
}

fn serve(front: &Front) -> (DuplexStream, JoinHandle<Ending>) {
    let (near, far) = duplex(256 * 1024);
    let task = tokio::spawn(serve_http2(
        front.connections.clone(),
        far,
        PeerIdentity::default(),
    ));
    (near, task)
}

impl Caller {
    async fn connect(front: &Front) -> Self {
        Self::with(front, h2::client::Builder::new()).await
    }

    async fn with(front: &Front, how: h2::client::Builder) -> Self {
        let (near, task) = serve(front);
        let (requests, connection) = how.handshake(near).await.unwrap();
        Self {
            requests,
            heard: tokio::spawn(connection),
            task,
        }
    }

    async fn begin(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        self.requests = self.requests.clone().ready().await.unwrap();
        self.requests.send_request(request, ends).unwrap()
    }

    async fn ask(&mut self, request: Request<()>) -> (Response<()>, Bytes) {
        let (answer, _) = self.begin(request, true).await;
        whole(answer).await.unwrap()
    }
}

async fn whole(answer: ResponseFuture) -> Result<(Response<()>, Bytes), h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((Response::from_parts(head, ()), bytes.into()))
}

fn request(method: &str, path: &str) -> Request<()> {
    let builder = Request::builder().method(method);
    let builder = builder.uri(format!("https://x{path}"));
    builder.header("x-api-key", "k-all").body(()).unwrap()
}

fn code(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["code"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn answers_are_those_of_http_1_without_what_belongs_to_it() {
    let front = Front::new();
    let mut caller = Caller::connect(&front).await;
    let (answer, body) = caller.ask(request("GET", "/msp/customers")).await;
    assert_eq!(
        (answer.status(), &body[..]),
        (http::StatusCode::OK, &b"{}"[..])
    );
    assert_eq!(answer.headers()["content-length"], "2");
    let (answer, body) = caller.ask(request("HEAD", "/msp/customers")).await;
    assert_eq!((answer.status().as_u16(), body.len()), (200, 0));
    assert_eq!(answer.headers()["content-length"], "2");
    // A request that would close an HTTP/1.1 connection ends only its own stream.
    let mut other = request("GET", "/msp/customers");
    other.headers_mut().insert("host", "y".parse().unwrap());
    let (answer, body) = caller.ask(other).await;
    assert_eq!(
        (answer.status().as_u16(), &*code(&body)),
        (400, "malformed_request")
    );
    assert!(!answer.headers().contains_key("connection"));
    let long = request("GET", &format!("/{}", "x".repeat(5000)));
    let (answer, body) = caller.ask(long).await;
    assert_eq!(
        (answer.status().as_u16(), &*code(&body)),
        (414, "uri_too_long")
    );
    let mut big = request("GET", "/msp/customers");
    big.headers_mut()
        .insert("x", "x".repeat(17_000).parse().unwrap());
    let (answer, body) = caller.ask(big).await;
    assert_eq!(
        (answer.status().as_u16(), &*code(&body)),
        (431, "headers_too_large")
    );
    // Beyond the limit of what is kept, the answer is bare.
    let mut bigger = request("GET", "/msp/customers");
    bigger
        .headers_mut()
        .insert("x", "x".repeat(30_000).parse().unwrap());
    let (answer, body) = caller.ask(bigger).await;
    assert_eq!((answer.status().as_u16(), body.len()), (431, 0));
    let (answer, _) = caller.ask(request("CONNECT", "")).await;
    assert_eq!(answer.status(), 400);
    // The server does not wait for a body that is too large.
    let (answer, mut sending) = caller
        .begin(request("POST", "/v2/cases/msp/search"), false)
        .await;
    sending.reserve_capacity(70_000);
    sending.send_data(vec![b' '; 70_000].into(), false).unwrap();
    let (answer, body) = whole(answer).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &*code(&body)),
        (413, "body_too_large")
    );
    let (answer, _) = caller.ask(request("GET", "/msp/customers")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(front.in_flight.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn long_answers_come_whole() {
    let text: Bytes = (0..50_000_u32)
        .flat_map(u32::to_le_bytes)
        .collect::<Vec<u8>>()
        .into();
    let kept = text.clone();
    let front = Front::with(move |_| {
        let answer = http::Response::new(AnswerBody::full(kept.clone()));
        Box::pin(async { Ok(answer) })
    });
    let mut caller = Caller::connect(&front).await;
    let (answer, body) = caller.ask(request("GET", "/msp/customers")).await;
    assert_eq!(answer.headers()["content-length"], "200000");
    assert!(body == text);
    let line = front.last_line();
    assert_eq!(
        (&line["bytes"], &line["whole"]),
        (&200_000.into(), &true.into())
    );
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_told_to_go_whatever_they_ping() {
    let front = Front::new();
    let (near, task) = serve(&front);
    let (mut requests, mut connection) = h2::client::handshake(near).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let heard = tokio::spawn(connection);
    let pinging = tokio::spawn(async move {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            sleep(3 * SECOND).await;
        }
    });
    sleep(30 * SECOND).await;
    requests = requests.ready().await.unwrap();
    let (answer, _) = requests
        .send_request(request("GET", "/msp/customers"), true)
        .unwrap();
    whole(answer).await.unwrap();
    let start = Instant::now();
    assert_eq!(task.await.unwrap(), Ending::Done);
    let idle = start.elapsed();
    assert!((60 * SECOND..61 * SECOND).contains(&idle), "{idle:?}");
    assert!(heard.await.unwrap().is_ok(), "told in order");
    pinging.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_hear_is_cut() {
    let front = Front::new();
    let (mut near, task) = serve(&front);
    near.write_all(PREFACE).await.unwrap();
    near.write_all(NO_SETTINGS).await.unwrap();
    let start = Instant::now();
    // The peer answers no ping. It gets one after twenty seconds, GOAWAY ten seconds later,
    // and reading goes on for another second.
    task.await.unwrap();
    let took = start.elapsed();
    assert!((30 * SECOND..32 * SECOND).contains(&took), "{took:?}");
    let mut bytes = Vec::new();
    near.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.windows(5).any(|w| w[3] == 7), "GOAWAY");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_after_the_end_is_read_and_meets_no_reset() {
    let front = Front::new();
    let (mut near, task) = serve(&front);
    near.write_all(PREFACE).await.unwrap();
    near.write_all(NO_SETTINGS).await.unwrap();
    // A frame on a stream of the server's, which ends the connection at once.
    near.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 2, 0, 0, 0, 0])
        .await
        .unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert!(heard.windows(5).any(|w| w[3] == 7), "GOAWAY");
    for _ in 0..20 {
        near.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
            .await
            .expect("somebody reads it");
        sleep(SECOND / 40).await;
    }
    let start = Instant::now();
    drop(near);
    task.await.unwrap();
    assert!(start.elapsed() < SECOND / 40, "nothing is left to read");
}

#[tokio::test(start_paused = true)]
async fn slow_heads_end_in_time() {
    let front = Front::new();
    // HEADERS that are not the end of the head, and half a frame.
    let begun = [0, 0, 1, 1, 1, 0, 0, 0, 1, 0x82];
    let half = [0, 0, 50, 1, 5, 0, 0, 0, 1, 0x82];
    for bytes in [
        vec![],
        PREFACE[..10].to_vec(),
        [PREFACE, NO_SETTINGS, &begun].concat(),
        [PREFACE, NO_SETTINGS, &half].concat(),
    ] {
        let (mut near, task) = serve(&front);
        near.write_all(&bytes).await.unwrap();
        let start = Instant::now();
        assert_eq!(task.await.unwrap(), Ending::Slow);
        let took = start.elapsed();
        assert!((10 * SECOND..11 * SECOND).contains(&took), "{took:?}");
    }
    assert!(front.seen.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_nothing_loses_its_stream() {
    let text = Bytes::from(vec![b'x'; 100_000]);
    let front = Front::with(move |_| {
        let answer = http::Response::new(AnswerBody::full(text.clone()));
        Box::pin(async { Ok(answer) })
    });
    for window in [0, 1, 20_000] {
        let mut how = h2::client::Builder::new();
        how.initial_window_size(window);
        let mut caller = Caller::with(&front, how).await;
        let (one, _) = caller.begin(request("GET", "/msp/customers"), true).await;
        let (two, _) = caller.begin(request("GET", "/msp/customers"), true).await;
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        assert_eq!(front.in_flight.now(), 2);
        let start = Instant::now();
        for answer in [one, two] {
            let mut body = answer.into_body();
            let error = loop {
                // A reader that falls behind gets no extra time.
                match body.data().await.unwrap() {
                    Ok(data) => assert!(data.len() <= 20_000),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.reason(), Some(Reason::CANCEL));
        }
        let took = start.elapsed();
        assert!((15 * SECOND..16 * SECOND).contains(&took), "{took:?}");
        assert_eq!(front.in_flight.now(), 0, "the permits are back");
        // The connection has no stream now, and ends like an idle one.
        drop(caller.requests);
        caller.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_and_answers_have_their_time() {
    let front = Front::with(|call| {
        Box::pin(async move {
            if call.head.method == "GET" {
                std::future::pending::<()>().await;
            }
            Ok(ok("{}"))
        })
    });
    let mut caller = Caller::connect(&front).await;
    let start = Instant::now();
    let (answer, mut sending) = caller
        .begin(request("POST", "/v2/cases/msp/search"), false)
        .await;
    sending.send_data(Bytes::from_static(b"{"), false).unwrap();
    let (answer, body) = whole(answer).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &*code(&body)),
        (408, "request_timeout")
    );
    let took = start.elapsed();
    assert!((15 * SECOND..16 * SECOND).contains(&took), "{took:?}");
    let start = Instant::now();
    let (answer, _) = caller.ask(request("GET", "/msp/customers")).await;
    assert_eq!(answer.status(), 504);
    let took = start.elapsed();
    assert!((30 * SECOND..31 * SECOND).contains(&took), "{took:?}");
    // A caller that resets its stream ends that stream and no other.
    let (answer, mut sending) = caller.begin(request("GET", "/msp/customers"), true).await;
    sleep(SECOND).await;
    assert_eq!(front.in_flight.now(), 1);
    sending.send_reset(Reason::CANCEL);
    drop(answer);
    sleep(SECOND).await;
    assert_eq!(front.in_flight.now(), 0);
    assert_eq!(front.last_line()["status"], 499);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_ends_before_the_connection_does() {
    let (front, release) = Front::holding();
    let mut caller = Caller::connect(&front).await;
    let (answer, _) = caller.begin(request("GET", "/msp/customers"), true).await;
    sleep(SECOND).await;
    assert_eq!(front.seen.lock().len(), 1);
    front.drain.begin();
    front.drain.advance(DrainPhase::Closing);
    sleep(5 * SECOND).await;
    assert!(!caller.task.is_finished());
    // New requests must go elsewhere.
    assert!(caller.requests.clone().ready().await.is_err());
    release.add_permits(1);
    let (answer, body) = whole(answer).await.unwrap();
    assert_eq!((answer.status().as_u16(), &body[..]), (200, &b"{}"[..]));
    assert!(!answer.headers().contains_key("connection"));
    assert_eq!(caller.task.await.unwrap(), Ending::Done);
    assert!(caller.heard.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_grace_cuts() {
    let front = Front::with(|_| Box::pin(std::future::pending()));
    let mut caller = Caller::connect(&front).await;
    let (answer, _) = caller.begin(request("GET", "/msp/customers"), true).await;
    sleep(SECOND).await;
    front.drain.cut();
    assert_eq!(caller.task.await.unwrap(), Ending::Cut);
    assert!(answer.await.is_err());
    sleep(SECOND).await;
    assert_eq!(front.in_flight.now(), 0);
    assert_eq!(front.last_line()["status"], 499);
}

#[tokio::test(start_paused = true)]
async fn in_the_clear_there_is_no_http_2() {
    let front = Front::new();
    let mut peer = front.connect();
    peer.send(PREFACE).await;
    assert_eq!(peer.reply().await.map(|reply| reply.status), None);
    assert_eq!(peer.rest().await, "");
}
