//! How fast a vendor may be called: a token bucket and a limit of calls at once per credential, in
//! front of which callers queue by urgency. Pure: told the time, asked for decisions.
//!
//! The bucket is kept as *credit*, a duration: one request costs `60 s / requests_per_minute` of
//! it, and it grows as time passes. See [`Rate`].

use std::sync::Arc;

use super::Lane;
use super::places::{Felt, Places};
use super::queue::{Queue, WaiterId};
use super::ramp::Ramp;
use super::rate::{Bounds, Learned, Rate};
use super::remembered::PaceMemory;
use crate::clock::{Duration, Instant};
use crate::domain::Shortage;

/// Most who wait for one credential. At 120 requests a minute the last of them would wait two
/// minutes, longer than any deadline.
pub const WAITERS_MAX: usize = 256;
/// Hold-down after a 429 that names no time; doubles with each in a row.
const HOLD_FIRST: Duration = Duration::from_secs(5);
/// Where the doubling ends.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Longest hold-down, whatever the vendor named, by default. A mistaken header must not silence a vendor
/// for hours.
pub const HOLD_DOWN_MAX: Duration = Duration::from_secs(600);
/// In a longer hold-down, one call is let through so often to see whether the vendor takes calls again.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// Shortest hold-down, whatever the vendor named.
const HOLD_MIN: Duration = Duration::from_secs(1);
/// The time that a call usually takes counts for no more than this: a vendor that takes longer varies too
/// much for a guess.
const USUAL_MAX: Duration = Duration::from_secs(1);
/// How many calls it takes until what is usual has followed.
const USUAL_OF: u32 = 8;
/// Said to those who found every place taken: how soon places usually free up.
const CROWDED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How fast and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceSettings {
    /// Requests a minute, at least 1.
    pub requests_per_minute: u32,
    /// Requests at once, at least 1.
    pub concurrency: usize,
    /// Where the vendor's limit is to be learnt: the rate never goes below so many requests a
    /// minute. `requests_per_minute` is the ceiling then. `None`: the rate is that.
    pub learn_down_to: Option<u32>,
    /// Whether fewer calls at once are made while the vendor is late; `concurrency` is the ceiling.
    pub concurrency_adaptive: bool,
    /// The longest wait that the vendor's headers can ask for.
    pub hold_down_max: Duration,
}

impl PaceSettings {
    fn bounds(self) -> Bounds {
        let ceiling = Rate::per_minute(self.requests_per_minute);
        Bounds {
            floor: self
                .learn_down_to
                .map_or(ceiling, |floor| Rate::per_minute(floor).min(ceiling)),
            ceiling,
        }
    }

    fn places(self) -> usize {
        self.concurrency.max(1)
    }
}

/// Requests at once, of `all`, up to which this lane may add one.
fn places_for(all: usize, lane: Lane) -> usize {
    let kept = match lane {
        Lane::Interactive => 0,
        Lane::Refresh => 1,
        Lane::ReadAhead | Lane::Export => (all / 4).max(1),
    };
    all.saturating_sub(kept).max(1)
}

/// Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceRefusal {
    /// When to come back, from now.
    pub retry_after: Duration,
    /// What was short.
    pub short: Shortage,
}

/// The answer to one who asks to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Go; a place is taken until [`Pace::release`].
    Admitted,
    /// Go, although the vendor said to wait; a place is taken likewise. An answer ends the wait:
    /// [`Pace::resume`].
    Probe,
    /// Wait under this name.
    Queued(WaiterId),
    /// Don't.
    Refused(PaceRefusal),
}

/// What a change brought to those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// Go; a place is taken.
    Admitted(WaiterId),
    /// Don't.
    Refused(WaiterId, PaceRefusal),
}

