//! Recognises a second occurrence, in a table of fixed size. Most pages and searches are read only
//! once, and caching those would gain nothing.

use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;

/// Number of marks, four bytes each. A mark overwrites the one in its place, whose owner counts as
/// new again and is cached one reading later.
const MARKS: usize = 16 * 1024;

/// Remembers which values occurred recently.
pub struct Seen {
    marks: Box<[AtomicU32]>,
    hasher: RandomState,
}

/// Starts empty.
impl Default for Seen {
    fn default() -> Self {
        Self {
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Seen {
    /// Records `what`. Returns whether it had been recorded and not overwritten. A new value is
    /// mistaken for a recorded one about once in a billion; that only caches it too early.
    pub fn again(&self, what: &impl Hash) -> bool {
        let hash = self.hasher.hash_one(what);
        // The place and the mark use different bits. No mark equals that of an empty place.
        let (high, low) = ((hash >> 32) as u32 | 1, hash as usize % MARKS);
        let mark = self.marks.get(low);
        mark.is_some_and(|mark| mark.swap(high, Ordering::Relaxed) == high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met_again_is_told() {
        let seen = Seen::default();
        for n in 0..100 {
            assert!(!seen.again(&n), "{n}");
            assert!(seen.again(&n) && seen.again(&n), "{n}");
        }
    }

    #[test]
    fn much_that_is_met_once_makes_it_forget_and_grows_nothing() {
        let seen = Seen::default();
        let told = (0..20 * MARKS).filter(|n| seen.again(n)).count();
        // Of some 330,000 pairs of one place, one in two billion has one mark.
        assert!(told < 10, "{told}");
        assert!(!seen.again(&0));
        assert_eq!(seen.marks.len(), MARKS);
    }
}
