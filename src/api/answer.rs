//! How a read's answer is told.

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
/// Answers are one caller's own, and a browser must ask again: the gateway answers in no time.
pub const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// What an answer depends on besides its target.
pub const VARY: HeaderValue = HeaderValue::from_static("Authorization, X-API-Key, Accept-Encoding");

/// Room for our headers, `X-Request-Id`, `RateLimit` and hyper's `Date` and `Content-Length`.
const HEADERS_EXPECTED: usize = 12;

/// Returns the response for a read's answer: in a content coding that the caller takes, where a
/// variant is at hand; 304 where the caller has it already, in whatever form it takes.
///
/// # Errors
/// 406 where it takes no form that there is, 412 where `If-Match` names another answer.
pub fn respond(call: &Call, answer: Answer, variants: &Arc<Variants>) -> Result<Answered, Problem> {
    call.record.set_note(&answer.note);
    let headers = &call.head.headers;
    let mentions = &call.record.mentions;
    let accepted = accepted(call)?;
    if mentions.has(Mention::IfMatch) && call.head.method != Method::POST {
        check_match(headers, answer.etag.as_ref())?;
    }
    // Answers without a tag are joined anew for each request; there is nothing to keep a variant of.
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

/// What the caller takes.
///
/// # Errors
/// 406 where that is no form that there is.
pub fn accepted(call: &Call) -> Result<Accepted, Problem> {
    match call.record.mentions.has(Mention::AcceptEncoding) {
        true => accepted_of(&call.head.headers),
        false => Ok(Accepted::default()),
    }
}

/// What these headers take.
///
/// # Errors
/// 406 where that is no form that there is.
pub fn accepted_of(headers: &HeaderMap) -> Result<Accepted, Problem> {
    let accepted = Accepted::of(headers);
    match accepted.takes_some_form() {
        true => Ok(accepted),
        false => Err(Problem::new(
            Code::NotAcceptable,
            "Accept-Encoding refuses the plain body and each of zstd, br and gzip.",
        )),
    }
}

/// `If-Match`: the answer must have one of these tags, in whatever form it is sent; `*` is any answer.
/// `If-Unmodified-Since` is not looked at: answers have no date of their last change, and RFC 9110
/// section 13.1.4 has it ignored then.
///
/// # Errors
/// 412 where it is none of them.
pub fn check_match(headers: &HeaderMap, tag: Option<&Etag>) -> Result<(), Problem> {
    // What is no list of tags is no condition.
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
            "The answer's ETag is none of those that If-Match names.",
        )),
    }
}

/// The head of an answer with a tag: what never changes as it is, and a place for each of the others,
/// `X-Request-Id` among them, which a layer above fills. A copy of it costs a part of what as many
/// insertions do.
struct TaggedHead {
    head: HeaderMap,
    /// What each value is, in the order in which the head gives them.
    places: Vec<Place>,
}

enum Place {
    Ready,
    Etag,
    CacheStatus,
    Age,
}

static TAGGED_HEAD: LazyLock<TaggedHead> = LazyLock::new(|| {
    let mut head = HeaderMap::with_capacity(HEADERS_EXPECTED);
    let later = HeaderValue::from_static("");
    head.insert(header::CONTENT_TYPE, JSON);
    head.insert(header::ETAG, later.clone());
    head.insert(CACHE_STATUS.clone(), later.clone());
    head.insert(header::AGE, later.clone());
    head.insert(header::CACHE_CONTROL, PRIVATE);
    head.insert(header::VARY, VARY);
    head.insert(X_REQUEST_ID.clone(), later);
    let place = |name: &HeaderName| match name {
        _ if *name == header::ETAG => Place::Etag,
        _ if *name == CACHE_STATUS => Place::CacheStatus,
        _ if *name == header::AGE => Place::Age,
        _ => Place::Ready,
    };
    TaggedHead {
        places: head.keys().map(place).collect(),
        head,
    }
});

fn tagged_head(etag: HeaderValue, note: &CacheNote, age: Duration) -> HeaderMap {
    let mut head = TAGGED_HEAD.head.clone();
    let mut etag = Some(etag);
    // A copy gives its values in the order of the original.
    for (value, place) in head.values_mut().zip(&TAGGED_HEAD.places) {
        match place {
            Place::Ready => {}
            Place::Etag => {
                if let Some(etag) = etag.take() {
                    *value = etag;
                }
            }
            Place::CacheStatus => *value = note.header_value(),
            Place::Age => *value = seconds(age),
        }
    }
    head
}

/// Ages of so many seconds and less have their value ready; older answers are few.
const AGES_READY: u64 = 1024;

static AGES: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    // Kept for as long as the program runs: a value that is not shared is copied without a count.
    let text = |age: u64| &*age.to_string().leak();
    (0..AGES_READY)
        .map(|age| HeaderValue::from_static(text(age)))
        .collect()
});

/// The value of `Age`.
fn seconds(of: Duration) -> HeaderValue {
    let seconds = of.as_secs();
    let ready = usize::try_from(seconds).ok().and_then(|at| AGES.get(at));
    ready.cloned().unwrap_or_else(|| HeaderValue::from(seconds))
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
    headers.insert(CACHE_STATUS.clone(), note.header_value());
    headers.insert(header::AGE, seconds(age));
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.insert(header::VARY, VARY);
}
