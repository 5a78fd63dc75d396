//! One file per question: how each is answered from memory, snapshots and vendors.

pub mod answer;
pub mod billing;
pub mod cases;
pub mod customers;
pub mod error;
pub mod export;
pub mod overview;
pub mod policy;

pub use answer::{Answer, Asker, Etag};
pub use error::ReadError;
pub use policy::{GradedLifetimes, Link, LinkTo, Policy};

use std::sync::Arc;

/// Every question the gateway can answer.
#[derive(Clone)]
pub struct Reads {
    /// The customer list.
    pub customers: Arc<customers::Customers>,
    /// Case searches.
    pub cases: Arc<cases::Cases>,
    /// Whole searches as a stream.
    pub export: Arc<export::Export>,
    /// Billable services and invoices.
    pub billing: Arc<billing::Billing>,
    /// Both vendors in one answer.
    pub overview: Arc<overview::Overview>,
}
