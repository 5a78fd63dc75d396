//! The answers for everyone, without a caller key: `/openapi.json`, `/docs` and `/healthz`. All
//! three are fixed when the program starts. They contain nothing about a customer, a caller or a
//! vendor.

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::openapi::Described;
use super::query_string::Params;
use super::question::{Asked, Question};
use super::{docs, openapi};
use crate::domain::Route;
use crate::exchange::{AnswerBody, Answered};
use crate::problem::Problem;

/// The description of the health check in `/openapi.json`.
pub(super) const HEALTH_DESCRIBED: Described = Described {
    operation: include_str!("health.json"),
    problems: &[],
};

/// Refuses a keyless route as a question of a caller: [`answer`] answers it before the caller is
/// known.
pub(super) fn read(_: Asked<'_>) -> Result<Question, Problem> {
    Err(Problem::not_found())
}

/// Answers a keyless route.
///
/// # Errors
/// `invalid_query` for any parameter, except on the health check: a load balancer may append
/// parameters, and the gateway is still alive. 406 and 412 as for every answer with a tag.
pub fn answer(head: &Parts, route: Route) -> Result<Answered, Problem> {
    match route {
        Route::Health if head.method == Method::OPTIONS => Ok(alive_without_body()),
        Route::Health => Ok(alive()),
        _ => {
            Params::parse(head.uri.query(), &[])?;
            match route {
                Route::OpenApi => openapi::FIXED.answer(&head.headers),
                Route::Docs => docs::FIXED.answer(&head.headers),
                _ => Err(Problem::not_found()),
            }
        }
    }
}

/// Returns the same answer as the health check of the admin listener.
fn alive() -> Answered {
    let mut response = Response::new(AnswerBody::full("{\"alive\":true}".into()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns the answer to `OPTIONS /`. That path does not exist, but the server is alive.
fn alive_without_body() -> Answered {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("OPTIONS"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Answered, Problem> {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let route = match head.uri.path() {
            "/openapi.json" => Route::OpenApi,
            "/docs" => Route::Docs,
            _ => Route::Health,
        };
        answer(&head, route)
    }

    #[test]
    fn fixed_answers_have_tags_and_forms() {
        for target in ["/openapi.json", "/docs"] {
            let plain = asked("GET", target, &[]).unwrap();
            assert_eq!(plain.status(), 200);
            assert!(plain.headers().contains_key("content-type"));
            let tag = plain.headers()["etag"].to_str().unwrap().to_owned();
            assert_eq!(plain.headers()["vary"], "Accept-Encoding");
            assert_eq!(plain.headers()["cache-control"], "no-cache");
            let coded = asked("GET", target, &[("accept-encoding", "br, gzip;q=0.5")]).unwrap();
            assert_eq!(coded.headers()["content-encoding"], "gzip");
            let coded_tag = coded.headers()["etag"].to_str().unwrap().to_owned();
            assert_ne!(coded_tag, tag);
            let bytes = |answer: &Answered| answer.body().bytes().unwrap().len();
            assert!(bytes(&coded) * 2 < bytes(&plain));
            for tag in [&*tag, &*coded_tag, "*"] {
                let again = asked("GET", target, &[("if-none-match", tag)]).unwrap();
                assert_eq!(again.status(), 304, "{tag}");
            }
            let other = asked("GET", target, &[("if-none-match", "\"other\"")]).unwrap();
            assert_eq!(other.status(), 200);
            for (name, value, code) in [
                ("if-match", "\"other\"", "precondition_failed"),
                ("accept-encoding", "identity;q=0", "not_acceptable"),
            ] {
                let refused = asked("GET", target, &[(name, value)]).unwrap_err();
                assert_eq!(refused.code().as_str(), code);
            }
            assert_eq!(
                asked("GET", target, &[("if-match", &tag)])
                    .unwrap()
                    .status(),
                200
            );
            let wrong = asked("GET", &format!("{target}?pretty=1"), &[]).unwrap_err();
            assert_eq!(wrong.code().as_str(), "invalid_query");
        }
    }

    #[test]
    fn health_is_alive_and_nothing_more() {
        let alive = asked("GET", "/healthz?from=balancer", &[]).unwrap();
        assert_eq!(&alive.body().bytes().unwrap()[..], b"{\"alive\":true}");
        let checked = asked("OPTIONS", "/", &[]).unwrap();
        assert_eq!(
            (checked.status().as_u16(), checked.body().bytes()),
            (204, None)
        );
    }
}
