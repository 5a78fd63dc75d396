//! The second half of the seam: what several gateways (*replicas*) over one engine agree on.
//!
//! An engine that is one gateway's own, like a file, has no such half. An engine that is shared
//! answers these operations too, each in one step. Time is the engine's: an operation sends
//! ages, and gets ages back, so that the clocks of two machines are never compared.

use bytes::Bytes;

use super::engine::EngineFuture;
use super::record::RecordName;
use crate::clock::{Duration, Stamp};
use crate::metrics::StoreOperation;

/// Two ages of one answer that differ by less are one age: each way through the engine rounds to
/// whole milliseconds.
pub const SAME_AGE: Duration = Duration::from_millis(50);
/// A replica that said nothing for so long is not counted any more.
pub const REPLICA_GONE: Duration = Duration::from_secs(2);

/// The right to do one thing, as long as a lease lasts. Random, so that asking for it again is
/// the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimId(pub [u8; 16]);

impl ClaimId {
    /// Returns a new one.
    pub fn random() -> Self {
        Self(fastrand::u128(..).to_le_bytes())
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub enum FleetOp {
    /// Keeps a record under a name once and for all → [`FleetReply::Value`]: the record that is
    /// kept there, which another replica may have kept before.
    Settle {
        /// Its name.
        name: RecordName,
        /// Sealed.
        record: Bytes,
    },
    /// The purges of all replicas → [`FleetReply::Purges`].
    Purges,
    /// Replaces them → [`FleetReply::Kept`], or [`FleetReply::Conflict`] where their number is
    /// not `was` any more.
    Purge {
        /// Their number when they were read; 0: there were none.
        was: u64,
        /// Their number from now on.
        number: u64,
        /// Sealed.
        record: Bytes,
    },
    /// The answer of this name, and when the vendor gave it → [`FleetReply::Answer`].
    Look {
        /// Its name.
        name: RecordName,
    },
    /// Who fetches an answer → [`FleetReply::Answer`] where one is kept that is newer than
    /// `have`, [`FleetReply::Failed`] while a failure is shared, [`FleetReply::Wait`] while another
    /// replica fetches it, else [`FleetReply::Lead`].
    Board {
        /// Its name.
        name: RecordName,
        /// By which the right to fetch is known.
        claim: ClaimId,
        /// How long it lasts.
        lease: Duration,
        /// When the vendor gave the answer that is known already.
        have: Option<Stamp>,
    },
    /// Keeps an answer and ends the claim → [`FleetReply::Kept`]; [`FleetReply::Conflict`] for a
    /// soft failure where a good answer is kept, and for an answer older than the one kept.
    Land {
        /// Its name.
        name: RecordName,
        /// Ended, if it holds still.
        claim: ClaimId,
        /// Sealed.
        record: Bytes,
        /// A soft failure.
        negative: bool,
        /// When the vendor gave it.
        born: Stamp,
    },
    /// Ends the claim on an answer whose fetch failed, and shares the failure for a moment →
    /// [`FleetReply::Kept`]; [`FleetReply::Conflict`] where the claim is not held any more.
    Fail {
        /// The answer's name.
        name: RecordName,
        /// Ended.
        claim: ClaimId,
        /// The failure, sealed.
        record: Bytes,
        /// How long it is shared.
        hold: Duration,
    },
    /// Ends the claim on an answer that was not fetched → [`FleetReply::Kept`].
    GiveUp {
        /// The answer's name.
        name: RecordName,
        /// Ended, if it holds still.
        claim: ClaimId,
    },
    /// A replica is there → [`FleetReply::Beat`].
    Beat {
        /// By which it is known.
        replica: [u8; 16],
        /// The number of the purges that it follows.
        applied: u64,
    },
}

impl FleetOp {
    /// Returns its word in metrics.
    pub fn operation(&self) -> StoreOperation {
        match self {
            Self::Settle { .. } => StoreOperation::Settle,
            Self::Purges => StoreOperation::Purges,
            Self::Purge { .. } => StoreOperation::Purge,
            Self::Look { .. } => StoreOperation::Find,
            Self::Board { .. } => StoreOperation::Board,
            Self::Land { .. } => StoreOperation::Land,
            Self::Fail { .. } => StoreOperation::Fail,
            Self::GiveUp { .. } => StoreOperation::GiveUp,
            Self::Beat { .. } => StoreOperation::Beat,
        }
    }

    /// Returns the sealed bytes in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Settle { record, .. }
            | Self::Purge { record, .. }
            | Self::Land { record, .. }
            | Self::Fail { record, .. } => record.len(),
            _ => 0,
        }
    }
}

/// The reply to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetReply {
    /// It is as was asked.
    Kept,
    /// Something else stands there.
    Conflict,
    /// What is kept.
    Value(Bytes),
    /// The purges of all replicas.
    Purges {
        /// 0 where there are none.
        number: u64,
        /// Sealed.
        record: Option<Bytes>,
    },
    /// An answer, and when the vendor gave it.
    Answer(Option<(Bytes, Stamp)>),
    /// The fetch failed a moment ago: the failure, sealed.
    Failed(Bytes),
    /// Another replica does it, and its lease lasts so long.
    Wait(Duration),
    /// It is for this replica to do.
    Lead,
    /// Where the fleet stands.
    Beat {
        /// The number of the purges.
        number: u64,
        /// Replicas that are there.
        replicas: u32,
        /// Those of them that follow the purges.
        applied: u32,
    },
}

/// A reply to come.
pub type FleetFuture<'a> = EngineFuture<'a, FleetReply>;

/// An engine that several replicas share.
pub trait Fleet: Send + Sync {
    /// Runs one operation. As with [`Engine::call`](super::Engine::call), dropping the future
    /// changes nothing.
    ///
    /// # Errors
    /// When there is no reply. A change may have been made all the same.
    fn ask(&self, op: FleetOp) -> FleetFuture<'_>;
}
