//! Views: the rows of a snapshot that an answer may contain.

use crate::domain::audience::AudienceFingerprint;
use crate::domain::{Audience, CustomerId};

use super::marks::{IdChain, Marks};
use super::rows::{NO_WORD, Rows, Word};

/// Selects rows of a snapshot: those of one customer or of all, within an audience. The audience is
/// always an argument of the cut, so no page can be cut without one.
#[derive(Clone, Debug)]
pub struct View {
    /// Only this customer's rows, if the snapshot has more.
    pub customer: Option<CustomerId>,
    /// The customers whose rows may be shown.
    pub audience: Audience,
    fingerprint: AudienceFingerprint,
}

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.customer == other.customer && self.audience == other.audience
    }
}

impl Eq for View {}

impl std::hash::Hash for View {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.customer.hash(state);
        self.fingerprint.hash(state);
    }
}

impl View {
    /// Creates the view of `customer` (or of all) within `audience`.
    pub fn new(customer: Option<CustomerId>, audience: Audience) -> Self {
        let fingerprint = audience.fingerprint();
        Self {
            customer,
            audience,
            fingerprint,
        }
    }

    /// Returns the audience's fingerprint, as page tokens contain it.
    pub fn audience_fingerprint(&self) -> AudienceFingerprint {
        self.fingerprint
    }

    /// Returns whether the view shows every row.
    pub fn is_whole(&self) -> bool {
        self.customer.is_none() && self.audience.is_all()
    }

    fn admits(&self, customer: Option<&str>) -> bool {
        let named = match &self.customer {
            None => true,
            Some(wanted) => customer == Some(wanted.as_str()),
        };
        named && self.audience.admits(customer)
    }
}

/// The row numbers that a view shows. They are found once, and extended as the snapshot grows.
#[derive(Debug, Default)]
pub struct ViewIndex {
    rows: Vec<u32>,
    scanned: usize,
    admitted: Vec<bool>,
    admits_none: bool,
    chain: IdChain,
}

impl ViewIndex {
    /// Extends the index to the first `upto` rows.
    pub fn extend(&mut self, view: &View, rows: &Rows, upto: usize) {
        if self.scanned >= upto {
            return;
        }
        self.admits_none = view.admits(None);
        for number in self.admitted.len()..rows.customers.len() {
            let text = Word::try_from(number)
                .ok()
                .and_then(|n| rows.customers.text(n));
            self.admitted.push(view.admits(text));
        }
        let Self {
            rows: found,
            admitted,
            admits_none,
            ..
        } = self;
        rows.for_each_from(self.scanned, |row, customer, _| {
            let shown = match customer {
                NO_WORD => *admits_none,
                number => admitted.get(number as usize).copied().unwrap_or(false),
            };
            if shown
                && row < upto
                && let Ok(row) = u32::try_from(row)
            {
                found.push(row);
            }
        });
        self.scanned = upto;
    }

    /// Removes the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        let keep = self.rows.partition_point(|row| (*row as usize) < len);
        self.rows.truncate(keep);
        self.chain.truncate(keep);
        self.scanned = self.scanned.min(len);
    }

    /// Returns the snapshot's row numbers, in order.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Returns the marks of the place after the view's first `place` rows.
    pub fn marks(&mut self, place: usize, rows: &Rows) -> Marks {
        let shown = &self.rows;
        self.chain.marks(place, |range, each| {
            for row in shown.get(range).unwrap_or_default() {
                let row = *row as usize;
                rows.for_each_id(row..row + 1, each);
            }
        })
    }

    /// Returns the bytes of the index.
    pub fn bytes(&self) -> u64 {
        (self.rows.capacity() * 4 + self.admitted.capacity()) as u64 + self.chain.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_one_only_with_customer_and_audience_alike() {
        let id = |text: &str| CustomerId::parse(text).unwrap();
        let only = |names: &[&str]| Audience::only(names.iter().map(|name| id(name)));
        let views = [
            View::new(None, Audience::All),
            View::new(Some(id("org_1")), Audience::All),
            View::new(Some(id("org_2")), Audience::All),
            View::new(Some(id("org_1")), only(&["org_1"])),
            View::new(None, only(&["org_1"])),
            View::new(None, only(&["org_1", "org_2"])),
        ];
        for (at, one) in views.iter().enumerate() {
            for (other_at, other) in views.iter().enumerate() {
                assert_eq!(one == other, at == other_at, "{one:?} and {other:?}");
            }
        }
    }
}
