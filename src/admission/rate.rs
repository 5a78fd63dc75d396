//! Arithmetic of a rate: what a request costs, how many may go back to back, and the vendor's limit
//! as learnt where it is not published. Pure.
//!
//! Learning is additive increase, multiplicative decrease. A 429 cuts the rate, and answers raise
//! it slowly again, between a floor and a ceiling. The ceiling is the configured rate.

use super::Lane;
use crate::clock::{Duration, Instant};

/// The bucket holds the requests of ten seconds, and at least one. That is enough for a dashboard
/// that opens, and little enough that no minute sees much more than the configured rate.
const BURST_SECONDS: u64 = 10;
/// Share of the rate that is left after a 429, in percent. It is more than half, because a 429 also
/// costs a hold-down, and the limit is seldom far below the last allowed rate.
const CUT_PERCENT: u64 = 70;
/// A minute of calls at the full rate raises the rate by this share of the ceiling, in percent. So
/// a rate that was cut is refused again after half an hour, not after a minute.
const GROWTH_PERCENT: u64 = 1;

const MINUTE: Duration = Duration::from_secs(60);

/// A rate in thousandths of a request per minute. Integers only, so rounding never sends a request
/// too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// Creates a rate of this many requests per minute, at least one.
    pub fn per_minute(requests: u32) -> Self {
        Self(u64::from(requests.max(1)) * 1_000)
    }

    /// Creates a rate of this many requests within `time`.
    fn within(requests: u64, time: Duration) -> Self {
        let milli = u128::from(requests) * 1_000 * MINUTE.as_nanos() / time.as_nanos().max(1);
        Self(u64::try_from(milli).unwrap_or(u64::MAX))
    }

    /// Returns one part in `of` of the rate.
    pub fn part(self, of: u32) -> Self {
        Self(self.0 / u64::from(of.max(1)))
    }

    /// Returns the whole requests per minute.
    pub fn whole(self) -> u32 {
        u32::try_from(self.0 / 1_000).unwrap_or(u32::MAX)
    }

    /// Returns how many requests may go back to back, at least one.
    pub fn burst(self) -> u32 {
        let burst = self.0 / 1_000 * BURST_SECONDS / MINUTE.as_secs();
        u32::try_from(burst).unwrap_or(u32::MAX).max(1)
    }

    /// Returns the time after which one more request is allowed.
    pub fn cost(self) -> Duration {
        Duration::from_nanos(60_000_000_000_000 / self.0.max(1))
    }

    /// Returns the cost of a whole burst.
    pub fn credit_max(self) -> Duration {
        self.cost() * self.burst()
    }

    /// Returns the credit that must be there before a request of this lane goes. Background work
    /// leaves a part of the burst to callers that wait.
    pub fn needed(self, lane: Lane) -> Duration {
        let reserve = match lane {
            Lane::Interactive | Lane::Healing => 0,
            Lane::Refresh => 10,
            Lane::ReadAhead | Lane::Export => 25,
        };
        (self.cost() + self.credit_max() * reserve / 100).min(self.credit_max())
    }
}

/// The limits of a learnt rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The rate never goes below this.
    pub floor: Rate,
    /// The rate never goes above this.
    pub ceiling: Rate,
}

/// The vendor's limit as learnt from its answers.
#[derive(Debug, Default)]
pub struct Learned {
    /// Set after a 429. `None` while nothing below the ceiling was refused.
    seems: Option<Rate>,
    /// The vendor's own remaining count, spread evenly until it is reset, and when that is.
    told: Option<(Rate, Instant)>,
}

impl Learned {
    /// Returns the rate to use.
    pub fn rate(&self, bounds: Bounds, now: Instant) -> Rate {
        let told = self.told.filter(|(_, until)| now < *until);
        let mut rate = self.seems.unwrap_or(bounds.ceiling);
        if let Some((told, _)) = told {
            rate = rate.min(told);
        }
        rate.min(bounds.ceiling).max(bounds.floor)
    }

    /// Returns until when the vendor's own count limits the rate, if it does.
    pub fn told_until(&self, now: Instant) -> Option<Instant> {
        let (_, until) = self.told?;
        (now < until).then_some(until)
    }

    /// Records a 429 to a request that was sent at this rate.
    pub fn refused(&mut self, at: Rate) {
        self.seems = Some(Rate(at.0 * CUT_PERCENT / 100));
    }

    /// Records an answer. With fewer requests the rate grows more slowly, because a rate that was
    /// not tried was not tested.
    pub fn answered(&mut self, bounds: Bounds) {
        let Some(seems) = self.seems else { return };
        let seems = seems.max(bounds.floor);
        let step = bounds.ceiling.0 * GROWTH_PERCENT / 100 * 1_000 / seems.0.max(1);
        let grown = Rate(seems.0 + step.max(1));
        self.seems = (grown < bounds.ceiling).then_some(grown);
    }

    /// Drops the vendor's own count.
    pub fn forget_told(&mut self) {
        self.told = None;
    }

    /// Records that the vendor will accept this many more requests until its count is reset.
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
