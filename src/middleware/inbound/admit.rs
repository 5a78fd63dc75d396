//! Refuses requests beyond the number that can be served at once, or beyond a caller's share of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::exchange::{Answered, Call, InFlight, Permit};
use crate::problem::Problem;

/// Admits requests while `gate` has permits for their callers.
pub fn admit<S>(gate: Arc<InFlight>) -> impl Layer<S, Service = Admit<S>> {
    layer_fn(move |inner| Admit {
        inner,
        gate: gate.clone(),
    })
}

/// The service of [`admit`].
#[derive(Clone)]
pub struct Admit<S> {
    inner: S,
    gate: Arc<InFlight>,
}

impl<S> Service<Call> for Admit<S>
where
    S: Service<Call, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<Admitted<S::Future>>;

    fn call(&self, call: Call) -> Self::Future {
        match self.gate.enter(&call.asker.caller.presence) {
            Ok(permit) => Either::Right(Admitted {
                inner: self.inner.call(call),
                permit: Some(permit),
            }),
            Err(shortage) => refuse(Problem::short_of(shortage)),
        }
    }
}

pin_project! {
    /// The future of a request in [`admit`].
    pub struct Admitted<F> {
        #[pin]
        inner: F,
        permit: Option<Permit>,
    }
}

impl<F: Future<Output = Result<Answered, Problem>>> Future for Admitted<F> {
    type Output = Result<Answered, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(cx))?;
        // The answer's body holds the permit until its end.
        if let Some(permit) = this.permit.take() {
            answer.body_mut().hold(permit);
        }
        Poll::Ready(Ok(answer))
    }
}
