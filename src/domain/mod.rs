//! The words of the business: pure values, without I/O, async or HTTP.
//!
//! Every other room uses these types, so nothing here knows a cache, a connection or a setting.
//! Three types to know:
//!
//! `Audience` is the set of customers that an answer may mention. Every function that cuts a page
//! or a list takes one as an argument, so no answer can skip the check.
//!
//! `SearchQuery` is a case search without its paging, in canonical form. Two bodies that mean the
//! same to the vendor are equal here; two that the vendor could tell apart are not. `SearchRequest`
//! is the parsed request body: a search, a page size and a page token.
//!
//! `CacheOutcome`, `Kind`, `ProblemCode`, `Route` and `Saved` are closed sets of words.
//! `docs/state-words.md` lists the words.
//!
//! What must never happen here: two different questions with equal values (one caller would get the
//! answer of the other), numbers that change their digits, or a panic on any input text.

pub mod audience;
pub mod fields;
pub mod ids;
pub mod json;
pub mod near;
pub mod period;
pub mod problem_code;
pub mod query;
pub mod record;
pub mod words;

pub use audience::Audience;
pub use fields::FieldSet;
pub use ids::{AccountId, ContractId, CustomerId, Operation, PerVendor, Vendor};
pub use period::{DateRange, Month};
pub use problem_code::ProblemCode;
pub use query::{PageSize, SearchQuery};
pub use words::{CacheOutcome, Kind, Route, Saved, Shortage};
