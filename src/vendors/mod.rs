//! The vendors, each in a place of its own.
//!
//! `upstream` knows how *a* vendor is spoken to. What one vendor says and expects is here, and only
//! here:
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
//! fault a refusal is, the defaults of its settings. `domain::Vendor`, `domain::PerVendor` and
//! `domain::Operation` name the vendors and their calls. Whoever adds a vendor begins there, and
//! the compiler names the other places.
//!
//! What must never happen here: a continuation is sent twice by itself; a scroll id leaves
//! `vendors/wiv`, other than inside an opaque `upstream::Cursor`; a vendor's body is decoded into a
//! strict struct, so that a member which the vendor adds tomorrow is lost.

pub mod nable;
mod row;
pub mod wiv;

pub use nable::Nable;
pub use row::ROWS;
pub use wiv::Wiv;
