//! Purges as numbers. They decide whether an answer was fetched before or after a purge that covers
//! it.
//!
//! Each purge gets the next number and records it for its scope. Each answer carries the number
//! that was current when its fetch began. If the scope of the answer has a higher number, a purge
//! came later. Merging takes the larger number of each scope, so neither order nor repetition
//! matters.

use std::collections::HashMap;

use parking_lot::{RwLock, RwLockReadGuard};

use super::pack::{PackReader, PackWriter};
use crate::domain::{CustomerId, Kind};

/// Customers that have a number each. Beyond this, they are folded into the number of all searches.
pub const CUSTOMERS_MAX: usize = 10_000;

/// The bits of a number that one replica counts by itself. The higher bits are counted by the
/// fleet. So a purge of one replica comes after all purges that it knew and before all that the
/// fleet counts later. It gets a number of the fleet as soon as the store accepts it.
const OWN_NUMBERS: u64 = (1 << 20) - 1;

/// The kinds whose marks have their place in the stored form. Marks of later kinds follow the
/// customers, so that gateways of either age read what the other one stored.
const KINDS_PLACED: usize = 3;

/// How much a purge ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PurgeDepth {
    /// The covered answers become stale.
    Soft,
    /// The covered answers are removed.
    Hard,
}

/// A customer, hashed.
type CustomerMark = [u8; 16];

/// The subject of an answer, which decides whether a purge covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PurgeSubject {
    /// An answer of this kind that is not about a single customer.
    Kind(Kind),
    /// The searches of one customer.
    CustomerCases(CustomerMark),
}

impl PurgeSubject {
    /// Creates the subject of case searches, of one customer or of all.
    pub fn cases(customer: Option<&CustomerId>) -> Self {
        customer.map_or(Self::Kind(Kind::Cases), |customer| {
            let mut mark = [0; 16];
            blake3::Hasher::new_derive_key("msp-gateway purge of a customer")
                .update(customer.as_str().as_bytes())
                .finalize_xof()
                .fill(&mut mark);
            Self::CustomerCases(mark)
        })
    }
}

/// What a purge covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeScope {
    /// Everything.
    All,
    /// One kind of answer.
    Kind(Kind),
    /// Everything that may mention the customer: its own searches, the searches of all customers,
    /// and the customer list.
    Customer(CustomerMark),
}

impl PurgeScope {
    /// Creates the scope of everything that may mention a customer.
    pub fn customer(customer: &CustomerId) -> Self {
        match PurgeSubject::cases(Some(customer)) {
            PurgeSubject::CustomerCases(mark) => Self::Customer(mark),
            PurgeSubject::Kind(kind) => Self::Kind(kind),
        }
    }
}

/// The numbers of the last soft and the last hard purge of one scope. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    soft: u64,
    hard: u64,
}

impl Mark {
    fn set(&mut self, depth: PurgeDepth, number: u64) {
        let at = match depth {
            PurgeDepth::Soft => &mut self.soft,
            PurgeDepth::Hard => &mut self.hard,
        };
        *at = (*at).max(number);
    }

    fn merge(&mut self, other: Self) {
        self.set(PurgeDepth::Soft, other.soft);
        self.set(PurgeDepth::Hard, other.hard);
    }

    /// Returns the mark with numbers of a single replica raised to `to`, a number of the fleet.
    fn raised(self, to: u64) -> Self {
        let raise = |number: u64| match number & OWN_NUMBERS {
            0 => number,
            _ => to,
        };
        Self {
            soft: raise(self.soft),
            hard: raise(self.hard),
        }
    }

    /// Returns the mark with its numbers moved up by `before`.
    fn after(self, before: u64) -> Self {
        let shift = |number: u64| match number {
            0 => 0,
            number => number.saturating_add(before),
        };
        Self {
            soft: shift(self.soft),
            hard: shift(self.hard),
        }
    }
}

/// All purges that still cover something. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    number: u64,
    all: Mark,
    kinds: [Mark; Kind::ALL.len()],
    /// Searches of all customers, which a purge of any customer covers.
    unnamed: Mark,
    customers: HashMap<CustomerMark, Mark>,
}

