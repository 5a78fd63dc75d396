//! How many scrolls may be open at the vendor, and who opens the next one.
//!
//! A slot is taken before a search and given back when its scroll has ended. A scroll that was left
//! or lost stays open at the vendor until it expires there, so its slot lingers as long.
//!
//! Slots are shared between payers. A payer may hold a multiple of what is free, so that one with a
//! hundred searches leaves room for another's first; and a slot that frees up goes to whoever holds
//! fewest. While searches wait, as many idle scrolls are read to their end, those of the payer with
//! most first: that is the only way to free a slot at the vendor.
//!
//! A search that gets its slot, or the vendor's budget after it, too late is refused at once: it would hold
//! a place among the requests in flight for nothing. See `forecast`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::forecast::Lately;
use crate::admission::{Governor, Lane, Spend};
use crate::clock::{Clock, Duration, Instant, timeout_at};
use crate::metrics::Metrics;

/// Searches that may wait for a slot at once. Beyond it the payer with most of them gives way, or
/// the newcomer is refused.
const WAITING_MAX: usize = 4_096;
/// How many times the free slots one payer may hold. Alone it gets seven of eight slots, two get
/// seven of fifteen each: the more there are, the smaller the reserve, and nobody finds none left
/// because one came first. Fewer than eight slots have no reserve.
pub(super) const TIMES_FREE: usize = 7;

/// Part of the slots that only searches which a caller waits for may have: others may hold theirs while
/// they wait long for the vendor's budget. Fewer than eight slots have no such part.
const KEPT_PART: usize = 4;

/// Who has no slot so shortly before its callers leave is told so while they listen: there is no time for
/// an answer.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Names one who waits, and then the slot it got.
pub(super) type SlotId = u64;

/// The slots of one vendor credential.
pub struct Slots {
    state: Mutex<State>,
    /// Rings when an idle scroll may have to be read to its end.
    pub pressed: Notify,
    /// Whose budget searches wait for once they have a slot.
    budget: Option<Arc<Governor>>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
pub(super) struct State {
    pub max: usize,
    pub running: HashMap<SlotId, Running>,
    /// When each left scroll expires at the vendor, in order, and whose it was.
    pub lingering: VecDeque<(Instant, Arc<str>)>,
    /// Slots of each payer, lingering ones among them; none without any.
    held: HashMap<Arc<str>, usize>,
    /// In the order of their coming.
    pub waiting: BTreeMap<SlotId, Waiting>,
    next_id: SlotId,
    /// Counts how often scrolls became idle, to know their order.
    idled: u64,
    pub lately: Lately,
}

pub(super) struct Running {
    payer: Arc<str>,
    /// Vendor pages read of it. None: it may wait for the vendor's budget still.
    pub pages: usize,
    /// Since when nobody wants rows of its scroll.
    idle: Option<u64>,
    /// Being read to its end because searches wait.
    draining: bool,
}

pub(super) struct Waiting {
    pub spend: Spend,
    /// For a slot, while nothing moves.
    pub deadline: Instant,
    notify: Arc<Notify>,
}

impl Waiting {
    pub fn payer(&self) -> &Arc<str> {
        self.spend.payer.name()
    }
}

/// A slot in use. Dropped without a word it lingers, because the scroll's fate is unknown.
pub struct Slot {
    slots: Arc<Slots>,
    id: SlotId,
    linger: Duration,
    ended: bool,
}

/// Why there is no slot, and when one may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// The vendor's budget grows back after the deadline of whoever waits.
    Budget(Duration),
    /// Every scroll that may be open is. `None`: nothing tells when one ends.
    Scrolls(Option<Duration>),
}

impl Slots {
    /// `max` slots. Without a budget nobody is refused for lack of it.
    pub fn new(
        max: usize,
        budget: Option<Arc<Governor>>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        metrics
            .open_scrolls_max
            .set(i64::try_from(max).unwrap_or(i64::MAX));
        Arc::new(Self {
            state: Mutex::new(State {
                max,
                ..State::default()
            }),
            pressed: Notify::new(),
            budget,
            clock,
            metrics,
        })
    }

    /// Changes the number of slots; those in use stay.
    pub fn resize(&self, max: usize) {
        let mut state = self.state.lock();
        state.max = max;
        self.metrics
            .open_scrolls_max
            .set(i64::try_from(max).unwrap_or(i64::MAX));
        self.settle(&mut state);
    }

    /// Whether half of the slots are in use: then it is worth a few calls to end a scroll properly.
    pub fn is_half_used(&self) -> bool {
        let mut state = self.state.lock();
        state.expire(self.clock.now());
        state.used() * 2 >= state.max
    }

