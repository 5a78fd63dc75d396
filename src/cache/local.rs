//! Answers in memory. This store keeps and evicts; it never judges freshness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::freshness::{HOT_HITS, JudgedAge, Lifetimes, Standing};
use super::key::CacheKey;
use super::near::Near;
use crate::clock::{Duration, Instant};
use crate::metrics::StoreUsage;
use crate::store::{PurgeDepth, Purges};

/// Bytes of an entry beside its payload: key, counters, moka's nodes, and the allocator's rounding.
/// Measured by the part `entries` of `tests/bench/run`.
pub const ENTRY_OVERHEAD_BYTES: u32 = 1024;

/// The result of a fetch.
#[derive(Clone, Debug)]
pub struct Fetched<V> {
    /// The answer.
    pub value: V,
    /// Hash of the vendor's bytes. An answer with an equal hash only renews the ages.
    pub hash: [u8; 32],
    /// Size of the value in bytes.
    pub bytes: usize,
    /// The vendor answered 200, but without the data that was asked for.
    pub negative: bool,
}

/// A remembered answer.
#[derive(Clone, Debug)]
pub struct Entry<V> {
    /// The question. It is compared on every read.
    pub key: CacheKey,
    /// The answer.
    pub value: V,
    hash: [u8; 32],
    bytes: u32,
    /// When the vendor last gave this answer.
    pub born: Instant,
    /// The entry's share of the jitter, from 0 to 1.
    pub draw: f64,
    /// The entry is a soft failure.
    pub negative: bool,
    /// A soft purge made the entry stale, whatever its age.
    pub purged: bool,
    hits: Hits,
}

/// Counts how often an answer was served fresh since its birth.
#[derive(Debug, Default)]
struct Hits(AtomicU32);

impl Clone for Hits {
    fn clone(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Ordering::Relaxed)))
    }
}

impl<V> Entry<V> {
    /// Records a fresh use. Returns whether the entry is hot and nearly stale, so that a refresh
    /// ahead of time is worth a vendor call.
    pub(super) fn is_due(&self, judged: &JudgedAge) -> bool {
        let before = self.hits.0.fetch_add(1, Ordering::Relaxed);
        before >= HOT_HITS && judged.is_nearly_stale()
    }

    /// Returns the entry's age against its lifetimes, without regard to purges.
    pub(super) fn judge(&self, lifetimes: &Lifetimes, now: Instant) -> JudgedAge {
        lifetimes.judge(self.born, self.draw, now)
    }

    /// Returns how the entry may be used.
    pub fn standing(&self, lifetimes: &Lifetimes, now: Instant) -> Standing {
        self.standing_of(&self.judge(lifetimes, now))
    }

    pub(super) fn standing_of(&self, judged: &JudgedAge) -> Standing {
        match judged.standing() {
            Standing::Fresh if self.purged => Standing::Stale,
            standing => standing,
        }
    }

    /// Returns the seconds of freshness left. Negative once the entry is stale.
    pub fn ttl_s(&self, lifetimes: &Lifetimes, now: Instant) -> i64 {
        self.ttl_s_of(&self.judge(lifetimes, now))
    }

    pub(super) fn ttl_s_of(&self, judged: &JudgedAge) -> i64 {
        let ttl_s = judged.ttl_s();
        if self.purged { ttl_s.min(-1) } else { ttl_s }
    }

    /// Returns the time since the vendor gave the answer.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}

/// The answers of one kind.
pub struct Local<V> {
    good: Near<CacheKey, Entry<V>>,
    negative: Near<CacheKey, Entry<V>>,
    /// Held while an answer is stored, so that no purge can happen between the judgement and the
    /// storing.
    purges: Arc<Purges>,
}

/// Share of the bytes that soft failures may use. They are small and short-lived.
const NEGATIVE_SHARE: u64 = 16;

impl<V: Clone + Send + Sync + 'static> Local<V> {
    /// Holds up to `bytes_max` bytes. `purges` counts the purges of everything that is remembered.
    pub fn new(bytes_max: u64, purges: Arc<Purges>) -> Self {
        let build = |bytes| Near::new(bytes, |_: &CacheKey, entry: &Arc<Entry<V>>| entry.bytes);
        Self {
            good: build(bytes_max - bytes_max / NEGATIVE_SHARE),
            negative: build(bytes_max / NEGATIVE_SHARE),
            purges,
        }
    }

