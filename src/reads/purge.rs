//! Purges: operators end answers before their time.

use super::Reads;
use crate::cache::Subject;
use crate::domain::{CustomerId, Kind};
use crate::store::{PurgeDepth, PurgeScope};

/// What to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Everything that may mention a customer: its own searches, those for all customers, and the
    /// list.
    Customer(CustomerId),
    /// Answers of a kind.
    Kind(Kind),
    /// Everything.
    All,
}

impl Purge {
    fn covers(&self, kind: Kind) -> bool {
        match self {
            Self::Customer(_) => kind != Kind::Billing,
            Self::Kind(wanted) => *wanted == kind,
            Self::All => true,
        }
    }
}

impl Purge {
    fn scope(&self) -> PurgeScope {
        match self {
            Self::Customer(customer) => PurgeScope::customer(customer),
            Self::Kind(kind) => PurgeScope::Kind(*kind),
            Self::All => PurgeScope::All,
        }
    }
}

impl Reads {
    /// Stores the purges so far, so that they survive a crash. Waits a second at most. Returns
    /// whether they are stored.
    pub async fn keep_purges(&self) -> bool {
        self.store.keep_purges().await
    }

    /// Purges entries and returns their number. Soft: they become stale, and each is refreshed once
    /// when it is next requested. Hard: they are removed, and the page tokens of purged searches
    /// end.
    pub fn purge(&self, what: &Purge, soft: bool) -> u64 {
        let depth = match soft {
            true => PurgeDepth::Soft,
            false => PurgeDepth::Hard,
        };
        // The purge is counted first, so that everything stored in memory from now on is judged by
        // it.
        self.store.purges().purge(what.scope(), depth);
        let mut purged = 0;
        if what.covers(Kind::Customers) {
            purged += self.customers.shelf().purge(Kind::Customers, soft);
        }
        if what.covers(Kind::Billing) {
            purged += self.billing.shelf().purge(Kind::Billing, soft);
        }
        if what.covers(Kind::Cases) {
            let named = |subject: &Subject| match (what, subject) {
                (Purge::Customer(customer), Subject::Search(query)) => {
                    query.customer.as_ref().is_none_or(|of| of == customer)
                }
                _ => true,
            };
            let snapshots = self.cases.snapshots();
            purged += snapshots.purge(soft, |snapshot| named(snapshot.key.subject()));
            if !soft {
                self.cases.forget_pages();
            }
        }
        if !soft {
            // Variants are named by their bytes, so they cannot be purged one by one.
            self.variants.clear();
        }
        purged
    }
}
