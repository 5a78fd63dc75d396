//! Answers the routes that need no caller key: the API description, its page, and the health check.

use futures_util::future::{Either, ready};
use http::request::Parts;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::OrRefuse;
use crate::domain::Route;
use crate::exchange::{Answered, Routed};
use crate::problem::Problem;

/// Answers a keyless route from memory.
pub type AnswerNow = fn(&Parts, Route) -> Result<Answered, Problem>;

/// Answers keyless routes with `answer`. All other requests go on to the layers below.
pub fn answer_keyless<S>(answer: AnswerNow) -> impl Layer<S, Service = AnswerKeyless<S>> {
    layer_fn(move |inner| AnswerKeyless { inner, answer })
}

/// The service of [`answer_keyless`].
pub struct AnswerKeyless<S> {
    inner: S,
    answer: AnswerNow,
}

impl<S> Service<Routed> for AnswerKeyless<S>
where
    S: Service<Routed, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<S::Future>;

    fn call(&self, routed: Routed) -> Self::Future {
        let route = routed.matched.route;
        if route.is_keyless() {
            // A request body is not read here. hyper drains a short one and closes the connection
            // after a long one, as for every refusal before the body.
            return Either::Left(ready((self.answer)(&routed.named.head, route)));
        }
        Either::Right(self.inner.call(routed))
    }
}
