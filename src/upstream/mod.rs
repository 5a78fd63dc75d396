//! Speaking to the vendors: typed questions out, checked raw answers back.
//!
//! [`Wiv`] and [`Nable`] are what the rest of the gateway calls. Between them and the vendor stands
//! the outbound stack (`stack.rs`), which ends in [`wire`].

pub mod base_url;
pub mod body;
pub mod call;
pub mod connect;
pub mod error;
pub mod nable;
pub mod options;
pub mod rows;
pub mod scroll;
pub mod step;
pub mod wire;
pub mod wiv;

pub use base_url::BaseUrl;
pub use call::{VendorAnswer, VendorCall, VendorService};
pub use error::{Fault, UpstreamError, Whose};
pub use nable::{Nable, NableAnswer};
pub use options::VendorOptions;
pub use rows::RawRows;
pub use scroll::ScrollId;
pub use wiv::{CustomerEnvelope, CustomerList, EnvelopeMember, SearchPage, Wiv};
