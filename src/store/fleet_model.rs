//! A shared engine in memory. It is the reference for the operations of a fleet; tests compare
//! Valkey with it.

use std::collections::BTreeMap;
use std::future::ready;

use bytes::Bytes;
use parking_lot::Mutex;

use super::engine::{Engine, EngineState, StoreFault, StoreFuture, StoreOp, StoreReply};
use super::fleet::{ClaimId, Fleet, FleetFuture, FleetOp, FleetReply, REPLICA_GONE, SAME_AGE};
use super::model::Model;
use super::record::RecordName;
use crate::clock::{Clock, Duration, Stamp};

/// A claim and the time at which it ends.
#[derive(Clone, Copy, Debug)]
struct Lease {
    claim: ClaimId,
    until: Stamp,
}

#[derive(Clone, Debug, Default)]
struct SharedAnswer {
    kept: Option<(Bytes, Stamp, bool)>,
    lease: Option<Lease>,
    /// A failure, and until when it is shared.
    failed: Option<(Bytes, Stamp)>,
}

/// The shared state of a fleet. Pure.
#[derive(Debug, Default)]
struct Agreed {
    purges: (u64, Option<Bytes>),
    answers: BTreeMap<RecordName, SharedAnswer>,
    replicas: BTreeMap<[u8; 16], (Stamp, u64)>,
}

/// An engine in memory, which answers at once and is never away.
#[derive(Debug)]
pub struct SharedModel {
    model: Model,
    agreed: Mutex<Agreed>,
    clock: Clock,
}

/// Returns whether `one` is newer than `other` by more than rounding.
fn is_newer(one: &Stamp, other: &Stamp, now: &Stamp) -> bool {
    let age = |stamp: &Stamp| stamp.age(now).unwrap_or(Duration::ZERO);
    age(one) + SAME_AGE < age(other)
}

impl Agreed {
    fn judge(&mut self, op: FleetOp, now: Stamp) -> FleetReply {
        match op {
            // The record is among the notes of the model.
            FleetOp::Settle { record, .. } => FleetReply::Value(record),
            FleetOp::Purges => FleetReply::Purges {
                number: self.purges.0,
                record: self.purges.1.clone(),
            },
            FleetOp::Purge { was, .. } if was != self.purges.0 => FleetReply::Conflict,
            FleetOp::Purge { number, record, .. } => {
                self.purges = (number, Some(record));
                FleetReply::Kept
            }
            FleetOp::Look { name } => {
                let kept = self.answers.get(&name).and_then(|it| it.kept.clone());
                FleetReply::Answer(kept.map(|(record, born, _)| (record, born)))
            }
            FleetOp::Board {
                name,
                claim,
                lease,
                have,
            } => {
                let answer = self.answers.entry(name).or_default();
                if let Some((record, born, _)) = &answer.kept
                    && have.is_none_or(|have| is_newer(born, &have, &now))
                {
                    return FleetReply::Answer(Some((record.clone(), *born)));
                }
                if let Some((record, until)) = &answer.failed
                    && now.age(until).is_some_and(|left| !left.is_zero())
                {
                    return FleetReply::Failed(record.clone());
                }
                let others = answer.lease.filter(|lease| lease.claim != claim);
                let left = others.and_then(|other| now.age(&other.until));
                if let Some(left) = left.filter(|left| !left.is_zero()) {
                    return FleetReply::Wait(left);
                }
                let until = now.later(lease);
                answer.lease = Some(Lease { claim, until });
                answer.failed = None;
                FleetReply::Lead
            }
            FleetOp::Land {
                name,
                claim,
                record,
                negative,
                born,
            } => {
                let answer = self.answers.entry(name).or_default();
                answer.lease = answer.lease.filter(|lease| lease.claim != claim);
                let refused = answer
                    .kept
                    .as_ref()
                    .is_some_and(|(_, before, was_negative)| {
                        (negative && !was_negative) || is_newer(before, &born, &now)
                    });
                if refused {
                    return FleetReply::Conflict;
                }
                answer.kept = Some((record, born, negative));
                answer.failed = None;
                FleetReply::Kept
            }
            FleetOp::Fail {
                name,
                claim,
                record,
                hold,
            } => {
                let answer = self.answers.entry(name).or_default();
                if answer.lease.is_none_or(|lease| lease.claim != claim) {
                    return FleetReply::Conflict;
                }
                answer.lease = None;
                answer.failed = Some((record, now.later(hold)));
                FleetReply::Kept
            }
            FleetOp::GiveUp { name, claim } => {
                if let Some(answer) = self.answers.get_mut(&name) {
                    answer.lease = answer.lease.filter(|lease| lease.claim != claim);
                }
                FleetReply::Kept
            }
            FleetOp::Beat { replica, applied } => {
                self.replicas.insert(replica, (now, applied));
                self.replicas
                    .retain(|_, (beat, _)| beat.age(&now).is_some_and(|age| age <= REPLICA_GONE));
                let number = self.purges.0;
                let follow = self.replicas.values().filter(|(_, has)| *has >= number);
                FleetReply::Beat {
                    number,
                    replicas: u32::try_from(self.replicas.len()).unwrap_or(u32::MAX),
                    applied: u32::try_from(follow.count()).unwrap_or(u32::MAX),
                }
            }
        }
    }
}

impl SharedModel {
    /// Keeps up to `bytes_max` sealed bytes of snapshots. `clock` is the engine's time.
    pub fn new(bytes_max: u64, clock: Clock) -> Self {
        Self {
            model: Model::new(bytes_max),
            agreed: Mutex::default(),
            clock,
        }
    }

    /// Runs one operation of a fleet.
    pub fn agree(&self, op: FleetOp) -> FleetReply {
        self.agree_at(op, self.clock.stamp())
    }

    /// Runs one operation of a fleet at a given engine time.
    pub(super) fn agree_at(&self, op: FleetOp, now: Stamp) -> FleetReply {
        let mut agreed = self.agreed.lock();
        if let FleetOp::Settle { name, record } = &op {
            let (name, record) = (*name, record.clone());
            if let Ok(StoreReply::Value(Some(kept))) = self.model.apply(&StoreOp::Recall { name }) {
                return FleetReply::Value(kept);
            }
            let safe = true;
            let note = StoreOp::Note { name, record, safe };
            // A model is never away, and notes have no bound.
            let _ = self.model.apply(&note);
        }
        agreed.judge(op, now)
    }

    /// Runs one operation of a store.
    ///
    /// # Errors
    /// As [`Model::apply`].
    pub fn apply(&self, op: &StoreOp) -> Result<StoreReply, StoreFault> {
        self.model.apply(op)
    }
}

impl Fleet for SharedModel {
    fn ask(&self, op: FleetOp) -> FleetFuture<'_> {
        Box::pin(ready(Ok(self.agree(op))))
    }
}

impl Engine for SharedModel {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        Box::pin(ready(self.model.apply(&op)))
    }

    fn state(&self) -> EngineState {
        EngineState::Ok
    }

    fn resets(&self) -> u64 {
        0
    }

    fn close(&self, _limit: Duration) {}

    fn fleet(&self) -> Option<&dyn Fleet> {
        Some(self)
    }
}
