//! The operations of an engine that several gateways (*replicas*) share.
//!
//! A **claim** is the right of one gateway to walk a search. The snapshots of one search are a
//! *line*. A claim lasts for a lease and is renewed. While it holds, the engine refuses changes of
//! that line by every other gateway; see [`Fence`](super::engine::Fence).
//!
//! An engine of one gateway, such as a file, has no such operations. A shared engine executes each
//! operation atomically. Only the engine's clock counts: an operation sends and returns ages, so
//! that the clocks of two machines are never compared.

use bytes::Bytes;

use super::bell::RingHook;
use super::engine::EngineFuture;
use super::purse::{PurseReply, PurseTake, PurseWord};
use super::record::RecordName;
use super::scrolls::{SlotOf, SlotReply, SlotWish};
use super::usage::{CallerUse, UseBatch};
use crate::clock::{Duration, Stamp};
use crate::metrics::StoreOperation;

/// Two ages of one answer that differ by less are equal, because each pass through the engine
/// rounds to whole milliseconds.
pub const SAME_AGE: Duration = Duration::from_millis(50);
/// A replica that has been silent for this long is no longer counted.
pub const REPLICA_GONE: Duration = Duration::from_secs(2);

/// Identifies the holder of a claim while its lease lasts. It is random, so that a repeated request
/// is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimId(pub [u8; 16]);

impl ClaimId {
    /// Creates a random id.
    pub fn random() -> Self {
        Self(fastrand::u128(..).to_le_bytes())
    }
}

/// Longest lease of a claim on a line.
pub const LEASE: Duration = Duration::from_secs(6);

/// Rows of a line that readers of other gateways wait for. Wants of several gateways are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineWant {
    /// The number of rows that are wanted. 0: none.
    pub rows: u32,
    /// The furthest row that a reader has read.
    pub furthest: u32,
    /// The urgency of the readers; 0 is most urgent.
    pub lane: u8,
    /// How long the readers wait.
    pub left: Duration,
    /// Whether a walk of another gateway waits for the end of this one.
    pub turn: bool,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum FleetOp {
    /// Claims a line → [`FleetReply::Lead`], also if this claim holds it already;
    /// [`FleetReply::Wait`] while another claim lasts.
    Claim {
        /// The line of a search.
        line: RecordName,
        /// The id of the claim.
        claim: ClaimId,
        /// How long the claim lasts.
        lease: Duration,
    },
    /// Renews a claim → [`FleetReply::Renewed`]. An expired claim can be renewed until another
    /// gateway claims the line; after that → [`FleetReply::Deposed`].
    Renew {
        /// The line.
        line: RecordName,
        /// The claim.
        claim: ClaimId,
        /// How long the claim lasts from now on.
        lease: Duration,
    },
    /// Ends a claim, if it holds → [`FleetReply::Kept`].
    Release {
        /// The line.
        line: RecordName,
        /// The claim.
        claim: ClaimId,
    },
    /// Reports the rows that readers want, if any, and reads the state of the line
    /// → [`FleetReply::Line`].
    Want {
        /// The line.
        line: RecordName,
        /// The rows. If `left` is zero, nothing is wanted.
        want: LineWant,
    },
    /// Stores a record under a name, unless there is one → [`FleetReply::Value`] with the stored
    /// record, which may be another replica's.
    Settle {
        /// Its name.
        name: RecordName,
        /// Sealed.
        record: Bytes,
    },
    /// Reads the purges of all replicas → [`FleetReply::Purges`].
    Purges,
    /// Replaces the purges → [`FleetReply::Kept`], or [`FleetReply::Conflict`] if their number is
    /// no longer `was`.
    Purge {
        /// Their number when they were read; 0 if there were none.
        was: u64,
        /// Their number from now on.
        number: u64,
        /// Sealed.
        record: Bytes,
    },
    /// Reads the answer of this name and when the vendor gave it → [`FleetReply::Answer`].
    Look {
        /// Its name.
        name: RecordName,
    },
    /// Decides which replica fetches an answer → [`FleetReply::Answer`] if the stored answer is
    /// newer than `have`, [`FleetReply::Wait`] while another replica fetches it, otherwise
    /// [`FleetReply::Lead`].
    Board {
        /// Its name.
        name: RecordName,
        /// The id of the claim.
        claim: ClaimId,
        /// How long the claim lasts.
        lease: Duration,
        /// When the vendor gave the answer that this replica already has.
        have: Option<Stamp>,
    },
    /// Stores an answer and ends the claim → [`FleetReply::Kept`]; [`FleetReply::Conflict`] for a
    /// soft failure if a good answer is stored, and for an answer older than the stored one.
    Land {
        /// Its name.
        name: RecordName,
        /// The claim to end, if it is still held.
        claim: ClaimId,
        /// Sealed.
        record: Bytes,
        /// Whether it is a soft failure.
        negative: bool,
        /// When the vendor gave it.
        born: Stamp,
    },
    /// Ends the claim on an answer whose fetch failed, and shares the failure for a moment →
    /// [`FleetReply::Kept`]; [`FleetReply::Conflict`] where the claim is not held any more.
    Fail {
        /// The answer's name.
        name: RecordName,
        /// The claim that ends.
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
        /// The claim to end, if it is still held.
        claim: ClaimId,
    },
    /// Takes one call from the purse of an account → [`FleetReply::Purse`].
    Take {
        /// The name of the account.
        account: RecordName,
        /// The id of the call.
        call: ClaimId,
        /// The request.
        wish: PurseTake,
    },
    /// Keeps the place of a call in progress → [`FleetReply::Kept`], also for an unknown call.
    KeepCall {
        /// The name of the account.
        account: RecordName,
        /// The id of the call.
        call: ClaimId,
        /// Time from now after which the place expires.
        place_len: Duration,
    },
    /// Ends a call → [`FleetReply::Kept`], also for an unknown call.
    EndCall {
        /// The name of the account.
        account: RecordName,
        /// The id of the call.
        call: ClaimId,
        /// Credit that is given back, in microseconds.
        back_us: u64,
    },
    /// Shares news about an account's limits → [`FleetReply::Kept`].
    Word {
        /// The name of the account.
        account: RecordName,
        /// The news.
        word: PurseWord,
    },
    /// Adds requests of callers to the sums of the fleet → [`FleetReply::Used`].
    Use {
        /// The id of the replica.
        replica: [u8; 16],
        /// The callers and their requests.
        batch: UseBatch,
    },
    /// Requests a slot of an account → [`FleetReply::Slot`].
    Slot {
        /// The name of the account.
        account: RecordName,
        /// The scroll that is to be opened.
        slot: SlotOf,
        /// The request.
        wish: SlotWish,
    },
    /// Extends the time that a scroll may be open → [`FleetReply::Kept`], also for an unknown
    /// scroll.
    SlotUsed {
        /// The name of the account.
        account: RecordName,
        /// The scroll.
        slot: SlotOf,
        /// The time until it expires.
        left: Duration,
    },
    /// Ends a scroll → [`FleetReply::Kept`], also for an unknown scroll.
    SlotEnded {
        /// The name of the account.
        account: RecordName,
        /// The scroll.
        slot: SlotOf,
    },
    /// Reports a running replica → [`FleetReply::Beat`].
    Beat {
        /// The id of the replica.
        replica: [u8; 16],
        /// The number of the purges that it has applied.
        applied: u64,
    },
}

