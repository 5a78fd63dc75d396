//! Addresses of a vendor and of a proxy in front of it. Both are checked once.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, Scheme};

/// Longest base URL; the longest known has 60 bytes.
const BYTES_MAX: usize = 512;

/// The origin and path of every call to a vendor. Requests go to this origin only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Without a trailing slash.
    path: String,
}

impl BaseUrl {
    /// Creates a default address, which is known to be valid.
    pub fn fixed(host: &'static str, path: &'static str) -> Self {
        Self {
            scheme: Scheme::HTTPS,
            authority: Authority::from_static(host),
            path: path.to_owned(),
        }
    }

    /// Parses `https://host[:port][/path]`, with or without a trailing slash. Plain `http`, which
    /// sends the key unencrypted, is accepted only for a literal IP address or `localhost`.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b":/.-_~[]".contains(&b);
        if text.len() > BYTES_MAX || !text.bytes().all(good) {
            return None;
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let parts = text.parse::<Uri>().ok()?.into_parts();
        let (scheme, authority) = (parts.scheme?, parts.authority?);
        let host = authority.host();
        let port = authority.as_str().strip_prefix(host)?;
        // `http::Uri` ignores a port that is not a number.
        let is_port = port.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_near = host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok();
        let is_safe = scheme == Scheme::HTTPS || (scheme == Scheme::HTTP && is_near);
        // `Uri` returns a slash for a missing path.
        let path = parts
            .path_and_query
            .as_ref()
            .map_or("/", |path| path.path());
        let path = if text.ends_with('/') {
            path
        } else {
            path.trim_end_matches('/')
        };
        let is_path = path
            .split('/')
            .skip(1)
            .all(|step| !matches!(step, "" | "." | ".."));
        let path = path.to_owned();
        (!host.is_empty() && is_port && is_safe && is_path).then_some(Self {
            scheme,
            authority,
            path,
        })
    }

    /// Returns whether requests are encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// Returns the port, or the scheme's default port.
    pub fn port(&self) -> u16 {
        let own = if self.is_https() { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(own)
    }

    /// Returns the address of a request; `path_and_query` begins with `/`.
    ///
    /// # Errors
    /// If `path_and_query` is not valid in a URL.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path_and_query}", self.path))
            .build()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// An HTTP proxy that opens tunnels to a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl(Uri);

impl ProxyUrl {
    /// Parses `http://host:port`, with or without a trailing slash. Returns `None` for anything
    /// else. A user and a password are not accepted, because they would be a secret in the
    /// settings.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b":/.-_[]".contains(&b);
        let text = text.strip_suffix('/').unwrap_or(text);
        let authority = text.strip_prefix("http://")?;
        if text.len() > BYTES_MAX || !text.bytes().all(good) || authority.contains('/') {
            return None;
        }
        let authority: Authority = authority.parse().ok()?;
        authority.port_u16().filter(|port| *port > 0)?;
        if authority.host().is_empty() {
            return None;
        }
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(authority)
            .path_and_query("/");
        uri.build().ok().map(Self)
    }

    /// Returns the proxy's address.
    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", Authority::as_str);
        write!(f, "http://{authority}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_travel_encrypted_or_nearby_and_nowhere_else() {
        for good in [
            "https://api.wiv.ai",
            "https://api.wiv.ai/",
            "https://prod-nableboomi.n-able.com:443/ws/rest/V1/PSA_API",
            "http://127.0.0.1:7070",
            "http://10.0.0.9",
            "http://[::1]:8080/ws",
            "http://localhost:1/ws/",
            "http://LOCALHOST",
        ] {
            let url = BaseUrl::parse(good).unwrap();
            assert_eq!(url.to_string(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "api.wiv.ai",
            "/path",
            "ftp://api.wiv.ai",
            "ftp://127.0.0.1",
            "http://api.wiv.ai",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "https://user:pass@api.wiv.ai",
            "https://user@api.wiv.ai",
            "https://api.wiv.ai?x=1",
            "https://api.wiv.ai#x",
            "https://api.wiv.ai/a/../b",
            "https://api.wiv.ai/a/.",
            "https://api.wiv.ai//b",
            "https://api.wiv.ai//",
            "https://api.wiv.ai/a//",
            "https://api.wiv.ai:0",
            "https://api.wiv.ai:99999",
            "https://api.wiv.ai:",
            "https://",
            "https:///a",
            "https://a b",
            "https://a.b/%2e%2e/",
            " https://a.b",
        ] {
            assert!(BaseUrl::parse(bad).is_none(), "{bad:?}");
        }
        let long = |bytes: usize| format!("https://{}", "a.".repeat(bytes / 2 - 4));
        assert!(BaseUrl::parse(&long(BYTES_MAX)).is_some());
        assert!(BaseUrl::parse(&long(BYTES_MAX + 2)).is_none());
    }

    #[test]
    fn requests_stay_below_the_base_path() {
        let url = BaseUrl::parse("http://127.0.0.1:7070/ws/rest/").unwrap();
        let uri = url.join("/x/y?z=1").unwrap();
        assert_eq!(uri.to_string(), "http://127.0.0.1:7070/ws/rest/x/y?z=1");
        assert_eq!(
            url.join("//evil.example/").unwrap().authority().unwrap(),
            "127.0.0.1:7070"
        );
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port_and_no_secret() {
        for good in [
            "http://proxy:3128",
            "http://10.0.0.1:8080",
            "http://[::1]:80",
        ] {
            assert_eq!(ProxyUrl::parse(good).unwrap().to_string(), good);
            assert!(ProxyUrl::parse(&format!("{good}/")).is_some());
        }
        for bad in [
            "",
            "proxy:3128",
            "http://proxy",
            "http://proxy:0",
            "http://proxy:99999",
            "https://proxy:3128",
            "socks5://proxy:1080",
            "http://user:secret@proxy:3128",
            "http://proxy:3128/path",
            "http://proxy:3128?x",
            "http://:3128",
        ] {
            assert!(ProxyUrl::parse(bad).is_none(), "{bad}");
        }
    }
}
