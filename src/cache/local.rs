//! Answers in memory. The store keeps and evicts; it never judges freshness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use super::freshness::{HOT_HITS, Judged, Lifetimes, Standing};
use super::key::CacheKey;
use super::near::Near;
use crate::clock::{Duration, Instant};
use crate::domain::Kind;

/// Bytes an entry costs beside its payload: key, counters, moka's own nodes, and what the allocator
/// rounds up. Measured by the part `entries` of `tests/bench/run`.
pub const ENTRY_OVERHEAD_BYTES: u32 = 1024;

/// What a fetch brought.
#[derive(Clone, Debug)]
pub struct Fetched<V> {
    /// The answer.
    pub value: V,
    /// Hash of the vendor's bytes: an equal one only renews the ages.
    pub hash: [u8; 32],
    /// Bytes the value holds.
    pub bytes: usize,
    /// The vendor answered, but not with what was asked for.
    pub negative: bool,
}

/// A remembered answer.
#[derive(Clone, Debug)]
pub struct Entry<V> {
    /// What it answers; compared on every read.
    pub key: CacheKey,
    /// The answer.
    pub value: V,
    hash: [u8; 32],
    bytes: u32,
    /// When the vendor last said so.
    pub born: Instant,
    /// This entry's own share of the jitter.
    pub draw: f64,
    /// A remembered soft failure.
    pub negative: bool,
    /// A soft purge made it stale, whatever its age.
    pub purged: bool,
    hits: Hits,
}

/// How often an answer was served fresh since its birth.
#[derive(Debug, Default)]
struct Hits(AtomicU32);

impl Clone for Hits {
    fn clone(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Ordering::Relaxed)))
    }
}

impl<V> Entry<V> {
    /// Notes that it is served fresh. Says whether it proved hot and is nearly stale, so that it is
    /// worth refreshing ahead of its time.
    pub(super) fn is_due(&self, judged: &Judged) -> bool {
        let before = self.hits.0.fetch_add(1, Ordering::Relaxed);
        before >= HOT_HITS && judged.is_nearly_stale()
    }

    /// Its age against its lifetimes, whatever a purge says.
    pub(super) fn judge(&self, lifetimes: &Lifetimes, now: Instant) -> Judged {
        lifetimes.judge(self.born, self.draw, now)
    }

    /// What it may be used for.
    pub fn standing(&self, lifetimes: &Lifetimes, now: Instant) -> Standing {
        self.standing_of(&self.judge(lifetimes, now))
    }

    pub(super) fn standing_of(&self, judged: &Judged) -> Standing {
        match judged.standing() {
            Standing::Fresh if self.purged => Standing::Stale,
            standing => standing,
        }
    }

    /// Seconds of freshness left; negative once stale.
    pub fn ttl_s(&self, lifetimes: &Lifetimes, now: Instant) -> i64 {
        self.ttl_s_of(&self.judge(lifetimes, now))
    }

    pub(super) fn ttl_s_of(&self, judged: &Judged) -> i64 {
        let ttl_s = judged.ttl_s();
        if self.purged { ttl_s.min(-1) } else { ttl_s }
    }

    /// Since the vendor said so.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}

/// The answers of one kind.
pub struct Local<V> {
    good: Near<CacheKey, Entry<V>>,
    negative: Near<CacheKey, Entry<V>>,
    /// Purges so far, by kind. Held while an answer is kept, so that no purge falls between the look
    /// at the count and the keeping.
    purges: RwLock<[u64; Kind::ALL.len()]>,
}

/// Remembers which purges were over when a fetch began.
#[derive(Clone, Copy, Debug)]
pub struct PurgeMark(u64);

/// Share of the bytes that remembered soft failures may take: they are small and short-lived.
const NEGATIVE_SHARE: u64 = 16;

impl<V: Clone + Send + Sync + 'static> Local<V> {
    /// Holds up to `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        let build = |bytes| Near::new(bytes, |_: &CacheKey, entry: &Arc<Entry<V>>| entry.bytes);
        Self {
            good: build(bytes_max - bytes_max / NEGATIVE_SHARE),
            negative: build(bytes_max / NEGATIVE_SHARE),
            purges: Default::default(),
        }
    }

    /// The good answer, whatever its age.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry<V>>> {
        self.good.get(key).filter(|entry| entry.key == *key)
    }

    /// A soft failure that is remembered still.
    pub fn get_negative(
        &self,
        key: &CacheKey,
        lifetime: Duration,
        now: Instant,
    ) -> Option<Arc<Entry<V>>> {
        self.negative
            .get(key)
            .filter(|entry| entry.key == *key && entry.age(now) < lifetime)
    }

    /// To be taken before a fetch begins.
    pub fn mark(&self, kind: Kind) -> PurgeMark {
        let purges = self.purges.read();
        PurgeMark(purges.get(kind as usize).copied().unwrap_or(0))
    }

    /// Keeps what a fetch brought, unless a purge came in between. A soft failure never replaces a
    /// good answer, and an answer equal to the remembered one only renews its ages.
    ///
    /// Returns the entry and whether it was kept.
    pub fn keep(
        &self,
        key: &CacheKey,
        fetched: Fetched<V>,
        mark: PurgeMark,
        now: Instant,
    ) -> (Arc<Entry<V>>, bool) {
        let before = self.get(key).filter(|entry| entry.hash == fetched.hash);
        let bytes = u32::try_from(fetched.bytes).unwrap_or(u32::MAX);
        let entry = Arc::new(Entry {
            key: key.clone(),
            value: match (&before, fetched.negative) {
                (Some(before), false) => before.value.clone(),
                _ => fetched.value,
            },
            hash: fetched.hash,
            bytes: bytes.saturating_add(ENTRY_OVERHEAD_BYTES),
            born: now,
            draw: fastrand::f64(),
            negative: fetched.negative,
            purged: false,
            hits: Hits::default(),
        });
        let purges = self.purges.read();
        let kept = purges.get(key.subject().kind() as usize) == Some(&mark.0);
        if kept && fetched.negative {
            self.negative.insert(key.clone(), entry.clone());
        } else if kept {
            self.good.insert(key.clone(), entry.clone());
            self.negative.remove(key);
        }
        (entry, kept)
    }

    /// Ends the entries of a kind that `which` names: soft makes them stale, hard removes them.
    /// Returns how many.
    pub fn purge(&self, kind: Kind, soft: bool, which: impl Fn(&CacheKey) -> bool) -> u64 {
        if let Some(purges) = self.purges.write().get_mut(kind as usize) {
            *purges += 1;
        }
        let mut purged = 0;
        for (key, entry) in self.good.iter() {
            if key.subject().kind() != kind || !which(&key) {
                continue;
            }
            purged += 1;
            if soft {
                let stale = Entry {
                    purged: true,
                    ..(*entry).clone()
                };
                self.good.insert((*key).clone(), Arc::new(stale));
            } else {
                self.good.remove(&*key);
            }
        }
        for (key, _) in self.negative.iter() {
            if key.subject().kind() == kind && which(&key) {
                self.negative.remove(&*key);
            }
        }
        purged
    }

    /// (entries, bytes) held right now.
    pub fn size(&self) -> (u64, u64) {
        let (good, negative) = (self.good.size(), self.negative.size());
        (good.0 + negative.0, good.1 + negative.1)
    }
}
