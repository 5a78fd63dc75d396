//! How much work is accepted: pure decisions about lanes, budgets, permits and circuits.

pub mod spend;

pub use spend::{Lane, Payer, Spend};
