//! Remembering answers. Does not know how they are fetched.

pub mod coding;
pub mod etag;
pub mod filed;
pub mod flight;
pub mod freshness;
pub mod key;
pub mod local;
pub mod lookup;
pub mod near;
pub mod note;
pub mod pages;
pub mod seen;
pub mod variants;

pub use coding::Coding;
pub use etag::Etag;
pub use filed::{FilePart, FiledBodies};
pub use flight::{FlightEnd, Flights};
pub use freshness::{Directives, HOT_HITS, Judged, Lifetimes, ON_ERROR_WAIT, Standing};
pub use key::{CacheKey, Subject};
pub use local::{Entry, Fetched, Local};
pub use lookup::{FetchError, Found, LookupError, Shelf, Terms, Wanted};
pub use near::Near;
pub use note::{CacheNote, Detail, Forward};
pub use pages::{Pages, Rendered};
pub use seen::Seen;
pub use variants::{Variant, VariantOptions, Variants};
