//! Marks: what a page token contains about the rows before its place. Another snapshot must show
//! the same marks before the token may continue in it.
//!
//! The marks come from a chain over row ids, row by row: `chain(0) = 0`, `chain(n + 1) =
//! hash(chain(n), id of row n)`. So they depend on the ids and their order alone, not on the sizes
//! of pages. Texts may change between two walks; ids and order may not.

use std::ops::Range;

use crate::domain::record::RowId;

/// Maximum number of rows that the second mark covers. One vendor page is enough to see whether a
/// list changed at its head.
pub const HEAD_ROWS: usize = 500;

/// The marks of a place: eight bytes each, so that two lists agree by chance once in 2^64 times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Over all rows before the place.
    pub prefix: [u8; 8],
    /// Over the first [`HEAD_ROWS`] of them.
    pub first: [u8; 8],
}

type Link = [u8; 16];

/// The running hash (chain) over the ids of a list of rows, computed up to the furthest requested
/// row. Keeps 16 bytes for every [`HEAD_ROWS`] rows, and the chain at the last requested row, where
/// a reader usually continues.
#[derive(Debug, Default)]
pub struct IdChain {
    /// The chain after 1, 2, 3 … times `HEAD_ROWS` rows.
    points: Vec<Link>,
    last: (usize, Link),
}

impl IdChain {
    /// Returns the marks of the place after `place` rows. `ids` calls its second argument with the
    /// id of each row of a range that ends at `place` at most.
    pub fn marks(
        &mut self,
        place: usize,
        ids: impl Fn(Range<usize>, &mut dyn FnMut(RowId)),
    ) -> Marks {
        Marks {
            first: self.at(place.min(HEAD_ROWS), &ids),
            prefix: self.at(place, &ids),
        }
    }

    /// Returns the first eight bytes of the chain after `place` rows.
    pub fn at(
        &mut self,
        place: usize,
        ids: &impl Fn(Range<usize>, &mut dyn FnMut(RowId)),
    ) -> [u8; 8] {
        let known = (place / HEAD_ROWS).min(self.points.len());
        let point = known.checked_sub(1).and_then(|at| self.points.get(at));
        let (mut row, mut link) = (known * HEAD_ROWS, point.copied().unwrap_or_default());
        if (row..=place).contains(&self.last.0) {
            (row, link) = self.last;
        }
        let points = &mut self.points;
        ids(row..place, &mut |id| {
            link = next(link, id);
            row += 1;
            if row == (points.len() + 1) * HEAD_ROWS {
                points.push(link);
            }
        });
        self.last = (place, link);
        let [a, b, c, d, e, f, g, h, ..] = link;
        [a, b, c, d, e, f, g, h]
    }

    /// Forgets what depends on rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.points.truncate(len / HEAD_ROWS);
        if self.last.0 > len {
            self.last = Default::default();
        }
    }

    /// Returns the bytes of the chain.
    pub fn bytes(&self) -> u64 {
        (self.points.capacity() * size_of::<Link>()) as u64
    }
}

fn next(link: Link, id: RowId) -> Link {
    let mut both = [0; 32];
    let (before, after) = both.split_at_mut(16);
    before.copy_from_slice(&link);
    after.copy_from_slice(&id.0.to_le_bytes());
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(blake3::hash(&both).as_bytes()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(rows: &[u128]) -> impl Fn(Range<usize>, &mut dyn FnMut(RowId)) {
        move |range, each| rows[range].iter().for_each(|id| each(RowId(*id)))
    }

    #[test]
    fn marks_depend_on_ids_and_order_alone() {
        let rows: Vec<u128> = (0..1_700).collect();
        // However it is asked, forth and back, and after rows were dropped.
        let mut asked = IdChain::default();
        for place in [3, 700, 500, 0, 1_700, 499, 1_000, 1_001] {
            let mut fresh = IdChain::default();
            let marks = fresh.marks(place, ids(&rows));
            assert_eq!(asked.marks(place, ids(&rows)), marks, "{place}");
            assert_eq!(marks.prefix == marks.first, place <= HEAD_ROWS, "{place}");
        }
        asked.truncate(900);
        let marks = IdChain::default().marks(1_200, ids(&rows));
        assert_eq!(asked.marks(1_200, ids(&rows)), marks);
        // Another id, another order, one row less or more.
        let mut other = rows.clone();
        other[600] = 9_999;
        let seen = IdChain::default().marks(1_200, ids(&other));
        assert_eq!(
            (seen.first, seen.prefix == marks.prefix),
            (marks.first, false)
        );
        other.swap(1, 2);
        assert_ne!(
            IdChain::default().marks(1_200, ids(&other)).first,
            marks.first
        );
        let mut short = rows.clone();
        short.remove(0);
        assert_ne!(IdChain::default().marks(1_199, ids(&short)), marks);
        assert_ne!(
            IdChain::default().marks(1_201, ids(&rows)).prefix,
            marks.prefix
        );
    }
}
