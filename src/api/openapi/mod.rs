//! `GET /openapi.json`: the description of the public surface.
//!
//! Each route's description is a JSON file beside the file that reads the route's requests:
//! `customers.json` beside `customers.rs` in `routes`. It is an OpenAPI operation without the parts
//! that the program can generate. This module adds those:
//!
//! * `answer` becomes the response 200, with the named shared headers, and 304 where `ETag` is one
//!   of them and the method is not POST;
//! * every problem that the route can answer with ([`Described::problems`] and those of every
//!   route) becomes a shared response of its status. `x-problem-codes` names the codes by status;
//! * `schemas` go to the shared schemas;
//! * `{kinds}` becomes the words of all kinds of answers, with `|` between them.
//!
//! What all routes share is in `components.json`. The words for each problem are in `problems.rs`.
//!
//! # To add a route
//!
//! 1. Add its word and its path to `domain::Route`.
//! 2. Write its reader `routes/my_route.rs`, with `pub(super) const DESCRIBED: Described`, and
//!    `my_route.json` beside it.
//! 3. Add its line to `routes::TABLE`.
//! 4. `UPDATE_DESCRIPTION=1 cargo test --lib openapi::` rewrites `docs/openapi.json`. The tests
//!    below name what is missing, and `tests/schema` holds the running program to the result.
//!
//! The document must never name a customer, a caller or a vendor's address, because everyone may
//! read it.

mod problems;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::fixed::Fixed;
use super::routes::{Line, Methods, TABLE};
use crate::domain::{FieldSet, Kind};
use crate::problem::{Code, status_of};

/// The description of a route, declared beside its reader.
#[derive(Debug)]
pub struct Described {
    /// Its operation: the text of a JSON file, in the form that this module's documentation
    /// describes.
    pub operation: &'static str,
    /// The problems that it can answer with, besides those of every route of its kind.
    pub problems: &'static [&'static [Code]],
}

/// Problems of every read that may need a vendor call.
pub(super) const VENDOR: &[Code] = &[
    Code::VendorError,
    Code::VendorProtocolError,
    Code::VendorCredentialRejected,
    Code::VendorUnavailable,
    Code::VendorBudgetExhausted,
    Code::NotCached,
];

/// Problems of every request on the public listener.
const OF_ALL: &[Code] = &[
    Code::MalformedRequest,
    Code::MethodNotAllowed,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::InternalError,
];

/// Problems of every route that needs a caller key.
const OF_CALLERS: &[Code] = &[
    Code::InvalidQuery,
    Code::AuthenticationRequired,
    Code::CrossSiteRefused,
    Code::NotAcceptable,
    Code::RequestTimeout,
    Code::PreconditionFailed,
    Code::BodyTooLarge,
    Code::CallerRateLimited,
    Code::StoreUnavailable,
    Code::Overloaded,
    Code::VendorTimeout,
];

/// Problems of the texts that everyone may read.
pub(super) const FIXED_TEXT: &[Code] = &[
    Code::InvalidQuery,
    Code::NotAcceptable,
    Code::PreconditionFailed,
];

/// Problems of every route that takes a body.
const OF_BODIES: &[Code] = &[Code::InvalidBody, Code::UnsupportedMediaType];

/// The description of this route itself.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("openapi.json"),
    problems: &[FIXED_TEXT],
};

/// The finished document.
pub(super) static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let head = [(header::CONTENT_TYPE, "application/json")];
    Fixed::new(document().to_string(), &head)
});

/// Returns the problems that a route can answer with.
fn codes(line: &Line) -> Vec<Code> {
    let mut codes = OF_ALL.to_vec();
    if !line.route.is_keyless() {
        codes.extend(OF_CALLERS);
    }
    if line.methods != Methods::Get {
        codes.extend(OF_BODIES);
    }
    codes.extend(line.described.problems.iter().copied().flatten());
    codes
}

