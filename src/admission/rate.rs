//! How many requests a minute: what one costs, how many may go back to back, and what a vendor's limit
//! seems to be where it is not published. Pure.
//!
//! Learning is additive increase, multiplicative decrease: a refusal (429) cuts the rate, answers raise
//! it slowly again. It looks between a floor and a ceiling; the ceiling is the configured rate.

use super::Lane;
use crate::clock::{Duration, Instant};

/// The bucket holds what flows in within ten seconds (and one request at least): enough for the
/// questions of a dashboard that opens, little enough that a minute never sees much more than the
/// configured rate.
const BURST_SECONDS: u64 = 10;
/// What a refusal leaves of the rate, in percent. More than half, for a refusal costs a hold-down
/// besides, and a limit is seldom far below what was just allowed.
const CUT_PERCENT: u64 = 70;
/// A minute of calls at the full rate raises it by this part of the ceiling, in percent: so that a
/// rate which was cut takes half an hour to be refused again, not a minute.
const GROWTH_PERCENT: u64 = 1;

const MINUTE: Duration = Duration::from_secs(60);

/// Requests a minute, to a thousandth. Integers only, so no rounding can send a request too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// So many; at least one.
    pub fn per_minute(requests: u32) -> Self {
        Self(u64::from(requests.max(1)) * 1_000)
    }

    /// So many within this time.
    fn within(requests: u64, time: Duration) -> Self {
        let milli = u128::from(requests) * 1_000 * MINUTE.as_nanos() / time.as_nanos().max(1);
        Self(u64::try_from(milli).unwrap_or(u64::MAX))
    }

    /// Whole requests a minute.
    pub fn whole(self) -> u32 {
        u32::try_from(self.0 / 1_000).unwrap_or(u32::MAX)
    }

    /// Requests that may go out back to back.
    pub fn burst(self) -> u32 {
        let burst = self.0 / 1_000 * BURST_SECONDS / MINUTE.as_secs();
        u32::try_from(burst).unwrap_or(u32::MAX).max(1)
    }

    /// Returns the time in which one more request is allowed.
    pub fn cost(self) -> Duration {
        Duration::from_nanos(60_000_000_000_000 / self.0.max(1))
    }

    /// Returns the cost of a whole burst.
    pub fn credit_max(self) -> Duration {
        self.cost() * self.burst()
    }

    /// Credit that must be there before a request of this lane goes: background work leaves a part
    /// of the burst to those who wait.
    pub fn needed(self, lane: Lane) -> Duration {
        let reserve = match lane {
            Lane::Interactive => 0,
            Lane::Refresh => 10,
            Lane::ReadAhead | Lane::Export => 25,
        };
        (self.cost() + self.credit_max() * reserve / 100).min(self.credit_max())
    }
}

/// Between which rates learning looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Never below.
    pub floor: Rate,
    /// Never above.
    pub ceiling: Rate,
}

/// What a vendor's limit seems to be.
#[derive(Debug, Default)]
pub struct Learned {
    /// After a refusal; `None` while nothing below the ceiling was refused.
    seems: Option<Rate>,
    /// What the vendor's own count leaves until it starts anew, spread evenly, and when that is.
    told: Option<(Rate, Instant)>,
}

impl Learned {
    /// Returns the rate to keep to.
    pub fn rate(&self, bounds: Bounds, now: Instant) -> Rate {
        let told = self.told.filter(|(_, until)| now < *until);
        let mut rate = self.seems.unwrap_or(bounds.ceiling);
        if let Some((told, _)) = told {
            rate = rate.min(told);
        }
        rate.min(bounds.ceiling).max(bounds.floor)
    }

    /// Until when what the vendor told holds, if it does.
    pub fn told_until(&self, now: Instant) -> Option<Instant> {
        let (_, until) = self.told?;
        (now < until).then_some(until)
    }

    /// The vendor refused a request that was sent at this rate.
    pub fn refused(&mut self, at: Rate) {
        self.seems = Some(Rate(at.0 * CUT_PERCENT / 100));
    }

    /// The vendor answered a request. So the less is asked, the slower the rate grows: what was not
    /// tried was not allowed.
    pub fn answered(&mut self, bounds: Bounds) {
        let Some(seems) = self.seems else { return };
        let seems = seems.max(bounds.floor);
        let step = bounds.ceiling.0 * GROWTH_PERCENT / 100 * 1_000 / seems.0.max(1);
        let grown = Rate(seems.0 + step.max(1));
        self.seems = (grown < bounds.ceiling).then_some(grown);
    }

    /// What the vendor told of its count no longer holds.
    pub fn forget_told(&mut self) {
        self.told = None;
    }

    /// The vendor will take so many more requests until its count starts anew.
    pub fn told(&mut self, now: Instant, requests: u64, reset: Duration) {
        if !reset.is_zero() {
            self.told = Some((Rate::within(requests, reset), now + reset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const BOUNDS: Bounds = Bounds {
        floor: Rate(6_000),
        ceiling: Rate(120_000),
    };

    #[test]
    fn a_rate_is_what_it_was_called() {
        assert_eq!(Rate::per_minute(120).cost(), Duration::from_millis(500));
        assert_eq!(Rate::per_minute(120).burst(), 20);
        assert_eq!(
            (Rate::per_minute(0).whole(), Rate::per_minute(5).burst()),
            (1, 1)
        );
        assert_eq!(Rate::within(30, Duration::from_secs(30)).whole(), 60);
        assert_eq!(Rate::within(u64::MAX, Duration::ZERO).whole(), u32::MAX);
    }

    #[test]
    fn a_refusal_cuts_and_answers_raise() {
        let now = Clock::system().now();
        let mut learned = Learned::default();
        learned.answered(BOUNDS);
        assert_eq!(learned.rate(BOUNDS, now).whole(), 120);
        learned.refused(learned.rate(BOUNDS, now));
        assert_eq!(learned.rate(BOUNDS, now).whole(), 84);
        // A minute of calls at that rate.
        for _ in 0..84 {
            learned.answered(BOUNDS);
        }
        assert_eq!(learned.rate(BOUNDS, now).whole(), 85);
        for _ in 0..10_000 {
            learned.answered(BOUNDS);
        }
        assert_eq!(learned.rate(BOUNDS, now), BOUNDS.ceiling);
        for _ in 0..100 {
            learned.refused(learned.rate(BOUNDS, now));
        }
        assert_eq!(learned.rate(BOUNDS, now), BOUNDS.floor);
        learned.answered(BOUNDS);
        assert!(
            learned.rate(BOUNDS, now) > BOUNDS.floor,
            "it grows from the floor"
        );
    }

    #[test]
    fn what_the_vendor_tells_is_spread_over_its_time() {
        let now = Clock::system().now();
        let second = Duration::from_secs(1);
        let mut learned = Learned::default();
        learned.told(now, 30, second * 30);
        assert_eq!(learned.rate(BOUNDS, now).whole(), 60);
        learned.told(now, 0, second * 10);
        assert_eq!(learned.rate(BOUNDS, now), BOUNDS.floor);
        assert_eq!(learned.rate(BOUNDS, now + second * 10), BOUNDS.ceiling);
        learned.told(now, 9_999, second);
        assert_eq!(learned.rate(BOUNDS, now), BOUNDS.ceiling);
        learned.told(now, 5, Duration::ZERO);
        assert_eq!(learned.rate(BOUNDS, now), BOUNDS.ceiling);
    }
}
