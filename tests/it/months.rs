//! A month with many contracts in one answer: what is there, what is missing, and what comes later.

use msp_gateway::clock::{Clock, Duration, sleep};
use serde_json::{Value, json};

use crate::matrix::break_vendors;
use crate::whole::{ALL, SETTINGS, Whole, caller, get, secrets, world};

const OVERVIEW: &str = "/v1/overview?timeframe=202609";

fn gateway(contracts: usize, nable_rpm: u32) -> Whole {
    let budget = format!(
        "account_id = \"SANDBOX\"\napi_key_env = \"UNUSED\"\nrequests_per_minute = {nable_rpm}"
    );
    let text = SETTINGS.replace(
        "account_id = \"SANDBOX\"\napi_key_env = \"UNUSED\"\nrequests_per_minute = 60000",
        &budget,
    ) + &caller("all", "role = \"operator\"");
    // What is fetched little by little must not grow old meanwhile.
    let text = text.replace(
        "[billing.closed]\nfresh = \"1m\"",
        "[billing.closed]\nfresh = \"1h\"",
    );
    assert!(text.contains(&budget) && text.contains("\"1h\""));
    let mut world = world();
    world.contracts = contracts;
    Whole::with(&text, &secrets(), world)
}

async fn part(whole: &Whole, more: &str) -> (Value, usize) {
    let reply = whole.ask(get(&format!("{OVERVIEW}{more}"), ALL)).await;
    assert_eq!(reply.status, 200, "{}", reply.code());
    let body = reply.json();
    let contracts = body["contracts"].as_array().unwrap().len();
    (body["parts"]["nable.billing"].clone(), contracts)
}

#[tokio::test(start_paused = true)]
async fn a_month_too_wide_for_its_deadline_is_partial_and_soon_whole() {
    let whole = gateway(150, 60);
    let begun = Clock::system().now();
    let (first, there) = part(&whole, "").await;
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(first["status"], "partial", "{first}");
    assert_eq!(first["missing"], json!(150 - there), "{first}");
    assert_eq!(first["code"], "vendor_budget_exhausted", "{first}");
    assert!(there > 20, "{there}");
    // All or nothing says why.
    let all = whole
        .ask(get(&format!("{OVERVIEW}&require=all"), ALL))
        .await;
    // Whichever of the missing contracts comes first.
    let whys = [(503, "vendor_budget_exhausted"), (504, "vendor_timeout")];
    assert!(whys.contains(&(all.status, &*all.code())), "{}", all.code());
    // The rest goes on although nobody asks.
    sleep(Duration::from_secs(240)).await;
    let (then, there) = part(&whole, "&require=all").await;
    assert_eq!(
        (then["status"].clone(), there),
        (json!("fresh"), 150),
        "{then}"
    );
    assert!(then["missing"].is_null());
    let counts = whole.sandbox.requests();
    let bills = counts.iter().filter(|r| r.operation == "billing");
    assert_eq!(bills.count(), 150, "each contract was asked for once");
}

#[tokio::test(start_paused = true)]
async fn whatever_an_invoice_names_is_asked_for_or_counted() {
    for (contracts, asked, missing, code) in [
        (
            r#"[{"ContractID":"A B"},{"ContractID":"C(1)"},{"ContractID":"K+1"}]"#,
            &["A%20B", "C%281%29", "K%2B1"][..],
            0,
            Value::Null,
        ),
        (
            r#"[{"ContractID":"ok"},{"ContractID":"a/b"},{"ContractNumber":"7"}]"#,
            &["ok"],
            2,
            json!("vendor_protocol_error"),
        ),
        (
            r#"[{"ContractID":"../x"}]"#,
            &[],
            1,
            json!("vendor_protocol_error"),
        ),
    ] {
        let whole = gateway(3, 60_000);
        let invoices = format!(r#"{{"InvoicesReady":[{{"Contracts":{contracts}}}]}}"#);
        let bill = r#"{"Cid":1,"PSA Billable services":[{"Sku":"S1"}]}"#;
        for (operation, body) in [("invoices", &*invoices), ("billing", bill)] {
            let fault =
                json!({"operation": operation, "kind": "status", "status": 200, "body": body});
            break_vendors(&whole, &fault.to_string()).await;
        }
        let reply = whole.ask(get(OVERVIEW, ALL)).await;
        let body = reply.json();
        let part = &body["parts"]["nable.billing"];
        let status = if missing == 0 { "fresh" } else { "partial" };
        assert_eq!(part["status"], status, "{contracts}: {part}");
        assert_eq!(part["code"], code, "{contracts}");
        assert_eq!(
            part["missing"].as_u64().unwrap_or(0),
            missing,
            "{contracts}"
        );
        let services = body["contracts"].as_array().unwrap().iter();
        let services: Vec<_> = services.map(|c| c["services"][0]["Sku"].clone()).collect();
        assert_eq!(services, vec![json!("S1"); asked.len()], "{contracts}");
        let seen = whole.sandbox.requests();
        for id in asked {
            let path = format!("/PSABillableServices/SANDBOX/202609/{id}");
            assert!(seen.iter().any(|r| r.target.ends_with(&path)), "{path}");
            // What an answer names can be asked for by itself.
            let one = whole
                .ask(get(&format!("/v1/billing/202609/{id}"), ALL))
                .await;
            assert_eq!(one.status, 200, "{id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_bill_that_is_not_there_leaves_the_others() {
    for (fault, code) in [
        (
            json!({"operation": "billing", "kind": "status", "status": 500}),
            "vendor_error",
        ),
        (
            json!({"operation": "billing", "kind": "status", "status": 200,
                   "body": "{\"AccountName\":\"x\"}"}),
            "billing_not_found",
        ),
        (
            json!({"operation": "billing", "kind": "status", "status": 200,
                   "body": "{\"message\":\"Unauthorized\",\"http_status_code\":401}"}),
            "vendor_credential_rejected",
        ),
    ] {
        let whole = gateway(3, 60_000);
        let contracts = whole.sandbox.contracts();
        // One is remembered, so that the fault meets the others alone.
        let first = format!("/v1/billing/202609/{}", contracts[0].id);
        assert_eq!(whole.ask(get(&first, ALL)).await.status, 200);
        break_vendors(&whole, &fault.to_string()).await;
        let (part, there) = part(&whole, "").await;
        assert_eq!(
            (part["status"].clone(), there),
            (json!("partial"), 1),
            "{part}"
        );
        assert_eq!(
            (&part["missing"], &part["code"]),
            (&json!(2), &json!(code)),
            "{part}"
        );
    }
}
