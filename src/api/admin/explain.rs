//! `GET /admin/explain?method=&target=&body=&caller=`, or POST with the body to explain. POST
//! exists because a body of 64 KiB, as searches may have, does not fit into a target.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri};

use crate::access::{Caller, CallerBook};
use crate::api::query_string::{Params, wrong};
use crate::api::question::{Asked, Question};
use crate::api::routes;
use crate::exchange::Routing;
use crate::problem::Problem;

const PARAMS: [&str; 4] = ["method", "target", "body", "caller"];

/// Reads the request to explain and the caller it is explained for: the named caller, otherwise the
/// operator who sent this, otherwise a caller who may see everything.
pub(super) fn read(
    query: Option<&str>,
    sent: &[u8],
    callers: &CallerBook,
    operator: Option<Arc<Caller>>,
) -> Result<(Question, Arc<Caller>), Problem> {
    let params = Params::parse_with_body(query, &PARAMS, "body")?;
    let body = match params.get("body") {
        Some(_) if !sent.is_empty() => {
            return Err(wrong(
                "body",
                "is given twice, as a parameter and as the request body; give it once",
            ));
        }
        Some(text) => text.as_bytes(),
        None => sent,
    };
    let caller = match params.get("caller") {
        Some(name) => callers
            .named(name)
            .ok_or_else(|| wrong("caller", "is not the name of a caller"))?,
        None => operator
            .or_else(|| callers.who_sees_most())
            .ok_or_else(|| {
                wrong(
                    "caller",
                    "must name the caller whose request is to be explained",
                )
            })?,
    };
    let method = params.get("method").unwrap_or("GET").as_bytes();
    let method =
        Method::from_bytes(method).map_err(|_| wrong("method", "is not an HTTP method"))?;
    let target: Uri = params
        .get("target")
        .filter(|target| target.starts_with('/'))
        .and_then(|target| target.parse().ok())
        .ok_or_else(|| wrong("target", "must be a path, with its query if it has one"))?;
    match routes::find(&method, target.path()) {
        Routing::Found(matched) if matched.route.is_keyless() => Err(wrong(
            "target",
            "names a route that never needs a vendor, so there is nothing to explain",
        )),
        Routing::Found(matched) => {
            let question = Question::read(Asked {
                matched: &matched,
                path: target.path(),
                query: target.query(),
                headers: &HeaderMap::new(),
                body,
            })?;
            Ok((question, caller))
        }
        Routing::WrongMethod { allow, .. } => Err(wrong("method", format!("must be {allow}"))),
        Routing::Unknown => Err(wrong("target", "is not a path of the public listener")),
    }
}
