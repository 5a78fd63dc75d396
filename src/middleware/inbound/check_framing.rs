//! Refuses requests that two readers could read in two ways, and tunnels (`CONNECT`).
//!
//! An offer of another protocol (`Upgrade`) is ignored, as RFC 9110 section 7.8 allows. The request
//! is answered over HTTP/1.1, and the bytes after it are read as the next request. Java's client
//! makes such an offer with every request.
//!
//! hyper refuses requests that are plainly broken. This layer refuses those that hyper accepts.

use futures_util::future::Either;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use http_body::Body as _;
use hyper::service::Service;
use tower::Layer;
use tower::layer::layer_fn;

use super::{OrRefuse, refuse};
use crate::exchange::{Answered, Mention, Mentions, Named};
use crate::problem::{Code, Problem};

/// Maximum number of headers of a request. Browsers send about 20.
const HEADERS_MAX: usize = 64;
/// Maximum bytes of the names and values of all headers together.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Maximum length of a caller's request target, in bytes.
pub const TARGET_BYTES_MAX: usize = 4 * 1024;

/// Checks framing. A target may have `target_bytes_max` bytes.
pub fn check_framing<S>(target_bytes_max: usize) -> impl Layer<S, Service = CheckFraming<S>> {
    layer_fn(move |inner| CheckFraming {
        inner,
        target_bytes_max,
    })
}

/// The service of [`check_framing`].
pub struct CheckFraming<S> {
    inner: S,
    target_bytes_max: usize,
}

impl<S> Service<Named> for CheckFraming<S>
where
    S: Service<Named, Response = Answered, Error = Problem>,
{
    type Response = Answered;
    type Error = Problem;
    type Future = OrRefuse<S::Future>;

    fn call(&self, named: Named) -> Self::Future {
        match check(
            &named.head,
            &named.record.mentions,
            named.body.is_end_stream(),
            self.target_bytes_max,
        ) {
            Ok(()) => Either::Right(self.inner.call(named)),
            Err(problem) => refuse(problem),
        }
    }
}

fn check(
    head: &Parts,
    mentions: &Mentions,
    without_body: bool,
    target_bytes_max: usize,
) -> Result<(), Problem> {
    check_headers(&head.headers, mentions)?;
    let is_1_0 = head.version < Version::HTTP_11;
    if is_1_0 && !without_body && !has_one_length(&head.headers) {
        return Err(Problem::malformed(
            "The body of an HTTP/1.0 request needs one Content-Length and no Transfer-Encoding.",
        ));
    }
    if head.method == Method::CONNECT {
        return Err(Problem::malformed(
            "CONNECT is not supported: the gateway opens no tunnels.",
        ));
    }
    if head.version == Version::HTTP_2 {
        check_connection_headers(&head.headers)?;
    }
    if mentions.has(Mention::TransferEncoding) {
        check_transfer_coding(&head.headers)?;
    }
    if mentions.hosts > 1 {
        return Err(Problem::malformed(
            "The request has more than one Host header; it must have exactly one.",
        ));
    }
    check_target(head, is_1_0, target_bytes_max)
}

/// Returns whether one length alone says where the body ends, so that every reader agrees on it.
fn has_one_length(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    lengths == 1 && !headers.contains_key(header::TRANSFER_ENCODING)
}

/// HTTP/2 frames its messages itself. The h2 crate resets a stream with such a header before this
/// layer sees it. If it ever let one pass, the request is refused here.
fn check_connection_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let of_http_1 = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    let other = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"trailers");
    let mut codings = headers.get_all(header::TE).iter();
    if of_http_1.iter().any(|name| headers.contains_key(name)) || codings.any(other) {
        return Err(Problem::malformed(
            "The HTTP/2 request has a connection header such as Connection or Upgrade; remove it.",
        ));
    }
    Ok(())
}

fn check_headers(headers: &HeaderMap, mentions: &Mentions) -> Result<(), Problem> {
    let too_large = |detail| Err(Problem::new(Code::HeadersTooLarge, detail).closing());
    if headers.len() > HEADERS_MAX {
        return too_large("The request has too many headers; at most 64 are allowed.");
    }
    if mentions.underscore {
        // Some servers treat X_API_KEY and X-API-KEY as the same header.
        return Err(Problem::malformed(
            "A header name contains an underscore; use hyphens instead.",
        ));
    }
    if mentions.bytes > HEADER_BYTES_MAX {
        return too_large(
            "The request's headers are too large; all together may have at most 16 KiB.",
        );
    }
    Ok(())
}

fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !plain || codings.next().is_some() || headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Problem::malformed(
            "Transfer-Encoding must be \"chunked\" alone, and must not be combined with Content-Length.",
        ));
    }
    Ok(())
}

