//! `GET /openapi.json`: the description of the public surface, built from the table of routes and
//! the codes of the problems, once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::header;
use serde_json::{Map, Value, json};

use super::fixed::Fixed;
use super::routes::{Line, Methods, TABLE};
use crate::domain::{FieldSet, PageSize, Route};
use crate::problem::Code;

/// The description as it is answered.
pub(super) static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let head = [(header::CONTENT_TYPE, "application/json")];
    Fixed::new(document().to_string(), &head)
});

/// Which problems a route can answer with.
pub fn codes(line: &Line) -> Vec<Code> {
    if line.route.is_keyless() {
        let mut codes = vec![
            Code::MalformedRequest,
            Code::MethodNotAllowed,
            Code::UriTooLong,
            Code::HeadersTooLarge,
            Code::InternalError,
        ];
        match line.route {
            Route::Health => {}
            _ => codes.push(Code::InvalidQuery),
        }
        return codes;
    }
    let mut codes = vec![
        Code::MalformedRequest,
        Code::InvalidQuery,
        Code::AuthenticationRequired,
        Code::CrossSiteRefused,
        Code::MethodNotAllowed,
        Code::RequestTimeout,
        Code::BodyTooLarge,
        Code::UriTooLong,
        Code::CallerRateLimited,
        Code::HeadersTooLarge,
        Code::InternalError,
        Code::Overloaded,
        Code::VendorTimeout,
    ];
    if line.methods != Methods::Get {
        codes.extend([Code::InvalidBody, Code::UnsupportedMediaType]);
    }
    const VENDOR: [Code; 6] = [
        Code::VendorError,
        Code::VendorProtocolError,
        Code::VendorCredentialRejected,
        Code::VendorUnavailable,
        Code::VendorBudgetExhausted,
        Code::NotCached,
    ];
    match line.route {
        Route::Customers => {
            codes.extend(VENDOR);
            codes.push(Code::InvalidFields);
        }
        Route::CaseSearch => {
            codes.extend(VENDOR);
            codes.extend([
                Code::InvalidPageToken,
                Code::VendorRejectedRequest,
                Code::CustomerNotAllowed,
                Code::PageTokenExpired,
                Code::WalkLimitExceeded,
            ]);
        }
        Route::CaseExport => {
            codes.extend(VENDOR);
            codes.extend([
                Code::VendorRejectedRequest,
                Code::CustomerNotAllowed,
                Code::WalkLimitExceeded,
            ]);
        }
        Route::Billing | Route::BillingMonth => {
            codes.extend(VENDOR);
            codes.extend([Code::BillingNotAllowed, Code::BillingNotFound]);
        }
        Route::NableBilling | Route::NableInvoices => {
            codes.extend(VENDOR);
            codes.extend([
                Code::BillingNotAllowed,
                Code::BillingNotFound,
                Code::AccountNotFound,
            ]);
        }
        Route::Overview => {
            codes.extend(VENDOR);
            codes.extend([
                Code::VendorRejectedRequest,
                Code::BillingNotAllowed,
                Code::BillingNotFound,
                Code::WalkLimitExceeded,
            ]);
        }
        Route::OpenApi | Route::Docs | Route::Health | Route::Other => {}
    }
    codes
}

fn document() -> Value {
    let mut paths = Map::new();
    for line in &TABLE {
        let mut item = Map::new();
        match line.methods {
            Methods::Get => {
                item.insert("get".into(), operation(line, "get"));
                item.insert("head".into(), operation(line, "head"));
            }
            Methods::Post => {
                item.insert("post".into(), operation(line, "post"));
            }
            Methods::PostAndQuery => {
                let mut post = operation(line, "post");
                if let Some(post) = post.as_object_mut() {
                    post.insert(
                        "x-query".into(),
                        "The same request may be sent with the method QUERY (RFC 10008), which says that \
                         it is safe and cacheable. Content-Type is then required, and If-None-Match is \
                         answered with 304. OpenAPI 3.1 cannot describe other methods."
                            .into(),
                    );
                }
                item.insert("post".into(), post);
            }
        }
        paths.insert(line.pattern.into(), item.into());
    }
    let words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "msp-gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One caching endpoint in front of wiv and N-able. Vendor members pass byte for byte."
        },
        "security": [{"bearer": []}, {"apiKey": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "certificate": {"type": "mutualTLS"}
            },
            "headers": {
                "Cache-Status": {
                    "description": "How the answer came about (RFC 9211).",
                    "schema": {"type": "string"}
                },
                "Age": {
                    "description": "Seconds since the vendor's answer was fetched or revalidated.",
                    "schema": {"type": "integer", "minimum": 0}
                },
                "ETag": {"description": "Strong, of the bytes.", "schema": {"type": "string"}},
                "X-Request-Id": {"description": "Names the request in the gateway's log.", "schema": {"type": "string"}}
            },
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457, with the vendors' own error members beside.",
                    "required": ["type", "title", "status", "detail", "error", "code", "request_id"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "error": {"type": "string", "description": "As wiv's own errors."},
                        "code": {"type": "string", "enum": words},
                        "request_id": {"type": "string"},
                        "message": {"type": "string", "description": "As N-able's own errors; on its paths only."},
                        "http_status_code": {"type": "integer", "description": "As N-able's own errors; on its paths only."},
                        "vendor_body": {"description": "What N-able answered, with billing_not_found."}
                    }
                },
                "SearchBody": search_body()
            }
        }
    })
}

