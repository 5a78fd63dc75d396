//! Canaries: the vendors' keys and scroll ids come out nowhere, whatever the vendors answer.

use msp_gateway::clock::Instant;
use msp_gateway::sandbox::{NABLE_KEY, WIV_KEY};
use serde_json::{Value, json};

use crate::kit::{continued, first};
use crate::process::{Answer, PART, PATIENCE, Vendors, Web, World, caller, everyone};

/// Scrolls whose ids are searched for.
const SCROLLS: usize = 400;

/// The ids that the vendor is going to give: the same seed makes the same ones.
async fn scroll_ids(web: &Web) -> Vec<String> {
    let twin = Vendors::start(600, web);
    let url = format!("http://{}/v2/cases/msp/search", twin.address);
    let headers = [("x-api-key", WIV_KEY), ("content-type", "application/json")];
    let mut ids = Vec::new();
    for _ in 0..SCROLLS {
        let answer = web.send("POST", &url, &headers, &first(1, "")).await;
        let id = answer.json()["next_page_key"]["scroll_id"].clone();
        ids.push(id.as_str().unwrap().to_owned());
    }
    ids
}

fn status(status: u16, said: &str) -> Value {
    let body = json!({"error": said, "message": said, "next_page_key": {"scroll_id": said}});
    json!({"kind": "status", "status": status, "body": body})
}

/// What goes wrong at a vendor. Where it can say anything, it says the key and a scroll id.
fn faults(said: &str) -> Vec<Value> {
    let status = |code: u16| status(code, said);
    let text = |status: u16| json!({"kind": "status", "status": status, "body": said});
    vec![
        status(500),
        status(400),
        status(404),
        // The shape is not what it should be, with a good status.
        status(200),
        text(200),
        text(500),
        json!({"kind": "malformed_json"}),
        json!({"kind": "truncated_rows"}),
        json!({"kind": "html_error"}),
        json!({"kind": "wrong_content_type", "content_type": said}),
        json!({"kind": "redirect", "location": format!("/elsewhere?key={said}")}),
        json!({"kind": "redirect", "status": 307, "location": format!("http://127.0.0.1:1/{said}")}),
        json!({"kind": "cut_body"}),
        json!({"kind": "drop_before"}),
        json!({"kind": "drop_after"}),
        json!({"kind": "scroll_expired"}),
        json!({"kind": "repeat_page"}),
        json!({"kind": "empty_page_with_cursor"}),
    ]
}

