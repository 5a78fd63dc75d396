//! Keeps data beyond the life of the process: answers, snapshots, purges and the vendors' limits.
//!
//! ```text
//! cache, snapshot, admission ─▶ Store ─▶ Engine: Disk (a file), Valkey (shared), Model (memory)
//!                               seals,    operations
//!                               names,    on bytes
//!                               waits 50 ms at most
//! ```
//!
//! - [`Store`] is the interface for other rooms. It seals and opens records, checks them against
//!   purges, and limits every wait to 50 ms. It stops calling an engine that does not answer.
//!   [`Store::none`] keeps nothing and costs nothing.
//! - [`Engine`] is the trait that each kind of storage implements, as operations on bytes.
//!   [`Model`] is the reference implementation, [`Disk`] a redb file in a directory of its own,
//!   [`Valkey`] a server that several gateways share. [`fleet`] holds the operations of a shared
//!   engine: names, purges, shared fetches, claims on searches, the vendors' budgets ([`purse`])
//!   and the number of gateways.
//! - [`SealedRecord`] and [`Names`] keep contents and identities from the engine. Contents are
//!   sealed with a key derived from the secret of the page tokens. Names are keyed hashes.
//! - [`Watermarks`] are purges as numbers. Every record from the store is checked against them, so
//!   that a purge also ends records that a restart brings back.
//!
//! Memory answers first. The store is read after a miss and written after a fetch; a hit never
//! touches it. A record that does not open, or whose content is invalid, is a miss and is counted.
//!
//! What must never happen here: a vendor key, a scroll id or a caller key in a record; a request or
//! the end of the process that waits for a disk; an answer that a purge covers.

pub mod away;
pub mod bell;
pub mod board;
pub mod claims;
pub mod disk;
pub mod engine;
pub mod fleet;
mod fleet_model;
pub mod handle;
#[cfg(test)]
mod histories;
mod ledger;
pub mod model;
pub mod names;
pub mod pack;
pub mod purse;
pub mod record;
pub mod scrolls;
pub mod share;
pub mod snapshots;
pub mod usage;
pub mod valkey;
pub mod watermarks;

pub use away::{CLOSES_AFTER, STORE_RETRY, StoreBar, WhenAway};
pub use bell::{BellListener, HeadHook, RING_REST, Ring};
pub use board::{Boarded, FETCH_LEASE};
pub use claims::{Alignment, LineClaim, LineTurn, align, load_after};
pub use disk::{Disk, DiskOptions};
pub use engine::{
    Chain, Engine, EngineState, Fence, KeptAges, KeptEnd, KeptStanding, StoreFault, StoreOp,
    StoreReply,
};
pub use fleet_model::SharedModel;
pub use handle::{KeptAnswer, Store, StoreHealth};
pub use model::Model;
pub use names::Names;
pub use purse::{FleetView, PLACE_LEASE, PurseReply, PurseTake, PurseVerdict, PurseWord};
pub use record::{RecordName, SealedRecord};
pub use scrolls::{SlotReply, SlotWish};
pub use share::PurgeReach;
pub use snapshots::{KeptNews, KeptOf, KeptPlace, KeptRows, KeptSnapshot, NotKept};
pub use usage::{CallerUse, FleetUse, UseBatch};
pub use valkey::{Valkey, ValkeyAccess, ValkeyAddress, ValkeyLives, ValkeyOptions};
pub use watermarks::{PurgeDepth, PurgeScope, PurgeSubject, Purges, Watermarks};