fn operation(line: &Line, method: &str) -> Value {
    let mut out = Map::new();
    let (summary, _) = about(line.route);
    let id = match method {
        "head" => format!("{}_head", line.route.as_str()),
        _ => line.route.as_str().to_owned(),
    };
    out.insert("operationId".into(), id.into());
    out.insert("summary".into(), summary.into());
    if line.route.is_keyless() {
        out.insert("security".into(), json!([]));
    }
    let parameters = parameters(line);
    if !parameters.is_empty() {
        out.insert("parameters".into(), parameters.into());
    }
    match line.route {
        Route::CaseSearch => {
            out.insert(
                "requestBody".into(),
                json!({"required": true, "content": {"application/json":
                    {"schema": {"$ref": "#/components/schemas/SearchBody"}}}}),
            );
        }
        Route::NableBilling | Route::NableInvoices => {
            out.insert(
                "requestBody".into(),
                json!({"required": false, "content": {"application/json":
                    {"schema": {"type": "object", "maxProperties": 0}}}}),
            );
        }
        _ => {}
    }
    out.insert("responses".into(), responses(line, method));
    out.into()
}

/// What a route is for, and the media types of its good answer.
fn about(route: Route) -> (&'static str, &'static [&'static str]) {
    const JSON: &[&str] = &["application/json"];
    match route {
        Route::Customers => ("The customers that the caller may see.", JSON),
        Route::CaseSearch => (
            "One page of the cases; next_page_key.scroll_id is the gateway's page token.",
            JSON,
        ),
        Route::CaseExport => (
            "All cases of a search as a stream; complete if the chunked body ends properly.",
            &["application/x-ndjson", "text/csv; charset=utf-8"],
        ),
        Route::Billing => ("N-able's billable services of a contract in a month.", JSON),
        Route::BillingMonth => ("N-able's invoices and contracts of a month.", JSON),
        Route::NableBilling => (
            "The same under N-able's own path; a soft failure passes as 200.",
            JSON,
        ),
        Route::NableInvoices => ("Invoices under N-able's own path.", JSON),
        Route::Overview => ("Customers, cases and billing in one answer.", JSON),
        Route::OpenApi => ("This document.", JSON),
        Route::Docs => (
            "A page for people, made from this document.",
            &["text/html; charset=utf-8"],
        ),
        Route::Health => ("Whether the gateway is alive.", JSON),
        Route::Other => ("", JSON),
    }
}

fn parameters(line: &Line) -> Vec<Value> {
    let month = json!({"type": "string", "pattern": "^20[0-9]{2}(0[1-9]|1[0-2])$"});
    let id = json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9_.:@|-]+$"});
    let day = json!({"type": "string", "format": "date"});
    let mut out: Vec<Value> = line
        .pattern
        .split('/')
        .filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let schema = match name {
                "timeframe" => month.clone(),
                _ => id.clone(),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    let mut query = |name: &str, what: &str, schema: &Value| {
        out.push(json!({"name": name, "in": "query", "required": false, "description": what, "schema": schema}));
    };
    match line.route {
        Route::Customers => {
            let names: Vec<_> = FieldSet::names().collect();
            out.push(json!({
                "name": "fields", "in": "query", "required": false,
                "description": "Absent means all.",
                "style": "form", "explode": false,
                "schema": {"type": "array", "minItems": 1, "items": {"type": "string", "enum": names}}
            }));
        }
        Route::CaseSearch => query("customer_id", "Absent means all customers.", &id),
        Route::CaseExport => {
            query("customer_id", "Absent means all customers.", &id);
            query("start", "First day; only with end.", &day);
            query("end", "Last day; only with start.", &day);
            query(
                "format",
                "The form of the stream.",
                &json!({"type": "string", "enum": ["ndjson", "csv"], "default": "ndjson"}),
            );
        }
        Route::Overview => {
            query("start", "First day; only with end.", &day);
            query(
                "end",
                "Last day; only with start. Absent means the last 30 days.",
                &day,
            );
            query("timeframe", "Absent means the last closed month.", &month);
            query(
                "require",
                "Whether a missing part is told in parts, or is the answer.",
                &json!({"type": "string", "enum": ["any", "all"], "default": "any"}),
            );
        }
        _ => {}
    }
    out
}

fn search_body() -> Value {
    json!({
        "type": "object",
        "description": "{} searches everything. Unknown members go to the vendor as they are.",
        "properties": {
            "max_returned_items": {
                "type": ["integer", "null"], "minimum": 1,
                "maximum": PageSize::MAX.to_u16(), "default": PageSize::DEFAULT.to_u16()
            },
            "date_range": {
                "type": ["object", "null"],
                "required": ["start", "end"],
                "additionalProperties": false,
                "properties": {
                    "start": {"type": "string", "format": "date"},
                    "end": {"type": "string", "format": "date"}
                }
            },
            "start_page_key": {
                "type": ["object", "null"],
                "required": ["scroll_id"],
                "additionalProperties": false,
                "properties": {"scroll_id": {"type": "string"}}
            }
        }
    })
}

fn responses(line: &Line, method: &str) -> Value {
    let has_body = method != "head";
    let mut headers = Map::new();
    let cached = !line.route.is_keyless();
    let tagged = !matches!(
        line.route,
        Route::Overview | Route::CaseExport | Route::Health
    );
    for (name, there) in [
        ("X-Request-Id", true),
        ("Cache-Status", cached),
        ("Age", cached),
        ("ETag", tagged),
    ] {
        if there {
            headers.insert(
                name.into(),
                json!({"$ref": format!("#/components/headers/{name}")}),
            );
        }
    }
    let mut good = json!({"description": "The answer.", "headers": headers});
    let (_, media) = about(line.route);
    if has_body && let Some(good) = good.as_object_mut() {
        let content: Map<_, _> = media.iter().map(|m| ((*m).to_owned(), json!({}))).collect();
        good.insert("content".into(), content.into());
    }
    let mut out = Map::new();
    out.insert("200".into(), good);
    if tagged && line.methods != Methods::Post {
        out.insert(
            "304".into(),
            json!({"description": "If-None-Match names the current answer."}),
        );
    }
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes(line) {
        let words = by_status.entry(code.status().as_u16()).or_default();
        words.push(code.as_str());
    }
    for (status, words) in by_status {
        let mut response = json!({"description": words.join(", ")});
        if has_body && let Some(response) = response.as_object_mut() {
            response.insert(
                "content".into(),
                json!({"application/problem+json": {"schema": {"allOf": [
                    {"$ref": "#/components/schemas/Problem"},
                    {"properties": {"code": {"enum": words}}}
                ]}}}),
            );
        }
        out.insert(status.to_string(), response);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_and_every_code_is_described() {
        let document = document();
        for line in &TABLE {
            let item = &document["paths"][line.pattern];
            let method = match line.methods {
                Methods::Get => "get",
                Methods::Post | Methods::PostAndQuery => "post",
            };
            assert!(item[method]["summary"].as_str().unwrap().len() > 5);
            let count = line.pattern.matches('{').count();
            let declared = item[method]["parameters"].as_array();
            let in_path = declared
                .into_iter()
                .flatten()
                .filter(|p| p["in"] == "path")
                .count();
            assert_eq!(in_path, count, "{}", line.pattern);
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), TABLE.len());
        let words = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
        for code in Code::ALL {
            assert!(words.as_array().unwrap().contains(&code.as_str().into()));
        }
    }

    #[test]
    fn every_code_is_some_routes_but_those_of_other_places() {
        let used: Vec<Code> = TABLE.iter().flat_map(codes).collect();
        for code in Code::ALL {
            // No route has no path; purge and explain are on the admin listener.
            let elsewhere = matches!(code, Code::NotFound | Code::OperatorRequired);
            assert_eq!(used.contains(&code), !elsewhere, "{code:?}");
        }
    }

    #[test]
    fn parameters_are_those_that_are_read() {
        let document = document();
        let of = |path: &str| -> Vec<String> {
            let listed = document["paths"][path]["get"]["parameters"].as_array();
            let names = listed.unwrap().iter().map(|p| p["name"].as_str().unwrap());
            names.map(str::to_owned).collect()
        };
        assert_eq!(of("/msp/customers"), super::super::customers::PARAMS);
        assert_eq!(of("/v1/cases/export"), super::super::case_export::PARAMS);
        assert_eq!(of("/v1/overview"), super::super::overview::PARAMS);
    }
}
