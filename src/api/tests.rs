//! The table of routes and the questions, read from whole requests.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::answer::respond;
use super::question::{Asked, Question};
use super::routes::find;
use crate::access::{CallerBook, CallerKeyHash, CallerSpec, Role};
use crate::admission::Payer;
use crate::cache::CacheNote;
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{Audience, CacheOutcome, FieldSet};
use crate::exchange::{Answered, Call, Record, Routing};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::reads::export::{ExportFormat, ExportStream};
use crate::reads::{Answer, Etag};

fn call(method: &str, headers: &[(&str, &str)]) -> Call {
    let mut builder = http::Request::builder().method(method).uri(match method {
        "POST" | "QUERY" => "/v2/cases/msp/search",
        _ => "/msp/customers",
    });
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let (head, ()) = builder.body(()).unwrap().into_parts();
    let Routing::Found(matched) = find(&head.method, head.uri.path()) else {
        panic!("no route");
    };
    let now = Instant::now();
    let record = Record::new(
        &head,
        crate::exchange::Peer::default(),
        now,
        now + Duration::from_secs(30),
    );
    let spec = CallerSpec {
        name: "all".into(),
        keys: vec![CallerKeyHash::of(b"k")],
        sans: Vec::new(),
        role: Role::Reader,
        audience: Audience::All,
        billing: true,
        requests_per_minute: None,
        forced_refreshes_per_minute: 6,
        expires: None,
    };
    let book = CallerBook::new(&[spec], &Metrics::new().unwrap(), Clock::system());
    let caller = book.find(Some(b"k"), None).unwrap();
    Call {
        head,
        body: Bytes::new(),
        record,
        matched,
        payer: Payer::caller(caller.name.clone(), None),
        caller,
    }
}

fn told(method: &str, headers: &[(&str, &str)]) -> (CacheOutcome, Answered) {
    let call = call(method, headers);
    let body = Bytes::from_static(b"{\"data\":[]}");
    let answer = Answer {
        etag: Some(Etag::of(&body)),
        body,
        age: Duration::from_millis(12_900),
        note: CacheNote::hit(42),
    };
    let told = respond(&call, answer);
    (call.record.cache().unwrap(), told)
}

#[tokio::test]
async fn an_answer_tells_how_it_came_about() {
    let (outcome, answer) = told("GET", &[]);
    assert_eq!(outcome, CacheOutcome::Hit);
    assert_eq!(answer.status(), 200);
    let header = |name| answer.headers()[name].to_str().unwrap();
    assert_eq!(header("cache-status"), "msp-gateway; hit; ttl=42");
    assert_eq!(header("age"), "12");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("cache-control"), "private, no-cache");
    assert_eq!(header("vary"), "Authorization, X-API-Key, Accept-Encoding");
    assert_eq!(answer.body().bytes().unwrap(), "{\"data\":[]}");
}

#[tokio::test]
async fn what_the_caller_has_is_not_sent_again_but_to_posts() {
    let tag = Etag::of(b"{\"data\":[]}");
    let tag = tag.value().to_str().unwrap();
    for method in ["GET", "HEAD", "QUERY"] {
        let (_, answer) = told(method, &[("if-none-match", tag)]);
        assert_eq!(answer.status(), 304, "{method}");
        assert!(answer.body().bytes().is_none());
        assert_eq!(answer.headers()["etag"], tag);
        assert!(answer.headers().contains_key("cache-status"));
        assert!(!answer.headers().contains_key("content-type"));
    }
    assert_eq!(told("POST", &[("if-none-match", tag)]).1.status(), 200);
    assert_eq!(told("GET", &[("if-none-match", "\"x\"")]).1.status(), 200);
    assert_eq!(told("GET", &[("if-none-match", "*")]).1.status(), 304);
}

#[tokio::test]
async fn an_export_names_its_form_and_has_no_tag() {
    let call = call("GET", &[]);
    for (format, media) in [
        (ExportFormat::Ndjson, "application/x-ndjson"),
        (ExportFormat::Csv, "text/csv; charset=utf-8"),
    ] {
        let (_to, pieces) = tokio::sync::mpsc::channel(1);
        let stream = ExportStream {
            age: Duration::ZERO,
            note: CacheNote::hit(1),
            pieces,
        };
        let answer = super::case_export::respond(&call, stream, format, true).await;
        assert_eq!(answer.headers()["content-type"], media);
        assert_eq!(answer.headers()["trailer"], "x-export-rows");
        assert!(!answer.headers().contains_key("etag"));
        let attached = answer.headers()["content-disposition"].to_str().unwrap();
        assert!(attached.starts_with("attachment; filename="));
    }
}

