//! Stable pages over an unstable scroll.
//!
//! A *walk* reads one vendor scroll. A *snapshot* is the rows that it gave, frozen in the vendor's
//! order; pages are cut from it. A *page token* is what a caller holds. A *lineage* is all
//! snapshots of one search. Three types to know: [`Snapshots`] is what other rooms use,
//! [`Snapshot`] holds the rows, and [`lineage::Lineage`] decides how a request is answered and when
//! the vendor is asked.
//!
//! A walk is in one of five stages (`walk::Stage`):
//!
//! ```text
//!  readers wait                                    a refresh is due
//!       │                                                 │
//!       ▼       rows repeat what was served               ▼
//!  Comparing ───────────────────────────▶ Growing ◀─── Checking ───▶ Renewed
//!       ▲  │                               ▲ │ ▲   other    │  same rows │ │
//!       │  │ rows differ: the old snapshot │ │ └─── rows ───┼────────────┘ │
//!       │  └── is broken, a new one grows ─┘ │              │              │
//!       └────────── scroll lost, a reader waits ────────────┼──────────────┘
//!                                            │              │
//!              the end, a bound, nobody reads on, a failure ▼
//!                                          Over
//! ```
//!
//! A snapshot is `Growing` until a walk reaches the vendor's end (`Complete`), a bound of its own
//! (`Cut`), or finds that the vendor's rows have changed (`Broken`); see [`End`].
//!
//! Gateways that share a store walk a search once for all of them; see `follow.rs`. A refresh by
//! one of them counts at all; see `hear.rs`. A store that lost rows gets them back from memory; see
//! `resync.rs`.
//!
//! What must never happen here: a continuation is sent twice; a row that was served changes or
//! moves; a page mixes two orders; a scroll id leaves the room; a reader waits for a walk that is
//! gone.

pub mod compare;
mod follow;
mod forecast;
pub mod frozen;
mod hear;
mod held;
mod keep;
mod kept_head;
pub mod lineage;
pub mod listing;
mod load;
mod lost;
pub mod marks;
pub mod options;
pub mod page;
mod recall;
mod resync;
pub mod rows;
mod slot_fleet;
mod slot_lease;
mod slot_note;
mod slot_state;
pub mod slots;
pub mod store;
pub mod token;
pub mod view;
mod walk;

pub use frozen::{Cut, CutPage, End, Snapshot, Want};
pub use lineage::{Open, OpenError, Opened};
pub use lost::WalkFailure;
pub use marks::Marks;
pub use options::SnapshotOptions;
pub use store::{Growth, PageAsk, PageFailure, Snapshots};
pub use token::{Claims, Sealer, SnapshotId, SyncClaims};
pub use view::View;
