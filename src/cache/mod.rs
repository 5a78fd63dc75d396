//! Remembering answers. Does not know how they are fetched.

pub mod freshness;
pub mod key;
pub mod note;

pub use freshness::{Directives, Lifetimes};
pub use key::{CacheKey, Subject};
pub use note::{CacheNote, Detail, Forward};
