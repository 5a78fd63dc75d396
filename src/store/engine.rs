//! The seam: what a store does, in operations on bytes. An engine knows names, numbers and times,
//! never a caller, a search or a vendor.
//!
//! Each operation is one step that happens whole or not at all. [`Model`](super::Model) says what
//! each of them means; every other engine is held to it by tests, reply for reply.
//!
//! A **snapshot** in the engine is a head, then vendor pages (*chunks*) in order, then an end.
//! Chunks are only ever added, and each names where it goes on from: how many chunks there are and
//! the *chain* over their texts. So an append that was sent twice is kept once, and one that goes
//! on from other rows is refused. An engine that several gateways share also fences by who holds
//! the search; the file of one gateway needs no such word, for its lock is that.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::fleet::Fleet;
use super::record::RecordName;
use crate::clock::{Duration, Stamp};
use crate::metrics::StoreOperation;

/// A running hash of kept rows: zero, and after each chunk the first 16 bytes of
/// BLAKE3(chain, the chunk's text).
pub type Chain = [u8; 16];

/// Most chunks of one snapshot. Longer ones stay in memory only.
pub const CHUNKS_MAX: u32 = 4_096;

/// When the vendor last said so.
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
    /// It has not: more rows may come.
    Open = 0,
    /// The vendor's end was reached.
    Complete = 1,
    /// A walk hit its own bound.
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

/// One operation.
#[derive(Clone, Debug)]
pub enum StoreOp {
    /// The answer of this name → [`StoreReply::Value`].
    Find {
        /// Its name.
        name: RecordName,
    },
    /// Keeps an answer → [`StoreReply::Kept`]; [`StoreReply::Conflict`] for a soft failure where a
    /// good answer is kept.
    Land {
        /// Its name.
        name: RecordName,
        /// Sealed.
        record: Bytes,
        /// A soft failure.
        negative: bool,
    },
    /// The current snapshot of a line → [`StoreReply::Current`].
    Line {
        /// The line of a search.
        line: RecordName,
    },
    /// Begins a snapshot and makes it current. → [`StoreReply::Kept`], also where it was begun
    /// already; [`StoreReply::Conflict`] where the current one is not `was`.
    Begin {
        /// The line of the search.
        line: RecordName,
        /// Its name.
        snapshot: RecordName,
        /// Sealed.
        head: Bytes,
        /// What is current now.
        was: Option<RecordName>,
    },
    /// Adds a chunk → [`StoreReply::Kept`], also where this very chunk was added last;
    /// [`StoreReply::Gone`] where there is no such snapshot; [`StoreReply::Conflict`] where it has
    /// other chunks, or has ended.
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
        /// When the vendor said so; the first chunk's is the head's age too.
        at: Stamp,
    },
    /// The vendor gave the same rows again: their ages begin anew → [`StoreReply::Kept`] or
    /// [`StoreReply::Gone`].
    Renewed {
        /// The snapshot.
        snapshot: RecordName,
        /// From now on.
        ages: KeptAges,
    },
    /// Ends a snapshot; the first end stays → [`StoreReply::Kept`] or [`StoreReply::Gone`].
    End {
        /// The snapshot.
        snapshot: RecordName,
        /// How.
        end: KeptEnd,
    },
    /// The head of a snapshot, and where it stands → [`StoreReply::Head`].
    Head {
        /// The snapshot.
        snapshot: RecordName,
    },
    /// A chunk → [`StoreReply::Value`].
    Chunk {
        /// The snapshot.
        snapshot: RecordName,
        /// From 0 on.
        number: u32,
    },
    /// A snapshot is in use: it goes last when room is made → [`StoreReply::Kept`] or
    /// [`StoreReply::Gone`].
    Touch {
        /// The snapshot.
        snapshot: RecordName,
    },
    /// Ends a snapshot's life → [`StoreReply::Kept`], whether it was there or not.
    Forget {
        /// The snapshot.
        snapshot: RecordName,
    },
    /// Keeps something small about the gateway → [`StoreReply::Kept`].
    Note {
        /// Its name.
        name: RecordName,
        /// Sealed.
        record: Bytes,
        /// The reply is wanted only once it is safe.
        safe: bool,
    },
    /// What was noted → [`StoreReply::Value`].
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
            Self::Begin { .. } => StoreOperation::Begin,
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
                | Self::Append { .. }
                | Self::End { .. }
                | Self::Note { safe: true, .. }
        )
    }

    /// Returns the sealed bytes in the operation.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Land { record, .. } | Self::Note { record, .. } => record.len(),
            Self::Begin { head, .. } => head.len(),
            Self::Append { chunk, .. } => chunk.len(),
            _ => 0,
        }
    }
}

/// Where a kept snapshot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptStanding {
    /// Its line.
    pub line: RecordName,
    /// Chunks.
    pub chunks: u32,
    /// Rows in them.
    pub rows: u64,
    /// Over their texts.
    pub chain: Chain,
    /// How it ended.
    pub end: KeptEnd,
    /// `None` before the first chunk.
    pub ages: Option<KeptAges>,
}

/// The reply to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// It is as was asked.
    Kept,
    /// There is no such thing any more.
    Gone,
    /// Another record is at that place.
    Conflict,
    /// What was looked for.
    Value(Option<Bytes>),
    /// The current snapshot.
    Current(Option<RecordName>),
    /// A snapshot: where it stands, and its sealed head.
    Head(Option<(KeptStanding, Bytes)>),
}

/// Why an engine gives no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// It cannot be used at present.
    Away,
    /// It takes no more: too much waits to be written, or the record is too large for it.
    Full,
    /// This one operation failed.
    Failed,
}

/// A reply to come.
pub type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreFault>> + Send + 'a>>;

/// The reply to an operation of one store.
pub type StoreFuture<'a> = EngineFuture<'a, StoreReply>;

/// How an engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Being opened.
    Opening,
    /// At work.
    Ok,
    /// Cannot be used at present; it is tried again by itself.
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

    fn rest(&self) -> Duration {
        (**self).rest()
    }
}

/// What a store is made of. Operations take effect in the order of the calls; dropping the future
/// changes nothing.
pub trait Engine: Send + Sync + 'static {
    /// Runs one operation.
    ///
    /// # Errors
    /// When there is no reply; the future then ends at once, whatever the engine waits for. A
    /// change may have been made all the same, so it may be asked for again.
    fn call(&self, op: StoreOp) -> StoreFuture<'_>;

    /// How it is doing.
    fn state(&self) -> EngineState;

    /// Counts how often it may have lost something since the process began, as when it began empty
    /// or was connected anew: what must not be missing is then to be noted anew.
    fn resets(&self) -> u64;

    /// Writes what waits, and closes its file or its connections, within `limit`.
    fn close(&self, limit: Duration);

    /// What several gateways agree on through it. `None`: it is this gateway's own.
    fn fleet(&self) -> Option<&dyn Fleet> {
        None
    }

    /// How long anyone waits for it. A vendor takes longer, so little is lost where it is late.
    fn wait_max(&self) -> Duration {
        Duration::from_millis(50)
    }

    /// How long it is left alone after it was late several times.
    fn rest(&self) -> Duration {
        Duration::from_secs(10)
    }
}
