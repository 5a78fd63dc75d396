//! A vendor's settings, checked.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderName, Uri};

use super::form::Form;
use crate::clock::Duration;
use crate::domain::{AccountId, Vendor};
use crate::secrets::SecretSource;

/// Longest base URL; the longest known has 60 bytes.
const URL_BYTES_MAX: usize = 512;

/// The origin and path every call to a vendor begins with: https, or http to this machine or to a
/// literal address; nothing but scheme, host, port and path; no slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// A default, which a test holds to the rules.
    pub fn fixed(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Form for BaseUrl {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an https URL of a host and perhaps a path, without user, query or fragment (plain http only to localhost or a literal IP address)",
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b":/.-_~[]".contains(&b);
        if text.len() > URL_BYTES_MAX || !text.bytes().all(good) {
            return None;
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let uri: Uri = text.parse().ok()?;
        let host = uri.host().filter(|host| !host.is_empty())?;
        let port = uri.authority()?.as_str().strip_prefix(host)?;
        // A port that is not a number would be read as none.
        if !port.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
            return None;
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let local = host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok();
        let scheme = match uri.scheme_str()? {
            "https" => true,
            "http" => local,
            _ => false,
        };
        let path = uri.path();
        let steps = path.strip_prefix('/').unwrap_or(path).split('/');
        let path = matches!(path, "" | "/")
            || steps
                .into_iter()
                .all(|step| !matches!(step, "" | "." | ".."));
        (scheme && path).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Where the account's name comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSource {
    /// From the settings themselves.
    Given(AccountId),
    /// From beside the keys.
    Kept(SecretSource),
}

/// One vendor, enabled.
#[derive(Clone, Debug)]
pub struct VendorSettings {
    /// Which one.
    pub vendor: Vendor,
    /// Scheme, host, perhaps port and path; see [`BaseUrl`].
    pub base_url: String,
    /// Carries the key.
    pub key_header: HeaderName,
    /// The vendor's budget.
    pub requests_per_minute: u32,
    /// Calls at once.
    pub concurrency: usize,
    /// For one attempt, until its body was read.
    pub timeout: Duration,
    /// For its connection.
    pub connect_timeout: Duration,
    /// Whose data the keys show; names the credential in every cache key.
    pub account: AccountSource,
    /// Holds the key.
    pub key: SecretSource,
    /// Holds the key to use when the vendor refuses the first.
    pub key_fallback: Option<SecretSource>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_lead_nowhere_else() {
        for good in [
            "https://api.wiv.ai",
            "https://prod-nableboomi.n-able.com:443/ws/rest/V1/PSA_API",
            "http://127.0.0.1:7070",
            "http://[::1]:7070/a",
            "http://localhost:7070/ws/",
        ] {
            assert!(BaseUrl::from_text(good).is_some(), "{good}");
        }
        assert_eq!(
            BaseUrl::from_text("https://a.b/").unwrap().as_str(),
            "https://a.b"
        );
        for bad in [
            "",
            "api.wiv.ai",
            "/path",
            "http://api.wiv.ai",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "https://user:pw@api.wiv.ai",
            "https://user@api.wiv.ai",
            "https://api.wiv.ai?x=1",
            "https://api.wiv.ai#x",
            "https://api.wiv.ai/a/../b",
            "https://api.wiv.ai//b",
            "https://api.wiv.ai:0",
            "https://api.wiv.ai:99999",
            "https://api.wiv.ai:",
            "https://",
            "https:///a",
            "ftp://127.0.0.1",
            "https://a b",
            "https://a.b/%2e%2e/",
            " https://a.b",
        ] {
            assert!(BaseUrl::from_text(bad).is_none(), "{bad}");
        }
    }
}
