//! Strong entity tags.

use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use http::HeaderValue;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// Seeds the names of bodies. It is random in each process, so that nobody can prepare two bodies
/// of one name.
static NAME_SEED: LazyLock<u64> =
    LazyLock::new(|| std::collections::hash_map::RandomState::new().hash_one(()));

/// A strong entity tag, ready as a header value: a hash of the body's bytes in quotes.
///
/// The hash is a fast one without a key. Only callers who had one body compare its tag with that of
/// another, and they learn no more than that something has changed. BLAKE3 took 5 of the 75
/// microseconds of a cold search here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag {
    value: HeaderValue,
    digest: [u8; DIGEST_BYTES],
    name: BodyName,
}

/// Bytes of the hash that a tag shows.
const DIGEST_BYTES: usize = 16;

/// The name of the body. Equal names mean equal bodies within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BodyName(u128);

impl Etag {
    /// Makes the tag of these bytes.
    pub fn of(body: &[u8]) -> Self {
        let digest = xxh3_128(body).to_be_bytes();
        Self {
            value: written(&digest, ""),
            digest,
            name: BodyName(xxh3_128_with_seed(body, *NAME_SEED)),
        }
    }

    /// Returns the header's value.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// Returns the name of the body. Equal names mean equal bodies.
    pub(super) fn body_name(&self) -> BodyName {
        self.name
    }

    /// Returns the tag of the same body in a content coding. Other bytes need another tag.
    pub fn of_form(&self, name: &str) -> HeaderValue {
        written(&self.digest, name)
    }

    /// Returns whether `tag`, quotes included, is the tag of this body in the coding of this name.
    pub fn names_form(&self, tag: &[u8], name: &str) -> bool {
        let plain = self.value.as_bytes();
        // A coded tag is the plain tag without its closing quote, then a dash, the coding, and the
        // quote.
        plain
            .strip_suffix(b"\"")
            .and_then(|start| tag.strip_prefix(start))
            .and_then(|rest| rest.strip_prefix(b"-"))
            .and_then(|rest| rest.strip_suffix(b"\""))
            .is_some_and(|rest| rest == name.as_bytes())
    }
}

fn written(digest: &[u8], form: &str) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n & 15)).copied().unwrap_or(b'0');
    let mut text = Vec::with_capacity(3 + 2 * digest.len() + form.len());
    text.push(b'"');
    for byte in digest {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
    }
    if !form.is_empty() {
        text.push(b'-');
        text.extend_from_slice(form.as_bytes());
    }
    text.push(b'"');
    // Quotes, hex digits and our own words are always a valid header value.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_its_own_tag() {
        let tag = Etag::of(b"body");
        let plain = tag.value().to_str().unwrap();
        assert_eq!(plain.len(), 34);
        let gzip = tag.of_form("gzip");
        assert_eq!(
            gzip.to_str().unwrap(),
            format!("{}-gzip\"", plain.strip_suffix('"').unwrap())
        );
        assert!(tag.names_form(gzip.as_bytes(), "gzip"));
        assert!(!tag.names_form(gzip.as_bytes(), "zip"));
        assert!(!tag.names_form(gzip.as_bytes(), "br"));
        assert!(!tag.names_form(plain.as_bytes(), "gzip"));
        assert!(!Etag::of(b"other").names_form(gzip.as_bytes(), "gzip"));
    }
}
