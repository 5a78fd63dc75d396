//! What a vendor may answer beside the documented, and what is kept of its words.

use super::calls::{PAGE, SECOND, ask, wiv_rig};
use super::test_vendor::{CANARY, TestVendor, VendorReply, options, rig, spend};
use msp_gateway::clock::Clock;
use msp_gateway::domain::{Operation, PageSize, SearchQuery, Vendor};
use msp_gateway::upstream::{Fault, Source as _};
use msp_gateway::vendors::Wiv;

#[tokio::test(start_paused = true)]
async fn whatever_is_good_json_in_the_end_is_a_good_answer() {
    use std::io::Write as _;
    let head = |extra: &str, length: usize| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{extra}\r\n").into_bytes()
    };
    let of = |extra: &str, body: &[u8]| {
        VendorReply::Bytes([&head(extra, body.len())[..], body].concat())
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(PAGE.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::stream::encode_all(PAGE.as_bytes(), 1).unwrap();
    let marked = format!("\u{feff}{PAGE}");
    let many: String = (0..150)
        .map(|n| format!("x-{n}: some value of a header\r\n"))
        .collect();
    for (name, reply) in [
        ("gzip", of("content-encoding: gzip\r\n", &gzip)),
        ("zstd", of("content-encoding: zstd\r\n", &zstd)),
        ("html", of("content-type: text/html\r\n", PAGE.as_bytes())),
        (
            "octets",
            of(
                "content-type: application/octet-stream\r\n",
                PAGE.as_bytes(),
            ),
        ),
        ("mark", of("", marked.as_bytes())),
        ("150 headers", of(&many, PAGE.as_bytes())),
    ] {
        let rig = wiv_rig(TestVendor::replies([reply]));
        let wiv = Wiv::new(rig.service.clone(), &rig.options);
        let page = wiv
            .first(&SearchQuery::default(), PageSize::MAX, spend())
            .await;
        assert!(page.unwrap().next.is_none(), "{name}");
    }
    let login = "<!DOCTYPE html><html><title>Sign in</title></html>";
    for kind in ["text/html", "application/json", "text/plain"] {
        let reply = of(&format!("content-type: {kind}\r\n"), login.as_bytes());
        let rig = wiv_rig(TestVendor::replies([reply]));
        let wiv = Wiv::new(rig.service.clone(), &rig.options);
        let error = wiv.customers(spend()).await.unwrap_err();
        assert_eq!(error.fault, Fault::Malformed, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_it_is_an_error_is_that_error() {
    for (vendor, operation, body, fault, status) in [
        (
            Vendor::Nable,
            Operation::Invoices,
            r#"{"message":"Unauthorized","http_status_code":401}"#,
            Fault::CredentialRejected,
            401,
        ),
        (
            Vendor::Nable,
            Operation::Billing,
            r#"{"message":"no such contract","http_status_code":"404"}"#,
            Fault::NotFound,
            404,
        ),
        (
            Vendor::Nable,
            Operation::Billing,
            r#"{"message":"slow down","http_status_code":429}"#,
            Fault::RateLimited,
            429,
        ),
        (
            Vendor::Wiv,
            Operation::Search,
            r#"{"error":"Authentication required"}"#,
            Fault::CredentialRejected,
            401,
        ),
        (
            Vendor::Wiv,
            Operation::Customers,
            r#"{"error":"Internal server error"}"#,
            Fault::ServerError,
            500,
        ),
    ] {
        let rig = rig(
            TestVendor::replies([VendorReply::ok(body)]),
            options(vendor),
            None,
        );
        let error = ask(&rig, operation, spend()).await.unwrap_err();
        assert_eq!(error.fault, fault, "{body}");
        assert_eq!(error.status.unwrap().as_u16(), status, "{body}");
        assert!(error.said.is_some(), "{body}");
        let refused = rig.gates.credential.is_rejected();
        assert_eq!(refused, fault == Fault::CredentialRejected, "{body}");
        let held = rig.gates.governor.snapshot().hold_down.is_some();
        assert_eq!(held, fault == Fault::RateLimited, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_vendors_words_are_kept_without_what_could_be_a_secret() {
    let scroll = "FGluY2x1ZGVfY29udGV4dF91dWlkDnF1ZXJ5VGhlbkZldGNo";
    for (status, body, said) in [
        (
            400,
            r#"{"error":"date_range is too long"}"#.into(),
            Some("date_range is too long"),
        ),
        (
            500,
            r#"{"error":"Internal server error"}"#.into(),
            Some("Internal server error"),
        ),
        (
            502,
            "<title>502 Bad Gateway</title>".into(),
            Some("502 Bad Gateway"),
        ),
        (
            404,
            format!(r#"{{"error":"no context {scroll}"}}"#),
            Some("no context […]"),
        ),
        (401, format!(r#"{{"error":"key {CANARY} is bad"}}"#), None),
        (
            401,
            format!(r#"{{"error":"key {} is bad"}}"#, &CANARY[..8]),
            None,
        ),
        (400, r#"{"error":""}"#.into(), None),
        (500, String::new(), None),
    ] {
        let rig = wiv_rig(TestVendor::replies([VendorReply::status(
            status, "", &body,
        )]));
        let error = ask(&rig, Operation::Continue, spend()).await.unwrap_err();
        assert_eq!(error.said.as_deref(), said, "{status} {body}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(&status.to_string()), "{shown}");
        assert!(
            !shown.contains(CANARY) && !shown.contains(scroll),
            "{shown}"
        );
    }
    // A vendor that never ends its explanation holds nobody up for it.
    let endless = b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\n{";
    let rig = wiv_rig(TestVendor::replies([VendorReply::Stall(endless.to_vec())]));
    let begun = Clock::system().now();
    let error = ask(&rig, Operation::Continue, spend()).await.unwrap_err();
    assert_eq!(error.fault, Fault::ServerError);
    assert!(begun.elapsed() <= SECOND);
}