    /// (slots in use or lingering, searches waiting).
    pub fn usage(&self) -> (usize, usize) {
        let mut state = self.state.lock();
        self.settle(&mut state);
        (state.used(), state.waiting.len())
    }

    /// Takes a slot on a payer's account, waiting until `deadline` at most; as long as it is wanted
    /// where slots are short only because searches that have one wait for the vendor. The slot lingers
    /// for `linger` where its scroll is left open.
    ///
    /// # Errors
    /// Refused at once where a slot, or the budget for its search, surely comes too late, and where too
    /// many wait.
    pub async fn take(
        self: &Arc<Self>,
        spend: &Spend,
        linger: Duration,
        mut deadline: Instant,
    ) -> Result<Slot, NoSlot> {
        let waiter = self.ask(spend, linger, deadline)?;
        loop {
            let until = {
                let mut state = self.state.lock();
                self.settle(&mut state);
                if state.running.contains_key(&waiter.id) {
                    drop(state);
                    return Ok(waiter.into_slot());
                }
                // Another's search was more modest.
                if !state.waiting.contains_key(&waiter.id) {
                    return Err(NoSlot::Scrolls(None));
                }
                let now = self.clock.now();
                if now >= deadline {
                    let last = spend.wanted_until.checked_sub(LAST_MOMENT).unwrap_or(now);
                    if !state.moves() || now >= last {
                        return Err(NoSlot::Scrolls(state.next_expiry(now, waiter.id)));
                    }
                    deadline = last;
                }
                let expiry = state.lingering.front().map(|(expiry, _)| *expiry);
                expiry.map_or(deadline, |expiry| expiry.min(deadline))
            };
            // Woken or timed out: look again either way.
            let _ = timeout_at(until, waiter.notify.notified()).await;
        }
    }

    fn ask(
        self: &Arc<Self>,
        spend: &Spend,
        linger: Duration,
        deadline: Instant,
    ) -> Result<Waiter, NoSlot> {
        let notify = Arc::new(Notify::new());
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.insert(
            id,
            Waiting {
                spend: spend.clone(),
                deadline,
                notify: Arc::clone(&notify),
            },
        );
        state.give(self.clock.now());
        if state.waiting.contains_key(&id) {
            let mut refused = state.too_late(id, self.budget.as_deref(), self.clock.now());
            if refused.is_none() && state.waiting.len() > WAITING_MAX {
                let room = state.displace_for(spend.payer.name());
                refused = room.is_none().then_some(NoSlot::Scrolls(None));
            }
            if let Some(why) = refused {
                state.waiting.remove(&id);
                return Err(why);
            }
        }
        self.settle(&mut state);
        Ok(Waiter {
            slots: Arc::clone(self),
            id,
            linger,
            notify,
            claimed: false,
        })
    }

    /// After any change: gives what is free to those who wait, and has idle scrolls look whether they
    /// must end.
    fn settle(&self, state: &mut State) {
        state.give(self.clock.now());
        if state.waiting.is_empty() {
            state.lately.calm();
        } else {
            self.pressed.notify_waiters();
        }
        let open = i64::try_from(state.used()).unwrap_or(i64::MAX);
        self.metrics.open_scrolls.set(open);
    }
}

impl State {
    pub fn used(&self) -> usize {
        self.running.len() + self.lingering.len()
    }

    pub fn held(&self, payer: &str) -> usize {
        self.held.get(payer).copied().unwrap_or(0)
    }

    fn give_back(&mut self, payer: &Arc<str>) {
        if let Some(held) = self.held.get_mut(payer) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(payer);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((expiry, _)) = self.lingering.front()
            && *expiry <= now
        {
            if let Some((_, payer)) = self.lingering.pop_front() {
                self.give_back(&payer);
            }
        }
    }

    /// Gives what is free to those who wait.
    fn give(&mut self, now: Instant) {
        self.expire(now);
        while let Some(id) = self.next_up() {
            self.grant(id, now);
        }
    }

    /// Whether slots are short only because searches that have one wait for the vendor, or the pages
    /// that end a scroll do.
    fn moves(&self) -> bool {
        let waits = |running: &Running| running.pages == 0 || running.draining;
        self.running.values().any(waits)
    }

    /// Free slots above which this lane may take one.
    pub fn kept_from(&self, lane: Lane) -> usize {
        match lane {
            Lane::Interactive => 0,
            _ if self.max < 8 => 0,
            _ => self.max / KEPT_PART,
        }
    }

