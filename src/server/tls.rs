//! TLS on a listener: certificates from files, validated as a whole, replaced without ending
//! connections.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use super::connection::{Connections, Ending, LINGER, linger};
use super::drain::{Drain, DrainPhase};
use super::http2;
use super::transport::ServerTransport;
use crate::access::{ClientCertificate, ClientSan};
use crate::clock;
use crate::exchange::PeerIdentity;
use crate::metrics::{Handshake, Metrics};
use crate::problem::Problem;
use crate::secrets::{FileProblem, read_file};

/// Maximum size of a file of certificates or keys. A bundle of all public authorities has 200 KiB.
const PEM_BYTES_MAX: usize = 1 << 20;
/// The protocols offered, most preferred first.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];
const HTTP_2: &[u8] = b"h2";

/// Whether callers must present certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    None,
    /// A certificate is requested, and a caller may present one.
    Optional,
    /// A connection without a certificate is refused.
    Required,
}

impl ClientAuth {
    /// Every variant.
    pub const ALL: [Self; 3] = [Self::None, Self::Optional, Self::Required];

    /// Returns the word used in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// The settings of TLS on one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate, followed by those up to its authority, as PEM.
    pub certificate_file: PathBuf,
    /// The private key, as PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub private_key_file: PathBuf,
    /// The authorities of callers' certificates, as PEM. Set if callers are asked for a
    /// certificate.
    pub client_ca_file: Option<PathBuf>,
    /// Whether callers are asked for a certificate.
    pub client_auth: ClientAuth,
}

/// One of the files in [`TlsOptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// `certificate_file`
    Certificate,
    /// `private_key_file`
    PrivateKey,
    /// `client_ca_file`
    ClientCa,
}

impl TlsFile {
    /// Returns the setting's name within its table.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Certificate => "certificate_file",
            Self::PrivateKey => "private_key_file",
            Self::ClientCa => "client_ca_file",
        }
    }
}

/// Why TLS cannot be used with these files. Contains nothing of their content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    /// The file that is wrong.
    pub file: TlsFile,
    /// The reason, as the end of a sentence that begins with the file's name.
    pub why: String,
}

fn wrong(file: TlsFile, why: impl Into<String>) -> TlsProblem {
    TlsProblem {
        file,
        why: why.into(),
    }
}

/// Everything that a listener needs for TLS, read and validated. Cheap to clone.
#[derive(Clone)]
pub struct TlsSetup {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl fmt::Debug for TlsSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSetup")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl TlsSetup {
    /// Reads the files now. Blocks the thread, but gives up on a file that does not respond.
    ///
    /// # Errors
    /// Fails if a file is missing or invalid, or if certificate and key do not match.
    pub fn load(options: &TlsOptions) -> Result<Self, TlsProblem> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates(TlsFile::Certificate, &options.certificate_file)?;
        let key = private_key(&options.private_key_file, &provider)?;
        let [certificate, ..] = chain.as_slice() else {
            return Err(wrong(TlsFile::Certificate, "holds no certificate"));
        };
        let certificate = certificate.clone();
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let why = "does not hold the private key of certificate_file";
                return Err(wrong(TlsFile::PrivateKey, why));
            }
            Err(_) => return Err(wrong(TlsFile::Certificate, UNREADABLE)),
        }
        let (not_before, not_after) =
            validity(&certificate).ok_or_else(|| wrong(TlsFile::Certificate, UNREADABLE))?;
        let verifier = match (&options.client_ca_file, options.client_auth) {
            (None, _) | (_, ClientAuth::None) => None,
            (Some(file), asked) => {
                let roots = Arc::new(authorities(file)?);
                let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let builder = match asked {
                    ClientAuth::Required => builder,
                    ClientAuth::Optional | ClientAuth::None => builder.allow_unauthenticated(),
                };
                let built = builder.build();
                Some(built.map_err(|_| wrong(TlsFile::ClientCa, "holds no usable authority"))?)
            }
        };
        let asks = verifier.is_some();
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| wrong(TlsFile::PrivateKey, "cannot be used by this build"))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        if asks {
            // A resumed session is not verified again, so it would outlive its certificate and
            // authority.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(config),
            certificate,
            not_before,
            not_after,
        })
    }

    /// Returns when the certificate expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Returns why callers would reject the certificate at this time, or `None` if they accept it.
    pub fn untimely(&self, now: Timestamp) -> Option<String> {
        if now > self.not_after {
            Some(format!("expired at {}", self.not_after))
        } else if now < self.not_before {
            Some(format!("is not valid before {}", self.not_before))
        } else {
            None
        }
    }

    /// Returns whether the other setup has the same certificate.
    pub fn is_same_certificate(&self, other: &Self) -> bool {
        self.certificate == other.certificate
    }
}

const UNREADABLE: &str = "holds a certificate that cannot be read";

fn read(file: TlsFile, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsProblem> {
    read_file(path, PEM_BYTES_MAX).map_err(|why| match why {
        FileProblem::TooLarge => wrong(file, "is larger than 1 MiB"),
        why => wrong(file, why.to_string()),
    })
}

fn certificates(file: TlsFile, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let bytes = read(file, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(file, "holds no certificate in PEM form")),
        Ok(found) => Ok(found),
        Err(_) => Err(wrong(file, "is truncated or is not a PEM file")),
    }
}

