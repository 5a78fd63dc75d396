//! How a read's answer is told.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::accept_encoding::Accepted;
use super::cache_control::none_match;
use crate::cache::{CacheNote, Coding, Etag, Variants};
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

/// The response for a read's answer: in a content coding that the caller takes, where a variant is at
/// hand; 304 where the caller has it already, in whatever form it takes.
pub fn respond(call: &Call, answer: Answer, variants: &Arc<Variants>) -> Answered {
    call.record.set_cache(answer.note.outcome);
    let headers = &call.head.headers;
    // Answers without a tag are joined anew for each request; there is nothing to keep a variant of.
    let Some(tag) = answer.etag else {
        let mut response = whole(answer.body);
        tell_freshness(response.headers_mut(), &answer.note, answer.age);
        return response;
    };
    let accepted = Accepted::of(headers);
    let conditional =
        call.head.method != Method::POST && headers.contains_key(header::IF_NONE_MATCH);
    if conditional && let Some(held) = held(headers, &accepted, &tag) {
        return not_modified(held, &answer.note, answer.age);
    }
    let variant = variants.find(accepted.codings().iter(), &answer.body, &tag);
    let etag = match &variant {
        Some(variant) => variant.etag.clone(),
        None => tag.value().clone(),
    };
    if conditional && none_match(headers, |one| one == b"*") {
        return not_modified(etag, &answer.note, answer.age);
    }
    let mut response = match variant {
        Some(variant) => {
            let mut response = whole(variant.body);
            let coding = variant.coding.header_value();
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, coding);
            response
        }
        None => whole(answer.body),
    };
    response.headers_mut().insert(header::ETAG, etag);
    tell_freshness(response.headers_mut(), &answer.note, answer.age);
    response
}

/// The tag of a form of this body that the caller names and still takes. It has the body then,
/// whichever form it would be sent now.
fn held(headers: &HeaderMap, accepted: &Accepted, tag: &Etag) -> Option<HeaderValue> {
    let mut held = None;
    none_match(headers, |one| {
        held = if one == tag.value().as_bytes() {
            accepted.takes_plain().then(|| tag.value().clone())
        } else {
            Coding::ALL
                .into_iter()
                .find(|coding| tag.names_form(one, coding.as_str()))
                .filter(|coding| accepted.takes(*coding))
                .map(|coding| tag.of_form(coding.as_str()))
        };
        held.is_some()
    });
    held
}

fn whole(body: Bytes) -> Answered {
    let mut response = Response::new(AnswerBody::full(body));
    response.headers_mut().reserve(HEADERS_EXPECTED);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn not_modified(etag: HeaderValue, note: &CacheNote, age: Duration) -> Answered {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.reserve(HEADERS_EXPECTED);
    headers.insert(header::ETAG, etag);
    tell_freshness(headers, note, age);
    response
}

/// Adds `Cache-Status`, `Age`, `Cache-Control` and `Vary`.
pub fn tell_freshness(headers: &mut HeaderMap, note: &CacheNote, age: Duration) {
    // The text is made of RFC 9211's tokens and numbers.
    if let Ok(value) = HeaderValue::try_from(note.header_text()) {
        headers.insert(CACHE_STATUS.clone(), value);
    }
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.insert(header::VARY, VARY);
}
