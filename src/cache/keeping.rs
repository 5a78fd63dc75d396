//! How answers of one kind outlive the process: what of them is kept, and how they come back.

use std::sync::Arc;

use bytes::Bytes;

use super::freshness::{Lifetimes, Standing};
use super::key::CacheKey;
use super::local::{Entry, Fetched, Local};
use crate::clock::{Clock, Duration};
use crate::store::{KeptAnswer, Store};

/// Makes the bytes to keep of an answer.
pub type WriteAnswer<V> = fn(&V) -> Bytes;
/// Makes an answer of kept bytes; `None` where they make no sense.
pub type ReadAnswer<V> = Box<dyn Fn(Bytes) -> Option<Fetched<V>> + Send + Sync>;

/// The answers of one kind in the store.
pub struct Keeping<V> {
    pub(super) store: Store,
    write: WriteAnswer<V>,
    read: ReadAnswer<V>,
}

impl<V: Clone + Send + Sync + 'static> Keeping<V> {
    /// Creates the handle of stored answers. `None` if nothing is stored.
    pub fn new(store: &Store, write: WriteAnswer<V>, read: ReadAnswer<V>) -> Option<Arc<Self>> {
        let store = store.clone();
        store.is_on().then(|| Arc::new(Self { store, write, read }))
    }

    /// Returns whether other gateways share the store.
    pub(super) fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Puts the kept answer into memory, with the age that it has by now. An answer that no
    /// lifetime allows to use stays where it is.
    pub(super) async fn recall(
        &self,
        local: &Local<V>,
        key: &CacheKey,
        lives: (Lifetimes, Duration),
        clock: &Clock,
    ) {
        let kind = key.subject().kind();
        if let Some(kept) = self.store.find_answer(kind, key.fingerprint()).await {
            self.take(local, key, kept, lives, clock);
        }
    }

    /// Puts a kept answer into memory, if a lifetime allows to use it. Returns what memory
    /// holds then.
    pub(super) fn take(
        &self,
        local: &Local<V>,
        key: &CacheKey,
        kept: KeptAnswer,
        lives: (Lifetimes, Duration),
        clock: &Clock,
    ) -> Option<Arc<Entry<V>>> {
        let KeptAnswer {
            content,
            negative,
            born,
            draw,
            begun,
        } = kept;
        let (lifetimes, negative_lifetime) = lives;
        let now = clock.now();
        // An unknown age: stale, and never fresh.
        let born = clock
            .instant_of(&born)
            .or_else(|| now.checked_sub(lifetimes.fresh))?;
        let usable = match negative {
            true => now.saturating_duration_since(born) < negative_lifetime,
            false => lifetimes.judge(born, draw, now).standing() != Standing::Expired,
        };
        if !usable {
            return None;
        }
        match (self.read)(content) {
            Some(fetched) if fetched.negative == negative => {
                let entry = local.put_back(key, fetched, begun, born, draw);
                if entry.is_none() {
                    self.store.reject_purged();
                }
                entry
            }
            Some(_) | None => {
                self.store.reject_content(key.subject().kind());
                None
            }
        }
    }

    /// Stores the result of a fetch that began after `begun` purges.
    pub(super) fn keep(&self, entry: &Entry<V>, begun: u64, clock: &Clock) {
        let answer = self.kept_answer(entry, begun, clock);
        self.store.keep_answer(entry.key.fingerprint(), answer);
    }

    /// Returns the answer in the form that is stored.
    pub(super) fn kept_answer(&self, entry: &Entry<V>, begun: u64, clock: &Clock) -> KeptAnswer {
        KeptAnswer {
            content: (self.write)(&entry.value),
            negative: entry.negative,
            born: clock.stamp_of(entry.born),
            draw: entry.draw,
            begun,
        }
    }
}
