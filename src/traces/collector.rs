//! Where spans are sent, and the headers that go with them.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use zeroize::Zeroizing;

/// Longest address of a collector.
const URL_BYTES_MAX: usize = 512;
/// Maximum number of headers in a file. Collectors need one or two.
const HEADERS_MAX: usize = 16;
/// The path that OTLP over HTTP appends to the address of a collector.
const TRACES_PATH: &str = "/v1/traces";
/// Headers that belong to the export itself.
const OURS: [&str; 9] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "user-agent",
];

/// The address of an OpenTelemetry collector.
#[derive(Clone, PartialEq, Eq)]
pub struct CollectorUrl {
    base: String,
    target: Uri,
}

impl CollectorUrl {
    /// Reads `http://host[:port][/path]` or the same with https. A slash at the end is accepted.
    /// `None` for anything else: a user and a password would be a secret in the settings.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b":/.-_~[]".contains(&b);
        let base = text.strip_suffix('/').unwrap_or(text);
        if text.len() > URL_BYTES_MAX || !base.bytes().all(good) || base.ends_with('/') {
            return None;
        }
        let rest = base
            .strip_prefix("http://")
            .or_else(|| base.strip_prefix("https://"))?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let uri: Uri = base.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let port = place.strip_prefix(host)?;
        let is_port = port.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
        let is_path = path.split('/').all(|step| !matches!(step, "." | ".."))
            && !path.contains("//")
            && !path.starts_with('/');
        if host.is_empty() || !is_port || !is_path {
            return None;
        }
        Some(Self {
            base: base.to_owned(),
            target: format!("{base}{TRACES_PATH}").parse().ok()?,
        })
    }

    /// Returns the request target.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// Returns whether spans and headers are encrypted on their way.
    pub fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// Returns whether the collector is named by an address, or is on this machine.
    pub fn is_near(&self) -> bool {
        let host = self.target.host().unwrap_or("");
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// Headers that a collector requires, such as its key. They print as `[redacted]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TraceHeaders(HeaderMap);

/// Why a file of headers cannot be used. Contains no text of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceHeadersProblem {
    /// This line, counted from 1, is not of the form `name: value`.
    NoHeader(usize),
    /// This line names a header that belongs to the export itself.
    NotYours(usize),
    /// The file has too many headers.
    TooMany,
    /// The file has no header.
    Empty,
}

impl fmt::Display for TraceHeadersProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader(line) => write!(
                f,
                "is not a list of headers: line {line} is not \"name: value\""
            ),
            Self::NotYours(line) => write!(
                f,
                "names a header in line {line} that the exporter sets itself; remove it"
            ),
            Self::TooMany => write!(f, "holds more than {HEADERS_MAX} headers"),
            Self::Empty => f.write_str("holds no header"),
        }
    }
}

impl TraceHeaders {
    /// Reads lines of `name: value`. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors The first error in the file.
    pub fn parse(text: &str) -> Result<Self, TraceHeadersProblem> {
        let mut headers = HeaderMap::new();
        for (at, line) in text.lines().enumerate() {
            let (at, line) = (at + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let no_header = TraceHeadersProblem::NoHeader(at);
            let (name, value) = line.split_once(':').ok_or(no_header)?;
            let name: HeaderName = name.trim().parse().map_err(|_| no_header)?;
            let value = Zeroizing::new(value.trim().to_owned());
            let is_plain = !value.is_empty() && value.bytes().all(|b| matches!(b, b' '..=b'~'));
            if !is_plain {
                return Err(no_header);
            }
            if OURS.contains(&name.as_str()) {
                return Err(TraceHeadersProblem::NotYours(at));
            }
            let mut value = HeaderValue::from_str(&value).map_err(|_| no_header)?;
            value.set_sensitive(true);
            headers.append(name, value);
            if headers.len() > HEADERS_MAX {
                return Err(TraceHeadersProblem::TooMany);
            }
        }
        match headers.is_empty() {
            true => Err(TraceHeadersProblem::Empty),
            false => Ok(Self(headers)),
        }
    }

    /// Returns the headers for the wire.
    pub(super) fn to_map(&self) -> HeaderMap {
        self.0.clone()
    }
}

impl fmt::Debug for TraceHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_addresses_without_secrets() {
        for (good, target) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            (
                "http://otel-collector:4318",
                "http://otel-collector:4318/v1/traces",
            ),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            (
                "https://otlp.example/otlp",
                "https://otlp.example/otlp/v1/traces",
            ),
        ] {
            let url = CollectorUrl::parse(good).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(url.target().to_string(), target);
            assert_eq!(url.to_string(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "127.0.0.1:4318",
            "otel-collector",
            "ftp://a",
            "grpc://a:4317",
            "http://",
            "http:///v1",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://user:secret@a:4318",
            "http://a:4318?x=1",
            "http://a:4318#x",
            "http://a/../b",
            "http://a//b",
            "http://a//",
            "http://a b",
        ] {
            assert_eq!(CollectorUrl::parse(bad), None, "{bad:?}");
        }
        let is_near = |text| CollectorUrl::parse(text).unwrap().is_near();
        assert!(
            is_near("http://127.0.0.1:4318")
                && is_near("http://[::1]")
                && is_near("http://localhost")
        );
        assert!(!is_near("http://otel-collector:4318") && !is_near("http://localhost.example"));
    }

    #[test]
    fn headers_are_read_whole_and_never_printed() {
        let of = TraceHeaders::parse;
        let good = of("# key\n\nAuthorization: Bearer s3cret\r\nx-team: a b\n").unwrap();
        let map = good.to_map();
        assert_eq!(map["authorization"], "Bearer s3cret");
        assert_eq!(map["x-team"], "a b");
        assert!(map.values().all(HeaderValue::is_sensitive));
        assert_eq!(format!("{good:?}"), "[redacted]");
        for (bad, why) in [
            ("", TraceHeadersProblem::Empty),
            ("# nothing\n", TraceHeadersProblem::Empty),
            ("s3cret", TraceHeadersProblem::NoHeader(1)),
            ("a: b\ns3 cret: x", TraceHeadersProblem::NoHeader(2)),
            ("a:", TraceHeadersProblem::NoHeader(1)),
            ("a: ü", TraceHeadersProblem::NoHeader(1)),
            ("a: b\nHost: x", TraceHeadersProblem::NotYours(2)),
            ("content-type: x", TraceHeadersProblem::NotYours(1)),
        ] {
            assert_eq!(of(bad), Err(why), "{bad}");
            assert!(!why.to_string().contains("s3"), "{why}");
        }
        assert_eq!(of(&"a: b\n".repeat(17)), Err(TraceHeadersProblem::TooMany));
    }
}