/// What operators see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceSnapshot {
    /// The settings in force.
    pub settings: PaceSettings,
    /// Requests a minute, as configured or as learnt.
    pub rate_limit: u32,
    /// Requests at once, as configured or as the vendor bears.
    pub concurrency_limit: usize,
    /// Requests that could go right now.
    pub remaining: u32,
    /// The same by lane: less urgent ones leave a part to the more urgent.
    pub remaining_by_lane: [(Lane, u32); Lane::ALL.len()],
    /// Requests that could go at once when none went for a while.
    pub burst: u32,
    /// Requests under way.
    pub in_flight: usize,
    /// Waiting, by lane.
    pub queued: [(Lane, usize); Lane::ALL.len()],
    /// Time until the vendor may be called again, if it said stop.
    pub hold_down: Option<Duration>,
    /// While the vendor comes back: the part of the rate that background work has, in percent, and the
    /// time until it has all.
    pub ramp: Option<(u8, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Instant,
    /// After a 429 everyone is refused; while the vendor's count merely resets, those with time wait.
    refuses: bool,
    /// When the next call goes to see whether the wait is over.
    probe_at: Instant,
    /// Whether one went.
    probed: bool,
}

/// The state of one vendor credential.
#[derive(Debug)]
pub struct Pace {
    settings: PaceSettings,
    /// The rate in force.
    rate: Rate,
    learned: Learned,
    places: Places,
    credit: Duration,
    /// Up to when credit was counted; ahead of now while the vendor said stop.
    counted: Instant,
    in_flight: usize,
    queue: Queue,
    next_id: WaiterId,
    hold: Option<Hold>,
    /// 429 answers in a row, each after a hold-down of its own. Above zero one request at a time.
    strikes: u32,
    /// What outlived a process before is not known yet.
    unread: bool,
    /// The vendor came back lately.
    ramp: Option<Ramp>,
    /// How long calls took lately.
    usual: Duration,
}

