//! Tests of requests that two readers could read in two ways. Each is refused, and requests
//! pipelined behind it never run.

use super::kit::*;

const MARKED: &str =
    "GET /msp/customers?fields=marked HTTP/1.1\r\nhost: x\r\nx-api-key: k-all\r\n\r\n";

/// Returns heads of a POST. The body is `{}`.
fn suspicious() -> Vec<String> {
    let with = |headers: &str, body: &str| {
        format!("POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{KEY}{headers}\r\n{body}")
    };
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    let mut all = vec![];
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "identity",
        ",chunked",
        "xchunked",
        "chunked;a=b",
        "\u{b}chunked",
        "\"chunked\"",
    ] {
        all.push(with(&format!("transfer-encoding: {coding}\r\n"), chunked));
    }
    for length in [
        "+2",
        "-2",
        "0x2",
        "2,2",
        "2, 3",
        "",
        "2 2",
        "2.0",
        "9999999999999999999999",
    ] {
        all.push(with(&format!("content-length: {length}\r\n"), "{}"));
    }
    all.push(with("content-length: 2\r\ncontent-length: 3\r\n", "{}"));
    all.push(with(
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        chunked,
    ));
    all.push(with("transfer_encoding: chunked\r\n", chunked));
    all.push(with("host: y\r\ncontent-length: 2\r\n", "{}"));
    all.push(with("content-length : 2\r\n", "{}"));
    all.push(with(" content-length: 2\r\n", "{}"));
    all.push(with("x: 1\r\n folded\r\ncontent-length: 2\r\n", "{}"));
    all.push(with("x\u{e9}: 1\r\ncontent-length: 2\r\n", "{}"));
    all.push(with("nocolon\r\ncontent-length: 2\r\n", "{}"));
    all.push(with("x: a\u{0}b\r\ncontent-length: 2\r\n", "{}"));
    all.push(with("x: a\rb\r\ncontent-length: 2\r\n", "{}"));
    for body in [
        "0_2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2;\rx\r\n{}\r\n0\r\n\r\n",
        "\r\n{}\r\n0\r\n\r\n",
    ] {
        all.push(with("transfer-encoding: chunked\r\n", body));
    }
    let line = |line: &str, host: &str| format!("{line}\r\n{host}{KEY}content-length: 0\r\n\r\n");
    all.push(line(
        "GET http://evil/msp/customers HTTP/1.1",
        "host: x\r\n",
    ));
    all.push(line("GET /msp/customers HTTP/1.1", ""));
    all.push(line("CONNECT x:443 HTTP/1.1", "host: x\r\n"));
    all.push(line("GET /msp/customers HTTP/1.2", "host: x\r\n"));
    all.push(line("GET  /msp/customers HTTP/1.1", "host: x\r\n"));
    all.push(line("GET /msp/cust omers HTTP/1.1", "host: x\r\n"));
    all.push(format!(
        "POST /v2/cases/msp/search HTTP/1.0\r\nhost: x\r\n{KEY}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
    ));
    all.push(format!(
        "POST /v2/cases/msp/search HTTP/1.0\r\nhost: x\r\n{KEY}transfer-encoding: chunked\r\ncontent-length: 12\r\n\r\n{chunked}"
    ));
    all.push(format!(
        "POST /v2/cases/msp/search HTTP/1.0\r\nhost: x\r\n{KEY}transfer-encoding: chunked\r\n\r\n{chunked}"
    ));
    all
}

