//! Nothing of a request's own bytes reaches a vendor, and no request that two readers could read in
//! two ways gets a second one through. The front's own list is in `tests/it/front/framing.rs`;
//! here the vendors are there to be reached.

use crate::whole::{ALL, SETTINGS, Whole, caller, get, post, search, secrets, world};

fn gateway() -> Whole {
    let text = format!("{SETTINGS}{}", caller("all", "role = \"operator\""));
    Whole::with(&text, &secrets(), world())
}

/// Would ask N-able, which nothing else here does.
fn marked() -> String {
    get("/v1/billing/202609", ALL)
}

fn marked_ran(whole: &Whole) -> bool {
    let asked = whole.sandbox.requests();
    asked
        .iter()
        .any(|request| request.target.contains("InvoicesReady"))
}

/// First requests that must end their connection, beyond the front's own list.
fn suspicious() -> Vec<String> {
    let with = |headers: &str, body: &str| {
        format!("POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{ALL}{headers}\r\n{body}")
    };
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    let mut all = Vec::new();
    for coding in [
        "chunked, gzip",
        "deflate",
        "chunked,",
        "chunked chunked",
        "identity, chunked",
        "x",
        "CHUNKED, x",
        "c hunked",
        "chunked\u{0}",
    ] {
        all.push(with(&format!("transfer-encoding: {coding}\r\n"), chunked));
        all.push(with(
            &format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {coding}\r\n"),
            chunked,
        ));
        all.push(with(
            &format!("content-length: 2\r\ntransfer-encoding: {coding}\r\n"),
            chunked,
        ));
    }
    for name in [
        "transfer-encoding ",
        "transfer-encoding\t",
        "\ttransfer-encoding",
        "transfer\u{0}-encoding",
        "content_length",
        "content-length\t",
    ] {
        all.push(with(&format!("{name}: chunked\r\n"), chunked));
    }
    for length in [
        "2;",
        "2\u{b}",
        "\u{661}",
        "0b10",
        "1e0",
        "2,2,3",
        "NaN",
        "2\u{0}",
        "00000000000000000000000000000000000x2",
        "-0",
        " 2 2",
    ] {
        all.push(with(&format!("content-length: {length}\r\n"), "{}"));
    }
    all.push(with("content-length: 2\r\ncontent-length: 02, 3\r\n", "{}"));
    for chunk in [
        "2 \u{0}\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}XX0\r\n\r\n",
        "ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "2;a=\n\r\n{}\r\n0\r\n\r\n",
        "\u{ff12}\r\n{}\r\n0\r\n\r\n",
    ] {
        all.push(with("transfer-encoding: chunked\r\n", chunk));
    }
    let endless = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(100_000));
    all.push(with("transfer-encoding: chunked\r\n", &endless));
    for line in [
        "POST http://evil/v2/cases/msp/search HTTP/1.1",
        "POST https://x@evil/v2/cases/msp/search HTTP/1.1",
        "POST /v2/cases/msp/search HTTP/1.1 HTTP/1.1",
        "POST /v2/cases/msp/search HTTP/9.9",
        "POST /v2/cases/msp/search http/1.1",
        "POST /v2/cases/msp/search",
        "PO ST /v2/cases/msp/search HTTP/1.1",
        "POST\t/v2/cases/msp/search\tHTTP/1.1",
        "POST /v2/cases/\u{0}msp/search HTTP/1.1",
        "POST v2/cases/msp/search HTTP/1.1",
        "PRI * HTTP/2.0",
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
    ] {
        all.push(format!(
            "{line}\r\nhost: x\r\n{ALL}content-length: 2\r\n\r\n{{}}"
        ));
    }
    for host in [
        "host: y\r\n",
        "host: x\r\n",
        "host : x\r\n",
        "ho\u{0}st: x\r\n",
        " host: y\r\n",
    ] {
        all.push(with(&format!("{host}content-length: 2\r\n"), "{}"));
    }
    for folded in [
        "x-a: 1\r\n\tb\r\n",
        "x-a: 1\r\n b: 2\r\n",
        "x-a: 1\rb: 2\r\n",
        ": 1\r\n",
        "x-\u{1f4a9}: 1\r\n",
        "x(y): 1\r\n",
        "x[y]: 1\r\n",
    ] {
        all.push(with(&format!("{folded}content-length: 2\r\n"), "{}"));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn nothing_behind_a_suspicious_request_reaches_a_vendor() {
    let all = suspicious();
    for request in &all {
        let whole = gateway();
        let mut peer = whole.connect();
        peer.send(format!("{request}{}", marked())).await;
        if let Some(reply) = peer.reply().await {
            assert!(
                matches!(reply.status, 400 | 405 | 408 | 413 | 431),
                "{} {request:?}",
                reply.status
            );
        }
        assert_eq!(peer.rest().await, "", "{request:?}");
        assert!(
            !marked_ran(&whole) && whole.vendor_calls() == 0,
            "{request:?}"
        );
        assert_eq!(whole.metrics.panics.get(), 0);
    }
    println!("framing: {} requests ended their connection", all.len());
}

/// Each is passed over; what follows is the next request.
#[tokio::test(start_paused = true)]
async fn offers_of_other_protocols_are_passed_over() {
    const SETTINGS_OF_2: &str = "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA";
    let h2c = format!(
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: {SETTINGS_OF_2}\r\n"
    );
    let offers = [
        h2c.as_str(),
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "connection: keep-alive, Upgrade\r\nupgrade: TLS/1.2, HTTP/2.0\r\n",
        "upgrade: anything\r\n",
    ];
    let whole = gateway();
    let contract = whole.sandbox.contracts()[0].id.clone();
    let json = "content-type: application/json\r\n";
    for offer in offers {
        let headers = format!("{ALL}{offer}");
        let public = [
            get("/msp/customers", &headers),
            search(&headers, "{}"),
            search(&headers, "{}")
                .replace("POST", "QUERY")
                .replace("\r\n\r\n", &format!("\r\n{json}\r\n")),
            get("/v1/cases/export", &headers),
            get("/v1/billing/202609", &headers),
            get(&format!("/v1/billing/202609/{contract}"), &headers),
            post("/ws/rest/V1/PSA_API/InvoicesReady/-/202609", &headers, ""),
            get("/v1/overview", &headers),
            get("/openapi.json", &headers),
        ];
        let admin = [
            get("/healthz", offer),
            get("/readyz", offer),
            get("/metrics", offer),
            get("/admin/status", offer),
            post(
                "/admin/purge",
                &format!("{json}{offer}"),
                "{\"kind\":\"billing\"}",
            ),
        ]
        .map(|request| request.replacen("host: x", "host: localhost", 1));
        let pairs = public
            .iter()
            .map(|one| (one, whole.connect(), get("/msp/customers", ALL)));
        let on_admin = admin.iter().map(|one| {
            (
                one,
                whole.connect_admin(),
                get("/healthz", "").replace("host: x", "host: localhost"),
            )
        });
        for (request, mut peer, next) in pairs.chain(on_admin) {
            peer.send(format!("{request}{next}")).await;
            for which in ["the offer", "what follows"] {
                let reply = peer.reply().await.unwrap();
                assert_eq!(reply.status, 200, "{which}: {request}");
                assert!(!reply.headers.contains_key("upgrade"), "{request}");
            }
        }
        // Who takes the silence for a yes is refused like everybody who speaks HTTP/2 unasked.
        let mut peer = whole.connect();
        peer.send(format!(
            "{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{}",
            get("/msp/customers", &headers),
            marked()
        ))
        .await;
        assert_eq!(peer.reply().await.unwrap().status, 200);
        assert!(!peer.rest().await.contains("HTTP/1.1 200"), "{offer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_memory_still_reads_its_body() {
    let whole = gateway();
    let within = marked();
    let mut peer = whole.connect();
    let questions = [
        search(ALL, "{}"),
        // The body is a request, and no JSON.
        search(ALL, &within),
        // A body where none is expected.
        format!(
            "GET /msp/customers HTTP/1.1\r\nhost: x\r\n{ALL}content-length: {}\r\n\r\n{within}",
            within.len()
        ),
        format!(
            "HEAD /msp/customers HTTP/1.1\r\nhost: x\r\n{ALL}content-length: {}\r\n\r\n{within}",
            within.len()
        ),
        format!(
            "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{ALL}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nAuthorization: Bearer k-other\r\n\r\n"
        ),
    ];
    for n in 0..1_000 {
        let question = &questions[n % questions.len()];
        peer.head_only = question.starts_with("HEAD");
        peer.send(question).await;
        let reply = peer.reply().await.expect("one answer for one request");
        let told = if question.ends_with(&within) && question.starts_with("POST") {
            400
        } else {
            200
        };
        assert_eq!(reply.status, told, "{question}");
    }
    assert!(!marked_ran(&whole));
}

#[tokio::test(start_paused = true)]
async fn both_lengths_let_no_second_request_through() {
    for order in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 999\r\n",
    ] {
        let whole = gateway();
        let mut peer = whole.connect();
        peer.send(format!(
            "POST /v2/cases/msp/search HTTP/1.1\r\nhost: x\r\n{ALL}{order}\r\n2\r\n{{}}\r\n0\r\n\r\n{}",
            marked()
        ))
        .await;
        peer.rest().await;
        assert!(!marked_ran(&whole));
    }
}

/// Headers that other programs act on.
const KNOWN: &str = "a-im accept accept-charset accept-datetime accept-language access-control-request-headers \
access-control-request-method akamai-origin-hop alt-svc api-key apikey base-url cache-status cdn-loop cf-connecting-ip \
cf-ipcountry cf-ray cf-visitor client-ip cluster-client-ip content-disposition content-language content-location \
content-md5 content-range cookie cookie2 date destination device-memory digest dnt downlink dpr early-data \
fastly-client-ip fastly-ff forwarded forwarded-for forwarded-host forwarded-proto from front-end-https host-override \
http-host http2-settings if-match if-modified-since if-range if-unmodified-since incap-client-ip keep-alive \
last-event-id link max-forwards method-override mspid origin pragma priority profile proxy proxy-authenticate \
proxy-authorization proxy-connection proxy-host purpose range raw-request-uri redirect referer remote-addr \
remote-user request-uri save-data sec-ch-ua sec-fetch-dest sec-fetch-mode sec-gpc server-timing service-worker \
set-cookie signature soapaction sourcemap surrogate-capability surrogate-control tenant timing-allow-origin \
tracestate trailer translate true-client-ip uri url user user-agent via viewport-width want-digest warning width \
wl-proxy-client-ip www-authenticate x-account-id x-amz-security-token x-amzn-trace-id x-api-version x-appengine-country \
x-ats x-authenticated-user x-b3-traceid x-backend x-cache-key x-client-ip x-cluster-client-ip x-correlation-id \
x-csrf-token x-custom-ip-authorization x-customer-id x-debug x-device-id x-envoy-original-path x-forward-for \
x-forwarded x-forwarded-by x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix \
x-forwarded-proto x-forwarded-scheme x-forwarded-server x-forwarded-ssl x-forwarded-user x-goog-iap x-host \
x-http-destinationurl x-http-host-override x-http-method x-http-method-override x-http-path-override x-https \
x-id-token x-internal x-mspid x-method-override x-moz x-organization x-original-host x-original-method \
x-original-remote-addr x-original-url x-originating-ip x-override-url x-project x-proxy-url x-proxyuser-ip x-purpose \
x-real-host x-real-ip x-real-scheme x-remote-addr x-remote-ip x-remote-user x-request-start x-requested-with \
x-rewrite-url x-role x-scheme x-server-ip x-session x-tenant x-tenant-id x-timer x-token x-trace x-true-ip x-ua \
x-uidh x-upstream x-url x-user x-user-id x-username x-wap-profile x-wiv-key x-nable-key \
x-arr-ssl x-att-deviceid x-bluecoat-via x-cdn x-do-not-track x-edge-ip x-gateway x-nginx-proxy x-rack-cache \
x-original-forwarded-for x-request-context x-real-port";

#[tokio::test(start_paused = true)]
async fn no_header_of_a_caller_reaches_a_vendor_or_a_later_answer() {
    const MARK: &str = "m4rk3r";
    let names: Vec<&str> = KNOWN.split_whitespace().collect();
    assert!(names.len() >= 200, "{}", names.len());
    let whole = gateway();
    let contract = whole.sandbox.contracts()[0].id.clone();
    for few in names.chunks(20) {
        let mut headers = ALL.to_owned();
        for name in few {
            headers.push_str(&format!("{name}: {MARK}.example\r\n"));
        }
        // Hop-by-hop abuse: asks a proxy to drop the key it put in.
        headers.push_str(&format!(
            "connection: keep-alive, x-api-key, {}\r\n",
            few.join(", ")
        ));
        whole
            .ask_admin(post(
                "/admin/purge",
                "content-type: application/json\r\n",
                "{\"all\":true,\"soft\":false}",
            ))
            .await;
        for request in [
            get("/msp/customers", &headers),
            search(&headers, "{}"),
            get(&format!("/v1/billing/202609/{contract}"), &headers),
        ] {
            let reply = whole.ask(&request).await;
            assert_eq!(reply.status, 200, "{request}");
            let said = format!(
                "{:?}{}",
                reply.headers,
                String::from_utf8_lossy(&reply.body)
            );
            assert!(!said.contains(MARK), "{request}");
        }
    }
    let asked = whole.sandbox.requests();
    assert!(asked.len() >= 3 * names.len() / 20);
    for request in &asked {
        assert!(!format!("{request:?}").contains(MARK), "{request:?}");
        let keys = request
            .headers
            .iter()
            .filter(|(name, _)| name == "x-api-key")
            .count();
        assert_eq!(keys, 1, "{request:?}");
        let ours = [
            "x-api-key",
            "user-agent",
            "accept",
            "accept-encoding",
            "content-type",
            "content-length",
            "host",
            "traceparent",
        ];
        assert!(
            request
                .headers
                .iter()
                .all(|(name, _)| ours.contains(&name.as_str())),
            "{request:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn odd_paths_are_no_routes_and_cost_nothing() {
    let whole = gateway();
    for path in [
        "/msp/customers/x.css",
        "/msp/customers;a.css",
        "/msp/customers;",
        "/msp/customers%2f..%2fx",
        "//msp/customers",
        "/msp//customers",
        "/msp/customers/",
        "/msp/customers/.",
        "/msp/./customers",
        "/msp/x/../customers",
        "/msp/customers%00",
        "/msp/customers%20",
        "/msp/customers%0a",
        "/%6dsp/customers",
        "/MSP/customers",
        "/msp/customers\\",
        "/msp\\customers",
        "/msp/customers:80",
        "/workflows/1/run",
        "/v2/cases/msp/search/../search",
        "/v2/cases/msp/search%3fx",
        "/__sandbox/counts",
        "/admin/purge",
        "/metrics",
        "/.git/config",
        "/favicon.ico",
        "/v1/billing",
        "/v1/billing/",
        "/v1/billing/202609/a/b",
        "/ws/rest/V1/PSA_API/PSAUsageByTimeFrame/-/202609",
        "/ws/rest/v1/psa_api/InvoicesReady/-/202609",
        "*",
    ] {
        for method in [
            "GET", "POST", "DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "PROPFIND",
        ] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{ALL}content-length: 0\r\n\r\n");
            let mut peer = whole.connect();
            peer.send(&request).await;
            let reply = peer.reply().await.unwrap();
            // `OPTIONS *` asks about the server itself, and balancers do.
            let balancers = (method, path) == ("OPTIONS", "*") && reply.status == 204;
            assert!(
                balancers || matches!(reply.status, 400 | 404 | 405),
                "{} {request}",
                reply.status
            );
        }
    }
    assert_eq!(whole.vendor_calls(), 0);
    // And none of it is what the next caller gets.
    assert_eq!(whole.ask(get("/msp/customers", ALL)).await.status, 200);
}
