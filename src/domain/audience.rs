//! Which customers an answer may mention.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use super::CustomerId;

/// The customers an answer may mention. Every function that cuts a page or a list takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every customer, and rows that name none.
    All,
    /// These customers only.
    Only(Arc<CustomerSet>),
}

/// A set of customers with the fingerprint of its audience. The fingerprint is computed once,
/// because every page needs it.
#[derive(Debug)]
pub struct CustomerSet {
    ids: BTreeSet<CustomerId>,
    fingerprint: AudienceFingerprint,
}

impl CustomerSet {
    /// Returns the customers, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &CustomerId> {
        self.ids.iter()
    }
}

impl PartialEq for CustomerSet {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids
    }
}

impl Eq for CustomerSet {}

static OF_ALL: LazyLock<AudienceFingerprint> = LazyLock::new(|| fingerprint(None));

/// Names an audience inside a page token: equal audiences have equal fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AudienceFingerprint(pub [u8; 16]);

impl Audience {
    /// Creates an audience of exactly these customers.
    pub fn only(customers: impl IntoIterator<Item = CustomerId>) -> Self {
        let ids = customers.into_iter().collect();
        let fingerprint = fingerprint(Some(&ids));
        Self::Only(Arc::new(CustomerSet { ids, fingerprint }))
    }

    /// Returns whether rows of this customer may be shown; `None` is a row without a customer.
    pub fn admits(&self, customer: Option<&str>) -> bool {
        match (self, customer) {
            (Self::All, _) => true,
            (Self::Only(_), None) => false,
            // A vendor may send any text as an id, so the lookup is by text.
            (Self::Only(set), Some(id)) => set.ids.contains(id),
        }
    }

    /// Returns whether a caller may name this customer.
    pub fn contains(&self, customer: &CustomerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(set) => set.ids.contains(customer),
        }
    }

    /// Returns whether everything may be shown.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Returns the fingerprint. It depends on the set of customers only, not on the caller.
    pub fn fingerprint(&self) -> AudienceFingerprint {
        match self {
            Self::All => *OF_ALL,
            Self::Only(set) => set.fingerprint,
        }
    }
}

fn fingerprint(customers: Option<&BTreeSet<CustomerId>>) -> AudienceFingerprint {
    let mut hasher = blake3::Hasher::new();
    match customers {
        None => {
            hasher.update(b"all");
        }
        Some(set) => {
            hasher.update(b"only");
            for customer in set {
                let text = customer.as_str().as_bytes();
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
        }
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    AudienceFingerprint(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> CustomerId {
        CustomerId::parse(text).unwrap()
    }

    #[test]
    fn rows_without_a_customer_are_for_all_only() {
        assert!(Audience::All.admits(None));
        assert!(!Audience::only([id("a")]).admits(None));
        assert!(Audience::only([id("a")]).admits(Some("a")));
        assert!(!Audience::only([id("a")]).admits(Some("b")));
    }

    #[test]
    fn fingerprints_tell_sets_apart() {
        let ab = Audience::only([id("a"), id("b")]).fingerprint();
        assert_eq!(ab, Audience::only([id("b"), id("a")]).fingerprint());
        assert_ne!(ab, Audience::only([id("ab")]).fingerprint());
        assert_ne!(ab, Audience::All.fingerprint());
        assert_ne!(
            Audience::only([]).fingerprint(),
            Audience::All.fingerprint()
        );
    }
}
