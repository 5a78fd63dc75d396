//! Remembers parsed searches by the exact bytes of their requests.
//!
//! A dashboard sends the same few searches again and again, byte for byte. Parsing one strictly and
//! computing its identity costs more than answering it from memory. Only the parsed search is
//! remembered, and nothing about its caller: authentication, audience and freshness are judged
//! for every request. Another spelling of the same search is parsed in full and gets the same
//! identity.

use std::sync::Arc;

use crate::cache::{Near, Seen};
use crate::reads::cases::Search;

/// Maximum length of a remembered request, query string and body together. A search body is under 1
/// KiB.
const QUESTION_BYTES_MAX: usize = 2 * 1024;
/// Maximum of the estimated bytes of all remembered searches: some thousand searches.
const BYTES_MAX: u64 = 8 << 20;
/// Memory of a remembered search besides its bytes.
const OVERHEAD_BYTES: usize = 1024;
/// Estimate: a parsed search takes this many times the bytes it was parsed from.
const READ_FACTOR: usize = 8;

/// Parsed searches, found by their [`Spelling`].
pub struct ParsedSearches {
    searches: Near<Spelling, Search>,
    asked: Seen,
}

/// The bytes of a search request: query string and body. The length of the first one comes before
/// them, so that no two requests have the same spelling.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Spelling(Vec<u8>);

impl Spelling {
    /// Creates a spelling. `None` if the request is too long to be remembered.
    pub fn of(query: Option<&str>, body: &[u8]) -> Option<Self> {
        let query = query.unwrap_or("").as_bytes();
        let query_len = u16::try_from(query.len()).ok()?;
        let len = query.len() + body.len();
        if len > QUESTION_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(2 + len);
        bytes.extend_from_slice(&query_len.to_le_bytes());
        bytes.extend_from_slice(query);
        bytes.extend_from_slice(body);
        Some(Self(bytes))
    }
}

impl ParsedSearches {
    /// Creates an empty memory.
    pub fn new() -> Self {
        Self {
            searches: Near::new(BYTES_MAX, |question: &Spelling, _| {
                let bytes = OVERHEAD_BYTES + question.0.len() * READ_FACTOR;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }),
            asked: Seen::default(),
        }
    }

    /// Returns the search that was sent in this spelling.
    pub fn get(&self, spelling: &Spelling) -> Option<Arc<Search>> {
        self.searches.get(spelling)
    }

    /// Remembers a search that is sent a second time. Continuations from a page token are not
    /// remembered, because a walk sends each of them once.
    pub fn keep(&self, spelling: Spelling, search: &Arc<Search>) {
        if !search.is_continuation() && self.asked.again(&spelling) {
            self.searches.insert(spelling, search.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_questions_have_one_spelling() {
        let of = |query, body: &str| Spelling::of(query, body.as_bytes()).map(|s| s.0);
        assert_eq!(of(None, "{}"), of(Some(""), "{}"));
        assert_ne!(of(Some("customer_id=a"), "{}"), of(None, "customer_id=a{}"));
        assert_ne!(of(Some("a"), "b{}"), of(Some("ab"), "{}"));
        assert_eq!(of(None, &" ".repeat(QUESTION_BYTES_MAX + 1)), None);
    }
}
