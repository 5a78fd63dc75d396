//! Tests of the simulated N-able.

use super::*;

#[tokio::test(start_paused = true)]
async fn bills_and_invoices_are_answered() {
    let kit = kit(small());
    let contract = kit.sandbox.contracts()[0].clone();
    let bill = kit.bill().await.unwrap();
    assert_eq!(
        (bill.status, bill.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(bill.json()["ContractNumber"], contract.number);
    assert!(bill.json()["Billable Services"].is_array());
    let invoices = kit
        .nable("/InvoicesReady/SANDBOX/202609")
        .await
        .unwrap()
        .json();
    assert_eq!(
        invoices["InvoicesReady"][0]["Contracts"][0]["ContractID"],
        contract.id
    );
    assert_eq!(
        kit.nable("/PSAUsageByTimeFrame/SANDBOX/202609")
            .await
            .unwrap()
            .status,
        200
    );
    let details = format!(
        "/PSAUsageDetailsDevices/SANDBOX/202609/{}/INV-202609-001",
        contract.id
    );
    assert!(kit.nable(&details).await.unwrap().json()["UsageDetailDevices"].is_array());
    let counts = kit.sandbox.counts();
    let requests = [
        SimOperation::Billing,
        SimOperation::Invoices,
        SimOperation::Usage,
    ]
    .map(|op| counts.requests(op));
    assert_eq!(requests, [1, 1, 2]);
    // A body that is an object changes nothing.
    let request = nable_request(Method::POST, "/InvoicesReady/SANDBOX/202609");
    assert_eq!(
        kit.send(request.body(Full::from("{}")).unwrap())
            .await
            .unwrap()
            .json(),
        invoices
    );
}

#[tokio::test(start_paused = true)]
async fn the_wrapper_is_a_choice() {
    let kit = kit(Options {
        billing_wrapping: Wrapping::Wrapped,
        ..small()
    });
    let bill = kit.bill().await.unwrap().json();
    assert!(bill["PSABillableServices"]["Billable Services"].is_array());
    let soft = kit
        .nable("/PSABillableServices/SANDBOX/202609/unknown")
        .await
        .unwrap()
        .json();
    assert!(soft["PSABillableServices"]["AccountName"].is_string());
}

#[tokio::test(start_paused = true)]
async fn unknown_months_and_contracts_fail_softly() {
    let kit = kit(small());
    let id = kit.sandbox.contracts()[0].id.clone();
    for path in [
        "/PSABillableServices/SANDBOX/202609/unknown".to_owned(),
        format!("/PSABillableServices/SANDBOX/201901/{id}"),
        format!("/PSABillableServices/SANDBOX/202612/{id}"),
        "/InvoicesReady/SANDBOX/201901".to_owned(),
        "/PSAUsageByTimeFrame/SANDBOX/201901".to_owned(),
    ] {
        let reply = kit.nable(&path).await.unwrap();
        assert_eq!(reply.status, 200, "{path}");
        let members: Vec<String> = reply.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            members,
            ["AccountName", "BpAccountId", "SfdcAccountId"],
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refusals() {
    let kit = kit(small());
    let path = "/InvoicesReady/SANDBOX/202609";
    let send = |request: ::http::request::Builder, body: &'static str| {
        kit.send(request.body(Full::from(body)).unwrap())
    };
    let reply = send(nable_request(Method::GET, path), "").await.unwrap();
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
    let reply = send(
        nable_request(Method::POST, "/InvoicesReady/OTHER/202609"),
        "",
    )
    .await
    .unwrap();
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["http_status_code"], 400);
    for path in [
        "",
        "/Unknown/SANDBOX/202609",
        "/InvoicesReady/SANDBOX",
        "/InvoicesReady/SANDBOX/202609/x",
    ] {
        assert_eq!(
            send(nable_request(Method::POST, path), "")
                .await
                .unwrap()
                .status,
            404,
            "{path}"
        );
    }
    assert_eq!(
        send(
            nable_request(Method::POST, "/InvoicesReady/SANDBOX/209913"),
            ""
        )
        .await
        .unwrap()
        .status,
        400
    );
    assert_eq!(
        send(nable_request(Method::POST, path), "[]")
            .await
            .unwrap()
            .status,
        400
    );
    for agent in [None, Some("curl/8.5.0"), Some("hyper/1")] {
        let mut request = nable_request(Method::POST, path)
            .body(Full::default())
            .unwrap();
        request.headers_mut().remove("user-agent");
        if let Some(agent) = agent {
            request
                .headers_mut()
                .insert("user-agent", agent.parse().unwrap());
        }
        let reply = kit.send(request).await.unwrap();
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (403, "text/html"),
            "{agent:?}"
        );
        assert!(reply.text().starts_with("<html>"));
    }
    for key in [None, Some(WIV_KEY)] {
        let mut request = nable_request(Method::POST, path)
            .body(Full::default())
            .unwrap();
        request.headers_mut().remove("x-api-key");
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("x-api-key", key.parse().unwrap());
        }
        let reply = kit.send(request).await.unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (401, r#"{"message":"Unauthorized","http_status_code":401}"#)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn another_account_may_be_not_found() {
    let kit = kit(Options {
        wrong_account_status: 404,
        ..small()
    });
    let reply = kit.nable("/InvoicesReady/OTHER/202609").await.unwrap();
    assert_eq!(reply.status, 404);
    assert!(reply.text().contains("MSPID"));
}
