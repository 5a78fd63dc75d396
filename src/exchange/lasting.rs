//! An answer that lasts only as long as its caller would be let in.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{AnswerBody, BodyCut, Boxed};
use crate::access::Tenure;

/// What an answer looks like that ends with its caller's tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTenuresEnd {
    /// Whole: nothing is missing, and its reader comes back and is refused.
    End,
    /// Cut: what arrived must not pass for the whole.
    Cut,
}

/// A body, and its caller's tenure.
pub struct Lasting {
    state: State,
    at_end: AtTenuresEnd,
}

enum State {
    Going {
        body: AnswerBody,
        over: Boxed<()>,
    },
    /// To be cut, once what was written before is on its way.
    Cutting,
    Over,
}

impl Lasting {
    /// Creates a body that ends with `tenure`.
    pub fn new(body: AnswerBody, tenure: Tenure, at_end: AtTenuresEnd) -> Self {
        let over = Box::pin(async move {
            let caller = tenure.caller().name.clone();
            tenure.over().await;
            tracing::info!(
                caller = &*caller,
                "an answer was ended because its caller has lost access"
            );
        });
        Self {
            state: State::Going { body, over },
            at_end,
        }
    }
}

impl Body for Lasting {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let this = self.get_mut();
        match &mut this.state {
            State::Going { body, over } => {
                if over.as_mut().poll(cx).is_pending() {
                    return Pin::new(body).poll_frame(cx);
                }
                if this.at_end == AtTenuresEnd::End {
                    this.state = State::Over;
                    return Poll::Ready(None);
                }
                // hyper forgets what it has not written yet when a body fails.
                this.state = State::Cutting;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            State::Cutting => {
                this.state = State::Over;
                Poll::Ready(Some(Err(BodyCut)))
            }
            State::Over => Poll::Ready(None),
        }
    }
}
