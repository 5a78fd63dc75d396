//! TCP connections to a vendor, direct or through an HTTP proxy.
//!
//! The proxy is asked for a tunnel with `CONNECT`, even for a plain `http` URL. TLS runs through
//! the tunnel, so the proxy sees the vendor's host and port but no key.

use std::io;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::Service;

use super::ProxyUrl;
use super::cause::{NoSuchName, ProxyFailed};
use super::connect::BoxError;
use crate::clock::Duration;

/// Largest head of a proxy's answer, in bytes. Usual ones have less than 200.
const PROXY_HEAD_MAX: usize = 8 << 10;

/// Makes TCP connections.
#[derive(Clone)]
pub struct Tcp {
    direct: HttpConnector<Resolver>,
    proxy: Option<ProxyUrl>,
}

impl Tcp {
    /// Creates a connector for direct connections, or for tunnels through `proxy`.
    pub(super) fn new(proxy: Option<ProxyUrl>, connect_timeout: Duration) -> Self {
        let mut direct = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(connect_timeout));
        Self { direct, proxy }
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, vendor: Uri) -> Self::Future {
        let Some(proxy) = &self.proxy else {
            let connecting = self.direct.call(vendor);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let connecting = self.direct.call(proxy.uri().clone());
        Box::pin(async move {
            let stream = connecting
                .await
                .map_err(|why| ProxyFailed(format!("it cannot be reached: {why}")))?;
            let stream = tunnel(stream.into_inner(), &vendor).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Asks the proxy for a tunnel to the vendor.
async fn tunnel(mut stream: TcpStream, vendor: &Uri) -> Result<TcpStream, ProxyFailed> {
    let broken = |why: io::Error| ProxyFailed(why.kind().to_string());
    let host = vendor
        .host()
        .ok_or_else(|| ProxyFailed("the vendor's URL has no host".into()))?;
    let default = match vendor.scheme_str() {
        Some("http") => 80,
        _ => 443,
    };
    let port = vendor.port_u16().unwrap_or(default);
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::with_capacity(256);
    // Reads byte by byte, because the bytes after the head belong to the vendor.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PROXY_HEAD_MAX {
            return Err(ProxyFailed("the head of its answer is too large".into()));
        }
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    match status(&head) {
        Some(code) if (200..300).contains(&code) => Ok(stream),
        Some(code) => Err(ProxyFailed(format!("it answered with status {code}"))),
        None => Err(ProxyFailed("its answer is not HTTP".into())),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?.get(2..)?;
    rest.split(' ').next()?.parse().ok()
}

/// The system's resolver. Its failures have their own type, which tells them from failures to
/// connect.
#[derive(Clone)]
pub struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = NoSuchName;
    type Future = BoxFuture<'static, Result<GaiAddrs, NoSuchName>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoSuchName>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let looking = self.0.call(name);
        Box::pin(async move { looking.await.map_err(|_| NoSuchName) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::cause::ConnectCause;
    use super::*;

    #[test]
    fn only_status_lines_of_http_are_read() {
        for (head, code) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407 X\r\n\r\n", Some(407)),
            ("HTTP/1.1 200\r\n\r\n", Some(200)),
            ("HTTP/2 200\r\n\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
            ("\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()), code, "{head:?}");
        }
    }

    /// Starts a proxy on loopback that answers one `CONNECT` with `answer`, and returns the request
    /// that it received.
    async fn proxy(answer: &'static str) -> (ProxyUrl, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let url = ProxyUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        (url, seen)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_what_follows_is_the_vendors() {
        let (url, seen) = proxy("HTTP/1.1 200 OK\r\nVia: x\r\n\r\nvendor").await;
        let mut tcp = Tcp::new(Some(url), Duration::from_secs(5));
        let uri = "https://vendor.example/a".parse().unwrap();
        let mut stream = tcp.call(uri).await.unwrap().into_inner();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "vendor");
        let asked = seen.await.unwrap();
        assert!(
            asked.starts_with("CONNECT vendor.example:443 HTTP/1.1\r\n"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn whatever_keeps_the_proxy_from_connecting_is_the_proxys_fault() {
        for answer in [
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "nonsense\r\n\r\n",
            "",
        ] {
            let (url, _seen) = proxy(answer).await;
            let mut tcp = Tcp::new(Some(url), Duration::from_secs(5));
            let uri = "http://127.0.0.1:1/a".parse().unwrap();
            let error = tcp.call(uri).await.unwrap_err();
            assert_eq!(ConnectCause::of(&*error), ConnectCause::Proxy, "{answer:?}");
        }
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        let url = ProxyUrl::parse(&format!("http://127.0.0.1:{port}"));
        let mut tcp = Tcp::new(url, Duration::from_secs(5));
        let error = tcp.call("https://vendor.example/".parse().unwrap()).await;
        assert_eq!(ConnectCause::of(&*error.unwrap_err()), ConnectCause::Proxy);
    }

    #[tokio::test]
    async fn names_and_addresses_that_lead_nowhere_have_their_words() {
        let mut tcp = Tcp::new(None, Duration::from_secs(5));
        let error = tcp.call("http://gateway.invalid/".parse().unwrap()).await;
        assert_eq!(ConnectCause::of(&*error.unwrap_err()), ConnectCause::Dns);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", gone.local_addr().unwrap());
        drop(gone);
        let error = tcp.call(uri.parse().unwrap()).await.unwrap_err();
        assert_eq!(ConnectCause::of(&*error), ConnectCause::Refused);
    }
}
