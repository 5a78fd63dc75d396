//! Speaking to the vendors: typed questions out, checked raw answers back.

pub mod call;
pub mod error;

pub use call::{VendorAnswer, VendorCall, VendorService};
pub use error::{Fault, UpstreamError};
