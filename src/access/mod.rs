//! Who calls, and what they may see.

pub mod callers;
pub mod certificate;
pub mod presence;
pub mod throttle;

pub use callers::{Caller, CallerBook, CallerKeyHash, CallerSpec, Role};
pub use certificate::{ClientCertificate, ClientSan};
pub use presence::Presence;
pub use throttle::{Allowance, ForcedRefreshes, Throttle};
