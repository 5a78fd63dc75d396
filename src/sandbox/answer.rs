//! A vendor's answer, and the ways in which it may be spoiled on its way.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};

use super::counts::Watch;
use super::faults::{FaultKind, WAIT_MS_MAX};
use super::options::SimVendor;
use crate::clock::{Duration, sleep};

/// The connection must be closed without another byte.
#[derive(Debug)]
pub(super) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sandbox closes this connection")
    }
}

impl std::error::Error for Dropped {}

/// How the body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Whole,
    /// Only this many bytes (`None`: half of them), then the connection closes.
    Cut(Option<usize>),
    /// Half of the body, and the rest after this many milliseconds (`None`: never).
    Stall(Option<u64>),
    /// With this many spaces before its last byte.
    Padded {
        bytes: u64,
        chunked: bool,
    },
}

/// An answer.
#[derive(Debug)]
pub(super) struct SimAnswer {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    content_type: String,
    text: Bytes,
    wire: Wire,
}

impl SimAnswer {
    /// Creates a JSON answer.
    pub(super) fn json(status: u16, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: "application/json".to_owned(),
            text: text.into(),
            wire: Wire::Whole,
        }
    }

    /// Creates an HTML page, like a proxy in front of the vendor.
    pub(super) fn html(status: u16, title: &str) -> Self {
        let text = format!(
            "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1></center>\r\n</body>\r\n</html>\r\n"
        );
        let mut answer = Self::json(status, text);
        answer.content_type = "text/html".to_owned();
        answer
    }

    /// Creates an error in the vendor's own shape.
    pub(super) fn error(vendor: SimVendor, status: u16, text: &str) -> Self {
        let text = super::json::plain(text);
        match vendor {
            SimVendor::Wiv => Self::json(status, format!("{{\"error\":{text}}}")),
            SimVendor::Nable => Self::json(
                status,
                format!("{{\"message\":{text},\"http_status_code\":{status}}}"),
            ),
        }
    }

    /// Adds one header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds headers.
    pub(super) fn add_headers(&mut self, headers: Vec<(&'static str, String)>) {
        self.headers.extend(headers);
    }

    /// Returns the answer of a fault of `kind`, which replaces the vendor's.
    pub(super) fn instead(vendor: SimVendor, kind: &FaultKind) -> Self {
        match kind {
            FaultKind::Status {
                status,
                body,
                retry_after,
                ..
            } => {
                let reason = StatusCode::from_u16(*status)
                    .ok()
                    .and_then(|code| code.canonical_reason());
                let answer = match body {
                    Some(body) => Self::json(*status, body.clone()),
                    None if *status == 500 => Self::error(vendor, 500, "Internal server error"),
                    None => Self::error(vendor, *status, reason.unwrap_or("Error")),
                };
                match retry_after {
                    Some(value) => answer.with("retry-after", value.clone()),
                    None => answer,
                }
            }
            FaultKind::Redirect { status, location } => {
                Self::html(*status, "Moved").with("location", location.clone())
            }
            FaultKind::HtmlError { status } => Self::html(*status, "Bad Gateway"),
            _ => Self::error(vendor, 500, "Internal server error"),
        }
    }

    /// Applies a fault of `kind` to a finished answer.
    ///
    /// # Errors
    /// Fails with [`Dropped`] if there must be no answer.
    pub(super) fn spoil(&mut self, vendor: SimVendor, kind: &FaultKind) -> Result<(), Dropped> {
        match kind {
            FaultKind::DropAfter => return Err(Dropped),
            FaultKind::Status { .. } => {
                let headers = std::mem::take(&mut self.headers);
                *self = Self::instead(vendor, kind);
                self.add_headers(headers);
            }
            FaultKind::CutBody { at } => self.wire = Wire::Cut(*at),
            FaultKind::StallBody { ms } => self.wire = Wire::Stall(*ms),
            FaultKind::HugeBody { bytes, chunked } => {
                self.wire = Wire::Padded {
                    bytes: *bytes,
                    chunked: *chunked,
                }
            }
            FaultKind::WrongContentType { content_type } => {
                self.content_type.clone_from(content_type)
            }
            FaultKind::TruncatedRows => self.text.truncate(self.text.len() * 2 / 3),
            FaultKind::MalformedJson => {
                let opening = self
                    .text
                    .iter()
                    .position(|byte| matches!(byte, b'{' | b'['))
                    .map_or(0, |at| at + 1);
                let rest = self.text.split_off(opening);
                self.text = [&self.text[..], b",", &rest[..]].concat().into();
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the response. `watch` ends with its last byte.
    pub(super) fn into_response(self, date: String, watch: Option<Watch>) -> Response<SimBody> {
        let Self {
            status,
            headers,
            content_type,
            mut text,
            wire,
        } = self;
        if let Some(watch) = &watch {
            watch.answering(status);
        }
        let length = text.len();
        let mut announced = Some(length as u64);
        let mut steps = VecDeque::new();
        match wire {
            Wire::Whole => steps.push_back(Step::Chunk(text)),
            Wire::Cut(at) => {
                text.truncate(at.unwrap_or(length / 2).min(length.saturating_sub(1)));
                steps.extend([Step::Chunk(text), Step::Breathe, Step::Fail]);
            }
            Wire::Stall(ms) => {
                let rest = text.split_off(length / 2);
                let wait = Duration::from_millis(ms.unwrap_or(WAIT_MS_MAX));
                let last = if ms.is_some() {
                    Step::Chunk(rest)
                } else {
                    Step::Fail
                };
                steps.extend([Step::Chunk(text), Step::Wait(Box::pin(sleep(wait))), last]);
            }
            Wire::Padded { bytes, chunked } => {
                let tail = text.split_off(length.saturating_sub(1));
                announced = (!chunked).then_some(length as u64 + bytes);
                steps.extend([
                    Step::Chunk(text),
                    Step::Pull(spaces(bytes)),
                    Step::Chunk(tail),
                ]);
            }
        }
        let body = SimBody::new(steps, watch);
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let fixed = [("date", date), ("content-type", content_type)];
        for (name, value) in fixed.into_iter().chain(headers) {
            // Values were checked when they came in. One that is invalid in a header is left out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response
                    .headers_mut()
                    .append(HeaderName::from_static(name), value);
            }
        }
        if let Some(length) = announced {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length.into());
        }
        response
    }
}

/// Makes chunks. `None` after the last one.
type Pull = Box<dyn FnMut() -> Option<Bytes> + Send>;

fn spaces(mut bytes: u64) -> Pull {
    static SPACES: [u8; 64 * 1024] = [b' '; 64 * 1024];
    Box::new(move || {
        let mut chunk = Bytes::from_static(&SPACES);
        chunk.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        bytes -= chunk.len() as u64;
        (!chunk.is_empty()).then_some(chunk)
    })
}

enum Step {
    Chunk(Bytes),
    Pull(Pull),
    /// Lets the connection write what it has.
    Breathe,
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Closes the connection.
    Fail,
}

/// A body that is sent step by step.
pub(super) struct SimBody {
    steps: VecDeque<Step>,
    watch: Option<Watch>,
}

impl fmt::Debug for SimBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody")
            .field("steps", &self.steps.len())
            .finish_non_exhaustive()
    }
}

