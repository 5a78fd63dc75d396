//! The only reader of time.
//!
//! Everything else asks a [`Clock`] (or awaits one of the functions here), so that tests run in
//! paused time: `Instant` is tokio's, and an anchored clock derives the wall time from it.

use std::sync::Arc;

use jiff::Timestamp;

pub use std::time::Duration;
pub use tokio::time::{
    Instant, MissedTickBehavior, Sleep, interval, sleep, sleep_until, timeout, timeout_at,
};

/// Reads monotonic and wall time.
///
/// Lifetimes and ages are always counted in monotonic time, so a jump of the wall clock changes no
/// age; the wall clock is read for calendar questions (which day is today) and for logs only.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Shared, so that a clock is one word: every connection holds one.
    anchor: Option<Arc<(Instant, Timestamp)>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { anchor: None }
    }

    /// A clock whose wall time is `at` now and then advances with the monotonic time, so that
    /// paused time moves both.
    pub fn anchored(at: Timestamp) -> Self {
        Self {
            anchor: Some(Arc::new((Instant::now(), at))),
        }
    }

    /// Monotonic now.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall-clock now.
    pub fn wall(&self) -> Timestamp {
        match self.anchor.as_deref() {
            None => Timestamp::now(),
            Some((since, at)) => {
                let elapsed = jiff::SignedDuration::try_from(since.elapsed())
                    .unwrap_or(jiff::SignedDuration::MAX);
                at.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The calendar day of now in `zone`.
    pub fn today(&self, zone: &jiff::tz::TimeZone) -> jiff::civil::Date {
        zone.to_datetime(self.wall()).date()
    }
}

/// Time since the machine was booted, as the service manager counts it.
pub fn monotonic_since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}
