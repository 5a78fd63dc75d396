//! The reasons why no connection to a vendor was made, as a closed set of words.
//!
//! The words appear in errors, logs and metrics. None contains text of the peer, because a
//! certificate may contain any text.

use std::error::Error;
use std::fmt;
use std::io;

/// Why no connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectCause {
    /// The host name did not resolve.
    Dns,
    /// No program listens at the address.
    Refused,
    /// There is no route to the address.
    Unreachable,
    /// No connection within `connect_timeout`, name lookup and TLS included.
    TimedOut,
    /// The connection ended while it was being made.
    Closed,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not valid yet.
    CertificateNotYetValid,
    /// The certificate is for another host.
    CertificateWrongHost,
    /// The certificate's issuer is unknown.
    CertificateUnknownIssuer,
    /// The certificate is one of an authority and not of a server, as most self-signed ones are.
    CertificateSelfSigned,
    /// The certificate was revoked.
    CertificateRevoked,
    /// Another check of the certificate failed.
    CertificateInvalid,
    /// The TLS handshake failed, or the other side does not speak TLS.
    Tls,
    /// The proxy of `proxy_url` could not be reached, or did not open the tunnel.
    Proxy,
    /// Another error of the operating system.
    Other,
}

impl ConnectCause {
    /// Every cause.
    pub const ALL: [Self; 15] = [
        Self::Dns,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::Closed,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateWrongHost,
        Self::CertificateUnknownIssuer,
        Self::CertificateSelfSigned,
        Self::CertificateRevoked,
        Self::CertificateInvalid,
        Self::Tls,
        Self::Proxy,
        Self::Other,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateWrongHost => "certificate_wrong_host",
            Self::CertificateUnknownIssuer => "certificate_unknown_issuer",
            Self::CertificateSelfSigned => "certificate_self_signed",
            Self::CertificateRevoked => "certificate_revoked",
            Self::CertificateInvalid => "certificate_invalid",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Other => "other",
        }
    }

    /// Returns the cause in words, to end a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Dns => "its host name does not resolve",
            Self::Refused => "the connection was refused",
            Self::Unreachable => "there is no route to its address",
            Self::TimedOut => "no connection was made in time",
            Self::Closed => "the connection closed while it was being made",
            Self::CertificateExpired => "the certificate has expired",
            Self::CertificateNotYetValid => "the certificate is not valid yet",
            Self::CertificateWrongHost => "the certificate is for another host",
            Self::CertificateUnknownIssuer => "the certificate's issuer is unknown",
            Self::CertificateSelfSigned => "the certificate is self-signed",
            Self::CertificateRevoked => "the certificate was revoked",
            Self::CertificateInvalid => "the certificate is not valid",
            Self::Tls => "the TLS handshake failed",
            Self::Proxy => "the proxy did not connect",
            Self::Other => "no connection could be made",
        }
    }

    /// Reads the cause from an error of the connector.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Self::Other;
        let mut source = Some(error);
        while let Some(error) = source {
            if error.is::<NoSuchName>() {
                return Self::Dns;
            }
            if error.is::<ProxyFailed>() {
                return Self::Proxy;
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            source = match error.downcast_ref::<io::Error>() {
                // TLS errors travel inside I/O errors, which do not name them as their source.
                Some(io) => {
                    cause = Self::of_io(io.kind());
                    io.get_ref().map(|inner| inner as &(dyn Error + 'static))
                }
                None => error.source(),
            };
        }
        cause
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            // rustls reports bytes that are not TLS with this kind.
            io::ErrorKind::InvalidData => Self::Tls,
            _ => Self::Other,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Certificate;
        let rustls::Error::InvalidCertificate(problem) = error else {
            return Self::Tls;
        };
        match problem {
            Certificate::Expired | Certificate::ExpiredContext { .. } => Self::CertificateExpired,
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                Self::CertificateNotYetValid
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                Self::CertificateWrongHost
            }
            Certificate::UnknownIssuer => Self::CertificateUnknownIssuer,
            Certificate::Revoked => Self::CertificateRevoked,
            // rustls has no variant for this and passes on the error of its verifier.
            Certificate::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                Self::CertificateSelfSigned
            }
            _ => Self::CertificateInvalid,
        }
    }
}

