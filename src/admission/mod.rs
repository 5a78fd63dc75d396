//! How much work is accepted: pure decisions about lanes, budgets, permits and circuits.
//!
//! `pace`, `rate`, `ramp`, `places`, `queue`, `breaker` and `retry` decide from what they are told, the time among it;
//! `governor`, `circuit` and `credential` are the shared handles around them. [`Gates`] bundles
//! those of one vendor, so that a reload can build a new stack without forgetting anything.

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
pub mod spend;
pub mod story;

pub use breaker::{CircuitSettings, CircuitState};
pub use circuit::{Circuit, CircuitSnapshot};
pub use credential::Credential;
pub use gates::{GateSettings, Gates};
pub use governor::{Governor, Permit};
pub use pace::{HOLD_DOWN_MAX, PaceRefusal, PaceSettings, PaceSnapshot};
pub use places::Felt;
pub use retry::{RetryBudget, RetrySettings};
pub use spend::{Lane, Payer, Spend, trace_id};
pub use story::{Stage, StageTimes, Story, StoryTold, TimeSpent};
