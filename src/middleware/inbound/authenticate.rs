//! Finds the caller; refuses what has none.

use std::sync::Arc;

use futures_util::future::Either;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::access::CallerBook;
use crate::admission::Payer;
use crate::exchange::credentials::{Presented, X_API_KEY, presented};
use crate::exchange::{Answered, Known, Routed};
use crate::problem::Problem;

/// Finds callers in `book`.
pub fn authenticate<S>(book: Arc<CallerBook>) -> impl Layer<S, Service = Authenticate<S>> {
    layer_fn(move |inner| Authenticate {
        inner,
        book: book.clone(),
    })
}

/// See [`authenticate`].
pub struct Authenticate<S> {
    inner: S,
    book: Arc<CallerBook>,
}

impl<S> Service<Routed> for Authenticate<S>
where
    S: Service<Known, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<S::Future>;

    fn call(&self, mut routed: Routed) -> Self::Future {
        let certificate = routed.named.record.peer.certificate.as_deref();
        let caller = match presented(&routed.named.head.headers) {
            Presented::Nothing => self.book.find(None, certificate),
            // A wrong key is refused in open mode too: its sender believes to be somebody.
            Presented::CallerKey(text) => self.book.find(Some(text), certificate),
            Presented::Unclear => None,
        };
        let Some(caller) = caller else {
            return refuse(Problem::authentication_required(certificate.is_some()));
        };
        // The key has done its work; nothing below can print what is not there.
        let headers = &mut routed.named.head.headers;
        headers.remove(http::header::AUTHORIZATION);
        headers.remove(&X_API_KEY);
        let record = &routed.named.record;
        let ledger = caller.meter.calls_caused();
        let payer = Payer::with_ledger(caller.name.clone(), record.trace.clone(), ledger);
        record.set_caller(caller.clone(), payer.clone());
        Either::Right(self.inner.call(Known {
            routed,
            caller,
            payer,
        }))
    }
}
