//! An answer that ends when its caller loses access.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{AnswerBody, BodyCut, Boxed};
use crate::access::Tenure;

/// How an answer ends with its caller's tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTenuresEnd {
    /// The answer is complete. Its reader reconnects and is refused.
    End,
    /// The answer is cut, so that its part cannot look complete.
    Cut,
}

/// A body that ends with its caller's tenure.
pub struct Lasting {
    body: AnswerBody,
    /// Ends with the tenure. `None` once it has.
    over: Option<Boxed<()>>,
    at_end: AtTenuresEnd,
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
            body,
            over: Some(over),
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
        if let Some(over) = &mut this.over
            && over.as_mut().poll(cx).is_ready()
        {
            this.over = None;
            this.body = match this.at_end {
                AtTenuresEnd::End => AnswerBody::empty(),
                AtTenuresEnd::Cut => AnswerBody::cut(),
            };
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }
}
