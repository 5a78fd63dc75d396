//! Paths: a route has one spelling, and a request that fits one is read or refused in words. The
//! first line is method and target, the rest the body.

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use msp_gateway::api::question::{Asked, Question};
use msp_gateway::api::routes::{TABLE, find};
use msp_gateway::exchange::call::PARAMS_MAX;
use msp_gateway::exchange::{Matched, Routing};

/// The one path that a match can have come from.
fn spelled(matched: &Matched, path: &str) -> String {
    let line = TABLE.iter().find(|line| line.route == matched.route);
    let mut params = (0..PARAMS_MAX).map(|at| matched.param(path, at));
    let pieces = line.expect("a line of the table").pattern.split('/');
    let pieces = pieces.map(|piece| match piece.starts_with('{') {
        true => params.next().expect("as many as the pattern has"),
        false => piece,
    });
    pieces.collect::<Vec<_>>().join("/")
}

pub fn hold(bytes: &[u8]) {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let body = bytes.get(line.len() + 1..).unwrap_or_default();
    let Some((method, target)) = std::str::from_utf8(line)
        .ok()
        .and_then(|l| l.split_once(' '))
    else {
        return;
    };
    let (Ok(method), Ok(target)) = (Method::from_bytes(method.as_bytes()), target.parse::<Uri>())
    else {
        return;
    };
    let path = target.path();
    let matched = match find(&method, path) {
        Routing::Found(matched) => matched,
        Routing::WrongMethod { allow, .. } => {
            // It says what would be right, and that is right.
            for other in allow.split(", ") {
                let other = Method::from_bytes(other.as_bytes()).unwrap();
                assert!(matches!(find(&other, path), Routing::Found(_)));
            }
            return;
        }
        Routing::Unknown => return,
    };
    if path == "*" {
        // `OPTIONS *` asks about the server as a whole, so it has no path to be spelled.
        assert!(matched.route.is_keyless());
        return;
    }
    assert_eq!(spelled(&matched, path), path);
    for at in 0..PARAMS_MAX {
        assert!(!matched.param(path, at).contains('/'));
    }

    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let read = || {
        Question::read(Asked {
            matched: &matched,
            path,
            query: target.query(),
            headers: &headers,
            body,
        })
    };
    match read() {
        Ok(question) => {
            // Read twice, it is the same question.
            assert_eq!(format!("{question:?}"), format!("{:?}", read().unwrap()));
        }
        Err(problem) => {
            assert!((400..500).contains(&problem.code().status()), "{problem:?}");
            assert!(problem.detail().chars().count() < 1_000);
            assert!(!problem.detail().chars().any(char::is_control));
        }
    }
}
