//! The store's protocol, explored.

mod explore;
