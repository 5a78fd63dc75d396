//! Limits each caller to its own request rate.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::access::Allowance;
use crate::clock::Clock;
use crate::exchange::{Answered, Known};
use crate::problem::{Problem, tell_allowance};

/// Refuses requests above their caller's rate.
pub fn throttle<S>(clock: Clock) -> impl Layer<S, Service = Throttling<S>> {
    layer_fn(move |inner| Throttling {
        inner,
        clock: clock.clone(),
    })
}

/// The service of [`throttle`].
pub struct Throttling<S> {
    inner: S,
    clock: Clock,
}

impl<S> Service<Known> for Throttling<S>
where
    S: Service<Known, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<Throttled<S::Future>>;

    fn call(&self, known: Known) -> Self::Future {
        let admitted = match &known.caller.throttle {
            None => Ok(None),
            Some(throttle) => throttle.admit(self.clock.now()).map(Some),
        };
        match admitted {
            Ok(allowance) => Either::Right(Throttled {
                inner: self.inner.call(known),
                allowance,
            }),
            Err(allowance) => refuse(Problem::caller_rate_limited(allowance)),
        }
    }
}

pin_project! {
    /// The future of a request in [`throttle`].
    pub struct Throttled<F> {
        #[pin]
        inner: F,
        allowance: Option<Allowance>,
    }
}

impl<F: Future<Output = Result<Answered, Problem>>> Future for Throttled<F> {
    type Output = Result<Answered, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(cx))?;
        if let Some(allowance) = this.allowance {
            tell_allowance(answer.headers_mut(), allowance);
        }
        Poll::Ready(Ok(answer))
    }
}
