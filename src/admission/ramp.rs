//! How much background work may be done while a vendor comes back: a part of its rate that grows.
//! Pure.
//!
//! After an outage everything that grew stale is refreshed when it is next asked for, which is all of
//! it within seconds. Callers who have nothing go first anyway; those who have something old are well
//! served with it for half a minute more, and the vendor is not met by all of them at once.

use crate::clock::{Duration, Instant};

/// How long it takes until background work may have the whole rate again.
pub const LENGTH: Duration = Duration::from_secs(30);
/// The part of the rate that it has at first.
const FIRST_PART: f64 = 0.2;

/// One return of a vendor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    began: Instant,
    counted: Instant,
    /// As in the bucket: the time that a call costs, earned at the part of the rate.
    credit: Duration,
}

impl Ramp {
    /// The vendor is back now.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            counted: now,
            credit: Duration::ZERO,
        }
    }

    /// Returns the part of the rate that background work has now, in percent, and how long until it
    /// has all.
    pub fn standing(&self, now: Instant) -> (u8, Duration) {
        let passed = now.saturating_duration_since(self.began).min(LENGTH);
        let done = passed.as_secs_f64() / LENGTH.as_secs_f64();
        // Between 20 and 100.
        let percent = (FIRST_PART + (1.0 - FIRST_PART) * done) * 100.0;
        (percent as u8, LENGTH.saturating_sub(passed))
    }

    /// Whether it is over: its time has passed, and no background work waits any more. To be asked after [`Self::count`].
    pub fn is_over(&self, now: Instant, cost: Duration) -> bool {
        now.saturating_duration_since(self.began) >= LENGTH && self.credit >= cost
    }

    /// Counts what was earned since. No more than one call's `cost` is saved up: what was not called
    /// for does not become a burst.
    pub fn count(&mut self, now: Instant, cost: Duration) {
        let earned = self.earned(now).saturating_sub(self.earned(self.counted));
        self.credit = (self.credit + earned).min(cost);
        self.counted = self.counted.max(now);
    }

    /// One call of background work goes.
    pub fn take(&mut self, cost: Duration) {
        self.credit = self.credit.saturating_sub(cost);
    }

    /// Time until `needed` will have been earned since the last count.
    pub fn wait(&self, now: Instant, needed: Duration) -> Duration {
        let short = needed.saturating_sub(self.credit);
        if short.is_zero() {
            return Duration::ZERO;
        }
        let target = self.earned(self.counted) + short;
        (self.began + reached(target)).saturating_duration_since(now)
    }

    /// All that was earned until then.
    fn earned(&self, at: Instant) -> Duration {
        let passed = at.saturating_duration_since(self.began);
        let (full, on_ramp) = (passed.saturating_sub(LENGTH), passed.min(LENGTH));
        let seconds = on_ramp.as_secs_f64();
        let growth = (1.0 - FIRST_PART) / LENGTH.as_secs_f64();
        full + Duration::from_secs_f64(seconds * (FIRST_PART + growth * seconds / 2.0))
    }
}

/// When so much will have been earned, from the ramp's beginning.
fn reached(earned: Duration) -> Duration {
    let on_ramp = LENGTH.mul_f64((FIRST_PART + 1.0) / 2.0);
    if earned > on_ramp {
        return LENGTH + earned.saturating_sub(on_ramp) + Duration::from_micros(1);
    }
    let growth = (1.0 - FIRST_PART) / LENGTH.as_secs_f64();
    let root = (FIRST_PART * FIRST_PART + 2.0 * growth * earned.as_secs_f64()).sqrt();
    // A little more, so that for all rounding it has been earned then.
    Duration::from_secs_f64((root - FIRST_PART) / growth) + Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    /// Calls that go in each ten seconds, where there is always one that waits.
    fn calls(cost: Duration, step: Duration) -> [u32; 4] {
        let began = Clock::system().now();
        let mut ramp = Ramp::new(began);
        let mut calls = [0; 4];
        let mut now = began;
        while now < began + Duration::from_secs(40) {
            ramp.count(now, cost);
            if ramp.wait(now, cost).is_zero() {
                ramp.take(cost);
                let tens = now.saturating_duration_since(began).as_secs() / 10;
                calls[usize::try_from(tens).unwrap()] += 1;
            }
            now += step;
        }
        calls
    }

    #[test]
    fn it_grows_from_a_fifth_to_the_whole() {
        // Ten a second, looked at a thousand times a second.
        let [first, second, third, after] = calls(100 * MS, MS);
        assert!((30..=34).contains(&first), "{first}");
        assert!((55..=61).contains(&second), "{second}");
        assert!((82..=88).contains(&third), "{third}");
        assert!((97..=101).contains(&after), "{after}");
    }

    #[test]
    fn it_tells_how_far_it_is() {
        let began = Clock::system().now();
        let ramp = Ramp::new(began);
        for (ms, percent, left_ms) in [
            (0, 20, 30_000),
            (15_000, 60, 15_000),
            (29_900, 99, 100),
            (60_000, 100, 0),
        ] {
            assert_eq!(ramp.standing(began + ms * MS), (percent, left_ms * MS));
        }
    }

    #[test]
    fn its_waits_are_exact() {
        let began = Clock::system().now();
        for cost in [10, 100, 1_000, 10_000] {
            let (cost, mut ramp, mut now) = (cost * MS, Ramp::new(began), began);
            while now < began + LENGTH * 2 {
                ramp.count(now, cost);
                let wait = ramp.wait(now, cost);
                let mut early = ramp;
                early.count(now + wait.mul_f64(0.99), cost);
                assert!(wait < 5 * MS || !early.wait(now + wait.mul_f64(0.99), cost).is_zero());
                now += wait;
                ramp.count(now, cost);
                assert!(ramp.wait(now, cost).is_zero());
                ramp.take(cost);
            }
        }
    }

    #[test]
    fn what_was_not_called_for_is_no_burst() {
        let began = Clock::system().now();
        let mut ramp = Ramp::new(began);
        let now = began + Duration::from_secs(20);
        ramp.count(now, 100 * MS);
        ramp.take(100 * MS);
        assert!(ramp.wait(now, 100 * MS) > 100 * MS);
    }
}
