//! How a vendor is spoken to, whichever it is: typed calls go out, checked raw answers come back.
//!
//! The clients in `vendors` make a [`VendorCall`]. It passes the outbound stack (`stack.rs`) and
//! reaches [`wire`], which sends one request and reads one whole answer.
//!
//! ```text
//! a client ── VendorCall ─▶ outbound stack ─▶ wire ─▶ connect (tcp, TLS) ─▶ vendor
//!     ▲                                         │
//!     └── form of the answer: body, rows ◀──────┴── fault: error, cause, said
//! ```
//!
//! - [`VendorAnswer`] is a complete answer with a 2xx status: decoded, without a byte order mark,
//!   within the size limit. What an answer says of itself (an error body with status 200) was
//!   looked at.
//! - [`UpstreamError`] is everything else. Its [`Fault`] says what went wrong, [`ConnectCause`] why
//!   no connection was made, and `said` holds the vendor's own words, cleaned.
//! - [`Source`] is a list that a vendor gives page by page, with a [`Cursor`] that only the
//!   vendor's client can read. Walks read from it.
//! - [`VendorRow`] is what differs between vendors and is no call: whose fault a refusal is,
//!   whether its body is kept, the defaults of its settings.
//! - `tally` tells a connection that was used before from a new one. The end of a used one before
//!   the first byte of an answer is [`Fault::StaleConnection`]: no verdict on the vendor.
//!
//! What must never happen here: a continuation of a scroll that may have reached the vendor is sent
//! again; a redirect is followed; a key or a scroll id appears in an error or a log line.

pub mod base_url;
pub mod body;
pub mod call;
mod cause;
pub mod connect;
mod decode;
pub mod error;
pub mod options;
pub mod row;
pub mod rows;
pub(crate) mod said;
pub mod source;
pub mod step;
mod tally;
mod tcp;
pub mod wire;

pub use base_url::{BaseUrl, ProxyUrl};
pub use call::{Over, VendorAnswer, VendorCall, VendorService};
pub use cause::ConnectCause;
pub use error::{Fault, UpstreamError, Whose};
pub use options::VendorOptions;
pub use row::{RefusalStatus, VendorRow};
pub use rows::RawRows;
pub use source::{Cursor, EnvelopeMember, Source, SourceCall, SourcePage, WalkedVendor};
