//! The vendors, one folder each.
//!
//! `upstream` calls any vendor. The requests, answers and errors of one particular vendor are here,
//! and only here:
//!
//! ```text
//! vendors/
//!   wiv/    client: its calls      wire: the forms of its answers   scroll: its cursor
//!   nable/  client: its calls      wire: the forms of its answers   billed: what is read of them
//! ```
//!
//! [`Wiv`] and [`Nable`] are what other rooms call. Each builds a `VendorCall` from typed values,
//! sends it through the outbound stack that it was given, and reads the answer. [`Wiv`] is also an
//! `upstream::Source`: a walk reads pages from it without knowing whose they are.
//!
//! [`ROWS`] holds one row of data for each vendor: where it is, which header carries its key, whose
//! fault a refusal is, the defaults of its settings. [`Clients`] holds the clients for `reads`.
//! `domain::Vendor`, `domain::PerVendor` and `domain::Operation` name the vendors and their calls.
//! To add a vendor, begin there; CONTRIBUTING.md lists every file in order.
//!
//! What must never happen here: a continuation is sent twice by itself; a scroll id leaves
//! `vendors/wiv`, other than inside an opaque `upstream::Cursor`; a vendor's body is decoded into a
//! strict struct, so that a member which the vendor adds tomorrow is lost.

pub mod nable;
mod row;
pub mod wiv;

use std::sync::Arc;

pub use nable::Nable;
pub use wiv::Wiv;

use crate::domain::PerVendor;
use crate::upstream::{VendorOptions, VendorRow, VendorService};

/// One row for each vendor.
pub static ROWS: PerVendor<VendorRow> = PerVendor {
    wiv: wiv::ROW,
    nable: nable::ROW,
};

/// The clients of all vendors. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    /// The client of wiv.
    pub wiv: Arc<Wiv>,
    /// The client of N-able.
    pub nable: Arc<Nable>,
}

impl Clients {
    /// Creates the clients over the outbound stacks of configured vendors. All calls to a vendor
    /// that is not configured fail.
    pub fn new(stacks: PerVendor<Option<(VendorService, &VendorOptions)>>) -> Self {
        let PerVendor { wiv, nable } = stacks;
        Self {
            wiv: Arc::new(
                wiv.map_or_else(Wiv::disabled, |(stack, options)| Wiv::new(stack, options)),
            ),
            nable: Arc::new(nable.map_or_else(Nable::disabled, |(stack, options)| {
                Nable::new(stack, options)
            })),
        }
    }
}