impl Watermarks {
    /// Returns the number of the last purge. A fetch that begins now carries this number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Records a purge. Returns its number.
    pub fn purge(&mut self, scope: PurgeScope, depth: PurgeDepth) -> u64 {
        self.number += 1;
        let number = self.number;
        match scope {
            PurgeScope::All => self.all.set(depth, number),
            PurgeScope::Kind(kind) => self.kind(kind).set(depth, number),
            PurgeScope::Customer(customer) => {
                self.kind(Kind::Customers).set(depth, number);
                self.unnamed.set(depth, number);
                self.customers
                    .entry(customer)
                    .or_default()
                    .set(depth, number);
                self.fold();
            }
        }
        number
    }

    /// Returns the purge that covers `subject`, fetched by a call that began when `begun` was
    /// the last number.
    pub fn covers(&self, subject: PurgeSubject, begun: u64) -> Option<PurgeDepth> {
        let mut mark = self.all;
        match subject {
            PurgeSubject::Kind(kind) => {
                mark.merge(self.kinds.get(kind as usize).copied().unwrap_or_default());
                if kind == Kind::Cases {
                    mark.merge(self.unnamed);
                }
            }
            PurgeSubject::CustomerCases(customer) => {
                mark.merge(
                    self.kinds
                        .get(Kind::Cases as usize)
                        .copied()
                        .unwrap_or_default(),
                );
                mark.merge(self.customers.get(&customer).copied().unwrap_or_default());
            }
        }
        if mark.hard > begun {
            Some(PurgeDepth::Hard)
        } else if mark.soft > begun {
            Some(PurgeDepth::Soft)
        } else {
            None
        }
    }

    /// Merges the purges of another replica of the same fleet.
    pub fn merge(&mut self, other: &Self) {
        self.number = self.number.max(other.number);
        self.all.merge(other.all);
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            mine.merge(*theirs);
        }
        self.unnamed.merge(other.unnamed);
        for (customer, mark) in &other.customers {
            self.customers.entry(*customer).or_default().merge(*mark);
        }
        self.fold();
    }

    /// Returns the same purges with numbers that follow those of `before`, which all came earlier.
    #[must_use]
    pub fn after(&self, before: &Self) -> Self {
        let by = before.number;
        let mut after = Self {
            number: self.number.saturating_add(by),
            all: self.all.after(by),
            kinds: self.kinds.map(|mark| mark.after(by)),
            unnamed: self.unnamed.after(by),
            customers: self
                .customers
                .iter()
                .map(|(customer, mark)| (*customer, mark.after(by)))
                .collect(),
        };
        after.merge(before);
        after
    }

    /// Returns the purges to write beside those of the fleet, under its next number. `None` if the
    /// fleet has all of these already.
    pub fn beside(&self, fleet: &Self) -> Option<Self> {
        let mut all = fleet.clone();
        all.merge(self);
        (all != *fleet).then(|| all.raised(Self::next_of_fleet(all.number)))
    }

    /// Returns the smallest number above `number` that the fleet may assign.
    fn next_of_fleet(number: u64) -> u64 {
        (number | OWN_NUMBERS).saturating_add(1)
    }

    /// Returns the number of the fleet's purges in it.
    pub(super) fn number_of_fleet(&self) -> u64 {
        self.number & !OWN_NUMBERS
    }

    /// Returns the same purges, with numbers of this replica alone raised to `to`, a number of the
    /// fleet.
    #[must_use]
    fn raised(&self, to: u64) -> Self {
        Self {
            number: self.number.max(to),
            all: self.all.raised(to),
            kinds: self.kinds.map(|mark| mark.raised(to)),
            unnamed: self.unnamed.raised(to),
            customers: self
                .customers
                .iter()
                .map(|(customer, mark)| (*customer, mark.raised(to)))
                .collect(),
        }
    }

    /// Returns a purge of everything. It stands in for purges that cannot be read.
    pub(super) fn of_everything(number: u64) -> Self {
        Self {
            number,
            all: Mark {
                soft: number,
                hard: number,
            },
            ..Self::default()
        }
    }

    fn kind(&mut self, kind: Kind) -> &mut Mark {
        match self.kinds.get_mut(kind as usize) {
            Some(mark) => mark,
            // Unreachable: every kind has a mark.
            None => &mut self.all,
        }
    }

    /// Replaces too many customers by one purge of all searches. More is fetched again, but nothing
    /// purged is served.
    fn fold(&mut self) {
        if self.customers.len() <= CUSTOMERS_MAX {
            return;
        }
        for (_, mark) in std::mem::take(&mut self.customers) {
            self.kind(Kind::Cases).merge(mark);
        }
    }

    /// Returns the bytes to keep.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = PackWriter::default();
        let mark = |out: &mut PackWriter, mark: &Mark| {
            out.u64(mark.soft).u64(mark.hard);
        };
        out.u64(self.number);
        mark(&mut out, &self.all);
        let (placed, later) = (
            self.kinds.iter().take(KINDS_PLACED),
            self.kinds.iter().skip(KINDS_PLACED),
        );
        placed.for_each(|kind| mark(&mut out, kind));
        mark(&mut out, &self.unnamed);
        out.u64(self.customers.len() as u64);
        for (customer, numbers) in &self.customers {
            out.fixed(customer);
            mark(&mut out, numbers);
        }
        later.for_each(|kind| mark(&mut out, kind));
        out.done()
    }

    /// Reads watermarks from bytes. `None` if the bytes are not watermarks.
    pub fn of_bytes(bytes: bytes::Bytes) -> Option<Self> {
        let mut reader = PackReader::new(bytes);
        let mark = |reader: &mut PackReader| {
            Some(Mark {
                soft: reader.u64()?,
                hard: reader.u64()?,
            })
        };
        let mut read = Self {
            number: reader.u64()?,
            all: mark(&mut reader)?,
            ..Self::default()
        };
        for kind in read.kinds.iter_mut().take(KINDS_PLACED) {
            *kind = mark(&mut reader)?;
        }
        read.unnamed = mark(&mut reader)?;
        for _ in 0..reader.u64()? {
            let customer = reader.fixed()?;
            read.customers.insert(customer, mark(&mut reader)?);
        }
        let mut later = read.kinds.iter_mut().skip(KINDS_PLACED);
        while !reader.is_over() {
            let numbers = mark(&mut reader)?;
            // A gateway that knows more kinds has stored the others. Here are no such answers.
            if let Some(kind) = later.next() {
                *kind = numbers;
            }
        }
        read.fold();
        Some(read)
    }
}

