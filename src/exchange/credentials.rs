//! Reads the caller key from a request.

use http::{HeaderMap, header};

use super::mentions::{Mention, Mentions};

/// The credential in a request's headers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// The request has no credential.
    Nothing,
    /// The request has this caller key.
    CallerKey(&'a [u8]),
    /// Two keys that differ, a repeated header, or another scheme than Bearer. This is nobody's
    /// credential.
    Unclear,
}

/// Maximum length of a caller key that is hashed, in bytes.
const CALLER_KEY_BYTES_MAX: usize = 512;

/// Reads `Authorization: Bearer` and `X-API-Key`. Both may be there if they hold the same key.
pub fn presented(headers: &HeaderMap) -> Presented<'_> {
    presented_of(headers, &Mentions::of(headers))
}

/// Reads the same headers, if it is already known which are there.
pub fn presented_of<'a>(headers: &'a HeaderMap, mentions: &Mentions) -> Presented<'a> {
    let find = |mention, name| match mentions.has(mention) {
        true => only(headers, name),
        false => Ok(None),
    };
    let Ok(authorization) = find(Mention::Authorization, &header::AUTHORIZATION) else {
        return Presented::Unclear;
    };
    let Ok(plain) = find(Mention::XApiKey, &X_API_KEY) else {
        return Presented::Unclear;
    };
    let bearer = match authorization {
        None => None,
        Some(value) => match bearer(value) {
            Some(text) => Some(text),
            None => return Presented::Unclear,
        },
    };
    match (bearer, plain) {
        (None, None) => Presented::Nothing,
        (Some(text), None) | (None, Some(text)) => sized(text),
        (Some(one), Some(other)) if one == other => sized(one),
        (Some(_), Some(_)) => Presented::Unclear,
    }
}

/// Carries a caller key.
pub static X_API_KEY: header::HeaderName = header::HeaderName::from_static("x-api-key");

fn only<'a>(
    headers: &'a HeaderMap,
    name: &header::HeaderName,
) -> Result<Option<&'a [u8]>, TooMany> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        Some(_) => Err(TooMany),
        None => Ok(first.map(http::HeaderValue::as_bytes)),
    }
}

struct TooMany;

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii_start())
}

fn sized(text: &[u8]) -> Presented<'_> {
    if text.is_empty() || text.len() > CALLER_KEY_BYTES_MAX {
        Presented::Unclear
    } else {
        Presented::CallerKey(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        match presented(&headers) {
            Presented::Nothing => Some(Vec::new()),
            Presented::CallerKey(text) => Some(text.to_vec()),
            Presented::Unclear => None,
        }
    }

    #[test]
    fn either_header_or_both_alike() {
        let auth = ("authorization", "Bearer k1");
        assert_eq!(of(&[]), Some(vec![]));
        assert_eq!(of(&[auth]), Some(b"k1".to_vec()));
        assert_eq!(of(&[("authorization", "bEARER  k1")]), Some(b"k1".to_vec()));
        assert_eq!(of(&[("x-api-key", "k1")]), Some(b"k1".to_vec()));
        assert_eq!(of(&[auth, ("x-api-key", "k1")]), Some(b"k1".to_vec()));
    }

    #[test]
    fn anything_unclear_is_nobody() {
        let auth = ("authorization", "Bearer k1");
        for bad in [
            vec![auth, ("x-api-key", "k2")],
            vec![auth, auth],
            vec![("x-api-key", "k1"), ("x-api-key", "k1")],
            vec![("authorization", "Basic k1")],
            vec![("authorization", "Bearer")],
            vec![("authorization", "Bearer ")],
            vec![("x-api-key", "")],
            vec![("authorization", "Basic k1"), ("x-api-key", "k1")],
        ] {
            assert_eq!(of(&bad), None, "{bad:?}");
        }
    }
}
