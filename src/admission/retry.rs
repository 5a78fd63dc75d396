//! Decides whether and when a failed call is retried. Pure.

use crate::clock::{Duration, Instant};

/// Settings: how often a call is attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts for one call, the first included; at least 1.
    pub attempts: u32,
    /// Maximum retries, in percent of first attempts.
    pub budget_percent: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts: 3,
            budget_percent: 10,
        }
    }
}

/// Maximum pause before the first retry. It doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Maximum of the doubled pause. If a vendor asks for a longer pause, the call is not retried.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Length of the window in which first attempts and retries are counted.
const WINDOW_SECONDS: u64 = 10;
/// Retries in the window that are always allowed, so that a single call after a quiet time can be
/// attempted three times.
const FLOOR: u64 = 2;

/// Returns the pause before the retry that follows attempt number `attempt` (from 1). It has full
/// jitter, so that calls which failed together do not return together.
pub fn backoff(attempt: u32, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST * 2u32.saturating_pow(attempt.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX).mul_f64(jitter.clamp(0.0, 1.0))
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    first_tries: u64,
    retries: u64,
}

/// Keeps retries at a small share of first attempts, so that a failing vendor is not called more
/// often than a healthy one.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    anchor: Instant,
    slots: [Slot; WINDOW_SECONDS as usize],
}

impl RetryBudget {
    /// Creates a budget with nothing counted.
    pub fn new(settings: RetrySettings, now: Instant) -> Self {
        Self {
            percent: u64::from(settings.budget_percent),
            anchor: now,
            slots: Default::default(),
        }
    }

    /// Counts a first attempt.
    pub fn first_try(&mut self, now: Instant) {
        if let Some(slot) = self.slot(now) {
            slot.first_tries += 1;
        }
    }

    /// Takes a retry from the budget. Returns whether one was left.
    pub fn retry(&mut self, now: Instant) -> bool {
        let second = self.second(now);
        let (tries, retries) = self
            .slots
            .iter()
            .filter(|slot| slot.second + WINDOW_SECONDS > second)
            .fold((0, 0), |(tries, retries), slot| {
                (tries + slot.first_tries, retries + slot.retries)
            });
        if retries >= (tries * self.percent / 100).max(FLOOR) {
            return false;
        }
        if let Some(slot) = self.slot(now) {
            slot.retries += 1;
        }
        true
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.anchor).as_secs()
    }

    fn slot(&mut self, now: Instant) -> Option<&mut Slot> {
        let second = self.second(now);
        let index = usize::try_from(second % WINDOW_SECONDS).ok()?;
        let slot = self.slots.get_mut(index)?;
        if slot.second != second {
            *slot = Slot {
                second,
                ..Slot::default()
            };
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(backoff(1, 1.0), Duration::from_millis(100));
        assert_eq!(backoff(2, 1.0), Duration::from_millis(200));
        assert_eq!(backoff(2, 0.5), Duration::from_millis(100));
        assert_eq!(backoff(40, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn retries_stay_a_tenth_of_first_tries() {
        let start = Clock::system().now();
        let mut budget = RetryBudget::new(RetrySettings::default(), start);
        let (mut tries, mut retries) = (0u32, 0u32);
        for ms in (0..60_000).step_by(2) {
            let now = start + Duration::from_millis(ms);
            budget.first_try(now);
            tries += 1;
            while budget.retry(now) {
                retries += 1;
            }
        }
        assert!(retries <= tries / 10, "{retries} of {tries}");
        assert!(retries > tries / 12, "{retries} of {tries}");
    }

    #[test]
    fn every_second_of_the_window_counts() {
        let start = Clock::system().now();
        let mut budget = RetryBudget::new(RetrySettings::default(), start);
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            (0..10).for_each(|_| budget.first_try(now));
        }
        let last = start + Duration::from_secs(9);
        let retries = (0..100).filter(|_| budget.retry(last)).count();
        assert_eq!(retries, 10);
        // The first of them have left the window, and the retries of the last ones with it.
        let retries = |budget: &mut RetryBudget, second| {
            let now = start + Duration::from_secs(second);
            (0..100).filter(|_| budget.retry(now)).count()
        };
        assert_eq!(retries(&mut budget, 14), 0);
        assert_eq!(retries(&mut budget, 19), 2);
    }

    #[test]
    fn a_lone_call_may_be_tried_three_times() {
        let start = Clock::system().now();
        let mut budget = RetryBudget::new(RetrySettings::default(), start);
        budget.first_try(start);
        assert!(budget.retry(start) && budget.retry(start));
        assert!(!budget.retry(start));
        assert!(!budget.retry(start + Duration::from_secs(9)));
        assert!(budget.retry(start + Duration::from_secs(10)));
    }
}
