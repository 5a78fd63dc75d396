//! Finds out how many concurrent calls a vendor can handle. Pure.
//!
//! A vendor that gets more calls than it can work on keeps the rest waiting until they are late,
//! and it goes on working on calls that have been given up. So a late answer takes a share
//! of the places away, and each round of prompt answers gives one back. This is additive increase,
//! multiplicative decrease, up to the configured number.

use crate::clock::Instant;

/// Share of the places that is left after a late call, in percent.
const CUT_PERCENT: u64 = 60;
/// Places are counted in thousandths, so that they can grow by a fraction.
const ONE: u64 = 1_000;

/// How a call went, as far as it shows whether the vendor is crowded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Felt {
    /// The answer came in time.
    Prompt,
    /// The answer took more than half of its time limit, or did not come within it.
    Late,
    /// The call failed in another way, which says nothing about crowding.
    Nothing,
}

/// The number of places in use, up to a maximum.
#[derive(Debug, Default)]
pub struct Places {
    /// In thousandths. `None` while all places may be used.
    now: Option<u64>,
    /// Late answers to calls begun before this time do not cut the places again.
    cut: Option<Instant>,
}

impl Places {
    /// Returns the number of concurrent calls allowed, at most `max`.
    pub fn limit(&self, max: usize) -> usize {
        let limit = self
            .now
            .map_or(max, |now| usize::try_from(now / ONE).unwrap_or(usize::MAX));
        limit.clamp(1, max.max(1))
    }

    /// Records how a call went that began at `began`. `in_flight` counts it too.
    pub fn heard(
        &mut self,
        felt: Felt,
        began: Instant,
        now: Instant,
        in_flight: usize,
        max: usize,
    ) {
        let limit = self.limit(max);
        match felt {
            Felt::Nothing => {}
            Felt::Late => {
                if self.cut.is_none_or(|cut| began >= cut) {
                    let of = self.now.unwrap_or(max as u64 * ONE);
                    self.now = Some((of * CUT_PERCENT / 100).max(ONE));
                    self.cut = Some(now);
                }
            }
            // A limit that was not reached was not tested, so it does not grow.
            Felt::Prompt if in_flight >= limit => {
                if let Some(places) = self.now {
                    let grown = places + ONE * ONE / places.max(ONE);
                    self.now = (grown < max as u64 * ONE).then_some(grown);
                }
            }
            Felt::Prompt => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Duration};

    #[test]
    fn one_crowd_is_cut_once_and_prompt_rounds_give_back() {
        let start = Clock::system().now();
        let at = |s| start + Duration::from_secs(s);
        let mut places = Places::default();
        assert_eq!(places.limit(8), 8);
        for _ in 0..8 {
            places.heard(Felt::Late, at(0), at(10), 8, 8);
        }
        assert_eq!(places.limit(8), 4);
        // A single call in flight proves nothing.
        places.heard(Felt::Prompt, at(11), at(12), 1, 8);
        assert_eq!(places.limit(8), 4);
        for _ in 0..7 {
            places.heard(Felt::Prompt, at(11), at(12), 5, 8);
        }
        assert_eq!(places.limit(8), 6);
        for _ in 0..20 {
            places.heard(Felt::Prompt, at(11), at(12), 8, 8);
        }
        assert_eq!((places.limit(8), places.now), (8, None));
        for s in 20..40 {
            places.heard(Felt::Late, at(s), at(s), 1, 8);
        }
        assert_eq!((places.limit(8), places.limit(0)), (1, 1));
        places.heard(Felt::Prompt, at(50), at(50), 1, 8);
        assert_eq!(places.limit(8), 2);
    }
}
