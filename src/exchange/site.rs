//! Decides whether a browser sends a request on behalf of a page of another site.
//!
//! A browser reaches everything that its user reaches. A page of another site must not use that to
//! purge, to explain, or to read without a key. With DNS rebinding, such a page gives its own host
//! name an address of this machine, so that it looks like a page of ours.

use std::fmt;
use std::net::IpAddr;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, header};

/// Maximum length of an origin, in bytes: a scheme, a name of 253 characters, a port.
const ORIGIN_BYTES_MAX: usize = 270;

/// The origin of web pages, `scheme://host` or `scheme://host:port`, as browsers write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl Origin {
    /// Parses an origin in the one spelling that browsers send: in lower case, without the scheme's
    /// default port, without a path. `None` for anything else, `*` and `null` included.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let own_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return None,
        };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]_".contains(&b);
        if text.len() > ORIGIN_BYTES_MAX
            || !authority.bytes().all(plain)
            || authority.ends_with(own_port)
        {
            return None;
        }
        let parsed: Authority = authority.parse().ok()?;
        if !is_host(parsed.host()) {
            return None;
        }
        match authority.strip_prefix(parsed.host())? {
            "" => {}
            port => {
                let number: u16 = port.strip_prefix(':')?.parse().ok()?;
                // Rejects "080".
                (number > 0 && port == format!(":{number}")).then_some(())?;
            }
        }
        HeaderValue::from_str(text).ok().map(Self)
    }

    /// Returns the value of `Origin` and of `Access-Control-Allow-Origin`.
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or(""))
    }
}

/// Returns whether this is a host name in lower case or an IP address. An IPv6 address is in
/// brackets.
pub fn is_host(name: &str) -> bool {
    if let Some(inside) = name.strip_prefix('[') {
        return inside
            .strip_suffix(']')
            .is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    (1..=253).contains(&name.len())
        && name
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(good))
}

/// The host names that a listener accepts as its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnNames {
    /// Every name: the names that a network uses for this machine are unknown.
    Any,
    /// `localhost`, any IP address, and these names. No other site can make one of them mean this
    /// listener.
    Only(Vec<String>),
}

impl OwnNames {
    /// The names of a listener that is reached from this machine only.
    pub const THIS_MACHINE: Self = Self::Only(Vec::new());

    fn have(&self, host: &str) -> bool {
        let Self::Only(more) = self else {
            return true;
        };
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host();
        let literal = name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || literal.parse::<IpAddr>().is_ok()
            || more.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// Returns whether a request may come from a page of another site: its host name is not one of the
/// listener's, or its headers say so. `welcome` returns whether pages of an origin are allowed.
/// Programs that are not browsers send none of these headers, and pass.
pub fn is_from_another_site(
    head: &Parts,
    names: &OwnNames,
    welcome: impl FnOnce(&HeaderValue) -> bool,
) -> bool {
    let host = match head.headers.get(header::HOST) {
        Some(host) => match host.to_str() {
            Ok(host) => Some(host),
            Err(_) => return true,
        },
        None => head.uri.authority().map(Authority::as_str),
    };
    if host.is_some_and(|host| !names.have(host)) {
        return true;
    }
    let mut origins = head.headers.get_all(header::ORIGIN).iter();
    let origin = origins.next();
    if origins.next().is_some() {
        return true;
    }
    if origin.is_some_and(welcome) {
        return false;
    }
    let site = head.headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let Some(origin) = origin else {
        return false;
    };
    let authority = origin.to_str().ok().and_then(|o| o.split_once("://"));
    authority.map(|(_, authority)| authority) != host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(pairs: &[(&str, &str)], names: &OwnNames) -> bool {
        let mut builder = http::Request::get("/");
        for (name, value) in pairs {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        is_from_another_site(&head, names, |origin| origin == "https://welcome.example")
    }

    #[test]
    fn pages_of_other_sites_are_told_from_our_own() {
        let here = &OwnNames::THIS_MACHINE;
        let host = ("host", "127.0.0.1:9180");
        assert!(!foreign(&[host], here));
        assert!(!foreign(&[("host", "LocalHost:9180")], here));
        assert!(!foreign(&[("host", "[::1]:9180")], here));
        assert!(!foreign(&[host, ("origin", "http://127.0.0.1:9180")], here));
        assert!(!foreign(&[host, ("sec-fetch-site", "none")], here));
        assert!(!foreign(&[host, ("sec-fetch-site", "same-origin")], here));
        assert!(foreign(&[host, ("origin", "https://evil.example")], here));
        assert!(foreign(&[host, ("origin", "http://127.0.0.1:8080")], here));
        assert!(foreign(&[host, ("origin", "null")], here));
        assert!(foreign(&[host, ("sec-fetch-site", "cross-site")], here));
        assert!(foreign(&[host, ("sec-fetch-site", "same-site")], here));
        assert!(foreign(&[("host", "evil.example:9180")], here));
        assert!(foreign(&[("host", "localhost.evil.example")], here));
        assert!(foreign(&[("host", "evil@x:1:2")], here));
        let own = ("origin", "http://127.0.0.1:9180");
        assert!(foreign(&[host, own, own], here));
    }

    #[test]
    fn welcome_origins_pass_but_only_under_our_own_name() {
        let here = &OwnNames::THIS_MACHINE;
        let welcome = [
            ("origin", "https://welcome.example"),
            ("sec-fetch-site", "cross-site"),
        ];
        let with = |host| [[("host", host)].as_slice(), &welcome].concat();
        assert!(!foreign(&with("127.0.0.1:8080"), here));
        assert!(foreign(&with("welcome.example:8080"), here));
    }

    #[test]
    fn more_names_may_be_own_ones() {
        let host = ("host", "gateway.internal:9180");
        assert!(!foreign(&[host], &OwnNames::Any));
        assert!(foreign(&[host], &OwnNames::THIS_MACHINE));
        let named = OwnNames::Only(vec!["gateway.internal".to_owned()]);
        assert!(!foreign(&[host], &named));
        assert!(foreign(&[("host", "other.internal:9180")], &named));
    }

    #[test]
    fn origins_have_one_spelling() {
        for good in [
            "http://localhost:3000",
            "https://dash.example",
            "https://dash.example:8443",
            "http://127.0.0.1:5173",
            "http://[::1]:5173",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(Origin::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "dash.example",
            "https://",
            "https://*",
            "https://*.dash.example",
            "https://dash.example/",
            "https://dash.example/app",
            "https://Dash.example",
            "HTTPS://dash.example",
            "https://dash.example:443",
            "http://dash.example:80",
            "https://dash.example:0",
            "https://dash.example:08443",
            "https://dash.example:99999",
            "https://dash.example:",
            "https://user@dash.example",
            "https://dash..example",
            "https://b\u{fc}cher.example",
            "https://[::1",
            "https://[x]",
            "ftp://dash.example",
            "file://",
            "https://a.example, https://b.example",
            "https://a.example https://b.example",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
    }
}
