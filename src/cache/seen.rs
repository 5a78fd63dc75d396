//! Tells what is met a second time, in a table of a fixed size: most pages and searches are asked once,
//! and whatever is kept of those is kept for nothing.

use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;

/// Marks of what was met last, four bytes each. What meets another's place takes it, and the other
/// counts as new again: it is kept one time later than it might have been.
const MARKS: usize = 16 * 1024;

/// See above.
pub struct Seen {
    marks: Box<[AtomicU32]>,
    hasher: RandomState,
}

/// Has met nothing yet.
impl Default for Seen {
    fn default() -> Self {
        Self {
            marks: (0..MARKS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Seen {
    /// Whether this was met before, lately; from now on it was. In one of some billion cases it says
    /// so of something new, which costs no more than its place.
    pub fn again(&self, what: &impl Hash) -> bool {
        let hash = self.hasher.hash_one(what);
        // The place and the mark are of different bits; no mark is that of an empty place.
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
