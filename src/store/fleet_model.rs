//! A shared engine in memory. It is the reference for the operations of a fleet; tests compare
//! Valkey with it.

use std::collections::BTreeMap;
use std::future::ready;

use bytes::Bytes;
use parking_lot::Mutex;

use super::bell::{Ring, RingHook};
use super::engine::{
    Engine, EngineState, KeptStanding, StoreFault, StoreFuture, StoreOp, StoreReply,
};
use super::fleet::{
    ClaimId, Fleet, FleetFuture, FleetOp, FleetReply, LineWant, REPLICA_GONE, SAME_AGE,
};
use super::model::Model;
use super::purse::SharedPurse;
use super::record::RecordName;
use super::scrolls::SharedScrolls;
use super::usage::SharedUse;
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

/// A line's claim, and what readers want of it. Times are milliseconds of the engine's time.
#[derive(Clone, Debug, Default)]
struct SharedLine {
    claim: Option<LineLease>,
    /// The claim that was released last.
    last: Option<ClaimId>,
    want: LineWant,
    want_until: u64,
    turn_until: u64,
}

#[derive(Clone, Copy, Debug)]
struct LineLease {
    claim: ClaimId,
    until: u64,
    len: u64,
}

impl SharedLine {
    /// Returns for how many milliseconds the claim of another gateway still lasts.
    fn left(&self, but: Option<ClaimId>, now: u64) -> u64 {
        let claim = self.claim.filter(|held| Some(held.claim) != but);
        claim.map_or(0, |held| held.until.saturating_sub(now).min(held.len))
    }

    fn hold(&mut self, claim: ClaimId, len: u64, now: u64) {
        let until = now + len;
        self.claim = Some(LineLease { claim, until, len });
    }

    fn is_held_by(&self, claim: ClaimId) -> bool {
        self.claim.is_some_and(|held| held.claim == claim)
    }

    fn wants(&self, now: u64) -> LineWant {
        let left = self.want_until.saturating_sub(now);
        let turn = self.turn_until > now;
        match left {
            0 => LineWant {
                turn,
                ..LineWant::default()
            },
            left => LineWant {
                left: Duration::from_millis(left),
                turn,
                ..self.want
            },
        }
    }

