//! Both vendors in one answer.

use super::{Answer, Asker, ReadError};
use crate::domain::{DateRange, Month};

/// What an overview covers.
#[derive(Clone, Copy, Debug)]
pub struct OverviewRequest {
    /// Of the cases; absent means the last 30 days.
    pub range: Option<DateRange>,
    /// Of the billing; absent means the last closed month.
    pub month: Option<Month>,
    /// Whether a missing part is an error (`require=all`) or told in `parts` (`require=any`).
    pub require_all: bool,
}

/// Answers `GET /v1/overview`.
pub struct Overview {}

impl Overview {
    /// Joins customers, case totals and billing.
    ///
    /// # Errors
    /// With `require_all`, the missing part's own.
    pub async fn get(
        &self,
        _asker: &Asker,
        _request: OverviewRequest,
    ) -> Result<Answer, ReadError> {
        Err(ReadError::Internal)
    }
}
