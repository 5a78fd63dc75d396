//! Finds the route of a request. Refuses requests without one, and answers preflights.

use std::sync::Arc;

use futures_util::future::{Either, ready};
use http::header;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::cross_origin::is_preflight;
use super::{CrossOrigin, OrRefuse, refuse};
use crate::exchange::call::FindRoute;
use crate::exchange::{Answered, Named, Routed, Routing};
use crate::problem::Problem;

/// Finds routes with `find`. A browser's preflight from a chosen origin is answered here, because
/// it depends on the route alone.
pub fn match_route<S>(
    find: FindRoute,
    cross_origin: Option<Arc<CrossOrigin>>,
) -> impl Layer<S, Service = MatchRoute<S>> {
    layer_fn(move |inner| MatchRoute {
        inner,
        find,
        cross_origin: cross_origin.clone(),
    })
}

/// The methods of all routes together.
const EVERY_METHOD: &str = "GET, HEAD, POST, QUERY";
/// Maximum length of an origin in the log. Valid origins are shorter.
const LOGGED_ORIGIN_CHARS: usize = 280;

/// The service of [`match_route`].
pub struct MatchRoute<S> {
    inner: S,
    find: FindRoute,
    cross_origin: Option<Arc<CrossOrigin>>,
}

impl<S> MatchRoute<S> {
    /// Returns the answer to a preflight from a chosen origin. It does not say whether the path
    /// exists: the page must be able to read the 404 that its request gets.
    fn preflight(&self, named: &Named, routing: Routing) -> Option<Answered> {
        let methods = match routing {
            Routing::WrongMethod { route, allow } => {
                named.record.set_route(route);
                allow
            }
            Routing::Found(_) | Routing::Unknown => EVERY_METHOD,
        };
        let cors = self.cross_origin.as_deref();
        let answer = cors.and_then(|cors| cors.preflight(&named.head, methods));
        if answer.is_none() {
            let origin = named.head.headers.get(header::ORIGIN);
            let origin = origin.and_then(|origin| origin.to_str().ok()).unwrap_or("");
            let origin: String = origin.chars().take(LOGGED_ORIGIN_CHARS).collect();
            tracing::info!(
                request_id = named.record.id.as_str(),
                setting = "cors.origins",
                origin,
                "CORS preflight refused: cors.origins does not name its origin"
            );
        }
        answer
    }
}

impl<S> Service<Named> for MatchRoute<S>
where
    S: Service<Routed, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        let routing = (self.find)(&named.head.method, named.head.uri.path());
        if is_preflight(&named.head)
            && let Some(answer) = self.preflight(&named, routing)
        {
            return Either::Left(ready(Ok(answer)));
        }
        match routing {
            Routing::Found(matched) => {
                named.record.set_route(matched.route);
                Either::Right(self.inner.call(Routed { named, matched }))
            }
            Routing::WrongMethod { route, allow } => {
                named.record.set_route(route);
                refuse(Problem::method_not_allowed(allow))
            }
            Routing::Unknown => refuse(Problem::not_found()),
        }
    }
}
