//! Who calls, and what each caller may see.
//!
//! `CallerBook` holds every configured caller and finds one by the hash of its key or by a name in
//! its verified client certificate. `Caller` is one of them while the gateway runs: its audience,
//! role and limits, its counters, and its requests in flight. A reload builds a new book from the
//! old one, so limits and counters survive.
//!
//! `Throttle` is a caller's own rate limit, and `ForcedRefreshes` is its allowance of vendor calls
//! by `Cache-Control`. `Tenure` ends a long answer once its caller would no longer be admitted.
//!
//! `LastKey` lets a connection that sends the same key again be recognised without a hash.
//!
//! What must never happen here: a key comparison whose time depends on the key, a caller key that
//! is printed or outlives its connection, or a caller that keeps its access after a reload removed
//! it.

pub mod callers;
pub mod certificate;
mod last_key;
pub mod presence;
pub mod tenure;
pub mod throttle;

pub use callers::{Caller, CallerBook, CallerKeyHash, CallerSpec, Role};
pub use certificate::{ClientCertificate, ClientSan};
pub use last_key::LastKey;
pub use presence::Presence;
pub use tenure::Tenure;
pub use throttle::{Allowance, ForcedRefreshes, Throttle};
