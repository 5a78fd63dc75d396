//! The trait that every kind of storage implements, as operations on bytes. An engine knows names,
//! numbers and times, never a caller, a search or a vendor.
//!
//! Each operation is atomic. [`Model`](super::Model) is the reference implementation; tests compare
//! every other engine with it, reply by reply.
//!
//! A **snapshot** in the engine is a head, then vendor pages (*chunks*) in order, then an end.
//! Chunks are only ever added. Each names its predecessor: the number of chunks before it and the
//! *chain* over their texts. So an append that was sent twice is kept once, and an append to other
//! rows is rejected. A shared engine also checks who holds the claim on the search. The file of one
//! gateway needs no claim, because its lock excludes other gateways.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::away::WhenAway;
use super::fleet::{ClaimId, Fleet};
use super::record::RecordName;
use crate::clock::{Duration, Stamp};
use crate::metrics::StoreOperation;

/// A running hash of kept rows: zero, and after each chunk the first 16 bytes of
/// BLAKE3(chain, the chunk's text).
pub type Chain = [u8; 16];

/// Most chunks of one snapshot. Longer ones stay in memory only.
pub const CHUNKS_MAX: u32 = 4_096;

/// When the vendor last confirmed the rows of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAges {
    /// The first rows.
    pub head: Stamp,
    /// All rows.
    pub whole: Stamp,
}

/// How a kept snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeptEnd {
    /// It has not ended: more rows may follow.
    Open = 0,
    /// The vendor's end was reached.
    Complete = 1,
    /// The walk reached one of its limits.
    Cut = 2,
    /// No row will ever follow.
    Broken = 3,
}

impl KeptEnd {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Open, Self::Complete, Self::Cut, Self::Broken]
            .into_iter()
            .find(|end| *end as u8 == byte)
    }
}

