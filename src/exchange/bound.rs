//! Reads a request's body within limits of size and time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::clock::{self, Duration};

/// Maximum size of a request body, in bytes. Search bodies are under 1 KiB.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBodyFault {
    /// The body is larger than [`BODY_BYTES_MAX`].
    TooLarge,
    /// The body was not complete within its time.
    TimedOut,
    /// The chunks were broken, or the connection ended.
    Broken,
}

pin_project! {
    /// Reads a body to its end.
    pub struct ReadingBody {
        body: Incoming,
        first: Option<Bytes>,
        rest: BytesMut,
        limit: Duration,
        looked: bool,
        #[pin]
        timer: Option<clock::Sleep>,
    }
}

impl ReadingBody {
    /// Starts reading. The time counts from the first wait.
    pub fn new(body: Incoming, limit: Duration) -> Self {
        Self {
            body,
            first: None,
            rest: BytesMut::new(),
            limit,
            looked: false,
            timer: None,
        }
    }
}

impl Future for ReadingBody {
    type Output = Result<Bytes, RequestBodyFault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // The head already says that the body is too large, so none of it is read.
        if this.body.size_hint().lower() > BODY_BYTES_MAX {
            return Poll::Ready(Err(RequestBodyFault::TooLarge));
        }
        loop {
            match Pin::new(&mut *this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are ignored.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    let so_far = this.first.as_ref().map_or(0, Bytes::len) + this.rest.len();
                    if (so_far + data.len()) as u64 > BODY_BYTES_MAX {
                        return Poll::Ready(Err(RequestBodyFault::TooLarge));
                    }
                    // Nearly every body arrives in one piece, which is then not copied.
                    match this.first.take() {
                        None if this.rest.is_empty() => *this.first = Some(data),
                        None => this.rest.extend_from_slice(&data),
                        Some(first) => {
                            this.rest.extend_from_slice(&first);
                            this.rest.extend_from_slice(&data);
                        }
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(RequestBodyFault::Broken)),
                Poll::Ready(None) => {
                    let whole = match this.first.take() {
                        Some(first) => first,
                        None => std::mem::take(this.rest).freeze(),
                    };
                    return Poll::Ready(Ok(whole));
                }
                Poll::Pending => break,
            }
        }
        if !std::mem::replace(this.looked, true) {
            // hyper hands a body over only after the first poll, so nearly every body is complete
            // at the second one. A timer is made only after that.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.timer.is_none() {
            this.timer.set(Some(clock::sleep(*this.limit)));
        }
        match this.timer.as_mut().as_pin_mut().map(|t| t.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(RequestBodyFault::TimedOut)),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}