fn check_target(head: &Parts, is_1_0: bool, bytes_max: usize) -> Result<(), Problem> {
    let target_bytes = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if target_bytes > bytes_max {
        let right = format!(
            "The request target is too long; it may have at most {} KiB.",
            bytes_max / 1024
        );
        return Err(Problem::new(Code::UriTooLong, right).closing());
    }
    let host = head.headers.get(header::HOST);
    let is_2 = head.version == Version::HTTP_2;
    let Some(authority) = head.uri.authority() else {
        return match host {
            None if is_2 => Err(Problem::malformed(
                "The HTTP/2 request has no :authority; it must have one.",
            )),
            None if !is_1_0 => Err(Problem::malformed(
                "The HTTP/1.1 request has no Host header; it must have one.",
            )),
            _ => Ok(()),
        };
    };
    let same = match host {
        Some(host) => host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes()),
        // Over HTTP/2, the authority is the host.
        None => is_2 && !authority.as_str().contains('@'),
    };
    if same {
        Ok(())
    } else {
        Err(Problem::malformed(
            "The request target and the Host header name different hosts; they must name the same.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(head: &Parts, without_body: bool) -> Result<(), Problem> {
        let mentions = Mentions::of(&head.headers);
        check(head, &mentions, without_body, TARGET_BYTES_MAX)
    }

    fn code(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Option<Code> {
        let builder = http::Request::get("/msp/customers").header("host", "x");
        let (head, ()) = build(builder).body(()).unwrap().into_parts();
        checked(&head, true).err().map(|p| p.code())
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let malformed = Some(Code::MalformedRequest);
        assert_eq!(code(|b| b), None);
        assert_eq!(code(|b| b.header("host", "x")), malformed);
        assert_eq!(code(|b| b.header("x_api_key", "k")), malformed);
        assert_eq!(code(|b| b.header("upgrade", "h2c")), None);
        assert_eq!(code(|b| b.method("CONNECT")), malformed);
        for coding in [
            "gzip, chunked",
            "xchunked",
            "chunked, chunked",
            "identity",
            "",
        ] {
            assert_eq!(code(|b| b.header("transfer-encoding", coding)), malformed);
        }
        assert_eq!(code(|b| b.header("transfer-encoding", "Chunked")), None);
        assert_eq!(code(|b| b.uri("http://x/msp/customers")), None);
        assert_eq!(code(|b| b.uri("http://y/msp/customers")), malformed);
        assert_eq!(code(|b| b.uri("http://x:80/msp/customers")), malformed);
        assert_eq!(code(|b| b.uri("http://u@x/msp/customers")), malformed);
    }

    #[test]
    fn http_2_names_its_host_once_and_has_no_connection_headers() {
        let of = |uri: &str, pairs: &[(&str, &str)]| {
            let mut builder = http::Request::get(uri).version(Version::HTTP_2);
            for (name, value) in pairs {
                builder = builder.header(*name, *value);
            }
            let (head, ()) = builder.body(()).unwrap().into_parts();
            checked(&head, true).map_err(|problem| problem.code())
        };
        let malformed = Err(Code::MalformedRequest);
        let x = "https://x/msp/customers";
        assert_eq!(of(x, &[]), Ok(()));
        assert_eq!(of(x, &[("host", "X")]), Ok(()));
        assert_eq!(of("/msp/customers", &[("host", "x")]), Ok(()));
        assert_eq!(of(x, &[("te", "trailers")]), Ok(()));
        assert_eq!(of("/msp/customers", &[]), malformed);
        assert_eq!(of(x, &[("host", "y")]), malformed);
        assert_eq!(of(x, &[("host", "x"), ("host", "x")]), malformed);
        assert_eq!(of("https://u@x/msp/customers", &[]), malformed);
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
        ] {
            assert_eq!(of(x, &[(name, value)]), malformed, "{name}: {value}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(
            code(|b| b.uri(format!("/{}", "x".repeat(TARGET_BYTES_MAX)))),
            Some(Code::UriTooLong)
        );
        let many = |b: http::request::Builder| {
            (0..HEADERS_MAX).fold(b, |b, n| b.header(format!("x-{n}"), "1"))
        };
        assert_eq!(code(many), Some(Code::HeadersTooLarge));
        let big = "x".repeat(HEADER_BYTES_MAX);
        assert_eq!(code(|b| b.header("x", big)), Some(Code::HeadersTooLarge));
    }

    #[test]
    fn http_1_0_has_no_host_and_a_body_of_one_length() {
        let (mut head, ()) = http::Request::get("/").body(()).unwrap().into_parts();
        assert!(checked(&head, true).is_err());
        head.version = Version::HTTP_10;
        assert!(checked(&head, true).is_ok());
        let with_body = |headers: &[(&'static str, &'static str)]| {
            let mut head = head.clone();
            for (name, value) in headers {
                head.headers.append(*name, HeaderValue::from_static(value));
            }
            checked(&head, false).is_ok()
        };
        let length = ("content-length", "2");
        let chunked = ("transfer-encoding", "chunked");
        assert!(with_body(&[length]));
        for bad in [&[][..], &[length, length], &[chunked], &[length, chunked]] {
            assert!(!with_body(bad), "{bad:?}");
        }
    }
}
