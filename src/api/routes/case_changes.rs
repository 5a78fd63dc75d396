//! `GET /v1/cases/changes`

use http::{HeaderValue, Response, header};

use super::case_export::coded;
use crate::api::answer::tell_freshness;
use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::{Params, wrong};
use crate::api::question::{Asked, Question};
use crate::clock::Duration;
use crate::exchange::{AnswerBody, Answered, Call, Permit};
use crate::problem::{Code, Problem};
use crate::reads::changes::ChangesRequest;
use crate::reads::export::ExportStream;

/// The query parameters.
pub const PARAMS: [&str; 5] = ["customer_id", "start", "end", "since", "wait"];

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("case_changes.json"),
    problems: &[
        VENDOR,
        &[
            Code::InvalidSyncToken,
            Code::VendorRejectedRequest,
            Code::CustomerNotAllowed,
            Code::SyncTokenExpired,
            Code::WalkLimitExceeded,
        ],
    ],
};

/// Maximum `wait`, in seconds. Proxies in between take a longer silence for a dead connection.
const WAIT_MAX_S: u64 = 60;

pub(in crate::api) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let params = Params::parse(asked.query, &PARAMS)?;
    let wait = match params.get("wait") {
        None => Duration::ZERO,
        Some(_) if params.get("since").is_none() => {
            return Err(wrong(
                "wait",
                "needs since: without it there is nothing to wait for",
            ));
        }
        Some(text) => {
            let seconds = seconds(text).filter(|seconds| *seconds <= WAIT_MAX_S);
            let right = "must be a number of seconds up to 60, such as 30s";
            Duration::from_secs(seconds.ok_or_else(|| wrong("wait", right))?)
        }
    };
    Ok(Question::Changes(ChangesRequest {
        customer: params.customer()?,
        range: params.range()?,
        since: params.get("since").map(str::to_owned),
        wait,
    }))
}

/// Parses `30s` or `30`.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

pub(in crate::api) async fn respond(call: &Call, stream: ExportStream, place: Permit) -> Answered {
    call.record.set_note(&stream.note);
    let body = AnswerBody::rows(stream.pieces, false, Some(place));
    let mut response = Response::new(body);
    let media = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    let mut response = coded(call, response).await;
    tell_freshness(response.headers_mut(), &stream.note, stream.age);
    response
}
