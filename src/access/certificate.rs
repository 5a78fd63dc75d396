//! The names in a verified client certificate, and which caller they identify.

use std::fmt;

use jiff::Timestamp;

/// Longest DNS name, as in the DNS itself. URIs may be longer.
const DNS_BYTES_MAX: usize = 253;
/// Longest URI. A SPIFFE id may have 2048 bytes.
const URI_BYTES_MAX: usize = 2048;
/// Most names of one certificate that are looked up at each request. A certificate with more
/// identifies no caller.
const NAMES_MAX: usize = 32;

/// One subject alternative name that identifies a caller. It is compared whole, so a wildcard
/// identifies no caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientSan {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}

impl ClientSan {
    /// Reads a name from the settings. A name with a colon is a URI; any other is a DNS name.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            Self::uri(text)
        } else {
            Self::dns(text)
        }
    }

    /// Reads a DNS name. Returns `None` for a wildcard or an invalid name.
    pub fn dns(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
        (text.len() <= DNS_BYTES_MAX && text.split('.').all(label))
            .then(|| Self::Dns(text.to_ascii_lowercase()))
    }

    /// Reads a URI. Returns `None` if it has no scheme or contains a character that URIs cannot
    /// have.
    pub fn uri(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let scheme =
            scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(plain);
        let rest = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
        (scheme && rest && text.len() <= URI_BYTES_MAX).then(|| Self::Uri(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Dns(text) | Self::Uri(text) => text,
        }
    }
}

impl fmt::Display for ClientSan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content of a connection's verified client certificate. Only the TLS listener makes one; no
/// header ever becomes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    sans: Vec<ClientSan>,
    not_after: Timestamp,
}

impl ClientCertificate {
    /// Makes an identity of these names that expires at that time.
    pub fn new(sans: impl IntoIterator<Item = ClientSan>, not_after: Timestamp) -> Self {
        let mut sans: Vec<ClientSan> = sans.into_iter().take(NAMES_MAX + 1).collect();
        if sans.len() > NAMES_MAX {
            sans.clear();
        }
        Self { sans, not_after }
    }

    /// Returns the names in the certificate.
    pub fn sans(&self) -> &[ClientSan] {
        &self.sans
    }

    /// Returns whether the certificate has expired. A connection may outlive its certificate.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_or_uris() {
        assert_eq!(
            ClientSan::parse("Dashboards.Internal"),
            Some(ClientSan::Dns("dashboards.internal".into()))
        );
        assert_eq!(
            ClientSan::parse("spiffe://corp.example/Dash"),
            Some(ClientSan::Uri("spiffe://corp.example/Dash".into()))
        );
        assert!(ClientSan::parse("urn:uuid:1").is_some());
        for bad in [
            "",
            "*.internal",
            "a..b",
            "a.",
            "a b",
            "é",
            ":x",
            "spiffe:",
            "1a:x",
            "a:b c",
            "a:\u{7}",
            &"a".repeat(64),
            &format!("a:{}", "x".repeat(URI_BYTES_MAX)),
        ] {
            assert_eq!(ClientSan::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_certificate_of_too_many_names_speaks_for_nobody() {
        let until = Timestamp::MAX;
        let of = |n: usize| {
            let names = (0..n).filter_map(|n| ClientSan::dns(&format!("n{n}")));
            ClientCertificate::new(names, until).sans().len()
        };
        assert_eq!((of(NAMES_MAX), of(NAMES_MAX + 1)), (NAMES_MAX, 0));
    }
}
