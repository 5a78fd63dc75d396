//! Whether an answer may be used: a pure function of the entry, the policy and now.

use crate::clock::{Duration, Instant};

/// How long answers of one kind may be used, counted from their birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Served without a vendor call until this age.
    pub fresh: Duration,
    /// Time after `fresh` in which the answer is served at once while one refresh runs
    /// (stale-while-revalidate).
    pub stale: Duration,
    /// Time after `fresh` in which the answer is served if the vendor fails or may not be asked
    /// (stale-if-error).
    pub on_error: Duration,
}

/// How an answer may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Serve it.
    Fresh,
    /// Serve it and refresh it.
    Stale,
    /// Serve it only if the vendor gives nothing better.
    OnError,
    /// Do not serve it.
    Expired,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::Stale, Self::OnError, Self::Expired];

    /// Returns the word used in explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::OnError => "on_error",
            Self::Expired => "expired",
        }
    }
}

/// Largest share of `fresh` that jitter takes away, so that answers that were fetched together do
/// not expire together. Jitter only shortens.
const JITTER: f64 = 0.10;

/// Share of `fresh` after which a hot answer is refreshed ahead of time. It is late, because each
/// refresh ahead is a vendor call earlier than necessary.
const AHEAD_OF: f64 = 0.80;
/// How long callers wait for the vendor when an answer that is usable on error is at hand. It
/// counts from the start of the fetch, so that callers do not each wait the whole time for a vendor
/// that hangs. It is longer than a healthy vendor takes, and short beside the time limit of an
/// attempt.
pub const ON_ERROR_WAIT: Duration = Duration::from_secs(2);
/// Number of fresh uses since its birth from which an answer is hot.
pub const HOT_HITS: u32 = 3;

impl Lifetimes {
    /// Returns the jittered `fresh` of one entry. `draw` is in 0..1 and belongs to the entry, so
    /// that the result is stable.
    pub fn fresh_with(&self, draw: f64) -> Duration {
        // Computed in nanoseconds as f64, which is exact enough and fast: each answer asks this
        // several times.
        let nanos = u64::try_from(self.fresh.as_nanos()).unwrap_or(u64::MAX);
        let less = nanos as f64 * (JITTER * draw.clamp(0.0, 1.0));
        Duration::from_nanos(nanos - (less as u64).min(nanos))
    }

    /// Returns the standing, now, of an answer born at `born`.
    pub fn judge(&self, born: Instant, draw: f64, now: Instant) -> JudgedAge {
        JudgedAge {
            age: now.saturating_duration_since(born),
            fresh: self.fresh_with(draw),
            stale: self.stale,
            on_error: self.on_error,
        }
    }
}

/// An answer's age against its lifetimes, computed once for all questions about it.
#[derive(Clone, Copy, Debug)]
pub struct JudgedAge {
    /// Time since the vendor gave the answer.
    pub age: Duration,
    fresh: Duration,
    stale: Duration,
    on_error: Duration,
}

impl JudgedAge {
    /// Returns how the answer may be used.
    pub fn standing(&self) -> Standing {
        let Self { age, fresh, .. } = *self;
        if age < fresh {
            Standing::Fresh
        } else if age < fresh.saturating_add(self.stale) {
            Standing::Stale
        } else if age < fresh.saturating_add(self.on_error) {
            Standing::OnError
        } else {
            Standing::Expired
        }
    }

    /// Returns whether the answer is fresh but will soon be stale.
    pub fn is_nearly_stale(&self) -> bool {
        self.age < self.fresh && self.age >= self.fresh.mul_f64(AHEAD_OF)
    }

    /// Returns the seconds of freshness left. Negative once the answer is stale.
    pub fn ttl_s(&self) -> i64 {
        let Self { age, fresh, .. } = *self;
        super::note::seconds_left(fresh.checked_sub(age), age.saturating_sub(fresh))
    }
}

/// A caller's `Cache-Control`. `no_cache` and `max_age` are obeyed within an allowance, because
/// they may cost vendor calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `no-cache`: the vendor must be asked.
    pub no_cache: bool,
    /// `max-age`: no older answer is accepted.
    pub max_age: Option<Duration>,
    /// `max-stale`: a stale answer is accepted up to this long past its freshness. `Duration::MAX`
    /// if the directive has no value.
    pub max_stale: Option<Duration>,
    /// `only-if-cached`: the caller prefers 504 to a vendor call.
    pub only_if_cached: bool,
}

impl Directives {
    /// Returns whether the directives could refuse any age.
    pub fn limits_age(&self) -> bool {
        self.no_cache || self.max_age.is_some()
    }

    /// Returns whether the directives refuse an answer of this age.
    pub fn refuses_age(&self, age: Duration) -> bool {
        self.no_cache || self.max_age.is_some_and(|max| age > max)
    }

    /// Returns the birth of the oldest answer that the directives accept. `None`: any age.
    pub fn oldest(&self, now: Instant) -> Option<Instant> {
        match self.no_cache {
            true => Some(now),
            false => now.checked_sub(self.max_age?),
        }
    }

    /// Returns the directives of a caller whose allowance of forced vendor calls is used up.
    pub fn unforced(self) -> Self {
        Self {
            no_cache: false,
            max_age: None,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn standing_changes_at_its_bounds() {
        let secs = Duration::from_secs;
        let lives = Lifetimes {
            fresh: secs(100),
            stale: secs(50),
            on_error: secs(500),
        };
        let born = Instant::now();
        let at = |draw, s| lives.judge(born, draw, born + secs(s)).standing();
        assert_eq!(at(0.0, 99), Standing::Fresh);
        assert_eq!(at(0.0, 100), Standing::Stale);
        assert_eq!(at(0.0, 150), Standing::OnError);
        assert_eq!(at(0.0, 600), Standing::Expired);
        // Jitter shortens by a tenth at most.
        assert_eq!(at(1.0, 89), Standing::Fresh);
        assert_eq!(at(1.0, 90), Standing::Stale);
        let nearly = |draw, s| lives.judge(born, draw, born + secs(s)).is_nearly_stale();
        assert!(!nearly(0.0, 79) && nearly(0.0, 80) && nearly(0.0, 99) && !nearly(0.0, 100));
        assert!(!nearly(1.0, 71) && nearly(1.0, 72) && !nearly(1.0, 90));
        assert_eq!(lives.judge(born, 0.0, born + secs(40)).ttl_s(), 60);
        assert_eq!(lives.judge(born, 0.0, born + secs(103)).ttl_s(), -4);
    }
    #[test]
    fn callers_refuse_ages_until_their_allowance_is_used_up() {
        let secs = Duration::from_secs;
        let all = Directives {
            no_cache: true,
            max_age: Some(secs(60)),
            max_stale: Some(secs(9)),
            only_if_cached: true,
        };
        let max_age = Directives {
            no_cache: false,
            ..all
        };
        let ages = [59, 60, 61].map(secs);
        assert_eq!(
            ages.map(|age| max_age.refuses_age(age)),
            [false, false, true]
        );
        assert_eq!(ages.map(|age| all.refuses_age(age)), [true; 3]);
        let neither = Directives {
            max_age: None,
            ..max_age
        };
        assert_eq!(ages.map(|age| neither.refuses_age(age)), [false; 3]);
        // A directive that costs no vendor call is still obeyed.
        assert_eq!(all.unforced(), neither);
    }

    #[test]
    fn standings_have_their_words() {
        assert_eq!(
            Standing::ALL.map(Standing::as_str),
            ["fresh", "stale", "on_error", "expired"]
        );
    }
}
