//! A caller's own rate limit: a token bucket that refills evenly.

use parking_lot::Mutex;

use crate::clock::{Duration, Instant};

/// Share of a minute's requests that may come at once. It is large enough for a dashboard that
/// loads all its panels together, and small enough that one caller cannot use the gateway for a
/// whole minute.
const BURST_DIVISOR: u32 = 6;

/// What is left of a caller's limit, for the `RateLimit` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Returns the number of requests admitted per minute.
    pub per_minute: u32,
    /// Requests that may come at once.
    pub burst: u32,
    /// Seconds in which this many are admitted again.
    pub burst_s: u64,
    /// Requests that would be admitted right now.
    pub remaining: u32,
    /// Seconds until one more is admitted (if none remains) or the bucket is full.
    pub reset_s: u64,
}

/// A token bucket.
#[derive(Debug)]
pub struct Throttle {
    per_minute: u32,
    burst: f64,
    state: Mutex<Option<(Instant, f64)>>,
}

impl Throttle {
    /// Admits this many requests a minute, at least one.
    pub fn per_minute(requests: u32) -> Self {
        Self {
            per_minute: requests.max(1),
            burst: f64::from((requests / BURST_DIVISOR).max(1)),
            state: Mutex::new(None),
        }
    }

    /// Returns the number of requests admitted per minute.
    pub fn limit(&self) -> u32 {
        self.per_minute
    }

    /// Admits or refuses one request at `now`.
    ///
    /// # Errors
    /// The allowance, when nothing remains.
    pub fn admit(&self, now: Instant) -> Result<Allowance, Allowance> {
        let per_second = f64::from(self.per_minute) / 60.0;
        let burst = self.burst;
        let mut state = self.state.lock();
        let (since, level) = state.unwrap_or((now, burst));
        let refilled = now.saturating_duration_since(since).as_secs_f64() * per_second;
        let level = (level + refilled).min(burst);
        let admitted = level >= 1.0;
        let level = if admitted { level - 1.0 } else { level };
        *state = Some((now, level));
        drop(state);
        let missing = if level >= 1.0 {
            burst - level
        } else {
            1.0 - level
        };
        let wait = Duration::from_secs_f64(missing / per_second);
        let seconds = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let allowance = Allowance {
            per_minute: self.per_minute,
            burst: burst as u32,
            burst_s: seconds(Duration::from_secs_f64(burst / per_second)).max(1),
            // The value is between 0 and the burst, which was made from a u32.
            remaining: level as u32,
            reset_s: seconds(wait),
        };
        if admitted {
            Ok(allowance)
        } else {
            Err(allowance)
        }
    }
}

/// How often a caller's `Cache-Control` may force a vendor call that the cache would have saved. A
/// minute's worth may come at once, because a person who reloads reloads twice. Past it the cache
/// answers, so that a reload button cannot drain a vendor's quota.
#[derive(Debug)]
pub struct ForcedRefreshes(Option<Throttle>);

impl ForcedRefreshes {
    /// Allows this many a minute. Zero allows none.
    pub fn per_minute(calls: u32) -> Self {
        Self((calls > 0).then(|| Throttle {
            burst: f64::from(calls),
            ..Throttle::per_minute(calls)
        }))
    }

    /// Returns the number of vendor calls allowed per minute.
    pub fn limit(&self) -> u32 {
        self.0.as_ref().map_or(0, Throttle::limit)
    }

    /// Takes one vendor call from the allowance, if one is left.
    pub fn allow(&self, now: Instant) -> bool {
        self.0
            .as_ref()
            .is_some_and(|throttle| throttle.admit(now).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn forced_refreshes_come_from_an_allowance() {
        let allowed = |calls, at| {
            let forced = ForcedRefreshes::per_minute(calls);
            let start = Instant::now();
            let first = (0..100).filter(|_| forced.allow(start)).count();
            (first, forced.allow(start + Duration::from_secs(at)))
        };
        assert_eq!(allowed(6, 9), (6, false));
        assert_eq!(allowed(6, 10), (6, true));
        assert_eq!(allowed(0, 3600), (0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_policies_promise_is_kept() {
        for per_minute in [1, 2, 5, 6, 7, 59, 60, 100, 1_000, 10_000_000] {
            let throttle = Throttle::per_minute(per_minute);
            let start = Instant::now();
            let told = throttle.admit(start).unwrap();
            // The burst at once, and the rate in each window after that.
            for window in 0..3 {
                let at = start + Duration::from_secs(told.burst_s * window);
                let taken = if window == 0 { 1 } else { 0 };
                let burst = u64::from(told.burst.min(1_000));
                for number in taken..burst {
                    assert!(
                        throttle.admit(at).is_ok(),
                        "{per_minute}: {window}, {number}"
                    );
                }
            }
            // No minute admits more than the headers state.
            let rate = f64::from(told.burst) * 60.0 / told.burst_s as f64;
            assert!(rate <= f64::from(per_minute), "{per_minute}: {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_an_even_rate() {
        let throttle = Throttle::per_minute(60);
        let start = Instant::now();
        let admitted = (0..100).filter(|_| throttle.admit(start).is_ok()).count();
        assert_eq!(admitted, 10);
        let refused = throttle.admit(start).unwrap_err();
        assert_eq!((refused.remaining, refused.reset_s), (0, 1));
        assert!(throttle.admit(start + Duration::from_millis(999)).is_err());
        assert!(throttle.admit(start + Duration::from_millis(1001)).is_ok());
        let long_after = start + Duration::from_secs(3600);
        let admitted = (0..100)
            .filter(|_| throttle.admit(long_after).is_ok())
            .count();
        assert_eq!(admitted, 10);
    }
}