/// The watermarks in force, shared by all caches.
#[derive(Debug, Default)]
pub struct Purges(RwLock<Watermarks>);

impl Purges {
    /// Returns the number of the last purge. Take it before a fetch begins.
    pub fn number(&self) -> u64 {
        self.0.read().number()
    }

    /// Blocks purges while an answer is checked and stored.
    pub fn hold(&self) -> RwLockReadGuard<'_, Watermarks> {
        self.0.read()
    }

    /// Notes a purge; returns its number.
    pub fn purge(&self, scope: PurgeScope, depth: PurgeDepth) -> u64 {
        self.0.write().purge(scope, depth)
    }

    /// Merges the purges of others. Returns the previous number if any of them was new.
    pub(super) fn merge(&self, theirs: &Watermarks) -> Option<u64> {
        let mut marks = self.0.write();
        let before = marks.clone();
        marks.merge(theirs);
        (*marks != before).then_some(before.number)
    }

    /// Continues the count from purges that were stored before this process began to count.
    pub(super) fn count_on_from(&self, kept: &Watermarks) {
        let mut marks = self.0.write();
        *marks = marks.after(kept);
    }
}

#[cfg(test)]
mod tests {
    use PurgeDepth::{Hard, Soft};
    use proptest::prelude::*;

    use super::*;

    fn customer(name: &str) -> CustomerId {
        CustomerId::parse(name).unwrap()
    }

    fn subjects() -> Vec<PurgeSubject> {
        let kinds = Kind::ALL.map(PurgeSubject::Kind);
        let customers = ["a", "b"].map(|name| PurgeSubject::cases(Some(&customer(name))));
        kinds.into_iter().chain(customers).collect()
    }

