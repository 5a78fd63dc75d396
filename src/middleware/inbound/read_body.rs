//! Reads the request's body before any handler runs, even one that is then ignored. Bytes left
//! unread would be taken for the next request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::Either;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use http_body::Body as _;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::access::{Caller, Tenure};
use crate::admission::Payer;
use crate::cache::Directives;
use crate::clock::Duration;
use crate::exchange::{
    Answered, BodyRule, Call, Known, Matched, ReadingBody, Record, RequestBodyFault,
};
use crate::problem::{Code, Problem};
use crate::reads::Asker;

/// Reads bodies. Each must be complete within `limit`.
pub fn read_body<S: Clone>(limit: Duration) -> impl Layer<S, Service = ReadBody<S>> {
    layer_fn(move |inner| ReadBody { inner, limit })
}

/// The service of [`read_body`].
pub struct ReadBody<S> {
    inner: S,
    limit: Duration,
}

impl<S> Service<Known> for ReadBody<S>
where
    S: Service<Call, Response = Answered, Error = Problem> + Clone,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<BodyThen<S>>;

    fn call(&self, known: Known) -> Self::Future {
        let Known {
            routed,
            caller,
            payer,
            tenure,
        } = known;
        let named = routed.named;
        let waiting = Waiting {
            head: named.head,
            record: named.record,
            matched: routed.matched,
            caller,
            payer,
            tenure,
        };
        let without_body = named.body.is_end_stream();
        if let Err(problem) = check_media(waiting.matched.body, &waiting.head, without_body) {
            return refuse(problem);
        }
        if without_body {
            return Either::Right(match waiting.with(Bytes::new()) {
                Ok(call) => BodyThen::Answering {
                    inner: self.inner.call(call),
                },
                Err(problem) => return refuse(problem),
            });
        }
        Either::Right(BodyThen::Reading {
            reading: Box::pin(ReadingBody::new(named.body, self.limit)),
            waiting: Some(waiting),
            inner: self.inner.clone(),
        })
    }
}

/// A request whose body is still being read.
struct Waiting {
    head: Box<Parts>,
    record: Arc<Record>,
    matched: Matched,
    caller: Arc<Caller>,
    payer: Arc<Payer>,
    tenure: Option<Box<Tenure>>,
}

impl Waiting {
    fn with(self, body: Bytes) -> Result<Call, Problem> {
        // RFC 10008: a QUERY without a media type has no meaning.
        let untyped = self.matched.body == BodyRule::Json
            && self.head.method != Method::POST
            && !self.head.headers.contains_key(header::CONTENT_TYPE);
        if untyped {
            return Err(Problem::new(
                Code::InvalidBody,
                "The QUERY request has no Content-Type; it must be application/json.",
            ));
        }
        let asker = Asker {
            caller: self.caller,
            payer: self.payer,
            deadline: self.record.deadline,
            directives: Directives::default(),
        };
        Ok(Call {
            head: self.head,
            body,
            record: self.record,
            matched: self.matched,
            asker,
            tenure: self.tenure,
        })
    }
}

pin_project! {
    /// The future of a request in [`read_body`].
    #[project = BodyThenProj]
    pub enum BodyThen<S: Service<Call>> {
        // Boxed, because most requests have no body and should not carry the memory for reading
        // one.
        Reading {
            reading: Pin<Box<ReadingBody>>,
            waiting: Option<Waiting>,
            inner: S,
        },
        Answering {
            #[pin]
            inner: S::Future,
        },
    }
}

impl<S> Future for BodyThen<S>
where
    S: Service<Call, Response = Answered, Error = Problem>,
{
    type Output = Result<Answered, Problem>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                BodyThenProj::Answering { inner } => return inner.poll(cx),
                BodyThenProj::Reading {
                    reading,
                    waiting,
                    inner,
                } => {
                    let body = ready!(reading.as_mut().poll(cx)).map_err(problem)?;
                    let Some(waiting) = waiting.take() else {
                        // Polled after its end.
                        return Poll::Pending;
                    };
                    let body = match waiting.matched.body {
                        BodyRule::Ignored => Bytes::new(),
                        BodyRule::Json | BodyRule::JsonOrNothing => body,
                    };
                    inner.call(waiting.with(body)?)
                }
            };
            self.set(Self::Answering { inner: next });
        }
    }
}

fn problem(fault: RequestBodyFault) -> Problem {
    match fault {
        RequestBodyFault::TooLarge => Problem::new(
            Code::BodyTooLarge,
            "The request body is too large; it may have at most 64 KiB.",
        )
        .closing(),
        RequestBodyFault::TimedOut => Problem::new(
            Code::RequestTimeout,
            "The request body did not arrive completely in time.",
        )
        .closing(),
        RequestBodyFault::Broken => {
            Problem::malformed("The request body ended early or its framing is invalid.")
        }
    }
}

fn check_media(rule: BodyRule, head: &Parts, without_body: bool) -> Result<(), Problem> {
    let needed = match rule {
        BodyRule::Ignored => false,
        BodyRule::Json => true,
        // N-able clients send empty bodies with whatever media type they use by default.
        BodyRule::JsonOrNothing => !without_body,
    };
    if !needed {
        return Ok(());
    }
    let unsupported = |detail| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if !is_plain(&head.headers) {
        return unsupported("The request body has a Content-Encoding; send it without one.");
    }
    if !is_json(&head.headers) {
        return unsupported("The request body must be application/json in UTF-8.");
    }
    Ok(())
}

fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Returns whether the body is JSON. A body without a media type counts as JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return true;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    is_json && is_utf8 && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn json_has_many_spellings() {
        let json = |values: &[&'static str]| is_json(&of("content-type", values));
        assert!(json(&[]));
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"; x=y",
            "application/json;",
        ] {
            assert!(json(&[good]), "{good}");
        }
        for bad in [
            "",
            "text/json",
            "application/jsonp",
            "application/json; charset=utf-16",
            "application/json, text/plain",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!json(&[bad]), "{bad}");
        }
        assert!(!json(&["application/json", "application/json"]));
    }

    #[test]
    fn codings_are_refused() {
        let plain = |values: &[&'static str]| is_plain(&of("content-encoding", values));
        assert!(plain(&[]) && plain(&["Identity"]));
        assert!(!plain(&["gzip"]) && !plain(&["identity", "br"]) && !plain(&["identity, br"]));
    }
}
