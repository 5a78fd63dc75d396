//! Every question the public surface can ask, as read from a request.

use http::HeaderMap;

use super::{
    billing, case_changes, case_export, case_search, customers, events, nable_drop_in, overview,
};
use crate::domain::query::SearchRequest;
use crate::domain::{ContractId, FieldSet, Month, Route, SearchQuery};
use crate::exchange::Matched;
use crate::problem::Problem;
use crate::reads::changes::ChangesRequest;
use crate::reads::events::EventsRequest;
use crate::reads::export::ExportFormat;
use crate::reads::overview::OverviewRequest;

/// A question, understood.
#[derive(Clone, Debug)]
pub enum Question {
    /// The customer list with these fields.
    Customers(FieldSet),
    /// One page of a search.
    Search(SearchRequest),
    /// A whole search.
    Export {
        /// What is searched.
        query: SearchQuery,
        /// In which form.
        format: ExportFormat,
        /// Whether the caller takes trailers.
        trailer: bool,
    },
    /// What changed in a search.
    Changes(ChangesRequest),
    /// Which answers changed.
    Events(EventsRequest),
    /// Billable services of a contract.
    Billing {
        /// In which month.
        month: Month,
        /// Of which contract.
        contract: ContractId,
    },
    /// Invoices and contracts of a month.
    BillingMonth(Month),
    /// N-able's own path: as `Billing` with a contract, as `BillingMonth` without.
    Nable {
        /// As it stands in the path.
        account: String,
        /// In which month.
        month: Month,
        /// Of which contract.
        contract: Option<ContractId>,
    },
    /// Both vendors in one answer.
    Overview(OverviewRequest),
}

/// The parts of a request that a question is read from.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The route it fits.
    pub matched: &'a Matched,
    /// Its path, as sent.
    pub path: &'a str,
    /// Its query string, as sent.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

impl Asked<'_> {
    /// Returns a path parameter, as sent.
    pub(super) fn param(&self, at: usize) -> &str {
        self.matched.param(self.path, at)
    }
}

impl Question {
    /// Reads a request strictly.
    ///
    /// # Errors
    /// A 400 that names what is wrong.
    pub fn read(asked: Asked<'_>) -> Result<Self, Problem> {
        match asked.matched.route {
            Route::Customers => customers::read(asked),
            Route::CaseSearch => case_search::read(asked),
            Route::CaseExport => case_export::read(asked),
            Route::CaseChanges => case_changes::read(asked),
            Route::Events => events::read(asked),
            Route::Billing => billing::read(asked),
            Route::BillingMonth => billing::read_month(asked),
            Route::NableBilling => nable_drop_in::read(asked),
            Route::NableInvoices => nable_drop_in::read_invoices(asked),
            Route::Overview => overview::read(asked),
            // Answered before it is known who asks; see `keyless`.
            Route::OpenApi | Route::Docs | Route::Health | Route::Other => {
                Err(Problem::not_found())
            }
        }
    }
}
