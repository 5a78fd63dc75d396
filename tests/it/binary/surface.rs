//! The public surface over HTTP: statuses, methods, types, tokens, exports.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{continued, export_line, first};
use crate::process::{Answer, PATIENCE, World, caller, everyone, key, page_of, raw};

const SEARCH: &str = "/v2/cases/msp/search";
const JSON: (&str, &str) = ("content-type", "application/json");

fn told(answer: &Answer, status: u16, code: &str) {
    let outcome = (answer.status, &*answer.code());
    assert_eq!(outcome, (status, code), "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:msp-gateway:{code}"));
    assert_eq!(body["request_id"], answer.header("x-request-id"));
    assert!(body["error"].is_string() && body["title"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_conditions_and_refusals_are_as_promised() {
    let callers = everyone("alice") + &caller("scoped", "customers = [\"org_1\"]");
    let world = World::start(600, &callers, &[]);
    let bearer = format!("Bearer {}", key("alice"));
    let me = ("authorization", &*bearer);
    let scoped = key("scoped");
    let scoped = ("x-api-key", &*scoped);

    // GET, HEAD and 304.
    let list = "/msp/customers?fields=id,name";
    let got = world.send("GET", list, &[me], "").await;
    assert_eq!(got.status, 200);
    for name in ["cache-status", "age", "x-request-id", "etag"] {
        assert!(!got.header(name).is_empty(), "{name}");
    }
    assert_eq!(got.header("cache-control"), "private, no-cache");
    assert_eq!(
        got.header("vary"),
        "Authorization, X-API-Key, Accept-Encoding"
    );
    let head = world.send("HEAD", list, &[me], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), got.header("content-length"));
    assert_eq!(head.header("etag"), got.header("etag"));
    let tag = ("if-none-match", got.header("etag"));
    for method in ["GET", "HEAD"] {
        let answer = world.send(method, list, &[me, tag], "").await;
        assert_eq!((answer.status, answer.body.len()), (304, 0));
        assert_eq!(answer.header("etag"), got.header("etag"));
    }
    let other = ("if-none-match", "\"other\"");
    assert_eq!(world.send("GET", list, &[me, other], "").await.status, 200);
    let openapi = world.send("GET", "/openapi.json", &[me], "").await;
    let tag = ("if-none-match", openapi.header("etag"));
    assert_eq!(
        world
            .send("HEAD", "/openapi.json", &[me, tag], "")
            .await
            .status,
        304
    );

    // QUERY is safe, so it is answered with 304; POST is not.
    let queried = world.send("QUERY", SEARCH, &[me, JSON], "{}").await;
    assert_eq!(queried.status, 200, "{}", queried.text());
    let tag = ("if-none-match", queried.header("etag"));
    assert_eq!(
        world
            .send("QUERY", SEARCH, &[me, JSON, tag], "{}")
            .await
            .status,
        304
    );
    let posted = world.send("POST", SEARCH, &[me, JSON, tag], "{}").await;
    assert_eq!((posted.status, &posted.body), (200, &queried.body));
    let canonical = "{\"max_returned_items\":250}";
    let same = world.send("POST", SEARCH, &[me], canonical).await;
    assert_eq!(
        (same.status, &same.body),
        (200, &queried.body),
        "no type is JSON"
    );

    // What is asked in another way than it may be.
    told(
        &world.send("GET", "/nothing", &[], "").await,
        404,
        "not_found",
    );
    for (method, path, allow) in [
        ("POST", "/msp/customers", "GET, HEAD"),
        ("GET", SEARCH, "POST, QUERY"),
        ("DELETE", "/v1/overview", "GET, HEAD"),
        ("QUERY", "/openapi.json", "GET, HEAD"),
        ("GET", "/ws/rest/V1/PSA_API/InvoicesReady/-/202601", "POST"),
    ] {
        let answer = world.send(method, path, &[], "").await;
        told(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow);
    }
    let text = ("content-type", "text/plain");
    let zipped = ("content-encoding", "gzip");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
    /// Target, headers, body, status, and the code of the answer.
    type Bad<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let bodies: [Bad<'_>; 14] = [
        ("POST", &[me, text], "{}", 415, "unsupported_media_type"),
        ("QUERY", &[me, text], "{}", 415, "unsupported_media_type"),
        (
            "POST",
            &[me, JSON, zipped],
            "{}",
            415,
            "unsupported_media_type",
        ),
        ("QUERY", &[me], "{}", 400, "invalid_body"),
        ("POST", &[me, JSON], &long, 413, "body_too_large"),
        ("POST", &[me, JSON], "", 400, "invalid_body"),
        ("POST", &[me, JSON], "[]", 400, "invalid_body"),
        (
            "POST",
            &[me, JSON],
            "{\"a\":1,\"a\":1}",
            400,
            "invalid_body",
        ),
        (
            "POST",
            &[me, JSON],
            "{\"a\":{\"b\":1,\"b\":1}}",
            400,
            "invalid_body",
        ),
        (
            "POST",
            &[me, JSON],
            "{\"max_returned_items\":501}",
            400,
            "invalid_body",
        ),
        (
            "POST",
            &[me, JSON],
            "{\"max_returned_items\":0}",
            400,
            "invalid_body",
        ),
        (
            "POST",
            &[me, JSON],
            "{\"date_range\":{\"start\":\"2026-01-01\"}}",
            400,
            "invalid_body",
        ),
        (
            "POST",
            &[me, JSON],
            "{\"start_page_key\":{\"scroll_id\":\"forged\"}}",
            400,
            "invalid_page_token",
        ),
        (
            "POST",
            &[scoped, JSON],
            "{\"start_page_key\":{\"scroll_id\":\"\"}}",
            400,
            "invalid_page_token",
        ),
    ];
    for (method, headers, body, status, code) in bodies {
        let answer = world.send(method, SEARCH, headers, body).await;
        assert_eq!(
            answer.status,
            status,
            "{method} {body:.60}: {}",
            answer.text()
        );
        if method != "QUERY" || status == 415 {
            told(&answer, status, code);
        }
    }
    for target in [
        "/msp/customers?colour=red",
        "/v1/overview?require=all&require=all",
        "/msp/customers?fields=%zz",
        "/v1/billing/202613",
        "/v1/billing/2026-01/C",
        "/v1/cases/export?format=xml",
        "/v1/cases/export?start=2026-01-01",
        "/v1/overview?require=some",
    ] {
        told(&world.get("alice", target).await, 400, "invalid_query");
    }
    let unknown = world.get("alice", "/msp/customers?fields=id,colour").await;
    told(&unknown, 400, "invalid_fields");
    assert_eq!(unknown.json()["error"], "Invalid fields requested");

    // Authentication comes before any cache: a refusal does not show what is cached.
    let asked = world.vendors.counts().await["operations"].clone();
    let wrong = ("x-api-key", "mspgw_wrong");
    let strange: [&[(&str, &str)]; 4] = [
        &[],
        &[wrong],
        &[me, wrong],
        &[("authorization", "Basic eA==")],
    ];
    for headers in strange {
        let answer = world.send("GET", list, headers, "").await;
        told(&answer, 401, "authentication_required");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        for name in ["cache-status", "age", "etag"] {
            assert_eq!(answer.header(name), "", "{name}");
        }
    }
    let foreign = format!("{SEARCH}?customer_id=org_2");
    let answer = world.send("POST", &foreign, &[scoped, JSON], "{}").await;
    told(&answer, 403, "customer_not_allowed");
    told(
        &world.get("scoped", "/v1/billing/202601").await,
        403,
        "billing_not_allowed",
    );
    let drop_in = "/ws/rest/V1/PSA_API/InvoicesReady/-/202601";
    let answer = world.send("POST", drop_in, &[scoped], "").await;
    told(&answer, 403, "billing_not_allowed");
    assert_eq!(answer.json()["http_status_code"], 403);
    assert!(answer.json()["message"].is_string());
    assert_eq!(world.vendors.counts().await["operations"], asked);

    // Tokens: another audience's is as good as a forged one; a purged one is gone.
    let page = world.search("alice", "", &first(5, "")).await;
    let token = page_of(&page).1.unwrap();
    let forged = world.search("alice", "", &continued("forged", None)).await;
    let foreign = world.search("scoped", "", &continued(&token, None)).await;
    told(&foreign, 400, "invalid_page_token");
    assert_eq!(foreign.json()["detail"], forged.json()["detail"]);
    let other = format!(
        "{{\"customer_id\":\"org_3\",{}",
        &continued(&token, None)[1..]
    );
    assert_eq!(world.search("alice", "", &other).await.status, 400);
    assert_eq!(
        world
            .search("alice", "", &continued(&token, None))
            .await
            .status,
        200
    );
    let url = format!("{}/admin/purge", world.admin);
    let purge = "{\"kind\":\"cases\",\"soft\":false}";
    let purged = world.web.send("POST", &url, &[JSON], purge).await;
    assert_eq!(purged.status, 200);
    assert!(purged.json()["purged"].as_u64().unwrap() >= 1);
    // The rows are gone. The token goes on from a new walk, until the list changes at its head.
    let healed = world.search("alice", "", &continued(&token, None)).await;
    assert_eq!(healed.status, 200);
    world.vendors.tell("insert", "{\"count\":1}").await;
    let purged = world.web.send("POST", &url, &[JSON], purge).await;
    assert_eq!(purged.status, 200);
    let gone = world.search("alice", "", &continued(&token, None)).await;
    told(&gone, 410, "page_token_expired");
    world.hold_to_openapi("alice").await;
    world.hold().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn billing_is_told_in_both_ways_and_metrics_are_clean() {
    let world = World::start(600, &everyone("alice"), &[]);
    let bearer = format!("Bearer {}", key("alice"));
    let me = ("authorization", &*bearer);
    let overview = world.get("alice", "/v1/overview").await;
    assert_eq!(overview.status, 200);
    let body = overview.json();
    let month = body["timeframe"].as_str().unwrap();
    let contract = body["contracts"][0]["contract_id"].as_str().unwrap();
    let native = world
        .get("alice", &format!("/v1/billing/{month}/{contract}"))
        .await;
    assert_eq!(native.status, 200, "{}", native.text());
    let path = "/ws/rest/V1/PSA_API";
    for account in ["-", "SANDBOX"] {
        let target = format!("{path}/PSABillableServices/{account}/{month}/{contract}");
        let answer = world.send("POST", &target, &[me, JSON], "{}").await;
        assert_eq!((answer.status, &answer.body), (200, &native.body));
        let target = format!("{path}/InvoicesReady/{account}/{month}");
        let answer = world.send("POST", &target, &[me], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let target = format!("{path}/InvoicesReady/OTHER/{month}");
    let answer = world.send("POST", &target, &[me], "").await;
    told(&answer, 404, "account_not_found");
    assert_eq!(answer.json()["http_status_code"], 404);
    // A contract that N-able does not know: refused here, passed on to N-able's own clients.
    let missing = world
        .get("alice", &format!("/v1/billing/{month}/NONE"))
        .await;
    told(&missing, 404, "billing_not_found");
    assert!(
        missing.json()["vendor_body"].is_object(),
        "{}",
        missing.text()
    );
    let target = format!("{path}/PSABillableServices/-/{month}/NONE");
    let passed = world.send("POST", &target, &[me], "").await;
    assert_eq!(passed.status, 200, "{}", passed.text());
    assert!(
        passed
            .header("cache-status")
            .contains("detail=soft-failure")
    );
    assert_eq!(passed.json(), missing.json()["vendor_body"]);

    // The judge of Prometheus has nothing to say about the metrics, where it is installed.
    let metrics = world.metrics().await;
    for route in ["overview", "billing", "nable_billing", "nable_invoices"] {
        let line = format!(
            "msp_gateway_requests_total{{caller=\"alice\",route=\"{route}\",status=\"200\"}}"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("needs promtool: tests/run installs it");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.is_empty(), "{text}");
    world.hold_to_openapi("alice").await;
    world.hold().await;
}

fn csv_rows(text: &str) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.records().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_whole_or_visibly_not() {
    let world = World::start(
        1_300,
        &everyone("alice"),
        &[
            ("MSP_GATEWAY__PAGINATION__REWALKS_MAX", "1"),
            ("MSP_GATEWAY__PAGINATION__VENDOR_PAGE_SIZE", "100"),
        ],
    );
    let bearer = format!("Bearer {}", key("alice"));
    let me = ("authorization", &*bearer);
    let all = "/v1/cases/export";
    let rows = world.vendors.cases("").await;
    let expected: Vec<_> = rows.iter().map(|row| export_line(row)).collect();
    let answer = world.send("GET", all, &[me, ("te", "trailers")], "").await;
    assert!(answer.status == 200 && answer.whole);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(
        answer
            .text()
            .lines()
            .eq(expected.iter().map(String::as_str))
    );
    assert!(answer.text().ends_with('\n'));
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["x-export-rows"], "1300");
    let answer = world
        .send("GET", "/v1/cases/export?format=csv", &[me], "")
        .await;
    assert!(answer.status == 200 && answer.whole && answer.trailers.is_none());
    let rows = csv_rows(answer.text());
    assert_eq!(rows.len(), expected.len());
    for (row, case) in rows.iter().zip(&expected) {
        let case: Value = serde_json::from_str(case).unwrap();
        assert!(row.iter().any(|cell| case["case_id"] == cell), "{row:?}");
    }
    let head = world.send("HEAD", all, &[me], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let one = world
        .get("alice", "/v1/cases/export?customer_id=org_1")
        .await;
    let theirs = world.vendors.cases("?customer_id=org_1").await;
    let theirs: Vec<_> = theirs.iter().map(|row| export_line(row)).collect();
    assert!(one.text().lines().eq(theirs.iter().map(String::as_str)));

    // The vendor fails in the middle, also on a new search: the stream has no proper end.
    let fail = json!({"operation": "continue", "kind": "status", "status": 500, "after": 3});
    world.vendors.tell("faults", &fail.to_string()).await;
    let target = "/v1/cases/export?start=2020-01-01&end=2040-01-01";
    let answer = world.get("alice", target).await;
    assert!(answer.status == 200 && !answer.whole, "{}", answer.status);
    let rows: Vec<&str> = answer.text().lines().collect();
    assert!(
        rows.len() >= 300 && rows.len() < expected.len(),
        "{}",
        rows.len()
    );
    assert!(rows.iter().zip(&expected).all(|(row, case)| row == case));
    world.vendors.tell("faults", "{\"clear\":true}").await;

    // The same on the wire, byte by byte: no last chunk.
    world.vendors.tell("faults", &fail.to_string()).await;
    let target = "/v1/cases/export?start=2020-01-01&end=2040-01-02&format=csv";
    let text = format!(
        "GET {target} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nAuthorization: {bearer}\r\n\r\n"
    );
    let public = world.public.clone();
    let bytes = tokio::task::spawn_blocking(move || raw(&public, &text));
    let bytes = msp_gateway::clock::timeout(PATIENCE, bytes)
        .await
        .unwrap()
        .unwrap();
    let shown = String::from_utf8_lossy(&bytes).to_lowercase();
    assert!(shown.starts_with("http/1.1 200 ok\r\n"), "{shown:.300}");
    assert!(shown.contains("transfer-encoding: chunked"), "{shown:.600}");
    assert!(
        !shown.ends_with("0\r\n\r\n") && bytes.len() > 10_000,
        "{}",
        bytes.len()
    );
    world.vendors.tell("faults", "{\"clear\":true}").await;

    // Down from the start: an error, and no stream at all.
    world
        .vendors
        .tell("faults", "{\"vendor\":\"wiv\",\"down\":true}")
        .await;
    let target = "/v1/cases/export?start=2020-01-01&end=2040-01-03";
    let answer = world.get("alice", target).await;
    assert!([502, 503].contains(&answer.status), "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    world.hold_to_openapi("alice").await;
    world.hold().await;
}
