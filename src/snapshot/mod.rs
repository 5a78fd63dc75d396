//! Stable pages over an unstable scroll.
//!
//! A *walk* reads one vendor scroll; a *snapshot* is the rows it gave, frozen in the vendor's order;
//! a *page token* is what a caller holds. A *lineage* is all snapshots of one search.

mod compare;
mod forecast;
pub mod frozen;
mod held;
pub mod lineage;
pub mod listing;
pub mod options;
pub mod page;
pub mod rows;
pub mod slots;
pub mod store;
pub mod token;
pub mod view;
mod walk;

pub use frozen::{Cut, CutPage, End, Snapshot, WalkFailure, Want};
pub use options::SnapshotOptions;
pub use store::{Growth, Open, OpenError, Opened, PageAsk, PageFailure, Snapshots};
pub use token::{Claims, Sealer, SnapshotId};
pub use view::View;
