//! What the console reads: the story of each request, what is remembered, who calls, and the
//! settings in force.

use msp_gateway::clock::{Duration, sleep};
use msp_gateway::sandbox::{FaultKind, SimFault};
use serde_json::{Value, json};

use crate::whole::{
    ALL, SETTINGS, Whole, assert_no_vendor_key, caller, get, search, secrets, world,
};

const RANGE: &str = "{\"date_range\":{\"start\":\"2026-11-01\",\"end\":\"2026-11-20\"}}";

fn whole(more: &str) -> Whole {
    let callers = caller("all", "requests_per_minute = 600\n")
        + &caller("two", "customers = [\"org_1\", \"org_2\"]\n");
    Whole::with(&format!("{SETTINGS}{more}{callers}"), &secrets(), world())
}

async fn read(whole: &Whole, target: &str) -> Value {
    let reply = whole.ask_admin(get(target, "")).await;
    assert_eq!(reply.status, 200, "{target}");
    reply.json()
}

async fn requests(whole: &Whole, query: &str) -> Vec<Value> {
    let found = read(whole, &format!("/admin/requests?{query}")).await;
    found["requests"].as_array().unwrap().clone()
}

/// The story of the last request that the filter takes.
async fn story(whole: &Whole, query: &str) -> Value {
    let last = requests(whole, query).await[0].clone();
    let id = last["request_id"].as_str().unwrap();
    read(whole, &format!("/admin/requests/{id}")).await
}