fn read(method: &str, target: &str, body: &str) -> Result<Question, Problem> {
    let target: http::Uri = target.parse().unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let Routing::Found(matched) = find(&method, target.path()) else {
        panic!("no route");
    };
    let mut headers = HeaderMap::new();
    headers.insert("te", http::HeaderValue::from_static("deflate, Trailers"));
    Question::read(Asked {
        matched: &matched,
        path: target.path(),
        query: target.query(),
        headers: &headers,
        body: body.as_bytes(),
    })
}

fn code(method: &str, target: &str, body: &str) -> String {
    let problem = read(method, target, body).unwrap_err();
    problem.code().as_str().to_owned()
}

#[test]
fn questions_are_understood() {
    assert!(matches!(
        read("GET", "/msp/customers", ""),
        Ok(Question::Customers(FieldSet::ALL))
    ));
    let search = read(
        "POST",
        "/v2/cases/msp/search?customer_id=org_1",
        r#"{"max_returned_items":25}"#,
    );
    let Ok(Question::Search(request)) = search else {
        panic!("{search:?}");
    };
    assert_eq!(request.query.customer.unwrap().as_str(), "org_1");
    assert_eq!(request.page_size.unwrap().get(), 25);
    let export = read(
        "GET",
        "/v1/cases/export?format=csv&start=2026-01-01&end=2026-01-31",
        "",
    );
    assert!(matches!(
        export,
        Ok(Question::Export { format: ExportFormat::Csv, trailer: true, query })
            if query.range.is_some() && query.customer.is_none()
    ));
    assert!(matches!(
        read("GET", "/v1/billing/202409/c-1", ""),
        Ok(Question::Billing { month, contract })
            if month.to_string() == "202409" && contract.as_str() == "c-1"
    ));
    let nable = "/ws/rest/V1/PSA_API/PSABillableServices/001H%2DX/202409/c-1";
    for body in ["", "{}", " { }\n"] {
        assert!(matches!(
            read("POST", nable, body),
            Ok(Question::Nable { account, contract: Some(_), .. }) if account == "001H-X"
        ));
    }
    assert!(matches!(
        read("GET", "/v1/overview?require=all&timeframe=202409", ""),
        Ok(Question::Overview(request))
            if request.require_all && request.month.is_some() && request.range.is_none()
    ));
}

#[test]
fn what_is_wrong_has_its_code() {
    assert_eq!(code("GET", "/msp/customers?fields=", ""), "invalid_fields");
    assert_eq!(
        code("GET", "/msp/customers?fields=nope", ""),
        "invalid_fields"
    );
    assert_eq!(code("POST", "/v2/cases/msp/search", ""), "invalid_body");
    assert_eq!(code("POST", "/v2/cases/msp/search", "[]"), "invalid_body");
    let nable = "/ws/rest/V1/PSA_API/InvoicesReady/-/202409";
    assert_eq!(code("POST", nable, "[]"), "invalid_body");
    assert_eq!(code("POST", nable, "{\"a\":1}"), "invalid_body");
    for (method, target) in [
        ("GET", "/msp/customers?customer_id=org_1"),
        ("POST", "/v2/cases/msp/search?customer_id="),
        ("POST", "/v2/cases/msp/search?customer_id=a%2Fb"),
        ("POST", "/v2/cases/msp/search?customer_id=a&customer_id=a"),
        ("GET", "/v1/cases/export?start=2026-01-01"),
        ("GET", "/v1/cases/export?format=xml"),
        ("GET", "/v1/billing/2024-09"),
        ("GET", "/v1/billing/%32%30%32%34%30%39%"),
        ("GET", "/v1/billing/202409/a;b"),
        ("GET", "/v1/billing/202409/c?x=1"),
        ("GET", "/v1/overview?require=some"),
        ("GET", "/v1/overview?timeframe=2024"),
        ("GET", "/openapi.json?pretty=1"),
        ("POST", "/ws/rest/V1/PSA_API/InvoicesReady/-/2024"),
        ("POST", "/ws/rest/V1/PSA_API/InvoicesReady/%00/202409"),
    ] {
        assert_eq!(code(method, target, "{}"), "invalid_query", "{target}");
    }
}
