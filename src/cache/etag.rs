//! Strong entity tags.

use http::HeaderValue;

/// A strong entity tag, ready as a header value: a hash of the body's bytes in quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(HeaderValue);

impl Etag {
    /// Of these bytes.
    pub fn of(body: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |n: u8| DIGITS.get(usize::from(n & 15)).copied().unwrap_or(b'0');
        let hash = blake3::hash(body);
        let mut text = Vec::with_capacity(34);
        text.push(b'"');
        for byte in hash.as_bytes().iter().take(16) {
            text.push(digit(byte >> 4));
            text.push(digit(*byte));
        }
        text.push(b'"');
        // Quotes and hex digits always make a value.
        Self(HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("\"\"")))
    }

    /// The header's value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}
