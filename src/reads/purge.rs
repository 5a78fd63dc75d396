//! Purges: operators end answers before their time.

use std::sync::{Arc, Weak};

use super::{Lookups, Reads};
use crate::cache::{CacheKey, Subject, Variants};
use crate::domain::{CustomerId, Kind};
use crate::store::{PurgeDepth, PurgeReach, PurgeScope, Purges};

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
            Self::Customer(_) => kind.mentions_customers(),
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

/// Applies the purges of other gateways to memory. The references are weak, because the parts of
/// memory hold the store, and the store holds this.
struct PurgeFollower {
    lookups: Weak<Lookups>,
    variants: Weak<Variants>,
    purges: Arc<Purges>,
}

impl PurgeFollower {
    /// Removes what the purges after number `since` cover, those of other gateways included.
    fn end_purged(&self, since: u64) {
        let (Some(lookups), Some(variants)) = (self.lookups.upgrade(), self.variants.upgrade())
        else {
            return;
        };
        let marks = self.purges.hold().clone();
        let mut hard = false;
        for depth in [PurgeDepth::Hard, PurgeDepth::Soft] {
            let soft = depth == PurgeDepth::Soft;
            let which =
                |key: &CacheKey| marks.covers(key.subject().purged_as(), since) == Some(depth);
            let shelves = lookups.shelves().into_iter();
            let mut purged: u64 = shelves.map(|(_, shelf)| shelf.purge(soft, &which)).sum();
            let snapshots = lookups.cases.snapshots();
            purged += snapshots.purge(soft, |snapshot| which(&snapshot.key));
            hard |= !soft && purged > 0;
        }
        if hard {
            lookups.cases.forget_pages();
            variants.clear();
        }
        tracing::info!(
            number = marks.number(),
            "applied the purges of another gateway"
        );
    }
}

impl Reads {
    /// Follows the purges of other gateways from now on.
    pub(super) fn follow_purges(&self) {
        let follower = PurgeFollower {
            lookups: Arc::downgrade(&self.lookups),
            variants: Arc::downgrade(&self.variants),
            purges: self.store.purges().clone(),
        };
        self.store
            .on_purge(Box::new(move |since| follower.end_purged(since)));
    }

    /// Waits until all gateways that share the store follow the purges so far, a second at most.
    /// `None` where none shares it, or where it does not answer.
    pub async fn purge_reach(&self) -> Option<PurgeReach> {
        self.store.purge_reach().await
    }

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
        for (kind, shelf) in self.lookups.shelves() {
            if what.covers(kind) {
                purged += shelf.purge(soft, &|_| true);
            }
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