#[tokio::test(start_paused = true)]
async fn a_suspicious_request_ends_its_connection() {
    for request in suspicious() {
        let front = Front::new();
        let mut peer = front.connect();
        peer.send(format!("{request}{MARKED}")).await;
        let first = peer.reply().await;
        let rest = peer.rest().await;
        let status = first.map(|reply| reply.status);
        assert_eq!(status, Some(400), "{request:?}");
        assert_eq!(rest, "", "{request:?}");
        assert!(front.seen.lock().is_empty(), "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn both_lengths_at_once_serve_at_most_the_one_request() {
    // hyper drops the Content-Length and closes after the answer.
    for order in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let front = Front::new();
        let mut peer = front.connect();
        peer.send(format!(
            "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{KEY}{order}\r\n2\r\n{{}}\r\n0\r\n\r\n{MARKED}"
        ))
        .await;
        peer.rest().await;
        assert!(!front.has_seen("marked"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_looks_like_a_request_is_read_as_a_body() {
    let front = Front::new();
    let mut peer = front.connect();
    for _ in 0..1000 {
        peer.send(post("/v2/cases/msp/search", KEY, MARKED)).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
        // This also holds if no body is expected.
        peer.send(format!(
            "GET /msp/customers HTTP/1.1\r\nhost: x\r\n{KEY}content-length: {}\r\n\r\n{MARKED}",
            MARKED.len()
        ))
        .await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
    assert_eq!(front.seen.lock().len(), 2000);
    assert!(!front.has_seen("marked"));
}

#[tokio::test(start_paused = true)]
async fn good_requests_in_one_packet_are_answered_in_order() {
    let front = Front::new();
    let mut peer = front.connect();
    let chunked = format!(
        "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{KEY}transfer-encoding: chunked\r\n\r\n1;ext=1\r\n{{\r\n1\r\n}}\r\n0\r\nx-trailer: 1\r\n\r\n"
    );
    peer.send(format!("{chunked}{MARKED}{MARKED}")).await;
    for _ in 0..3 {
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
    assert_eq!(front.seen.lock().len(), 3);
    drop(peer.peer);
    peer.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sizes_of_heads_are_bounded() {
    let front = Front::new();
    let many: String = (0..65).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        (get(&format!("/{}", "x".repeat(5000)), KEY), 414),
        (get("/msp/customers", &many), 431),
        (
            get("/msp/customers", &format!("x: {}\r\n", "y".repeat(17_000))),
            431,
        ),
        (
            get("/msp/customers", &format!("x: {}\r\n", "y".repeat(30_000))),
            431,
        ),
        (
            get("/msp/customers", &format!("x: {}\r\n", "y".repeat(200_000))),
            431,
        ),
    ];
    for (request, status) in cases {
        let mut peer = front.connect();
        peer.send(format!("{request}{MARKED}")).await;
        assert_eq!(peer.reply().await.unwrap().status, status);
        assert_eq!(peer.rest().await, "");
    }
    assert!(front.seen.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_expectation_is_answered_once() {
    let front = Front::new();
    let expecting = |headers: &str| {
        format!(
            "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n{headers}\r\n"
        )
    };
    // Refused before the body: no 100, and the connection ends.
    let mut peer = front.connect();
    peer.send(expecting("")).await;
    assert_eq!(peer.reply().await.unwrap().status, 401);
    assert_eq!(peer.rest().await, "");
    // Accepted: 100, then the answer.
    let mut peer = front.connect();
    peer.send(expecting(KEY)).await;
    assert_eq!(peer.reply().await.unwrap().status, 100);
    peer.send("{}").await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_one_length_is_read_in_http_1_0_too() {
    let front = Front::new();
    let head = format!("POST /v2/cases/msp/search HTTP/1.0\r\n{KEY}content-length: 2\r\n");
    let mut peer = front.connect();
    peer.send(format!("{head}\r\n{{}}")).await;
    assert_eq!(peer.reply().await.unwrap().status, 200);
    assert_eq!(peer.rest().await, "");
    // The connection stays open if the request asks for that.
    let mut peer = front.connect();
    for _ in 0..3 {
        peer.send(format!("{head}connection: keep-alive\r\n\r\n{{}}"))
            .await;
        let reply = peer.reply().await.unwrap();
        assert_eq!(
            (reply.status, reply.header("connection")),
            (200, "keep-alive")
        );
    }
    assert_eq!(front.seen.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_ends_the_connection_says_so_and_nothing_else() {
    let refused = [
        "POST /v2/cases/msp/search HTTP/1.0\r\nx_y: 1\r\n".to_owned(),
        format!(
            "POST /v2/cases/msp/search HTTP/1.0\r\nx: {}\r\n",
            "y".repeat(17_000)
        ),
        format!("GET /{} HTTP/1.0\r\n", "x".repeat(5_000)),
        format!("POST /v2/cases/msp/search HTTP/1.0\r\n{KEY}content-length: 99999999\r\n"),
        "GET http://other/msp/customers HTTP/1.0\r\nhost: x\r\n".to_owned(),
    ];
    for request in refused {
        for asked in ["", "connection: keep-alive\r\n", "connection: close\r\n"] {
            let front = Front::new();
            let mut peer = front.connect();
            peer.send(format!("{request}{asked}\r\n")).await;
            let reply = peer.reply().await.unwrap();
            let said: Vec<_> = reply.headers.get_all("connection").iter().collect();
            assert!((400..500).contains(&reply.status), "{request}");
            assert_eq!(said, ["close"], "{request} {asked}");
        }
    }
}
