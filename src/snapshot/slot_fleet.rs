//! The slots of a vendor account that all gateways over one store share.
//!
//! The queue, the lanes and the number of running walks stay in each gateway. The search whose turn
//! it is asks the store for one slot, and the others wait:
//!
//! ```text
//! first in the queue ─▶ the store ─▶ granted: the walk runs; each page renews the slot
//!                          │ ▲
//!                          ▼ │ SLOT_LOOK later
//!                       refused: another payer's search may ask meanwhile, if slots are free
//! ```
//!
//! While the store is away, this gateway counts its own scrolls and uses one part in N of the
//! slots. When the store is back, or has lost what it knew, each gateway writes its scrolls again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::slot_lease::Waiter;
use super::slot_state::{Running, SlotId, SlotState, Waiting};
use super::slots::Slots;
use crate::admission::Lane;
use crate::clock::{Duration, Instant};
use crate::store::fleet::ClaimId;
use crate::store::scrolls::SLOT_WAIT;
use crate::store::{SlotReply, SlotWish, StoreHealth};

/// How long before a gateway asks again for a slot that it was refused. A refused payer counts as
/// waiting for twice as long.
const SLOT_LOOK: Duration = Duration::from_millis(SLOT_WAIT.as_millis() as u64 / 2);
/// The same time, if the reply did not come.
const LATE_LOOK: Duration = Duration::from_millis(50);
/// Number of missing replies in a row after which the gateway counts alone, as for budgets.
const LATE_MAX: u32 = 3;

/// Maximum number of ended scrolls that are remembered while the store is away. The store counts
/// the others until they expire.
const ENDED_MAX: usize = 1_024;

/// Where the scrolls at the vendor are counted.
#[derive(Default)]
pub(super) enum SlotCount {
    /// In this gateway, because no other one uses its store.
    #[default]
    Own,
    /// In the store, for all gateways over it.
    Fleet(FleetSlots),
    /// In this gateway, because the store is away.
    Alone {
        /// The slots are divided among this many gateways.
        of: usize,
        /// Beats of the fleet when the store went away.
        beats: u64,
        /// Scrolls that have ended since. The store still counts them.
        ended: Vec<(ClaimId, Arc<str>)>,
    },
}

/// What a gateway knows about the slots of all gateways.
#[derive(Default)]
pub(super) struct FleetSlots {
    /// Scrolls of other gateways, as last heard.
    others: usize,
    /// Payers that wait at other gateways, as last heard.
    waiting: usize,
    /// Whether a search asks the store now.
    asking: bool,
    /// Set if all slots were taken: when a search may ask the store again.
    full_until: Option<Instant>,
    /// Payers that hold their share, by whether for background work: when they may ask again.
    refused: HashMap<(Arc<str>, bool), Instant>,
    late: u32,
}

fn is_background(lane: Lane) -> bool {
    !lane.is_interactive()
}

impl SlotState {
    /// Returns whether the store grants slots.
    pub fn is_shared(&self) -> bool {
        matches!(self.count, SlotCount::Fleet(_))
    }

    /// Returns how many scrolls of other gateways may be open, as last heard.
    pub fn others(&self) -> usize {
        match &self.count {
            SlotCount::Fleet(fleet) => fleet.others,
            SlotCount::Own | SlotCount::Alone { .. } => 0,
        }
    }

    /// Returns how many payers wait at other gateways, as last heard.
    pub fn waiting_elsewhere(&self) -> usize {
        match &self.count {
            SlotCount::Fleet(fleet) => fleet.waiting,
            SlotCount::Own | SlotCount::Alone { .. } => 0,
        }
    }

    /// Returns how many scrolls may be open at the vendor, by what this gateway knows.
    pub fn standing_max(&self) -> usize {
        match self.count {
            SlotCount::Own | SlotCount::Fleet(_) => self.limits.standing,
            SlotCount::Alone { of, .. } => (self.limits.standing / of.max(1)).max(1),
        }
    }

