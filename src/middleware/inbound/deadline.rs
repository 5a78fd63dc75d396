//! Ends requests whose answer is overdue.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::clock::{self, Duration, Instant};
use crate::exchange::{Answered, Named};
use crate::problem::Problem;

/// The reads keep the deadline themselves and give more detail when they miss it. This layer is for
/// requests that they do not see, so it ends them a little later.
const AFTER_THE_READS: Duration = Duration::from_millis(250);

/// Ends overdue requests.
pub fn deadline<S>() -> impl Layer<S, Service = Deadline<S>> {
    layer_fn(|inner| Deadline { inner })
}

/// The service of [`deadline`].
pub struct Deadline<S> {
    inner: S,
}

impl<S> Service<Named> for Deadline<S>
where
    S: Service<Named, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = DeadlineFuture<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        DeadlineFuture {
            ends: named.record.deadline + AFTER_THE_READS,
            inner: self.inner.call(named),
            looked: false,
            timer: None,
        }
    }
}

pin_project! {
    /// The future of a request in [`deadline`].
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        ends: Instant,
        looked: bool,
        // The timer is only made when there is something to wait for. A hit needs none, and a hit
        // with a body waits once until hyper hands the body over. It is boxed for the same reason.
        timer: Option<Pin<Box<clock::Sleep>>>,
    }
}

impl<F: Future<Output = Result<Answered, Problem>>> Future for DeadlineFuture<F> {
    type Output = Result<Answered, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.inner.poll(cx) {
            return Poll::Ready(done);
        }
        if !std::mem::replace(this.looked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let ends = *this.ends;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(clock::sleep_until(ends)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(Problem::timed_out(None)))
    }
}
