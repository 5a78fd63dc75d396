//! Tests of web pages of other origins.

use std::sync::Arc;

use super::kit::*;
use msp_gateway::clock::Duration;
use msp_gateway::exchange::site::Origin;
use msp_gateway::middleware::inbound::CrossOrigin;
use msp_gateway::problem::Problem;

const DASH: &str = "origin: https://dash.example\r\n";
const OTHER: &str = "origin: https://other.example\r\n";
const ALLOW: &str = "access-control-allow-origin";

fn shared() -> Option<Arc<CrossOrigin>> {
    let origins = ["https://dash.example", "http://localhost:3000"];
    let origins = origins.map(|text| Origin::parse(text).unwrap()).to_vec();
    CrossOrigin::of(origins, Duration::from_secs(600)).map(Arc::new)
}

fn front() -> Front {
    Front::shared_with(shared(), |call| {
        Box::pin(async move {
            if call.head.uri.query().is_some() {
                return Err(Problem::short_of(
                    msp_gateway::domain::Shortage::RequestsInFlight,
                ));
            }
            let mut answer = ok("{}");
            answer
                .headers_mut()
                .insert("vary", http::HeaderValue::from_static("Authorization"));
            Ok(answer)
        })
    })
}

fn preflight(target: &str, headers: &str) -> String {
    format!("OPTIONS {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

fn asking(method: &str) -> String {
    format!(
        "access-control-request-method: {method}\r\naccess-control-request-headers: authorization,content-type\r\n"
    )
}

fn vary(reply: &Reply) -> String {
    let values = reply.headers.get_all("vary").iter();
    let values: Vec<_> = values.map(|v| v.to_str().unwrap()).collect();
    values.join(", ")
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_answered_without_a_key_and_without_asking_anybody() {
    let front = front();
    for (target, method, methods) in [
        ("/v2/cases/msp/search", "POST", "POST, QUERY"),
        ("/v2/cases/msp/search?customer_id=a", "QUERY", "POST, QUERY"),
        ("/msp/customers", "GET", "GET, HEAD"),
        // The answer names what the page may do. The browser decides that this is not part of it.
        ("/msp/customers", "DELETE", "GET, HEAD"),
    ] {
        let reply = front
            .ask(preflight(target, &format!("{DASH}{}", asking(method))))
            .await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{target}");
        assert_eq!(reply.header(ALLOW), "https://dash.example");
        assert_eq!(reply.header("access-control-allow-methods"), methods);
        assert_eq!(reply.header("access-control-max-age"), "600");
        let headers = reply.header("access-control-allow-headers");
        for name in ["Authorization", "X-API-Key", "Content-Type", "traceparent"] {
            assert!(headers.contains(name), "{headers}");
        }
        assert_eq!(
            vary(&reply),
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        );
        assert_eq!(reply.header("access-control-allow-credentials"), "");
        assert_eq!(reply.header("access-control-allow-private-network"), "");
        assert_eq!(reply.header("content-length"), "");
    }
    let private = format!(
        "{DASH}{}access-control-request-private-network: true\r\n",
        asking("GET")
    );
    let reply = front.ask(preflight("/msp/customers", &private)).await;
    assert_eq!(reply.header("access-control-allow-private-network"), "true");
    assert!(front.seen.lock().is_empty());
    let line = front.last_line();
    assert_eq!(
        (&line["status"], &line["route"]),
        (&204.into(), &"customers".into())
    );
}

#[tokio::test(start_paused = true)]
async fn other_origins_get_what_they_got() {
    let asked = asking("GET");
    let refused = [
        (front(), format!("{OTHER}{asked}")),
        (front(), format!("origin: null\r\n{asked}")),
        (front(), format!("origin: HTTPS://DASH.EXAMPLE\r\n{asked}")),
        (
            front(),
            format!("origin: https://dash.example.evil.example\r\n{asked}"),
        ),
        (front(), format!("{DASH}{OTHER}{asked}")),
        // OPTIONS of a program, or of a browser that sends no preflight.
        (front(), asked.clone()),
        // No origins are chosen.
        (Front::new(), format!("{DASH}{asked}")),
    ];
    for (front, headers) in refused {
        let reply = front.ask(preflight("/msp/customers", &headers)).await;
        assert_eq!(reply.problem(), (405, "method_not_allowed".to_owned()));
        assert_eq!(
            (reply.header("allow"), reply.header(ALLOW)),
            ("GET, HEAD", "")
        );
        let reply = front
            .ask(get("/msp/customers", &format!("{KEY}{OTHER}")))
            .await;
        assert_eq!((reply.status, reply.header(ALLOW)), (200, ""));
    }
    // A page whose origin is allowed, with a request that is no preflight.
    let reply = front().ask(preflight("/msp/customers", DASH)).await;
    assert_eq!(
        (reply.status, reply.header(ALLOW)),
        (405, "https://dash.example")
    );
}

#[tokio::test(start_paused = true)]
async fn answers_and_refusals_of_every_layer_can_be_read_by_the_chosen_pages() {
    let front = front();
    let big = "x".repeat(70_000);
    let with = |headers: &str| format!("{DASH}{headers}");
    let search = "/v2/cases/msp/search";
    for (request, status) in [
        (get("/msp/customers", &with(KEY)), 200),
        (get("/msp/customers?overloaded", &with(KEY)), 503),
        (get("/msp/customers", &with("x_y: 1\r\n")), 400),
        (get("/nope", &with("")), 404),
        (get(search, &with(KEY)), 405),
        (get("/msp/customers", &with("")), 401),
        (post(search, &with(KEY), &big), 413),
    ] {
        let reply = front.ask(&request).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header(ALLOW), "https://dash.example", "{status}");
        let readable = reply.header("access-control-expose-headers");
        for name in [
            "Cache-Status",
            "Age",
            "ETag",
            "X-Request-Id",
            "Retry-After",
            "RateLimit",
            "X-Export-Rows",
        ] {
            assert!(
                readable.split(", ").any(|n| n == name),
                "{name} in {readable}"
            );
        }
        assert!(vary(&reply).ends_with("Origin"), "{}", vary(&reply));
    }
    // The caller's own limit, whose headers the page may read too.
    assert_eq!(
        front
            .ask(get("/msp/customers", &with(LIMITED)))
            .await
            .status,
        200
    );
    let reply = front.ask(get("/msp/customers", &with(LIMITED))).await;
    assert_eq!(
        (reply.status, reply.header(ALLOW)),
        (429, "https://dash.example")
    );
    // A request that does not come from a page gets `Vary: Origin` too.
    let reply = front.ask(get("/msp/customers", KEY)).await;
    assert_eq!(
        (reply.header(ALLOW), &*vary(&reply)),
        ("", "Authorization, Origin")
    );
    let reply = Front::new().ask(get("/msp/customers", KEY)).await;
    assert_eq!(vary(&reply), "");
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_no_way_around_the_framing() {
    let front = front();
    let smuggled = format!(
        "OPTIONS /msp/customers HTTP/1.1\r\nhost: x\r\n{DASH}{}transfer-encoding: xchunked\r\n\r\n",
        asking("GET")
    );
    assert_eq!(front.ask(smuggled).await.status, 400);
    // A request with a body is one request. The body's content is not answered.
    let inner = get("/msp/customers", KEY);
    let mut peer = front.connect();
    peer.send(format!(
        "OPTIONS /msp/customers HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{DASH}{}\r\n{inner}",
        inner.len(),
        asking("GET")
    ))
    .await;
    assert_eq!(peer.reply().await.unwrap().status, 204);
    peer.send(get("/nope", "")).await;
    if let Some(reply) = peer.reply().await {
        assert_eq!(reply.status, 404);
    }
    assert!(front.seen.lock().is_empty());
}
