//! What the log says of one request that fails: every line names it, and its time adds up.

use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};
use serde_json::Value;

use crate::whole::{ALL, Events, SETTINGS, Whole, caller, get, search, secrets, world};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// What the vendor says of its failure.
const SAID: &str = "the database is asleep";

fn whole() -> Whole {
    Whole::with(
        &format!("{SETTINGS}{}", caller("all", "")),
        &secrets(),
        world(),
    )
}

fn failing(whole: &Whole) {
    let body = Some(format!("{{\"error\":\"{SAID}\"}}"));
    let status = FaultKind::Status {
        status: 500,
        body,
        retry_after: None,
        processed: false,
    };
    whole.sandbox.fault(SimFault::on_any(status));
    whole
        .sandbox
        .fault(SimFault::on_any(FaultKind::Latency { ms: 300 }));
}

#[tokio::test(start_paused = true)]
async fn every_line_about_a_failed_request_names_it_and_its_trace() {
    let headers = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n{ALL}");
    for (request, messages) in [
        (
            search(&headers, "{\"max_returned_items\":5}"),
            &["vendor call", "walk failed", "request failed"][..],
        ),
        (
            get("/msp/customers", &headers),
            &["vendor call", "request failed"],
        ),
        (
            get("/v1/billing/202609", &headers),
            &["vendor call", "request failed"],
        ),
    ] {
        let whole = whole();
        failing(&whole);
        let (events, _listening) = Events::listen();
        let reply = whole.ask(&request).await;
        assert_eq!(reply.status, 502, "{request}");
        let text = events.text();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        for message in messages {
            let about: Vec<_> = lines
                .iter()
                .filter(|line| line["message"] == *message)
                .collect();
            assert!(!about.is_empty(), "{message}: {text}");
            for line in about {
                assert_eq!(line["request_id"], reply.header("x-request-id"), "{line}");
                assert_eq!(line["trace_id"], TRACE, "{line}");
            }
        }
        let call = lines.iter().find(|line| line["message"] == "vendor call");
        assert_eq!(call.unwrap()["said"], SAID);
    }
}

#[tokio::test(start_paused = true)]
async fn an_access_line_says_where_the_time_went() {
    let whole = whole();
    whole.sandbox.fault(SimFault::on(
        SimOperation::Customers,
        FaultKind::Latency { ms: 300 },
    ));
    let customers = get("/msp/customers", ALL);
    assert_eq!(whole.ask(&customers).await.status, 200);
    assert_eq!(whole.ask(&customers).await.status, 200);
    let lines: Vec<Value> = whole
        .log
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |at: usize| {
        let ms = |name: &str| lines[at][name].as_f64().unwrap();
        [
            ms("wait_ms"),
            ms("vendor_ms"),
            ms("own_ms"),
            ms("duration_ms"),
        ]
    };
    let [wait, vendor, own, whole] = of(0);
    assert!(vendor >= 300.0 && vendor <= whole, "{:?}", lines[0]);
    assert!(
        (wait + vendor + own - whole).abs() < 0.002,
        "{:?}",
        lines[0]
    );
    let [wait, vendor, own, whole] = of(1);
    assert_eq!((wait, vendor, own), (0.0, 0.0, whole));
}
