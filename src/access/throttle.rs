//! A caller's own rate limit: a token bucket that refills evenly.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::{Duration, Instant};
use crate::store::CallerUse;

/// Share of a minute's requests that may come at once. It is large enough for a dashboard that
/// loads all its panels together, and small enough that one caller cannot use the gateway for a
/// whole minute.
const BURST_DIVISOR: u32 = 6;

/// The rest of a caller's limit, for the `RateLimit` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests admitted per minute.
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

/// A token bucket. Gateways that share a store keep one limit together: each also takes out what
/// the others admitted, as soon as it learns of it.
#[derive(Debug)]
pub struct Throttle {
    per_minute: u32,
    burst: u32,
    state: Mutex<ThrottleState>,
}

#[derive(Debug)]
struct ThrottleState {
    /// When the level was counted, and what it was. It is below zero if others admitted more than
    /// there was.
    level: Option<(Instant, f64)>,
    /// The gateways that divide the limit. 1: the whole limit is counted here.
    parts: u32,
    /// Requests that were admitted here and that the others have not heard of.
    unreported: u32,
    /// The last sum of all gateways.
    heard: Option<CallerUse>,
}

impl ThrottleState {
    /// Refills the bucket up to `now`. Returns its level.
    fn refill(&mut self, now: Instant, per_second: f64, burst: f64) -> f64 {
        let (since, level) = self.level.unwrap_or((now, burst));
        let refilled = now.saturating_duration_since(since).as_secs_f64() * per_second;
        let level = (level + refilled).min(burst);
        self.level = Some((now, level));
        level
    }
}

impl Throttle {
    /// Admits this many requests a minute, at least one.
    pub fn per_minute(requests: u32) -> Self {
        Self::with_burst(requests, requests / BURST_DIVISOR)
    }

    fn with_burst(requests: u32, burst: u32) -> Self {
        Self {
            per_minute: requests.max(1),
            burst: burst.max(1),
            state: Mutex::new(ThrottleState {
                level: None,
                parts: 1,
                unreported: 0,
                heard: None,
            }),
        }
    }

    /// Returns the number of requests admitted per minute, by all gateways together.
    pub fn limit(&self) -> u32 {
        self.per_minute
    }

    /// Returns requests per second and at once, of one part in `parts`.
    fn rates(&self, parts: u32) -> (f64, f64) {
        let per_second = f64::from(self.per_minute) / 60.0 / f64::from(parts);
        (per_second, f64::from((self.burst / parts).max(1)))
    }

    /// Admits or refuses one request at `now`.
    ///
    /// # Errors
    /// The allowance, when nothing remains.
    pub fn admit(&self, now: Instant) -> Result<Allowance, Allowance> {
        let mut state = self.state.lock();
        let (per_second, burst) = self.rates(state.parts);
        let level = state.refill(now, per_second, burst);
        let admitted = level >= 1.0;
        let level = if admitted { level - 1.0 } else { level };
        if admitted {
            state.level = Some((now, level));
            state.unreported = state.unreported.saturating_add(1);
        }
        let parts = state.parts;
        drop(state);
        let missing = if level >= 1.0 {
            burst - level
        } else {
            1.0 - level
        };
        let wait = Duration::from_secs_f64(missing / per_second);
        let seconds = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let allowance = Allowance {
            per_minute: (self.per_minute / parts).max(1),
            burst: burst as u32,
            burst_s: seconds(Duration::from_secs_f64(burst / per_second)).max(1),
            // The value is at most the burst, which was made from a u32. Below zero, it is zero.
            remaining: level as u32,
            reset_s: seconds(wait),
        };
        if admitted {
            Ok(allowance)
        } else {
            Err(allowance)
        }
    }

    /// Returns whether requests were admitted that the other gateways have not heard of.
    pub fn has_unreported(&self) -> bool {
        self.state.lock().unreported > 0
    }

    /// Returns the requests that were not reported yet. They count as reported from now on.
    pub fn report(&self) -> u32 {
        std::mem::take(&mut self.state.lock().unreported)
    }

    /// Takes out what other gateways admitted since the last sum. `reported` of the new sum are
    /// this gateway's own.
    pub fn heard(&self, now: Instant, sum: CallerUse, reported: u32) {
        let mut state = self.state.lock();
        let known = state.heard.replace(sum).and_then(|last| {
            if last.minute == sum.minute {
                sum.count.checked_sub(last.count)
            } else if last.minute.checked_add(1) == Some(sum.minute) {
                let rest = sum.before.checked_sub(last.count)?;
                Some(rest.saturating_add(sum.count))
            } else {
                None
            }
        });
        // A gateway that had not heard of the fleet for a while does not know when the others
        // admitted what they did. Its bucket is emptied at most.
        let (used, least) = match known {
            Some(used) if state.parts == 1 => (used, -f64::from(self.per_minute)),
            known => (known.unwrap_or(sum.count), 0.0),
        };
        let others = used.saturating_sub(u64::from(reported)) as f64;
        let (per_second, burst) = self.rates(state.parts);
        let level = state.refill(now, per_second, burst);
        if state.parts > 1 {
            // What was admitted alone came from this gateway's own part.
            state.unreported = 0;
        }
        state.parts = 1;
        state.level = Some((now, (level - others).max(least.min(level))));
    }

