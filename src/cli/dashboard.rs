//! The demo's dashboard: `examples/dashboard` served on a port of its own, so that the page is of
//! another origin than the gateway, as a real one would be.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::clock::{Duration, sleep};
use crate::exchange::site::is_host;

const PAGE: &str = include_str!("../../examples/dashboard/index.html");
const STYLE: &str = include_str!("../../examples/dashboard/dashboard.css");
const SCRIPT: &str = include_str!("../../examples/dashboard/dashboard.js");

/// Connections at once. A browser opens six; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A request's head must be complete within this time, and an idle connection is closed after it.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// How long to wait when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The page's files, ready to be sent.
pub(super) struct Dashboard {
    config: Bytes,
    policy: HeaderValue,
}

impl Dashboard {
    /// Creates a page that asks the gateway at `gateway` with `caller_key`.
    pub(super) fn new(gateway: SocketAddr, caller_key: &str) -> Self {
        let gateway = format!("http://{gateway}");
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {gateway}; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let config = serde_json::json!({"gateway": gateway, "key": caller_key});
        Self {
            config: config.to_string().into(),
            // An address is always a good value.
            policy: HeaderValue::try_from(policy)
                .unwrap_or(HeaderValue::from_static("default-src 'none'")),
        }
    }

    /// Serves until dropped.
    pub(super) async fn serve(self, listener: TcpListener) {
        let this = std::sync::Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            let has_room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if has_room => {
                    let Ok((stream, _)) = accepted else {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    let this = this.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let answer = this.answer(&request);
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        // A peer that left is no news.
                        let _ = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_TIME_MAX)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        self.file(request.method(), request.uri().path(), request.headers())
    }

    fn file(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let found = match path {
            // The caller key is in there: a site whose name means this machine must not read it.
            _ if !asks_this_machine(headers) => None,
            "/" | "/index.html" => Some(("text/html; charset=utf-8", text(PAGE))),
            "/dashboard.css" => Some(("text/css; charset=utf-8", text(STYLE))),
            "/dashboard.js" => Some(("text/javascript; charset=utf-8", text(SCRIPT))),
            "/config.json" => Some(("application/json", self.config.clone())),
            _ => None,
        };
        let known = method == Method::GET || method == Method::HEAD;
        let (status, media, body) = match found {
            Some((media, body)) if known => (StatusCode::OK, media, body),
            Some(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain",
                text("GET or HEAD\n"),
            ),
            None => (StatusCode::NOT_FOUND, "text/plain", text("not found\n")),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

/// Returns whether `Host` is `localhost` or an address. Another site can point neither of them
/// here.
fn asks_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    if host.parse::<SocketAddr>().is_ok() || host.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    is_host(name) && name == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_told_to_pages_of_this_machine_alone() {
        let dashboard = Dashboard::new("127.0.0.1:8080".parse().unwrap(), "k-demo");
        let status = |method: Method, path: &str, host: &str| {
            let mut headers = HeaderMap::new();
            if !host.is_empty() {
                headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            dashboard.file(&method, path, &headers).status().as_u16()
        };
        for path in [
            "/",
            "/index.html",
            "/dashboard.css",
            "/dashboard.js",
            "/config.json",
        ] {
            for host in [
                "127.0.0.1:8081",
                "localhost:8081",
                "localhost",
                "[::1]:8081",
            ] {
                assert_eq!(status(Method::GET, path, host), 200, "{path} {host}");
            }
            for host in [
                "",
                "evil.example",
                "evil.example:8081",
                "localhost.evil.example",
            ] {
                assert_eq!(status(Method::GET, path, host), 404, "{path} {host}");
            }
            assert_eq!(status(Method::POST, path, "localhost"), 405);
        }
        assert_eq!(status(Method::GET, "/../Cargo.toml", "localhost"), 404);
    }

    #[test]
    fn the_page_names_nothing_from_elsewhere() {
        for text in [PAGE, STYLE] {
            assert!(!text.contains("http:") && !text.contains("https:"));
        }
        let lines = [PAGE, STYLE, SCRIPT].map(|text| text.lines().count());
        assert!(
            lines.iter().sum::<usize>() <= 220,
            "{lines:?}: made to be copied"
        );
    }
}
