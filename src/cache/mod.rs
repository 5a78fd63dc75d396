//! Remembers answers. This room does not know how answers are fetched.
//!
//! `CacheKey` is the identity of a question: everything that could change the vendor's answer, and
//! nothing of the caller. `Shelf` holds the answers of one kind with their flights, and
//! `Shelf::lookup` is the one way to an answer:
//!
//! ```text
//! entry in memory? ── fresh ────────────▶ answer
//!       │             stale ────────────▶ answer, and one refresh in the background
//!       │             usable on error ──▶ wait at most ON_ERROR_WAIT, then answer
//!       └ none or expired ──────────────▶ join or lead a flight, and wait until the deadline
//! ```
//!
//! `Lifetimes` and `Directives` (in `freshness`) decide what an entry may be used for. `Pages`
//! keeps rendered bodies of hot pages, `Variants` keeps them in content codings, and `FiledBodies`
//! keeps large ones in files of memory.
//!
//! What must never happen here: an answer under a key that leaves out an input, a failed refresh
//! that evicts a good answer, a flight that ends with its first caller, or a clock read by the
//! store to judge freshness.

pub mod coding;
pub mod etag;
pub mod filed;
mod fleet_flight;
pub mod flight;
pub mod freshness;
pub mod keeping;
pub mod key;
pub mod local;
pub mod lookup;
pub mod near;
pub mod note;
pub mod pages;
pub mod seen;
pub mod variants;
mod verdict;

pub use coding::Coding;
pub use etag::Etag;
pub use filed::{FilePart, FiledBodies};
pub use flight::{FlightEnd, Flights};
pub use freshness::{Directives, HOT_HITS, JudgedAge, Lifetimes, ON_ERROR_WAIT, Standing};
pub use keeping::Keeping;
pub use key::{CacheKey, Subject};
pub use local::{Entry, Fetched, Local};
pub use lookup::{AnswerShelf, FetchError, Found, LookupError, Shelf, Terms, Wanted};
pub use near::Near;
pub use note::{CacheNote, Detail, Forward};
pub use pages::{Pages, Rendered};
pub use seen::Seen;
pub use variants::{Variant, VariantOptions, Variants};
pub use verdict::{Remembered, Verdict};