fn document() -> Value {
    let mut document = parsed(include_str!("components.json"));
    set(
        &mut document,
        &["info", "version"],
        env!("CARGO_PKG_VERSION").into(),
    );
    let (mut paths, mut schemas, mut statuses) = (Map::new(), Map::new(), BTreeMap::new());
    let kinds = Kind::ALL.map(Kind::as_str).join("|");
    for line in TABLE {
        let codes = codes(line);
        let mut operation = parsed(&line.described.operation.replace("{kinds}", &kinds));
        if let Some(Value::Object(own)) = take(&mut operation, "schemas") {
            schemas.extend(own);
        }
        let answer = take(&mut operation, "answer").unwrap_or_default();
        let (responses, by_status) = responses(line, answer, &codes, &mut statuses);
        set(&mut operation, &["responses"], responses);
        set(&mut operation, &["x-problem-codes"], by_status);
        if line.route.is_keyless() {
            set(&mut operation, &["security"], json!([]));
        }
        let method = match line.methods {
            Methods::Get => "get",
            Methods::Post | Methods::PostAndQuery => "post",
        };
        paths.insert(line.pattern.into(), json!({ method: operation }));
    }
    set(&mut document, &["paths"], paths.into());
    let shared: Map<_, _> = statuses
        .into_iter()
        .map(|(status, codes)| (name_of(status), problems::response(status, &codes)))
        .collect();
    set(&mut document, &["components", "responses"], shared.into());
    if let Some(Value::Object(all)) = document.pointer_mut("/components/schemas") {
        all.extend(schemas);
    }
    let words = Code::ALL.map(Code::as_str).to_vec();
    let code = ["components", "schemas", "ProblemCode", "enum"];
    set(&mut document, &code, json!(words));
    let names: Vec<_> = FieldSet::names().collect();
    let field = ["components", "schemas", "CustomerField", "enum"];
    set(&mut document, &field, json!(names));
    document
}

/// Returns the responses of a route, and its codes by status. Adds the codes to those of each
/// status.
fn responses(
    line: &Line,
    answer: Value,
    codes: &[Code],
    statuses: &mut BTreeMap<StatusCode, Vec<Code>>,
) -> (Value, Value) {
    let mut good = answer;
    let named = take(&mut good, "headers").unwrap_or_default();
    let named: Vec<&str> = named
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let refer = |names: &[&str]| -> Value {
        let header = |name: &&str| {
            let place = format!("#/components/headers/{name}");
            ((*name).to_owned(), json!({ "$ref": place }))
        };
        names.iter().map(header).collect::<Map<_, _>>().into()
    };
    let mut with_id = named.clone();
    with_id.push("X-Request-Id");
    set(&mut good, &["headers"], refer(&with_id));
    let mut out = Map::new();
    out.insert("200".into(), good);
    if named.contains(&"ETag") && line.methods != Methods::Post {
        // RFC 9110, section 15.4.5: a 304 has the headers that a cache needs, and no content.
        let kept: Vec<_> = with_id
            .iter()
            .copied()
            .filter(|name| !name.starts_with("RateLimit"))
            .collect();
        out.insert(
            "304".into(),
            json!({
                "description": "`If-None-Match` names the current answer. On the search this is for the method QUERY.",
                "headers": refer(&kept)
            }),
        );
    }
    let mut by_status: BTreeMap<StatusCode, Vec<&str>> = BTreeMap::new();
    for code in codes {
        by_status
            .entry(status_of(*code))
            .or_default()
            .push(code.as_str());
        let all = statuses.entry(status_of(*code)).or_default();
        if !all.contains(code) {
            all.push(*code);
        }
    }
    for status in by_status.keys() {
        let place = format!("#/components/responses/{}", name_of(*status));
        out.insert(status.as_str().to_owned(), json!({ "$ref": place }));
    }
    let by_status: Map<_, _> = by_status
        .into_iter()
        .map(|(status, words)| (status.as_str().to_owned(), json!(words)))
        .collect();
    (out.into(), by_status.into())
}

/// Returns the name of a status' shared response, such as `BadGateway`.
fn name_of(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("Other");
    let words = reason.split(|c: char| !c.is_ascii_alphanumeric());
    let cased = |word: &str| {
        let (head, tail) = word.split_at(word.len().min(1));
        head.to_uppercase() + &tail.to_lowercase()
    };
    words.map(cased).collect()
}

/// Parses a JSON file of this program. A test checks that all are valid; an invalid one would give
/// `null`.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn take(of: &mut Value, name: &str) -> Option<Value> {
    of.as_object_mut()?.remove(name)
}

/// Sets the last name of `path` to `value`, if all names before it are objects.
fn set(of: &mut Value, path: &[&str], value: Value) {
    let Some((last, before)) = path.split_last() else {
        return;
    };
    let place = before.iter().try_fold(of, |at, name| at.get_mut(*name));
    if let Some(place) = place.and_then(Value::as_object_mut) {
        place.insert((*last).to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
