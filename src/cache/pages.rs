//! Rendered bodies of hot pages, rendered once and shared.
//!
//! A body is kept from its second reading on. Most pages of a long walk are read once, and keeping
//! them would store every row twice.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

use super::etag::Etag;
use super::filed::FiledBodies;
use super::local::ENTRY_OVERHEAD_BYTES;
use super::near::Near;
use super::seen::Seen;
use crate::metrics::StoreUsage;

/// A body with its entity tag.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The body.
    pub body: Bytes,
    /// The tag of the body.
    pub etag: Etag,
}

impl Rendered {
    /// Computes the tag of a body.
    pub fn new(body: Bytes) -> Self {
        let etag = Etag::of(&body);
        Self { body, etag }
    }
}

/// Rendered bodies by snapshot, view, offset and size.
pub struct Pages<K> {
    pages: Near<K, Kept>,
    read: Seen,
    files: FiledBodies,
}

struct Kept {
    page: Rendered,
    /// Its charge in bytes.
    bytes: usize,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Pages<K> {
    /// Makes an empty store of `bytes_max` bytes. Large bodies are also put into `files`.
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

    /// Returns the kept body, if there is one.
    pub fn get(&self, key: &K) -> Option<Rendered> {
        self.pages.get(key).map(|kept| kept.page.clone())
    }

    /// Records a reading that had to render. Keeps the body from the second reading on.
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

    /// Removes everything.
    pub fn clear(&self) {
        self.pages.clear();
    }

    /// Returns how full it is.
    pub fn usage(&self) -> StoreUsage {
        self.pages.usage()
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
