//! Searches that were understood before, found by the very bytes they were asked with.
//!
//! A dashboard asks the same few searches over and over, byte for byte. Reading one strictly and
//! computing its identity costs more than answering it from memory. Only what was understood is
//! remembered, and nothing of who asked: authentication, audience and freshness are judged anew for
//! every request. Another spelling is read in full and comes to the same identity.

use std::sync::Arc;

use crate::cache::{Near, Seen};
use crate::reads::cases::Search;

/// Longest question remembered, query string and body together; a search body is under 1 KiB.
const QUESTION_BYTES_MAX: usize = 2 * 1024;
/// Bytes of all questions remembered, by estimate: some thousand searches.
const BYTES_MAX: u64 = 8 << 20;
/// What a remembered search costs beside its bytes.
const OVERHEAD_BYTES: usize = 1024;
/// A search read from so many bytes may hold so many times as many.
const READ_FACTOR: usize = 8;

/// See above.
pub struct Recall {
    searches: Near<Spelling, Search>,
    asked: Seen,
}

/// The bytes that a search was asked with: query string and body, kept apart by the first one's
/// length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Spelling(Vec<u8>);

impl Spelling {
    /// `None` if they are too long to be remembered.
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

impl Recall {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self {
            searches: Near::new(BYTES_MAX, |question: &Spelling, _| {
                let bytes = OVERHEAD_BYTES + question.0.len() * READ_FACTOR;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }),
            asked: Seen::default(),
        }
    }

    /// Returns the search that was asked in this spelling.
    pub fn get(&self, spelling: &Spelling) -> Option<Arc<Search>> {
        self.searches.get(spelling)
    }

    /// Remembers a search that is asked a second time, unless it goes on from a page token: a walk asks
    /// each of those once.
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
