//! What a caller does right now, and when it was last seen.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use jiff::Timestamp;

/// Of one caller, for as long as the gateway knows it: a reload hands it on. Every request writes
/// here, so it is one piece of memory.
#[derive(Debug, Default)]
pub struct Presence {
    /// Its requests in flight; who admits one adds it, and takes it back at its end.
    pub requests: AtomicUsize,
    /// Its exports that run, likewise.
    pub exports: AtomicUsize,
    /// Seconds since 1970, 0 for never.
    last_used_s: AtomicI64,
}

impl Presence {
    pub(super) fn seen(&self, at: Timestamp) {
        self.last_used_s.store(at.as_second(), Ordering::Relaxed);
    }

    /// When a request was last admitted; `None` if never since the start.
    pub fn last_used(&self) -> Option<Timestamp> {
        match self.last_used_s.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }
}
