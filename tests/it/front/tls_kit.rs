//! A front behind TLS, and callers that connect to it.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use crate::authority::*;
use msp_gateway::metrics::Metrics;
use msp_gateway::server::{ClientAuth, Connections, Ending, Tls, TlsOptions, TlsProblem, TlsSetup};

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

/// Reads the files of a listener that requests no certificates.
pub fn load(files: &Files) -> Result<TlsSetup, TlsProblem> {
    TlsSetup::load(&options(files, ClientAuth::None))
}

/// Returns a listener. One authority signs its server certificate and its callers' certificates.
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

/// Connects. Fails if either side refuses the other.
pub async fn connect_as(
    caller: &TlsCaller,
    on: &Connections,
    tls: &Arc<Tls>,
    authority: &Authority,
) -> std::io::Result<TlsStream<DuplexStream>> {
    shake(on, tls, Arc::new(caller.config(authority))).await
}

/// Connects with a configuration that can be used again.
pub async fn shake(
    on: &Connections,
    tls: &Arc<Tls>,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<DuplexStream>> {
    let (near, _) = open(on, tls);
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(config).connect(name, near).await
}

/// Opens a connection on which TLS is expected. Returns the caller's end, and how the connection
/// ends.
pub fn open(on: &Connections, tls: &Arc<Tls>) -> (DuplexStream, tokio::task::JoinHandle<Ending>) {
    let (near, far) = duplex(256 * 1024);
    let (on, tls) = (on.clone(), tls.clone());
    let task = tokio::spawn(async move { on.serve_tls(&tls, far, None).await });
    (near, task)
}
