//! Both vendors in one answer, while one of them is away.

use serde_json::{Value, json};

use crate::process::{World, caller, everyone};

fn ids(body: &Value) -> Vec<String> {
    let rows = body["customers"].as_array().unwrap();
    let ids = rows.iter().map(|row| row["customer_id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nable_the_rest_is_there_and_everybody_is_told() {
    let callers = everyone("alice") + &caller("scoped", "customers = [\"org_1\", \"org_2\"]");
    let world = World::start(600, &callers, &[]);
    let down = json!({"vendor": "nable", "down": true}).to_string();
    world.vendors.tell("faults", &down).await;
    let answer = world.get("alice", "/v1/overview").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["parts"]["wiv.customers"]["status"], "fresh");
    assert_eq!(body["parts"]["wiv.cases"]["status"], "fresh");
    let part = &body["parts"]["nable.billing"];
    assert_eq!(part["status"], "failed", "{part}");
    let code = part["code"].as_str().unwrap().to_owned();
    assert!(
        ["vendor_error", "vendor_unavailable"].contains(&&*code),
        "{part}"
    );
    assert_eq!(ids(&body).len(), 60);
    assert_eq!(body["contracts"], json!([]));
    assert_eq!(answer.header("etag"), "");

    // The totals are those of the vendor's own list of the period.
    let (start, end) = (&body["period"]["start"], &body["period"]["end"]);
    let period = format!(
        "?start={}&end={}",
        start.as_str().unwrap(),
        end.as_str().unwrap()
    );
    let cases = world.vendors.cases(&period).await;
    let totals = body["customers"].as_array().unwrap().iter();
    let total: u64 = totals
        .map(|row| row["cases"]["total"].as_u64().unwrap())
        .sum();
    assert_eq!(total as usize, cases.len());

    // All or nothing: the missing part's own status and code.
    let answer = world.get("alice", "/v1/overview?require=all").await;
    let outcome = answer.outcome();
    let whole = match &*outcome.1 {
        // As the connection was closed, or as nothing was sent any more.
        "vendor_error" => 502,
        _ => 503,
    };
    assert!(["vendor_error", "vendor_unavailable"].contains(&&*outcome.1));
    assert_eq!(outcome.0, whole, "{}", answer.text());

    // The metrics say so.
    let metrics = world.metrics().await;
    let failed = metrics.lines().any(|line| {
        line.starts_with("msp_gateway_vendor_requests_total{")
            && line.contains("vendor=\"nable\"")
            && line.contains("operation=\"invoices\"")
            && !line.contains("outcome=\"ok\"")
            && !line.ends_with(" 0")
    });
    assert!(failed, "{metrics}");
    let nable_good = metrics.lines().any(|line| {
        line.starts_with("msp_gateway_vendor_requests_total{")
            && line.contains("vendor=\"nable\"")
            && line.contains("outcome=\"ok\"")
            && !line.ends_with(" 0")
    });
    assert!(!nable_good, "{metrics}");

    // A scoped caller sees its own and no billing.
    let answer = world.get("scoped", "/v1/overview").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(ids(&body), ["org_1", "org_2"]);
    assert_eq!(
        body["parts"]["nable.billing"]["code"],
        "billing_not_allowed"
    );

    // N-able comes back, and so does its part.
    world.vendors.tell("faults", "{\"clear\":true}").await;
    let deadline = msp_gateway::clock::Instant::now() + crate::process::PATIENCE;
    loop {
        let answer = world.get("alice", "/v1/overview?require=all").await;
        if answer.status == 200 {
            let body = answer.json();
            assert_eq!(body["parts"]["nable.billing"]["status"], "fresh");
            assert!(!body["contracts"].as_array().unwrap().is_empty());
            break;
        }
        assert!(
            msp_gateway::clock::Instant::now() < deadline,
            "{}",
            answer.text()
        );
    }
    world.hold_to_openapi("alice").await;
    world.hold().await;
}
