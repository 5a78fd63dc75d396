//! The questions that one remembered answer answers, and the reads that remember.
//!
//! A [`Lookup`] can be repeated at any time: for the caller, for an event stream that looks for
//! changes, and for an operator who wants it explained. [`Lookups`] does so, and knows every
//! shelf, so that a purge and the gauges leave none out. A further kind of answer is declared here:
//! as a variant of `Lookup` and as a member of `Lookups`.

pub mod billing;
pub mod customers;

use std::sync::Arc;

use billing::{Billing, SoftFailure};
use customers::Customers;

use super::cases::{Cases, Search};
use super::{Answer, Asker, Explanation, Ingredients, ReadError};
use crate::access::Caller;
use crate::cache::{AnswerShelf, Lifetimes};
use crate::domain::{ContractId, FieldSet, Kind, Month};
use crate::metrics::StoreUsage;

/// The shelves, which share the memory for vendors' answers in equal parts.
const SHELVES: u64 = 2;

/// A request that can be looked up again.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The customer list.
    Customers(FieldSet),
    /// A page of a search.
    Search(Arc<Search>),
    /// Billable services.
    Services(Month, ContractId),
    /// Invoices of a month.
    Month(Month),
}

impl Lookup {
    /// Creates the lookup of a contract in a month, or of the month.
    pub fn of_month(month: Month, contract: Option<&ContractId>) -> Self {
        match contract {
            Some(contract) => Self::Services(month, contract.clone()),
            None => Self::Month(month),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Customers(_) => Kind::Customers,
            Self::Search(_) => Kind::Cases,
            Self::Services(..) | Self::Month(_) => Kind::Billing,
        }
    }
}

/// Lifetimes of the lists of which there is one for each vendor account.
#[derive(Clone, Copy, Debug)]
pub struct ListLifetimes {
    /// Of the customer list.
    pub customers: Lifetimes,
}

impl ListLifetimes {
    /// Returns the same lifetimes for every list.
    pub fn all(lifetimes: Lifetimes) -> Self {
        Self {
            customers: lifetimes,
        }
    }

    /// Returns those of every list.
    pub fn each(&self) -> impl Iterator<Item = Lifetimes> {
        let Self { customers } = *self;
        [customers].into_iter()
    }
}

/// The reads that remember answers.
pub struct Lookups {
    pub(super) customers: Arc<Customers>,
    pub(super) cases: Arc<Cases>,
    pub(super) billing: Arc<Billing>,
}

impl Lookups {
    /// Creates reads that remember nothing yet. `answers_bytes` are for all shelves together. What
    /// cannot be divided among them goes to the pages, so that no byte is lost.
    pub(super) fn new(
        of: &Ingredients,
        answers_bytes: u64,
        cuts_bytes: u64,
        pages_bytes: u64,
    ) -> Arc<Self> {
        let each = answers_bytes / SHELVES;
        let rest = answers_bytes % SHELVES;
        Arc::new(Self {
            customers: Arc::new(Customers::new(of, each, cuts_bytes)),
            cases: Arc::new(Cases::new(of, pages_bytes + rest)),
            billing: Arc::new(Billing::new(of, each)),
        })
    }

    /// Returns every shelf, with the kind of the answers in it.
    pub(super) fn shelves(&self) -> [(Kind, &dyn AnswerShelf); SHELVES as usize] {
        [
            (Kind::Customers, self.customers.shelf()),
            (Kind::Billing, self.billing.shelf()),
        ]
    }

    /// Returns how full the shelves are together.
    pub(super) fn usage(&self) -> StoreUsage {
        let shelves = self.shelves().into_iter();
        shelves
            .map(|(_, shelf)| shelf.usage())
            .fold(StoreUsage::default(), |all, one| all + one)
    }

    /// Returns the answer to a caller.
    ///
    /// # Errors
    /// Fails like the read that answers it.
    pub async fn answer(&self, asker: &Asker, lookup: &Lookup) -> Result<Answer, ReadError> {
        let soft = SoftFailure::Refuse;
        match lookup {
            Lookup::Customers(fields) => self.customers.list(asker, *fields).await,
            Lookup::Search(search) => self.cases.answer(asker, search).await,
            Lookup::Services(month, contract) => {
                self.billing.services(asker, *month, contract, soft).await
            }
            Lookup::Month(month) => self.billing.month(asker, *month, soft).await,
        }
    }

    /// Returns the answer that memory holds now. It is not counted, because no caller asks.
    pub(super) async fn peek(&self, asker: &Asker, lookup: &Lookup) -> Option<Answer> {
        match lookup {
            Lookup::Customers(fields) => self.customers.peek(asker, *fields).await,
            Lookup::Search(search) => self.cases.peek(asker, search).await,
            Lookup::Services(month, contract) => {
                let found = self.billing.find_services(asker, *month, contract).await;
                self.billing.peeked(found)
            }
            Lookup::Month(month) => {
                let found = self.billing.find_month(asker, *month).await;
                self.billing.peeked(found)
            }
        }
    }

    /// Explains how a question of this caller would be answered. `None` for a search that continues
    /// from a page token: the snapshot of the token answers it.
    ///
    /// # Errors
    /// Refuses what the caller may not ask.
    pub fn explain(
        &self,
        caller: &Caller,
        lookup: &Lookup,
    ) -> Result<Option<Explanation>, ReadError> {
        Ok(Some(match lookup {
            Lookup::Customers(_) => self.customers.explain(),
            Lookup::Search(search) => match &**search {
                Search::First { query, .. } => self.cases.explain(caller, query, false)?,
                Search::Next { .. } => return Ok(None),
            },
            Lookup::Services(month, contract) => {
                self.billing.explain(caller, *month, Some(contract))?
            }
            Lookup::Month(month) => self.billing.explain(caller, *month, None)?,
        }))
    }
}