/// The right to change a snapshot in an engine that several gateways share. The engine refuses the
/// change if another gateway has claimed the line since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The line of the search.
    pub line: RecordName,
    /// The claim on it.
    pub claim: ClaimId,
    /// A change renews the claim for this long.
    pub lease: Duration,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// Reads the answer of this name → [`StoreReply::Value`].
    Find {
        /// Its name.
        name: RecordName,
    },
    /// Keeps an answer → [`StoreReply::Kept`]; [`StoreReply::Conflict`] for a soft failure if a
    /// good answer is kept.
    Land {
        /// Its name.
        name: RecordName,
        /// Sealed.
        record: Bytes,
        /// Whether it is a soft failure.
        negative: bool,
    },
    /// Reads the name of the current snapshot of a line → [`StoreReply::Current`].
    Line {
        /// The line of a search.
        line: RecordName,
    },
    /// Begins a snapshot and makes it current → [`StoreReply::Kept`], also if it was begun already;
    /// [`StoreReply::Conflict`] if the current snapshot is not `was`; [`StoreReply::Deposed`].
    Begin {
        /// The line of the search.
        line: RecordName,
        /// Its name.
        snapshot: RecordName,
        /// Sealed.
        head: Bytes,
        /// The snapshot that the new one replaces.
        was: Option<RecordName>,
        /// `None` if no other gateway can change it.
        fence: Option<Fence>,
    },
    /// Begins a snapshot that the engine lost. It is for tokens only: the current snapshot of the
    /// line stays → [`StoreReply::Kept`], also if there is such a snapshot;
    /// [`StoreReply::Deposed`].
    PutBack {
        /// The line of the search.
        line: RecordName,
        /// Its name.
        snapshot: RecordName,
        /// Sealed.
        head: Bytes,
        /// `None` if no other gateway can change it.
        fence: Option<Fence>,
    },
    /// Adds a chunk → [`StoreReply::Kept`], also if the same chunk was the last one added;
    /// [`StoreReply::Gone`] if there is no such snapshot; [`StoreReply::Conflict`] if it has other
    /// chunks, or has ended; [`StoreReply::Deposed`].
    Append {
        /// The snapshot.
        snapshot: RecordName,
        /// Chunks before it.
        number: u32,
        /// The chain before it.
        chain: Chain,
        /// The chain after it.
        next: Chain,
        /// Rows in it.
        rows: u32,
        /// Sealed.
        chunk: Bytes,
        /// When the vendor sent the rows. The time of the first chunk is the head's age too.
        at: Stamp,
        /// `None` if no other gateway can change it.
        fence: Option<Fence>,
    },
    /// Resets the ages, because the vendor sent the same rows again → [`StoreReply::Kept`] or
    /// [`StoreReply::Gone`].
    Renewed {
        /// The snapshot.
        snapshot: RecordName,
        /// The new ages.
        ages: KeptAges,
    },
    /// Ends a snapshot; the first end stays → [`StoreReply::Kept`] or [`StoreReply::Gone`];
    /// [`StoreReply::Conflict`] if it has other chunks; [`StoreReply::Deposed`].
    End {
        /// The snapshot.
        snapshot: RecordName,
        /// Its end.
        end: KeptEnd,
        /// Its chunks, and the chain over them. `None` accepts any.
        of: Option<(u32, Chain)>,
        /// `None` if no other gateway can change it.
        fence: Option<Fence>,
    },
    /// Reads the head of a snapshot and its state → [`StoreReply::Head`].
    Head {
        /// The snapshot.
        snapshot: RecordName,
    },
    /// Reads a chunk → [`StoreReply::Value`].
    Chunk {
        /// The snapshot.
        snapshot: RecordName,
        /// Its number, from 0.
        number: u32,
    },
    /// Marks a snapshot as used now, so that it is evicted last → [`StoreReply::Kept`] or
    /// [`StoreReply::Gone`].
    Touch {
        /// The snapshot.
        snapshot: RecordName,
    },
    /// Removes a snapshot → [`StoreReply::Kept`], whether it existed or not.
    Forget {
        /// The snapshot.
        snapshot: RecordName,
    },
    /// Keeps a small record about the gateway → [`StoreReply::Kept`].
    Note {
        /// Its name.
        name: RecordName,
        /// Sealed.
        record: Bytes,
        /// Whether to reply only once a crash cannot undo it.
        safe: bool,
    },
    /// Reads such a small record → [`StoreReply::Value`].
    Recall {
        /// Its name.
        name: RecordName,
    },
}

impl StoreOp {
    /// Returns the operation's word in metrics.
    pub fn operation(&self) -> StoreOperation {
        match self {
            Self::Find { .. } => StoreOperation::Find,
            Self::Land { .. } => StoreOperation::Land,
            Self::Line { .. } => StoreOperation::Line,
            Self::Begin { .. } | Self::PutBack { .. } => StoreOperation::Begin,
            Self::Append { .. } => StoreOperation::Append,
            Self::Renewed { .. } => StoreOperation::Renewed,
            Self::End { .. } => StoreOperation::End,
            Self::Head { .. } => StoreOperation::Head,
            Self::Chunk { .. } => StoreOperation::Chunk,
            Self::Touch { .. } => StoreOperation::Touch,
            Self::Forget { .. } => StoreOperation::Forget,
            Self::Note { .. } => StoreOperation::Note,
            Self::Recall { .. } => StoreOperation::Recall,
        }
    }

    /// Returns whether the sender waits until a crash cannot undo the operation.
    pub(super) fn is_to_be_safe(&self) -> bool {
        matches!(
            self,
            Self::Begin { .. }
                | Self::PutBack { .. }
                | Self::Append { .. }
                | Self::End { .. }
                | Self::Note { safe: true, .. }
        )
    }

    /// Returns the right by which it changes a snapshot.
    pub(super) fn fence(&self) -> Option<&Fence> {
        match self {
            Self::Begin { fence, .. }
            | Self::PutBack { fence, .. }
            | Self::Append { fence, .. }
            | Self::End { fence, .. } => fence.as_ref(),
            _ => None,
        }
    }

