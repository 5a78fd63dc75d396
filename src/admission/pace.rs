//! Decides how fast a vendor may be called: a token bucket and a limit of concurrent calls for each
//! credential. Calls that must wait are queued by urgency. Pure: the time is an argument.
//!
//! The bucket holds *credit*, a duration. One request costs `60 s / requests_per_minute` of it, and
//! credit grows as time passes. [`Rate`] does the arithmetic.

use std::sync::Arc;

use super::Lane;
use super::places::{Felt, Places};
use super::queue::{Queue, WaiterId};
use super::ramp::Ramp;
use super::rate::{Bounds, Learned, Rate};
use super::remembered::PaceMemory;
use crate::clock::{Duration, Instant};
use crate::domain::Shortage;

#[path = "pace_hold.rs"]
mod hold;
#[path = "pace_shared.rs"]
mod shared;

pub use self::hold::HOLD_DOWN_MAX;
use self::hold::Hold;
pub(super) use self::shared::micros;

/// Maximum number of waiting calls for one credential. At 120 requests a minute the last of them
/// would wait two minutes, longer than any deadline.
pub const WAITERS_MAX: usize = 256;
/// Maximum of the usual call time. If a vendor takes longer, its times vary too much to plan with.
const USUAL_MAX: Duration = Duration::from_secs(1);
/// Weight of the average: a new call counts for one part in this many.
const USUAL_OF: u32 = 8;
/// `Retry-After` for a call refused because every place is taken. Places usually become free this
/// soon.
const CROWDED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Settings of a pace: rate and concurrency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceSettings {
    /// Requests per minute, at least 1.
    pub requests_per_minute: u32,
    /// Concurrent requests, at least 1.
    pub concurrency: usize,
    /// Lowest rate, in requests per minute, if the vendor's limit is to be learnt. The rate then
    /// moves between this and `requests_per_minute`. `None`: the rate is `requests_per_minute`.
    pub learn_down_to: Option<u32>,
    /// Whether fewer concurrent calls are made while the vendor is late. `concurrency` is then the
    /// maximum.
    pub concurrency_adaptive: bool,
    /// The longest wait that the vendor's headers may ask for.
    pub hold_down_max: Duration,
}

impl PaceSettings {
    /// Returns the bounds of one part in `of`.
    fn bounds(self, of: u32) -> Bounds {
        let ceiling = Rate::per_minute(self.requests_per_minute).part(of);
        Bounds {
            floor: self.learn_down_to.map_or(ceiling, |floor| {
                Rate::per_minute(floor).part(of).min(ceiling)
            }),
            ceiling,
        }
    }

    /// Returns the places of one part in `of`, at least one.
    fn places(self, of: u32) -> usize {
        let of = usize::try_from(of.max(1)).unwrap_or(usize::MAX);
        (self.concurrency / of).max(1)
    }
}

/// Where the budget is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purse {
    /// In this gateway, which has one part in `of`.
    Own {
        /// 1: the whole budget.
        of: u32,
    },
    /// In the store, for all gateways. Credit and hold-downs here are those of its last reply. No
    /// call goes out before the store has granted it.
    Shared {
        /// The store is not asked before this. `None`: at any time.
        look_at: Option<Instant>,
    },
}

/// How often a gateway asks the store whether a hold-down was ended elsewhere.
const HOLD_LOOK: Duration = Duration::from_secs(1);

/// Returns how many of `all` places this lane may fill. The rest is reserved for more urgent lanes.
fn places_for(all: usize, lane: Lane) -> usize {
    let kept = match lane {
        Lane::Interactive | Lane::Healing => 0,
        Lane::Refresh => 1,
        Lane::ReadAhead | Lane::Export => (all / 4).max(1),
    };
    all.saturating_sub(kept).max(1)
}

/// A refusal. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceRefusal {
    /// Time after which to try again.
    pub retry_after: Duration,
    /// The resource that was short.
    pub short: Shortage,
}

