//! How many requests are in flight, and the right to be one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many times the free places one caller may have: alone seven of eight, two of them seven of
/// fifteen each. So one that sends a thousand slow questions leaves room for another's, and fewer than
/// eight places have no reserve.
const TIMES_FREE: usize = 7;

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

    /// Whether a caller may have so many requests in flight, the one that holds a permit now among
    /// them.
    pub fn has_share_for(&self, of_caller: usize) -> bool {
        let free = self
            .limit
            .load(Ordering::Relaxed)
            .saturating_sub(self.now());
        of_caller <= (free + 1).saturating_mul(TIMES_FREE)
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

    #[test]
    fn one_caller_leaves_room_for_another() {
        let gate = InFlight::up_to(32);
        let mut held = Vec::new();
        while let Some(permit) = gate.enter() {
            if !gate.has_share_for(held.len() + 1) {
                break;
            }
            held.push(permit);
        }
        assert_eq!(held.len(), 28);
        for _ in 0..4 {
            held.push(gate.enter().unwrap());
            assert!(gate.has_share_for(1));
        }
        assert!(gate.enter().is_none());
        // Few places have no reserve.
        let few = InFlight::up_to(7);
        for n in 1..=7 {
            held.push(few.enter().unwrap());
            assert!(few.has_share_for(n));
        }
    }

    #[test]
    fn a_lower_limit_lets_those_inside_finish() {
        let gate = InFlight::up_to(2);
        let inside = (gate.enter(), gate.enter());
        gate.admit_up_to(1);
        assert!(gate.enter().is_none());
        drop(inside);
        let one = gate.enter();
        assert!(one.is_some() && gate.enter().is_none());
    }
}
