//! The commands. Each one a function from its arguments to an exit code.

pub mod caller;
pub mod check;
