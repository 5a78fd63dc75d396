//! `GET /admin/live` and `GET /admin/history?window=10m|24h`: the figures behind the charts.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;

use super::answer;
use crate::api::query_string::{Params, wrong};
use crate::clock::Duration;
use crate::exchange::{AnswerBody, Answered, BodyCut};
use crate::history::{HistoryWindow, Samples, Watcher};
use crate::problem::{Code, Problem};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Returns the samples of a window.
pub(super) fn history(query: Option<&str>, samples: &Samples) -> Result<Answered, Problem> {
    let params = Params::parse(query, &["window"])?;
    let window = match params.get("window") {
        None | Some("10m") => HistoryWindow::TenMinutes,
        Some("24h") => HistoryWindow::Day,
        Some(_) => return Err(wrong("window", "must be 10m or 24h")),
    };
    let mut body = match window {
        HistoryWindow::TenMinutes => b"{\"window\":\"10m\",\"samples\":".to_vec(),
        HistoryWindow::Day => b"{\"window\":\"24h\",\"samples\":".to_vec(),
    };
    body.extend_from_slice(&samples.json(window));
    body.push(b'}');
    Ok(answer(StatusCode::OK, "application/json", body.into()))
}

/// Streams one event a second until the reader leaves or the gateway stops.
pub(super) fn live(query: Option<&str>, samples: &Samples) -> Result<Answered, Problem> {
    Params::parse(query, &[])?;
    let watcher = samples.watch().ok_or_else(|| {
        let detail = "Too many streams of samples are open; close one of them.";
        Problem::new(Code::Overloaded, detail).retry_after(Duration::from_secs(1))
    })?;
    let events = futures_util::stream::unfold(watcher, next);
    let mut response = Response::new(AnswerBody::events(StreamBody::new(events)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn next(mut watcher: Watcher) -> Option<(Result<Frame<Bytes>, BodyCut>, Watcher)> {
    let sample = watcher.next().await?;
    let mut event = Vec::with_capacity(sample.len() + 32);
    event.extend_from_slice(b"event: sample\ndata: ");
    event.extend_from_slice(&sample);
    event.extend_from_slice(b"\n\n");
    Some((Ok(Frame::data(event.into())), watcher))
}
