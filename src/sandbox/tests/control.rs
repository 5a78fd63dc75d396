//! Tests of the control routes.

use super::*;

#[tokio::test(start_paused = true)]
async fn counts_and_requests_tell_what_arrived() {
    let kit = kit(small());
    let id = kit.open(100).await;
    kit.next(&id).await.unwrap();
    let counts = kit
        .control(Method::GET, "/__sandbox/counts", "")
        .await
        .json();
    assert_eq!(
        counts["operations"]["continue"],
        serde_json::json!({"requests": 1, "answered": 1, "by_status": {"200": 1}})
    );
    assert_eq!(
        counts["scrolls"],
        serde_json::json!({"open": 1, "peak_open": 1, "opened": 1, "ended": 0, "expired": 0})
    );
    assert_eq!(counts["vendors"]["wiv"]["in_flight_peak"], 1);
    assert_eq!(counts["scroll_overlaps"], 0);
    let reply = kit.control(Method::GET, "/__sandbox/requests", "").await;
    assert!(!reply.text().contains(WIV_KEY) && !reply.text().contains(&id[..40]));
    let requests = reply.json();
    assert_eq!(requests.as_array().unwrap().len(), 2);
    assert_eq!(
        (&requests[1]["operation"], &requests[1]["key"]),
        (&"continue".into(), &"correct".into())
    );
    assert_eq!(requests[0]["body"], r#"{"max_returned_items":100}"#);
    assert!(
        requests[1]["body"]
            .as_str()
            .unwrap()
            .contains("\"scroll_id\":\"scroll:")
    );
    assert_eq!(kit.sandbox.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn faults_are_switched_over_http() {
    let kit = kit(small());
    let faults = async |body: &str| kit.control(Method::POST, "/__sandbox/faults", body).await;
    let reply = faults(r#"[{"operation":"customers","kind":"status","status":418,"times":1},{"kind":"latency","ms":10}]"#).await;
    assert_eq!((reply.status, reply.text()), (200, r#"{"faults":2}"#));
    assert_eq!(kit.customers("").await.unwrap().status, 418);
    assert_eq!(kit.customers("").await.unwrap().status, 200);
    assert_eq!(
        faults(r#"{"vendor":"nable","down":true}"#).await.status,
        200
    );
    assert!(kit.bill().await.is_none());
    assert_eq!(faults(r#"{"clear":true}"#).await.text(), r#"{"faults":0}"#);
    assert_eq!(kit.bill().await.unwrap().status, 200);
    let reply = faults(r#"{"kind":"endless","unknown":1}"#).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("unknown"));
}

#[tokio::test(start_paused = true)]
async fn cases_are_the_exact_rows_of_a_search() {
    let kit = kit(small());
    let all = kit.all();
    let cases = async |query: &str| {
        kit.control(Method::GET, &format!("/__sandbox/cases{query}"), "")
            .await
    };
    assert_eq!(cases("").await.text(), format!("[{}]", all.join(",")));
    let range = Some((date(2026, 1, 1), date(2026, 6, 30)));
    let some = kit.sandbox.expected_rows(Some("org_2"), range);
    let reply = cases("?customer_id=org_2&start=2026-01-01&end=2026-06-30").await;
    assert_eq!(reply.text(), format!("[{}]", some.join(",")));
    assert_eq!(cases("?customer_id=nobody").await.text(), "[]");
    for wrong in ["?start=2026-01-01", "?start=2026-01-01&end=x"] {
        assert_eq!(cases(wrong).await.status, 400, "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn inserting_expiring_and_resetting() {
    let kit = kit(small());
    let post = async |route: &str, body: &str| {
        kit.control(Method::POST, &format!("/__sandbox/{route}"), body)
            .await
    };
    let reply = post(
        "insert",
        r#"{"count":3,"customer_id":"org_20","date":"2025-05-05"}"#,
    )
    .await;
    assert_eq!(reply.text(), r#"{"inserted":3}"#);
    let day = Some((date(2025, 5, 5), date(2025, 5, 5)));
    assert_eq!(kit.sandbox.expected_rows(Some("org_20"), day).len(), 3);
    assert_eq!(post("insert", r#"{"count":2}"#).await.status, 200);
    for wrong in [
        "",
        "{}",
        r#"{"count":1,"more":1}"#,
        r#"{"count":10001}"#,
        r#"{"count":1,"customer_id":"nobody"}"#,
        r#"{"count":1,"date":"yesterday"}"#,
    ] {
        assert_eq!(post("insert", wrong).await.status, 400, "{wrong}");
    }
    let id = kit.open(100).await;
    assert_eq!(post("expire", "").await.text(), r#"{"expired":1}"#);
    assert_eq!(kit.next(&id).await.unwrap().status, 404);
    kit.sandbox.fault(SimFault::on_any(FaultKind::DropBefore));
    assert_eq!(post("reset", "").await.text(), r#"{"reset":true}"#);
    assert_eq!(kit.all().len(), 600);
    assert_eq!(
        (kit.sandbox.counts().total(), kit.sandbox.requests().len()),
        (0, 0)
    );
    assert_eq!(kit.customers("").await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn other_routes_and_methods() {
    let kit = kit(small());
    for path in [
        "/__sandbox",
        "/__sandbox/",
        "/__sandbox/nothing",
        "/__sandbox/counts/x",
        "/__sandbox//counts",
        "/__sandbox/__sandbox/counts",
    ] {
        assert_eq!(
            kit.control(Method::GET, path, "").await.status,
            404,
            "{path}"
        );
    }
    let reply = kit.control(Method::GET, "/__sandbox/reset", "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
    assert_eq!(
        kit.control(Method::POST, "/__sandbox/counts", "")
            .await
            .status,
        405
    );
    assert_eq!(kit.sandbox.counts().total(), 0);
}
