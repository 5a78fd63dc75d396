//! Limits background work while a vendor recovers: to a share of the rate that grows. Pure.
//!
//! After an outage, every stale answer is refreshed when it is next requested, so nearly all of
//! them within seconds. Callers without an answer go first anyway. Callers with a stale answer can
//! use it for half a minute more. So the vendor does not get all refreshes at once.

use crate::clock::{Duration, Instant};

/// Time until background work may use the whole rate again.
pub const LENGTH: Duration = Duration::from_secs(30);
/// Share of the rate that background work gets at first.
const FIRST_PART: f64 = 0.2;

/// One recovery of a vendor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    began: Instant,
    counted: Instant,
    /// Like the credit of the bucket, but earned at the share of the rate.
    credit: Duration,
}

impl Ramp {
    /// Starts a recovery now.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            counted: now,
            credit: Duration::ZERO,
        }
    }

    /// Returns the share of the rate that background work has now, in percent, and the time until
    /// it has all of it.
    pub fn standing(&self, now: Instant) -> (u8, Duration) {
        let passed = now.saturating_duration_since(self.began).min(LENGTH);
        let done = passed.as_secs_f64() / LENGTH.as_secs_f64();
        // From 20 to 100.
        let percent = (FIRST_PART + (1.0 - FIRST_PART) * done) * 100.0;
        (percent as u8, LENGTH.saturating_sub(passed))
    }

    /// Returns whether the recovery is over: its time has passed and no background work waits any
    /// more. Call [`Self::count`] first.
    pub fn is_over(&self, now: Instant, cost: Duration) -> bool {
        now.saturating_duration_since(self.began) >= LENGTH && self.credit >= cost
    }

    /// Adds the credit earned since the last call. Saves up the `cost` of one call at most, so that
    /// unused credit does not become a burst.
    pub fn count(&mut self, now: Instant, cost: Duration) {
        let earned = self.earned(now).saturating_sub(self.earned(self.counted));
        self.credit = (self.credit + earned).min(cost);
        self.counted = self.counted.max(now);
    }

    /// Takes the credit of one background call.
    pub fn take(&mut self, cost: Duration) {
        self.credit = self.credit.saturating_sub(cost);
    }

    /// Returns the time until `needed` will have been earned since the last count.
    pub fn wait(&self, now: Instant, needed: Duration) -> Duration {
        let short = needed.saturating_sub(self.credit);
        if short.is_zero() {
            return Duration::ZERO;
        }
        let target = self.earned(self.counted) + short;
        (self.began + reached(target)).saturating_duration_since(now)
    }

    /// Returns the credit earned from the start until `at`.
    fn earned(&self, at: Instant) -> Duration {
        let passed = at.saturating_duration_since(self.began);
        let (full, on_ramp) = (passed.saturating_sub(LENGTH), passed.min(LENGTH));
        let seconds = on_ramp.as_secs_f64();
        let growth = (1.0 - FIRST_PART) / LENGTH.as_secs_f64();
        full + Duration::from_secs_f64(seconds * (FIRST_PART + growth * seconds / 2.0))
    }
}

/// Returns the time from the start until this much has been earned.
fn reached(earned: Duration) -> Duration {
    let on_ramp = LENGTH.mul_f64((FIRST_PART + 1.0) / 2.0);
    if earned > on_ramp {
        return LENGTH + earned.saturating_sub(on_ramp) + Duration::from_micros(1);
    }
    let growth = (1.0 - FIRST_PART) / LENGTH.as_secs_f64();
    let root = (FIRST_PART * FIRST_PART + 2.0 * growth * earned.as_secs_f64()).sqrt();
    // A microsecond more, so that rounding cannot make it too early.
    Duration::from_secs_f64((root - FIRST_PART) / growth) + Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    /// Returns the calls that go in each ten seconds if one always waits.
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
        // Ten calls a second, counted a thousand times a second.
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
