//! The words of the business: pure values, no I/O, no async, no HTTP.

pub mod audience;
pub mod fields;
pub mod ids;
pub mod json;
pub mod period;
pub mod query;
pub mod record;
pub mod words;

pub use audience::Audience;
pub use fields::FieldSet;
pub use ids::{AccountId, ContractId, CustomerId, Operation, Vendor};
pub use period::{DateRange, Month};
pub use query::{PageSize, SearchQuery};
pub use words::{CacheOutcome, Kind, Route, Saved};
