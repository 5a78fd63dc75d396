//! Rendered bodies of hot pages, made once and shared.
//!
//! A body is kept from its second reading on: most pages of a long walk are read once, and keeping
//! them would hold every row twice.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

use super::etag::Etag;
use super::filed::FiledBodies;
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
    pages: Near<K, Kept>,
    read: Seen,
    files: FiledBodies,
}

struct Kept {
    page: Rendered,
    /// What it is charged.
    bytes: usize,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Pages<K> {
    /// Holds up to `bytes_max` bytes, large bodies also in `files`.
    pub fn new(bytes_max: u64, files: FiledBodies) -> Self {
        Self {
            pages: Near::new(bytes_max, |_: &K, kept: &Arc<Kept>| {
                u32::try_from(kept.bytes)
                    .unwrap_or(u32::MAX)
                    .saturating_add(ENTRY_OVERHEAD_BYTES)
            }),
            read: Seen::default(),
            files,
        }
    }

    /// The kept body, if any.
    pub fn get(&self, key: &K) -> Option<Rendered> {
        self.pages.get(key).map(|kept| kept.page.clone())
    }

    /// Notes a reading that had to render; keeps the body if it was not the first.
    pub fn note_reading(&self, key: &K, rendered: &Rendered) {
        if self.read.again(key) {
            let mut page = rendered.clone();
            let mut bytes = page.body.len();
            if let Some(filed) = self.files.file(&page.body) {
                page.body = filed;
                bytes *= 2;
            }
            self.pages
                .insert(key.clone(), Arc::new(Kept { page, bytes }));
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
        let pages = Pages::new(1 << 20, FiledBodies::default());
        let page = Rendered::new(Bytes::from_static(b"{}"));
        assert!(pages.get(&1).is_none());
        pages.note_reading(&1, &page);
        assert!(pages.get(&1).is_none());
        pages.note_reading(&1, &page);
        assert_eq!(pages.get(&1).unwrap().body, page.body);
    }
}