impl FleetOp {
    /// Returns the operation's word in metrics.
    pub fn operation(&self) -> StoreOperation {
        match self {
            Self::Claim { .. } => StoreOperation::Claim,
            Self::Renew { .. } => StoreOperation::Renew,
            Self::Release { .. } => StoreOperation::Release,
            Self::Want { .. } => StoreOperation::Want,
            Self::Settle { .. } => StoreOperation::Settle,
            Self::Purges => StoreOperation::Purges,
            Self::Purge { .. } => StoreOperation::Purge,
            Self::Look { .. } => StoreOperation::Find,
            Self::Board { .. } => StoreOperation::Board,
            Self::Land { .. } => StoreOperation::Land,
            Self::Fail { .. } => StoreOperation::Fail,
            Self::GiveUp { .. } => StoreOperation::GiveUp,
            Self::Take { .. } => StoreOperation::Take,
            Self::KeepCall { .. } => StoreOperation::KeepCall,
            Self::EndCall { .. } => StoreOperation::EndCall,
            Self::Word { .. } => StoreOperation::Word,
            Self::Use { .. } => StoreOperation::Use,
            Self::Slot { .. } => StoreOperation::Slot,
            Self::SlotUsed { .. } => StoreOperation::SlotUsed,
            Self::SlotEnded { .. } => StoreOperation::SlotEnded,
            Self::Beat { .. } => StoreOperation::Beat,
        }
    }

    /// Returns the sealed bytes in the operation.
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
    /// The operation succeeded.
    Kept,
    /// Another record is at that place.
    Conflict,
    /// The stored record.
    Value(Bytes),
    /// The purges of all replicas.
    Purges {
        /// The number of the purges; 0 if there are none.
        number: u64,
        /// Sealed.
        record: Option<Bytes>,
    },
    /// An answer, and when the vendor gave it.
    Answer(Option<(Bytes, Stamp)>),
    /// The fetch failed a moment ago: the failure, sealed.
    Failed(Bytes),
    /// Another replica holds the claim. Its lease lasts this long.
    Wait(Duration),
    /// This replica holds the claim now.
    Lead,
    /// The claim holds. The rows are those that readers of other replicas want.
    Renewed(LineWant),
    /// Another replica has claimed the line since.
    Deposed,
    /// The state of a line.
    Line {
        /// Its current snapshot.
        current: Option<RecordName>,
        /// The rest of the claim on it. Zero: it is not claimed.
        left: Duration,
    },
    /// The reply of a purse.
    Purse(PurseReply),
    /// The sums of the callers of a batch, in its order.
    Used(Vec<CallerUse>),
    /// The reply to the request for a slot.
    Slot(SlotReply),
    /// The state of the fleet.
    Beat {
        /// The number of the purges.
        number: u64,
        /// Running replicas.
        replicas: u32,
        /// Running replicas that have applied the purges.
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
    /// If there is no reply. The change may have been made all the same.
    fn ask(&self, op: FleetOp) -> FleetFuture<'_>;

    /// Calls the hook when something has changed in the engine, also by this replica. Rings may be
    /// lost, late or forged.
    fn on_ring(&self, hook: RingHook);

    /// How long a claim on a line lasts without being renewed.
    fn lease(&self) -> Duration {
        LEASE
    }
}
