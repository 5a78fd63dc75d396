//! `GET /v1/events`

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;

use crate::api::answer::{PRIVATE, VARY};
use crate::api::openapi::Described;
use crate::api::query_string::{Params, wrong};
use crate::api::question::{Asked, Question};
use crate::domain::Kind;
use crate::exchange::{AnswerBody, Answered, BodyCut, Permit};
use crate::problem::{Code, Problem};
use crate::reads::events::{EventStream, EventsRequest, FellBehind};

/// The query parameters.
pub const PARAMS: [&str; 1] = ["kinds"];

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("events.json"),
    problems: &[&[Code::BillingNotAllowed]],
};

pub(in crate::api) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let params = Params::parse(asked.query, &PARAMS)?;
    let kinds = params.get("kinds").map(kinds).transpose()?;
    let last_id = asked.headers.get("last-event-id");
    Ok(Question::Events(EventsRequest {
        kinds,
        // An id that is not text is none of ours, so the stream begins with `reset`.
        last_id: last_id.map(|id| id.to_str().unwrap_or_default().to_owned()),
    }))
}

fn kinds(text: &str) -> Result<Vec<Kind>, Problem> {
    let kind = |word: &str| {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.as_str() == word).ok_or_else(|| {
            wrong(
                "kinds",
                format_args!("must be a list of {}", Kind::listed("and")),
            )
        })
    };
    text.split(',').map(kind).collect()
}

pub(in crate::api) fn respond(stream: EventStream, place: Permit) -> Answered {
    let events = unfold((stream, place), async |(mut stream, place)| {
        let frame = match stream.next().await? {
            Ok(bytes) => Ok(Frame::<Bytes>::data(bytes)),
            Err(FellBehind) => Err(BodyCut),
        };
        Some((frame, (stream, place)))
    });
    let mut response = Response::new(AnswerBody::events(StreamBody::new(events)));
    let headers = response.headers_mut();
    let media = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, media);
    headers.insert(header::CACHE_CONTROL, PRIVATE);
    headers.insert(header::VARY, VARY);
    response
}
