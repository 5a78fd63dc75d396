//! The part of a pace that a vendor decides: its 429 answers, its counts, and the waits that it
//! asks for.

use super::{HOLD_LOOK, Lane, Pace, PaceRefusal, Purse, Ramp};
use crate::clock::{Duration, Instant};
use crate::domain::Shortage;

/// Hold-down after a 429 that names no time. It doubles with each further 429 in a row.
const HOLD_FIRST: Duration = Duration::from_secs(5);
/// Maximum of the doubled hold-down.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Default for the longest hold-down that a vendor's headers may ask for. A wrong header must not
/// stop calls to a vendor for hours.
pub const HOLD_DOWN_MAX: Duration = Duration::from_secs(600);
/// In a longer hold-down, one call goes out at this interval to see whether the vendor accepts
/// calls again.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// Minimum hold-down, even if the vendor named a shorter one.
const HOLD_MIN: Duration = Duration::from_secs(1);

/// A wait that the vendor asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// When it ends.
    pub until: Instant,
    /// After a 429, every call is refused. While the vendor's count is only exhausted, calls with
    /// enough time wait.
    pub refuses: bool,
    /// When the next probe goes.
    pub probe_at: Instant,
    /// Whether a probe is out.
    pub probed: bool,
    /// Whether the store that keeps the budget knows of it.
    pub confirmed: bool,
}

impl Pace {
    /// Records a 429. Returns the time for which no call will go out.
    pub fn rate_limited(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        self.count(now);
        let holding = self.hold.filter(|hold| hold.until > now);
        // The 429 answers of requests that were in flight together count as one.
        if !holding.is_some_and(|hold| hold.refuses) {
            // A 429 to the first call after a hold-down says nothing new about the rate.
            if self.strikes == 0 && self.learns() {
                self.learned.refused(self.rate);
                self.reprice(now);
            }
            self.strikes = self.strikes.saturating_add(1);
        }
        let doubled = HOLD_FIRST * 2u32.saturating_pow(self.strikes.saturating_sub(1).min(8));
        let hold = retry_after.unwrap_or(doubled.min(HOLD_MAX));
        let hold = hold.min(self.settings.hold_down_max).max(HOLD_MIN);
        let until = holding.map_or(now + hold, |old| old.until.max(now + hold));
        self.stop_until(now, until, true);
        until.saturating_duration_since(now)
    }

    /// Records an answer with another status than 429.
    pub fn answered(&mut self, now: Instant) {
        if self.strikes > 0 && self.hold.is_none_or(|hold| hold.until <= now) {
            self.strikes = 0;
            self.ramp = Some(Ramp::new(now));
        }
        if self.learns() {
            self.count(now);
            self.learned.answered(self.bounds());
            self.reprice(now);
        }
    }

    /// Records how many more requests the vendor says it will accept.
    pub fn told_remaining(&mut self, now: Instant, requests: u64, reset: Option<Duration>) {
        self.count(now);
        let reset = reset.map(|reset| reset.min(self.settings.hold_down_max));
        if let Some(reset) = reset
            && self.learns()
        {
            self.learned.told(now, requests, reset);
            self.reprice(now);
        }
        if self.hold.is_some_and(|hold| hold.until > now) {
            // The count is reset by the end of the hold-down, so it says nothing about the time
            // after it.
            return;
        }
        let burst = u64::from(self.rate.burst());
        let left = u32::try_from(requests.min(burst)).unwrap_or(u32::MAX);
        self.credit = self.credit.min(self.rate.cost() * left);
        if let (0, Some(reset)) = (requests, reset) {
            self.stop_until(now, now + reset, false);
        }
    }

    /// Ends a wait that the vendor asked for. Returns the rest of that wait, or `None` if there was
    /// none.
    ///
    /// After a 429, one call at a time goes until the vendor answers one of them.
    pub fn resume(&mut self, now: Instant) -> Option<Duration> {
        self.count(now);
        let left = self.hold.take()?.until.saturating_duration_since(now);
        self.counted = now;
        self.learned.forget_told();
        self.reprice(now);
        (!left.is_zero()).then_some(left)
    }

    /// Returns the longest wait that the gateway accepts from a vendor's headers.
    pub fn hold_down_max(&self) -> Duration {
        self.settings.hold_down_max
    }

    /// Returns whether a probe may go now in a long hold-down. Counts it if so.
    pub(super) fn may_probe(&mut self, now: Instant) -> bool {
        let free = self.in_flight < self.places_for(Lane::Interactive);
        if let Purse::Shared { look_at } = &mut self.purse {
            let holds = self.hold.is_some_and(|hold| hold.until > now);
            let due = free && holds && look_at.is_none_or(|at| at <= now);
            if due {
                *look_at = Some(now + HOLD_LOOK);
                self.in_flight += 1;
            }
            return due;
        }
        let Some(hold) = &mut self.hold else {
            return false;
        };
        if !free || hold.until <= now || hold.probe_at > now {
            return false;
        }
        hold.probe_at = now + PROBE_EVERY;
        hold.probed = true;
        self.take(Lane::Interactive);
        true
    }

    /// Checks whether a call that was admitted earlier may still be sent.
    ///
    /// # Errors
    /// Refuses during a hold-down, until a probe goes. After that no other call can be on its way.
    pub fn may_still_send(&self, now: Instant) -> Result<(), PaceRefusal> {
        match self.stopped(now) {
            Some(refusal) if !self.hold.is_some_and(|hold| hold.probed) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Starts a hold-down. One request may go at its end, if the rate allows it. Credit grows from
    /// there.
    pub(super) fn stop_until(&mut self, now: Instant, until: Instant, refuses: bool) {
        let running = self.hold.filter(|hold| hold.until > now);
        self.hold = Some(Hold {
            until,
            refuses,
            probe_at: running.map_or(now + PROBE_EVERY, |hold| hold.probe_at),
            probed: running.is_some_and(|hold| hold.probed),
            confirmed: running.is_some_and(|hold| hold.confirmed && hold.until >= until),
        });
        let passed = until.saturating_duration_since(self.counted);
        self.credit = (self.credit + passed).min(self.rate.cost());
        self.counted = until;
    }

    /// Returns the refusal for every call, if a hold-down is running.
    pub fn stopped(&self, now: Instant) -> Option<PaceRefusal> {
        let hold = self.hold.filter(|h| h.refuses && h.until > now)?;
        Some(PaceRefusal {
            retry_after: hold.until.saturating_duration_since(now),
            short: Shortage::VendorHoldDown,
        })
    }
}