/// The decision about a call that wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaceDecision {
    /// Send it. It holds a place until [`Pace::release`].
    Admitted,
    /// Send it as a probe, although a hold-down is running. It holds a place too. If the vendor
    /// answers, [`Pace::resume`] ends the hold-down. With [`Purse::Shared`], the store decides
    /// whether it may be sent.
    Probe,
    /// Wait in the queue under this id.
    Queued(WaiterId),
    /// Do not send it.
    Refused(PaceRefusal),
}

/// The decision about a call that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// Send it. It holds a place.
    Admitted(WaiterId),
    /// Do not send it.
    Refused(WaiterId, PaceRefusal),
}

/// State of a pace, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceSnapshot {
    /// The settings in force.
    pub settings: PaceSettings,
    /// Rate in force, in requests per minute: configured or learnt.
    pub rate_limit: u32,
    /// Concurrent requests in force: configured, or what the vendor can handle.
    pub concurrency_limit: usize,
    /// Number of requests that could go now.
    pub remaining: u32,
    /// The same for each lane. Less urgent lanes leave a share to more urgent ones.
    pub remaining_by_lane: [(Lane, u32); Lane::ALL.len()],
    /// Number of requests that could go at once after a quiet time.
    pub burst: u32,
    /// Requests in flight.
    pub in_flight: usize,
    /// Number of waiting calls in each lane.
    pub queued: [(Lane, usize); Lane::ALL.len()],
    /// Rest of the hold-down, if one is running.
    pub hold_down: Option<Duration>,
    /// While the vendor recovers: the share of the rate for background work, in percent, and the
    /// time until it has all of it.
    pub ramp: Option<(u8, Duration)>,
}

/// The pace of one vendor credential.
#[derive(Debug)]
pub struct Pace {
    settings: PaceSettings,
    /// The rate in force.
    rate: Rate,
    learned: Learned,
    places: Places,
    credit: Duration,
    /// Time up to which credit was counted. It is in the future during a hold-down.
    counted: Instant,
    in_flight: usize,
    queue: Queue,
    next_id: WaiterId,
    hold: Option<Hold>,
    /// Number of 429 answers in a row, each after a hold-down of its own. While it is not zero, one
    /// request goes at a time.
    strikes: u32,
    /// Whether the stored state of an earlier process has still to be loaded.
    unread: bool,
    /// Set while the vendor recovers.
    ramp: Option<Ramp>,
    /// Average time of recent calls.
    usual: Duration,
    purse: Purse,
    /// Credit that was spent while the store was away, and is to be paid back.
    owed: Duration,
}

impl Pace {
    /// Creates a pace with a full bucket.
    pub fn new(settings: PaceSettings, now: Instant) -> Self {
        let rate = settings.bounds(1).ceiling;
        Self {
            settings,
            rate,
            learned: Learned::default(),
            places: Places::default(),
            credit: rate.credit_max(),
            counted: now,
            in_flight: 0,
            queue: Queue::default(),
            next_id: 0,
            hold: None,
            strikes: 0,
            unread: false,
            ramp: None,
            usual: Duration::ZERO,
            purse: Purse::Own { of: 1 },
            owed: Duration::ZERO,
        }
    }

    /// Changes the settings. The rest of the burst stays the same number of requests.
    pub fn set(&mut self, settings: PaceSettings, now: Instant) {
        self.count(now);
        self.settings = settings;
        if settings.learn_down_to.is_none() {
            self.learned = Learned::default();
        }
        if !settings.concurrency_adaptive {
            self.places = Places::default();
        }
        self.reprice(now);
    }

    /// Stops all calls until [`Self::go_on`], because what the vendor said to an earlier process is
    /// not loaded yet.
    pub(super) fn begin_unread(&mut self, now: Instant) {
        self.count(now);
        self.credit = Duration::ZERO;
        self.unread = true;
    }

