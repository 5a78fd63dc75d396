//! What would happen to a question, without asking it.

use std::sync::Arc;

use super::Reads;
use crate::admission::Lane;
use crate::cache::{CacheKey, Lifetimes, Standing, Subject, Wanted};
use crate::clock::{Clock, Duration};
use crate::domain::{ContractId, Month, Operation, SearchQuery};

/// What is known about a question.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The start of the identity's fingerprint, in hex.
    pub identity: String,
    /// Whether an answer is held.
    pub held: bool,
    /// What it may be used for.
    pub standing: Standing,
    /// Its age.
    pub age: Option<Duration>,
    /// The lifetimes that rule.
    pub lifetimes: Lifetimes,
    /// Of searches: how settled the range is.
    pub grade: Option<&'static str>,
    /// Of searches: `growing`, `complete`, `cut` or `broken`, and rows held.
    pub snapshot: Option<(&'static str, usize)>,
    /// In which lane a vendor call would go.
    pub lane: Option<Lane>,
    /// What would be called now; `None` if memory would answer alone.
    pub call: Option<Operation>,
}

impl Explanation {
    fn new(key: &CacheKey, lifetimes: Lifetimes, call: Operation) -> Self {
        Self {
            identity: key.to_string(),
            held: false,
            standing: Standing::Expired,
            age: None,
            lifetimes,
            grade: None,
            snapshot: None,
            lane: Some(Wanted::Now.lane()),
            call: Some(call),
        }
    }

    fn held(mut self, standing: Standing, age: Duration) -> Self {
        self.held = true;
        self.standing = standing;
        self.age = Some(age);
        (self.lane, self.call) = match standing {
            Standing::Fresh => (None, None),
            Standing::Stale => (Some(Wanted::Later.lane()), self.call),
            Standing::OnError => (Some(Wanted::Soon.lane()), self.call),
            Standing::Expired => (Some(Wanted::Now.lane()), self.call),
        };
        self
    }
}

impl Reads {
    /// About the customer list.
    pub fn explain_customers(&self, clock: &Clock, lifetimes: Lifetimes) -> Explanation {
        let key = self.customers.key();
        let explanation = Explanation::new(&key, lifetimes, Operation::Customers);
        let now = clock.now();
        match self.customers.shelf().local.get(&key) {
            None => explanation,
            Some(entry) => explanation.held(entry.standing(&lifetimes, now), entry.age(now)),
        }
    }

    /// About a search without a page token.
    pub fn explain_search(&self, clock: &Clock, query: SearchQuery) -> Explanation {
        let query = Arc::new(query);
        let key = self.cases.key(&query);
        let (grade, lifetimes) = self.cases.lifetimes(&query);
        let mut explanation = Explanation::new(&key, lifetimes, Operation::Search);
        explanation.grade = Some(grade.as_str());
        let now = clock.now();
        match self.cases.snapshots().current(&key) {
            None => explanation,
            Some(current) => {
                let standing = if current.is_growing() {
                    Standing::Fresh
                } else {
                    current.standing(false, now)
                };
                let mut explanation = explanation.held(standing, current.age(false, now));
                explanation.snapshot = Some((current.end().as_str(), current.size().0));
                explanation
            }
        }
    }

    /// About a month, or a contract in it.
    pub fn explain_billing(
        &self,
        clock: &Clock,
        month: Month,
        contract: Option<ContractId>,
    ) -> Explanation {
        let (subject, call) = match contract {
            Some(contract) => (Subject::Billing { month, contract }, Operation::Billing),
            None => (Subject::Invoices { month }, Operation::Invoices),
        };
        let key = self.billing.key(subject);
        let lifetimes = self.billing.lifetimes(month);
        let explanation = Explanation::new(&key, lifetimes, call);
        let now = clock.now();
        match self.billing.shelf().local.get(&key) {
            None => explanation,
            Some(entry) => explanation.held(entry.standing(&lifetimes, now), entry.age(now)),
        }
    }
}
