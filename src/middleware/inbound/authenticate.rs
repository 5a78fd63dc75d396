//! Finds the caller; refuses what has none.

use std::sync::Arc;

use futures_util::future::Either;
use http::request::Parts;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::{CrossOrigin, OrRefuse, refuse};
use crate::access::{CallerBook, Tenure};
use crate::admission::Payer;
use crate::exchange::credentials::{Presented, X_API_KEY, presented_of};
use crate::exchange::site::{self, OwnNames};
use crate::exchange::{Answered, Known, Mention, Routed};
use crate::problem::Problem;

/// Finds callers in `book`. Where nobody needs a key or a certificate is enough, a browser's user is
/// not asked either, so pages of other sites than the chosen ones are refused.
pub fn authenticate<S>(
    book: Arc<CallerBook>,
    cross_origin: Option<Arc<CrossOrigin>>,
) -> impl Layer<S, Service = Authenticate<S>> {
    layer_fn(move |inner| Authenticate {
        inner,
        book: book.clone(),
        cross_origin: cross_origin.clone(),
    })
}

/// See [`authenticate`].
pub struct Authenticate<S> {
    inner: S,
    book: Arc<CallerBook>,
    cross_origin: Option<Arc<CrossOrigin>>,
}

impl<S> Authenticate<S> {
    /// Open listeners are loopback ones; others may be asked by any name.
    fn is_from_another_site(&self, head: &Parts) -> bool {
        let welcome = |origin: &_| {
            let chosen = self.cross_origin.as_deref();
            chosen.is_some_and(|chosen| chosen.welcomes(origin))
        };
        let names = match self.book.without_key() {
            Some(_) => &OwnNames::THIS_MACHINE,
            None => &OwnNames::Any,
        };
        site::is_from_another_site(head, names, welcome)
    }
}

impl<S> Service<Routed> for Authenticate<S>
where
    S: Service<Known, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<S::Future>;

    fn call(&self, mut routed: Routed) -> Self::Future {
        let mentions = routed.named.record.mentions;
        let certificate = routed.named.record.peer.certificate.as_deref();
        let presented = presented_of(&routed.named.head.headers, &mentions);
        let caller = match presented {
            Presented::Nothing => {
                let caller = self.book.find(None, certificate);
                // What a browser shows unasked does not tell that its user asked.
                if caller.is_some() && self.is_from_another_site(&routed.named.head) {
                    return refuse(Problem::cross_site_refused());
                }
                caller
            }
            // A wrong key is refused in open mode too: its sender believes to be somebody.
            Presented::CallerKey(text) => self.book.find(Some(text), certificate),
            Presented::Unclear => None,
        };
        let Some(caller) = caller else {
            return refuse(Problem::authentication_required(certificate.is_some()));
        };
        let tenure = routed.matched.route.lasts().then(|| {
            let key = match presented {
                Presented::CallerKey(text) => Some(text),
                Presented::Nothing | Presented::Unclear => None,
            };
            let certificate = routed.named.record.peer.certificate.clone();
            Box::new(Tenure::new(
                self.book.clone(),
                caller.clone(),
                key,
                certificate,
            ))
        });
        // The key has done its work; nothing below can print what is not there.
        let headers = &mut routed.named.head.headers;
        if mentions.has(Mention::Authorization) {
            headers.remove(http::header::AUTHORIZATION);
        }
        if mentions.has(Mention::XApiKey) {
            headers.remove(&X_API_KEY);
        }
        let record = &routed.named.record;
        let payer = Payer::with_ledger(
            caller.meter.calls_caused(),
            record.trace.clone(),
            record.id.bytes(),
        );
        record.set_caller(caller.clone(), payer.clone());
        Either::Right(self.inner.call(Known {
            routed,
            caller,
            payer,
            tenure,
        }))
    }
}
