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
            "The request has more than one Host header; it must have exactly one.",
        ),
        Code::InvalidFields => (
            "`fields` names an unknown field.",
            "fields is a comma-separated list of these names: id, name, users_number, …",
        ),
        Code::InvalidBody => (
            "the body is not JSON, or has an unknown member or a wrong value; `detail` names it.",
            "\"max_returned_items\" must be an integer from 1 to 500",
        ),
        Code::InvalidQuery => (
            "a parameter in the query or the path is unknown, repeated or malformed; `detail` names it.",
            "The parameter \"end\" must not be before start.",
        ),
        Code::InvalidPageToken => (
            "`scroll_id` is not a page token of this gateway for this caller and search.",
            "start_page_key.scroll_id is not a page token for this caller and search. Start the search again.",
        ),
        Code::VendorRejectedRequest => (
            "wiv answered 400 to a search that the gateway had accepted; `detail` repeats its message.",
            "wiv rejected this search with status 400 and gave no reason.",
        ),
        Code::AuthenticationRequired => (
            "the caller key is missing, unknown or expired.",
            "Send a caller key as \"Authorization: Bearer …\" or \"X-API-Key: …\".",
        ),
        Code::CustomerNotAllowed => (
            "this caller may not see this customer.",
            "This caller may not see this customer.",
        ),
        Code::BillingNotAllowed => (
            "this caller may not see billing.",
            "This caller may not see billing.",
        ),
        Code::OperatorRequired => (
            "only operators may do this. This code appears on the operators' listener alone.",
            "Only a caller with the role \"operator\" may do this.",
        ),
        Code::CrossSiteRefused => (
            "a browser sent the request for a page of another site.",
            "Cross-site requests and requests for another host name are refused on this listener.",
        ),
        Code::NotFound => (
            "the path does not exist.",
            "This path does not exist. /openapi.json lists all paths.",
        ),
        Code::BillingNotFound => (
            "N-able has no billing for this month or contract; `vendor_body` holds N-able's answer.",
            "N-able has no billing for this month and contract. vendor_body is N-able's answer, if it sent one.",
        ),
        Code::AccountNotFound => (
            "the path names another account than the configured one.",
            "The account in the path is not the configured account. Write \"-\" for the configured account.",
        ),
        Code::MethodNotAllowed => (
            "the path does not answer this method; `Allow` names the methods that it answers.",
            "This path does not answer this method. It answers GET, HEAD.",
        ),
        Code::RequestTimeout => (
            "the request body did not arrive completely in time.",
            "The request body did not arrive completely in time.",
        ),
        Code::InvalidSyncToken => (
            "`since` is not a sync token for this caller and search.",
            "since is not a sync token for this caller and search. Start again without since.",
        ),
        Code::SyncTokenExpired => (
            "the gateway no longer keeps the state that `since` names. Start again without `since`.",
            "The gateway no longer keeps the state that since names. Start again without since.",
        ),
        Code::NotAcceptable => (
            "`Accept-Encoding` excludes an uncompressed body and every supported coding (zstd, br, gzip).",
            "Accept-Encoding excludes an uncompressed body and each of zstd, br and gzip; allow one of them.",
        ),
        Code::PreconditionFailed => (
            "`If-Match` does not name the current `ETag` of the answer.",
            "If-Match does not name the current ETag of the answer.",
        ),
        Code::PageTokenExpired => (
            "the rows before the page token have changed, or the gateway no longer knows its search. Start the search again.",
            "The rows before this page token have changed, or the gateway no longer knows its search. Start the search again.",
        ),
        Code::BodyTooLarge => (
            "the request body is larger than 64 KiB.",
            "The request body is too large; it may have at most 64 KiB.",
        ),
        Code::UriTooLong => (
            "the request target is longer than 4 KiB.",
            "The request target is too long; it may have at most 4 KiB.",
        ),
        Code::UnsupportedMediaType => (
            "the body is not `application/json`, or has a `Content-Encoding`.",
            "The request body must be application/json in UTF-8.",
        ),
        Code::CallerRateLimited => (
            "the caller has reached its own limit; `Retry-After` says how long to wait.",
            "This caller has reached its limit of 120 requests a minute, in bursts of at most 20.",
        ),
        Code::HeadersTooLarge => (
            "the request has more than 64 headers, or more than 16 KiB of headers.",
            "The request has too many headers; at most 64 are allowed.",
        ),
        Code::InternalError => (
            "the gateway failed; give `request_id` to its operator.",
            "The gateway failed while it handled this request. Its log has the details under the request id.",
        ),
        Code::VendorError => (
            "the vendor answered with an error.",
            "wiv answered this request with status 500.",
        ),
        Code::VendorProtocolError => (
            "the vendor sent an answer that does not match its documentation.",
            "wiv sent an answer that does not match its documentation.",
        ),
        Code::VendorCredentialRejected => (
            "the vendor rejected the gateway's own key. The gateway's operator must replace it.",
            "wiv rejected the gateway's own key. The gateway's operator must replace it.",
        ),
        Code::WalkLimitExceeded => (
            "the search has more rows than the gateway reads. Narrow the date range or name one customer.",
            "The result is larger than pagination.walk_rows_max allows. Narrow date_range or name a customer_id.",
        ),
        Code::VendorUnavailable => (
            "the vendor cannot be reached, failed recently or is not configured, and nothing usable is cached.",
            "Recent calls to wiv failed. Until a probe succeeds, the gateway sends it no others.",
        ),
        Code::VendorBudgetExhausted => (
            "the vendor's rate limit is used up for now; `Retry-After` says how long to wait.",
            "No request was sent to wiv. The budget of requests_per_minute is used up until after the request's deadline.",
        ),
        Code::StoreUnavailable => (
            "the store that the gateways share is away, and this gateway is set not to go on without it. `Retry-After` says how long to wait.",
            "The store that the gateways share is away, and store.valkey.when_away forbids to go on without it.",
        ),
        Code::Overloaded => (
            "the gateway is at one of its limits; `detail` names the limit.",
            "The gateway is handling as many requests as limits.requests_in_flight_max allows.",
        ),
        Code::VendorTimeout => (
            "the vendor's answer did not arrive before the request's deadline. The gateway keeps waiting for it, so try again.",
            "No answer from wiv arrived before the request's deadline. The gateway keeps waiting for it, so try again.",
        ),
        Code::NotCached => (
            "the request said `only-if-cached`, and nothing usable is cached.",
            "Nothing usable is cached, and only-if-cached forbids a vendor call.",
        ),
    }
}
