//! One request and its answer, as they pass from layer to layer.
//!
//! The types say how far a request has come: [`Arrival`] → [`Named`] → [`Routed`] → [`Known`] →
//! [`Call`]. A handler takes a `Call`, so it cannot run for a request that nobody authenticated.

pub mod body;
pub mod bound;
pub mod call;
pub mod credentials;
pub mod lasting;
pub mod mentions;
pub mod permit;
pub mod record;
pub mod site;
pub mod trace;

pub use body::{AnswerBody, BodyCut};
pub use bound::{BodyFault, ReadingBody};
pub use call::{Arrival, BodyRule, Call, Known, Matched, Named, Peer, Routed, Routing};
pub use lasting::{AtTenuresEnd, Lasting};
pub use mentions::{Mention, Mentions};
pub use permit::{InFlight, Permit};
pub use record::{Ends, Record, RequestId, Tail};

use std::pin::Pin;

/// A future behind a pointer: at the two seams only where handlers and stacks of different types
/// stand in one place.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An answer on its way out.
pub type Answered = http::Response<AnswerBody>;