    /// Merges a want. Returns whether more is wanted than before.
    fn merge(&mut self, want: &LineWant, now: u64) -> bool {
        let until = now + ms(want.left);
        if until == now {
            return false;
        }
        let was = self.wants(now);
        if want.rows > 0 {
            let before = self.wants(now);
            let others = before.rows > 0;
            self.want = LineWant {
                rows: want.rows.max(before.rows),
                furthest: want.furthest.max(before.furthest),
                lane: if others {
                    want.lane.min(before.lane)
                } else {
                    want.lane
                },
                ..LineWant::default()
            };
            self.want_until = until.max(if others { self.want_until } else { 0 });
        }
        if want.turn {
            self.turn_until = until;
        }
        let is = self.wants(now);
        let of = |want: &LineWant| (want.rows, want.furthest, want.lane, want.turn);
        of(&was) != of(&is)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The shared state of a fleet. Pure.
#[derive(Clone, Debug, Default)]
struct Agreed {
    purges: (u64, Option<Bytes>),
    lines: BTreeMap<RecordName, SharedLine>,
    answers: BTreeMap<RecordName, SharedAnswer>,
    replicas: BTreeMap<[u8; 16], (Stamp, u64)>,
    purses: BTreeMap<RecordName, SharedPurse>,
    used: SharedUse,
    scrolls: BTreeMap<RecordName, SharedScrolls>,
}

/// An engine in memory, which answers at once and is never away.
pub struct SharedModel {
    model: Model,
    agreed: Mutex<Agreed>,
    hooks: Mutex<Vec<RingHook>>,
    clock: Clock,
}

/// The engine's time in milliseconds.
fn engine_ms(now: &Stamp) -> i64 {
    i64::try_from(now.since_boot_ms()).unwrap_or(i64::MAX / 4)
}

/// Returns whether `one` is newer than `other` by more than rounding.
fn is_newer(one: &Stamp, other: &Stamp, now: &Stamp) -> bool {
    let age = |stamp: &Stamp| stamp.age(now).unwrap_or(Duration::ZERO);
    age(one) + SAME_AGE < age(other)
}

impl Agreed {
    /// Returns the ring that an operation causes. Call it before the operation.
    fn ring_of(&self, op: &FleetOp, now: Stamp) -> Option<Ring> {
        let (ring, rings) = match op {
            FleetOp::Release { line, claim } => {
                let held = self.lines.get(line);
                (Ring::Line(*line), held?.is_held_by(*claim))
            }
            FleetOp::Want { line, want } => {
                let mut state = self.lines.get(line).cloned().unwrap_or_default();
                (Ring::Want(*line), state.merge(want, now.since_boot_ms()))
            }
            // Even a refused answer ends the claim.
            FleetOp::Land { name, .. } => (Ring::Answer(*name), true),
            FleetOp::Fail { name, claim, .. } | FleetOp::GiveUp { name, claim } => {
                let lease = self.answers.get(name)?.lease;
                (Ring::Answer(*name), lease?.claim == *claim)
            }
            FleetOp::Purge { was, .. } => (Ring::Purges, *was == self.purges.0),
            _ => return None,
        };
        rings.then_some(ring)
    }

    fn judge(&mut self, op: FleetOp, now: Stamp) -> FleetReply {
        let at = now.since_boot_ms();
        match op {
            FleetOp::Claim { line, claim, lease } => {
                let line = self.lines.entry(line).or_default();
                match line.left(Some(claim), at) {
                    0 => {
                        line.hold(claim, ms(lease), at);
                        FleetReply::Lead
                    }
                    left => FleetReply::Wait(Duration::from_millis(left)),
                }
            }
            FleetOp::Renew { line, claim, lease } => {
                let line = self.lines.entry(line).or_default();
                let holder = line.claim.map(|held| held.claim).or(line.last);
                if holder.is_some_and(|holder| holder != claim) {
                    return FleetReply::Deposed;
                }
                line.hold(claim, ms(lease), at);
                FleetReply::Renewed(line.wants(at))
            }
            FleetOp::Release { line, claim } => {
                if let Some(line) = self.lines.get_mut(&line)
                    && line.is_held_by(claim)
                {
                    line.claim = None;
                    line.last = Some(claim);
                }
                FleetReply::Kept
            }
            FleetOp::Want { line, want } => {
                let line = self.lines.entry(line).or_default();
                line.merge(&want, at);
                FleetReply::Line {
                    // The model knows it.
                    current: None,
                    left: Duration::from_millis(line.left(None, at)),
                }
            }
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
            FleetOp::Take {
                account,
                call,
                wish,
            } => {
                let purse = self.purses.entry(account).or_default();
                FleetReply::Purse(purse.take(engine_ms(&now), call, &wish))
            }
            FleetOp::KeepCall {
                account,
                call,
                place_len,
            } => {
                if let Some(purse) = self.purses.get_mut(&account) {
                    purse.keep(engine_ms(&now), call, place_len);
                }
                FleetReply::Kept
            }
            FleetOp::EndCall {
                account,
                call,
                back_us,
            } => {
                if let Some(purse) = self.purses.get_mut(&account) {
                    purse.end(call, back_us);
                }
                FleetReply::Kept
            }
            FleetOp::Word { account, word } => {
                let purse = self.purses.entry(account).or_default();
                purse.hear(engine_ms(&now), &word);
                FleetReply::Kept
            }
            FleetOp::Use { replica, batch } => FleetReply::Used(self.used.add(at, replica, &batch)),
            FleetOp::Slot {
                account,
                slot,
                wish,
            } => {
                let scrolls = self.scrolls.entry(account).or_default();
                FleetReply::Slot(scrolls.take(engine_ms(&now), &slot, &wish))
            }
            FleetOp::SlotUsed {
                account,
                slot,
                left,
            } => {
                let scrolls = self.scrolls.entry(account).or_default();
                scrolls.note(engine_ms(&now), &slot, left);
                FleetReply::Kept
            }
            FleetOp::SlotEnded { account, slot } => {
                self.scrolls.entry(account).or_default().end(&slot);
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
            hooks: Mutex::default(),
            clock,
        }
    }

    /// Rings the bell of all gateways that share the engine, also without a change in the engine.
    pub fn ring(&self, ring: Ring) {
        self.hooks.lock().iter().for_each(|hook| hook(ring));
    }

    /// Replaces everything with the content of another engine, as if an empty server or an older
    /// copy took the place of the previous one.
    pub fn become_copy_of(&self, other: &Self) {
        let agreed = other.agreed.lock().clone();
        *self.agreed.lock() = agreed;
        self.model.become_copy_of(&other.model);
    }

    /// Returns the stored sealed bytes of snapshots.
    pub fn bytes(&self) -> u64 {
        self.model.bytes()
    }

    /// Runs one operation of a fleet.
    pub fn agree(&self, op: FleetOp) -> FleetReply {
        self.agree_at(op, self.clock.stamp())
    }

    /// Runs one operation of a fleet at a given engine time.
    pub fn agree_at(&self, op: FleetOp, now: Stamp) -> FleetReply {
        let mut agreed = self.agreed.lock();
        let ring = agreed.ring_of(&op, now);
        let reply = self.agree_in(&mut agreed, op, now);
        drop(agreed);
        if let Some(ring) = ring {
            self.ring(ring);
        }
        reply
    }

    fn agree_in(&self, agreed: &mut Agreed, op: FleetOp, now: Stamp) -> FleetReply {
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
        let looked = match op {
            FleetOp::Want { line, .. } => Some(line),
            _ => None,
        };
        match (agreed.judge(op, now), looked) {
            (FleetReply::Line { left, .. }, Some(line)) => {
                let current = match self.model.apply(&StoreOp::Line { line }) {
                    Ok(StoreReply::Current(current)) => current,
                    Ok(_) | Err(_) => None,
                };
                FleetReply::Line { current, left }
            }
            (reply, _) => reply,
        }
    }

    /// Runs one operation of a store.
    ///
    /// # Errors
    /// As [`Model::apply`].
    pub fn apply(&self, op: &StoreOp) -> Result<StoreReply, StoreFault> {
        self.apply_at(op, self.clock.stamp())
    }

    /// Does the same at a moment of the engine's time.
    ///
    /// # Errors
    /// As [`Model::apply`].
    pub fn apply_at(&self, op: &StoreOp, now: Stamp) -> Result<StoreReply, StoreFault> {
        let mut agreed = self.agreed.lock();
        if let Some(fence) = op.fence() {
            let line = agreed.lines.entry(fence.line).or_default();
            if !line.is_held_by(fence.claim) {
                return Ok(StoreReply::Deposed);
            }
            // The claim holds, whatever comes of the operation.
            line.hold(fence.claim, ms(fence.lease), now.since_boot_ms());
        }
        let snapshot = match op {
            StoreOp::Begin { snapshot, .. }
            | StoreOp::Append { snapshot, .. }
            | StoreOp::Renewed { snapshot, .. }
            | StoreOp::End { snapshot, .. } => Some(*snapshot),
            _ => None,
        };
        let standing = || self.standing(snapshot?);
        let before = standing();
        let reply = self.model.apply(op);
        let after = standing();
        drop(agreed);
        if let Some(after) = after {
            let of = |standing: &KeptStanding| (standing.chunks, standing.end);
            let is_same = before.is_some_and(|before| of(&before) == of(&after));
            match op {
                StoreOp::Renewed { .. } => self.ring(Ring::Head(after.line)),
                _ if is_same => {}
                StoreOp::Append { number: 0, .. } | StoreOp::End { .. } => {
                    self.ring(Ring::Head(after.line));
                }
                _ => self.ring(Ring::Line(after.line)),
            }
        }
        reply
    }

    fn standing(&self, snapshot: RecordName) -> Option<KeptStanding> {
        match self.model.apply(&StoreOp::Head { snapshot }) {
            Ok(StoreReply::Head(Some((standing, _)))) => Some(standing),
            Ok(_) | Err(_) => None,
        }
    }
}

impl Clone for SharedModel {
    /// Copies everything. The copy is independent.
    fn clone(&self) -> Self {
        Self {
            model: self.model.clone(),
            agreed: Mutex::new(self.agreed.lock().clone()),
            hooks: Mutex::default(),
            clock: self.clock.clone(),
        }
    }
}

impl Fleet for SharedModel {
    fn on_ring(&self, hook: RingHook) {
        self.hooks.lock().push(hook);
    }

    fn ask(&self, op: FleetOp) -> FleetFuture<'_> {
        Box::pin(ready(Ok(self.agree(op))))
    }
}

impl Engine for SharedModel {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        Box::pin(ready(self.apply(&op)))
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
