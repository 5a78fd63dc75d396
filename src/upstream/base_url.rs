//! Where a vendor is: scheme, authority and base path, checked once.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, Scheme};

/// A vendor's base URL. Requests go to this origin and to no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end.
    path: String,
}

impl BaseUrl {
    /// Reads `https://host[:port][/path]`; plain `http` only to a literal IP address or `localhost`.
    ///
    /// # Errors
    /// What is wrong with it, for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['?', '#']) {
            return Err("must not have a query or fragment".into());
        }
        let uri: Uri = text.parse().map_err(|_| "is not a URL".to_string())?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err("must begin with https://".into());
        };
        if authority.as_str().contains('@') {
            return Err("must not hold a user name or password".into());
        }
        let host = authority.host();
        if host.is_empty() || (authority.as_str() != host && authority.port_u16().is_none()) {
            return Err("is not a URL".into());
        }
        if scheme == Scheme::HTTP {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let near = bare.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost");
            if !near {
                return Err(
                    "plain http would send the key readable; only a literal IP address or \
                     localhost may be called so"
                        .into(),
                );
            }
        } else if scheme != Scheme::HTTPS {
            return Err("must begin with https://".into());
        }
        let path = parts.path_and_query.map_or(String::new(), |path| {
            path.path().trim_end_matches('/').to_owned()
        });
        if path.split('/').any(|part| part == "." || part == "..") {
            return Err("must not hold . or .. in its path".into());
        }
        Ok(Self {
            scheme,
            authority,
            path,
        })
    }

    /// Whether requests are encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The address of a request; `path_and_query` begins with `/`.
    ///
    /// # Errors
    /// If it cannot stand in a URL.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_travel_encrypted_or_nearby() {
        for good in [
            "https://api.wiv.ai",
            "https://api.wiv.ai/",
            "https://prod-nableboomi.n-able.com:443/ws/rest/V1/PSA_API",
            "http://127.0.0.1:7070",
            "http://10.0.0.9",
            "http://[::1]:8080/ws",
            "http://localhost:1",
        ] {
            let url = BaseUrl::parse(good).unwrap();
            assert_eq!(url.to_string(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "api.wiv.ai",
            "/path",
            "ftp://api.wiv.ai",
            "http://api.wiv.ai",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "https://user:pass@api.wiv.ai",
            "https://api.wiv.ai?x=1",
            "https://api.wiv.ai#x",
            "https://api.wiv.ai/a/../b",
            "https://api.wiv.ai:99999",
            "https://",
            "https://a b",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad:?}");
        }
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
}