impl SimBody {
    fn new(steps: VecDeque<Step>, watch: Option<Watch>) -> Self {
        let mut body = Self { steps, watch };
        body.settle();
        body
    }

    /// Creates a body of unknown length that is made chunk by chunk.
    pub(super) fn pull(chunks: impl FnMut() -> Option<Bytes> + Send + 'static) -> Self {
        Self::new([Step::Pull(Box::new(chunks))].into(), None)
    }

    /// Skips empty chunks. When no step is left, the request counts as answered. That happens
    /// before the last bytes can be sent, so that no reader has its answer while it still counts as
    /// in flight.
    fn settle(&mut self) {
        while matches!(self.steps.front(), Some(Step::Chunk(chunk)) if chunk.is_empty()) {
            self.steps.pop_front();
        }
        if self.steps.is_empty()
            && let Some(watch) = self.watch.take()
        {
            watch.answered();
        }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        loop {
            let chunk = match self.steps.front_mut() {
                None => return Poll::Ready(None),
                Some(Step::Chunk(chunk)) => Some(std::mem::take(chunk)),
                Some(Step::Pull(pull)) => match pull() {
                    Some(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    None => None,
                },
                Some(Step::Breathe) => {
                    self.steps.pop_front();
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Wait(until)) => match until.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => None,
                },
                Some(Step::Fail) => return Poll::Ready(Some(Err(Dropped))),
            };
            self.steps.pop_front();
            self.settle();
            if let Some(chunk) = chunk {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }
}
