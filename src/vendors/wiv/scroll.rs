//! The vendor's cursor: works like a password for a result, so it is kept like one.

use std::fmt;

use zeroize::Zeroizing;

/// Longest scroll id taken, in bytes. They are known to be hundreds to thousands of characters
/// long.
pub const SCROLL_BYTES_MAX: usize = 16 << 10;

/// A scroll id. Never printed, wiped on drop, never leaves the gateway but to the vendor.
#[derive(Clone, PartialEq, Eq)]
pub struct ScrollId(Zeroizing<String>);

impl ScrollId {
    /// Creates a scroll id. `None` if the text is empty or longer than `SCROLL_BYTES_MAX`.
    pub fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (1..=SCROLL_BYTES_MAX)
            .contains(&text.len())
            .then_some(Self(text))
    }

    /// Returns the text, for the vendor's request only.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ScrollId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[scroll]")
    }
}
