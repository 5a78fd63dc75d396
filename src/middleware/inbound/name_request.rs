//! Gives every request an id and a deadline.

use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use crate::clock::{Clock, Duration};
use crate::exchange::{Arrival, Named, Record};
use crate::traces::Traces;

/// Gives requests an id. Their answers are due within `limit`. Sampled requests get a trace.
pub fn name_request<S>(
    clock: Clock,
    limit: Duration,
    traces: Traces,
) -> impl Layer<S, Service = NameRequest<S>> {
    layer_fn(move |inner| NameRequest {
        inner,
        clock: clock.clone(),
        limit,
        traces: traces.clone(),
    })
}

/// The service of [`name_request`].
pub struct NameRequest<S> {
    inner: S,
    clock: Clock,
    limit: Duration,
    traces: Traces,
}

impl<S: Service<Named>> Service<Arrival> for NameRequest<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, arrival: Arrival) -> S::Future {
        let (head, body) = arrival.request.into_parts();
        let now = self.clock.now();
        let deadline = now + self.limit;
        let record = Record::new(&head, arrival.peer, now, deadline, &self.traces);
        self.inner.call(Named {
            head: Box::new(head),
            body,
            record,
        })
    }
}
