//! The questions that a request can ask.

use http::HeaderMap;

use super::routes::TABLE;
use crate::domain::query::SearchRequest;
use crate::domain::{ContractId, Month, SearchQuery};
use crate::exchange::Matched;
use crate::problem::Problem;
use crate::reads::Lookup;
use crate::reads::changes::ChangesRequest;
use crate::reads::events::EventsRequest;
use crate::reads::export::ExportFormat;
use crate::reads::overview::OverviewRequest;

/// A request after validation.
#[derive(Clone, Debug)]
pub enum Question {
    /// What one remembered answer answers, other than a search.
    Lookup(Lookup),
    /// One page of a search.
    Search(SearchRequest),
    /// All rows of a search.
    Export {
        /// The search.
        query: SearchQuery,
        /// The format.
        format: ExportFormat,
        /// Whether the caller accepts trailers.
        trailer: bool,
    },
    /// The changes in a search.
    Changes(ChangesRequest),
    /// The answers that changed.
    Events(EventsRequest),
    /// N-able's own path. Like `Lookup::Services` with a contract, like `Lookup::Month` without.
    Nable {
        /// The account, as sent in the path.
        account: String,
        /// The month.
        month: Month,
        /// The contract.
        contract: Option<ContractId>,
    },
    /// Both vendors in one answer.
    Overview(OverviewRequest),
}

/// The parts of a request that a question is read from.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The matched route.
    pub matched: &'a Matched,
    /// The path, as sent.
    pub path: &'a str,
    /// The query string, as sent.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
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
    /// 400 that names what is wrong.
    pub fn read(asked: Asked<'_>) -> Result<Self, Problem> {
        match TABLE.iter().find(|line| line.route == asked.matched.route) {
            Some(line) => (line.read)(asked),
            None => Err(Problem::not_found()),
        }
    }
}
