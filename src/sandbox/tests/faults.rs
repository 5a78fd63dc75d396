//! Tests of faults over a connection.

use super::*;

fn on(operation: SimOperation, kind: FaultKind) -> SimFault {
    SimFault::on(operation, kind).times(1)
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_be_any_status() {
    let kit = kit(small());
    let status = |body: Option<&str>, retry_after: Option<&str>| FaultKind::Status {
        status: 503,
        body: body.map(str::to_owned),
        retry_after: retry_after.map(str::to_owned),
        processed: false,
    };
    kit.sandbox
        .fault(on(SimOperation::Customers, status(None, Some("9"))));
    let reply = kit.customers("").await.unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, "9"));
    assert_eq!(reply.text(), r#"{"error":"Service Unavailable"}"#);
    assert_eq!(kit.customers("").await.unwrap().status, 200);
    kit.sandbox
        .fault(on(SimOperation::Billing, status(Some(""), None)));
    let reply = kit.bill().await.unwrap();
    assert_eq!(
        (reply.status, reply.body.len(), reply.whole),
        (503, 0, true)
    );
    assert_eq!(kit.sandbox.counts().of(SimOperation::Billing).answered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_continuation_moves_the_scroll_only_if_processed() {
    let kit = kit(small());
    let id = kit.open(100).await;
    for (processed, next) in [(false, 100), (true, 300)] {
        let kind = FaultKind::Status {
            status: 500,
            body: None,
            retry_after: None,
            processed,
        };
        kit.sandbox.fault(on(SimOperation::Continue, kind));
        let reply = kit.next(&id).await.unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (500, r#"{"error":"Internal server error"}"#)
        );
        assert_eq!(
            kit.next(&id).await.unwrap().rows(),
            kit.all()[next..next + 100]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_closes_before_or_after_the_work() {
    let kit = kit(small());
    let id = kit.open(100).await;
    kit.sandbox
        .fault(on(SimOperation::Continue, FaultKind::DropBefore));
    assert!(kit.next(&id).await.is_none());
    assert_eq!(kit.next(&id).await.unwrap().rows(), kit.all()[100..200]);
    kit.sandbox
        .fault(on(SimOperation::Continue, FaultKind::DropAfter));
    assert!(kit.next(&id).await.is_none());
    assert_eq!(kit.next(&id).await.unwrap().rows(), kit.all()[300..400]);
    kit.sandbox
        .fault(on(SimOperation::Search, FaultKind::DropAfter));
    assert!(kit.search("", "{}").await.is_none());
    let counts = kit.sandbox.counts();
    assert_eq!(counts.scrolls.open, 2);
    let continued = counts.of(SimOperation::Continue);
    assert_eq!(
        (
            continued.requests,
            continued.answered,
            continued.by_status[&200]
        ),
        (4, 2, 2)
    );
    assert_eq!(counts.vendors["wiv"].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_cut() {
    let kit = kit(small());
    let whole = kit.customers("").await.unwrap();
    for (at, sent) in [
        (None, whole.body.len() / 2),
        (Some(10), 10),
        (Some(0), 0),
        (Some(1 << 30), whole.body.len() - 1),
    ] {
        kit.sandbox
            .fault(on(SimOperation::Customers, FaultKind::CutBody { at }));
        let reply = kit.customers("").await.unwrap();
        assert_eq!((reply.status, reply.whole), (200, false));
        assert_eq!(reply.header("content-length"), whole.body.len().to_string());
        assert_eq!(reply.body, whole.body[..sent]);
    }
    assert_eq!(kit.sandbox.counts().of(SimOperation::Customers).answered, 1);
    assert_eq!(
        kit.sandbox.counts().of(SimOperation::Customers).by_status[&200],
        5
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_may_stall_and_go_on_or_never() {
    let kit = kit(small());
    let whole = kit.bill().await.unwrap();
    let before = kit.sandbox.clock.now();
    kit.sandbox.fault(on(
        SimOperation::Billing,
        FaultKind::StallBody { ms: Some(7_000) },
    ));
    assert_eq!(kit.bill().await.unwrap().body, whole.body);
    assert_eq!(kit.sandbox.clock.now() - before, Duration::from_secs(7));
    kit.sandbox
        .fault(on(SimOperation::Billing, FaultKind::StallBody { ms: None }));
    let reply = kit.bill().await.unwrap();
    assert!(!reply.whole);
    assert_eq!(reply.body, whole.body[..whole.body.len() / 2]);
    assert_eq!(kit.sandbox.clock.now() - before, Duration::from_secs(3_607));
}

#[tokio::test(start_paused = true)]
async fn bodies_may_be_wrong() {
    let kit = kit(small());
    let whole = kit.customers("").await.unwrap();
    let spoilt = async |kind: FaultKind| {
        kit.sandbox.fault(on(SimOperation::Customers, kind));
        let reply = kit.customers("").await.unwrap();
        assert!(reply.whole);
        reply
    };
    let reply = spoilt(FaultKind::MalformedJson).await;
    assert!(reply.text().starts_with("[,{"));
    let reply = spoilt(FaultKind::TruncatedRows).await;
    assert_eq!(reply.body, whole.body[..whole.body.len() * 2 / 3]);
    let reply = spoilt(FaultKind::WrongContentType {
        content_type: "text/plain".into(),
    })
    .await;
    assert_eq!(
        (reply.header("content-type"), &reply.body),
        ("text/plain", &whole.body)
    );
    let reply = spoilt(FaultKind::HtmlError { status: 502 }).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (502, "text/html")
    );
    let reply = spoilt(FaultKind::Redirect {
        status: 307,
        location: "http://127.0.0.1:1/evil".into(),
    })
    .await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (307, "http://127.0.0.1:1/evil")
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_huge() {
    let kit = kit(small());
    let whole = kit.customers("").await.unwrap();
    for chunked in [false, true] {
        kit.sandbox.fault(on(
            SimOperation::Customers,
            FaultKind::HugeBody {
                bytes: 3_000_001,
                chunked,
            },
        ));
        let reply = kit.customers("").await.unwrap();
        assert!(reply.whole);
        assert_eq!(reply.body.len(), whole.body.len() + 3_000_001);
        assert_eq!(reply.headers.contains_key("content-length"), !chunked);
        assert_eq!(reply.json(), whole.json());
    }
    // A reader that leaves ends the answer: nothing is made that no reader takes.
    kit.sandbox.fault(on(
        SimOperation::Customers,
        FaultKind::HugeBody {
            bytes: 16 << 30,
            chunked: true,
        },
    ));
    let mut sender = kit.connect().await;
    let response = sender
        .send_request(wiv_request(Method::GET, "/msp/customers", ""))
        .await
        .unwrap();
    let mut body = response.into_body();
    for _ in 0..5 {
        body.frame().await.unwrap().unwrap();
    }
    drop((body, sender));
    crate::clock::sleep(Duration::from_millis(1)).await;
    assert_eq!(kit.sandbox.counts().vendors["wiv"].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn pages_may_be_wrong() {
    let kit = kit(small());
    let all = kit.all();
    let id = kit.open(100).await;
    let page = async |kind: FaultKind| {
        kit.sandbox.fault(on(SimOperation::Continue, kind));
        let reply = kit.next(&id).await.unwrap();
        assert_eq!(reply.cursor().as_deref(), Some(&*id));
        reply.rows()
    };
    assert!(page(FaultKind::EmptyPageWithCursor).await.is_empty());
    assert_eq!(page(FaultKind::RepeatPage).await, all[..100]);
    assert_eq!(page(FaultKind::ShortPage).await, all[100..150]);
    let double = page(FaultKind::DuplicateRow).await;
    assert_eq!((&double[..99], &double[99]), (&all[150..249], &all[150]));
    assert_eq!(page(FaultKind::Oversize).await, all[249..449]);
    assert_eq!(page(FaultKind::Insert { count: 5 }).await, all[449..549]);
    assert_eq!(kit.all().len(), 605);
    let last = page(FaultKind::Endless).await;
    assert_eq!((&last[..51], last.len()), (&all[549..], 100));
    kit.sandbox
        .fault(on(SimOperation::Continue, FaultKind::ScrollExpired));
    assert_eq!(kit.next(&id).await.unwrap().status, 404);
    assert_eq!(kit.next(&id).await.unwrap().status, 404);
    assert_eq!(kit.sandbox.counts().scrolls.expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_vendor_closes_its_connections_and_the_other_lives() {
    let kit = kit(small());
    let id = kit.open(100).await;
    kit.sandbox.set_down(SimVendor::Wiv, true);
    assert!(kit.customers("").await.is_none());
    assert!(kit.next(&id).await.is_none());
    assert_eq!(kit.bill().await.unwrap().status, 200);
    let counts = kit.sandbox.counts();
    assert_eq!(
        (
            counts.vendors["wiv"].closed_while_down,
            counts.requests(SimOperation::Continue)
        ),
        (2, 0)
    );
    kit.sandbox.set_down(SimVendor::Wiv, false);
    assert_eq!(kit.next(&id).await.unwrap().rows(), kit.all()[100..200]);
    // The request in progress is dropped with it.
    kit.sandbox.fault(on(
        SimOperation::Customers,
        FaultKind::Latency { ms: 60_000 },
    ));
    let before = kit.sandbox.clock.now();
    let (reply, ()) = tokio::join!(kit.customers(""), async {
        crate::clock::sleep(Duration::from_secs(1)).await;
        kit.sandbox.set_down(SimVendor::Wiv, true);
    });
    assert!(reply.is_none());
    assert_eq!(kit.sandbox.clock.now() - before, Duration::from_secs(1));
    kit.sandbox.clear_faults();
    assert_eq!(kit.customers("").await.unwrap().status, 200);
}