    /// Who gets a slot now: the most urgent of those whose payer has not got its share, of whoever
    /// holds fewest, in the order of their coming.
    fn next_up(&self) -> Option<SlotId> {
        let free = self.max.saturating_sub(self.used());
        if free == 0 {
            return None;
        }
        let may = free.saturating_mul(TIMES_FREE);
        self.waiting
            .iter()
            .filter(|(_, waiting)| free > self.kept_from(waiting.spend.lane))
            .map(|(id, waiting)| (waiting.spend.lane, self.held(waiting.payer()), *id))
            .filter(|(_, held, _)| *held < may)
            .min()
            .map(|(_, _, id)| id)
    }

    fn grant(&mut self, id: SlotId, now: Instant) {
        let Some(waiting) = self.waiting.remove(&id) else {
            return;
        };
        let payer = Arc::clone(waiting.payer());
        *self.held.entry(Arc::clone(&payer)).or_default() += 1;
        self.lately.give(id, &payer, now);
        self.running.insert(
            id,
            Running {
                payer,
                pages: 0,
                idle: None,
                draining: false,
            },
        );
        waiting.notify.notify_one();
    }

    /// Makes room among those who wait, the newcomer of `payer` among them: the newest of the payer with
    /// most gives way to one with fewer. `None` where that is the newcomer's own.
    fn displace_for(&mut self, payer: &Arc<str>) -> Option<()> {
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

    /// Whether the idle scroll of `id` is to be read to its end now, and how urgently: as many are as
    /// searches wait, those that are at it first, then the longest idle of the payer with most. The
    /// first of them goes before the others, for one slot soon is better than all of them late.
    fn drain_lane(&mut self, id: SlotId) -> Option<Lane> {
        let place = |state: &Self, id: SlotId, running: &Running| {
            let idle = running.idle?;
            let held = Reverse(state.held(&running.payer));
            Some((!running.draining, held, idle, id))
        };
        let own = place(self, id, self.running.get(&id)?)?;
        let before = self
            .running
            .iter()
            .filter_map(|(id, running)| place(self, *id, running))
            .filter(|other| *other < own)
            .count();
        let drains = before < self.waiting.len();
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

/// A place among those who wait, given up when dropped.
struct Waiter {
    slots: Arc<Slots>,
    id: SlotId,
    linger: Duration,
    notify: Arc<Notify>,
    claimed: bool,
}

impl Waiter {
    /// The turn has come.
    fn into_slot(mut self) -> Slot {
        self.claimed = true;
        Slot {
            slots: Arc::clone(&self.slots),
            id: self.id,
            linger: self.linger,
            ended: false,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.claimed {
            return;
        }
        let mut state = self.slots.state.lock();
        if state.waiting.remove(&self.id).is_some() {
            return;
        }
        // Its turn came, but it was gone: no scroll was begun.
        if let Some(running) = state.running.remove(&self.id) {
            state.give_back(&running.payer);
            self.slots.settle(&mut state);
        }
    }
}

impl Slot {
    /// A vendor page was answered; with the first a scroll is open.
    pub fn page(&self) {
        let mut state = self.slots.state.lock();
        if let Some(running) = state.running.get_mut(&self.id) {
            running.pages += 1;
            let (pages, now) = (running.pages, self.slots.clock.now());
            state.lately.read(self.id, pages, false, now);
        }
    }

    /// The scroll has ended at the vendor, or never began.
    pub fn end(mut self) {
        self.ended = true;
    }

    /// Rows of the scroll are wanted.
    pub fn busy(&self) {
        let mut state = self.slots.state.lock();
        let Some(running) = state.running.get_mut(&self.id) else {
            return;
        };
        running.draining = false;
        if running.idle.take().is_some() && !state.waiting.is_empty() {
            // Another scroll must end in its place.
            self.slots.pressed.notify_waiters();
        }
    }

    /// Nobody wants rows of the scroll. Says whether it is to be read to its end because searches
    /// wait for slots, and in which lane; to be asked again when [`Slots::pressed`] rings.
    pub fn idle(&self) -> Option<Lane> {
        let mut state = self.slots.state.lock();
        state.idled += 1;
        let idled = state.idled;
        let running = state.running.get_mut(&self.id)?;
        running.idle.get_or_insert(idled);
        state.drain_lane(self.id)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        let Some(running) = state.running.remove(&self.id) else {
            return;
        };
        if self.ended {
            state.give_back(&running.payer);
            let now = self.slots.clock.now();
            state.lately.read(self.id, running.pages, true, now);
        } else {
            let expiry = self.slots.clock.now() + self.linger;
            // Settings may change the time, so keep the order.
            let at = state
                .lingering
                .partition_point(|(other, _)| *other <= expiry);
            state.lingering.insert(at, (expiry, running.payer));
        }
        self.slots.settle(&mut state);
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
pub(super) mod tests;
