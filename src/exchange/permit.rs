//! Limits the requests in flight. A permit is the right to be one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::access::Presence;
use crate::domain::Shortage;

/// A caller may hold at most this many times the number of free places. A single caller gets seven
/// of eight places, two callers seven of fifteen each. So a caller with a thousand slow requests
/// leaves room for others. With fewer than eight places, none is reserved.
const TIMES_FREE: usize = 7;

/// Counts the requests in flight against a limit.
#[derive(Debug)]
pub struct InFlight {
    /// Finds the caller's own count.
    of_caller: fn(&Presence) -> &AtomicUsize,
    limit: AtomicUsize,
    now: AtomicUsize,
    /// The refusal if all places are taken.
    all: Shortage,
    /// The refusal if the caller holds its share of the places.
    share: Shortage,
}

/// The right to be in flight. It is returned when dropped, which is at the end of the answer's
/// body.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<InFlight>,
    caller: Arc<Presence>,
}

impl InFlight {
    /// Admits up to `limit` requests at once.
    pub fn of_requests(limit: usize) -> Arc<Self> {
        let short = (Shortage::RequestsInFlight, Shortage::CallerRequests);
        Self::up_to(limit, |caller| &caller.requests, short)
    }

    /// Admits up to `limit` exports at once.
    pub fn of_exports(limit: usize) -> Arc<Self> {
        let short = (Shortage::Exports, Shortage::CallerExports);
        Self::up_to(limit, |caller| &caller.exports, short)
    }

    /// Admits up to `limit` waiting requests for changes at once.
    pub fn of_followers(limit: usize) -> Arc<Self> {
        let short = (Shortage::Followers, Shortage::CallerFollowers);
        Self::up_to(limit, |caller| &caller.followers, short)
    }

    fn up_to(
        limit: usize,
        of_caller: fn(&Presence) -> &AtomicUsize,
        (all, share): (Shortage, Shortage),
    ) -> Arc<Self> {
        Arc::new(Self {
            of_caller,
            limit: AtomicUsize::new(limit),
            now: AtomicUsize::new(0),
            all,
            share,
        })
    }

    /// Changes the limit. Permits that are already held stay valid.
    pub fn admit_up_to(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns a permit for a caller. Never waits: if a request cannot be served now, refusing it
    /// now is better.
    ///
    /// # Errors
    /// Returns what is used up: all places, or the caller's share of them.
    pub fn enter(self: &Arc<Self>, caller: &Arc<Presence>) -> Result<Permit, Shortage> {
        let limit = self.limit.load(Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let own = (self.of_caller)(caller).fetch_add(1, Ordering::Relaxed) + 1;
        // Dropping this takes back both counts.
        let permit = Permit {
            gate: self.clone(),
            caller: caller.clone(),
        };
        let share = (limit.saturating_sub(now) + 1).saturating_mul(TIMES_FREE);
        match (now <= limit, own <= share) {
            (true, true) => Ok(permit),
            (false, _) => Err(self.all),
            (true, false) => Err(self.share),
        }
    }

    /// Returns the maximum number of permits.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the number of permits that are held now.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.now.fetch_sub(1, Ordering::Relaxed);
        (self.gate.of_caller)(&self.caller).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Arc<Presence> {
        Arc::default()
    }

    #[test]
    fn a_permit_comes_back_when_dropped() {
        let (gate, caller) = (InFlight::of_requests(1), nobody());
        let first = gate.enter(&caller).unwrap();
        assert!(gate.enter(&caller).is_err());
        assert_eq!(
            (gate.now(), caller.requests.load(Ordering::Relaxed)),
            (1, 1)
        );
        // Exports are counted separately.
        let export = InFlight::of_exports(1).enter(&caller);
        assert!(export.is_ok());
        assert_eq!(caller.exports.load(Ordering::Relaxed), 1);
        assert_eq!(caller.requests.load(Ordering::Relaxed), 1);
        drop(first);
        assert!(gate.enter(&caller).is_ok());
        assert_eq!(
            (gate.now(), caller.requests.load(Ordering::Relaxed)),
            (0, 0)
        );
    }

    #[test]
    fn one_caller_leaves_room_for_another() {
        let (gate, greedy) = (InFlight::of_requests(32), nobody());
        let mut held = Vec::new();
        while let Ok(permit) = gate.enter(&greedy) {
            held.push(permit);
        }
        assert_eq!(held.len(), 28);
        let refused = gate.enter(&greedy).unwrap_err();
        assert_eq!(refused, Shortage::CallerRequests);
        for _ in 0..4 {
            held.push(gate.enter(&nobody()).unwrap());
        }
        let refused = gate.enter(&nobody()).unwrap_err();
        assert_eq!(refused, Shortage::RequestsInFlight);
        // With few places, none is reserved.
        let (few, one) = (InFlight::of_requests(7), nobody());
        for _ in 1..=7 {
            held.push(few.enter(&one).unwrap());
        }
    }

    #[test]
    fn a_lower_limit_lets_those_inside_finish() {
        let (gate, caller) = (InFlight::of_requests(2), nobody());
        let inside = (gate.enter(&caller), gate.enter(&caller));
        gate.admit_up_to(1);
        assert!(gate.enter(&caller).is_err());
        drop(inside);
        let one = gate.enter(&caller);
        assert!(one.is_ok() && gate.enter(&caller).is_err());
    }
}
