//! The one decision about a remembered answer: serve it, serve it and refresh it, ask the vendor,
//! or refuse. Pure.
//!
//! Lookups of single answers, searches and `/admin/explain` all ask here, so they cannot differ.
//! The caller's directives mean what RFC 9111, section 5.2.1, says of a request's `Cache-Control`.
//! One promise goes before all of them: an answer past `on_error` is never served as a hit,
//! whatever `max-stale` allows.

use super::freshness::{Directives, Standing};
use super::note::Forward;
use crate::clock::Duration;

/// What is known of a remembered answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Time since the vendor gave it.
    pub age: Duration,
    /// How it may be used, a purge taken into account.
    pub standing: Standing,
    /// Seconds since it was fresh; 0 or less while it is.
    pub past_s: i64,
    /// Whether it is refreshed before it is stale.
    pub ahead: bool,
}

/// What to do with a remembered answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Serve,
    /// Serve it, and refresh it before it is stale.
    RefreshAhead,
    /// It is stale: serve it, and refresh it.
    ServeAndRefresh,
    /// Ask the vendor.
    Ask(Forward),
    /// Refuse with 504: it may not be served, and the vendor may not be asked.
    NotCached,
}

impl Remembered {
    /// Returns the decision, for a request with these directives.
    pub fn verdict(&self, directives: &Directives) -> Verdict {
        let verdict = match self.standing {
            Standing::Expired => Verdict::Ask(Forward::Stale),
            _ if directives.refuses_age(self.age) => Verdict::Ask(Forward::Request),
            Standing::Fresh if self.ahead => Verdict::RefreshAhead,
            Standing::Fresh => Verdict::Serve,
            Standing::Stale => Verdict::ServeAndRefresh,
            Standing::OnError if self.is_within(directives.max_stale) => Verdict::ServeAndRefresh,
            Standing::OnError => Verdict::Ask(Forward::Stale),
        };
        match verdict {
            verdict if !directives.only_if_cached => verdict,
            Verdict::Ask(_) | Verdict::NotCached => Verdict::NotCached,
            // Not even a refresh: the caller wants no vendor call.
            Verdict::Serve | Verdict::RefreshAhead | Verdict::ServeAndRefresh => Verdict::Serve,
        }
    }

    fn is_within(&self, max_stale: Option<Duration>) -> bool {
        max_stale.is_some_and(|max| i64::try_from(max.as_secs()).unwrap_or(i64::MAX) >= self.past_s)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remembered() -> impl Strategy<Value = Remembered> {
        (0u64..500, 0usize..4, 0i64..500, any::<bool>()).prop_map(|(age, standing, past, ahead)| {
            let standing = Standing::ALL[standing];
            Remembered {
                age: Duration::from_secs(age),
                standing,
                past_s: if standing == Standing::Fresh {
                    -past
                } else {
                    past
                },
                ahead,
            }
        })
    }

    fn directives() -> impl Strategy<Value = Directives> {
        let seconds = || proptest::option::of((0u64..500).prop_map(Duration::from_secs));
        (any::<bool>(), seconds(), seconds(), any::<bool>()).prop_map(
            |(no_cache, max_age, max_stale, only_if_cached)| Directives {
                no_cache,
                max_age,
                max_stale,
                only_if_cached,
            },
        )
    }

    fn is_served(verdict: Verdict) -> bool {
        matches!(
            verdict,
            Verdict::Serve | Verdict::RefreshAhead | Verdict::ServeAndRefresh
        )
    }

    proptest! {
        /// RFC 9111, section 5.2.1, and the promise about `on_error`.
        #[test]
        fn every_directive_means_what_the_rfc_says(seen in remembered(), said in directives()) {
            let verdict = seen.verdict(&said);
            let served = is_served(verdict);
            // Nothing past `on_error` is a hit.
            prop_assert!(!(served && seen.standing == Standing::Expired));
            // 5.2.1.1 max-age: no older answer is accepted.
            if let Some(max) = said.max_age {
                prop_assert!(!served || seen.age <= max);
            }
            // 5.2.1.2 max-stale: what is beyond `stale` is served only within it.
            if served && seen.standing == Standing::OnError {
                let most = said.max_stale.map(|max| max.as_secs() as i64);
                prop_assert!(most.is_some_and(|most| seen.past_s <= most));
            }
            // 5.2.1.4 no-cache: never without asking the vendor.
            prop_assert!(!(served && said.no_cache));
            // 5.2.1.7 only-if-cached: a stored answer that meets the other directives, or 504. The
            // vendor is never called, and all that would be served without it is served with it.
            let also = seen.verdict(&Directives { only_if_cached: false, ..said });
            if said.only_if_cached {
                prop_assert!(matches!(verdict, Verdict::Serve | Verdict::NotCached));
                prop_assert_eq!(served, is_served(also));
            } else {
                prop_assert!(verdict != Verdict::NotCached);
            }
            // Without directives the standing alone decides.
            let plain = seen.verdict(&Directives::default());
            prop_assert_eq!(plain, match seen.standing {
                Standing::Fresh if seen.ahead => Verdict::RefreshAhead,
                Standing::Fresh => Verdict::Serve,
                Standing::Stale => Verdict::ServeAndRefresh,
                Standing::OnError | Standing::Expired => Verdict::Ask(Forward::Stale),
            });
            // A caller whose allowance is used up gets no less than one who said nothing of age.
            if is_served(seen.verdict(&Directives { max_stale: said.max_stale, ..Directives::default() })) {
                prop_assert!(is_served(seen.verdict(&said.unforced())));
            }
        }
    }
}
