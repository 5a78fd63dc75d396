//! Calls vendors over HTTP. Typed calls go out, and complete, checked answers come back.
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
//!   within the size limit. An error body with status 200 has been turned into an error.
//! - [`UpstreamError`] is every other outcome. Its [`Fault`] says what went wrong, [`ConnectCause`]
//!   why no connection was made, and `said` is the vendor's cleaned message.
//! - [`Source`] is a list that a vendor gives page by page, with a [`Cursor`] that only the
//!   vendor's client can read. Walks read from it.
//! - [`VendorRow`] holds the facts about one vendor: whose fault a refusal is, whether its body is
//!   kept, the defaults of its settings.
//! - `tally` records whether a connection was used before. If a used one ends before the first byte
//!   of an answer, the fault is [`Fault::StaleConnection`], which says nothing about the vendor.
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
pub use call::{Over, VendorAnswer, VendorCall, VendorCalling, VendorService};
pub use cause::ConnectCause;
pub use connect::client_tls;
pub use error::{Fault, UpstreamError, Whose};
pub use options::VendorOptions;
pub use row::{RefusalStatus, VendorRow};
pub use rows::RawRows;
pub use source::{Cursor, EnvelopeMember, Source, SourceCall, SourcePage, WalkedVendor};
