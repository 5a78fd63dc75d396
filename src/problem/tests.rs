//! Every problem in the form that callers see.

use std::collections::HashSet;

use super::*;
use crate::clock::Instant;
use crate::domain::{Operation, Shortage};
use crate::reads::ReadError;
use crate::upstream::{ConnectCause, Fault, UpstreamError};

fn record(route: Route) -> Arc<Record> {
    let (head, ()) = http::Request::new(()).into_parts();
    let now = Instant::now();
    let peer = std::sync::Arc::default();
    let record = Record::new(&head, peer, now, now, &crate::traces::Traces::off());
    record.set_route(route);
    record
}

fn json(problem: &Problem, route: Route) -> serde_json::Value {
    serde_json::from_str(&problem.body(&record(route).id, route)).unwrap()
}

#[test]
fn codes_are_distinct_and_complete() {
    let words: HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(words.len(), Code::ALL.len());
    for code in Code::ALL {
        assert!(!code.title().contains(['"', '\\']), "{code:?}");
    }
}

#[tokio::test]
async fn the_body_has_the_vendors_member_and_ours() {
    let problem = Problem::new(Code::InvalidFields, "no \"such\" field\n");
    let record = record(Route::Customers);
    let body: serde_json::Value =
        serde_json::from_str(&problem.body(&record.id, record.route())).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "type": "urn:msp-gateway:invalid_fields",
            "title": "Invalid fields requested",
            "status": 400,
            "detail": "no \"such\" field\n",
            "error": "Invalid fields requested",
            "code": "invalid_fields",
            "request_id": record.id.as_str(),
        })
    );
}

#[tokio::test]
async fn a_body_that_is_no_dictionary_is_told_in_the_vendors_words() {
    let problem = Problem::invalid_body(&BodyProblem::Empty);
    assert_eq!(
        json(&problem, Route::CaseSearch)["error"],
        "Request body must be a dictionary"
    );
    let problem = Problem::invalid_body(&BodyProblem::Member("date_range", "x"));
    assert_eq!(
        json(&problem, Route::CaseSearch)["error"],
        "Invalid request body"
    );
}

#[tokio::test]
async fn nable_paths_carry_nables_members() {
    let body = json(
        &Problem::authentication_required(false),
        Route::NableBilling,
    );
    assert_eq!(body["message"], "Unauthorized");
    assert_eq!(body["http_status_code"], 401);
    assert_eq!(body["error"], "Authentication required");
    assert!(json(&Problem::not_found(), Route::Other)["message"].is_null());
}

#[tokio::test]
async fn headers_say_what_to_do_next() {
    let record = record(Route::Customers);
    let answer = Problem::authentication_required(false).respond(&record);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let answer = Problem::method_not_allowed("GET, HEAD").respond(&record);
    assert_eq!(answer.headers()["allow"], "GET, HEAD");
    let answer = Problem::short_of(Shortage::RequestsInFlight)
        .retry_after(Duration::from_millis(1))
        .respond(&record);
    assert_eq!(answer.headers()["retry-after"], "1");
    let answer = Problem::caller_rate_limited(Allowance {
        per_minute: 60,
        burst: 10,
        burst_s: 10,
        remaining: 0,
        reset_s: 7,
    })
    .respond(&record);
    assert_eq!(answer.headers()["retry-after"], "7");
    assert_eq!(answer.headers()["ratelimit"], "\"burst\";r=0;t=7");
    assert_eq!(
        answer.headers()["ratelimit-policy"],
        "\"burst\";q=10;w=10, \"caller\";q=60;w=60"
    );
}

#[tokio::test]
async fn vendor_bodies_are_repeated_only_if_they_are_json() {
    let of = |body: &'static str| {
        let problem = Problem::from(ReadError::BillingNotFound {
            vendor_body: Some(body.into()),
            outcome: crate::domain::CacheOutcome::Miss,
        });
        json(&problem, Route::Billing)
    };
    assert_eq!(of(" {\"Cid\":1} ")["vendor_body"]["Cid"], 1);
    assert!(of("<html>")["vendor_body"].is_null());
    assert!(of("{}{}")["vendor_body"].is_null());
}

