//! Billable services and invoices.

use super::{Answer, Asker, ReadError};
use crate::domain::{ContractId, Month};

/// What to do with an answer of N-able that lacks what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftFailure {
    /// Refuse with [`ReadError::BillingNotFound`].
    Refuse,
    /// Pass the vendor's 200 on, said in the note.
    PassOn,
}

/// Answers the billing routes and N-able's own paths.
pub struct Billing {}

impl Billing {
    /// Whether `account` is the configured account or `-`.
    pub fn is_our_account(&self, _account: &str) -> bool {
        false
    }

    /// Billable services of a contract in a month.
    ///
    /// # Errors
    /// When the caller may not see billing, or N-able gives no answer and none is remembered.
    pub async fn services(
        &self,
        _asker: &Asker,
        _month: Month,
        _contract: &ContractId,
        _soft: SoftFailure,
    ) -> Result<Answer, ReadError> {
        Err(ReadError::Internal)
    }

    /// Invoices and contracts of a month.
    ///
    /// # Errors
    /// As [`Self::services`].
    pub async fn month(
        &self,
        _asker: &Asker,
        _month: Month,
        _soft: SoftFailure,
    ) -> Result<Answer, ReadError> {
        Err(ReadError::Internal)
    }
}