impl Pace {
    /// Starts with a full bucket.
    pub fn new(settings: PaceSettings, now: Instant) -> Self {
        let rate = settings.bounds().ceiling;
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
        }
    }

    /// Changes rates; the part of the burst that is left stays the same number of requests.
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

    /// Nothing goes before [`Self::go_on`]: what the vendor said to a process before is not known yet.
    pub(super) fn begin_unread(&mut self, now: Instant) {
        self.count(now);
        self.credit = Duration::ZERO;
        self.unread = true;
    }

    /// What outlives the process.
    pub(super) fn memory(&self, now: Instant) -> PaceMemory {
        let stop = self.hold.filter(|hold| hold.until > now);
        PaceMemory {
            stop: stop.map(|hold| (hold.until.saturating_duration_since(now), hold.refuses)),
            strikes: self.strikes,
        }
    }

    /// Goes on where another process ended, `idle` before this one began.
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

    /// Asks to send one request.
    ///
    /// Says no at once where the wait would surely end after `deadline`, or so shortly before that no
    /// answer comes in time.
    pub fn ask(
        &mut self,
        now: Instant,
        lane: Lane,
        caller: &Arc<str>,
        deadline: Instant,
    ) -> (Asked, Option<Called>) {
        self.count(now);
        if now < deadline && self.may_probe(now) {
            return (Asked::Probe, None);
        }
        if let Some(refusal) = self.stopped(now) {
            return (Asked::Refused(refusal), None);
        }
        if now >= deadline {
            let refusal = PaceRefusal {
                retry_after: Duration::ZERO,
                short: Shortage::Time,
            };
            return (Asked::Refused(refusal), None);
        }
        let more_urgent_wait = self.queue.front().is_some_and(|(first, _)| first <= lane);
        if !more_urgent_wait && self.admits(now, lane) {
            self.take(lane);
            return (Asked::Admitted, None);
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
            return (Asked::Refused(refusal), None);
        }
        let mut displaced = None;
        if self.queue.len() >= WAITERS_MAX {
            let refusal = PaceRefusal {
                retry_after: wait.max(CROWDED_RETRY_AFTER),
                short: Shortage::VendorWaiters,
            };
            match self.queue.displace_for(lane, caller) {
                None => return (Asked::Refused(refusal), None),
                Some(id) => displaced = Some(Called::Refused(id, refusal)),
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        self.queue.push(lane, caller, id);
        (Asked::Queued(id), displaced)
    }

    /// The least wait of a request for which so many others go beside those who wait here, the last of
    /// them in `last`, where [`Self::ask`] would refuse it for that. A stop counts for nothing: whoever
    /// comes before its end is refused at once.
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
            // Less urgent ones leave a part of the burst, and then there is no use in it.
            wait = wait.max(self.bucket_wait(now, last, ahead - 1));
        }
        (now + wait + self.usual >= deadline).then_some(wait)
    }

    /// Calls those who need wait no longer. To be asked after every change.
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

    /// Who is next, and the moment at which time alone lets it go; `None` where a place must free
    /// up first.
    pub fn next(&self, now: Instant) -> Option<(WaiterId, Option<Instant>)> {
        let (lane, id) = self.queue.front()?;
        let free = self.in_flight < self.places_for(lane);
        let at = now + self.wait_of(now, lane, 0);
        // What the vendor told of its count may be over before, and the rate another one.
        let at = self.learned.told_until(now).map_or(at, |over| at.min(over));
        Some((id, free.then_some(at)))
    }

    /// One that waits goes on waiting in another lane, behind its payer's others there.
    pub fn yield_to_others(&mut self, id: WaiterId, lane: Lane, caller: &Arc<str>) {
        if self.queue.remove(id) {
            self.queue.push(lane, caller, id);
        }
    }

    /// One stops waiting.
    pub fn leave(&mut self, id: WaiterId) {
        self.queue.remove(id);
    }

    /// A request ended; `sent` is false where it never went out and costs nothing.
    pub fn release(&mut self, sent: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !sent {
            self.credit = (self.credit + self.rate.cost()).min(self.rate.credit_max());
        }
    }

    /// How a request went that is under way still and began at `began`.
    pub fn felt(&mut self, now: Instant, felt: Felt, began: Instant) {
        if felt != Felt::Nothing {
            let took = now.saturating_duration_since(began).min(USUAL_MAX);
            self.usual = (self.usual * (USUAL_OF - 1) + took) / USUAL_OF;
        }
        if self.settings.concurrency_adaptive {
            let (in_flight, max) = (self.in_flight, self.settings.places());
            self.places.heard(felt, began, now, in_flight, max);
        }
    }

    /// The vendor is back after a failure: it gets requests at the rate, no burst on top, and
    /// background work only by and by.
    pub fn begin_anew(&mut self, now: Instant) {
        self.count(now);
        self.credit = self.credit.min(self.rate.cost());
        self.ramp = Some(Ramp::new(now));
    }

    /// The vendor answered 429. Returns the time for which nothing will be sent.
    pub fn rate_limited(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        self.count(now);
        let holding = self.hold.filter(|hold| hold.until > now);
        // Answers of requests that were under way together are one strike.
        if !holding.is_some_and(|hold| hold.refuses) {
            // Refused again without an answer between: that says nothing new about the rate.
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

    /// The vendor answered something else than 429.
    pub fn answered(&mut self, now: Instant) {
        if self.strikes > 0 && self.hold.is_none_or(|hold| hold.until <= now) {
            self.strikes = 0;
            self.ramp = Some(Ramp::new(now));
        }
        if self.learns() {
            self.count(now);
            self.learned.answered(self.settings.bounds());
            self.reprice(now);
        }
    }

    /// The vendor said how many requests it will take still.
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
            // Of what may go at the end of a stop it says nothing: the count starts anew by then.
            return;
        }
        let burst = u64::from(self.rate.burst());
        let left = u32::try_from(requests.min(burst)).unwrap_or(u32::MAX);
        self.credit = self.credit.min(self.rate.cost() * left);
        if let (0, Some(reset)) = (requests, reset) {
            self.stop_until(now, now + reset, false);
        }
    }

    /// Ends a wait that the vendor asked for. Returns what was left of it; `None` if there was none.
    ///
    /// After a 429 one call at a time goes until the vendor answers one of them.
    pub fn resume(&mut self, now: Instant) -> Option<Duration> {
        self.count(now);
        let left = self.hold.take()?.until.saturating_duration_since(now);
        self.counted = now;
        self.learned.forget_told();
        self.reprice(now);
        (!left.is_zero()).then_some(left)
    }

    /// Returns the longest wait that the vendor's headers can ask for.
    pub fn hold_down_max(&self) -> Duration {
        self.settings.hold_down_max
    }

    /// Lets one call go in a long hold-down, now and then.
    fn may_probe(&mut self, now: Instant) -> bool {
        let free = self.in_flight < self.places_for(Lane::Interactive);
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

    /// Whether a call that was admitted before may still be sent.
    ///
    /// # Errors
    /// While the vendor said to wait, until a probe goes: no other call can be on its way then.
    pub fn may_still_send(&self, now: Instant) -> Result<(), PaceRefusal> {
        match self.stopped(now) {
            Some(refusal) if !self.hold.is_some_and(|hold| hold.probed) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// What operators see.
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
            concurrency_limit: self.places.limit(self.settings.places()),
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
        // What the vendor told of its count may be over.
        self.reprice(now);
        let cost = self.rate.cost();
        if let Some(ramp) = &mut self.ramp {
            ramp.count(now, cost);
            if ramp.is_over(now, cost) {
                // What was saved up meanwhile is no burst for what was held back.
                self.credit = self.credit.min(cost);
                self.ramp = None;
            }
        }
    }

    fn learns(&self) -> bool {
        self.settings.learn_down_to.is_some()
    }

    /// Takes over the rate that is in force now; what is left of the burst stays the same number of
    /// requests.
    fn reprice(&mut self, now: Instant) {
        let bounds = self.settings.bounds();
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

    /// One request may go when the stop ends, if the rate allows it; the rest grows back from there.
    fn stop_until(&mut self, now: Instant, until: Instant, refuses: bool) {
        let running = self.hold.filter(|hold| hold.until > now);
        self.hold = Some(Hold {
            until,
            refuses,
            probe_at: running.map_or(now + PROBE_EVERY, |hold| hold.probe_at),
            probed: running.is_some_and(|hold| hold.probed),
        });
        let passed = until.saturating_duration_since(self.counted);
        self.credit = (self.credit + passed).min(self.rate.cost());
        self.counted = until;
    }

    /// What everyone is told while the vendor said to wait.
    pub fn stopped(&self, now: Instant) -> Option<PaceRefusal> {
        let hold = self.hold.filter(|h| h.refuses && h.until > now)?;
        Some(PaceRefusal {
            retry_after: hold.until.saturating_duration_since(now),
            short: Shortage::VendorHoldDown,
        })
    }

    /// What a call of `lane` that got no turn waits for.
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
            // After a 429 one request tries whether the vendor takes calls again.
            return 1;
        }
        places_for(self.places.limit(self.settings.places()), lane)
    }

    fn admits(&self, now: Instant, lane: Lane) -> bool {
        self.hold.is_none_or(|hold| hold.until <= now)
            && self.in_flight < self.places_for(lane)
            && self.credit >= self.rate.needed(lane)
            && self.ramp_wait(now, lane, 0).is_zero()
    }

    /// Time until the vendor's return lets one of `lane` go, if `ahead` others go before it.
    fn ramp_wait(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let Some(ramp) = self.ramp.filter(|_| lane != Lane::Interactive) else {
            return Duration::ZERO;
        };
        let others = ahead.saturating_sub(self.queue.len_of(Lane::Interactive));
        let calls = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
        ramp.wait(now, self.rate.cost().saturating_mul(calls))
    }

    fn take(&mut self, lane: Lane) {
        if let Some(ramp) = self.ramp.as_mut().filter(|_| lane != Lane::Interactive) {
            ramp.take(self.rate.cost());
        }
        self.in_flight += 1;
        self.credit = self.credit.saturating_sub(self.rate.cost());
    }

    /// The least time until a request of `lane` goes, if `ahead` others go before it.
    fn wait_of(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let bucket = self.bucket_wait(now, lane, ahead);
        bucket.max(self.ramp_wait(now, lane, ahead))
    }

    /// The same, of the rate alone.
    fn bucket_wait(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let before = u32::try_from(ahead).unwrap_or(u32::MAX);
        let needed = self.rate.needed(lane) + self.rate.cost().saturating_mul(before);
        // `counted` is ahead of now exactly by what is left of a stop.
        self.counted.saturating_duration_since(now) + needed.saturating_sub(self.credit)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
