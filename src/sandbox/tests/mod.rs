//! The sandbox over connections.
