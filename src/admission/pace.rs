//! How fast a vendor may be called: a token bucket and a limit of calls at once per credential, in
//! front of which callers queue by urgency. Pure: told the time, asked for decisions.
//!
//! The bucket is kept as *credit*, a duration: one request costs `60 s / requests_per_minute` of
//! it, and it grows as time passes. Integers only, so no rounding can send a request too many.

use std::sync::Arc;

use super::Lane;
use super::queue::{Queue, WaiterId};
use crate::clock::{Duration, Instant};

/// The bucket holds what flows in within ten seconds (and one request at least): enough for the
/// questions of a dashboard that opens, little enough that a minute never sees much more than the
/// configured rate.
const BURST_SECONDS: u32 = 10;
/// Most who wait for one credential. At 120 requests a minute the last of them would wait two
/// minutes, longer than any deadline.
pub const WAITERS_MAX: usize = 256;
/// Hold-down after a 429 that names no time; doubles with each in a row.
const HOLD_FIRST: Duration = Duration::from_secs(5);
/// Where the doubling ends.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Shortest hold-down, whatever the vendor named.
const HOLD_MIN: Duration = Duration::from_secs(1);
/// Said to those who found every place taken: how soon places usually free up.
const CROWDED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How fast and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceSettings {
    /// Requests a minute, at least 1.
    pub requests_per_minute: u32,
    /// Requests at once, at least 1.
    pub concurrency: usize,
}

impl PaceSettings {
    fn rate(self) -> u32 {
        self.requests_per_minute.max(1)
    }

    fn places(self) -> usize {
        self.concurrency.max(1)
    }

    /// Requests that may go out back to back.
    pub fn burst(self) -> u32 {
        (self.rate() / (60 / BURST_SECONDS)).max(1)
    }

    fn cost(self) -> Duration {
        Duration::from_secs(60) / self.rate()
    }

    fn credit_max(self) -> Duration {
        self.cost() * self.burst()
    }

    /// Credit that must be there before a request of this lane goes: background work leaves a part
    /// of the burst to those who wait.
    fn needed(self, lane: Lane) -> Duration {
        let reserve = match lane {
            Lane::Interactive => 0,
            Lane::Refresh => 10,
            Lane::ReadAhead | Lane::Export => 25,
        };
        (self.cost() + self.credit_max() * reserve / 100).min(self.credit_max())
    }

    /// Requests at once up to which this lane may add one.
    fn places_for(self, lane: Lane) -> usize {
        let all = self.places();
        let kept = match lane {
            Lane::Interactive => 0,
            Lane::Refresh => 1,
            Lane::ReadAhead | Lane::Export => (all / 4).max(1),
        };
        all.saturating_sub(kept).max(1)
    }
}

/// Nothing was sent, and when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// From now.
    pub retry_after: Duration,
    /// For the log.
    pub why: &'static str,
}

/// The answer to one who asks to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Go; a place is taken until [`Pace::release`].
    Admitted,
    /// Wait under this name.
    Queued(WaiterId),
    /// Don't.
    Refused(Refusal),
}

/// What a change brought to those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// Go; a place is taken.
    Admitted(WaiterId),
    /// Don't.
    Refused(WaiterId, Refusal),
}

/// What operators see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceSnapshot {
    /// The settings in force.
    pub settings: PaceSettings,
    /// Requests that could go right now.
    pub remaining: u32,
    /// Requests under way.
    pub in_flight: usize,
    /// Waiting, by lane.
    pub queued: [(Lane, usize); Lane::ALL.len()],
    /// Time until the vendor may be called again, if it said stop.
    pub hold_down: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Instant,
    /// After a 429 everyone is refused; while the vendor's count merely resets, those with time wait.
    refuses: bool,
}

/// The state of one vendor credential.
#[derive(Debug)]
pub struct Pace {
    settings: PaceSettings,
    credit: Duration,
    /// Up to when credit was counted; ahead of now while the vendor said stop.
    counted: Instant,
    in_flight: usize,
    queue: Queue,
    next_id: WaiterId,
    hold: Option<Hold>,
    /// 429 answers in a row, each after a hold-down of its own. Above zero one request at a time.
    strikes: u32,
}