    /// Counts here alone from now on, one part in `of`.
    pub fn alone(&self, now: Instant, of: u32) {
        let mut state = self.state.lock();
        let (per_second, burst) = self.rates(state.parts);
        let level = state.refill(now, per_second, burst);
        state.parts = of.max(1);
        let (_, burst) = self.rates(state.parts);
        state.level = Some((now, level.min(burst)));
    }

    /// Returns the requests that all gateways admitted in this minute, as last heard.
    pub fn of_fleet(&self) -> Option<u64> {
        let state = self.state.lock();
        state
            .heard
            .filter(|_| state.parts == 1)
            .map(|sum| sum.count)
    }
}

/// How often a caller's `Cache-Control` may force a vendor call that the cache would have saved.
/// The allowance of a minute may be used at once, because people often reload twice. After that,
/// the cache answers, so that a reload button cannot drain a vendor's quota.
#[derive(Debug)]
pub struct ForcedRefreshes(Option<Arc<Throttle>>);

impl ForcedRefreshes {
    /// Allows this many a minute. Zero allows none.
    pub fn per_minute(calls: u32) -> Self {
        Self((calls > 0).then(|| Arc::new(Throttle::with_burst(calls, calls))))
    }

    /// Returns the number of vendor calls allowed per minute.
    pub fn limit(&self) -> u32 {
        self.0.as_ref().map_or(0, |throttle| throttle.limit())
    }

    /// Returns the throttle that counts them, unless none is allowed.
    pub fn throttle(&self) -> Option<&Arc<Throttle>> {
        self.0.as_ref()
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

    fn sum(minute: u64, count: u64, before: u64) -> CallerUse {
        CallerUse {
            minute,
            count,
            before,
        }
    }

    fn left(throttle: &Throttle, now: Instant) -> u32 {
        let admitted = (0..1_000).take_while(|_| throttle.admit(now).is_ok());
        u32::try_from(admitted.count()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_admitted_is_missing_here() {
        // Ten at once, one more each second.
        let start = Instant::now();
        for (name, sums, remain) in [
            ("nothing", &[][..], 10),
            ("own", &[(sum(7, 3, 0), 3)][..], 10),
            ("others", &[(sum(7, 0, 0), 0), (sum(7, 4, 0), 0)][..], 6),
            (
                "own and others",
                &[(sum(7, 5, 0), 2), (sum(7, 9, 0), 1)][..],
                4,
            ),
            (
                "a minute begins",
                &[(sum(7, 5, 0), 5), (sum(8, 1, 7), 0)][..],
                7,
            ),
            (
                "more than there is",
                &[(sum(7, 0, 0), 0), (sum(7, 15, 0), 0)][..],
                0,
            ),
            ("unknown before", &[(sum(7, 900, 0), 0)][..], 0),
            (
                "two minutes later",
                &[(sum(7, 5, 0), 5), (sum(9, 3, 9), 0)][..],
                7,
            ),
            (
                "the sums were lost",
                &[(sum(7, 9, 0), 9), (sum(7, 2, 0), 1)][..],
                9,
            ),
            (
                "the clock went back",
                &[(sum(7, 9, 0), 9), (sum(6, 2, 0), 0)][..],
                8,
            ),
        ] {
            let throttle = Throttle::per_minute(60);
            for (sum, reported) in sums {
                throttle.heard(start, *sum, *reported);
            }
            let last = sums.last().map(|(sum, _)| sum.count);
            assert_eq!(throttle.of_fleet(), last, "{name}");
            assert_eq!(left(&throttle, start), remain, "{name}");
            assert_eq!(
                (throttle.report(), throttle.report()),
                (remain, 0),
                "{name}"
            );
        }
        // Too many are missing until they are refilled, and the headers say so.
        let throttle = Throttle::per_minute(60);
        throttle.heard(start, sum(7, 0, 0), 0);
        throttle.heard(start, sum(7, 15, 0), 0);
        let refused = throttle.admit(start).unwrap_err();
        assert_eq!((refused.remaining, refused.reset_s), (0, 6));
        let second = Duration::from_secs(1);
        assert!(throttle.admit(start + 6 * second).is_ok());
        assert!(throttle.admit(start + 6 * second).is_err());
        // Whom others sent for more than a minute is not locked out for longer than that.
        throttle.heard(start + 6 * second, sum(7, 5_000, 0), 0);
        let refused = throttle.admit(start + 6 * second).unwrap_err();
        assert_eq!(refused.reset_s, 61);
    }

    #[tokio::test(start_paused = true)]
    async fn alone_a_gateway_keeps_to_its_part_and_says_so() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let throttle = Throttle::per_minute(60);
        throttle.alone(start, 3);
        throttle.alone(start, 3);
        let told = throttle.admit(start).unwrap();
        assert_eq!((told.per_minute, told.burst, told.remaining), (20, 3, 2));
        assert_eq!((told.burst_s, throttle.of_fleet()), (9, None));
        assert_eq!(left(&throttle, start), 2);
        assert_eq!(left(&throttle, start + 30 * second), 3);
        // Back: nothing is given for the time alone, nor taken for what others did in it.
        throttle.heard(start + 30 * second, sum(7, 40, 0), 6);
        assert_eq!(left(&throttle, start + 30 * second), 0);
        assert_eq!(left(&throttle, start + 35 * second), 5);
        // A limit smaller than the parts admits one at a time.
        let throttle = Throttle::per_minute(2);
        throttle.alone(start, 5);
        assert_eq!(left(&throttle, start), 1);
        assert_eq!(left(&throttle, start + 149 * second), 0);
        assert_eq!(left(&throttle, start + 150 * second), 1);
    }
}
