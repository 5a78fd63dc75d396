//! Turns a panic into a 500 for the one request that caused it.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::exchange::{Answered, Named, Record};
use crate::metrics::Metrics;
use crate::problem::Problem;

/// Contains and counts panics.
pub fn contain_panic<S>(metrics: Arc<Metrics>) -> impl Layer<S, Service = ContainPanic<S>> {
    layer_fn(move |inner| ContainPanic {
        inner,
        metrics: metrics.clone(),
    })
}

/// The service of [`contain_panic`].
pub struct ContainPanic<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Service<Named> for ContainPanic<S>
where
    S: Service<Named, Response = Answered, Error = Infallible>,
{
    type Response = Answered;
    type Error = Infallible;
    type Future = Containing<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        let record = named.record.clone();
        // A panic leaves only this request's own state half done, and that is dropped with the
        // request. Shared state is behind locks that are never held across a call into another
        // room.
        let inner = catch_unwind(AssertUnwindSafe(|| self.inner.call(named)));
        Containing {
            inner: inner.map_or_else(
                |panic| Inner::Over { panic: Some(panic) },
                |inner| Inner::Running { inner },
            ),
            record,
            metrics: self.metrics.clone(),
        }
    }
}

type Panic = Box<dyn Any + Send>;

pin_project! {
    #[project = InnerProj]
    enum Inner<F> {
        Running { #[pin] inner: F },
        Over { panic: Option<Panic> },
    }
}

pin_project! {
    /// The future of a request in [`contain_panic`].
    pub struct Containing<F> {
        #[pin]
        inner: Inner<F>,
        record: Arc<Record>,
        metrics: Arc<Metrics>,
    }
}

impl<F: Future<Output = Result<Answered, Infallible>>> Future for Containing<F> {
    type Output = Result<Answered, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = match this.inner.as_mut().project() {
            InnerProj::Running { inner } => catch_unwind(AssertUnwindSafe(|| inner.poll(cx))),
            InnerProj::Over { panic } => Err(panic.take().unwrap_or_else(|| Box::new(()))),
        };
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(done),
            Err(panic) => {
                this.inner.set(Inner::Over { panic: None });
                // The payload may contain anything. The panic hook has already logged the place.
                drop(panic);
                this.metrics.panics.inc();
                let problem = Problem::internal("a panic was contained");
                Poll::Ready(Ok(problem.respond(this.record)))
            }
        }
    }
}
