//! `GET /v1/cases/export`

use http::{HeaderMap, HeaderValue, Response, header};

use super::answer::tell_freshness;
use super::query_string::{Params, wrong};
use super::question::{Asked, Question};
use crate::domain::SearchQuery;
use crate::domain::json::Object;
use crate::exchange::body::EXPORT_ROWS;
use crate::exchange::{AnswerBody, Answered, Call};
use crate::problem::Problem;
use crate::reads::export::{ExportFormat, ExportStream};

/// Its parameters.
pub const PARAMS: [&str; 4] = ["customer_id", "start", "end", "format"];

pub(super) fn read(asked: Asked<'_>) -> Result<Question, Problem> {
    let params = Params::parse(asked.query, &PARAMS)?;
    let format = match params.get("format") {
        None | Some("ndjson") => ExportFormat::Ndjson,
        Some("csv") => ExportFormat::Csv,
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

/// Whether the caller said `TE: trailers`.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

pub(super) fn respond(
    call: &Call,
    stream: ExportStream,
    format: ExportFormat,
    trailer: bool,
) -> Answered {
    call.record.set_cache(stream.note.outcome);
    let mut response = Response::new(AnswerBody::rows(stream.pieces, trailer));
    let headers = response.headers_mut();
    let (media, name) = match format {
        ExportFormat::Ndjson => (
            "application/x-ndjson",
            "attachment; filename=\"cases.ndjson\"",
        ),
        ExportFormat::Csv => (
            "text/csv; charset=utf-8",
            "attachment; filename=\"cases.csv\"",
        ),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(name));
    if trailer {
        headers.insert(header::TRAILER, HeaderValue::from_static(EXPORT_ROWS));
    }
    tell_freshness(headers, &stream.note, stream.age);
    response
}
