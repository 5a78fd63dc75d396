//! A front behind TLS, and callers that connect to it.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use super::authority::*;
use crate::metrics::Metrics;
use crate::server::{ClientAuth, Connections, Ending, Tls, TlsOptions, TlsProblem, TlsSetup};

/// Returns the settings that name these files.
pub fn options(files: &Files, client_auth: ClientAuth) -> TlsOptions {
    TlsOptions {
        certificate_file: files.path("tls.crt"),
        private_key_file: files.path("tls.key"),
        client_ca_file: match client_auth {
            ClientAuth::None => None,
            ClientAuth::Optional | ClientAuth::Required => Some(files.path("ca.crt")),
        },
        client_auth,
    }
}

/// Reads the files of a listener that asks nobody for a certificate.
pub fn load(files: &Files) -> Result<TlsSetup, TlsProblem> {
    TlsSetup::load(&options(files, ClientAuth::None))
}

/// Returns a listener whose server certificate and callers' authority are the same authority's.
pub fn listener(
    authority: &Authority,
    client_auth: ClientAuth,
    metrics: &Arc<Metrics>,
) -> Arc<Tls> {
    let files = Files::of(&authority.server(NAME, (2020, 2100)));
    files.write("ca.crt", &authority.pem());
    let setup = TlsSetup::load(&options(&files, client_auth)).unwrap();
    Tls::new(setup, "public", metrics.clone())
}

/// Connects; an error if either side refuses the other.
pub async fn connect_as(
    caller: &Caller,
    on: &Connections,
    tls: &Arc<Tls>,
    authority: &Authority,
) -> std::io::Result<TlsStream<DuplexStream>> {
    shake(on, tls, Arc::new(caller.config(authority))).await
}

/// Connects with a configuration that may be used again.
pub async fn shake(
    on: &Connections,
    tls: &Arc<Tls>,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<DuplexStream>> {
    let (near, _) = open(on, tls);
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(config).connect(name, near).await
}

/// Returns the caller's end of a connection that is to speak TLS, and how it ends.
pub fn open(on: &Connections, tls: &Arc<Tls>) -> (DuplexStream, tokio::task::JoinHandle<Ending>) {
    let (near, far) = duplex(256 * 1024);
    let (on, tls) = (on.clone(), tls.clone());
    let task = tokio::spawn(async move { on.serve_tls(&tls, far, None).await });
    (near, task)
}
