//! A view tells nothing of the rows that it does not show: two worlds that differ only in another
//! customer's cases look the same to a tenant.

use msp_gateway::sandbox::{self, CustomersEnvelope};
use serde_json::Value;

use crate::whole::{ALL, SETTINGS, Whole, caller, get, post, search, secrets, world};

const TENANT: &str = "x-api-key: k-tenant\r\n";

fn gateway(derive: bool) -> Whole {
    let tenant = caller("tenant", "customers = [\"org_1\", \"org_2\"]\n");
    let settings = match derive {
        true => SETTINGS.to_owned(),
        false => SETTINGS.replacen(
            "[cases.open]",
            "[cases]\nderive_customer = false\n[cases.open]",
            1,
        ),
    };
    let text = format!("{settings}{}{tenant}", caller("all", "role = \"operator\""));
    let world = sandbox::Options {
        customers_envelope: CustomersEnvelope::Data,
        ..world()
    };
    Whole::with(&text, &secrets(), world)
}

/// Two worlds; in the second, somebody else has more cases, before and between the tenant's.
fn worlds(derive: bool) -> [Whole; 2] {
    let worlds = [gateway(derive), gateway(derive)];
    assert!(worlds[1].sandbox.insert(30, Some("org_3"), None).is_some());
    worlds
}

/// Every page of a search: all that each answer holds but the tokens.
async fn pages(whole: &Whole, target: &str, size: usize) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut body = format!("{{\"max_returned_items\":{size}}}");
    loop {
        let reply = whole.ask(post(target, TENANT, &body)).await;
        assert_eq!(reply.status, 200);
        let mut page = reply.json();
        let names: Vec<_> = page.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["data", "next_page_key"], "{target}");
        let token = page["next_page_key"]["scroll_id"].take();
        pages.push(page);
        match token.as_str() {
            None => return pages,
            Some(token) => {
                body = format!("{{\"start_page_key\":{{\"scroll_id\":\"{token}\"}}}}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_cannot_tell_what_others_have() {
    const SEARCH: &str = "/v2/cases/msp/search";
    for derive in [true, false] {
        for warm in [false, true] {
            let mut seen = Vec::new();
            for whole in worlds(derive) {
                if warm {
                    // What all customers have is read whole before the tenant asks.
                    for _ in 0..2 {
                        assert_eq!(whole.ask(get("/v1/cases/export", ALL)).await.status, 200);
                    }
                }
                let mut told = Vec::new();
                for target in [SEARCH.to_owned(), format!("{SEARCH}?customer_id=org_1")] {
                    for size in [1, 7, 50, 500] {
                        told.extend(pages(&whole, &target, size).await);
                    }
                }
                for target in [
                    "/v1/cases/export",
                    "/v1/cases/export?format=csv",
                    "/v1/cases/export?customer_id=org_2&format=csv",
                    "/msp/customers",
                    "/msp/customers?fields=id,name",
                    "/v1/overview",
                ] {
                    let request = get(target, &format!("{TENANT}te: trailers\r\n"));
                    let reply = whole.ask(request).await;
                    assert_eq!(reply.status, 200, "{target}");
                    let mut headers = reply.headers.clone();
                    headers.remove("x-request-id");
                    headers.remove("date");
                    // Each snapshot draws its own lifetime.
                    let status = headers.remove("cache-status").unwrap();
                    let status = status.to_str().unwrap().to_owned();
                    told.push(status.split("ttl=").next().unwrap().into());
                    told.push(format!("{headers:?}").into());
                    told.push(String::from_utf8(reply.body).unwrap().into());
                }
                let refused = whole
                    .ask(post(&format!("{SEARCH}?customer_id=org_3"), TENANT, "{}"))
                    .await;
                assert_eq!(refused.status, 403);
                let mut refused = refused.json();
                refused["request_id"].take();
                told.push(refused);
                seen.push(told);
            }
            for (one, other) in seen[0].iter().zip(&seen[1]) {
                assert_eq!(one, other, "derive {derive}, warm {warm}");
            }
            assert_eq!(seen[0].len(), seen[1].len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_whole_of_what_was_asked_repeats_the_vendors_other_members() {
    let whole = gateway(true);
    let names = |reply: &crate::peer::Reply| -> Vec<String> {
        reply.json().as_object().unwrap().keys().cloned().collect()
    };
    let of_one = post("/v2/cases/msp/search?customer_id=org_1", ALL, "{}");
    // Asked of the vendor for itself, then for all, then cut from all.
    assert!(names(&whole.ask(&of_one).await).contains(&"total".to_owned()));
    assert!(names(&whole.ask(search(ALL, "{}")).await).contains(&"total".to_owned()));
    let whole = gateway(true);
    assert_eq!(whole.ask(get("/v1/cases/export", ALL)).await.status, 200);
    let cut = whole.ask(&of_one).await;
    assert!(cut.header("cache-status").contains("derived"));
    assert_eq!(names(&cut), ["data", "next_page_key"]);
}
