//! `GET /v1/cases/export`

use std::convert::Infallible;
use std::future::ready;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};
use tower_http::compression::CompressionLayer;

use crate::api::answer::tell_freshness;
use crate::api::openapi::{Described, VENDOR};
use crate::api::query_string::{Params, wrong};
use crate::api::question::{Asked, Question};
use crate::domain::SearchQuery;
use crate::domain::json::Object;
use crate::exchange::body::{BodyCut, EXPORT_ROWS};
use crate::exchange::{AnswerBody, Answered, Call, Permit};
use crate::problem::{Code, Problem};
use crate::reads::export::{ExportFormat, ExportStream};

/// The query parameters.
pub const PARAMS: [&str; 5] = ["customer_id", "start", "end", "format", "bom"];

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("case_export.json"),
    problems: &[
        VENDOR,
        &[
            Code::VendorRejectedRequest,
            Code::CustomerNotAllowed,
            Code::WalkLimitExceeded,
        ],
    ],
};

pub(in crate::api) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let params = Params::parse(asked.query, &PARAMS)?;
    let bom = match params.get("bom") {
        None => None,
        Some("0") => Some(false),
        Some("1") => Some(true),
        Some(_) => return Err(wrong("bom", "must be 0 or 1")),
    };
    let format = match params.get("format") {
        Some("csv") => ExportFormat::Csv {
            bom: bom.unwrap_or(false),
        },
        // JSON has no byte order mark.
        None | Some("ndjson") if bom.is_some() => return Err(wrong("bom", "needs format=csv")),
        None | Some("ndjson") => ExportFormat::Ndjson,
        Some(_) => return Err(wrong("format", "must be ndjson or csv")),
    };
    Ok(Question::Export {
        query: SearchQuery {
            customer: params.customer()?,
            range: params.range()?,
            extra: Object::new(),
        },
        format,
        trailer: takes_trailers(asked.headers),
    })
}

/// Returns whether the caller sent `TE: trailers`.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

pub(in crate::api) async fn respond(
    call: &Call,
    stream: ExportStream,
    format: ExportFormat,
    trailer: bool,
    place: Permit,
) -> Answered {
    call.record.set_note(&stream.note);
    let mut response = Response::new(AnswerBody::rows(stream.pieces, trailer, Some(place)));
    let headers = response.headers_mut();
    let (media, name) = match format {
        ExportFormat::Ndjson => (
            "application/x-ndjson",
            "attachment; filename=\"cases.ndjson\"",
        ),
        ExportFormat::Csv { .. } => (
            "text/csv; charset=utf-8",
            "attachment; filename=\"cases.csv\"",
        ),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(name));
    if trailer {
        headers.insert(header::TRAILER, HeaderValue::from_static(EXPORT_ROWS));
    }
    let mut response = coded(call, response).await;
    // This comes after the coding, which would add its own name to `Vary` a second time.
    tell_freshness(response.headers_mut(), &stream.note, stream.age);
    response
}

/// Compresses the stream if the caller accepts a coding. An export has no entity tag and is written
/// once, so coding it for each request is right here. Remembered bodies have coded variants
/// instead.
pub(super) async fn coded(call: &Call, response: Answered) -> Answered {
    let Some(accepted) = call.head.headers.get(header::ACCEPT_ENCODING) else {
        return response;
    };
    let mut ask = Request::new(());
    let headers = ask.headers_mut();
    headers.insert(header::ACCEPT_ENCODING, accepted.clone());
    let mut response = Some(response);
    let whole = tower::service_fn(move |_: Request<()>| {
        let response = response.take();
        let response = response.unwrap_or_else(|| Response::new(AnswerBody::empty()));
        ready(Ok::<_, Infallible>(response))
    });
    let coding = CompressionLayer::new().layer(whole);
    let Ok(response) = coding.oneshot(ask).await;
    response.map(|body| AnswerBody::coded(body.map_err(|_| BodyCut)))
}