    /// Returns the part of the state that outlives the process.
    pub(super) fn memory(&self, now: Instant) -> PaceMemory {
        let stop = self.hold.filter(|hold| hold.until > now);
        PaceMemory {
            stop: stop.map(|hold| (hold.until.saturating_duration_since(now), hold.refuses)),
            strikes: self.strikes,
        }
    }

    /// Continues from the stored state of an earlier process, which ended `idle` before this one
    /// began.
    pub(super) fn go_on(&mut self, now: Instant, memory: PaceMemory, idle: Duration) {
        self.count(now);
        self.unread = false;
        self.credit = self.credit.saturating_add(idle).min(self.rate.credit_max());
        self.strikes = self.strikes.max(memory.strikes);
        if let Some((left, refuses)) = memory.stop {
            let left = left.min(self.settings.hold_down_max);
            self.stop_until(now, now + left, refuses);
        }
    }

    /// Decides whether a request may be sent.
    ///
    /// Refuses at once if the wait would certainly end after `deadline`, or so shortly before it
    /// that the answer would be late.
    pub fn ask(
        &mut self,
        now: Instant,
        lane: Lane,
        caller: &Arc<str>,
        deadline: Instant,
    ) -> (PaceDecision, Option<Called>) {
        self.count(now);
        if now < deadline && self.may_probe(now) {
            return (PaceDecision::Probe, None);
        }
        if let Some(refusal) = self.stopped(now) {
            return (PaceDecision::Refused(refusal), None);
        }
        if now >= deadline {
            let refusal = PaceRefusal {
                retry_after: Duration::ZERO,
                short: Shortage::Time,
            };
            return (PaceDecision::Refused(refusal), None);
        }
        let more_urgent_wait = self.queue.front().is_some_and(|(first, _)| first <= lane);
        if !more_urgent_wait && self.admits(now, lane) {
            self.take(lane);
            return (PaceDecision::Admitted, None);
        }
        let wait = self.wait_of(now, lane, self.queue.ahead_of(lane, caller));
        if now + wait + self.usual >= deadline {
            let refusal = PaceRefusal {
                retry_after: wait,
                short: match self.hold.is_some_and(|hold| hold.until > now) {
                    true => Shortage::VendorHoldDown,
                    false => Shortage::VendorBudget,
                },
            };
            return (PaceDecision::Refused(refusal), None);
        }
        let mut displaced = None;
        if self.queue.len() >= WAITERS_MAX {
            let refusal = PaceRefusal {
                retry_after: wait.max(CROWDED_RETRY_AFTER),
                short: Shortage::VendorWaiters,
            };
            match self.queue.displace_for(lane, caller) {
                None => return (PaceDecision::Refused(refusal), None),
                Some(id) => displaced = Some(Called::Refused(id, refusal)),
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        self.queue.push(lane, caller, id);
        (PaceDecision::Queued(id), displaced)
    }

    /// Returns the minimum wait if `others` more calls were queued ahead, the last of them in lane
    /// `last`. `Some` only if [`Self::ask`] would refuse the request because of them. Ignores a
    /// hold-down: a request that comes before its end is refused anyway.
    pub fn too_long(
        &mut self,
        now: Instant,
        lane: Lane,
        caller: &Arc<str>,
        (others, last): (usize, Lane),
        deadline: Instant,
    ) -> Option<Duration> {
        self.count(now);
        if self.stopped(now).is_some() {
            return None;
        }
        let ahead = self.queue.ahead_of(lane, caller).saturating_add(others);
        let mut wait = self.wait_of(now, lane, ahead);
        if others > 0 {
            // Less urgent lanes leave a part of the burst. If the last call is one of them, that
            // part stays unused.
            wait = wait.max(self.bucket_wait(now, last, ahead - 1));
        }
        (now + wait + self.usual >= deadline).then_some(wait)
    }

    /// Admits or refuses the waiters that need not wait any longer. Call this after every change.
    pub fn advance(&mut self, now: Instant) -> Vec<Called> {
        self.count(now);
        let mut called = Vec::new();
        let stopped = self.stopped(now);
        while let Some((lane, id)) = self.queue.front() {
            if let Some(refusal) = stopped {
                called.push(Called::Refused(id, refusal));
            } else if self.admits(now, lane) {
                self.take(lane);
                called.push(Called::Admitted(id));
            } else {
                break;
            }
            self.queue.pop();
        }
        called
    }

    /// Returns the next waiter and when it may go if nothing but time passes. The time is `None` if
    /// a place must become free first.
    pub fn next(&self, now: Instant) -> Option<(WaiterId, Option<Instant>)> {
        let (lane, id) = self.queue.front()?;
        let free = self.in_flight < self.places_for(lane);
        let mut at = now + self.wait_of(now, lane, 0);
        if let Purse::Shared {
            look_at: Some(look_at),
        } = self.purse
        {
            at = at.max(look_at);
        }
        // The vendor's own count may be reset before that, which changes the rate.
        let at = self.learned.told_until(now).map_or(at, |over| at.min(over));
        Some((id, free.then_some(at)))
    }

    /// Moves a waiter to another lane, behind the others of its payer there.
    pub fn yield_to_others(&mut self, id: WaiterId, lane: Lane, caller: &Arc<str>) {
        if self.queue.remove(id) {
            self.queue.push(lane, caller, id);
        }
    }

    /// Removes a waiter.
    pub fn leave(&mut self, id: WaiterId) {
        self.queue.remove(id);
    }

    /// Records that a request ended. `sent` is false if it never went out, so that it costs
    /// nothing.
    pub fn release(&mut self, sent: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Purse::Shared { look_at } = &mut self.purse
            && self.hold.is_none()
        {
            // Its place in the store is free too.
            *look_at = None;
        }
        if !sent {
            self.credit = (self.credit + self.rate.cost()).min(self.rate.credit_max());
            self.owed = self.owed.saturating_sub(self.rate.cost());
        }
    }

    /// Records how a request went that began at `began`. It still holds its place.
    pub fn felt(&mut self, now: Instant, felt: Felt, began: Instant) {
        if felt != Felt::Nothing {
            let took = now.saturating_duration_since(began).min(USUAL_MAX);
            self.usual = (self.usual * (USUAL_OF - 1) + took) / USUAL_OF;
        }
        if self.settings.concurrency_adaptive {
            let (in_flight, max) = (self.in_flight, self.places_max());
            self.places.heard(felt, began, now, in_flight, max);
        }
    }

    /// Restarts the budget after an outage: the vendor gets requests at the rate, without a burst
    /// on top. Background work gets its share back step by step.
    pub fn begin_anew(&mut self, now: Instant) {
        self.count(now);
        self.credit = self.credit.min(self.rate.cost());
        self.ramp = Some(Ramp::new(now));
    }

    /// Returns the state for operators.
    pub fn snapshot(&mut self, now: Instant) -> PaceSnapshot {
        self.count(now);
        let hold_down = self
            .hold
            .map(|hold| hold.until.saturating_duration_since(now))
            .filter(|left| !left.is_zero());
        let cost = self.rate.cost();
        let whole = |credit: Duration| match hold_down {
            Some(_) => 0,
            None => u32::try_from(credit.as_nanos() / cost.as_nanos().max(1)).unwrap_or(u32::MAX),
        };
        PaceSnapshot {
            settings: self.settings,
            rate_limit: self.rate.whole(),
            concurrency_limit: self.places.limit(self.places_max()),
            remaining: whole(self.credit),
            remaining_by_lane: Lane::ALL.map(|lane| {
                let reserve = self.rate.needed(lane).saturating_sub(cost);
                (lane, whole(self.credit.saturating_sub(reserve)))
            }),
            burst: self.rate.burst(),
            in_flight: self.in_flight,
            queued: Lane::ALL.map(|lane| (lane, self.queue.len_of(lane))),
            hold_down,
            ramp: self.ramp.map(|ramp| ramp.standing(now)),
        }
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.credit = (self.credit + passed).min(self.rate.credit_max());
        self.counted = self.counted.max(now);
        // The vendor's own count may have been reset.
        self.reprice(now);
        let cost = self.rate.cost();
        if let Some(ramp) = &mut self.ramp {
            ramp.count(now, cost);
            if ramp.is_over(now, cost) {
                // Credit saved up during the ramp must not become a burst for background work.
                self.credit = self.credit.min(cost);
                self.ramp = None;
            }
        }
    }

    fn bounds(&self) -> Bounds {
        self.settings.bounds(self.part())
    }

    fn places_max(&self) -> usize {
        self.settings.places(self.part())
    }

    /// Returns the number of equal parts of the budget of which this gateway has one.
    fn part(&self) -> u32 {
        match self.purse {
            Purse::Own { of } => of,
            Purse::Shared { .. } => 1,
        }
    }

    fn learns(&self) -> bool {
        self.settings.learn_down_to.is_some()
    }

    /// Applies the rate that is in force now. The rest of the burst stays the same number of
    /// requests.
    fn reprice(&mut self, now: Instant) {
        let bounds = self.bounds();
        let rate = match self.settings.learn_down_to {
            None => bounds.ceiling,
            Some(_) => self.learned.rate(bounds, now),
        };
        if rate != self.rate {
            let requests = self.credit.as_secs_f64() / self.rate.cost().as_secs_f64();
            self.rate = rate;
            self.credit = rate.cost().mul_f64(requests).min(rate.credit_max());
        }
    }

    /// Returns the resource that a waiting call of `lane` is short of.
    pub fn short_of(&self, lane: Lane) -> Shortage {
        match self.in_flight < self.places_for(lane) {
            true => Shortage::VendorBudget,
            false => Shortage::VendorPlaces,
        }
    }

    fn places_for(&self, lane: Lane) -> usize {
        if self.unread {
            return 0;
        }
        if self.strikes > 0 {
            // After a 429, one request at a time tests whether the vendor accepts calls again.
            return 1;
        }
        places_for(self.places.limit(self.places_max()), lane)
    }

    /// Returns whether this gateway may admit a call without the store.
    fn admits(&self, now: Instant, lane: Lane) -> bool {
        !self.is_shared() && self.is_ready(now, lane)
    }

    fn is_ready(&self, now: Instant, lane: Lane) -> bool {
        self.hold.is_none_or(|hold| hold.until <= now)
            && self.in_flight < self.places_for(lane)
            && self.credit >= self.rate.needed(lane)
            && self.ramp_wait(now, lane, 0).is_zero()
    }

    /// Returns the time until the ramp admits a call of `lane` behind `ahead` others.
    fn ramp_wait(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let Some(ramp) = self.ramp.filter(|_| !lane.is_interactive()) else {
            return Duration::ZERO;
        };
        let others = ahead.saturating_sub(self.queue.len_of(Lane::Interactive));
        let calls = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
        ramp.wait(now, self.rate.cost().saturating_mul(calls))
    }

    fn take(&mut self, lane: Lane) {
        if let Some(ramp) = self.ramp.as_mut().filter(|_| !lane.is_interactive()) {
            ramp.take(self.rate.cost());
        }
        self.in_flight += 1;
        self.credit = self.credit.saturating_sub(self.rate.cost());
        if self.part() > 1 {
            self.owed += self.rate.cost();
        }
    }

    /// Returns the minimum time until a call of `lane` behind `ahead` others may go.
    fn wait_of(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let bucket = self.bucket_wait(now, lane, ahead);
        bucket.max(self.ramp_wait(now, lane, ahead))
    }

    /// Returns the same for the rate alone.
    fn bucket_wait(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let before = u32::try_from(ahead).unwrap_or(u32::MAX);
        let needed = self.rate.needed(lane) + self.rate.cost().saturating_mul(before);
        // During a hold-down, `counted` is in the future by the rest of it.
        self.counted.saturating_duration_since(now) + needed.saturating_sub(self.credit)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
pub(super) mod tests;
