//! N-able: billable services and invoices, as raw JSON objects.

mod billed;
mod client;
mod wire;

pub use billed::{Billed, BilledClient, InvoicedContract, InvoicedContracts, invoiced_contracts};
pub use client::{Nable, NableAnswer};
