//! What outlives the process: answers, snapshots, purges, and what vendors said about their limits.
//!
//! ```text
//! cache, snapshot, admission ─▶ Store ─▶ Engine: Disk (a file), Valkey (shared), Model (memory)
//!                               seals,    operations
//!                               names,    on bytes
//!                               waits 50 ms at most
//! ```
//!
//! - [`Store`] is what other rooms use. It seals what goes in, judges what comes out, waits a
//!   moment and no longer, and stops asking an engine that does not answer. [`Store::none`] keeps
//!   nothing and costs nothing.
//! - [`Engine`] is the seam: one trait, operations on bytes. [`Model`] says what they mean,
//!   [`Disk`] is a redb file in a directory of our own, [`Valkey`] a server that several gateways
//!   share. What they agree on through it is in [`fleet`]: names, purges, how many they are, and
//!   in [`board`]: which of them fetches an answer.
//! - [`SealedRecord`] and [`Names`] keep the engine ignorant: contents are sealed with a key
//!   derived from the secret of the page tokens, names are keyed hashes.
//! - [`Watermarks`] are purges as numbers. What comes out of the store is judged by them, so that a
//!   purge also ends what a file brings back.
//!
//! Memory answers first. The store is asked on a miss, and told after a fetch; a hit never touches
//! it. Whatever does not open, or makes no sense, is a miss and is counted.
//!
//! What must never happen here: a vendor key, a scroll id or a caller key in a record; a request or
//! the end of the process that waits for a disk; an answer that a purge covers.

pub mod board;
pub mod disk;
pub mod engine;
pub mod fleet;
mod fleet_model;
pub mod handle;
mod ledger;
pub mod model;
pub mod names;
pub mod pack;
pub mod record;
pub mod share;
pub mod snapshots;
pub mod valkey;
pub mod watermarks;

pub use board::{Boarded, FETCH_LEASE};
pub use disk::{Disk, DiskOptions};
pub use engine::{
    Chain, Engine, EngineState, KeptAges, KeptEnd, KeptStanding, StoreFault, StoreOp, StoreReply,
};
pub use fleet_model::SharedModel;
pub use handle::{KeptAnswer, Store, StoreHealth};
pub use model::Model;
pub use names::Names;
pub use record::{RecordName, SealedRecord};
pub use share::PurgeReach;
pub use snapshots::{KeptNews, KeptOf, KeptPlace, KeptRows, KeptSnapshot};
pub use valkey::{Valkey, ValkeyAccess, ValkeyAddress, ValkeyLives, ValkeyOptions};
pub use watermarks::{PurgeDepth, PurgeScope, PurgeSubject, Purges, Watermarks};
