//! Who may purge and explain.

use std::net::IpAddr;
use std::sync::Arc;

use http::header;
use http::request::Parts;
use http::uri::Authority;

use crate::access::{Caller, CallerBook, ClientCertificate, Role};
use crate::exchange::credentials::{Presented, presented};
use crate::problem::{Code, Problem};

/// The operator who asks; on a loopback listener nobody needs to say who they are.
pub(super) fn operator(
    head: &Parts,
    certificate: Option<&ClientCertificate>,
    callers: &CallerBook,
    loopback: bool,
) -> Result<Option<Arc<Caller>>, Problem> {
    refuse_other_sites(head, loopback)?;
    let caller = match presented(&head.headers) {
        Presented::CallerKey(text) => callers.find(Some(text), certificate),
        Presented::Nothing => callers.find(None, certificate),
        Presented::Unclear => None,
    };
    match caller {
        _ if loopback => Ok(caller),
        None => Err(Problem::authentication_required(certificate.is_some())),
        Some(caller) if caller.role == Role::Operator => Ok(Some(caller)),
        Some(_) => Err(Problem::new(
            Code::OperatorRequired,
            "Only a caller with the role \"operator\" may do this.",
        )),
    }
}

/// Refuses requests that a browser sends on behalf of another site: an operator's browser can reach
/// what the site cannot. A loopback listener is also asked by its own name only, so that no site can
/// make its name mean this address.
pub(super) fn refuse_other_sites(head: &Parts, loopback: bool) -> Result<(), Problem> {
    let refused = || {
        Err(Problem::new(
            Code::OperatorRequired,
            "Web pages of other sites may not ask this.",
        ))
    };
    let host = host_of(head);
    if loopback && host.is_some_and(|host| !names_this_machine(host)) {
        return refused();
    }
    if let Some(site) = head.headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return refused();
    }
    if let Some(origin) = head.headers.get(header::ORIGIN) {
        let origin = origin.to_str().ok().and_then(|o| o.split_once("://"));
        if origin.map(|(_, authority)| authority) != host {
            return refused();
        }
    }
    Ok(())
}

/// The host that is asked: HTTP/2 names it in `:authority`, and the check of framing has seen to it
/// that a `Host` beside it says the same.
fn host_of(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(header::HOST)?.to_str().ok(),
    }
}

fn names_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let literal = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok()
}

/// A form on a web page cannot send this type without the browser asking first.
pub(super) fn is_json(head: &Parts) -> Result<(), Problem> {
    let json = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|text| text.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"));
    if json {
        Ok(())
    } else {
        Err(Problem::new(
            Code::UnsupportedMediaType,
            "Send the purge as application/json.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(pairs: &[(&str, &str)], loopback: bool) -> bool {
        let mut builder = http::Request::get("/");
        for (name, value) in pairs {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        refuse_other_sites(&head, loopback).is_ok()
    }

    #[test]
    fn other_sites_are_refused() {
        let host = ("host", "127.0.0.1:9090");
        assert!(site(&[host], true));
        assert!(site(&[("host", "localhost:9090")], true));
        assert!(site(&[("host", "[::1]:9090")], true));
        assert!(site(&[host, ("origin", "http://127.0.0.1:9090")], true));
        assert!(site(&[host, ("sec-fetch-site", "none")], true));
        assert!(!site(&[host, ("origin", "https://evil.example")], true));
        assert!(!site(&[host, ("origin", "null")], true));
        assert!(!site(&[host, ("sec-fetch-site", "cross-site")], true));
        assert!(!site(&[host, ("sec-fetch-site", "same-site")], true));
        assert!(!site(&[("host", "evil.example:9090")], true));
        assert!(site(&[("host", "gateway.internal:9090")], false));
        // HTTP/2 has no Host.
        let of = |uri: &str| {
            let (head, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
            refuse_other_sites(&head, true).is_ok()
        };
        assert!(of("https://localhost:9090/metrics") && !of("https://evil.example:9090/metrics"));
    }
}
