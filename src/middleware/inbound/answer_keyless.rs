//! Answers what needs no caller key: the description, the page that shows it, whether we are alive.

use futures_util::future::{Either, ready};
use http::request::Parts;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::OrRefuse;
use crate::domain::Route;
use crate::exchange::{Answered, Routed};
use crate::problem::Problem;

/// The answer to a keyless route, from memory and at once.
pub type AnswerNow = fn(&Parts, Route) -> Result<Answered, Problem>;

/// Answers keyless routes with `answer`; all others go on to the layers below.
pub fn answer_keyless<S>(answer: AnswerNow) -> impl Layer<S, Service = AnswerKeyless<S>> {
    layer_fn(move |inner| AnswerKeyless { inner, answer })
}

/// See [`answer_keyless`].
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
            // A body, if one was sent, is not read: hyper drains what is short and closes after what
            // is not, as with every refusal before the body.
            return Either::Left(ready((self.answer)(&routed.named.head, route)));
        }
        Either::Right(self.inner.call(routed))
    }
}