    /// Returns the waiting search that should ask the store now.
    pub fn asks(&self, now: Instant) -> Option<SlotId> {
        let SlotCount::Fleet(fleet) = &self.count else {
            return None;
        };
        let is_full = fleet.full_until.is_some_and(|until| now < until);
        if fleet.asking || is_full || self.free_running() == 0 {
            return None;
        }
        let refused = |waiting: &Waiting| {
            if fleet.refused.is_empty() {
                return false;
            }
            let who = (
                Arc::clone(waiting.payer()),
                is_background(waiting.spend.lane),
            );
            fleet.refused.get(&who).is_some_and(|until| now < *until)
        };
        self.first_of(|waiting| !refused(waiting))
    }

    /// Lets searches ask the store again at once, because something has changed.
    pub fn ask_again(&mut self) {
        if let SlotCount::Fleet(fleet) = &mut self.count {
            fleet.full_until = None;
            fleet.refused.clear();
        }
    }

    /// Records how the slots of all gateways stand. `granted` is counted there and not yet here.
    fn heard(&mut self, reply: &SlotReply, now: Instant) {
        let own = self.counted() + usize::from(reply.granted);
        let here = self.waiting.values();
        let here = here.map(|one| (one.payer(), is_background(one.spend.lane)));
        let here = here.collect::<HashSet<_>>().len();
        let SlotCount::Fleet(fleet) = &mut self.count else {
            return;
        };
        fleet.late = 0;
        fleet.others = (reply.standing as usize).saturating_sub(own);
        fleet.refused.retain(|_, until| now < *until);
        fleet.waiting = (reply.waiting as usize).saturating_sub(here);
    }

    /// Records that a payer got no slot, or no payer did. Returns when to ask again.
    fn refuse(
        &mut self,
        payer: &Arc<str>,
        background: bool,
        is_full: bool,
        now: Instant,
    ) -> Instant {
        let until = now + SLOT_LOOK;
        if let SlotCount::Fleet(fleet) = &mut self.count {
            match is_full {
                true => fleet.full_until = Some(until),
                false => {
                    let who = (Arc::clone(payer), background);
                    fleet.refused.insert(who, until);
                }
            }
        }
        until
    }

    /// Returns whether a search asks the store now.
    pub fn is_asking(&self) -> bool {
        matches!(&self.count, SlotCount::Fleet(fleet) if fleet.asking)
    }

    fn set_asking(&mut self, asking: bool) {
        if let SlotCount::Fleet(fleet) = &mut self.count {
            fleet.asking = asking;
        }
    }
}

/// A question to the store. If it is dropped before the reply came, the slot is given back.
struct SlotQuestion<'a> {
    slots: &'a Slots,
    claim: ClaimId,
    payer: Arc<str>,
    /// Whether the reply is still to come.
    open: bool,
    /// Whether the store may have granted a slot that nobody took.
    owed: bool,
}

impl Drop for SlotQuestion<'_> {
    fn drop(&mut self) {
        if self.open {
            let mut state = self.slots.state.lock();
            state.set_asking(false);
            self.slots.settle(&mut state);
        }
        if self.owed {
            let slots = self.slots;
            slots
                .store
                .end_slot(&slots.account, self.claim, &self.payer);
        }
    }
}

impl Slots {
    /// Lets a waiting search ask the store, if it is its turn. Returns whether it did, and when it
    /// may ask again if it was refused.
    pub(super) async fn ask_store(&self, waiter: &Waiter) -> Option<Option<Instant>> {
        let (mut question, wish, lane) = {
            let mut state = self.state.lock();
            if state.asks(self.clock.now()) != Some(waiter.id) {
                return None;
            }
            let lane = state.waiting.get(&waiter.id)?.spend.lane;
            let payer = Arc::clone(state.waiting.get(&waiter.id)?.payer());
            state.set_asking(true);
            let max = state.limits.standing;
            let small = |count| u32::try_from(count).unwrap_or(u32::MAX);
            let wish = SlotWish {
                max: small(max),
                kept: small(SlotState::kept_from(lane, max)),
                background: is_background(lane),
                expiry: waiter.linger,
            };
            let question = SlotQuestion {
                slots: self,
                claim: ClaimId::random(),
                payer,
                open: true,
                owed: true,
            };
            (question, wish, lane)
        };
        let asked = self
            .store
            .take_slot(&self.account, question.claim, &question.payer, wish);
        let reply = asked.await;
        let mut state = self.state.lock();
        let now = self.clock.now();
        state.set_asking(false);
        question.open = false;
        let look_at = match reply {
            Ok(reply) => {
                let waits = state.waiting.contains_key(&waiter.id);
                state.heard(&reply, now);
                question.owed = reply.granted && !waits;
                if reply.granted {
                    state.grant_claimed(waiter.id, now, question.claim);
                    None
                } else {
                    let is_full = reply.standing >= wish.max;
                    Some(state.refuse(&question.payer, is_background(lane), is_full, now))
                }
            }
            Err(_) => self.missed(&mut state, now),
        };
        self.settle(&mut state);
        drop(state);
        Some(look_at)
    }

