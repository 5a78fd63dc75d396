//! Decides which of the gateways (*replicas*) that share a store fetches an answer, and what the
//! others get instead.
//!
//! ```text
//! board ─▶ Found   another replica fetched it: use it
//!          Failed  another replica's fetch failed a moment ago
//!          Wait    another replica fetches it: board again soon
//!          Lead    fetch it, renew the claim meanwhile, then land, fail or leave
//!          Alone   the store does not answer in time: fetch it, as without a store
//! ```
//!
//! The claim of a replica that dies runs out after [`FETCH_LEASE`], and the next replica that
//! boards leads.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::engine::StoreFault;
use super::fleet::{ClaimId, FleetOp, FleetReply};
use super::handle::{KeptAnswer, Store, StoreInner, answer_name, outcome_of};
use super::record::{RecordKind, RecordName, RecordPlace};
use crate::clock::{Duration, Instant, Stamp};
use crate::domain::Kind;
use crate::metrics::{StoreLookup, StoreOutcome};

/// How long a claim on a fetch lasts unless it is renewed. A replica that dies delays the others by
/// this time at most.
pub const FETCH_LEASE: Duration = Duration::from_secs(3);
/// How long a failed fetch is shared. It equals the time for which one gateway shares a failure
/// among its own callers.
const FAILURE_HOLD: Duration = Duration::from_millis(400);

/// The result of boarding.
#[derive(Debug)]
pub enum Boarded {
    /// A newer answer that another replica fetched.
    Found(KeptAnswer),
    /// A newer record with this time of birth is stored, but cannot be opened.
    Useless(Stamp),
    /// The fetch of another replica failed a moment ago, with this failure.
    Failed(Bytes),
    /// Another replica fetches the answer. Its claim lasts this long unless it is renewed.
    Wait(Duration),
    /// This replica has to fetch it.
    Lead,
    /// The store gave no reply in time.
    Alone,
}

impl Store {
    /// Asks which replica fetches the answer of this identity. An answer that is newer than `have`
    /// is returned instead. Waits until `since` and the store's own time limit have passed.
    pub async fn board_answer(
        &self,
        kind: Kind,
        identity: &[u8; 32],
        claim: ClaimId,
        have: Option<Stamp>,
        since: Instant,
    ) -> Boarded {
        let Some(inner) = self.inner.as_ref().filter(|inner| inner.is_shared()) else {
            return Boarded::Alone;
        };
        let until = since + inner.engine.wait_max();
        let boarded = inner.board(identity, claim, have, until).await;
        let boarded = boarded.unwrap_or(Boarded::Alone);
        match &boarded {
            Boarded::Found(_) => inner.metrics.lookup(kind, StoreLookup::Found),
            Boarded::Useless(_) => inner.metrics.lookup(kind, StoreLookup::Rejected),
            Boarded::Failed(_) | Boarded::Wait(_) | Boarded::Lead | Boarded::Alone => {}
        }
        boarded
    }

    /// Stores the answer that was fetched under `claim`, and ends the claim. Does not wait.
    pub fn land_answer(&self, identity: &[u8; 32], answer: KeptAnswer, claim: ClaimId) {
        let Some(inner) = self.inner.clone() else {
            return;
        };
        let identity = *identity;
        tokio::spawn(async move { inner.keep_answer(&identity, answer, claim).await });
    }

    /// Extends the claim to [`FETCH_LEASE`] from now. Does not wait.
    pub fn renew_fetch(&self, identity: &[u8; 32], claim: ClaimId) {
        self.tell_of_answer(identity, |inner, name| {
            let have = Some(inner.clock.stamp());
            Some(FleetOp::Board {
                name,
                claim,
                lease: FETCH_LEASE,
                have,
            })
        });
    }

    /// Ends the claim on an answer, and shares the failure of its fetch for a moment. Does not
    /// wait.
    pub fn fail_answer(&self, identity: &[u8; 32], claim: ClaimId, failure: &[u8]) {
        self.tell_of_answer(identity, |inner, name| {
            Some(FleetOp::Fail {
                name,
                claim,
                record: inner.records.seal(failure_place(name), failure)?,
                hold: FAILURE_HOLD,
            })
        });
    }

    /// Ends the claim on an answer, so that another replica may fetch it. Does not wait.
    pub fn leave_answer(&self, identity: &[u8; 32], claim: ClaimId) {
        self.tell_of_answer(identity, |_, name| Some(FleetOp::GiveUp { name, claim }));
    }

    fn tell_of_answer(
        &self,
        identity: &[u8; 32],
        op: impl FnOnce(&StoreInner, RecordName) -> Option<FleetOp>,
    ) {
        let Some(inner) = self.inner.as_ref() else {
            return;
        };
        // Without names there is no claim.
        let name = inner.known_names().map(|n| answer_name(&n.0, identity));
        if let Some(op) = name.and_then(|name| op(inner, name)) {
            inner.tell_fleet(op);
        }
    }
}

impl StoreInner {
    async fn board(
        self: &Arc<Self>,
        identity: &[u8; 32],
        claim: ClaimId,
        have: Option<Stamp>,
        until: Instant,
    ) -> Result<Boarded, StoreFault> {
        let names = self.names(until).await.ok_or(StoreFault::Away)?;
        let name = answer_name(&names.0, identity);
        let board = FleetOp::Board {
            name,
            claim,
            lease: FETCH_LEASE,
            have,
        };
        Ok(match self.ask(board, until).await? {
            FleetReply::Answer(Some((record, born))) => {
                let opened = self.open_answer(name, identity, record, Some(born)).await;
                match opened {
                    Ok(answer) => Boarded::Found(answer),
                    Err(why) => {
                        self.metrics.reject(why);
                        Boarded::Useless(born)
                    }
                }
            }
            FleetReply::Failed(record) => {
                let opened = self.records.open(failure_place(name), &record);
                match opened {
                    Ok(failure) => Boarded::Failed(failure),
                    Err(why) => {
                        self.metrics.reject(why);
                        Boarded::Alone
                    }
                }
            }
            FleetReply::Wait(left) => Boarded::Wait(left),
            FleetReply::Lead => Boarded::Lead,
            _ => Boarded::Alone,
        })
    }

    /// Runs an operation of a fleet whose reply is not needed.
    pub(super) fn tell_fleet(&self, op: FleetOp) {
        let Some(fleet) = self.engine.fleet() else {
            return;
        };
        let operation = op.operation();
        let outcome = match fleet.ask(op).now_or_never() {
            Some(Ok(_)) | None => StoreOutcome::Ok,
            Some(Err(fault)) => outcome_of(fault),
        };
        self.metrics.request(operation, outcome, 0.0);
    }
}

/// Returns the place of a failure, which differs from the place of the answer of the same name.
fn failure_place(name: RecordName) -> RecordPlace {
    RecordPlace {
        kind: RecordKind::Answer,
        name,
        number: 1,
    }
}
