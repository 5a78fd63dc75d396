//! A caller's requests in flight, and the time of its last request.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use jiff::Timestamp;

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
}

impl Presence {
    pub(super) fn seen(&self, at: Timestamp) {
        self.last_used_s.store(at.as_second(), Ordering::Relaxed);
    }

    /// When a request was last admitted. `None` if none was since the start.
    pub fn last_used(&self) -> Option<Timestamp> {
        match self.last_used_s.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }
}
