//! How many requests are in flight, and the right to be one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts requests in flight against a limit.
#[derive(Debug)]
pub struct InFlight {
    limit: AtomicUsize,
    now: AtomicUsize,
}

/// The right to be in flight; given back when dropped, which is when the answer's body ends.
#[derive(Debug)]
pub struct Permit(Arc<InFlight>);

impl InFlight {
    /// Admits up to `limit` requests at once.
    pub fn up_to(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            now: AtomicUsize::new(0),
        })
    }

    /// Admits up to `limit` from now on; who is in stays in.
    pub fn admit_up_to(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A permit, or `None` when the limit is reached. Never waits: a request that cannot be served
    /// now is better refused now.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        if self.now.fetch_add(1, Ordering::Relaxed) < self.limit.load(Ordering::Relaxed) {
            Some(Permit(self.clone()))
        } else {
            self.now.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }

    /// Permits given out and not given back.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_comes_back_when_dropped() {
        let gate = InFlight::up_to(1);
        let first = gate.enter().unwrap();
        assert!(gate.enter().is_none());
        assert_eq!(gate.now(), 1);
        drop(first);
        assert!(gate.enter().is_some());
        assert_eq!(gate.now(), 0);
    }
}
