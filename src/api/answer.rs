//! Writes the response to a read: headers, content coding, and 304 or 412 where a condition says
//! so.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::accept_encoding::Accepted;
use super::cache_control::{match_names, none_match};
use crate::cache::{CacheNote, Coding, Etag, Variants};
use crate::clock::Duration;
use crate::exchange::record::X_REQUEST_ID;
use crate::exchange::{AnswerBody, Answered, Call, Mention};
use crate::problem::{Code, Problem};
use crate::reads::Answer;

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `Cache-Control` of every answer. Answers belong to one caller, and a browser must revalidate
/// them, which is fast.
pub const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// `Vary` of every answer: what it depends on besides its target.
pub const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-API-Key, Accept-Encoding");

/// Capacity for our headers, `X-Request-Id`, `RateLimit`, and hyper's `Date` and `Content-Length`.
const HEADERS_EXPECTED: usize = 12;

/// Returns the response for a read's answer. The body has a content coding that the caller accepts,
/// if a variant is ready. If the caller has the answer already, in any form, the response is 304.
///
/// # Errors
/// 406 if the caller accepts no form, 412 if `If-Match` names another answer.
pub fn respond(call: &Call, answer: Answer, variants: &Arc<Variants>) -> Result<Answered, Problem> {
    call.record.set_note(&answer.note);
    let headers = &call.head.headers;
    let mentions = &call.record.mentions;
    let accepted = accepted(call)?;
    if mentions.has(Mention::IfMatch) && call.head.method != Method::POST {
        check_match(headers, answer.etag.as_ref())?;
    }
    // Answers without a tag are joined for each request, so they have no variants.
    let Some(tag) = answer.etag else {
        let mut response = whole(answer.body);
        tell_freshness(response.headers_mut(), &answer.note, answer.age);
        return Ok(response);
    };
    let conditional = mentions.has(Mention::IfNoneMatch) && call.head.method != Method::POST;
    if conditional && let Some(held) = held(headers, &accepted, &tag) {
        return Ok(not_modified(held, &answer.note, answer.age));
    }
    let variant = variants.find(accepted.codings().iter(), &answer.body, &tag);
    let etag = match &variant {
        Some(variant) => variant.etag.clone(),
        None => tag.value().clone(),
    };
    if conditional && none_match(headers, |one| one == b"*") {
        return Ok(not_modified(etag, &answer.note, answer.age));
    }
    let (body, coding) = match variant {
        Some(variant) => (variant.body, Some(variant.coding)),
        None => (answer.body, None),
    };
    let mut response = Response::new(AnswerBody::full(body));
    let headers = response.headers_mut();
    *headers = tagged_head(etag, &answer.note, answer.age);
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding.header_value());
    }
    Ok(response)
}

/// Returns the content codings that the caller accepts.
///
/// # Errors
/// 406 if the caller accepts no form that exists.
pub fn accepted(call: &Call) -> Result<Accepted, Problem> {
    match call.record.mentions.has(Mention::AcceptEncoding) {
        true => accepted_of(&call.head.headers),
        false => Ok(Accepted::default()),
    }
}

/// Returns the content codings that these headers accept.
///
/// # Errors
/// 406 if they accept no form that exists.
pub fn accepted_of(headers: &HeaderMap) -> Result<Accepted, Problem> {
    let accepted = Accepted::of(headers);
    match accepted.takes_some_form() {
        true => Ok(accepted),
        false => Err(Problem::new(
            Code::NotAcceptable,
            "Accept-Encoding excludes an uncompressed body and each of zstd, br and gzip; allow one of them.",
        )),
    }
}

/// Checks `If-Match`: the answer must have one of these tags, in any form; `*` is any answer.
/// `If-Unmodified-Since` is ignored, as RFC 9110 section 13.1.4 requires for answers that have no
/// date of their last change.
///
/// # Errors
/// 412 if the answer has none of the tags.
pub fn check_match(headers: &HeaderMap, tag: Option<&Etag>) -> Result<(), Problem> {
    // A value that is not a list of tags is not a condition.
    let is_list = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        value == b"*" || value.starts_with(b"\"") || value.starts_with(b"W/\"")
    };
    if !headers.get_all(header::IF_MATCH).iter().any(is_list) {
        return Ok(());
    }
    let named = match_names(headers, |one| {
        let is_form = |tag: &Etag| {
            let mut codings = Coding::ALL.into_iter();
            one == tag.value().as_bytes()
                || codings.any(|coding| tag.names_form(one, coding.as_str()))
        };
        one == b"*" || tag.is_some_and(is_form)
    });
    match named {
        true => Ok(()),
        false => Err(Problem::new(
            Code::PreconditionFailed,
            "If-Match does not name the current ETag of the answer.",
        )),
    }
}

/// The headers of an answer that has an entity tag, with the values that never change.
///
/// Copying this map and replacing three values costs fewer instructions than seven insertions into
/// a new map: the guard counts some 450 less for a 4 KB hit of 37,000.
static TAGGED_HEAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut head = HeaderMap::with_capacity(HEADERS_EXPECTED);
    head.insert(header::CONTENT_TYPE, JSON);
    head.insert(header::CACHE_CONTROL, PRIVATE);
    head.insert(header::VARY, VARY);
    // Each answer has its own values for these. A layer above sets `X-Request-Id`.
    for name in [&header::ETAG, &CACHE_STATUS, &header::AGE, &X_REQUEST_ID] {
        head.insert(name, HeaderValue::from_static(""));
    }
    head
});

/// Returns the headers of an answer that has an entity tag, all but `X-Request-Id`.
fn tagged_head(etag: HeaderValue, note: &CacheNote, age: Duration) -> HeaderMap {
    let mut head = TAGGED_HEAD.clone();
    head.insert(&header::ETAG, etag);
    head.insert(&CACHE_STATUS, note.header_value());
    head.insert(&header::AGE, seconds(age));
    head
}

/// Ages below this number of seconds have their header value ready. Older answers are rare.
const AGES_READY: u64 = 1024;

/// The ready values of `Age`, by seconds. Copying one saves the allocation of a new one: the guard
/// counts some 500 instructions less for a 4 KB hit of 37,000.
static AGES: LazyLock<Vec<HeaderValue>> =
    LazyLock::new(|| (0..AGES_READY).map(HeaderValue::from).collect());

/// Returns the value of `Age`.
fn seconds(of: Duration) -> HeaderValue {
    let seconds = of.as_secs();
    let ready = usize::try_from(seconds).ok().and_then(|at| AGES.get(at));
    ready.cloned().unwrap_or_else(|| HeaderValue::from(seconds))
}

/// Returns the tag of a form of this body that the caller has and still accepts. The response is
/// then 304, even if the body would now be sent in another form.
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
    headers.insert(&CACHE_STATUS, note.header_value());
    headers.insert(header::AGE, seconds(age));
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.insert(header::VARY, VARY);
}