/// The resolver found no address for a name.
#[derive(Debug)]
pub struct NoSuchName;

impl fmt::Display for NoSuchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host name does not resolve")
    }
}

impl Error for NoSuchName {}

/// The proxy did not open a tunnel to the vendor.
#[derive(Debug)]
pub struct ProxyFailed(pub(super) String);

impl fmt::Display for ProxyFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy did not connect: {}", self.0)
    }
}

impl Error for ProxyFailed {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn io_of(kind: io::ErrorKind) -> io::Error {
        io::Error::from(kind)
    }

    fn tls(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn every_cause_is_found_in_the_error_that_holds_it() {
        use rustls::{CertificateError as C, Error as E};
        for (error, cause) in [
            (io::Error::other(NoSuchName), ConnectCause::Dns),
            (
                io::Error::other(ProxyFailed("status 407".into())),
                ConnectCause::Proxy,
            ),
            (
                io_of(io::ErrorKind::ConnectionRefused),
                ConnectCause::Refused,
            ),
            (
                io_of(io::ErrorKind::HostUnreachable),
                ConnectCause::Unreachable,
            ),
            (
                io_of(io::ErrorKind::NetworkUnreachable),
                ConnectCause::Unreachable,
            ),
            (io_of(io::ErrorKind::TimedOut), ConnectCause::TimedOut),
            (io_of(io::ErrorKind::ConnectionReset), ConnectCause::Closed),
            (io_of(io::ErrorKind::UnexpectedEof), ConnectCause::Closed),
            (io_of(io::ErrorKind::PermissionDenied), ConnectCause::Other),
            (
                tls(E::InvalidCertificate(C::Expired)),
                ConnectCause::CertificateExpired,
            ),
            (
                tls(E::InvalidCertificate(C::NotValidYet)),
                ConnectCause::CertificateNotYetValid,
            ),
            (
                tls(E::InvalidCertificate(C::NotValidForName)),
                ConnectCause::CertificateWrongHost,
            ),
            (
                tls(E::InvalidCertificate(C::UnknownIssuer)),
                ConnectCause::CertificateUnknownIssuer,
            ),
            (
                tls(E::InvalidCertificate(C::Revoked)),
                ConnectCause::CertificateRevoked,
            ),
            (
                tls(E::InvalidCertificate(C::BadEncoding)),
                ConnectCause::CertificateInvalid,
            ),
            (tls(E::DecryptError), ConnectCause::Tls),
        ] {
            assert_eq!(ConnectCause::of(&error), cause, "{error:?}");
        }
    }

    /// The product searches for the verifier's word in a text, so this test uses the verifier's
    /// real text.
    #[test]
    fn a_self_signed_certificate_is_told_from_others() {
        use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier as _};
        use rustls::pki_types::{ServerName, UnixTime};
        let mut request = rcgen::CertificateParams::new(vec!["vendor.example".to_owned()]).unwrap();
        request.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let made = request.self_signed(&rcgen::KeyPair::generate().unwrap());
        let certificate = made.unwrap().der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = ServerName::try_from("vendor.example").unwrap();
        let verdict = verifier.build().unwrap().verify_server_cert(
            &certificate,
            &[],
            &name,
            &[],
            UnixTime::now(),
        );
        let cause = ConnectCause::of(&tls(verdict.unwrap_err()));
        assert_eq!(cause, ConnectCause::CertificateSelfSigned);
    }

    #[test]
    fn words_are_distinct() {
        let words: std::collections::HashSet<_> =
            ConnectCause::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(words.len(), ConnectCause::ALL.len());
    }
}
