//! Tests of a vendor's pace: burst and rate, lanes, hold-downs, learning, and limits that always
//! hold.

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);

/// Settings of tests: a rate and places, and nothing that is learnt.
pub(in crate::admission) fn settings(requests_per_minute: u32, concurrency: usize) -> PaceSettings {
    PaceSettings {
        requests_per_minute,
        concurrency,
        learn_down_to: None,
        concurrency_adaptive: false,
        hold_down_max: HOLD_DOWN_MAX,
    }
}

fn pace(requests_per_minute: u32, concurrency: usize) -> (Pace, Instant) {
    let now = Clock::system().now();
    (
        Pace::new(settings(requests_per_minute, concurrency), now),
        now,
    )
}

fn ask(pace: &mut Pace, now: Instant, lane: Lane, caller: &str, wait: Duration) -> PaceDecision {
    pace.ask(now, lane, &caller.into(), now + wait).0
}

#[test]
fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
    let (mut pace, now) = pace(120, 100);
    for _ in 0..20 {
        assert_eq!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND),
            PaceDecision::Admitted
        );
    }
    assert_eq!(pace.snapshot(now).remaining, 0);
    let PaceDecision::Queued(id) = ask(&mut pace, now, Lane::Interactive, "a", SECOND) else {
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
        PaceDecision::Admitted
    );
    let PaceDecision::Refused(refusal) = ask(&mut pace, now, Lane::Interactive, "a", SECOND * 10)
    else {
        panic!("refused");
    };
    assert_eq!(refusal.retry_after, SECOND * 10);
    assert!(matches!(
        ask(&mut pace, now, Lane::Interactive, "a", SECOND * 11),
        PaceDecision::Queued(_)
    ));
    let PaceDecision::Refused(refusal) = ask(&mut pace, now, Lane::Interactive, "a", SECOND * 11)
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
    assert!(matches!(newcomer, PaceDecision::Queued(_)));
    let [Called::Admitted(first)] = pace.advance(later)[..] else {
        panic!("the budget is for one");
    };
    assert_ne!(PaceDecision::Queued(first), newcomer);
}

