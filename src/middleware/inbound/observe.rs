//! Observes how every request ends: counts it, times it, logs it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::access::CallerBook;
use crate::exchange::record::{CALLER_LEFT, X_REQUEST_ID};
use crate::exchange::{Answered, Ends, Named, Record, Tail};
use crate::metrics::Metrics;

/// Destinations of what is observed.
pub struct Observer {
    /// Duration metrics.
    pub metrics: Arc<Metrics>,
    /// Holds the counters of requests without a caller.
    pub callers: Arc<CallerBook>,
    /// The access log and the last requests.
    pub ends: Arc<Ends>,
}

/// Observes every request.
pub fn observe<S>(observer: Observer) -> impl Layer<S, Service = Observe<S>> {
    let observer = Arc::new(observer);
    layer_fn(move |inner| Observe {
        inner,
        observer: observer.clone(),
    })
}

/// The service of [`observe`].
pub struct Observe<S> {
    inner: S,
    observer: Arc<Observer>,
}

impl<S> Service<Named> for Observe<S>
where
    S: Service<Named, Response = Answered, Error = Infallible>,
{
    type Response = Answered;
    type Error = Infallible;
    type Future = Observing<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        let watch = Watch {
            observer: self.observer.clone(),
            record: Some(named.record.clone()),
        };
        Observing {
            inner: self.inner.call(named),
            watch,
        }
    }
}

pin_project! {
    /// The future of a request in [`observe`].
    pub struct Observing<F> {
        #[pin]
        inner: F,
        watch: Watch,
    }
}

impl<F: Future<Output = Result<Answered, Infallible>>> Future for Observing<F> {
    type Output = Result<Answered, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut answer) = ready!(this.inner.poll(cx));
        // The record is there until this point.
        if let Some(record) = this.watch.record.take() {
            let id = record.id.header_value();
            // Most answers already have a place for the id.
            match answer.headers_mut().get_mut(&X_REQUEST_ID) {
                Some(place) => *place = id,
                None => drop(answer.headers_mut().insert(X_REQUEST_ID.clone(), id)),
            }
            let tail = this.watch.head_is_out(record, answer.status().as_u16());
            answer.body_mut().watch(tail);
        }
        Poll::Ready(Ok(answer))
    }
}

/// Records the end of a request, also if the future is dropped because the caller left.
struct Watch {
    observer: Arc<Observer>,
    /// Set until the answer's head is ready.
    record: Option<Arc<Record>>,
}

impl Watch {
    fn head_is_out(&self, record: Arc<Record>, status: u16) -> Tail {
        let Observer {
            metrics,
            callers,
            ends,
        } = &*self.observer;
        let took = ends.clock.now().saturating_duration_since(record.arrived);
        let meter = record.caller().map_or(&callers.anonymous, |c| &c.meter);
        meter.request(record.route(), status);
        if status >= 400
            && let Some(code) = record.code()
        {
            metrics.problem(code);
            if let Some(shortage) = record.shortage() {
                metrics.shed(shortage);
            }
        }
        metrics.duration(record.route(), record.cache(), took.as_secs_f64());
        Tail::new(ends.clone(), record, status, took)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            drop(self.head_is_out(record, CALLER_LEFT));
        }
    }
}