    /// Returns the sealed bytes in the operation.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Land { record, .. } | Self::Note { record, .. } => record.len(),
            Self::Begin { head, .. } | Self::PutBack { head, .. } => head.len(),
            Self::Append { chunk, .. } => chunk.len(),
            _ => 0,
        }
    }
}

/// The state of a kept snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptStanding {
    /// Its line.
    pub line: RecordName,
    /// Chunks.
    pub chunks: u32,
    /// Rows in them.
    pub rows: u64,
    /// The chain over their texts.
    pub chain: Chain,
    /// How it ended.
    pub end: KeptEnd,
    /// `None` before the first chunk.
    pub ages: Option<KeptAges>,
}

/// The reply to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// The operation succeeded.
    Kept,
    /// The record no longer exists.
    Gone,
    /// Another record is at that place.
    Conflict,
    /// Another gateway has claimed the line.
    Deposed,
    /// The record, if there is one.
    Value(Option<Bytes>),
    /// The current snapshot.
    Current(Option<RecordName>),
    /// A snapshot: its state and its sealed head.
    Head(Option<(KeptStanding, Bytes)>),
}

/// Why an engine gives no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The engine cannot be used at the moment.
    Away,
    /// The engine accepts no more: too much waits to be written, or the record is too large.
    Full,
    /// This one operation failed.
    Failed,
}

/// A reply to come.
pub type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreFault>> + Send + 'a>>;

/// The reply to an operation of one store.
pub type StoreFuture<'a> = EngineFuture<'a, StoreReply>;

/// The state of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Being opened.
    Opening,
    /// In use.
    Ok,
    /// Cannot be used at the moment; it retries by itself.
    Away,
}

impl<E: Engine + ?Sized> Engine for std::sync::Arc<E> {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        (**self).call(op)
    }

    fn state(&self) -> EngineState {
        (**self).state()
    }

    fn resets(&self) -> u64 {
        (**self).resets()
    }

    fn close(&self, limit: Duration) {
        (**self).close(limit);
    }

    fn fleet(&self) -> Option<&dyn Fleet> {
        (**self).fleet()
    }

    fn wait_max(&self) -> Duration {
        (**self).wait_max()
    }

    fn replicas_min(&self) -> u32 {
        (**self).replicas_min()
    }

    fn when_away(&self) -> WhenAway {
        (**self).when_away()
    }

    fn rest(&self) -> Duration {
        (**self).rest()
    }
}

/// A kind of storage. Operations take effect in the order of the calls. Dropping the future cancels
/// nothing.
pub trait Engine: Send + Sync + 'static {
    /// Runs one operation.
    ///
    /// # Errors
    /// If there is no reply. The future then ends at once, even if the engine is still waiting. The
    /// change may have been made all the same, so the operation may be repeated.
    fn call(&self, op: StoreOp) -> StoreFuture<'_>;

    /// Returns its state.
    fn state(&self) -> EngineState;

    /// Returns how often the engine may have lost records since the process started, for instance
    /// because it started empty or reconnected. After such a loss, records that must not be missing
    /// are written again.
    fn resets(&self) -> u64;

    /// Writes what waits, and closes its file or its connections, within `limit`.
    fn close(&self, limit: Duration);

    /// Returns the operations for several gateways. `None` if this gateway has the engine to
    /// itself.
    fn fleet(&self) -> Option<&dyn Fleet> {
        None
    }

    /// Returns the longest wait for a reply. A vendor call takes longer, so a late store costs
    /// little.
    fn wait_max(&self) -> Duration {
        Duration::from_millis(50)
    }

    /// Returns the minimum number of replicas to assume, whatever the last beat said.
    fn replicas_min(&self) -> u32 {
        1
    }

    /// Returns what a gateway does while the engine is away.
    fn when_away(&self) -> WhenAway {
        WhenAway::Open
    }

    /// Returns how long the engine is not called after several late replies.
    fn rest(&self) -> Duration {
        Duration::from_secs(10)
    }
}