#[test]
fn background_work_leaves_a_reserve() {
    let (mut pace, now) = pace(120, 100);
    let mut sent = |lane| {
        let mut n = 0;
        while ask(&mut pace, now, lane, "a", Duration::from_nanos(1)) == PaceDecision::Admitted {
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
        while ask(&mut pace, now, lane, "a", SECOND) == PaceDecision::Admitted {
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
        assert_eq!(
            ask(&mut pace, now, lane, "a", SECOND),
            PaceDecision::Admitted
        );
        pace.release(true);
        let PaceDecision::Queued(id) = ask(&mut pace, now, lane, "a", SECOND * 61) else {
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
            PaceDecision::Admitted
        );
    }
    let PaceDecision::Queued(waiting) = ask(&mut pace, now, Lane::Interactive, "a", SECOND * 9)
    else {
        panic!("queued");
    };
    assert_eq!(pace.rate_limited(now, None), SECOND * 5);
    // The others that were in flight get the same answer, which counts as one strike.
    for _ in 0..7 {
        assert_eq!(pace.rate_limited(now, None), SECOND * 5);
        pace.release(true);
    }
    pace.release(true);
    let [Called::Refused(id, refusal)] = pace.advance(now)[..] else {
        panic!("the one who waited is refused");
    };
    assert_eq!((id, refusal.retry_after), (waiting, SECOND * 5));
    let PaceDecision::Refused(refusal) =
        ask(&mut pace, now + SECOND, Lane::Interactive, "a", SECOND * 60)
    else {
        panic!("refused");
    };
    assert_eq!(refusal.retry_after, SECOND * 4);

    let now = now + SECOND * 5;
    assert_eq!(
        ask(&mut pace, now, Lane::Interactive, "a", SECOND * 9),
        PaceDecision::Admitted
    );
    let later = now + SECOND;
    assert!(matches!(
        ask(&mut pace, later, Lane::Interactive, "b", SECOND * 9),
        PaceDecision::Queued(_)
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
    assert_eq!(go(SECOND, now), PaceDecision::Admitted);
    assert_eq!(go(SECOND, now), PaceDecision::Admitted);
    assert!(matches!(go(SECOND, now), PaceDecision::Queued(_)));
    pace.told_remaining(now, 0, Some(SECOND * 3));
    let PaceDecision::Refused(refusal) = ask(&mut pace, now, Lane::Interactive, "a", SECOND) else {
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
        PaceDecision::Admitted
    );
    for _ in 0..WAITERS_MAX {
        assert!(matches!(
            ask(&mut pace, now, Lane::Export, "a", SECOND * 9),
            PaceDecision::Queued(_)
        ));
    }
    assert!(matches!(
        ask(&mut pace, now, Lane::Export, "a", SECOND * 9),
        PaceDecision::Refused(_)
    ));
    let (asked, displaced) = pace.ask(now, Lane::Interactive, &"b".into(), now + SECOND * 9);
    assert!(matches!(asked, PaceDecision::Queued(_)));
    assert!(matches!(displaced, Some(Called::Refused(..))));
}

#[test]
fn new_rates_keep_what_is_left() {
    let (mut pace, now) = pace(120, 8);
    for _ in 0..8 {
        ask(&mut pace, now, Lane::Interactive, "a", SECOND);
    }
    pace.set(settings(1200, 2), now);
    let seen = pace.snapshot(now);
    assert_eq!((seen.remaining, seen.in_flight), (12, 8));
    for _ in 0..7 {
        pace.release(true);
    }
    assert_eq!(
        ask(&mut pace, now, Lane::Interactive, "a", SECOND),
        PaceDecision::Admitted
    );
    assert!(matches!(
        ask(&mut pace, now, Lane::Interactive, "a", SECOND),
        PaceDecision::Queued(_)
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
    /// Under any sequence of events: never more concurrent calls than allowed, never more in any
    /// stretch of time than burst and rate allow, none during a hold-down, and no waiter is
    /// forgotten.
    #[test]
    fn limits_hold_whatever_happens(
        rpm in 1u32..2_000,
        places in 1usize..10,
        learns in any::<bool>(),
        steps in steps(),
    ) {
        let (_, start) = pace(rpm, places);
        let settings = PaceSettings {
            learn_down_to: learns.then_some(1),
            concurrency_adaptive: learns,
            ..settings(rpm, places)
        };
        let mut pace = Pace::new(settings, start);
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
                        PaceDecision::Admitted | PaceDecision::Probe => { in_flight += 1; sent.push(now); }
                        PaceDecision::Queued(id) => waiting.push(id),
                        PaceDecision::Refused(_) => {}
                    }
                    called.extend(displaced);
                }
                Step::Pass(ms) => now += Duration::from_millis(ms),
                Step::End(went) => if in_flight > 0 {
                    in_flight -= 1;
                    // Only the newest call can be unsent, because its credit is what is given back.
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
        for (first, from) in sent.iter().enumerate() {
            for (last, to) in sent.iter().enumerate().skip(first) {
                let span = to.duration_since(*from);
                let most = f64::from(Rate::per_minute(rpm).burst()) + span.as_secs_f64() * f64::from(rpm) / 60.0;
                prop_assert!((last - first + 1) as f64 <= most + 1.001);
            }
        }
        // Once everything has ended and time has passed, all waiters get through.
        for _ in 0..in_flight { pace.release(true); }
        let mut now = now.max(held_until);
        let mut idle = 0;
        while let Some((_, at)) = pace.next(now) {
            now = at.unwrap_or(now).max(now);
            let called = pace.advance(now);
            // The vendor's own count may be reset first where a rate is learnt. The end of the ramp
            // may also come first, which takes away what was saved up for lanes that wait for more
            // than one call.
            idle = if called.is_empty() { idle + 1 } else { 0 };
            prop_assert!(idle <= if learns { 3 } else { 1 }, "stuck");
            for _ in &called { pace.release(true); pace.answered(now); }
        }
    }
}

#[test]
fn a_refused_rate_is_cut_once_a_strike_and_grows_back() {
    let (_, start) = pace(120, 8);
    let learning = PaceSettings {
        learn_down_to: Some(6),
        ..settings(120, 8)
    };
    let mut pace = Pace::new(learning, start);
    let mut now = start;
    assert_eq!(pace.snapshot(now).rate_limit, 120);
    // Eight come back with 429 together, then a probe does. That is one strike and says nothing
    // new.
    for _ in 0..8 {
        pace.rate_limited(now, Some(SECOND * 9));
    }
    now += SECOND * 9;
    pace.rate_limited(now, Some(SECOND * 9));
    assert_eq!(pace.snapshot(now).rate_limit, 84);
    now += SECOND * 9;
    pace.answered(now);
    pace.rate_limited(now, Some(SECOND));
    assert_eq!(pace.snapshot(now).rate_limit, 58);
    now += SECOND;
    let before = pace.snapshot(now).rate_limit;
    for _ in 0..300 {
        pace.answered(now);
    }
    assert!(pace.snapshot(now).rate_limit > before);
    // The vendor's own count is spread, and forgotten when it is reset.
    pace.told_remaining(now, 10, Some(SECOND * 60));
    assert_eq!(pace.snapshot(now).rate_limit, 10);
    assert!(pace.snapshot(now + SECOND * 60).rate_limit > before);
    // Learning is switched off: the rate is the configured one.
    pace.set(settings(120, 8), now);
    assert_eq!(pace.snapshot(now).rate_limit, 120);
    pace.rate_limited(now, None);
    assert_eq!(pace.snapshot(now).rate_limit, 120);
}

#[test]
fn a_vendor_that_is_back_gets_the_rate_and_no_burst() {
    let (mut pace, now) = pace(120, 100);
    pace.begin_anew(now);
    let mut go = |at| pace.ask(at, Lane::Interactive, &"a".into(), at + SECOND).0;
    assert_eq!(go(now), PaceDecision::Admitted);
    assert!(matches!(go(now), PaceDecision::Queued(_)));
}

#[test]
fn a_late_vendor_gets_fewer_calls_at_once() {
    let (_, now) = pace(60_000, 8);
    let adaptive = PaceSettings {
        concurrency_adaptive: true,
        ..settings(60_000, 8)
    };
    let mut pace = Pace::new(adaptive, now);
    let go = |pace: &mut Pace| {
        pace.ask(now, Lane::Interactive, &"a".into(), now + SECOND * 9)
            .0
    };
    for _ in 0..8 {
        assert_eq!(go(&mut pace), PaceDecision::Admitted);
    }
    let later = now + SECOND * 6;
    for _ in 0..5 {
        pace.felt(later, Felt::Late, now);
        pace.release(true);
    }
    assert_eq!(pace.snapshot(later).concurrency_limit, 4);
    assert_eq!(go(&mut pace), PaceDecision::Admitted);
    assert!(matches!(go(&mut pace), PaceDecision::Queued(_)));
    // Without adaptive concurrency the limit is the configured one.
    pace.set(settings(60_000, 8), later);
    assert_eq!(pace.snapshot(later).concurrency_limit, 8);
}

#[test]
fn while_a_vendor_comes_back_operators_see_what_background_work_gets() {
    let (mut pace, now) = pace(120, 8);
    assert_eq!(pace.snapshot(now).ramp, None);
    pace.begin_anew(now);
    assert_eq!(pace.snapshot(now).ramp, Some((20, SECOND * 30)));
    let later = now + SECOND * 15;
    assert_eq!(pace.snapshot(later).ramp, Some((60, SECOND * 15)));
    assert_eq!(pace.snapshot(now + SECOND * 30).ramp, None);
}

#[test]
fn who_would_get_its_answer_too_late_is_refused_too() {
    let (mut pace, now) = pace(60, 100);
    let half = SECOND / 2;
    // Ten calls of half a second each.
    for _ in 0..10 {
        assert_eq!(
            ask(&mut pace, now, Lane::Interactive, "a", SECOND),
            PaceDecision::Admitted
        );
    }
    let now = now + half;
    for _ in 0..10 {
        for _ in 0..10 {
            pace.felt(now, Felt::Prompt, now.checked_sub(half).unwrap());
        }
        pace.release(true);
    }
    // The next turn comes half a second later, and its answer after another half second.
    let wait = |pace: &mut Pace, ms| {
        let patience = Duration::from_millis(ms);
        ask(pace, now, Lane::Interactive, "a", patience)
    };
    let PaceDecision::Refused(refusal) = wait(&mut pace, 990) else {
        panic!("in time");
    };
    assert_eq!(refusal.retry_after, half);
    let caller = "a".into();
    let others = |pace: &mut Pace, n, ms| {
        let until = now + Duration::from_millis(ms);
        let others = (n, Lane::Interactive);
        pace.too_long(now, Lane::Interactive, &caller, others, until)
    };
    assert_eq!(others(&mut pace, 2, 2_990), Some(half * 5));
    assert_eq!(others(&mut pace, 2, 3_010), None);
    assert!(matches!(wait(&mut pace, 1_010), PaceDecision::Queued(_)));
    assert_eq!(others(&mut pace, 2, 3_010), Some(half * 7));
    // A part of the burst is reserved from background work. If the last call ahead is such work,
    // that part is unused.
    let mut behind = |lane| {
        let until = now + half * 7;
        pace.too_long(now, Lane::Interactive, &caller, (2, lane), until)
    };
    assert_eq!(behind(Lane::Interactive), Some(half * 7));
    assert_eq!(behind(Lane::Export), Some(half * 10));
    // If calls take long, they count for a second at most.
    for _ in 0..100 {
        pace.felt(now, Felt::Late, now.checked_sub(SECOND * 9).unwrap_or(now));
    }
    assert_eq!(others(&mut pace, 0, 2_520), None);
    // A call that comes during a hold-down is refused for that.
    pace.rate_limited(now, Some(SECOND * 20));
    assert_eq!(others(&mut pace, 100, 10), None);
}

#[test]
fn nobody_is_sent_at_the_deadline_and_the_urgent_pass_the_waiting() {
    let (mut pace, now) = pace(120, 100);
    let PaceDecision::Refused(refusal) =
        ask(&mut pace, now, Lane::Interactive, "a", Duration::ZERO)
    else {
        panic!("its deadline has come");
    };
    assert_eq!(refusal.retry_after, Duration::ZERO);
    // The rest of the burst is reserved from exports, and one export waits for it.
    while ask(&mut pace, now, Lane::Export, "a", Duration::from_nanos(1)) == PaceDecision::Admitted
    {
    }
    assert!(matches!(
        ask(&mut pace, now, Lane::Export, "a", SECOND),
        PaceDecision::Queued(_)
    ));
    assert_eq!(
        ask(&mut pace, now, Lane::Refresh, "a", SECOND),
        PaceDecision::Admitted
    );
}

#[test]
fn what_never_went_out_costs_nothing() {
    let (mut pace, now) = pace(120, 2);
    for _ in 0..2 {
        ask(&mut pace, now, Lane::Interactive, "a", SECOND);
    }
    let PaceDecision::Queued(waiting) = ask(&mut pace, now, Lane::Interactive, "a", SECOND) else {
        panic!("no place is left");
    };
    // Time alone admits no call while every place is taken.
    assert_eq!(pace.next(now), Some((waiting, None)));
    pace.release(true);
    assert_eq!(pace.next(now), Some((waiting, Some(now))));
    pace.leave(waiting);
    assert_eq!((pace.next(now), pace.snapshot(now).remaining), (None, 18));
    pace.release(false);
    let seen = pace.snapshot(now);
    assert_eq!((seen.remaining, seen.in_flight), (19, 0));
    // Credit never exceeds a burst.
    pace.release(false);
    pace.release(false);
    assert_eq!(pace.snapshot(now + SECOND * 9).remaining, 20);
}

#[test]
fn what_is_usual_follows_what_calls_took() {
    let (mut pace, now) = pace(60, 100);
    for _ in 0..10 {
        ask(&mut pace, now, Lane::Interactive, "a", SECOND);
    }
    // The next one goes after a second, and its answer takes the usual time.
    let is_usual = |pace: &mut Pace, usual: Duration| {
        let mut too_long = |until| {
            let none = (0, Lane::Interactive);
            pace.too_long(now, Lane::Interactive, &"a".into(), none, now + until)
        };
        too_long(SECOND + usual) == Some(SECOND)
            && too_long(SECOND + usual + Duration::from_nanos(1)).is_none()
    };
    let began = |ms| now.checked_sub(Duration::from_millis(ms)).unwrap();
    assert!(is_usual(&mut pace, Duration::ZERO));
    pace.felt(now, Felt::Prompt, began(800));
    assert!(is_usual(&mut pace, Duration::from_micros(100_000)));
    pace.felt(now, Felt::Prompt, began(400));
    assert!(is_usual(&mut pace, Duration::from_micros(137_500)));
    pace.felt(now, Felt::Nothing, began(400));
    assert!(is_usual(&mut pace, Duration::from_micros(137_500)));
}

#[test]
fn a_stop_is_never_shortened_nor_ended_by_what_was_under_way() {
    let (mut pace, now) = pace(600, 8);
    pace.answered(now);
    assert_eq!(pace.snapshot(now).ramp, None, "nothing was wrong");
    assert_eq!(pace.rate_limited(now, Some(SECOND * 20)), SECOND * 20);
    let later = now + SECOND;
    assert_eq!(pace.rate_limited(later, Some(SECOND * 2)), SECOND * 19);
    // Neither a count that resets sooner nor a good answer ends the hold-down.
    pace.told_remaining(later, 0, Some(SECOND * 3));
    pace.answered(later);
    let stopped = |pace: &Pace, at| pace.stopped(at).map(|refusal| refusal.retry_after);
    assert_eq!(stopped(&pace, later), Some(SECOND * 19));
    let over = now + SECOND * 20;
    assert_eq!(stopped(&pace, over), None);
    // Then one call goes, and after its answer all others at the rate.
    assert_eq!(pace.snapshot(over).remaining, 1);
    let go = |pace: &mut Pace, at| ask(pace, at, Lane::Interactive, "a", SECOND);
    assert_eq!(go(&mut pace, over), PaceDecision::Admitted);
    let soon = over + SECOND;
    assert!(matches!(go(&mut pace, soon), PaceDecision::Queued(_)));
    pace.answered(soon);
    assert_eq!(pace.advance(soon).len(), 1);
    assert_eq!(pace.snapshot(soon).ramp, Some((20, SECOND * 30)));
    // A count that the vendor states at the end of a hold-down is obeyed again.
    pace.told_remaining(soon, 0, Some(SECOND * 3));
    assert_eq!(pace.snapshot(soon).hold_down, Some(SECOND * 3));
    let again = soon + SECOND * 3;
    pace.told_remaining(again, 0, Some(SECOND * 4));
    assert_eq!(pace.snapshot(again).hold_down, Some(SECOND * 4));
}

#[test]
fn after_a_reset_the_rest_grows_back_at_the_rate() {
    let (mut pace, now) = pace(60, 100);
    pace.told_remaining(now, 0, Some(SECOND * 4));
    let asked: Vec<_> = (0..3)
        .map(|_| ask(&mut pace, now, Lane::Interactive, "a", SECOND * 9))
        .collect();
    assert!(
        asked
            .iter()
            .all(|asked| matches!(asked, PaceDecision::Queued(_)))
    );
    // The answers to calls that were in flight state the same count.
    pace.told_remaining(now + SECOND, 0, Some(SECOND * 3));
    for seconds in 4..7 {
        let at = now + SECOND * seconds;
        assert_eq!(pace.next(now).unwrap().1, Some(at));
        assert_eq!(pace.advance(at - Duration::from_nanos(1)), []);
        assert_eq!(pace.advance(at).len(), 1);
    }
    // A count larger than the rest of the burst changes nothing.
    pace.told_remaining(now + SECOND * 8, 99, None);
    assert_eq!(pace.snapshot(now + SECOND * 8).remaining, 2);
    pace.told_remaining(now + SECOND * 8, 1, None);
    assert_eq!(pace.snapshot(now + SECOND * 8).remaining, 1);
}

#[test]
fn background_work_of_a_vendor_that_is_back_waits_for_its_part() {
    let (mut pace, now) = pace(60, 100);
    pace.begin_anew(now);
    assert_eq!(pace.snapshot(now).remaining, 1);
    let ids: Vec<_> = (0..2)
        .map(|_| ask(&mut pace, now, Lane::Refresh, "a", SECOND * 60))
        .collect();
    assert!(
        ids.iter()
            .all(|asked| matches!(asked, PaceDecision::Queued(_)))
    );
    // Background work starts at a fifth of the rate and grows. The credit after t seconds is 0.2 t
    // + t² / 75, so the first call is earned after 3.95 s and the second after 6.86 s.
    let first = pace.next(now).unwrap().1.unwrap() - now;
    assert_eq!(first.as_millis() / 10, 395);
    // Callers do not wait for the ramp and take none of its credit.
    assert_eq!(
        ask(&mut pace, now + SECOND * 2, Lane::Interactive, "b", SECOND),
        PaceDecision::Admitted
    );
    assert_eq!(pace.next(now).unwrap().1.unwrap() - now, first);
    assert_eq!(pace.advance(now + first).len(), 1);
    let second = pace.next(now + first).unwrap().1.unwrap() - now;
    assert_eq!(second.as_millis() / 10, 686);
    // A call behind the second learns when the third is earned: 0.2 t + t² / 75 = 3.
    let PaceDecision::Refused(refusal) = ask(&mut pace, now + first, Lane::Refresh, "a", SECOND)
    else {
        panic!("it would come too late");
    };
    let after = first + refusal.retry_after;
    assert_eq!(after.as_millis() / 10, 927);
}

#[test]
fn who_waits_in_another_lane_is_behind_its_payers_others() {
    let (mut pace, now) = pace(60_000, 1);
    let mut ids = Vec::new();
    for lane in [
        Lane::Interactive,
        Lane::Interactive,
        Lane::Refresh,
        Lane::Interactive,
    ] {
        ids.push(ask(&mut pace, now, lane, "a", SECOND));
    }
    let [
        PaceDecision::Admitted,
        PaceDecision::Queued(first),
        PaceDecision::Queued(behind),
        PaceDecision::Queued(other),
    ] = ids[..]
    else {
        panic!("one goes");
    };
    pace.yield_to_others(first, Lane::Refresh, &"a".into());
    pace.yield_to_others(77, Lane::Refresh, &"a".into());
    for id in [other, behind, first] {
        pace.release(true);
        assert_eq!(pace.advance(now), [Called::Admitted(id)]);
    }
    assert_eq!(pace.next(now), None);
}
