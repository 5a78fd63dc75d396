//! Limits how many requests per minute a vendor answers.

use parking_lot::Mutex;

use super::options::RateHeaders;
use crate::clock::{Duration, Instant};

/// Length of the window in which requests are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// One vendor's quota: a window of a minute that begins with its first request.
#[derive(Debug)]
pub(super) struct Quota {
    limit: Option<u32>,
    window: Mutex<Option<(Instant, u32)>>,
}

/// The state of the quota after one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QuotaReading {
    pub(super) allowed: bool,
    limit: u32,
    remaining: u32,
    /// Whole seconds until the window ends, at least one.
    pub(super) reset_s: u64,
}

impl Quota {
    pub(super) fn new(limit: Option<u32>) -> Self {
        Self {
            limit,
            window: Mutex::new(None),
        }
    }

    /// Counts one request. `None` if the quota is unlimited.
    pub(super) fn take(&self, now: Instant) -> Option<QuotaReading> {
        let limit = self.limit?;
        let mut window = self.window.lock();
        let (since, used) = match *window {
            Some((since, used)) if now.saturating_duration_since(since) < WINDOW => (since, used),
            _ => (now, 0),
        };
        let allowed = used < limit;
        let used = if allowed { used + 1 } else { used };
        *window = Some((since, used));
        let left = WINDOW.saturating_sub(now.saturating_duration_since(since));
        let reset_s = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(QuotaReading {
            allowed,
            limit,
            remaining: limit - used,
            reset_s: reset_s.max(1),
        })
    }

    /// Resets the window.
    pub(super) fn reset(&self) {
        *self.window.lock() = None;
    }
}

impl QuotaReading {
    /// Returns the headers.
    pub(super) fn headers(&self, form: RateHeaders) -> Vec<(&'static str, String)> {
        let Self {
            limit,
            remaining,
            reset_s,
            ..
        } = self;
        let three = |names: [&'static str; 3]| {
            let values = [
                limit.to_string(),
                remaining.to_string(),
                reset_s.to_string(),
            ];
            names.into_iter().zip(values).collect()
        };
        match form {
            RateHeaders::None => Vec::new(),
            RateHeaders::Structured => vec![
                (
                    "ratelimit",
                    format!("\"default\";r={remaining};t={reset_s}"),
                ),
                (
                    "ratelimit-policy",
                    format!("\"default\";q={limit};w={}", WINDOW.as_secs()),
                ),
            ],
            RateHeaders::Separate => {
                three(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"])
            }
            RateHeaders::Legacy => three([
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_its_number_of_requests() {
        let quota = Quota::new(Some(3));
        let start = Instant::now();
        for remaining in [2, 1, 0] {
            let reading = quota.take(start).unwrap();
            assert_eq!((reading.allowed, reading.remaining), (true, remaining));
        }
        let late = start + Duration::from_millis(20_500);
        let refused = quota.take(late).unwrap();
        assert_eq!((refused.allowed, refused.reset_s), (false, 40));
        assert_eq!(
            refused.headers(RateHeaders::Legacy)[2],
            ("x-ratelimit-reset", "40".to_owned())
        );
        assert_eq!(
            refused.headers(RateHeaders::Structured)[0].1,
            "\"default\";r=0;t=40"
        );
        assert!(refused.headers(RateHeaders::None).is_empty());
        assert!(!quota.take(start + Duration::from_secs(59)).unwrap().allowed);
        assert!(quota.take(start + Duration::from_secs(60)).unwrap().allowed);
        quota.reset();
        assert_eq!(quota.take(late).unwrap().remaining, 2);
        assert_eq!(Quota::new(None).take(start), None);
    }
}