fn stages(story: &Value) -> Vec<(&str, &str, u64)> {
    let stages = story["stages"].as_array().unwrap().iter();
    stages
        .map(|stage| {
            let text = |name: &str| stage[name].as_str().unwrap_or("");
            let ms = stage["took_ms"].as_f64().unwrap();
            (text("stage"), text("operation"), ms as u64)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_tells_where_its_time_went() {
    let whole = whole("");
    whole
        .sandbox
        .fault(SimFault::on_any(FaultKind::Latency { ms: 300 }));
    let reply = whole.ask(search(ALL, RANGE)).await;
    let told = story(&whole, "route=case_search").await;
    assert_eq!(told["request_id"], reply.header("x-request-id"));
    assert_eq!(
        (&told["caller"], &told["status"], &told["outcome"]),
        (&json!("all"), &json!(200), &json!("miss"))
    );
    assert_eq!(told["cache"]["forward"], "uri-miss");
    assert_eq!(told["why"], "Nothing was cached, so the vendor was called.");
    let times = &told["times_ms"];
    assert!(times["vendor"].as_f64().unwrap() >= 300.0, "{told}");
    let parts = [
        "slot_wait",
        "budget_wait",
        "retry_pause",
        "vendor",
        "shared_wait",
        "own",
    ]
    .map(|part| times[part].as_f64().unwrap());
    assert!(
        (parts.iter().sum::<f64>() - times["total"].as_f64().unwrap()).abs() < 0.01,
        "{times}"
    );
    assert_eq!(stages(&told)[0].0, "vendor_call");
    assert_eq!(told["stages"][0]["status"], 200);
    // A hit asks nobody.
    whole.ask(search(ALL, RANGE)).await;
    let told = story(&whole, "outcome=hit").await;
    assert_eq!(
        (&told["vendor_calls"], &told["why"]),
        (&json!(0), &json!("The cached answer was fresh."))
    );
    assert_eq!(told["stages"], json!([]));
    assert!(told["cache"]["ttl_s"].as_i64().unwrap() > 50, "{told}");
}

#[tokio::test(start_paused = true)]
async fn one_that_shares_a_call_says_that_it_waited_for_it() {
    let whole = whole("");
    whole
        .sandbox
        .fault(SimFault::on_any(FaultKind::Latency { ms: 400 }));
    let ask = || whole.ask(get("/msp/customers", ALL));
    tokio::join!(ask(), ask());
    let told = story(&whole, "outcome=collapsed").await;
    assert_eq!(told["vendor_calls"], 0);
    let times = &told["times_ms"];
    assert!(times["shared_wait"].as_f64().unwrap() >= 400.0, "{told}");
    assert_eq!(
        (&times["own"], &times["vendor"]),
        (&json!(0.0), &json!(0.0))
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_tells_what_the_vendor_did() {
    let whole = whole("");
    whole.sandbox.fault(SimFault::on_any(FaultKind::Status {
        status: 503,
        body: None,
        retry_after: None,
        processed: false,
    }));
    let reply = whole.ask(get("/msp/customers", ALL)).await;
    assert_eq!(reply.status, 502);
    let told = story(&whole, "status=5xx").await;
    assert_eq!(
        (&told["code"], &told["outcome"]),
        (&json!("vendor_error"), &json!("error"))
    );
    assert_eq!(
        told["why"],
        "Nothing usable was cached, and the vendor gave no answer."
    );
    assert!(
        told["times_ms"]["retry_pause"].as_f64().unwrap() > 0.0,
        "{told}"
    );
    let tries: Vec<_> = told["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|stage| stage["stage"] == "vendor_call")
        .map(|s| (&s["status"], &s["outcome"]))
        .collect();
    assert!(!tries.is_empty());
    assert!(
        tries
            .iter()
            .all(|one| *one == (&json!(503), &json!("server_error"))),
        "{told}"
    );
    // Enough of them open the circuit: then nothing is sent, and the story says so.
    for _ in 0..20 {
        whole.ask(get("/msp/customers", ALL)).await;
        sleep(Duration::from_secs(2)).await;
    }
    let (one, other) = tokio::join!(
        whole.ask(get("/msp/customers", ALL)),
        whole.ask(search(ALL, RANGE))
    );
    let codes = [one.code(), other.code()];
    assert!(
        codes.iter().any(|code| code == "vendor_unavailable"),
        "one may probe: {codes:?}"
    );
    let told = story(&whole, "status=503").await;
    assert_eq!(told["stages"][0]["stage"], "not_sent", "{told}");
    assert_eq!(told["stages"][0]["outcome"], "circuit_open");
    assert_eq!(
        told["why"],
        "Nothing usable was cached, and the vendor could not be called."
    );
    assert_eq!(told["vendor_calls"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_budget_is_a_stage_of_its_own() {
    let slow = SETTINGS.replacen("requests_per_minute = 60000", "requests_per_minute = 6", 1);
    let callers = caller("all", "");
    let whole = Whole::with(&format!("{slow}{callers}"), &secrets(), world());
    whole.ask(get("/msp/customers", ALL)).await;
    whole.ask(search(ALL, RANGE)).await;
    let told = story(&whole, "route=case_search").await;
    let all = stages(&told);
    assert_eq!(all[0].0, "budget_wait", "{told}");
    assert!(
        all[0].2 > 5_000 && told["times_ms"]["budget_wait"].as_f64().unwrap() > 5_000.0,
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_and_unknown_callers_are_kept_without_their_query() {
    let whole = whole("");
    whole
        .ask(get("/msp/customers?fields=id&secret=1", ALL))
        .await;
    sleep(Duration::from_millis(1)).await;
    whole.ask(get("/nowhere?token=abc", ALL)).await;
    sleep(Duration::from_millis(1)).await;
    whole
        .ask(get("/msp/customers", "x-api-key: k-wrong\r\n"))
        .await;
    let refused = requests(&whole, "status=4xx").await;
    let said: Vec<_> = refused
        .iter()
        .map(|r| {
            (
                r["caller"].as_str().unwrap(),
                r["code"].as_str().unwrap(),
                r["path"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("anonymous", "authentication_required", "/msp/customers"),
            ("anonymous", "not_found", "/nowhere"),
            ("all", "invalid_query", "/msp/customers"),
        ]
    );
    assert_eq!(requests(&whole, "caller=all").await.len(), 1);
    assert_eq!(requests(&whole, "limit=2").await.len(), 2);
    let unknown = whole
        .ask_admin(get(&format!("/admin/requests/{}", "0".repeat(32)), ""))
        .await;
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (404, "not_found")
    );
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_told_as_they_stand() {
    let whole = whole("");
    whole.ask(search(ALL, RANGE)).await;
    let listed = read(&whole, "/admin/snapshots").await;
    assert_eq!(
        (&listed["total"], &listed["bytes_max"]),
        (&json!(1), &json!(268_435_456))
    );
    let one = &listed["snapshots"][0];
    assert_eq!(
        (&one["customer"], &one["start"], &one["end"]),
        (&Value::Null, &json!("2026-11-01"), &json!("2026-11-20"))
    );
    assert_eq!(
        (&one["standing"], &one["current"], &one["purged"]),
        (&json!("fresh"), &json!(true), &json!(false))
    );
    assert!(
        one["rows"].as_u64().unwrap() > 0 && one["bytes"].as_u64().unwrap() > 3000,
        "{one}"
    );
    // A soft purge makes it stale, and says so.
    whole
        .ask_admin(crate::whole::post(
            "/admin/purge",
            "content-type: application/json\r\n",
            "{\"kind\":\"cases\"}",
        ))
        .await;
    let one = read(&whole, "/admin/snapshots?limit=1").await["snapshots"][0].clone();
    assert_eq!(
        (&one["standing"], &one["purged"]),
        (&json!("stale"), &json!(true))
    );
    let filtered = "{\"filters\":{\"type\":\"x\"}}";
    whole.ask(search(ALL, filtered)).await;
    let listed = read(&whole, "/admin/snapshots").await;
    let shown = listed["snapshots"].as_array().unwrap().iter();
    assert!(
        shown
            .clone()
            .any(|one| one["other_members"] == "\"filters\":{\"type\":\"x\"}"),
        "{listed}"
    );
}

#[tokio::test(start_paused = true)]
async fn callers_are_told_with_their_ledgers_and_limits() {
    let whole = whole("");
    whole.ask(get("/msp/customers", ALL)).await;
    whole.ask(get("/msp/customers", ALL)).await;
    whole.ask(get("/msp/customers?fields=nope", ALL)).await;
    whole.ask(get("/msp/customers", "")).await;
    let told = read(&whole, "/admin/callers").await;
    let all = &told["callers"][0];
    assert_eq!(
        (&all["name"], &all["role"], &all["customers"]),
        (&json!("all"), &json!("reader"), &Value::Null)
    );
    assert_eq!(
        all["asked"],
        json!({"total": 3, "good": 2, "refused": 1, "failed": 0, "left": 0})
    );
    assert_eq!(
        (&all["vendor_calls"], &all["vendor_calls_saved"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(all["requests_per_minute"], 600);
    assert!(
        all["last_used"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-20T12:")
    );
    let two = &told["callers"][1];
    assert_eq!(
        (&two["customers"], &two["customers_total"]),
        (&json!(["org_1", "org_2"]), &json!(2))
    );
    assert_eq!(
        (&two["last_used"], &two["requests_per_minute"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(told["anonymous"]["asked"]["refused"], 1);
}

#[tokio::test(start_paused = true)]
async fn settings_are_told_with_their_sources_and_the_last_reload() {
    let whole = whole("");
    let setting = |told: &Value, name: &str| {
        let all = told["settings"].as_array().unwrap().iter();
        all.clone()
            .find(|one| one["setting"] == name)
            .unwrap()
            .clone()
    };
    let told = read(&whole, "/admin/settings").await;
    assert_eq!(told["last_reload"], Value::Null);
    let fresh = setting(&told, "customers.fresh");
    assert_eq!(
        fresh,
        json!({"setting": "customers.fresh", "value": "\"1m\"", "source": "test.toml", "needs_restart": false, "waiting": null})
    );
    assert_eq!(setting(&told, "limits.exports_max")["source"], "default");
    assert_eq!(setting(&told, "listen.public")["needs_restart"], true);
    assert_eq!(
        setting(&told, "console.history_bytes_max")["needs_restart"],
        true
    );
    assert_eq!(setting(&told, "callers[1].name")["value"], "\"two\"");
    let text = told.to_string();
    assert_no_vendor_key(&text, "the settings");
    let hash = msp_gateway::access::CallerKeyHash::of(b"k-all").to_string();
    assert!(!text.contains(&hash), "a whole key hash is shown");
    // A reload that is taken in part.
    let later = SETTINGS.replacen("fresh = \"1m\"", "fresh = \"2m\"", 1)
        + "[cache]\nbytes_max = \"128MiB\"\n";
    let settings = crate::whole::settings(&format!("{later}{}", caller("all", "")));
    let applied = whole
        .app
        .apply(&settings, &secrets())
        .map_err(|why| why.to_string());
    whole.app.note_reload(&applied);
    let told = read(&whole, "/admin/settings").await;
    assert_eq!(setting(&told, "customers.fresh")["value"], "\"2m\"");
    let cache = setting(&told, "cache.bytes_max");
    assert_eq!(
        (&cache["value"], &cache["waiting"]),
        (&json!("\"256MiB\""), &json!("\"128MiB\""))
    );
    assert_eq!(told["last_reload"]["outcome"], "applied");
    assert_eq!(
        told["last_reload"]["not_taken"],
        json!(["cache.bytes_max: a change needs a restart"])
    );
    whole
        .app
        .note_reload(&Err("test.toml:3: wiv.timeout: must be a time".to_owned()));
    let told = read(&whole, "/admin/settings").await;
    assert_eq!(told["last_reload"]["outcome"], "refused");
    assert_eq!(
        told["last_reload"]["why"],
        "test.toml:3: wiv.timeout: must be a time"
    );
    assert_eq!(
        setting(&told, "customers.fresh")["value"],
        "\"2m\"",
        "the old ones stay in force"
    );
}

#[tokio::test(start_paused = true)]
async fn history_costs_no_more_than_it_may() {
    let whole = whole("[console]\nhistory_bytes_max = 0\n");
    whole.ask(get("/msp/customers", ALL)).await;
    let found = read(&whole, "/admin/requests").await;
    assert_eq!(found, json!({"requests": [], "matched": 0, "kept_max": 0}));
    let history = read(&whole, "/admin/history").await;
    assert_eq!(history, json!({"window": "10m", "samples": []}));
}
