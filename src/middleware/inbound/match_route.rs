//! Finds the route; refuses what has none, but for browsers that ask what a route answers.

use std::sync::Arc;

use futures_util::future::{Either, ready};
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::{CrossOrigin, OrRefuse, refuse};
use crate::exchange::call::FindRoute;
use crate::exchange::{Answered, Named, Routed, Routing};
use crate::problem::Problem;

/// Finds routes with `find`. A browser's question whether a page of a chosen origin may ask a route
/// is answered here: the route is all that it is about.
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

/// See [`match_route`].
pub struct MatchRoute<S> {
    inner: S,
    find: FindRoute,
    cross_origin: Option<Arc<CrossOrigin>>,
}

impl<S> Service<Named> for MatchRoute<S>
where
    S: Service<Routed, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        match (self.find)(&named.head.method, named.head.uri.path()) {
            Routing::Found(matched) => {
                named.record.set_route(matched.route);
                Either::Right(self.inner.call(Routed { named, matched }))
            }
            Routing::WrongMethod { route, allow } => {
                named.record.set_route(route);
                let preflight = self.cross_origin.as_deref();
                match preflight.and_then(|cors| cors.preflight(&named.head, allow)) {
                    Some(answer) => Either::Left(ready(Ok(answer))),
                    None => refuse(Problem::method_not_allowed(allow)),
                }
            }
            Routing::Unknown => refuse(Problem::not_found()),
        }
    }
}
