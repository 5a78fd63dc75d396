//! The circuit breaker: stops calls to a vendor that fails, and notices when it is back. Pure.
//!
//! While the circuit is open, one call at a time goes out as a probe, every
//! [`CircuitSettings::probe_every`]. The first probe that gets an answer closes the circuit. The
//! interval does not grow: a probe costs little, and the gateway should notice within a moment that
//! the vendor is back. If probes hang instead of failing, the next one goes out after
//! [`CircuitSettings::overlap`] without waiting for the earlier ones. So a probe that hangs for ten
//! seconds does not delay the next by ten seconds.

use crate::clock::{Duration, Instant};

/// Settings: when the circuit opens, and how often it is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Number of failures in a row that opens it.
    pub consecutive_failures: u32,
    /// Share of failed calls, in percent, that opens it.
    pub failure_percent: u32,
    /// Minimum number of calls in the window for the share to count.
    pub calls_min: u32,
    /// Time between probes while the circuit is open, if probes fail at once.
    pub probe_every: Duration,
    /// Time between probes while an earlier probe still hangs.
    pub overlap: Duration,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_percent: 50,
            calls_min: 20,
            probe_every: Duration::from_millis(500),
            overlap: Duration::from_millis(1250),
        }
    }
}

/// Length of the window in which failures are counted. It has one slot for each second.
const WINDOW_SECONDS: u64 = 10;
/// Probes go up to this share of the interval early, so that many gateways do not probe in step.
const JITTER: f64 = 0.1;

/// State of a circuit. The metric `vendor_circuit_state` is its index in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls go through.
    Closed,
    /// A probe is out.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl CircuitState {
    /// Every state, in the order of the metric's values.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// Returns the word used in logs and `/readyz`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// Returns the value of the metric.
    pub const fn gauge(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Outcome of one call, as the circuit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitVerdict {
    /// The vendor answered.
    Alive,
    /// The vendor, or the connection to it, failed.
    Failed,
    /// Proves nothing: the call was cancelled, or its time was too short.
    Unknown,
}

/// Permission for one call. The verdict must be recorded with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the verdict of the call must be told"]
pub struct CircuitTicket {
    generation: u64,
    probe: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    calls: u32,
    failures: u32,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        next_probe: Instant,
        probes_out: u32,
    },
}

/// The circuit breaker of one vendor.
#[derive(Debug)]
pub struct Breaker {
    settings: CircuitSettings,
    anchor: Instant,
    /// Number of openings and closings. Verdicts of calls admitted before the last one are ignored.
    generation: u64,
    phase: Phase,
    failures_in_row: u32,
    window: [Slot; WINDOW_SECONDS as usize],
    rng: fastrand::Rng,
}