fn private_key(
    path: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn rustls::sign::SigningKey>, TlsProblem> {
    use rustls::pki_types::pem::Error as PemError;
    let file = TlsFile::PrivateKey;
    let bytes = read(file, path)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        PemError::NoItemsFound => wrong(
            file,
            "holds no private key in PEM form, or an encrypted one",
        ),
        _ => wrong(file, "is truncated or is not a PEM file"),
    })?;
    provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| wrong(file, "holds a private key that cannot be used"))
}

/// Returns the authorities whose certificates a PEM file holds.
///
/// # Errors
/// If the file cannot be read, or holds no certificate or one that cannot be used.
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(TlsFile::ClientCa, path)? {
        roots
            .add(certificate)
            .map_err(|_| wrong(TlsFile::ClientCa, UNREADABLE))?;
    }
    Ok(roots)
}

/// Returns from when until when a certificate is valid. Serial numbers and other parts are not
/// checked here.
fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let parsed = CertificateInner::<Raw>::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate().validity();
    let time = |time: &x509_cert::time::Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
        Timestamp::from_second(seconds).ok()
    };
    Some((time(&validity.not_before)?, time(&validity.not_after)?))
}

/// Returns the names in a verified client certificate. They are read by the library that verified
/// it, so that two parsers cannot see two names.
fn client_certificate(leaf: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let verified = webpki::EndEntityCert::try_from(leaf).ok()?;
    let dns = verified.valid_dns_names().filter_map(ClientSan::dns);
    let uris = verified.valid_uri_names().filter_map(ClientSan::uri);
    let (_, not_after) = validity(leaf)?;
    Some(ClientCertificate::new(dns.chain(uris), not_after))
}

/// TLS of one listener, with the setup in force. A connection keeps the setup that it began with.
pub struct Tls {
    setup: ArcSwap<TlsSetup>,
    listener: &'static str,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Creates the TLS of a listener. `listener` is `public` or `admin`.
    pub fn new(setup: TlsSetup, listener: &'static str, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.set_certificate_not_after(listener, setup.not_after.as_second());
        Arc::new(Self {
            setup: ArcSwap::from_pointee(setup),
            listener,
            metrics,
        })
    }

    /// Returns the setup for new connections.
    pub fn current(&self) -> Arc<TlsSetup> {
        self.setup.load_full()
    }

    /// Sets the setup for new connections.
    pub fn replace(&self, setup: TlsSetup) {
        self.metrics
            .set_certificate_not_after(self.listener, setup.not_after.as_second());
        self.setup.store(Arc::new(setup));
    }
}

/// How long writing the answer to plain HTTP may take. It fits into any socket's buffer.
const REFUSAL_WRITE_MAX: clock::Duration = clock::Duration::from_secs(1);

/// Answers plain HTTP with the reason why this port does not serve it. The request is not parsed: a
/// key in it has crossed the network without TLS, and must not work.
async fn refuse_in_the_clear<I: AsyncRead + AsyncWrite + Unpin>(
    mut io: I,
    drain: &Drain,
) -> Ending {
    let answer =
        Problem::malformed("The request is plain HTTP, but this port speaks TLS; use https://.")
            .unasked();
    let written = clock::timeout(REFUSAL_WRITE_MAX, io.write_all(answer.as_bytes())).await;
    if let Ok(Ok(())) = written {
        linger(io, LINGER, drain).await;
    }
    Ending::Done
}

impl Connections {
    /// Serves one connection that begins with a TLS handshake. The handshake may take as long as a
    /// head.
    pub async fn serve_tls<I>(self, tls: &Tls, io: I, address: Option<SocketAddr>) -> Ending
    where
        I: AsyncRead + AsyncWrite + ServerTransport + Unpin + Send,
    {
        let config = tls.setup.load().config.clone();
        let handshake = async {
            let first = std::future::poll_fn(|cx| io.poll_first_byte(cx)).await;
            // A method of HTTP begins with such a byte, a TLS record does not.
            if first.is_some_and(|byte| byte.is_ascii_uppercase()) {
                return Err(io);
            }
            Ok(TlsAcceptor::from(config).accept(io).await)
        };
        let in_time = clock::timeout(self.patience.header, handshake);
        let drain = self.drain.clone();
        let shaken = tokio::select! {
            biased;
            shaken = in_time => shaken,
            () = drain.reached(DrainPhase::Cut) => return Ending::Cut,
        };
        let count = |outcome| tls.metrics.tls_handshake(tls.listener, outcome);
        let stream = match shaken {
            Ok(Ok(Ok(stream))) => stream,
            Ok(Err(io)) => {
                count(Handshake::Failed);
                tracing::debug!(
                    listener = tls.listener,
                    "plain HTTP request on a TLS listener"
                );
                return refuse_in_the_clear(io, &drain).await;
            }
            Ok(Ok(Err(why))) => {
                count(Handshake::Failed);
                tracing::debug!(%why, listener = tls.listener, "TLS handshake failed");
                return Ending::Done;
            }
            Err(_) => {
                count(Handshake::TimedOut);
                return Ending::Slow;
            }
        };
        count(Handshake::Ok);
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let peer = PeerIdentity {
            address,
            certificate: leaf.and_then(client_certificate).map(Arc::new),
            secure: true,
            ..PeerIdentity::default()
        };
        if session.alpn_protocol() == Some(HTTP_2) {
            http2::serve(self, stream, peer).await
        } else {
            self.http1(stream, peer).await
        }
    }
}
