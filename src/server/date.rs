//! Corrects the `Date` of answers after the machine's clock was set back.
//!
//! hyper writes `Date` from a text that it renews once a second, but only while the clock advances.
//! If the clock is set back by two hours, that text does not change for two hours. hyper keeps a
//! `Date` that an answer already has. So while the clock is behind the latest time seen, answers
//! get their `Date` here. At all other times an answer costs the check of one flag.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::clock::{self, Clock, Duration};

/// How often the clock is compared with the latest time seen. `Date` has whole seconds.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// The state of this process, which has one clock and one text of hyper's.
pub static DATES: Dates = Dates::new();

/// Records whether the wall clock was set back.
#[derive(Debug)]
pub struct Dates {
    /// The latest time seen, in seconds.
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

    /// Records the time.
    pub fn compare(&self, now: Timestamp) {
        let now_s = now.as_second();
        let latest_s = self.latest_s.fetch_max(now_s, Ordering::Relaxed);
        self.behind.store(now_s < latest_s, Ordering::Relaxed);
    }

    /// Adds `Date` if hyper would write a time in the future.
    pub fn correct(&self, headers: &mut HeaderMap, clock: &Clock) {
        if self.behind.load(Ordering::Relaxed)
            && let Some(date) = of(clock.wall())
        {
            headers.insert(header::DATE, date);
        }
    }
}

/// Returns the value of `Date` at this time.
fn of(now: Timestamp) -> Option<HeaderValue> {
    let text = DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&now)
        .ok()?;
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the `Date` of answers after the clock has shown these times in turn.
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
            // The clock is set back twice.
            (
                vec![two, noon, "2026-11-01T00:00:09Z"],
                at("Sun, 01 Nov 2026 00:00:09 GMT"),
            ),
            // The clock has caught up.
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
