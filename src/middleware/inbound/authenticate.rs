//! Finds the caller of a request. Refuses requests without one.

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

/// Finds callers in `book`. If no key is needed, or a certificate is enough, a browser sends
/// requests without its user's knowledge. So requests from pages of other sites are refused then,
/// except the sites chosen in `[cors]`.
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

/// The service of [`authenticate`].
pub struct Authenticate<S> {
    inner: S,
    book: Arc<CallerBook>,
    cross_origin: Option<Arc<CrossOrigin>>,
}

impl<S> Authenticate<S> {
    /// Open listeners are on loopback. Other listeners accept any host name.
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
                // A browser sends its certificate without being asked, so it does not prove that
                // its user made this request.
                if caller.is_some() && self.is_from_another_site(&routed.named.head) {
                    return refuse(Problem::cross_site_refused());
                }
                caller
            }
            // A wrong key is refused in open mode too, because its sender expects to be that
            // caller.
            Presented::CallerKey(text) => match certificate {
                None => {
                    let last = &routed.named.record.peer.last_key;
                    self.book.find_by_key(text, last)
                }
                Some(_) => self.book.find(Some(text), certificate),
            },
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
            record.traceparent.clone(),
            record.id.bytes(),
            record.trace.clone(),
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
