//! The protocol of the store, explored.

mod explore;
mod fleet;
mod list;
mod order;