impl Pace {
    /// Starts with a full bucket.
    pub fn new(settings: PaceSettings, now: Instant) -> Self {
        Self {
            settings,
            credit: settings.credit_max(),
            counted: now,
            in_flight: 0,
            queue: Queue::default(),
            next_id: 0,
            hold: None,
            strikes: 0,
        }
    }

    /// Changes rates; the part of the burst that is left stays the same number of requests.
    pub fn set(&mut self, settings: PaceSettings, now: Instant) {
        self.count(now);
        let requests = self.credit.as_secs_f64() / self.settings.cost().as_secs_f64();
        self.settings = settings;
        self.credit = settings.cost().mul_f64(requests).min(settings.credit_max());
    }

    /// Asks to send one request.
    ///
    /// Says no at once where the wait would surely end after `deadline`.
    pub fn ask(
        &mut self,
        now: Instant,
        lane: Lane,
        caller: &Arc<str>,
        deadline: Instant,
    ) -> (Asked, Option<Called>) {
        self.count(now);
        if let Some(refusal) = self.stopped(now) {
            return (Asked::Refused(refusal), None);
        }
        if now >= deadline {
            let why = "the deadline has passed";
            let retry_after = Duration::ZERO;
            return (Asked::Refused(Refusal { retry_after, why }), None);
        }
        let more_urgent_wait = self.queue.front().is_some_and(|(first, _)| first <= lane);
        if !more_urgent_wait && self.admits(now, lane) {
            self.take();
            return (Asked::Admitted, None);
        }
        let wait = self.wait_of(now, lane, self.queue.ahead_of(lane, caller));
        if now + wait >= deadline {
            let why = "the budget grows back after the deadline";
            let retry_after = wait;
            return (Asked::Refused(Refusal { retry_after, why }), None);
        }
        let mut displaced = None;
        if self.queue.len() >= WAITERS_MAX {
            let refusal = Refusal {
                retry_after: wait.max(CROWDED_RETRY_AFTER),
                why: "too many wait for the vendor",
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

    /// Calls those who need wait no longer. To be asked after every change.
    pub fn advance(&mut self, now: Instant) -> Vec<Called> {
        self.count(now);
        let mut called = Vec::new();
        let stopped = self.stopped(now);
        while let Some((lane, id)) = self.queue.front() {
            if let Some(refusal) = stopped {
                called.push(Called::Refused(id, refusal));
            } else if self.admits(now, lane) {
                self.take();
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
        let wait = self.wait_of(now, lane, 0);
        Some((id, free.then(|| now + wait)))
    }

    /// One stops waiting.
    pub fn leave(&mut self, id: WaiterId) {
        self.queue.remove(id);
    }

    /// A request ended; `sent` is false where it never went out and costs nothing.
    pub fn release(&mut self, sent: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !sent {
            self.credit = (self.credit + self.settings.cost()).min(self.settings.credit_max());
        }
    }

    /// The vendor answered 429. Returns the time for which nothing will be sent.
    pub fn rate_limited(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        self.count(now);
        let holding = self.hold.filter(|hold| hold.until > now);
        // Answers of requests that were under way together are one strike.
        if !holding.is_some_and(|hold| hold.refuses) {
            self.strikes = self.strikes.saturating_add(1);
        }
        let doubled = HOLD_FIRST * 2u32.saturating_pow(self.strikes.saturating_sub(1).min(8));
        let hold = retry_after.unwrap_or(doubled.min(HOLD_MAX)).max(HOLD_MIN);
        let until = holding.map_or(now + hold, |old| old.until.max(now + hold));
        self.stop_until(until, true);
        until.saturating_duration_since(now)
    }

    /// The vendor answered something else than 429.
    pub fn answered(&mut self, now: Instant) {
        if self.hold.is_none_or(|hold| hold.until <= now) {
            self.strikes = 0;
        }
    }

    /// The vendor said how many requests it will take still.
    pub fn told_remaining(&mut self, now: Instant, requests: u64, reset: Option<Duration>) {
        self.count(now);
        let burst = u64::from(self.settings.burst());
        let left = u32::try_from(requests.min(burst)).unwrap_or(u32::MAX);
        self.credit = self.credit.min(self.settings.cost() * left);
        let already = self.hold.is_some_and(|hold| hold.until > now);
        if let (0, Some(reset), false) = (requests, reset, already) {
            self.stop_until(now + reset, false);
        }
    }

    /// What operators see.
    pub fn snapshot(&mut self, now: Instant) -> PaceSnapshot {
        self.count(now);
        let hold_down = self
            .hold
            .map(|hold| hold.until.saturating_duration_since(now))
            .filter(|left| !left.is_zero());
        let whole = self.credit.as_nanos() / self.settings.cost().as_nanos().max(1);
        PaceSnapshot {
            settings: self.settings,
            remaining: match hold_down {
                Some(_) => 0,
                None => u32::try_from(whole).unwrap_or(u32::MAX),
            },
            in_flight: self.in_flight,
            queued: Lane::ALL.map(|lane| (lane, self.queue.len_of(lane))),
            hold_down,
        }
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.credit = (self.credit + passed).min(self.settings.credit_max());
        self.counted = self.counted.max(now);
    }

    /// One request may go when the stop ends, if the rate allows it; the rest grows back from there.
    fn stop_until(&mut self, until: Instant, refuses: bool) {
        self.hold = Some(Hold { until, refuses });
        let passed = until.saturating_duration_since(self.counted);
        self.credit = (self.credit + passed).min(self.settings.cost());
        self.counted = until;
    }

    fn stopped(&self, now: Instant) -> Option<Refusal> {
        let hold = self.hold.filter(|h| h.refuses && h.until > now)?;
        Some(Refusal {
            retry_after: hold.until.saturating_duration_since(now),
            why: "the vendor said to wait",
        })
    }

    fn places_for(&self, lane: Lane) -> usize {
        if self.strikes > 0 {
            // After a 429 one request tries whether the vendor takes calls again.
            return 1;
        }
        self.settings.places_for(lane)
    }

    fn admits(&self, now: Instant, lane: Lane) -> bool {
        self.hold.is_none_or(|hold| hold.until <= now)
            && self.in_flight < self.places_for(lane)
            && self.credit >= self.settings.needed(lane)
    }

    fn take(&mut self) {
        self.in_flight += 1;
        self.credit = self.credit.saturating_sub(self.settings.cost());
    }

    /// The least time until a request of `lane` goes, if `ahead` others go before it.
    fn wait_of(&self, now: Instant, lane: Lane, ahead: usize) -> Duration {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let needed = self.settings.needed(lane) + self.settings.cost().saturating_mul(ahead);
        // `counted` is ahead of now exactly by what is left of a stop.
        self.counted.saturating_duration_since(now) + needed.saturating_sub(self.credit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(requests_per_minute: u32, concurrency: usize) -> (Pace, Instant) {
        let now = Clock::system().now();
        let settings = PaceSettings {
            requests_per_minute,
            concurrency,
        };
        (Pace::new(settings, now), now)
    }

    fn ask(pace: &mut Pace, now: Instant, lane: Lane, caller: &str, wait: Duration) -> Asked {
        pace.ask(now, lane, &caller.into(), now + wait).0
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let (mut pace, now) = pace(120, 100);
        for _ in 0..20 {
            assert_eq!(
                ask(&mut pace, now, Lane::Interactive, "a", SECOND),
                Asked::Admitted
            );
        }
        assert_eq!(pace.snapshot(now).remaining, 0);
        let Asked::Queued(id) = ask(&mut pace, now, Lane::Interactive, "a", SECOND) else {
            panic!("queued");
        };
        let half = now + Duration::from_millis(500);
        assert_eq!(pace.next(now), Some((id, Some(half))));
        assert_eq!(pace.advance(half - Duration::from_nanos(1)), []);
        assert_eq!(pace.advance(half), [Called::Admitted(id)]);
    }

    #[test]
    fn a_wait_past_the_deadline_is_refused_at_once_with_its_length() {
        let (mut pace, now) = pace(6, 8);
        assert_eq!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND),
            Asked::Admitted
        );
        let Asked::Refused(refusal) = ask(&mut pace, now, Lane::Interactive, "a", SECOND * 10)
        else {
            panic!("refused");
        };
        assert_eq!(refusal.retry_after, SECOND * 10);
        assert!(matches!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND * 11),
            Asked::Queued(_)
        ));
        let Asked::Refused(refusal) = ask(&mut pace, now, Lane::Interactive, "a", SECOND * 11)
        else {
            panic!("refused: one waits already");
        };
        assert_eq!(refusal.retry_after, SECOND * 20);
    }

    #[test]
    fn nobody_overtakes_those_who_wait_already() {
        let (mut pace, now) = pace(6, 8);
        for _ in 0..2 {
            ask(&mut pace, now, Lane::Interactive, "a", SECOND * 30);
        }
        let later = now + SECOND * 10;
        let newcomer = ask(&mut pace, later, Lane::Interactive, "b", SECOND * 30);
        assert!(matches!(newcomer, Asked::Queued(_)));
        let [Called::Admitted(first)] = pace.advance(later)[..] else {
            panic!("the budget is for one");
        };
        assert_ne!(Asked::Queued(first), newcomer);
    }

    #[test]
    fn background_work_leaves_a_reserve() {
        let (mut pace, now) = pace(120, 100);
        let mut sent = |lane| {
            let mut n = 0;
            while ask(&mut pace, now, lane, "a", Duration::from_nanos(1)) == Asked::Admitted {
                n += 1;
            }
            n
        };
        assert_eq!(sent(Lane::Export), 15);
        assert_eq!(sent(Lane::ReadAhead), 0);
        assert_eq!(sent(Lane::Refresh), 3);
        assert_eq!(sent(Lane::Interactive), 2);
    }

    #[test]
    fn background_work_leaves_places() {
        let (mut pace, now) = pace(60_000, 8);
        let mut sent = |lane| {
            let mut n = 0;
            while ask(&mut pace, now, lane, "a", SECOND) == Asked::Admitted {
                n += 1;
            }
            n
        };
        assert_eq!(sent(Lane::Export), 6);
        assert_eq!(sent(Lane::Refresh), 1);
        assert_eq!(sent(Lane::Interactive), 1);
    }

    #[test]
    fn the_slowest_rate_still_serves_every_lane() {
        for lane in Lane::ALL {
            let (mut pace, now) = pace(1, 1);
            assert_eq!(ask(&mut pace, now, lane, "a", SECOND), Asked::Admitted);
            pace.release(true);
            let Asked::Queued(id) = ask(&mut pace, now, lane, "a", SECOND * 61) else {
                panic!("queued");
            };
            assert_eq!(pace.advance(now + SECOND * 60), [Called::Admitted(id)]);
        }
    }

    #[test]
    fn a_429_stops_everything_then_one_at_a_time() {
        let (mut pace, now) = pace(600, 8);
        for _ in 0..8 {
            assert_eq!(
                ask(&mut pace, now, Lane::Interactive, "a", SECOND * 9),
                Asked::Admitted
            );
        }
        let Asked::Queued(waiting) = ask(&mut pace, now, Lane::Interactive, "a", SECOND * 9) else {
            panic!("queued");
        };
        assert_eq!(pace.rate_limited(now, None), SECOND * 5);
        // The others that were under way come back with the same word: one strike.
        for _ in 0..7 {
            assert_eq!(pace.rate_limited(now, None), SECOND * 5);
            pace.release(true);
        }
        pace.release(true);
        let [Called::Refused(id, refusal)] = pace.advance(now)[..] else {
            panic!("the one who waited is refused");
        };
        assert_eq!((id, refusal.retry_after), (waiting, SECOND * 5));
        let Asked::Refused(refusal) =
            ask(&mut pace, now + SECOND, Lane::Interactive, "a", SECOND * 60)
        else {
            panic!("refused");
        };
        assert_eq!(refusal.retry_after, SECOND * 4);

        let now = now + SECOND * 5;
        assert_eq!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND * 9),
            Asked::Admitted
        );
        let later = now + SECOND;
        assert!(matches!(
            ask(&mut pace, later, Lane::Interactive, "b", SECOND * 9),
            Asked::Queued(_)
        ));
        pace.answered(later);
        assert_eq!(pace.advance(later).len(), 1);
        assert_eq!(pace.rate_limited(later, None), SECOND * 5, "a new strike");
    }

    #[test]
    fn holds_double_and_a_named_time_rules() {
        let (mut pace, mut now) = pace(600, 8);
        for seconds in [5, 10, 20, 40, 60, 60] {
            let hold = pace.rate_limited(now, None);
            assert_eq!(hold, SECOND * seconds);
            now += hold;
        }
        assert_eq!(pace.rate_limited(now, Some(SECOND * 7)), SECOND * 7);
        now += SECOND * 7;
        assert_eq!(pace.rate_limited(now, Some(Duration::ZERO)), SECOND);
        assert_eq!(pace.snapshot(now).hold_down, Some(SECOND));
        assert_eq!(pace.snapshot(now).remaining, 0);
    }

    #[test]
    fn what_the_vendor_has_left_bounds_what_is_sent() {
        let (mut pace, now) = pace(120, 100);
        pace.told_remaining(now, 2, Some(SECOND * 30));
        let mut go = |wait, at| pace.ask(at, Lane::Interactive, &"a".into(), at + wait).0;
        assert_eq!(go(SECOND, now), Asked::Admitted);
        assert_eq!(go(SECOND, now), Asked::Admitted);
        assert!(matches!(go(SECOND, now), Asked::Queued(_)));
        pace.told_remaining(now, 0, Some(SECOND * 3));
        let Asked::Refused(refusal) = ask(&mut pace, now, Lane::Interactive, "a", SECOND) else {
            panic!("refused: the count resets after its deadline");
        };
        assert!(refusal.retry_after >= SECOND * 3);
        assert_eq!(pace.advance(now + SECOND * 2), []);
        assert_eq!(pace.advance(now + SECOND * 3).len(), 1);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (mut pace, now) = pace(60_000, 1);
        assert_eq!(
            ask(&mut pace, now, Lane::Export, "a", SECOND),
            Asked::Admitted
        );
        for _ in 0..WAITERS_MAX {
            assert!(matches!(
                ask(&mut pace, now, Lane::Export, "a", SECOND * 9),
                Asked::Queued(_)
            ));
        }
        assert!(matches!(
            ask(&mut pace, now, Lane::Export, "a", SECOND * 9),
            Asked::Refused(_)
        ));
        let (asked, displaced) = pace.ask(now, Lane::Interactive, &"b".into(), now + SECOND * 9);
        assert!(matches!(asked, Asked::Queued(_)));
        assert!(matches!(displaced, Some(Called::Refused(..))));
    }

    #[test]
    fn new_rates_keep_what_is_left() {
        let (mut pace, now) = pace(120, 8);
        for _ in 0..8 {
            ask(&mut pace, now, Lane::Interactive, "a", SECOND);
        }
        let faster = PaceSettings {
            requests_per_minute: 1200,
            concurrency: 2,
        };
        pace.set(faster, now);
        let seen = pace.snapshot(now);
        assert_eq!((seen.remaining, seen.in_flight), (12, 8));
        for _ in 0..7 {
            pace.release(true);
        }
        assert_eq!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND),
            Asked::Admitted
        );
        assert!(matches!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND),
            Asked::Queued(_)
        ));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(usize, u8, u64),
        Pass(u64),
        End(bool),
        Leave,
        Limited(Option<u64>),
        Told(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0usize..4, 0u8..3, 0u64..20_000).prop_map(|(l, c, d)| Step::Ask(l, c, d)),
            4 => (0u64..3_000).prop_map(Step::Pass),
            4 => any::<bool>().prop_map(Step::End),
            1 => Just(Step::Leave),
            1 => proptest::option::of(0u64..9).prop_map(Step::Limited),
            1 => (0u64..5, 0u64..9).prop_map(|(r, t)| Step::Told(r, t)),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        /// Whatever happens: never more at once than allowed, never more in any stretch of time
        /// than burst and rate give, nothing during a hold-down, and nobody is forgotten.
        #[test]
        fn limits_hold_whatever_happens(rpm in 1u32..2_000, places in 1usize..10, steps in steps()) {
            let (mut pace, start) = pace(rpm, places);
            let mut now = start;
            let mut sent: Vec<Instant> = Vec::new();
            let mut waiting: Vec<WaiterId> = Vec::new();
            let mut in_flight = 0usize;
            let mut held_until = start;
            for step in steps {
                let mut called = Vec::new();
                match step {
                    Step::Ask(lane, caller, wait_ms) => {
                        let caller: Arc<str> = caller.to_string().into();
                        let deadline = now + Duration::from_millis(wait_ms);
                        let (asked, displaced) = pace.ask(now, Lane::ALL[lane], &caller, deadline);
                        match asked {
                            Asked::Admitted => { in_flight += 1; sent.push(now); }
                            Asked::Queued(id) => waiting.push(id),
                            Asked::Refused(_) => {}
                        }
                        called.extend(displaced);
                    }
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                    Step::End(went) => if in_flight > 0 {
                        in_flight -= 1;
                        // Only the newest can be unsent, as its credit is what is given back.
                        let unsent = !went && sent.last() == Some(&now) && held_until <= now;
                        if unsent { sent.pop(); }
                        pace.release(!unsent);
                        if went { pace.answered(now); }
                    },
                    Step::Leave => if let Some(id) = waiting.pop() { pace.leave(id) },
                    Step::Limited(after) => {
                        let hold = pace.rate_limited(now, after.map(Duration::from_secs));
                        held_until = now + hold;
                    }
                    Step::Told(left, reset) => {
                        pace.told_remaining(now, left, Some(Duration::from_secs(reset)));
                    }
                }
                called.extend(pace.advance(now));
                for call in called {
                    let id = match call {
                        Called::Admitted(id) => { in_flight += 1; sent.push(now); id }
                        Called::Refused(id, _) => id,
                    };
                    let at = waiting.iter().position(|w| *w == id);
                    prop_assert!(at.is_some(), "{id} was called twice or never waited");
                    waiting.remove(at.unwrap());
                }
                let seen = pace.snapshot(now);
                prop_assert_eq!(seen.in_flight, in_flight);
                prop_assert_eq!(seen.queued.iter().map(|(_, n)| n).sum::<usize>(), waiting.len());
                prop_assert!(in_flight <= places);
                prop_assert_eq!(pace.next(now).is_some(), !waiting.is_empty());
            }
            let settings = PaceSettings { requests_per_minute: rpm, concurrency: places };
            for (first, from) in sent.iter().enumerate() {
                for (last, to) in sent.iter().enumerate().skip(first) {
                    let span = to.duration_since(*from);
                    let most = f64::from(settings.burst()) + span.as_secs_f64() * f64::from(rpm) / 60.0;
                    prop_assert!((last - first + 1) as f64 <= most + 1.001);
                }
            }
            // Once everything ended and time passed, all who still wait get through.
            for _ in 0..in_flight { pace.release(true); }
            let mut now = now.max(held_until);
            while let Some((_, at)) = pace.next(now) {
                now = at.unwrap_or(now).max(now);
                let called = pace.advance(now);
                prop_assert!(!called.is_empty(), "stuck");
                for _ in &called { pace.release(true); pace.answered(now); }
            }
        }
    }
}