    /// Returns the good answer, whatever its age.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry<V>>> {
        self.good.get(key).filter(|entry| entry.key == *key)
    }

    /// Returns the soft failure, if one is stored and not expired.
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

    /// Returns the number of the last purge, which a fetch must take before it begins.
    pub fn mark(&self) -> u64 {
        self.purges.number()
    }

    /// Stores the result of a fetch, unless a purge happened after the fetch began. A soft failure
    /// never replaces a good answer. An answer equal to the stored one only renews its ages.
    ///
    /// Returns the entry and whether it was stored.
    pub fn keep(
        &self,
        key: &CacheKey,
        fetched: Fetched<V>,
        mark: u64,
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
        let purges = self.purges.hold();
        let kept = purges.covers(key.subject().purged_as(), mark).is_none();
        if kept && fetched.negative {
            self.negative.insert(key.clone(), entry.clone());
        } else if kept {
            self.good.insert(key.clone(), entry.clone());
            self.negative.remove(key);
        }
        (entry, kept)
    }

    /// Puts back an answer that the store held, fetched after purge number `begun`. Returns the
    /// entry, or `None` if a purge ended it: a hard one ends every answer, a soft one ends soft
    /// failures and makes good answers stale. A newer answer in memory stays, and is returned.
    pub(super) fn put_back(
        &self,
        key: &CacheKey,
        fetched: Fetched<V>,
        begun: u64,
        born: Instant,
        draw: f64,
    ) -> Option<Arc<Entry<V>>> {
        let bytes = u32::try_from(fetched.bytes).unwrap_or(u32::MAX);
        let purges = self.purges.hold();
        let covered = purges.covers(key.subject().purged_as(), begun);
        let ended = match covered {
            None => false,
            Some(PurgeDepth::Soft) => fetched.negative,
            Some(PurgeDepth::Hard) => true,
        };
        if ended {
            return None;
        }
        let held = match fetched.negative {
            true => &self.negative,
            false => &self.good,
        };
        let before = held.get(key).filter(|entry| entry.key == *key);
        if let Some(newer) = before.as_ref().filter(|entry| entry.born >= born) {
            return Some(newer.clone());
        }
        let same = before.filter(|entry| entry.hash == fetched.hash);
        let entry = Arc::new(Entry {
            key: key.clone(),
            value: same.map_or(fetched.value, |entry| entry.value.clone()),
            hash: fetched.hash,
            bytes: bytes.saturating_add(ENTRY_OVERHEAD_BYTES),
            born,
            draw,
            negative: fetched.negative,
            purged: covered.is_some(),
            hits: Hits::default(),
        });
        held.insert(key.clone(), entry.clone());
        let failed = self.negative.get(key).filter(|_| !entry.negative);
        if failed.is_some_and(|failed| failed.born < born) {
            self.negative.remove(key);
        }
        Some(entry)
    }

    /// Ends the entries for which `which` is true, after the purge was counted. A soft purge makes
    /// them stale, a hard purge removes them. Returns their number.
    pub fn purge(&self, soft: bool, which: &dyn Fn(&CacheKey) -> bool) -> u64 {
        let mut purged = 0;
        for (key, entry) in self.good.iter() {
            if !which(&key) {
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
            if which(&key) {
                self.negative.remove(&*key);
            }
        }
        purged
    }

    /// Returns how full it is, remembered soft failures included.
    pub fn usage(&self) -> StoreUsage {
        self.good.usage() + self.negative.usage()
    }
}
