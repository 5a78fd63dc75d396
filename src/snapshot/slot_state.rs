//! The slots in use and the searches that wait, and who gets the next one. No time passes here and
//! nothing is awaited.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::forecast::RecentSlots;
use super::slot_fleet::SlotCount;
use super::slots::{SlotLimits, SlotUsage};
use crate::admission::{Lane, Spend};
use crate::clock::{Duration, Instant};
use crate::domain::Shortage;
use crate::store::fleet::ClaimId;

/// Id of a waiting search, and then of its slot.
pub(super) type SlotId = u64;

/// A payer may hold at most this many times the number of free slots. A single payer gets seven of
/// eight slots, two payers seven of fifteen each. So the reserve shrinks with the number of payers,
/// and no payer finds every slot taken because another came first. With fewer than eight slots,
/// none is reserved.
pub(super) const TIMES_FREE: usize = 7;

/// One in this many slots is reserved for searches that a caller waits for, because a background
/// search can hold its slot while it waits long for the vendor's budget. With fewer than eight
/// slots, none is reserved.
const KEPT_PART: usize = 4;

pub(super) struct SlotState {
    pub limits: SlotLimits,
    pub running: HashMap<SlotId, Running>,
    /// Scrolls that may be open although no walk reads them, in the order in which they expire.
    pub left: VecDeque<LeftScroll>,
    /// How many of `left` are excused.
    pub excused: usize,
    /// The slots of each payer. A payer without any has no entry.
    pub held: HashMap<Arc<str>, HeldSlots>,
    /// The waiting searches in the order of arrival.
    pub waiting: BTreeMap<SlotId, Waiting>,
    pub next_id: SlotId,
    /// Number of times that a scroll became idle, which gives their order.
    pub idled: u64,
    /// When a probe last got a slot beyond the limits.
    pub probed: Option<Instant>,
    pub recent: RecentSlots,
    pub count: SlotCount,
}

/// The slots of one payer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldSlots {
    /// Running walks.
    pub running: usize,
    /// Scrolls abandoned at the vendor, without the excused ones.
    left: usize,
}

impl HeldSlots {
    /// Returns the number of scrolls that may be open.
    pub fn standing(self) -> usize {
        self.running + self.left
    }
}

pub(super) struct Running {
    pub payer: Arc<str>,
    /// Identifies the scroll among those of all gateways.
    pub claim: ClaimId,
    /// Whether the store granted it, so that all gateways count it.
    pub granted_by_store: bool,
    /// How long the scroll counts after its last page.
    pub linger: Duration,
    /// Number of vendor pages read of the scroll. While it is 0, the search may still wait for the
    /// vendor's budget.
    pub pages: usize,
    /// Whether the vendor answered the search, so that a scroll is open.
    pub opened: bool,
    /// When the scroll became idle, because no reader wants its rows.
    pub idle: Option<u64>,
    /// Whether it is being read to its end because searches wait.
    pub draining: bool,
}

/// A scroll that no walk reads any more.
pub(super) struct LeftScroll {
    pub expiry: Instant,
    pub payer: Arc<str>,
    /// Identifies the scroll among those of all gateways.
    pub claim: ClaimId,
    pub why: Left,
}

impl LeftScroll {
    /// Returns whether it stops counting against `payer` when it expires.
    pub fn counts_for(&self, payer: &Arc<str>) -> bool {
        self.why != Left::Excused && self.payer == *payer
    }

    /// Returns whether it counts against `vendor_scrolls_max`.
    pub fn counts(&self) -> bool {
        self.why != Left::Excused
    }
}

/// The state of an abandoned scroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It is open at the vendor.
    Open,
    /// Its search got no answer.
    Unanswered,
    /// Its search got no answer, and the vendor has answered another search since.
    Excused,
}

pub(super) struct Waiting {
    pub spend: Spend,
    /// Deadline for a slot while no slot becomes free.
    pub deadline: Instant,
    /// How long the scroll counts after its last page.
    pub linger: Duration,
    pub notify: Arc<Notify>,
}

impl Waiting {
    pub fn payer(&self) -> &Arc<str> {
        self.spend.payer.name()
    }
}

impl SlotState {
    /// Creates slots of which none is in use.
    pub fn new(limits: SlotLimits) -> Self {
        Self {
            limits,
            running: HashMap::new(),
            left: VecDeque::new(),
            excused: 0,
            held: HashMap::new(),
            waiting: BTreeMap::new(),
            next_id: 0,
            idled: 0,
            probed: None,
            recent: RecentSlots::default(),
            count: SlotCount::default(),
        }
    }