/// Whatever the vendors' operations are asked through.
async fn ask(world: &World, operation: &str, nth: usize) -> Answer {
    // Each asks for something that no cache has.
    let month = format!("20{:02}{:02}", nth / 12 % 100, 1 + nth % 12);
    match operation {
        "customers" => {
            let url = format!("{}/admin/purge", world.admin);
            let headers = [("content-type", "application/json")];
            let purge = "{\"kind\":\"customers\",\"soft\":false}";
            world.web.send("POST", &url, &headers, purge).await;
            world.get("alice", "/msp/customers").await
        }
        "search" => {
            world
                .search("alice", "", &first(5, &format!(",\"n\":{nth}")))
                .await
        }
        "continue" => {
            let body = first(100, &format!(",\"continued\":{nth}"));
            let answer = world.search("alice", "", &body).await;
            let Some(token) = crate::process::page_of_maybe(&answer).and_then(|page| page.1) else {
                return answer;
            };
            world.search("alice", "", &continued(&token, None)).await
        }
        "invoices" => world.get("alice", &format!("/v1/billing/{month}")).await,
        "billing" => {
            world
                .get("alice", &format!("/v1/billing/202001/C-{nth}"))
                .await
        }
        _ => {
            let drop_in = format!("/ws/rest/V1/PSA_API/PSABillableServices/-/202002/C-{nth}");
            let bearer = format!("Bearer {}", crate::process::key("alice"));
            world
                .send("POST", &drop_in, &[("authorization", &bearer)], "")
                .await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_keys_nor_scroll_ids_come_out_whatever_the_vendors_say() {
    let callers = everyone("alice") + &caller("scoped", "customers = [\"org_1\"]");
    let world = World::start(
        1_200,
        &callers,
        &[
            ("MSP_GATEWAY__PAGINATION__REWALKS_MAX", "1"),
            // Every scroll that is lost counts until it has expired.
            ("MSP_GATEWAY__PAGINATION__OPEN_SCROLLS_MAX", "400"),
            ("MSP_GATEWAY__PAGINATION__VENDOR_PAGE_SIZE", "100"),
        ],
    );
    let ids = scroll_ids(&world.web).await;
    for id in &ids {
        // All ids begin alike; where they differ, any part of them tells.
        let own = id[40..].trim_end_matches('=');
        let parts = (0..own.len() / PART).map(|at| own[at * PART..][..PART].to_owned());
        world.parts.lock().unwrap().extend(parts);
    }
    // Each says what it knows.
    let by_wiv = format!("{WIV_KEY} {}", ids[0]);
    let mut statuses = std::collections::BTreeSet::new();
    let mut nth = 0;
    let operations = [
        "customers",
        "search",
        "continue",
        "invoices",
        "billing",
        "drop-in",
    ];
    for operation in operations {
        let arrives_as = if operation == "drop-in" {
            "billing"
        } else {
            operation
        };
        let is_wiv = ["customers", "search", "continue"].contains(&operation);
        let said = if is_wiv { &*by_wiv } else { NABLE_KEY };
        let mut faults = faults(said);
        if is_wiv {
            faults.push(status(200, &ids[0]));
        }
        for mut fault in faults {
            // Two in a row: the first is tried again where that is safe.
            fault["operation"] = arrives_as.into();
            fault["times"] = 2.into();
            world.vendors.tell("faults", &fault.to_string()).await;
            let before = world.vendors.asked(arrives_as).await;
            let deadline = Instant::now() + PATIENCE;
            // For a moment a failure answers every request; after that the vendor is called again.
            while world.vendors.asked(arrives_as).await == before {
                assert!(
                    Instant::now() < deadline,
                    "{operation} is not asked: {fault}"
                );
                nth += 1;
                statuses.insert(ask(&world, operation, nth).await.status);
            }
            world.vendors.tell("faults", "{\"clear\":true}").await;
            // Good calls between, so that no circuit opens and all faults are met.
            let good = match operation {
                "customers" | "search" | "continue" => "search",
                _ => "billing",
            };
            for _ in 0..3 {
                nth += 1;
                let answer = ask(&world, good, nth).await;
                assert!(
                    [200, 404].contains(&answer.status),
                    "{fault}: {}",
                    answer.text()
                );
            }
        }
    }
    // What is said about a search that is under way.
    let explain = format!(
        "{}/admin/explain?caller=alice&method=POST&target=/v2/cases/msp/search&body=%7B%7D",
        world.admin
    );
    world.search("alice", "", &first(5, "")).await;
    let explained = world.web.get(&explain).await;
    assert_eq!(explained.status, 200, "{}", explained.text());
    for id in ids
        .iter()
        .chain([&WIV_KEY.to_owned(), &NABLE_KEY.to_owned()])
    {
        assert!(!explained.text().contains(id.as_str()));
    }
    // At last what the gateway leaves a vendor alone for: a refused key, too many requests.
    for (operation, code, told) in [
        ("search", 401, "vendor_credential_rejected"),
        ("billing", 429, "vendor_budget_exhausted"),
    ] {
        let mut fault = status(code, &by_wiv);
        fault["operation"] = operation.into();
        world.vendors.tell("faults", &fault.to_string()).await;
        nth += 1;
        let answer = ask(&world, operation, nth).await;
        assert_eq!(answer.code(), told);
    }
    for status in [200, 404, 502] {
        assert!(statuses.contains(&status), "{statuses:?}");
    }
    // The ids searched for were those that the vendor gave: it shows them as hashes.
    let requests = world.vendors.ask("requests").await.text().to_owned();
    let hash = |id: &String| format!("scroll:{}", &blake3::hash(id.as_bytes()).to_hex()[..8]);
    let met = ids.iter().filter(|id| requests.contains(&hash(id))).count();
    assert!(met >= 5, "{met}");
    // A redirect is not followed.
    assert!(!requests.contains("elsewhere"));
    world.hold_to_openapi("alice").await;
    world.hold().await;
}
