//! The only random numbers in the sandbox: SplitMix64. One seed gives the same world for ever,
//! whatever a random-number crate changes between its versions.

/// The purpose of a stream of numbers. Two domains of one seed never share a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Domain {
    /// The customer and day of a case.
    Cases,
    /// The text of one case.
    CaseText,
    /// The text of one customer.
    Customers,
    /// Contracts, services and billed clients.
    Billing,
    /// Scroll ids.
    Scrolls,
    /// Faults with a probability.
    Faults,
    /// Customers of inserted cases.
    Inserts,
    /// Cases that are changed, removed and moved.
    Alterations,
}

/// A seeded stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Creates the stream of `domain` and `index` under `seed`.
    pub(super) fn new(seed: u64, domain: Domain, index: u64) -> Self {
        let mut dice = Self(seed);
        dice.0 = dice.next() ^ (domain as u64).wrapping_mul(0xA24B_AED4_963E_E407);
        dice.0 = dice.next() ^ index.wrapping_mul(0x9FB2_1C65_1E98_DF25);
        dice
    }

    /// Returns the next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number in `0..bound`, or 0 if `bound` is 0. The bias is below 2⁻³² for the bounds
    /// used here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// Returns a number in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns true in `percent` of 100 cases.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of `words`, or an empty text if there is none.
    pub(super) fn word(&mut self, words: &[&'static str]) -> &'static str {
        let at = usize::try_from(self.below(words.len() as u64)).unwrap_or(0);
        words.get(at).copied().unwrap_or("")
    }

    /// Shuffles `items` (Fisher–Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let with = usize::try_from(self.below(at as u64 + 1)).unwrap_or(0);
            items.swap(at, with);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream() {
        let draw = |seed, domain, index| {
            let mut dice = Dice::new(seed, domain, index);
            (dice.next(), dice.next(), dice.below(1000))
        };
        assert_eq!(draw(1, Domain::Cases, 7), draw(1, Domain::Cases, 7));
        assert_ne!(draw(1, Domain::Cases, 7), draw(2, Domain::Cases, 7));
        assert_ne!(draw(1, Domain::Cases, 7), draw(1, Domain::Cases, 8));
        assert_ne!(draw(1, Domain::Cases, 7), draw(1, Domain::Billing, 7));
    }

    #[test]
    fn bounds_hold() {
        let mut dice = Dice::new(1, Domain::Faults, 0);
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.word(&[]), "");
        for _ in 0..10_000 {
            assert!(dice.below(7) < 7);
            assert!((0.0..1.0).contains(&dice.unit()));
        }
        let mut items: Vec<u32> = (0..50).collect();
        dice.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
