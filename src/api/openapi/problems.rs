//! The words with which `/openapi.json` explains problems: one shared response for each status.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::problem::Code;

/// An example of a request id.
const REQUEST_ID: &str = "a60f4acf3f30d53146dcb2e421f916b5";

/// Returns the shared response of a status: its problems, each with an example.
pub(super) fn response(status: StatusCode, codes: &[Code]) -> Value {
    let mut description = String::new();
    let mut examples = Map::new();
    for code in codes {
        let (when, detail) = about(*code);
        // Writing to a String cannot fail.
        let _ = writeln!(description, "* `{}`: {when}", code.as_str());
        let example = json!({
            "type": format!("urn:msp-gateway:{}", code.as_str()),
            "title": code.title(),
            "status": status.as_u16(),
            "detail": detail,
            "error": code.vendor_text().unwrap_or(code.title()),
            "code": code.as_str(),
            "request_id": REQUEST_ID
        });
        let example = json!({"summary": code.title(), "value": example});
        examples.insert(code.as_str().to_owned(), example);
    }
    let header = |name: &str| json!({ "$ref": format!("#/components/headers/{name}") });
    let mut headers = Map::new();
    headers.insert("X-Request-Id".into(), header("X-Request-Id"));
    let more: &[&str] = match status {
        StatusCode::UNAUTHORIZED => &["WWW-Authenticate"],
        StatusCode::METHOD_NOT_ALLOWED => &["Allow"],
        StatusCode::TOO_MANY_REQUESTS => &["Retry-After", "RateLimit", "RateLimit-Policy"],
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => &["Retry-After"],
        _ => &[],
    };
    headers.extend(more.iter().map(|name| ((*name).to_owned(), header(name))));
    json!({
        "description": description.trim_end(),
        "headers": headers,
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples
        }}
    })
}

/// Returns when a problem is answered, and an example of its `detail`. A new code needs its words
/// here.
fn about(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::MalformedRequest => (
            "the request's framing or headers could be read in two ways.",
            "A request has one Host.",
        ),
        Code::InvalidFields => (
            "`fields` names something that is no field.",
            "fields is a comma-separated list of these names: id, name, users_number, …",
        ),
        Code::InvalidBody => (
            "the body is not what the route takes.",
            "\"max_returned_items\" must be an integer from 1 to 500",
        ),
        Code::InvalidQuery => (
            "a parameter in the query or the path is unknown, repeated or malformed; `detail` names it.",
            "The parameter \"end\" must not be before start.",
        ),
        Code::InvalidPageToken => (
            "`scroll_id` is no page token of this gateway, or not one for this caller and search.",
            "start_page_key.scroll_id is not a page token for this caller and search.",
        ),
        Code::VendorRejectedRequest => (
            "wiv said 400 to a search whose form the gateway accepts.",
            "wiv refused this search.",
        ),
        Code::AuthenticationRequired => (
            "no caller key, or not a known one.",
            "Send a caller key as \"Authorization: Bearer …\" or \"X-API-Key: …\".",
        ),
        Code::CustomerNotAllowed => (
            "the customer is none of those that this caller may see.",
            "This caller may not see this customer.",
        ),
        Code::BillingNotAllowed => (
            "this caller may not see billing.",
            "This caller may not see billing.",
        ),
        Code::OperatorRequired => (
            "only operators may do this; on the operators' listener alone.",
            "An operator's caller key is needed.",
        ),
        Code::CrossSiteRefused => (
            "a browser asks on behalf of a page of another site.",
            "Web pages of other sites may not ask this.",
        ),
        Code::NotFound => (
            "there is no such path.",
            "There is no such path here; /openapi.json lists all.",
        ),
        Code::BillingNotFound => (
            "N-able has no such month or contract; `vendor_body` holds what it answered.",
            "N-able has no billing for this month and contract.",
        ),
        Code::AccountNotFound => (
            "the path names another account than the configured one.",
            "The account in the path is not the configured one; \"-\" stands for it.",
        ),
        Code::MethodNotAllowed => (
            "the path does not answer this method; `Allow` names those that it does.",
            "This path answers GET, HEAD.",
        ),
        Code::RequestTimeout => (
            "the request's body was not complete in time.",
            "The body was not complete in time.",
        ),
        Code::InvalidSyncToken => (
            "`since` is no token that this caller was given, or not of this search.",
            "since is not a token that this caller was given, or not of this search.",
        ),
        Code::SyncTokenExpired => (
            "the state that `since` names is not kept any more: start again without `since`.",
            "The state that since names is not kept any more; start again without since.",
        ),
        Code::NotAcceptable => (
            "`Accept-Encoding` refuses the plain body and every coding that there is (zstd, br, gzip).",
            "Accept-Encoding refuses the plain body and each of zstd, br and gzip.",
        ),
        Code::PreconditionFailed => (
            "`If-Match` names no tag of the answer as it is now.",
            "The answer's ETag is none of those that If-Match names.",
        ),
        Code::PageTokenExpired => (
            "the list has changed before the page token's place, or nothing tells its search any more: start the search again.",
            "The list has changed before this page token's place; start the search again.",
        ),
        Code::BodyTooLarge => (
            "the request's body is larger than 64 KiB.",
            "A request's body may have 64 KiB.",
        ),
        Code::UriTooLong => (
            "the request's target is longer than 4 KiB.",
            "A request's target may have 4 KiB.",
        ),
        Code::UnsupportedMediaType => (
            "the body is not `application/json`, or is coded.",
            "The body must be application/json, without a Content-Encoding.",
        ),
        Code::CallerRateLimited => (
            "the caller's own limit; `Retry-After` says when to come back.",
            "This caller may send 120 requests a minute, and 20 of them at once.",
        ),
        Code::HeadersTooLarge => (
            "more than 64 headers, or more than 16 KiB of them.",
            "A request may have 64 headers.",
        ),
        Code::InternalError => (
            "a fault of the gateway; give `request_id` to its operator.",
            "The gateway failed at this request; the log tells more under the request id.",
        ),
        Code::VendorError => (
            "the vendor answered with an error.",
            "wiv answered with an error.",
        ),
        Code::VendorProtocolError => (
            "the vendor answered something that is not what it documents.",
            "wiv's answer is not what it documents.",
        ),
        Code::VendorCredentialRejected => (
            "the vendor rejected the gateway's own key: only its operator can help.",
            "wiv rejected the gateway's key.",
        ),
        Code::WalkLimitExceeded => (
            "the search has more rows than the gateway reads: ask for fewer days or one customer.",
            "The result is larger than a search may be; narrow the date range.",
        ),
        Code::VendorUnavailable => (
            "the vendor cannot be reached, failed lately, or is not configured; nothing remembered is usable.",
            "wiv is not available.",
        ),
        Code::VendorBudgetExhausted => (
            "the vendor's rate limit leaves no room now.",
            "The budget of calls to wiv is used up for now.",
        ),
        Code::Overloaded => (
            "something of the gateway is short; `detail` says what.",
            "As many requests are in flight as limits.requests_in_flight_max allows.",
        ),
        Code::VendorTimeout => (
            "no answer of the vendor was there before the request's deadline. The gateway goes on \
             waiting for it, so ask again.",
            "No answer of wiv was there before the request's deadline; the gateway goes on waiting \
             for it, so ask again.",
        ),
        Code::NotCached => (
            "the request said `only-if-cached`, and nothing usable is remembered.",
            "Nothing usable is remembered for this request.",
        ),
    }
}