#[test]
fn every_upstream_fault_has_the_contracts_code() {
    use Operation::{Billing, Continue, Customers, Search};
    let cases = [
        (Search, Fault::Disabled, 503, "vendor_unavailable"),
        (Search, Fault::CircuitOpen, 503, "vendor_unavailable"),
        (Search, Fault::Connect, 503, "vendor_unavailable"),
        (
            Search,
            Fault::BudgetExhausted,
            503,
            "vendor_budget_exhausted",
        ),
        (Search, Fault::RateLimited, 503, "vendor_budget_exhausted"),
        (Search, Fault::Timeout, 504, "vendor_timeout"),
        (Search, Fault::Reset, 502, "vendor_error"),
        (Search, Fault::BodyCut, 502, "vendor_error"),
        (Search, Fault::TooLarge, 502, "vendor_error"),
        (Search, Fault::ServerError, 502, "vendor_error"),
        (Search, Fault::Redirected, 502, "vendor_error"),
        (Search, Fault::UnexpectedStatus, 502, "vendor_error"),
        (Search, Fault::NotFound, 502, "vendor_error"),
        (Search, Fault::Rejected, 400, "vendor_rejected_request"),
        (Continue, Fault::Rejected, 502, "vendor_error"),
        (Customers, Fault::Rejected, 502, "vendor_error"),
        (
            Search,
            Fault::CredentialRejected,
            502,
            "vendor_credential_rejected",
        ),
        (Search, Fault::Malformed, 502, "vendor_protocol_error"),
        (Search, Fault::Internal, 500, "internal_error"),
        (Billing, Fault::Rejected, 404, "billing_not_found"),
        (Billing, Fault::NotFound, 404, "billing_not_found"),
        (
            Billing,
            Fault::CredentialRejected,
            502,
            "vendor_credential_rejected",
        ),
    ];
    for (operation, fault, status, word) in cases {
        let error = UpstreamError::new(operation, fault, "canary detail");
        let problem = Problem::from(ReadError::Upstream(error));
        assert_eq!(problem.code().as_str(), word, "{operation:?} {fault:?}");
        assert_eq!(problem.code().status(), status);
        assert!(!problem.detail().contains("canary"), "{fault:?}");
    }
}

#[test]
fn what_the_vendor_says_of_time_is_passed_on() {
    let error = UpstreamError::new(Operation::Search, Fault::RateLimited, "")
        .with_retry_after(Duration::from_secs(17));
    let problem = Problem::from(ReadError::Upstream(error));
    assert_eq!(
        problem.more.unwrap().retry_after,
        Some(Duration::from_secs(17))
    );
}

/// Every way in which a read can fail, with each fault of each operation.
fn read_errors() -> Vec<ReadError> {
    let outcome = crate::domain::CacheOutcome::Miss;
    let mut all = vec![
        ReadError::InvalidPageToken,
        ReadError::PageTokenExpired,
        ReadError::CustomerNotAllowed,
        ReadError::BillingNotAllowed,
        ReadError::BillingNotFound {
            vendor_body: None,
            outcome,
        },
        ReadError::AccountNotFound,
        ReadError::WalkLimitExceeded { setting: "x" },
        ReadError::DeadlinePassed {
            vendor: Vendor::Wiv,
        },
        ReadError::NotCached,
        ReadError::Internal,
    ];
    all.extend(Shortage::ALL.map(ReadError::overloaded));
    for operation in Operation::ALL {
        for fault in Fault::ALL {
            all.push(UpstreamError::new(operation, fault, "canary detail").into());
        }
    }
    all
}

#[test]
fn a_part_says_what_the_whole_answer_says() {
    for error in read_errors() {
        let part = error.code();
        let whole = Problem::from(error.clone());
        assert_eq!(part, whole.code(), "{error:?}");
        assert!(!whole.detail().contains("canary"), "{error:?}");
    }
}

#[test]
fn details_name_what_happened() {
    let of = |change: &dyn Fn(&mut UpstreamError), operation, fault| {
        let mut error = UpstreamError::new(operation, fault, "canary");
        change(&mut error);
        Problem::from(ReadError::Upstream(error))
            .detail()
            .to_owned()
    };
    let status =
        |code: u16| move |error: &mut UpstreamError| error.status = StatusCode::from_u16(code).ok();
    let search = Operation::Search;
    assert_eq!(
        of(&status(500), search, Fault::ServerError),
        "wiv answered this request with status 500."
    );
    assert_eq!(
        of(&status(404), search, Fault::NotFound),
        "wiv answered this request with status 404."
    );
    let said = |error: &mut UpstreamError| error.said = Some("date_range is too long".into());
    let detail = of(&said, search, Fault::Rejected);
    assert!(detail.contains("\"date_range is too long\""), "{detail}");
    assert!(!detail.contains("does not know"), "{detail}");
    let unknown = |error: &mut UpstreamError| error.unknown_members = true;
    let detail = of(&unknown, search, Fault::Rejected);
    assert!(detail.contains("does not know"), "{detail}");
    for cause in ConnectCause::ALL {
        let caused = |error: &mut UpstreamError| error.cause = Some(cause);
        let detail = of(&caused, search, Fault::Connect);
        assert!(detail.contains(cause.text()), "{detail}");
    }
    for short in Shortage::ALL {
        let lacks = |error: &mut UpstreamError| error.short = Some(short);
        let detail = of(&lacks, search, Fault::BudgetExhausted);
        assert!(detail.contains(short.sentence()), "{detail}");
    }
}

#[test]
fn an_answer_to_an_unread_request_is_a_whole_message() {
    let message = Problem::malformed("Not here.").unasked();
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("HTTP/1.1 400 Malformed request"));
    let length = format!("content-length: {}", body.len());
    assert!(lines.clone().any(|line| line == length), "{head}");
    assert!(lines.any(|line| line == "connection: close"), "{head}");
    let told: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["detail"], "Not here.");
}