    /// Records a reply that did not come. Returns when to ask again, unless the gateway counts
    /// alone from now on.
    fn missed(&self, state: &mut SlotState, now: Instant) -> Option<Instant> {
        let SlotCount::Fleet(fleet) = &mut state.count else {
            return None;
        };
        fleet.late += 1;
        if fleet.late < LATE_MAX && self.store.health() != StoreHealth::Away {
            let until = now + LATE_LOOK;
            fleet.full_until = Some(until);
            return Some(until);
        }
        let view = self.store.fleet_view();
        let of = usize::try_from(view.replicas).unwrap_or(usize::MAX);
        tracing::info!(
            of,
            "scrolls are counted by this gateway alone, with its part of the slots"
        );
        state.count = SlotCount::Alone {
            of,
            beats: view.beats,
            ended: Vec::new(),
        };
        None
    }

    /// Lets the store grant slots again, if it has answered since this gateway went on alone.
    pub(super) fn come_back(&self, state: &mut SlotState) {
        if let SlotCount::Alone { beats, .. } = &state.count
            && self.store.fleet_view().beats > *beats
        {
            self.share_again(state);
        }
    }

    /// Writes the scrolls of this gateway into a store that may have lost them.
    pub(super) fn returned(&self) {
        let mut state = self.state.lock();
        match state.count {
            SlotCount::Own => return,
            SlotCount::Alone { .. } => self.share_again(&mut state),
            SlotCount::Fleet(_) => self.write_scrolls(&state),
        }
        self.settle(&mut state);
    }

    fn share_again(&self, state: &mut SlotState) {
        let shared = SlotCount::Fleet(FleetSlots::default());
        if let SlotCount::Alone { ended, .. } = std::mem::replace(&mut state.count, shared) {
            for (claim, payer) in ended {
                self.store.end_slot(&self.account, claim, &payer);
            }
        }
        self.write_scrolls(state);
    }

    fn write_scrolls(&self, state: &SlotState) {
        let now = self.clock.now();
        for running in state.running.values() {
            self.note_scroll(state, running);
        }
        for left in state.left.iter().filter(|left| left.counts()) {
            let rest = left.expiry.saturating_duration_since(now);
            self.store
                .note_slot(&self.account, left.claim, &left.payer, rest);
        }
    }

    /// Tells the other gateways that a scroll may be open until it expires from now on.
    pub(super) fn note_scroll(&self, state: &SlotState, running: &Running) {
        if state.is_shared() {
            let (claim, payer) = (running.claim, &running.payer);
            self.store
                .note_slot(&self.account, claim, payer, running.linger);
        }
    }

    /// Tells the other gateways that a scroll is open no more.
    pub(super) fn end_scroll(&self, state: &mut SlotState, claim: ClaimId, payer: &Arc<str>) {
        match &mut state.count {
            SlotCount::Own => {}
            SlotCount::Fleet(_) => self.store.end_slot(&self.account, claim, payer),
            SlotCount::Alone { ended, .. } if ended.len() < ENDED_MAX => {
                ended.push((claim, Arc::clone(payer)));
            }
            SlotCount::Alone { .. } => {}
        }
    }

    /// Looks how many scrolls all gateways have, and whether searches wait at another one. Call it
    /// every few seconds.
    pub(super) fn look(self: &Arc<Self>, linger: Duration) {
        if !self.state.lock().is_shared() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let wish = SlotWish {
                max: 0,
                kept: 0,
                background: true,
                expiry: linger,
            };
            let claim = ClaimId::random();
            let reply = this.store.take_slot(&this.account, claim, "", wish).await;
            if let Ok(reply) = reply {
                let mut state = this.state.lock();
                state.heard(&reply, this.clock.now());
                this.settle(&mut state);
            }
        });
    }
}
