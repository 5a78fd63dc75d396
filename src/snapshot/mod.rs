//! Stable pages over an unstable scroll.

pub mod options;

pub use options::SnapshotOptions;
