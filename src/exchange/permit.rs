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
pub struct Permit {
    gate: Arc<InFlight>,
    of_caller: Arc<AtomicUsize>,
}

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

    /// A permit for a caller that has `of_caller` requests in flight, or `None` when the limit or the
    /// caller's share is reached. Never waits: a request that cannot be served now is better refused
    /// now.
    pub fn enter(self: &Arc<Self>, of_caller: &Arc<AtomicUsize>) -> Option<Permit> {
        let limit = self.limit.load(Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let own = of_caller.fetch_add(1, Ordering::Relaxed) + 1;
        // Gives both back if it is not given out.
        let permit = Permit {
            gate: self.clone(),
            of_caller: of_caller.clone(),
        };
        let share = (limit.saturating_sub(now) + 1).saturating_mul(TIMES_FREE);
        (now <= limit && own <= share).then_some(permit)
    }

    /// Permits given out and not given back.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.now.fetch_sub(1, Ordering::Relaxed);
        self.of_caller.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Arc<AtomicUsize> {
        Arc::default()
    }

    #[test]
    fn a_permit_comes_back_when_dropped() {
        let (gate, caller) = (InFlight::up_to(1), nobody());
        let first = gate.enter(&caller).unwrap();
        assert!(gate.enter(&caller).is_none());
        assert_eq!((gate.now(), caller.load(Ordering::Relaxed)), (1, 1));
        drop(first);
        assert!(gate.enter(&caller).is_some());
        assert_eq!((gate.now(), caller.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn one_caller_leaves_room_for_another() {
        let (gate, greedy) = (InFlight::up_to(32), nobody());
        let mut held = Vec::new();
        while let Some(permit) = gate.enter(&greedy) {
            held.push(permit);
        }
        assert_eq!(held.len(), 28);
        for _ in 0..4 {
            held.push(gate.enter(&nobody()).unwrap());
        }
        assert!(gate.enter(&nobody()).is_none());
        // Few places have no reserve.
        let (few, one) = (InFlight::up_to(7), nobody());
        for _ in 1..=7 {
            held.push(few.enter(&one).unwrap());
        }
    }

    #[test]
    fn a_lower_limit_lets_those_inside_finish() {
        let (gate, caller) = (InFlight::up_to(2), nobody());
        let inside = (gate.enter(&caller), gate.enter(&caller));
        gate.admit_up_to(1);
        assert!(gate.enter(&caller).is_none());
        drop(inside);
        let one = gate.enter(&caller);
        assert!(one.is_some() && gate.enter(&caller).is_none());
    }
}
