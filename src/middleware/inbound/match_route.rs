//! Finds the route; refuses what has none.

use futures_util::future::Either;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::exchange::call::FindRoute;
use crate::exchange::{Answered, Named, Routed, Routing};
use crate::problem::Problem;

/// Finds routes with `find`.
pub fn match_route<S>(find: FindRoute) -> impl Layer<S, Service = MatchRoute<S>> {
    layer_fn(move |inner| MatchRoute { inner, find })
}

/// See [`match_route`].
pub struct MatchRoute<S> {
    inner: S,
    find: FindRoute,
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
                refuse(Problem::method_not_allowed(allow))
            }
            Routing::Unknown => refuse(Problem::not_found()),
        }
    }
}