    pub fn usage(&self) -> SlotUsage {
        SlotUsage {
            running: self.running.len(),
            standing: self.running.len() + self.left.len() + self.others(),
            waiting: self.waiting.len(),
        }
    }

    /// Returns the number of scrolls that count against `vendor_scrolls_max`.
    pub fn counted(&self) -> usize {
        self.running.len() + self.left.len().saturating_sub(self.excused)
    }

    /// Returns how many walks may begin before `open_scrolls_max` is reached.
    pub fn free_running(&self) -> usize {
        self.limits.running.saturating_sub(self.running.len())
    }

    /// Returns how many scrolls may be opened before `vendor_scrolls_max` is reached.
    pub fn free_standing(&self) -> usize {
        self.standing_max()
            .saturating_sub(self.counted() + self.others())
    }

    pub fn held(&self, payer: &str) -> HeldSlots {
        self.held.get(payer).copied().unwrap_or_default()
    }

    pub fn change_held(&mut self, payer: &Arc<str>, change: impl FnOnce(&mut HeldSlots)) {
        let held = self.held.entry(Arc::clone(payer)).or_default();
        change(held);
        if *held == HeldSlots::default() {
            self.held.remove(payer);
        }
    }

    /// Records that a scroll is open at the vendor although no walk reads it.
    pub fn leave(&mut self, left: LeftScroll) {
        self.change_held(&left.payer, |held| held.left += 1);
        // Settings may change the time, so keep the order.
        let at = self
            .left
            .partition_point(|other| other.expiry <= left.expiry);
        self.left.insert(at, left);
    }

    pub fn expire(&mut self, now: Instant) {
        while self.left.front().is_some_and(|left| left.expiry <= now) {
            let Some(left) = self.left.pop_front() else {
                break;
            };
            match left.why {
                Left::Excused => self.excused = self.excused.saturating_sub(1),
                Left::Open | Left::Unanswered => {
                    self.change_held(&left.payer, |held| held.left = held.left.saturating_sub(1));
                }
            }
        }
    }

    /// Records that the vendor answered a search. So it has room for another scroll, in spite of
    /// all searches that it left without an answer.
    /// Returns the scrolls that are not counted any more.
    pub fn excuse(&mut self) -> Vec<(ClaimId, Arc<str>)> {
        let mut excused = Vec::new();
        for left in &mut self.left {
            if left.why == Left::Unanswered {
                left.why = Left::Excused;
                excused.push((left.claim, Arc::clone(&left.payer)));
            }
        }
        self.excused += excused.len();
        for (_, payer) in &excused {
            self.change_held(payer, |held| held.left = held.left.saturating_sub(1));
        }
        excused
    }

    /// Returns whether searches without an answer leave no room at the vendor.
    pub fn is_full_of_unanswered(&self) -> bool {
        self.free_standing() == 0 && self.left.iter().any(|left| left.why == Left::Unanswered)
    }

    /// Gives free slots to waiting searches.
    pub fn give(&mut self, now: Instant) {
        self.expire(now);
        while let Some(id) = self.next_up() {
            self.grant(id, now);
        }
    }

    /// Returns whether slots are short only because the searches that have one wait for the vendor,
    /// or for the pages that end a scroll.
    pub fn moves(&self) -> bool {
        let waits = |running: &Running| running.pages == 0 || running.draining;
        self.running.values().any(waits)
    }

    /// Returns how many of `max` slots stay free for more urgent searches. This lane takes one only
    /// if more are free.
    pub fn kept_from(lane: Lane, max: usize) -> usize {
        match lane {
            Lane::Interactive | Lane::Healing => 0,
            _ if max < 8 => 0,
            _ => max / KEPT_PART,
        }
    }

    /// Returns why a search of this payer and lane gets no slot, or `None` if it may have one, or
    /// may ask the store for one.
    pub fn short(&self, payer: &str, lane: Lane) -> Option<Shortage> {
        let held = self.held(payer);
        let may = |free: usize, held: usize, max: usize| {
            free > Self::kept_from(lane, max) && held < free.saturating_mul(TIMES_FREE)
        };
        if !may(self.free_running(), held.running, self.limits.running) {
            Some(Shortage::OpenScrolls)
        } else if self.is_shared() {
            // The store decides, and knows what the payer holds at other gateways.
            None
        } else if !may(self.free_standing(), held.standing(), self.standing_max()) {
            Some(Shortage::VendorScrolls)
        } else {
            None
        }
    }

