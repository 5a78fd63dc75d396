//! The body of an answer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::lasting::{AtTenuresEnd, Lasting};
use super::permit::Permit;
use super::record::Tail;
use crate::access::Tenure;
use crate::reads::export::ExportPiece;

/// Header with the number of rows in an export.
pub const EXPORT_ROWS: &str = "x-export-rows";

/// The body of an answer, with everything that must live until its end.
#[derive(Debug)]
pub struct AnswerBody {
    content: Content,
    // These are dropped with the body in this order: first the permit, then the log line.
    permit: Option<Permit>,
    tail: Option<Tail>,
    apart: bool,
}

#[derive(Debug)]
enum Content {
    Done,
    Full(Bytes),
    Rows {
        pieces: mpsc::Receiver<ExportPiece>,
        trailer: bool,
        // The export's place. `None` in tests of other things.
        _place: Option<Permit>,
    },
    /// The stream is to be cut. hyper discards unwritten bytes when a body fails, so the first poll
    /// gives it an occasion to write them.
    ToCut,
    /// The stream is cut at the next poll.
    Cut,
    /// Another body: one in a content coding, events, or one that ends with its caller's tenure.
    Coded(Coded),
}

/// A body in a content coding, or a stream of events. Boxed, because they have types of their own.
struct Coded(Pin<Box<dyn Body<Data = Bytes, Error = BodyCut> + Send>>);

impl fmt::Debug for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coded")
    }
}

/// A stream that failed before its end. The connection is cut without the last chunk, so that no
/// caller takes the part for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyCut;

impl fmt::Display for BodyCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream could not be completed")
    }
}

impl std::error::Error for BodyCut {}

impl AnswerBody {
    /// Creates an empty body.
    pub fn empty() -> Self {
        Self::with(Content::Done)
    }

    /// Creates a body of these bytes.
    pub fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self::with(Content::Full(bytes))
        }
    }

    /// Creates a body that streams rows. With `trailer`, their number follows at the end. `place`
    /// is held until then.
    pub fn rows(pieces: mpsc::Receiver<ExportPiece>, trailer: bool, place: Option<Permit>) -> Self {
        Self::with(Content::Rows {
            pieces,
            trailer,
            _place: place,
        })
    }

    /// Creates a body that is cut: reading it fails.
    pub(super) fn cut() -> Self {
        Self::with(Content::ToCut)
    }

    /// Creates a stream of events that lasts as long as its reader wants it.
    pub fn events(body: impl Body<Data = Bytes, Error = BodyCut> + Send + 'static) -> Self {
        Self::coded(body)
    }

    /// Makes the body end as soon as its caller would no longer be admitted.
    pub fn lasting(self, tenure: Option<Box<Tenure>>, at_end: AtTenuresEnd) -> Self {
        match tenure {
            Some(tenure) => Self::coded(Lasting::new(self, *tenure, at_end)),
            None => self,
        }
    }

    /// Creates a body in a content coding.
    pub fn coded(body: impl Body<Data = Bytes, Error = BodyCut> + Send + 'static) -> Self {
        Self::with(Content::Coded(Coded(Box::pin(body))))
    }

    fn with(content: Content) -> Self {
        Self {
            content,
            permit: None,
            tail: None,
            apart: false,
        }
    }

    /// Holds the permit until the body's end, unless [`Self::apart`] was called.
    pub fn hold(&mut self, permit: Permit) {
        if !self.apart {
            self.permit = Some(permit);
        }
    }

    /// Returns the same body for an answer that may wait long. It holds no place among the requests
    /// in flight.
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// Calls `tail` at the body's end.
    pub fn watch(&mut self, mut tail: Tail) {
        tail.whole = self.is_end_stream();
        tail.at_once = matches!(self.content, Content::Done | Content::Full(_));
        self.tail = Some(tail);
    }

    /// Returns the bytes, if the whole body is in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Full(bytes) => Some(bytes),
            Content::Done
            | Content::Rows { .. }
            | Content::ToCut
            | Content::Cut
            | Content::Coded(_) => None,
        }
    }

    fn sent(&mut self, bytes: &Bytes) {
        if let Some(tail) = &mut self.tail {
            tail.sent_bytes += bytes.len() as u64;
        }
    }

    fn ended(&mut self) {
        self.content = Content::Done;
        if let Some(tail) = &mut self.tail {
            tail.whole = true;
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Done => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.sent(&bytes);
                this.ended();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Rows {
                pieces, trailer, ..
            } => match std::task::ready!(pieces.poll_recv(cx)) {
                Some(ExportPiece::Lines(lines)) => {
                    this.sent(&lines);
                    Poll::Ready(Some(Ok(Frame::data(lines))))
                }
                Some(ExportPiece::End { rows }) => {
                    let trailer = *trailer;
                    this.ended();
                    if !trailer {
                        return Poll::Ready(None);
                    }
                    let mut trailers = HeaderMap::with_capacity(1);
                    trailers.insert(EXPORT_ROWS, HeaderValue::from(rows));
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
                None => {
                    this.content = Content::ToCut;
                    Pin::new(this).poll_frame(cx)
                }
            },
            Content::ToCut => {
                this.content = Content::Cut;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Content::Cut => {
                this.content = Content::Done;
                Poll::Ready(Some(Err(BodyCut)))
            }
            Content::Coded(Coded(body)) => {
                let frame = std::task::ready!(body.as_mut().poll_frame(cx));
                match &frame {
                    None => this.ended(),
                    Some(Err(BodyCut)) => this.content = Content::Done,
                    Some(Ok(frame)) => {
                        if let Some(bytes) = frame.data_ref() {
                            this.sent(&bytes.clone());
                        }
                    }
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Done => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Rows { .. } | Content::ToCut | Content::Cut | Content::Coded(_) => {
                SizeHint::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_export_ends_with_its_end_piece_or_is_cut() {
        let (to, from) = mpsc::channel(4);
        to.try_send(ExportPiece::Lines("a\n".into())).unwrap();
        to.try_send(ExportPiece::End { rows: 1 }).unwrap();
        let whole = AnswerBody::rows(from, true, None).collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()[EXPORT_ROWS], "1");
        assert_eq!(whole.to_bytes(), "a\n");

        let (to, from) = mpsc::channel(4);
        to.try_send(ExportPiece::Lines("a\n".into())).unwrap();
        drop(to);
        let cut = AnswerBody::rows(from, false, None).collect().await;
        assert_eq!(cut.unwrap_err(), BodyCut);
    }
}
