//! Finds out in one pass which headers a request has. Most requests have few headers, and each
//! layer that searched for its own would mostly search in vain.

use http::HeaderMap;

/// A header that some layer looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mention {
    /// `Authorization`
    Authorization,
    /// `X-API-Key`
    XApiKey,
    /// `traceparent`
    Traceparent,
    /// `Accept-Encoding`
    AcceptEncoding,
    /// `Cache-Control`
    CacheControl,
    /// `Pragma`
    Pragma,
    /// `If-Match`
    IfMatch,
    /// `If-None-Match`
    IfNoneMatch,
    /// `Transfer-Encoding`
    TransferEncoding,
}

impl Mention {
    const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Returns the variant for a header name in lower case.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "authorization" => Self::Authorization,
            "x-api-key" => Self::XApiKey,
            "traceparent" => Self::Traceparent,
            "accept-encoding" => Self::AcceptEncoding,
            "cache-control" => Self::CacheControl,
            "pragma" => Self::Pragma,
            "if-match" => Self::IfMatch,
            "if-none-match" => Self::IfNoneMatch,
            "transfer-encoding" => Self::TransferEncoding,
            _ => return None,
        })
    }
}

/// Which of the headers in [`Mention`] a request has, and figures about all its headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mentions {
    bits: u16,
    /// Number of `Host` headers.
    pub hosts: usize,
    /// Bytes of the names and values of all headers together.
    pub bytes: usize,
    /// Whether a header name contains an underscore.
    pub underscore: bool,
}

impl Mentions {
    /// Reads the headers once.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            this.bytes += name.len() + value.len();
            match Mention::of(name) {
                Some(mention) => this.bits |= mention.bit(),
                None if name == "host" => this.hosts += 1,
                None => this.underscore |= name.bytes().any(|b| b == b'_'),
            }
        }
        this
    }

    /// Returns whether the header is there, once or more often.
    pub fn has(&self, header: Mention) -> bool {
        self.bits & header.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    #[test]
    fn what_is_there_is_told_and_nothing_else() {
        let all = [
            ("authorization", Mention::Authorization),
            ("X-API-Key", Mention::XApiKey),
            ("traceparent", Mention::Traceparent),
            ("accept-encoding", Mention::AcceptEncoding),
            ("Cache-Control", Mention::CacheControl),
            ("pragma", Mention::Pragma),
            ("if-match", Mention::IfMatch),
            ("if-none-match", Mention::IfNoneMatch),
            ("transfer-encoding", Mention::TransferEncoding),
        ];
        for (name, mention) in all {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("h"));
            headers.append(name.clone(), HeaderValue::from_static("v"));
            headers.append(name.clone(), HeaderValue::from_static("w"));
            let found = Mentions::of(&headers);
            for (_, other) in all {
                assert_eq!(found.has(other), other == mention, "{name}: {other:?}");
            }
            assert_eq!(found.hosts, 1);
            assert_eq!(found.bytes, 5 + 2 * (name.as_str().len() + 1));
            assert!(!found.underscore);
        }
    }

    #[test]
    fn hosts_are_counted_and_underscores_seen() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("a"));
        headers.append(header::HOST, HeaderValue::from_static("b"));
        headers.append("x_api_key", HeaderValue::from_static(""));
        let found = Mentions::of(&headers);
        assert_eq!(found.hosts, 2);
        assert!(found.underscore && !found.has(Mention::XApiKey));
    }
}
