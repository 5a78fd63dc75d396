//! Connections to a vendor: TLS over TCP, or pipes in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::DuplexStream;
use tower::Service;

use super::VendorOptions;
use super::tally::Tallied;
use super::tcp::Tcp;
use crate::clock::{Duration, timeout};

/// An error of any kind from a connector.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to the host of a URL.
pub trait VendorConnector:
    Service<
        Uri,
        Response: Read + Write + Connection + Unpin + Send + 'static,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> VendorConnector for C where
    C: Service<
            Uri,
            Response: Read + Write + Connection + Unpin + Send + 'static,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Returns the network connector: TCP, through the proxy of `proxy_url` if there is one, then TLS,
/// and HTTP/2 if the vendor offers it. Certificates are checked against the system's roots
/// (`SSL_CERT_FILE` and `SSL_CERT_DIR` replace them), or against Mozilla's if the system has none.
///
/// # Errors
/// If TLS cannot be set up at all.
pub fn https_connector(options: &VendorOptions) -> Result<HttpsConnector<Tcp>, rustls::Error> {
    let tcp = Tcp::new(options.proxy.clone(), options.connect_timeout);
    let builder = HttpsConnectorBuilder::new();
    // A vendor with an https URL is never called without TLS. Reading the roots is the slowest step
    // of a start, so it is skipped if no certificate is checked.
    let builder = if options.base_url.is_https() {
        builder.with_tls_config(client_tls(None)?).https_only()
    } else {
        let nobody = client_tls(Some(RootCertStore::empty()))?;
        builder.with_tls_config(nobody).https_or_http()
    };
    Ok(builder.enable_http1().enable_http2().wrap_connector(tcp))
}

/// Returns a TLS client without a certificate of its own. It trusts `authorities`, or else the
/// system's roots, or Mozilla's if the system has none.
///
/// # Errors
/// If TLS cannot be set up at all.
pub fn client_tls(authorities: Option<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match authorities {
        Some(authorities) => builder.with_root_certificates(authorities),
        None => match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            Err(problem) => {
                tracing::warn!(
                    problem = %problem.kind(),
                    "no usable root certificates on this system; the built-in ones are used"
                );
                builder.with_webpki_roots()
            }
        },
    };
    Ok(builder.with_no_client_auth())
}

/// Limits the time to connect, including name lookup and TLS, and gives each connection a tally.
#[derive(Clone)]
pub(crate) struct Timed<C> {
    inner: C,
    limit: Duration,
}

impl<C> Timed<C> {
    pub(crate) fn new(inner: C, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl<C: VendorConnector> Service<Uri> for Timed<C> {
    type Response = TokioIo<Tallied<C::Response>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.limit, self.inner.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(made) => made.map(Tallied::new).map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

/// Creates the near end of a pipe to a place.
type MakePipe = dyn Fn(&Uri) -> io::Result<DuplexStream> + Send + Sync;

/// Connects to a server in the same process, without sockets.
#[derive(Clone)]
pub struct InMemory {
    make: Arc<MakePipe>,
}

impl InMemory {
    /// Creates a connector. Each connection is one pipe, whose other end `make` must serve.
    pub fn new(make: impl Fn() -> DuplexStream + Send + Sync + 'static) -> Self {
        Self::fallible(move || Ok(make()))
    }

    /// Creates a connector whose connections may fail.
    pub fn fallible(make: impl Fn() -> io::Result<DuplexStream> + Send + Sync + 'static) -> Self {
        Self::by_place(move |_| make())
    }

    /// Creates a connector whose connections depend on the URL.
    pub fn by_place(
        make: impl Fn(&Uri) -> io::Result<DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Arc::new(make),
        }
    }
}

impl Service<Uri> for InMemory {
    type Response = Pipe;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Pipe>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, place: Uri) -> Self::Future {
        std::future::ready((self.make)(&place).map(|end| Pipe(TokioIo::new(end))))
    }
}

/// One end of a pipe, as a connection.
pub struct Pipe(TokioIo<DuplexStream>);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, Vendor};
    use crate::upstream::BaseUrl;

    #[test]
    fn the_real_way_can_be_built() {
        let account = AccountId::parse("default").unwrap();
        let base = BaseUrl::parse("https://api.wiv.ai").unwrap();
        let options = VendorOptions::new(Vendor::Wiv, base, account);
        assert!(https_connector(&options).is_ok());
        let config = client_tls(None).unwrap();
        assert!(config.alpn_protocols.is_empty(), "the builder sets them");
    }
}