    /// Returns why a waiting search gets no slot. `None` if it does not wait.
    pub fn short_for(&self, id: SlotId) -> Option<Shortage> {
        let waiting = self.waiting.get(&id)?;
        let short = self.short(waiting.payer(), waiting.spend.lane);
        Some(short.unwrap_or(match self.is_shared() {
            true => Shortage::VendorScrolls,
            false => Shortage::OpenScrolls,
        }))
    }

    /// Returns the search that gets a slot now. Searches of payers that hold their share are passed
    /// over. The most urgent search goes first, then the one whose payer holds the fewest slots,
    /// then the one that arrived first.
    pub fn next_up(&self) -> Option<SlotId> {
        if self.is_shared() || self.free_running() == 0 || self.free_standing() == 0 {
            return None;
        }
        self.first_of(|_| true)
    }

    /// Returns the search whose turn it is among those that `may` have one.
    pub fn first_of(&self, may: impl Fn(&Waiting) -> bool) -> Option<SlotId> {
        self.waiting
            .iter()
            .filter(|(_, waiting)| self.short(waiting.payer(), waiting.spend.lane).is_none())
            .filter(|(_, waiting)| may(waiting))
            .map(|(id, waiting)| {
                let held = self.held(waiting.payer()).standing();
                (waiting.spend.lane, held, *id)
            })
            .min()
            .map(|(_, _, id)| id)
    }

    pub fn grant(&mut self, id: SlotId, now: Instant) {
        self.enter(id, now, ClaimId::random(), false);
    }

    /// Gives a waiting search the slot that the store granted.
    pub fn grant_claimed(&mut self, id: SlotId, now: Instant, claim: ClaimId) {
        self.enter(id, now, claim, true);
    }

    fn enter(&mut self, id: SlotId, now: Instant, claim: ClaimId, granted_by_store: bool) {
        let Some(waiting) = self.waiting.remove(&id) else {
            return;
        };
        let payer = Arc::clone(waiting.payer());
        self.change_held(&payer, |held| held.running += 1);
        self.recent.give(id, &payer, now);
        self.running.insert(
            id,
            Running {
                payer,
                claim,
                granted_by_store,
                linger: waiting.linger,
                pages: 0,
                opened: false,
                idle: None,
                draining: false,
            },
        );
        waiting.notify.notify_one();
    }

    /// Removes a waiting search to make room for one of `payer`: the newest search of the payer
    /// with the most gives way to a payer with fewer. `None` if that would be `payer` itself.
    pub fn displace_for(&mut self, payer: &Arc<str>) -> Option<()> {
        let mut of: HashMap<&Arc<str>, (usize, SlotId)> = HashMap::new();
        for (id, waiting) in &self.waiting {
            let (count, newest) = of.entry(waiting.payer()).or_default();
            *count += 1;
            *newest = *id;
        }
        let own = of.get(payer).map_or(0, |(count, _)| *count);
        let (count, newest) = of.into_values().max()?;
        if count <= own {
            return None;
        }
        let displaced = self.waiting.remove(&newest)?;
        displaced.notify.notify_one();
        Some(())
    }

    /// Returns whether the idle scroll `id` must be read to its end now, and in which lane. As many
    /// scrolls are as there are waiting searches: first those that are already being drained, then
    /// the longest idle ones of the payer with the most. The first of them goes before the others,
    /// because one slot soon is better than all of them late.
    pub fn drain_lane(&mut self, id: SlotId) -> Option<Lane> {
        let place = |state: &Self, id: SlotId, running: &Running| {
            let idle = running.idle?;
            let held = Reverse(state.held(&running.payer).standing());
            Some((!running.draining, held, idle, id))
        };
        let own = place(self, id, self.running.get(&id)?)?;
        let before = self
            .running
            .iter()
            .filter_map(|(id, running)| place(self, *id, running))
            .filter(|other| *other < own)
            .count();
        // Each gateway reads one scroll at a time to its end for searches that wait elsewhere.
        let drains = before < self.waiting.len() + self.waiting_elsewhere().min(1);
        if let Some(running) = self.running.get_mut(&id) {
            running.draining = drains;
        }
        match (drains, before) {
            (false, _) => None,
            (true, 0) => Some(Lane::Refresh),
            (true, _) => Some(Lane::Export),
        }
    }
}
