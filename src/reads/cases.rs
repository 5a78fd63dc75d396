//! Case searches.

use super::{Answer, Asker, ReadError};
use crate::domain::query::SearchRequest;

/// Answers `POST` and `QUERY /v2/cases/msp/search`.
pub struct Cases {}

impl Cases {
    /// One page of a search.
    ///
    /// # Errors
    /// Any refusal of a token, a walk or the vendor.
    pub async fn search(
        &self,
        _asker: &Asker,
        _request: SearchRequest,
    ) -> Result<Answer, ReadError> {
        Err(ReadError::Internal)
    }
}
