//! The caller key that a connection sent last, and whose it was.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::callers::{BookId, Caller};

/// Remembers one known caller key of a connection. A caller sends the same key with each request,
/// so comparing it with the last one saves hashing it and looking it up.
///
/// The key is wiped when the connection ends or sends another one. It counts only for the book that
/// found its caller. A reload makes a new book, so the key is looked up again.
#[derive(Default)]
pub struct LastKey(Mutex<Option<KnownKey>>);

struct KnownKey {
    key: Zeroizing<Box<[u8]>>,
    book: BookId,
    caller: Arc<Caller>,
}

impl fmt::Debug for LastKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastKey")
    }
}

impl LastKey {
    /// Returns the caller that `book` found by this key before. Compares in constant time.
    pub(super) fn caller(&self, presented: &[u8], book: BookId) -> Option<Arc<Caller>> {
        let last = self.0.lock();
        let known = last.as_ref().filter(|known| known.book == book)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(&known.key, presented).ok()?;
        Some(known.caller.clone())
    }

    /// Remembers that `book` found `caller` by this key.
    pub(super) fn remember(&self, presented: &[u8], book: BookId, caller: &Arc<Caller>) {
        *self.0.lock() = Some(KnownKey {
            key: Zeroizing::new(presented.into()),
            book,
            caller: caller.clone(),
        });
    }
}
