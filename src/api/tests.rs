//! Tests of the route table and of reading questions from whole requests.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::answer::respond;
use super::question::{Asked, Question};
use super::routes::find;
use crate::access::{CallerBook, CallerKeyHash, CallerSpec, Role};
use crate::admission::Payer;
use crate::cache::{CacheNote, Coding, Directives, VariantOptions, Variants};
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{Audience, CacheOutcome, FieldSet};
use crate::exchange::{Answered, Call, InFlight, Record, Routing};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::reads::export::{ExportFormat, ExportStream};
use crate::reads::{Answer, Asker, Etag, Lookup};

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
        Arc::default(),
        now,
        now + Duration::from_secs(30),
        &crate::traces::Traces::off(),
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
        head: Box::new(head),
        body: Bytes::new(),
        matched,
        asker: Asker {
            payer: Payer::caller(caller.name.clone(), None),
            caller,
            deadline: record.deadline,
            directives: Directives::default(),
        },
        record,
        tenure: None,
    }
}

fn told(method: &str, headers: &[(&str, &str)]) -> (CacheOutcome, Answered) {
    let body = Bytes::from_static(b"{\"data\":[]}");
    let options = VariantOptions::default();
    let variants = Variants::new(1 << 20, options, Metrics::new().unwrap());
    told_of(method, headers, body, &variants)
}

fn told_of(
    method: &str,
    headers: &[(&str, &str)],
    body: Bytes,
    variants: &Arc<Variants>,
) -> (CacheOutcome, Answered) {
    let call = call(method, headers);
    let answer = Answer {
        etag: Some(Etag::of(&body)),
        body,
        age: Duration::from_millis(12_900),
        note: CacheNote::hit(42),
    };
    let told = respond(&call, answer, variants);
    (call.record.cache().unwrap(), told.unwrap())
}

/// Makes a body with all its variants.
async fn coded(variants: &Arc<Variants>) -> Bytes {
    let body: String = (0..500).map(|n| format!("{{\"case\":{n}}},")).collect();
    let body = Bytes::from(body);
    for coding in Coding::ALL {
        let asked = || {
            let (_, answer) = told_of(
                "GET",
                &[("accept-encoding", coding.as_str())],
                body.clone(),
                variants,
            );
            answer.headers().contains_key("content-encoding")
        };
        // The first two answers are plain, whatever the caller accepts.
        assert!(!asked() && !asked());
        while !asked() {
            tokio::task::yield_now().await;
        }
    }
    body
}

#[tokio::test]
async fn a_variant_is_sent_to_whoever_takes_it_and_has_its_own_tag() {
    let variants = Variants::new(1 << 20, VariantOptions::default(), Metrics::new().unwrap());
    let body = coded(&variants).await;
    let tag = Etag::of(&body);
    for (accepts, coding) in [
        ("gzip", Some(Coding::Gzip)),
        ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
        ("gzip, br;q=0.5", Some(Coding::Gzip)),
        ("br;q=0.5, *;q=0.1", Some(Coding::Brotli)),
        ("*;q=0.1, gzip;q=0, zstd;q=0", Some(Coding::Brotli)),
        ("identity, gzip;q=0.9", None),
        ("gzip;q=0", None),
        ("deflate", None),
    ] {
        let asked = [("accept-encoding", accepts)];
        for method in ["GET", "HEAD", "POST", "QUERY"] {
            let (_, answer) = told_of(method, &asked, body.clone(), &variants);
            let headers = answer.headers();
            assert_eq!(answer.status(), 200);
            let told = headers.get("content-encoding");
            assert_eq!(told, coding.map(Coding::header_value).as_ref(), "{accepts}");
            assert_eq!(headers["content-type"], "application/json");
            assert!(
                headers["vary"]
                    .to_str()
                    .unwrap()
                    .contains("Accept-Encoding")
            );
            let (form, expected) = match coding {
                Some(coding) => (tag.of_form(coding.as_str()), coding.encode(&body).unwrap()),
                None => (tag.value().clone(), body.clone()),
            };
            assert_eq!(headers["etag"], form, "{accepts}");
            assert_eq!(answer.body().bytes(), Some(&expected), "{accepts}");
        }
    }
}

