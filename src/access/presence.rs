//! A caller's requests in flight, and the time of its last request.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;

/// Number of answered targets of one caller that are distinguished at once.
pub const TARGETS_KNOWN: usize = 128;

/// The presence of one caller. A reload passes it on to the caller's successor. Every request
/// writes here, so all of it is in one cache line.
#[derive(Debug, Default)]
pub struct Presence {
    /// Its requests in flight. `admit` adds one and removes it at the request's end.
    pub requests: AtomicUsize,
    /// Its running exports, counted the same way.
    pub exports: AtomicUsize,
    /// Its running questions for changes, counted the same way.
    pub followers: AtomicUsize,
    /// Seconds since 1970, 0 for never.
    last_used_s: AtomicI64,
    /// Hashes of its answers, each in the place that the hash's bits select. 0 for none.
    targets: KnownTargets,
}

/// Boxed, so that the other members fit into one cache line.
#[derive(Debug)]
struct KnownTargets(Box<[AtomicU64; TARGETS_KNOWN]>);

impl Default for KnownTargets {
    fn default() -> Self {
        Self(Box::new([const { AtomicU64::new(0) }; TARGETS_KNOWN]))
    }
}

impl Presence {
    pub(super) fn seen(&self, at: Timestamp) {
        self.last_used_s.store(at.as_second(), Ordering::Relaxed);
    }

    /// Returns the place for the hash of an answer: the caller is known to have it if it holds this
    /// hash.
    pub fn knows_target(&self, hash: u64) -> &AtomicU64 {
        let places = &*self.targets.0;
        let [first, ..] = places;
        let at = usize::try_from(hash >> 57).unwrap_or(0);
        places.get(at).unwrap_or(first)
    }

    /// Removes this hash.
    pub fn forget_target(&self, hash: u64) {
        let place = self.knows_target(hash);
        // A place that holds another hash by now keeps it.
        let _ = place.compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Removes all hashes.
    pub fn forget_targets(&self) {
        for place in self.targets.0.iter() {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Returns when a request was last admitted. `None` if none was since the start.
    pub fn last_used(&self) -> Option<Timestamp> {
        match self.last_used_s.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }
}
