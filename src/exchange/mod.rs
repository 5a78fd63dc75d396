//! One request and its answer, as they pass from layer to layer.
//!
//! The type says how far a request has come. A handler takes a [`Call`], so it cannot run for a
//! request that was not authenticated:
//!
//! ```text
//! Arrival ─▶ Named ─▶ Routed ─▶ Known ─▶ Call          each holds the one before
//! hyper's    id and   route     caller   body read
//! request    record   found     known    permit taken
//! ```
//!
//! [`Record`] goes with the request through all of these. The layers note in it what they learn,
//! and [`Tail`] writes the access log line from it when the answer's body ends, however it ends.
//! [`AnswerBody`] is the body on its way out. It holds the [`Permit`] and the [`Tail`], so both
//! live exactly as long as the answer.
//!
//! What must never happen here:
//! - A permit or a log line is lost because a caller left. Both are released by `Drop`.
//! - A key, a body or a query string gets into the log. Of the target, only the path does.
//! - A body without an end in sight is read: [`ReadingBody`] has limits of size and time.

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
pub use bound::{ReadingBody, RequestBodyFault};
pub use call::{Arrival, BodyRule, Call, Known, Matched, Named, PeerIdentity, Routed, Routing};
pub use lasting::{AtTenuresEnd, Lasting};
pub use mentions::{Mention, Mentions};
pub use permit::{InFlight, Permit};
pub use record::{Ends, Record, RequestId, Tail};

use std::convert::Infallible;
use std::pin::Pin;

use hyper::service::Service;

/// A boxed future. It is used only at the two places where handlers or stacks of different types
/// must have one type.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The rest of an inbound stack, boxed where its layers depend on settings.
pub type DynStack = Box<
    dyn Service<
            Arrival,
            Response = Answered,
            Error = Infallible,
            Future = Boxed<Result<Answered, Infallible>>,
        > + Send
        + Sync,
>;

/// An answer on its way out.
pub type Answered = http::Response<AnswerBody>;
