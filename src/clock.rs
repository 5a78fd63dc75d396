//! The only reader of time.
//!
//! Everything else asks a [`Clock`] (or awaits one of the functions here), so that tests run in
//! paused time: `Instant` is tokio's, and an anchored clock derives the wall time from it.

use std::sync::{Arc, LazyLock};

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
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self { anchor: None }
    }

    /// Creates a clock whose wall time is `at` now and then advances with the monotonic time, so
    /// that paused time moves both.
    pub fn anchored(at: Timestamp) -> Self {
        Self {
            anchor: Some(Arc::new((Instant::now(), at))),
        }
    }

    /// Returns the monotonic time.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Returns the wall-clock time.
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

    /// Returns this moment in a form that outlives the process.
    pub fn stamp(&self) -> Stamp {
        let wall_ms = self.wall().as_millisecond();
        match self.anchor.as_deref() {
            None => Stamp {
                boot: *BOOT,
                since_boot_ms: millis(since_boot()),
                wall_ms,
            },
            Some((since, _)) => Stamp {
                boot: ANCHORED_BOOT,
                since_boot_ms: millis(since.elapsed()),
                wall_ms,
            },
        }
    }

    /// Returns the stamp of a moment that has passed.
    pub fn stamp_of(&self, at: Instant) -> Stamp {
        self.stamp()
            .earlier(self.now().saturating_duration_since(at))
    }

    /// Returns the moment of a stamp in this process's time. `None` where its age is unknown.
    pub fn instant_of(&self, stamp: &Stamp) -> Option<Instant> {
        self.now().checked_sub(stamp.age(&self.stamp())?)
    }

    /// Returns the calendar day of now in `zone`.
    pub fn today(&self, zone: &jiff::tz::TimeZone) -> jiff::civil::Date {
        zone.to_datetime(self.wall()).date()
    }
}

/// Ages beyond this are taken for a clock that was set wrong: no setting lets an answer live as
/// long.
const AGE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The boot id of clocks that tests anchor.
const ANCHORED_BOOT: [u8; 16] = [0xA7; 16];
/// The boot id where the system does not say: equal to no other, not even to itself.
const UNKNOWN_BOOT: [u8; 16] = [0; 16];

/// The system's name for this run of the machine.
static BOOT: LazyLock<[u8; 16]> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = text.trim().replace('-', "");
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() == 32 => id.to_be_bytes(),
        _ => UNKNOWN_BOOT,
    }
});

/// A moment in a form that outlives the process: which run of the machine it was in, the time since
/// that run began, and the wall clock.
///
/// Ages are taken from the time since boot where the run is the same, so that a wall clock that
/// jumps changes nothing. After a reboot the wall clock is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    boot: [u8; 16],
    since_boot_ms: u64,
    wall_ms: i64,
}

impl Stamp {
    /// Length of [`Self::to_bytes`].
    pub const BYTES: usize = 32;

    /// Returns the time from this moment to `now`. `None` if it is unknown: negative, or longer
    /// than any answer may live, as after a clock that was set wrong.
    pub fn age(&self, now: &Self) -> Option<Duration> {
        let ms = if self.boot == now.boot && self.boot != UNKNOWN_BOOT {
            now.since_boot_ms.checked_sub(self.since_boot_ms)?
        } else {
            u64::try_from(now.wall_ms.checked_sub(self.wall_ms)?).ok()?
        };
        let age = Duration::from_millis(ms);
        (age <= AGE_MAX).then_some(age)
    }

