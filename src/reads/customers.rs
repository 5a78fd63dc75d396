//! The customer list.

use super::{Answer, Asker, ReadError};
use crate::domain::FieldSet;

/// Answers `GET /msp/customers`.
pub struct Customers {}

impl Customers {
    /// The customers the caller may see, with these fields.
    ///
    /// # Errors
    /// When the vendor gives no list and none is remembered.
    pub async fn list(&self, _asker: &Asker, _fields: FieldSet) -> Result<Answer, ReadError> {
        Err(ReadError::Internal)
    }
}
