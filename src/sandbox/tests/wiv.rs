//! Tests of the simulated wiv.

use super::*;

#[tokio::test(start_paused = true)]
async fn customers_are_listed_whole_or_projected() {
    let kit = kit(small());
    let reply = kit.customers("").await.unwrap();
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/json")
    );
    let rows = reply.json();
    assert_eq!(rows.as_array().unwrap().len(), 20);
    assert_eq!(rows[0].as_object().unwrap().len(), 11);
    let reply = kit.customers("?fields=name,id").await.unwrap();
    for (row, customer) in reply
        .json()
        .as_array()
        .unwrap()
        .iter()
        .zip(kit.sandbox.customers())
    {
        assert_eq!(row.as_object().unwrap().len(), 2);
        assert_eq!(
            (row["customer_id"].as_str(), row["customer_name"].as_str()),
            (Some(&*customer.id), Some(&*customer.name))
        );
    }
    let reply = kit.customers("?fields=cost_impact%2Cid").await.unwrap();
    assert!(reply.json()[0].get("cost_impact").is_some());
    for fields in ["customer_id", "id,,name", "", "ID", "id, name", "id,nope"] {
        let reply = kit
            .customers(&format!("?fields={}", fields.replace(' ', "+")))
            .await
            .unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (400, r#"{"error":"Invalid fields requested"}"#),
            "{fields}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn customers_may_come_in_an_envelope() {
    let kit = kit(Options {
        customers_envelope: CustomersEnvelope::Data,
        ..small()
    });
    let reply = kit.customers("?fields=id").await.unwrap();
    assert!(
        reply
            .text()
            .starts_with(r#"{"data":[{"customer_id":"org_1"}"#),
        "{}",
        reply.text()
    );
}

#[tokio::test(start_paused = true)]
async fn a_search_has_the_documented_shape() {
    let kit = kit(small());
    let reply = kit.search("", "{}").await.unwrap();
    assert_eq!(reply.rows(), kit.all()[..250]);
    assert_eq!(reply.json()["total"], 600);
    assert_eq!(reply.cursor().unwrap().len(), 1_000);
    let body =
        r#"{"date_range":{"start":"2026-01-01","end":"2026-06-30"},"max_returned_items":500}"#;
    let reply = kit.search("?customer_id=org_2", body).await.unwrap();
    let range = Some((date(2026, 1, 1), date(2026, 6, 30)));
    assert_eq!(
        reply.rows(),
        kit.sandbox.expected_rows(Some("org_2"), range)
    );
    assert!(reply.rows().len() > 3);
    assert!(reply.text().contains("\"next_page_key\":null"));
    let reply = kit.search("?customer_id=org_999", "{}").await.unwrap();
    assert_eq!(
        (reply.status, reply.rows().len(), reply.cursor()),
        (200, 0, None)
    );
    let everything = kit.search("?customer_id=", "{}").await.unwrap();
    assert_eq!(everything.json()["total"], 600);
}

#[tokio::test(start_paused = true)]
async fn the_envelope_may_have_no_total_and_the_cap_may_refuse() {
    let kit = kit(Options {
        envelope_total: false,
        page_cap: PageCap::Refuse,
        ..small()
    });
    let reply = kit.search("", "{}").await.unwrap();
    assert_eq!(reply.json().as_object().unwrap().len(), 2);
    let reply = kit
        .search("", r#"{"max_returned_items":501}"#)
        .await
        .unwrap();
    assert_eq!(reply.status, 400);
    assert_eq!(
        kit.search("", r#"{"max_returned_items":500}"#)
            .await
            .unwrap()
            .rows()
            .len(),
        500
    );
}

#[tokio::test(start_paused = true)]
async fn refusals() {
    let kit = kit(small());
    for body in ["", "[]", "null", "nonsense"] {
        let reply = kit.search("", body).await.unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (400, r#"{"error":"Request body must be a dictionary"}"#),
            "{body}"
        );
    }
    let unauthorized = |key: Option<&str>| {
        let mut request = wiv_request(Method::GET, "/msp/customers", "");
        request.headers_mut().remove("x-api-key");
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("x-api-key", key.parse().unwrap());
        }
        kit.send(request)
    };
    for key in [None, Some("wrong"), Some(NABLE_KEY)] {
        let reply = unauthorized(key).await.unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (401, r#"{"error":"Authentication required"}"#),
            "{key:?}"
        );
    }
    for (method, target) in [
        (Method::GET, "/"),
        (Method::POST, "/msp/customers"),
        (Method::GET, "/v2/cases/msp/search"),
        (Method::POST, "/workflows/1/run"),
        (Method::GET, "/msp/customers/"),
        (
            Method::POST,
            "/ws/rest/V1/PSA_APIX/InvoicesReady/SANDBOX/202609",
        ),
    ] {
        let reply = kit.send(wiv_request(method, target, "{}")).await.unwrap();
        assert_eq!(reply.status, 404, "{target}");
    }
    let counts = kit.sandbox.counts();
    assert_eq!(counts.of(SimOperation::Search).by_status[&400], 4);
    assert_eq!(counts.of(SimOperation::Customers).by_status[&401], 3);
    assert_eq!(counts.of(SimOperation::Other).by_status[&404], 6);
    let body = "x".repeat(1_100_000);
    assert_eq!(kit.search("", &body).await.unwrap().status, 413);
}

#[tokio::test(start_paused = true)]
async fn a_quota_answers_429_until_the_minute_is_over() {
    let options = Options {
        wiv_requests_per_minute: Some(2),
        rate_headers: RateHeaders::Separate,
        ..small()
    };
    let kit = kit(options);
    for left in ["1", "0"] {
        assert_eq!(
            kit.customers("")
                .await
                .unwrap()
                .header("ratelimit-remaining"),
            left
        );
    }
    crate::clock::sleep(Duration::from_secs(15)).await;
    let reply = kit.search("", "{}").await.unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (429, "45"));
    assert_eq!(kit.sandbox.counts().scrolls.opened, 0);
    assert_eq!(
        kit.nable("/InvoicesReady/SANDBOX/202609")
            .await
            .unwrap()
            .status,
        200
    );
    crate::clock::sleep(Duration::from_secs(45)).await;
    assert_eq!(kit.customers("").await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn retry_after_may_be_a_date() {
    let options = Options {
        nable_requests_per_minute: Some(0),
        retry_after: RetryAfter::HttpDate,
        rate_headers: RateHeaders::Structured,
        ..small()
    };
    let kit = kit(options);
    let reply = kit.bill().await.unwrap();
    let zulu = |text: &str| jiff::fmt::rfc2822::parse(text).unwrap().timestamp();
    let wait = zulu(reply.header("retry-after")) - zulu(reply.header("date"));
    assert_eq!(
        (reply.status, wait.total(jiff::Unit::Second).unwrap()),
        (429, 60.0)
    );
    assert_eq!(reply.header("ratelimit"), "\"default\";r=0;t=60");
    assert!(reply.text().contains("\"http_status_code\":429"));
}

#[tokio::test(start_paused = true)]
async fn every_answer_takes_its_time() {
    let kit = kit(Options {
        latency: Duration::from_millis(300),
        ..small()
    });
    let before = kit.sandbox.clock.now();
    let _ = tokio::join!(kit.customers(""), kit.search("", "{}"), kit.bill());
    assert_eq!(kit.sandbox.clock.now() - before, Duration::from_millis(300));
    let counts = kit.sandbox.counts();
    assert_eq!(
        (
            counts.vendors["wiv"].in_flight_peak,
            counts.vendors["wiv"].in_flight
        ),
        (2, 0)
    );
    assert_eq!(counts.vendors["nable"].in_flight_peak, 1);
}
