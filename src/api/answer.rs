//! How a read's answer is told.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::cache_control::none_match_names;
use crate::cache::CacheNote;
use crate::clock::Duration;
use crate::exchange::{AnswerBody, Answered, Call};
use crate::reads::Answer;

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Answers are one caller's own, and a browser must ask again: the gateway answers in no time.
pub const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// What an answer depends on besides its target.
pub const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-API-Key, Accept-Encoding");

/// Room for our headers, `X-Request-Id`, `RateLimit` and hyper's `Date` and `Content-Length`.
const HEADERS_EXPECTED: usize = 12;

/// The response for a read's answer; 304 where the caller has it already.
pub fn respond(call: &Call, answer: Answer) -> Answered {
    call.record.set_cache(answer.note.outcome);
    let unchanged = call.head.method != Method::POST
        && answer
            .etag
            .as_ref()
            .is_some_and(|tag| none_match_names(&call.head.headers, tag.value()));
    let mut response = if unchanged {
        let mut response = Response::new(AnswerBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().reserve(HEADERS_EXPECTED);
        response
    } else {
        let mut response = Response::new(AnswerBody::full(answer.body));
        response.headers_mut().reserve(HEADERS_EXPECTED);
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        response
    };
    let headers = response.headers_mut();
    if let Some(tag) = answer.etag {
        headers.insert(header::ETAG, tag.value().clone());
    }
    tell_freshness(headers, &answer.note, answer.age);
    response
}

/// Adds `Cache-Status`, `Age`, `Cache-Control` and `Vary`.
pub fn tell_freshness(headers: &mut http::HeaderMap, note: &CacheNote, age: Duration) {
    // The text is made of RFC 9211's tokens and numbers.
    if let Ok(value) = HeaderValue::try_from(note.header_text()) {
        headers.insert(CACHE_STATUS.clone(), value);
    }
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.insert(header::VARY, VARY);
}
