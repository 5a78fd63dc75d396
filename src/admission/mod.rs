//! Decides how much work the gateway accepts and when each vendor may be called.
//!
//! A vendor call passes these gates in the outbound stack, in this order:
//!
//! ```text
//! Credential  has a key that the vendor accepts?   no: refuse, one probe per interval
//! Circuit     has the vendor answered recently?    no: refuse, one probe at a time
//! Governor    budget and a place for this lane?    no: queue until the deadline, or refuse
//! RetryBudget failed: is another attempt allowed?  no: return the failure
//! ```
//!
//! Where gateways share a store, it keeps the budget for all of them: the queue, lanes and turns
//! stay here, and the call in front asks the store. While the store is away, each gateway goes on
//! with a part of the budget.
//!
//! `pace`, `rate`, `ramp`, `places`, `queue`, `breaker` and `retry` are pure: the caller passes in
//! the time, and each decision is a function of their state. `governor`, `circuit` and `credential`
//! are the shared, locked handles around them. [`Gates`] bundles the handles of one vendor. They
//! outlive the vendor's stack, so a reload builds a new stack and keeps what was learnt about the
//! vendor.
//!
//! Start with [`Governor::admit`], which queues a call by [`Lane`] and by [`Payer`], and with
//! [`Spend`], which says how urgent a call is and how long it may wait.
//!
//! What must never happen here:
//! - A call goes out while the vendor's 429 or `Retry-After` forbids it, except one probe a minute.
//! - More calls go out in any stretch of time than the rate and the burst allow.
//! - A queue grows without a bound, or a place is lost because its holder was dropped.
//! - The bytes of a key are read. This room chooses between keys and never looks into them.

pub mod breaker;
pub mod circuit;
pub mod credential;
pub mod gates;
pub mod governor;
pub mod limits;
pub mod pace;
pub mod places;
pub mod queue;
pub mod ramp;
pub mod rate;
mod remembered;
pub mod retry;
mod shared;
pub mod spend;
pub mod story;

pub use breaker::{CircuitSettings, CircuitState};
pub use circuit::{Circuit, CircuitSnapshot};
pub use credential::Credential;
pub use gates::{GateSettings, Gates};
pub use governor::{Governor, VendorPermit};
pub use pace::{HOLD_DOWN_MAX, PaceRefusal, PaceSettings, PaceSnapshot};
pub use places::Felt;
pub use retry::{RetryBudget, RetrySettings};
pub use spend::{Lane, Payer, Spend, trace_id};
pub use story::{StageTimes, Story, StoryStage, StoryTold, TimeSpent};