impl Breaker {
    /// Creates a closed circuit. `seed` is for the jitter of probes.
    pub fn new(settings: CircuitSettings, now: Instant, seed: u64) -> Self {
        Self {
            settings,
            anchor: now,
            generation: 0,
            phase: Phase::Closed,
            failures_in_row: 0,
            window: Default::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Changes the settings and keeps the state.
    pub fn set(&mut self, settings: CircuitSettings) {
        self.settings = settings;
    }

    /// Returns the current state.
    pub fn state(&self) -> CircuitState {
        match self.phase {
            Phase::Closed => CircuitState::Closed,
            Phase::Open { probes_out: 0, .. } => CircuitState::Open,
            Phase::Open { .. } => CircuitState::HalfOpen,
        }
    }

    /// Checks whether a call could go now, without admitting one.
    ///
    /// # Errors
    /// Returns the time until the next probe is due.
    pub fn peek(&self, now: Instant) -> Result<(), Duration> {
        match self.phase {
            Phase::Open { next_probe, .. } if next_probe > now => {
                Err(next_probe.saturating_duration_since(now))
            }
            _ => Ok(()),
        }
    }

    /// Admits one call.
    ///
    /// # Errors
    /// Returns the time until the next probe is due.
    pub fn admit(&mut self, now: Instant) -> Result<CircuitTicket, Duration> {
        self.peek(now)?;
        let probe = match &mut self.phase {
            Phase::Closed => false,
            Phase::Open {
                next_probe,
                probes_out,
            } => {
                *next_probe = now + self.settings.overlap;
                *probes_out += 1;
                true
            }
        };
        Ok(CircuitTicket {
            generation: self.generation,
            probe,
        })
    }

    /// Records how a call went. A verdict from before the last opening or closing is ignored.
    pub fn heard(&mut self, now: Instant, ticket: CircuitTicket, verdict: CircuitVerdict) {
        if ticket.generation != self.generation {
            return;
        }
        if ticket.probe {
            match verdict {
                CircuitVerdict::Alive => self.close(),
                CircuitVerdict::Failed => self.probe_ended(now + self.settings.probe_every),
                // The probe proved nothing, so the next call may probe at once.
                CircuitVerdict::Unknown => self.probe_ended(now),
            }
            return;
        }
        match verdict {
            CircuitVerdict::Unknown => {}
            CircuitVerdict::Alive => {
                self.failures_in_row = 0;
                self.note(now, false);
            }
            CircuitVerdict::Failed => {
                self.failures_in_row += 1;
                self.note(now, true);
                if self.failures_in_row >= self.settings.consecutive_failures
                    || self.mostly_failing(now)
                {
                    self.open(now);
                }
            }
        }
    }

    fn note(&mut self, now: Instant, failed: bool) {
        let second = self.second(now);
        let index = usize::try_from(second % WINDOW_SECONDS).unwrap_or(0);
        if let Some(slot) = self.window.get_mut(index) {
            if slot.second != second {
                *slot = Slot {
                    second,
                    ..Slot::default()
                };
            }
            slot.calls = slot.calls.saturating_add(1);
            slot.failures = slot.failures.saturating_add(u32::from(failed));
        }
    }

    fn mostly_failing(&self, now: Instant) -> bool {
        let second = self.second(now);
        let (calls, failures) = self
            .window
            .iter()
            .filter(|slot| slot.second + WINDOW_SECONDS > second)
            .fold((0u64, 0u64), |(calls, failures), slot| {
                (
                    calls + u64::from(slot.calls),
                    failures + u64::from(slot.failures),
                )
            });
        calls >= u64::from(self.settings.calls_min)
            && failures * 100 >= calls * u64::from(self.settings.failure_percent)
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.anchor).as_secs()
    }

    fn open(&mut self, now: Instant) {
        self.generation += 1;
        let next_probe = now + self.jittered(self.settings.probe_every);
        self.phase = Phase::Open {
            next_probe,
            probes_out: 0,
        };
    }

    fn close(&mut self) {
        self.generation += 1;
        self.phase = Phase::Closed;
        self.failures_in_row = 0;
        self.window = Default::default();
    }

    fn probe_ended(&mut self, due: Instant) {
        let early = self.settings.probe_every - self.jittered(self.settings.probe_every);
        if let Phase::Open {
            next_probe,
            probes_out,
        } = &mut self.phase
        {
            *probes_out = probes_out.saturating_sub(1);
            // A probe that ended must not delay the next one while other probes hang.
            *next_probe = (*next_probe).min(due.checked_sub(early).unwrap_or(due));
        }
    }

    fn jittered(&mut self, time: Duration) -> Duration {
        time.mul_f64(1.0 - JITTER * self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> (Breaker, Instant) {
        let now = Clock::system().now();
        (Breaker::new(CircuitSettings::default(), now, 1), now)
    }

    fn call(breaker: &mut Breaker, now: Instant, verdict: CircuitVerdict) -> bool {
        match breaker.admit(now) {
            Ok(ticket) => {
                breaker.heard(now, ticket, verdict);
                true
            }
            Err(_) => false,
        }
    }

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        for _ in 0..5 {
            assert!(call(&mut breaker, now, CircuitVerdict::Failed));
        }
        assert_eq!(breaker.state(), CircuitState::Open);
        (breaker, now)
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_an_answer_between_does_not() {
        let (mut breaker, now) = breaker();
        for _ in 0..4 {
            assert!(call(&mut breaker, now, CircuitVerdict::Failed));
        }
        assert!(call(&mut breaker, now, CircuitVerdict::Alive));
        for _ in 0..4 {
            assert!(call(&mut breaker, now, CircuitVerdict::Failed));
            assert!(call(&mut breaker, now, CircuitVerdict::Unknown));
        }
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert!(call(&mut breaker, now, CircuitVerdict::Failed));
        assert_eq!(breaker.state(), CircuitState::Open);
        let wait = breaker.admit(now).unwrap_err();
        assert!(wait <= 500 * MS && wait >= 450 * MS, "{wait:?}");
    }

    #[test]
    fn states_have_their_words_and_their_places() {
        let told = CircuitState::ALL.map(|state| (state.as_str(), state.gauge()));
        assert_eq!(told, [("closed", 0), ("half_open", 1), ("open", 2)]);
    }

    #[test]
    fn new_settings_rule_what_comes_and_keep_what_was() {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            assert!(call(&mut breaker, now, CircuitVerdict::Failed));
        }
        breaker.set(CircuitSettings {
            consecutive_failures: 4,
            ..CircuitSettings::default()
        });
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert!(call(&mut breaker, now, CircuitVerdict::Failed));
        assert_eq!(breaker.state(), CircuitState::Open);
    }

    #[test]
    fn half_of_twenty_opens_it_within_the_window_only() {
        let (mut breaker, now) = breaker();
        for n in 0..19 {
            let verdict = if n % 2 == 0 {
                CircuitVerdict::Failed
            } else {
                CircuitVerdict::Alive
            };
            assert!(call(&mut breaker, now, verdict));
        }
        assert_eq!(breaker.state(), CircuitState::Closed);
        let later = now + 10_000 * MS;
        assert!(call(&mut breaker, later, CircuitVerdict::Failed));
        assert_eq!(breaker.state(), CircuitState::Closed, "the window moved on");
        let (mut breaker, now) = self::breaker();
        for n in 0..21 {
            let verdict = if n % 2 == 0 {
                CircuitVerdict::Failed
            } else {
                CircuitVerdict::Alive
            };
            let at = now + 400 * MS * n;
            assert!(call(&mut breaker, at, verdict), "{n}");
        }
        assert_eq!(breaker.state(), CircuitState::Open);
    }

    #[test]
    fn one_probe_at_a_time_and_its_answer_closes() {
        let (mut breaker, now) = opened();
        let due = now + 500 * MS;
        assert_eq!(breaker.peek(due), Ok(()));
        let probe = breaker.admit(due).unwrap();
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        assert!(breaker.admit(due).is_err());
        assert!(breaker.admit(due + 500 * MS).is_err());
        breaker.heard(due + 600 * MS, probe, CircuitVerdict::Alive);
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert!(call(&mut breaker, due + 600 * MS, CircuitVerdict::Failed));
        assert_eq!(
            breaker.state(),
            CircuitState::Closed,
            "counts start from zero"
        );
    }

    #[test]
    fn failed_probes_keep_a_flat_interval() {
        let (mut breaker, mut now) = opened();
        let mut probes = 0;
        let end = now + 60_000 * MS;
        while now < end {
            if call(&mut breaker, now, CircuitVerdict::Failed) {
                probes += 1;
            }
            now += 2 * MS;
        }
        assert!((118..=134).contains(&probes), "{probes}");
    }

    #[test]
    fn a_hanging_probe_is_overtaken_and_a_dropped_one_replaced() {
        let (mut breaker, now) = opened();
        let due = now + 500 * MS;
        let hanging = breaker.admit(due).unwrap();
        let second = breaker.admit(due + 1250 * MS).unwrap();
        breaker.heard(due + 1300 * MS, second, CircuitVerdict::Unknown);
        let third = breaker.admit(due + 1300 * MS).unwrap();
        breaker.heard(due + 1400 * MS, third, CircuitVerdict::Alive);
        breaker.heard(due + 10_000 * MS, hanging, CircuitVerdict::Failed);
        assert_eq!(breaker.state(), CircuitState::Closed);
    }

    #[test]
    fn what_was_under_way_before_does_not_decide() {
        let (mut breaker, now) = breaker();
        let early = breaker.admit(now).unwrap();
        let other = breaker.admit(now).unwrap();
        for _ in 0..5 {
            assert!(call(&mut breaker, now, CircuitVerdict::Failed));
        }
        breaker.heard(now, early, CircuitVerdict::Alive);
        assert_eq!(breaker.state(), CircuitState::Open);
        breaker.heard(now, other, CircuitVerdict::Failed);
        assert!(breaker.admit(now + 500 * MS).is_ok());
    }

    proptest! {
        /// Whatever happened before: within a second after the vendor answers again, a call gets
        /// through and closes the circuit, provided that no probe hangs.
        #[test]
        fn it_always_recovers(verdicts in proptest::collection::vec((0u8..3, 0u64..400), 0..200)) {
            let (mut breaker, mut now) = breaker();
            for (verdict, pause) in verdicts {
                let verdict = [CircuitVerdict::Alive, CircuitVerdict::Failed, CircuitVerdict::Unknown][usize::from(verdict)];
                let admitted = call(&mut breaker, now, verdict);
                prop_assert!(admitted || breaker.state() == CircuitState::Open);
                now += Duration::from_millis(pause);
            }
            let wait = breaker.peek(now).err().unwrap_or_default();
            prop_assert!(wait <= 500 * MS);
            prop_assert!(call(&mut breaker, now + wait, CircuitVerdict::Alive));
            prop_assert_eq!(breaker.state(), CircuitState::Closed);
        }
    }
}
