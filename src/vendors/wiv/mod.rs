//! wiv: customers of the MSP and their cases.

mod client;
mod scroll;
mod wire;

pub use client::Wiv;
pub use scroll::ScrollId;
pub use wire::{CustomerEnvelope, CustomerList};