    #[test]
    fn a_purge_covers_what_began_before_it_and_may_mention_its_subject() {
        let [list, cases, billing] =
            [Kind::Customers, Kind::Cases, Kind::Billing].map(PurgeSubject::Kind);
        let [a, b] = ["a", "b"].map(|name| PurgeSubject::cases(Some(&customer(name))));
        assert_eq!(PurgeSubject::cases(None), cases);
        for (scope, covered) in [
            (PurgeScope::All, subjects()),
            (PurgeScope::Kind(Kind::Cases), vec![cases, a, b]),
            (PurgeScope::Kind(Kind::Billing), vec![billing]),
            (PurgeScope::customer(&customer("a")), vec![list, cases, a]),
        ] {
            for depth in [Soft, Hard] {
                let mut marks = Watermarks::default();
                let before = marks.number();
                let number = marks.purge(scope, depth);
                for subject in subjects() {
                    let expected = covered.contains(&subject).then_some(depth);
                    assert_eq!(
                        marks.covers(subject, before),
                        expected,
                        "{scope:?} {subject:?}"
                    );
                    assert_eq!(marks.covers(subject, number), None, "{scope:?} {subject:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_purged_before_the_file_was_read_comes_after_what_stands_in_it() {
        let a = PurgeSubject::cases(Some(&customer("a")));
        let mut kept = Watermarks::default();
        kept.purge(PurgeScope::All, Soft);
        kept.purge(PurgeScope::customer(&customer("b")), Hard);
        let begun = kept.number();
        let purges = Purges::default();
        purges.purge(PurgeScope::customer(&customer("a")), Hard);
        purges.count_on_from(&kept);
        assert_eq!(purges.hold().covers(a, begun), Some(Hard));
        assert_eq!(purges.hold().covers(a, purges.number()), None);
        assert_eq!(
            purges.hold().covers(PurgeSubject::Kind(Kind::Billing), 0),
            Some(Soft)
        );
    }

    #[test]
    fn what_a_gateway_with_more_kinds_stored_is_read() {
        let mut marks = Watermarks::default();
        marks.purge(PurgeScope::Kind(Kind::Billing), Hard);
        marks.purge(PurgeScope::customer(&customer("a")), Soft);
        let bytes = marks.to_bytes();
        let unknown = [7; 16].repeat(2);
        let more = [&bytes[..], &unknown].concat();
        assert_eq!(Watermarks::of_bytes(more.clone().into()), Some(marks));
        let cut = more[..more.len() - 1].to_vec();
        assert_eq!(Watermarks::of_bytes(cut.into()), None);
    }

    #[test]
    fn too_many_customers_become_one_purge_of_all_searches() {
        let mut marks = Watermarks::default();
        for n in 0..=CUSTOMERS_MAX {
            marks.purge(PurgeScope::customer(&customer(&format!("c{n}"))), Hard);
        }
        assert!(marks.customers.is_empty());
        let any = PurgeSubject::cases(Some(&customer("never-purged")));
        assert_eq!(marks.covers(any, 3), Some(Hard));
        assert_eq!(marks.covers(any, marks.number()), None);
    }

    proptest! {
        #[test]
        fn merging_hangs_on_no_order_and_loses_nothing(
            ops in proptest::collection::vec((0..4_u8, any::<bool>(), 0..3_u8), 0..40),
        ) {
            // Three views of one count, each of which heard a third of the purges.
            let mut whole = Watermarks::default();
            let mut parts = [const { Vec::new() }; 3];
            for (scope, hard, part) in ops {
                let scope = match scope {
                    0 => PurgeScope::All,
                    1 => PurgeScope::Kind(Kind::Cases),
                    2 => PurgeScope::customer(&customer("a")),
                    _ => PurgeScope::customer(&customer("b")),
                };
                let mut one = Watermarks { number: whole.number, ..Watermarks::default() };
                let depth = if hard { Hard } else { Soft };
                whole.purge(scope, depth);
                one.purge(scope, depth);
                parts[usize::from(part)].push(one);
            }
            let joined = |order: [usize; 3]| {
                let mut all = Watermarks::default();
                for part in order {
                    parts[part].iter().chain(&parts[part]).for_each(|one| all.merge(one));
                }
                all
            };
            prop_assert_eq!(joined([0, 1, 2]), joined([2, 0, 1]));
            prop_assert_eq!(joined([0, 1, 2]), whole.clone());
            prop_assert_eq!(Watermarks::of_bytes(whole.to_bytes().into()), Some(whole));
        }
    }
}
