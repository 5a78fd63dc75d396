//! Tests of the order of refusals, and of their words.

use super::kit::*;

const SEARCH: &str = "/v2/cases/msp/search";

#[tokio::test(start_paused = true)]
async fn refusals_come_in_the_contracts_order() {
    let front = Front::new();
    let big = "x".repeat(70_000);
    let gzip = "content-encoding: gzip\r\n";
    let cases = [
        // Framing comes before an unknown path.
        (get("/nope", "x_y: 1\r\n"), 400, "malformed_request"),
        // Path and method come before the key.
        (get("/nope", ""), 404, "not_found"),
        (get(SEARCH, ""), 405, "method_not_allowed"),
        // The key comes before the body.
        (post(SEARCH, gzip, &big), 401, "authentication_required"),
        (
            post(SEARCH, &format!("{KEY}{gzip}"), &big),
            415,
            "unsupported_media_type",
        ),
        (post(SEARCH, KEY, &big), 413, "body_too_large"),
    ];
    for (request, status, code) in cases {
        let reply = front.ask(&request).await;
        assert_eq!(reply.problem(), (status, code.to_owned()));
    }
    assert!(front.seen.lock().is_empty());
    // The caller's own limit comes before the body.
    assert_eq!(front.ask(post(SEARCH, LIMITED, "{}")).await.status, 200);
    let reply = front
        .ask(post(SEARCH, &format!("{LIMITED}{gzip}"), &big))
        .await;
    assert_eq!(reply.problem(), (429, "caller_rate_limited".into()));
    assert_eq!(reply.header("retry-after"), "10");
    assert_eq!(reply.header("ratelimit"), "\"burst\";r=0;t=10");
}

#[tokio::test(start_paused = true)]
async fn what_everyone_may_read_needs_no_key() {
    let front = Front::new();
    let wrong = "x-api-key: k-nobody\r\n";
    for path in ["/healthz", "/docs", "/openapi.json"] {
        // A wrong key is ignored, because the answer does not depend on the caller.
        for headers in ["", wrong, KEY] {
            let reply = front.ask(get(path, headers)).await;
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.header("cache-status"), "", "{path}");
            assert!(!reply.header("x-request-id").is_empty(), "{path}");
        }
        // Framing and method come first, as everywhere.
        let reply = front.ask(post(path, "", "")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD"));
        let reply = front.ask(get(path, "x_y: 1\r\n")).await;
        assert_eq!(reply.problem(), (400, "malformed_request".into()));
        let mut peer = front.connect();
        peer.head_only = true;
        peer.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        let reply = peer.reply().await.unwrap();
        assert_eq!(reply.status, 200);
        assert_ne!(reply.header("content-length"), "0");
        // A body is skipped, and the bytes after it are read as the next request.
        let mut peer = front.connect();
        peer.send(format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}"
        ))
        .await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
        peer.send(get("/healthz", "")).await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
    }
    let reply = front.ask(get("/healthz", "")).await;
    assert_eq!(reply.body, b"{\"alive\":true}");
    // The requests that load balancers send by default.
    for check in [
        "OPTIONS / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let reply = front.ask(check).await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{check}");
    }
    assert!(front.seen.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn methods_are_told_and_head_has_no_body() {
    let front = Front::new();
    let reply = front.ask(post("/msp/customers", KEY, "")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD"));
    let mut peer = front.connect();
    for path in ["/msp/customers", "/nope"] {
        peer.head_only = true;
        peer.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n{KEY}\r\n"))
            .await;
        let reply = peer.reply().await.unwrap();
        assert_ne!(reply.header("content-length"), "0");
    }
    // Nothing of those bodies is read as the next request.
    peer.send(get("/msp/customers", KEY)).await;
    assert_eq!(peer.reply().await.unwrap().body, b"{}");
    let query = format!(
        "QUERY {SEARCH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n{KEY}\r\n{{}}"
    );
    assert_eq!(front.ask(query).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_query_needs_a_type_and_a_post_does_not() {
    let front = Front::new();
    let query = format!("QUERY {SEARCH} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n{KEY}\r\n{{}}");
    assert_eq!(
        front.ask(query).await.problem(),
        (400, "invalid_body".into())
    );
    assert_eq!(front.ask(post(SEARCH, KEY, "{}")).await.status, 200);
    let text = format!("{KEY}content-type: text/plain\r\n");
    assert_eq!(front.ask(post(SEARCH, &text, "{}")).await.status, 415);
}

#[tokio::test(start_paused = true)]
async fn keys_are_found_in_either_header() {
    let front = Front::new();
    let status = async |headers: &str| front.ask(get("/msp/customers", headers)).await;
    assert_eq!(status("x-api-key: k-all\r\n").await.status, 200);
    assert_eq!(status(KEY).await.status, 200);
    for bad in [
        "",
        "x-api-key: k-nobody\r\n",
        "authorization: Basic k-all\r\n",
        "authorization: Bearer k-all\r\nx-api-key: k-op\r\n",
        "x-api-key: k-all\r\nx-api-key: k-all\r\n",
    ] {
        let reply = status(bad).await;
        assert_eq!(reply.problem(), (401, "authentication_required".into()));
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert_eq!(reply.json()["error"], "Authentication required");
    }
}

#[tokio::test(start_paused = true)]
async fn nables_paths_answer_as_nable_does() {
    let front = Front::new();
    let target = "/ws/rest/V1/PSA_API/InvoicesReady/-/202409";
    let reply = front.ask(post(target, "", "")).await;
    assert_eq!(reply.json()["message"], "Unauthorized");
    assert_eq!(reply.json()["http_status_code"], 401);
    // Clients without a body send whatever media type they use by default.
    let form = format!("{KEY}content-type: application/x-www-form-urlencoded\r\n");
    assert_eq!(front.ask(post(target, &form, "")).await.status, 200);
    assert_eq!(front.ask(post(target, &form, "a=b")).await.status, 415);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_operators_is_on_the_public_listener() {
    let front = Front::new();
    for path in ["/metrics", "/readyz", "/admin/status", "/admin/explain"] {
        assert_eq!(front.ask(get(path, KEY)).await.status, 404, "{path}");
    }
    assert_eq!(front.ask(post("/admin/purge", KEY, "{}")).await.status, 404);
}
