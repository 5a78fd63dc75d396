//! The part of a pace that a shared store decides: the requests to the store, and the effect of its
//! replies.

use super::{HOLD_LOOK, Lane, Pace, Purse, Ramp, WaiterId, places_for};
use crate::admission::remembered::PaceMemory;
use crate::clock::{Duration, Instant};
use crate::store::{PLACE_LEASE, PurseReply, PurseTake, PurseVerdict, PurseWord};

/// Pause before the store is asked again for a place when other gateways hold all of them.
const PLACE_LOOK: Duration = Duration::from_millis(50);
/// Two hold-downs are the same if their ends differ by less than this. The end in the store can be
/// a little later, because it is written a little later.
const SAME_HOLD: Duration = Duration::from_millis(500);

/// Returns the whole microseconds of a time, rounded up, so that no call is sent too early.
pub(in crate::admission) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

impl Pace {
    /// Lets the store keep the budget from now on.
    pub(in crate::admission) fn share(&mut self, now: Instant) {
        self.count(now);
        self.purse = Purse::Shared { look_at: None };
        self.reprice(now);
    }

    /// Continues without the store, with one part in `of` of rate and places. The bucket starts
    /// empty, because other gateways may have spent its credit.
    pub(in crate::admission) fn go_alone(&mut self, now: Instant, of: u32) {
        self.count(now);
        self.purse = Purse::Own { of };
        self.reprice(now);
        self.credit = Duration::ZERO;
    }

    /// Returns whether the store keeps the budget.
    pub(in crate::admission) fn is_shared(&self) -> bool {
        matches!(self.purse, Purse::Shared { .. })
    }

    /// Returns the waiter that should ask the store now, with its lane.
    pub(in crate::admission) fn asks(&self, now: Instant) -> Option<(WaiterId, Lane)> {
        let Purse::Shared { look_at } = self.purse else {
            return None;
        };
        let (lane, id) = self.queue.front()?;
        let due = look_at.is_none_or(|at| at <= now) && self.is_ready(now, lane);
        due.then_some((id, lane))
    }

    /// Returns the request to the store for a call of `lane`.
    pub(in crate::admission) fn wish(&self, lane: Lane) -> PurseTake {
        let all = self.places.limit(self.places_max());
        PurseTake {
            cost_us: self.cost_us(),
            burst_us: self.burst_us(),
            needed_us: micros(self.rate.needed(lane)).min(self.burst_us()),
            places: u32::try_from(places_for(all, lane)).unwrap_or(u32::MAX),
            place_len: PLACE_LEASE,
            owed_us: micros(self.owed),
        }
    }

    /// Returns the cost of a call in microseconds.
    pub(in crate::admission) fn cost_us(&self) -> u64 {
        micros(self.rate.cost())
    }

    fn burst_us(&self) -> u64 {
        self.cost_us().saturating_mul(u64::from(self.rate.burst()))
    }

    /// Records the store's reply. Returns whether the call may go. The call of a waiter is then
    /// entered with [`Self::grant`].
    pub(in crate::admission) fn heard(&mut self, now: Instant, reply: &PurseReply) -> bool {
        if !self.is_shared() {
            // The gateway left the store meanwhile. A call that was taken may still go.
            return reply.verdict.goes();
        }
        self.count(now);
        self.owed = Duration::ZERO;
        let (mut wait, mut goes) = (None, false);
        match reply.verdict {
            PurseVerdict::Taken => goes = true,
            PurseVerdict::Probe { left, refuses } => {
                goes = true;
                self.heard_hold(now, left, refuses);
                if let Some(hold) = &mut self.hold {
                    hold.probed = true;
                }
            }
            PurseVerdict::Held { left, refuses } => {
                self.heard_hold(now, left, refuses);
                wait = Some(HOLD_LOOK);
            }
            PurseVerdict::NoPlace => wait = Some(PLACE_LOOK),
            PurseVerdict::NoCredit { wait: least } => wait = Some(least),
        }
        let is_held = matches!(
            reply.verdict,
            PurseVerdict::Held { .. } | PurseVerdict::Probe { .. }
        );
        if let Some(hold) = self.hold.filter(|hold| hold.until > now && !is_held) {
            if !hold.confirmed {
                // The store does not know of this hold-down yet.
                self.purse = Purse::Shared {
                    look_at: Some(now + HOLD_LOOK),
                };
                return false;
            }
            // Another gateway ended it.
            self.resume(now);
        }
        if self.hold.is_none_or(|hold| hold.until <= now) {
            let credit = u64::try_from(reply.credit_us).unwrap_or(0);
            self.credit = Duration::from_micros(credit).min(self.rate.credit_max());
            self.counted = now;
            if self.strikes > 0 && reply.strikes == 0 {
                self.ramp = Some(Ramp::new(now));
            }
            self.strikes = reply.strikes;
        }
        self.purse = Purse::Shared {
            look_at: wait.map(|wait| now + wait),
        };
        goes
    }

    /// Takes over a hold-down from the store, unless this gateway has a longer one that the store
    /// does not know of.
    fn heard_hold(&mut self, now: Instant, left: Duration, refuses: bool) {
        let until = now + left.min(self.settings.hold_down_max);
        let untold = self.hold.filter(|hold| !hold.confirmed);
        if untold.is_some_and(|hold| hold.until > until + SAME_HOLD) {
            return;
        }
        self.stop_until(now, until, refuses);
        if let Some(hold) = &mut self.hold {
            hold.confirmed = true;
        }
    }

    /// Returns the rest of a hold-down that the store does not know of.
    pub(in crate::admission) fn untold(&self, now: Instant) -> Option<(Duration, bool)> {
        let hold = self.hold.filter(|hold| !hold.confirmed)?;
        let left = hold.until.saturating_duration_since(now);
        (!left.is_zero()).then_some((left, hold.refuses))
    }

    /// Enters a waiter's call of `lane` that was paid in the store. It holds a place.
    pub(in crate::admission) fn grant(&mut self, id: WaiterId, lane: Lane) {
        self.queue.remove(id);
        if let Some(ramp) = self.ramp.as_mut().filter(|_| !lane.is_interactive()) {
            ramp.take(self.rate.cost());
        }
        self.in_flight += 1;
    }

    /// Returns the news for other gateways since `before`: a hold-down that began, or the end of a
    /// row of 429 answers.
    pub(in crate::admission) fn word(
        &self,
        now: Instant,
        before: &PaceMemory,
        is_429: bool,
    ) -> PurseWord {
        let after = self.memory(now);
        let stop = after
            .stop
            .filter(|stop| is_429 || before.stop.is_none_or(|b| b.0 < stop.0));
        PurseWord {
            cost_us: self.cost_us(),
            burst_us: self.burst_us(),
            stop: stop.map(|(left, _)| left),
            refuses: stop.is_some_and(|(_, refuses)| refuses),
            strike: is_429,
            answered: before.strikes > 0 && after.strikes == 0,
            credit_max_us: None,
            resume: false,
        }
    }

    /// Returns the remaining credit.
    pub(in crate::admission) fn credit(&self) -> Duration {
        self.credit
    }
}
