//! Turns problems into answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::Body as _;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::exchange::bound::BODY_BYTES_MAX;
use crate::exchange::{Answered, Named, Record};
use crate::problem::Problem;

/// Turns the problems that the layers below return into answers.
pub fn render_problem<S>() -> impl Layer<S, Service = RenderProblem<S>> {
    layer_fn(|inner| RenderProblem { inner })
}

/// The service of [`render_problem`].
pub struct RenderProblem<S> {
    inner: S,
}

impl<S> Service<Named> for RenderProblem<S>
where
    S: Service<Named, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Infallible;
    type Future = Rendering<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        Rendering {
            record: named.record.clone(),
            too_large: named.body.size_hint().lower() > BODY_BYTES_MAX,
            inner: self.inner.call(named),
        }
    }
}

pin_project! {
    /// The future of a request in [`render_problem`].
    pub struct Rendering<F> {
        #[pin]
        inner: F,
        record: Arc<Record>,
        // The body will not be read, so the connection must close after the refusal.
        too_large: bool,
    }
}

impl<F: Future<Output = Result<Answered, Problem>>> Future for Rendering<F> {
    type Output = Result<Answered, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match ready!(this.inner.poll(cx)) {
            Ok(answer) => answer,
            Err(problem) if *this.too_large => problem.closing().respond(this.record),
            Err(problem) => problem.respond(this.record),
        };
        Poll::Ready(Ok(answer))
    }
}
