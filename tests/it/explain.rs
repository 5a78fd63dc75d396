//! `/admin/explain` predicts what would happen to a request, without sending it.

use msp_gateway::clock::{Duration, sleep};
use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};
use serde_json::{Value, json};

use crate::whole::{SETTINGS, Whole, caller, get, post, secrets, world};

const KEY: &str = "x-api-key: k-all\r\n";
const SEARCH: &str = "/v2/cases/msp/search";
const RANGE: &str = "{\"date_range\":{\"start\":\"2026-11-01\",\"end\":\"2026-11-20\"}}";

fn whole() -> Whole {
    let callers = caller("two", "customers = [\"org_1\", \"org_2\"]\n") + &caller("all", "");
    Whole::with(&format!("{SETTINGS}{callers}"), &secrets(), world())
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// The explanation of a question; no vendor is asked for it.
async fn explain(whole: &Whole, query: &str) -> Value {
    let before = whole.vendor_calls();
    let reply = whole
        .ask_admin(get(&format!("/admin/explain?{query}"), ""))
        .await;
    assert_eq!(whole.vendor_calls(), before);
    reply.json()
}

async fn search(whole: &Whole, target: &str) -> Value {
    let (target, body) = (encoded(target), encoded(RANGE));
    explain(whole, &format!("method=POST&target={target}&body={body}")).await
}

/// Its standing, lane, and the operation that would be called.
fn verdict(explained: &Value) -> Value {
    let call = &explained["call"]["operation"];
    json!([explained["standing"], explained["lane"], call])
}

#[tokio::test(start_paused = true)]
async fn every_standing_says_its_lane_and_call() {
    let whole = whole();
    let customers = "target=/msp/customers?fields=id";
    let seen = explain(&whole, customers).await;
    assert_eq!(
        verdict(&seen),
        json!(["expired", "interactive", "customers"])
    );
    assert_eq!(
        (&seen["held"], &seen["age_s"]),
        (&json!(false), &Value::Null)
    );
    whole.ask(get("/msp/customers", KEY)).await;
    // Jitter shortens a minute of freshness by six seconds at most.
    for (after_s, expected) in [
        (30, json!(["fresh", null, null])),
        (70, json!(["stale", "refresh", "customers"])),
        (600, json!(["on_error", "refresh", "customers"])),
        (7200, json!(["expired", "interactive", "customers"])),
    ] {
        let age = explain(&whole, customers).await["age_s"].as_u64().unwrap();
        sleep(Duration::from_secs(after_s - age)).await;
        let seen = explain(&whole, customers).await;
        assert_eq!(verdict(&seen), expected, "{seen}");
        assert_eq!(seen["age_s"], after_s);
        assert_eq!(seen["policy"]["fresh_s"], 60);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_down_says_what_it_is_cut_from() {
    let whole = whole();
    let one = format!("{SEARCH}?customer_id=org_1");
    let cold = search(&whole, &one).await;
    assert_eq!(verdict(&cold), json!(["expired", "interactive", "search"]));
    // Read to its end, so that it is complete.
    let export = "/v1/cases/export?start=2026-11-01&end=2026-11-20";
    assert_eq!(whole.ask(get(export, KEY)).await.status, 200);
    let all = search(&whole, SEARCH).await;
    assert_eq!(all["snapshot"]["end"], "complete");
    let cut = search(&whole, &one).await;
    assert_eq!(verdict(&cut), json!(["fresh", null, null]));
    assert_eq!(cut["derived_from"], all["identity"]);
    assert_ne!(cut["identity"], all["identity"]);
    // The request does what the explanation said.
    let before = whole.vendor_calls();
    let reply = whole
        .ask(post(
            &one,
            &format!("content-type: application/json\r\n{KEY}"),
            RANGE,
        ))
        .await;
    assert!(reply.header("cache-status").contains("detail=derived"));
    assert_eq!(whole.vendor_calls(), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_joined() {
    let whole = whole();
    let slow = FaultKind::Latency { ms: 5_000 };
    whole
        .sandbox
        .fault(SimFault::on(SimOperation::Customers, slow));
    let mut peer = whole.connect();
    peer.send(get("/msp/customers", KEY)).await;
    sleep(Duration::from_secs(1)).await;
    let seen = explain(&whole, "target=/msp/customers").await;
    assert_eq!(
        (&seen["held"], &seen["under_way"], &seen["call"]),
        (&json!(false), &json!(true), &Value::Null)
    );
    assert_eq!(peer.reply().await.unwrap().status, 200);
    let seen = explain(&whole, "target=/msp/customers").await;
    assert_eq!(seen["under_way"], false);
}

#[tokio::test(start_paused = true)]
async fn a_remembered_soft_failure_is_told_apart() {
    let whole = whole();
    let bill = "/v1/billing/202609/NOPE";
    assert_eq!(whole.ask(get(bill, KEY)).await.status, 404);
    let seen = explain(&whole, &format!("target={bill}")).await;
    assert_eq!(
        (&seen["held"], &seen["negative"], &seen["call"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    // It answered from memory, as it says.
    assert_eq!(whole.ask(get(bill, KEY)).await.status, 404);
    let saved = "vendor_calls_saved_total{reason=\"hit\",vendor=\"nable\"}";
    assert_eq!(whole.metric(saved).await, 1.0);
    sleep(Duration::from_secs(121)).await;
    let seen = explain(&whole, &format!("target={bill}")).await;
    assert_eq!(verdict(&seen), json!(["expired", "interactive", "billing"]));
    assert_eq!(seen["negative"], false);
}

#[tokio::test(start_paused = true)]
async fn an_overview_is_explained_by_its_parts() {
    let whole = whole();
    let query = "target=/v1/overview?timeframe=202609";
    let parts = explain(&whole, query).await["parts"].clone();
    for (part, operation) in [
        ("wiv.customers", "customers"),
        ("wiv.cases", "search"),
        ("nable.billing", "invoices"),
    ] {
        assert_eq!(parts[part]["call"]["operation"], operation);
    }
    // Who may not see billing is not told of it.
    let scoped = explain(&whole, &format!("{query}&caller=two")).await;
    assert_eq!(scoped["parts"]["nable.billing"], Value::Null);
    whole.ask(get("/v1/overview?timeframe=202609", KEY)).await;
    let parts = explain(&whole, query).await["parts"].clone();
    for part in ["wiv.customers", "wiv.cases", "nable.billing"] {
        assert_eq!(parts[part]["standing"], "fresh", "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_refused_in_the_same_words() {
    let whole = whole();
    let of = |query: &str| query.to_owned();
    for (query, code) in [
        (
            of("target=/v1/billing/202609&caller=two"),
            "billing_not_allowed",
        ),
        (
            format!(
                "method=POST&body=%7b%7d&caller=two&target={}",
                encoded("/v2/cases/msp/search?customer_id=org_3")
            ),
            "customer_not_allowed",
        ),
        (of("target=/openapi.json"), "invalid_query"),
        (of("target=/msp/customers?fields=nope"), "invalid_fields"),
    ] {
        assert_eq!(explain(&whole, &query).await["code"], code, "{query}");
    }
    // Refusals that ask no memory are no lookups.
    let scoped = format!("{SEARCH}?customer_id=org_3");
    let request = post(
        &scoped,
        "content-type: application/json\r\nx-api-key: k-two\r\n",
        "{}",
    );
    assert_eq!(whole.ask(request).await.status, 403);
    let lookups = "cache_lookups_total{kind=\"cases\",outcome=\"error\"}";
    assert_eq!(whole.metric(lookups).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_explained_as_long_as_a_search_takes_it() {
    let whole = whole();
    let target = "/admin/explain?method=POST&target=/v2/cases/msp/search";
    let of = |bytes: usize| format!("{{\"note\":\"{}\"}}", "x".repeat(bytes - 11));
    // As it stands in a target: what is no letter is escaped.
    let written = |bytes: usize| {
        let (start, end) = (encoded("{\"note\":\""), encoded("\"}"));
        format!("{start}{}{end}", "x".repeat(bytes - 11))
    };
    for bytes in [100, 1_024, 1_025, 4_096, 16_384] {
        let reply = whole
            .ask_admin(get(&format!("{target}&body={}", written(bytes)), ""))
            .await;
        assert_eq!(reply.status, 200, "{bytes}");
    }
    let json = "content-type: application/json\r\n";
    for (bytes, status) in [(100, 200), (1_025, 200), (65_536, 200), (65_537, 400)] {
        let reply = whole.ask_admin(post(target, json, &of(bytes))).await;
        assert_eq!(reply.status, status, "{bytes}");
        let searched = whole.ask(crate::whole::search(KEY, &of(bytes)));
        assert_eq!(searched.await.status == 200, status == 200, "{bytes}");
    }
    // One body, not two.
    let twice = post(&format!("{target}&body={}", encoded("{}")), json, "{}");
    assert_eq!(whole.ask_admin(twice).await.code(), "invalid_query");
}
