//! Holds callers to their own rate, and to their share of what may be in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::access::Allowance;
use crate::clock::Clock;
use crate::exchange::{Answered, InFlight, Known};
use crate::problem::{Problem, tell_allowance};

/// Throttles callers, who share what `gate` admits.
pub fn throttle<S>(clock: Clock, gate: Arc<InFlight>) -> impl Layer<S, Service = Throttling<S>> {
    layer_fn(move |inner| Throttling {
        inner,
        clock: clock.clone(),
        gate: gate.clone(),
    })
}

/// See [`throttle`].
pub struct Throttling<S> {
    inner: S,
    clock: Clock,
    gate: Arc<InFlight>,
}

impl<S> Service<Known> for Throttling<S>
where
    S: Service<Known, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<Throttled<S::Future>>;

    fn call(&self, known: Known) -> Self::Future {
        if !self.gate.has_share_for(known.caller.in_flight()) {
            return refuse(Problem::overloaded());
        }
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
    /// See [`throttle`].
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
