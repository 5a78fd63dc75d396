//! The `Date` of answers after the machine's clock was set back.
//!
//! hyper writes `Date` from a text that it renews once a second, but only while the clock advances:
//! when the clock is set back by two hours, its `Date` stands still for two hours. hyper keeps a
//! `Date` that it is handed, so for as long as the clock is behind the latest time that was seen,
//! answers get theirs here. Otherwise an answer costs one look at a flag.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::clock::{self, Clock, Duration};

/// How often the clock is compared with the latest time that was seen: `Date` has whole seconds.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// The one of this process, as its clock and hyper's text are.
pub static DATES: Dates = Dates::new();

/// Knows whether the wall clock was set back.
#[derive(Debug)]
pub struct Dates {
    /// The latest time that was seen, in seconds.
    latest_s: AtomicI64,
    behind: AtomicBool,
}

impl Dates {
    const fn new() -> Self {
        Self {
            latest_s: AtomicI64::new(i64::MIN),
            behind: AtomicBool::new(false),
        }
    }

    /// Compares the clock once a second, for as long as it is polled.
    pub async fn keep(&self, clock: &Clock) -> Infallible {
        loop {
            self.compare(clock.wall());
            clock::sleep(COMPARE_EVERY).await;
        }
    }

    /// Notes the time.
    pub fn compare(&self, now: Timestamp) {
        let now_s = now.as_second();
        let latest_s = self.latest_s.fetch_max(now_s, Ordering::Relaxed);
        self.behind.store(now_s < latest_s, Ordering::Relaxed);
    }

    /// Adds `Date` if hyper would write a time that has not come yet.
    pub fn correct(&self, headers: &mut HeaderMap, clock: &Clock) {
        if self.behind.load(Ordering::Relaxed)
            && let Some(date) = of(clock.wall())
        {
            headers.insert(header::DATE, date);
        }
    }
}

/// The value of `Date` at this time.
fn of(now: Timestamp) -> Option<HeaderValue> {
    let text = DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&now)
        .ok()?;
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What answers are given while the clock says the last of these times.
    fn date(times: &[&str]) -> Option<String> {
        let dates = Dates::new();
        let mut headers = HeaderMap::new();
        for time in times {
            let clock = Clock::anchored(time.parse().unwrap());
            dates.compare(clock.wall());
            headers.clear();
            dates.correct(&mut headers, &clock);
        }
        let value = headers.get(header::DATE)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_date_is_handed_on_only_while_the_clock_is_behind() {
        let (noon, two) = ("2026-11-22T12:00:00Z", "2026-11-22T14:00:00Z");
        let at = |text: &str| Some(text.to_owned());
        for (times, expected) in [
            (vec![noon], None),
            (vec![noon, two], None),
            (vec![two, noon], at("Sun, 22 Nov 2026 12:00:00 GMT")),
            // Set back twice.
            (
                vec![two, noon, "2026-11-01T00:00:09Z"],
                at("Sun, 01 Nov 2026 00:00:09 GMT"),
            ),
            // Caught up again.
            (vec![two, noon, two], None),
            (
                vec![two, "1970-01-01T00:00:00Z"],
                at("Thu, 01 Jan 1970 00:00:00 GMT"),
            ),
        ] {
            assert_eq!(date(&times), expected, "{times:?}");
        }
    }
}