    /// Returns the moment `by` before this one.
    #[must_use]
    pub fn earlier(self, by: Duration) -> Self {
        let ms = millis(by);
        Self {
            since_boot_ms: self.since_boot_ms.saturating_sub(ms),
            wall_ms: self
                .wall_ms
                .saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)),
            ..self
        }
    }

    /// Returns the moment `by` after this one.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        let ms = millis(by);
        Self {
            since_boot_ms: self.since_boot_ms.saturating_add(ms),
            wall_ms: self
                .wall_ms
                .saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)),
            ..self
        }
    }

    /// Returns the milliseconds from the machine's start to this moment.
    pub fn since_boot_ms(&self) -> u64 {
        self.since_boot_ms
    }

    /// Returns the bytes to keep.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let parts = [
            &self.boot[..],
            &self.since_boot_ms.to_le_bytes(),
            &self.wall_ms.to_le_bytes(),
        ];
        let mut bytes = [0; Self::BYTES];
        for (to, from) in bytes.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        bytes
    }

    /// Returns the stamp of such bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (boot, rest) = bytes.split_first_chunk().unwrap_or((&UNKNOWN_BOOT, &[]));
        let (since_boot, rest) = rest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let wall = rest.first_chunk().unwrap_or(&[0; 8]);
        Self {
            boot: *boot,
            since_boot_ms: u64::from_le_bytes(*since_boot),
            wall_ms: i64::from_le_bytes(*wall),
        }
    }
}

/// Returns the time since a file was last written, by the wall clock. `None` if that is unknown or
/// still to come.
pub fn since_written(about: &std::fs::Metadata) -> Option<Duration> {
    about.modified().ok()?.elapsed().ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Time since the machine's start, sleep included.
fn since_boot() -> Duration {
    read_clock(rustix::time::ClockId::Boottime)
}

/// Returns the time since the machine was booted, as the service manager counts it.
pub fn monotonic_since_boot() -> Duration {
    read_clock(rustix::time::ClockId::Monotonic)
}

fn read_clock(id: rustix::time::ClockId) -> Duration {
    let now = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;

    fn stamp(boot: u8, since_boot_ms: u64, wall_ms: i64) -> Stamp {
        Stamp {
            boot: [boot; 16],
            since_boot_ms,
            wall_ms,
        }
    }

    #[test]
    fn ages_survive_reboots_and_clocks_that_jump() {
        let then = stamp(1, 5_000, 100 * DAY);
        let after = |now: Stamp| then.age(&now).map(|age| age.as_millis());
        for (what, now, age) in [
            (
                "the same boot",
                stamp(1, 8_000, 100 * DAY + 3_000),
                Some(3_000),
            ),
            ("wall a day ahead", stamp(1, 8_000, 101 * DAY), Some(3_000)),
            ("wall a day back", stamp(1, 8_000, 99 * DAY), Some(3_000)),
            ("wall in 1970", stamp(1, 8_000, 0), Some(3_000)),
            ("from before itself", stamp(1, 4_000, 100 * DAY), None),
            ("another boot", stamp(2, 10, 100 * DAY + 7_000), Some(7_000)),
            (
                "off for a week",
                stamp(2, 10, 107 * DAY),
                Some(7 * DAY as u128),
            ),
            (
                "another boot, wall a day back",
                stamp(2, 10, 99 * DAY),
                None,
            ),
            ("another boot, wall in 1970", stamp(2, 10, 0), None),
            ("another boot, years ahead", stamp(2, 10, 9_999 * DAY), None),
            (
                "boots unknown",
                stamp(0, 8_000, 100 * DAY + 9_000),
                Some(9_000),
            ),
        ] {
            assert_eq!(after(now), age, "{what}");
        }
        let unknown = stamp(0, 5_000, 100 * DAY);
        assert_eq!(
            unknown.age(&stamp(0, 6_000, 100 * DAY + 2_000)),
            Some(Duration::from_secs(2)),
            "two unknown boots are not one"
        );
        assert_eq!(Stamp::from_bytes(&then.to_bytes()), then);
        assert_eq!(
            then.earlier(Duration::from_secs(2)),
            stamp(1, 3_000, 100 * DAY - 2_000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stamp_leads_back_to_its_moment() {
        let clock = Clock::anchored("2026-11-20T12:00:00Z".parse().unwrap());
        sleep(Duration::from_secs(100)).await;
        let at = clock.now();
        sleep(Duration::from_secs(40)).await;
        assert_eq!(clock.instant_of(&clock.stamp_of(at)), Some(at));
    }
}
