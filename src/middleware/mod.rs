//! Thin tower layers, one verb each; policy lives in the rooms they call.

pub mod inbound;
pub mod outbound;
