//! Rendered bodies of hot pages, made once and shared.
//!
//! A body is kept from its second reading on: most pages of a long walk are read once, and keeping
//! them would hold every row twice.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

use super::etag::Etag;
use super::local::ENTRY_OVERHEAD_BYTES;
use super::near::Near;
use super::seen::Seen;

/// A body with its entity tag.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The body.
    pub body: Bytes,
    /// Of the body.
    pub etag: Etag,
}

impl Rendered {
    /// Tags a body.
    pub fn new(body: Bytes) -> Self {
        let etag = Etag::of(&body);
        Self { body, etag }
    }
}

/// Rendered bodies by what they were cut from.
pub struct Pages<K> {
    pages: Near<K, Rendered>,
    read: Seen,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Pages<K> {
    /// Holds up to `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            pages: Near::new(bytes_max, |_: &K, page: &Arc<Rendered>| {
                u32::try_from(page.body.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(ENTRY_OVERHEAD_BYTES)
            }),
            read: Seen::default(),
        }
    }

    /// The kept body, if any.
    pub fn get(&self, key: &K) -> Option<Rendered> {
        self.pages.get(key).map(|page| (*page).clone())
    }

    /// Notes a reading that had to render; keeps the body if it was not the first.
    pub fn note_reading(&self, key: &K, rendered: &Rendered) {
        if self.read.again(key) {
            self.pages.insert(key.clone(), Arc::new(rendered.clone()));
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.pages.clear();
    }

    /// (entries, bytes) held right now.
    pub fn size(&self) -> (u64, u64) {
        self.pages.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_from_its_second_reading_on() {
        let pages = Pages::new(1 << 20);
        let page = Rendered::new(Bytes::from_static(b"{}"));
        assert!(pages.get(&1).is_none());
        pages.note_reading(&1, &page);
        assert!(pages.get(&1).is_none());
        pages.note_reading(&1, &page);
        assert_eq!(pages.get(&1).unwrap().body, page.body);
    }
}
