//! The caller's side of a read, and its answer.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::Caller;
use crate::admission::{Lane, Payer, Spend};
pub use crate::cache::Etag;
use crate::cache::{CacheNote, Directives};
use crate::clock::{Duration, Instant};
use crate::domain::{Audience, CacheOutcome, CustomerId, Kind, Saved, Vendor};
use crate::metrics::Metrics;
use crate::reads::ReadError;

/// The caller's side of a read: identity, deadline, and what it may cost.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The authenticated caller.
    pub caller: Arc<Caller>,
    /// Pays for vendor calls and counts them.
    pub payer: Arc<Payer>,
    /// When the caller's answer is due.
    pub deadline: Instant,
    /// The caller's `Cache-Control`.
    pub directives: Directives,
}

impl Asker {
    /// Returns the customers that the answer may mention.
    pub fn audience(&self) -> &Audience {
        &self.caller.audience
    }

    /// Returns the terms of an interactive vendor call on this caller's account.
    pub fn spend(&self) -> Spend {
        Spend {
            lane: Lane::Interactive,
            deadline: self.deadline,
            wanted_until: self.deadline,
            payer: self.payer.clone(),
            within: None,
        }
    }

    /// Refuses a named customer outside the audience. Call this before any cache lookup.
    ///
    /// # Errors
    /// [`ReadError::CustomerNotAllowed`]
    pub fn may_see(&self, customer: Option<&CustomerId>) -> Result<(), ReadError> {
        match customer {
            Some(customer) if !self.audience().contains(customer) => {
                Err(ReadError::CustomerNotAllowed)
            }
            _ => Ok(()),
        }
    }
}

/// An answer of a read.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body, which is JSON.
    pub body: Bytes,
    /// The tag of the body. Absent on joins.
    pub etag: Option<Etag>,
    /// Time since the vendor's answer was first fetched or last revalidated. For a join, that of
    /// the oldest part.
    pub age: Duration,
    /// How the cache answered, for `Cache-Status`, metrics and the log.
    pub note: CacheNote,
}

/// Counts a question and its answer.
pub(super) struct Account<'a> {
    pub metrics: &'a Metrics,
    pub vendor: Vendor,
    pub kind: Kind,
}

impl Account<'_> {
    /// Counts the answer to a request: its cache outcome, and the vendor call that it saved.
    pub fn answered(&self, asker: &Asker, note: &CacheNote, saved: Option<Saved>) {
        self.metrics.lookup(self.kind, note.outcome);
        // A stale answer that replaces a failed call has not saved that call.
        if asker.payer.calls() == 0 {
            self.saved(asker, note, saved);
        }
    }

    /// Counts the answer to one of several questions of a request.
    pub fn answered_part(&self, asker: &Asker, note: &CacheNote) {
        self.metrics.lookup(self.kind, note.outcome);
        self.saved(asker, note, None);
    }

    fn saved(&self, asker: &Asker, note: &CacheNote, saved: Option<Saved>) {
        let saved = saved.or(match note.outcome {
            CacheOutcome::Hit | CacheOutcome::Negative => Some(Saved::Hit),
            CacheOutcome::Stale => Some(Saved::Stale),
            CacheOutcome::Collapsed => Some(Saved::Collapsed),
            CacheOutcome::Derived => Some(Saved::Derived),
            CacheOutcome::Projected => Some(Saved::Projected),
            CacheOutcome::Miss | CacheOutcome::Error => None,
        });
        if let Some(reason) = saved {
            self.metrics.call_saved(self.vendor, reason);
            asker.caller.meter.saved();
        }
    }

    /// Counts a question without an answer, if the cache was asked.
    pub fn refused(&self, error: &ReadError) {
        if let Some(shortage) = error.shortage() {
            self.metrics.shed(shortage);
        }
        if let Some(outcome) = error.outcome() {
            self.metrics.lookup(self.kind, outcome);
        }
    }
}