#[tokio::test]
async fn a_caller_has_a_body_in_each_form_that_it_takes() {
    let variants = Variants::new(1 << 20, VariantOptions::default(), Metrics::new().unwrap());
    let body = coded(&variants).await;
    let tag = Etag::of(&body);
    let plain = tag.value().to_str().unwrap().to_owned();
    let form = |coding: &str| tag.of_form(coding).to_str().unwrap().to_owned();
    let weak = format!("\"x\", W/{}", form("br"));
    for (has, accepts, told) in [
        (form("gzip"), Some("gzip"), Some(form("gzip"))),
        // It could be sent in zstd now, but the form that the caller has is as good.
        (form("gzip"), Some("zstd, gzip"), Some(form("gzip"))),
        (weak, Some("br"), Some(form("br"))),
        // The caller got this form before the variant was made.
        (plain.clone(), Some("gzip"), Some(plain.clone())),
        (plain.clone(), None, Some(plain.clone())),
        (form("gzip"), None, Some(form("gzip"))),
        ("*".to_owned(), Some("gzip"), Some(form("gzip"))),
        ("*".to_owned(), None, Some(plain.clone())),
        // The caller names a form that it does not accept any more.
        (form("gzip"), Some("br"), None),
        (form("gzip"), Some(""), None),
        (plain.clone(), Some("identity;q=0, br"), None),
        (form("deflate"), Some("gzip"), None),
        (
            Etag::of(b"other")
                .of_form("gzip")
                .to_str()
                .unwrap()
                .to_owned(),
            Some("gzip"),
            None,
        ),
    ] {
        let mut asked = vec![("if-none-match", has.as_str())];
        asked.extend(accepts.map(|accepts| ("accept-encoding", accepts)));
        for method in ["GET", "HEAD", "QUERY"] {
            let (_, answer) = told_of(method, &asked, body.clone(), &variants);
            assert_eq!(answer.status() == 304, told.is_some(), "{has} {accepts:?}");
            if let Some(told) = &told {
                assert_eq!(answer.headers()["etag"], *told, "{has} {accepts:?}");
                assert!(!answer.headers().contains_key("content-encoding"));
                assert!(answer.headers().contains_key("vary"));
                assert!(answer.body().bytes().is_none());
            }
        }
    }
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
        (ExportFormat::Csv { bom: false }, "text/csv; charset=utf-8"),
    ] {
        let (_to, pieces) = tokio::sync::mpsc::channel(1);
        let stream = ExportStream {
            age: Duration::ZERO,
            note: CacheNote::hit(1),
            pieces,
        };
        let places = InFlight::of_exports(1);
        let place = places.enter(&call.asker.caller.presence).unwrap();
        let answer = super::routes::case_export::respond(&call, stream, format, true, place).await;
        assert_eq!(places.now(), 1, "held by the body");
        assert_eq!(answer.headers()["content-type"], media);
        assert_eq!(answer.headers()["trailer"], "x-export-rows");
        assert!(!answer.headers().contains_key("etag"));
        let attached = answer.headers()["content-disposition"].to_str().unwrap();
        assert!(attached.starts_with("attachment; filename="));
        drop(answer);
        assert_eq!(places.now(), 0);
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
        Ok(Question::Lookup(Lookup::Customers(FieldSet::ALL)))
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
        Ok(Question::Export { format: ExportFormat::Csv { bom: false }, trailer: true, query })
            if query.range.is_some() && query.customer.is_none()
    ));
    assert!(matches!(
        read("GET", "/v1/billing/202409/c-1", ""),
        Ok(Question::Lookup(Lookup::Services(month, contract)))
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
        ("POST", "/ws/rest/V1/PSA_API/InvoicesReady/-/2024"),
        ("POST", "/ws/rest/V1/PSA_API/InvoicesReady/%00/202409"),
    ] {
        assert_eq!(code(method, target, "{}"), "invalid_query", "{target}");
    }
}
