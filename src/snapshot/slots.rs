//! Limits how many walks run and how many scrolls may be open at the vendor.
//!
//! A walk takes a slot before its search and returns it when its scroll has ended. Two limits
//! apply:
//!
//! - `open_scrolls_max` limits the running walks.
//! - `vendor_scrolls_max` limits the scrolls that may be open at the vendor: those of running
//!   walks, and those that were abandoned, lost or never answered, until they expire there.
//!
//! ```text
//!            grant              page answered             end
//! waiting ────────▶ running ────────────────▶ running ────────▶ free
//!                      │ no answer               │ abandoned or lost
//!                      ▼                         ▼
//!                  unanswered                   open ── scroll_expiry ──▶ free
//!                      │ another search is answered
//!                      ▼
//!                   excused: no longer counted against vendor_scrolls_max
//! ```
//!
//! A vendor that hangs leaves many searches without an answer. Each may have opened a scroll, so
//! each counts, until the vendor answers another search: that answer proves that the vendor still
//! has room. While the vendor fails, a search that finds no slot is refused with the circuit's
//! words, but for one probe at a time, which always gets a slot.
//!
//! Payers share the slots. One payer may hold a multiple of what is free, so that a payer with a
//! hundred searches leaves room for another's first. A slot that frees up goes to the payer that
//! holds fewest. While searches wait, as many idle scrolls are read to their end, those of the
//! payer with most first, because only the end frees a scroll at the vendor.
//!
//! A search whose slot, or whose vendor budget after it, would come too late is refused at once.
//! Otherwise it would hold a request in flight for nothing. `forecast` estimates when it would
//! come.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::forecast::Lately;
use crate::admission::{Circuit, Governor, Lane, Spend, StoryStage};
use crate::clock::{Clock, Duration, Instant, timeout_at};
use crate::domain::Shortage;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::pack::{PackReader, PackWriter};

/// Maximum number of searches that wait for a slot. Beyond it, the newest search of the payer with
/// the most gives way, or the new search is refused.
const WAITING_MAX: usize = 4_096;
/// A payer may hold at most this many times the number of free slots. A single payer gets seven of
/// eight slots, two payers seven of fifteen each. So the reserve shrinks with the number of payers,
/// and no payer finds every slot taken because another came first. With fewer than eight slots,
/// none is reserved.
pub(super) const TIMES_FREE: usize = 7;

/// One in this many slots is reserved for searches that a caller waits for, because a background
/// search can hold its slot while it waits long for the vendor's budget. With fewer than eight
/// slots, none is reserved.
const KEPT_PART: usize = 4;

/// A search without a slot is refused this long before its callers leave, so that the refusal still
/// reaches them.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Minimum time between two probes that get a slot beyond the limits. The circuit probes at the
/// same rate.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// Name of the note about open scrolls in the store.
const SCROLLS: &str = "scrolls";
/// The payer of scrolls that an earlier process left open.
static BEFORE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("before the restart"));

fn write_scrolls(left: &[Duration], clock: &Clock) -> Vec<u8> {
    let mut out = PackWriter::default();
    out.stamp(clock.stamp());
    for left in left {
        out.u64(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    }
    out.done()
}

/// Decodes how long each scroll stays open. If the age of the note is unknown, returns the full
/// times.
fn read_scrolls(bytes: Bytes, clock: &Clock) -> Option<Vec<Duration>> {
    let mut reader = PackReader::new(bytes);
    let age = reader.stamp()?.age(&clock.stamp()).unwrap_or_default();
    let mut all = Vec::new();
    while !reader.is_over() {
        let left = Duration::from_millis(reader.u64()?).saturating_sub(age);
        if !left.is_zero() {
            all.push(left.min(SCROLL_EXPIRY_MAX));
        }
    }
    Some(all)
}

/// Maximum time that a scroll counts across a restart: the largest `scroll_expiry`.
const SCROLL_EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Id of a waiting search, and then of its slot.
pub(super) type SlotId = u64;

/// The limits of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLimits {
    /// Maximum number of running walks.
    pub running: usize,
    /// Maximum number of scrolls that may be open at the vendor, those of running walks included.
    pub standing: usize,
}

/// The slots in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotUsage {
    /// Running walks.
    pub running: usize,
    /// Scrolls that may be open at the vendor, those of running walks included.
    pub standing: usize,
    /// Searches that wait for a slot.
    pub waiting: usize,
}

/// The slots of one vendor credential.
pub struct Slots {
    state: Mutex<SlotState>,
    /// Notified when an idle scroll may have to be read to its end, or as far as time allows.
    pub pressed: Notify,
    /// The budget that searches wait for once they have a slot.
    budget: Option<Arc<Governor>>,
    /// The circuit, which shows whether the vendor fails.
    circuit: Option<Arc<Circuit>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Stores which scrolls may be open when the process ends.
    store: Store,
    /// Whether the stored note was loaded, so that it may be replaced.
    taken_over: AtomicBool,
}

pub(super) struct SlotState {
    pub limits: SlotLimits,
    pub running: HashMap<SlotId, Running>,
    /// Scrolls that may be open although no walk reads them, in the order in which they expire.
    pub left: VecDeque<LeftScroll>,
    /// How many of `left` are excused.
    excused: usize,
    /// The slots of each payer. A payer without any has no entry.
    held: HashMap<Arc<str>, HeldSlots>,
    /// The waiting searches in the order of arrival.
    pub waiting: BTreeMap<SlotId, Waiting>,
    next_id: SlotId,
    /// Number of times that a scroll became idle, which gives their order.
    idled: u64,
    /// When a probe last got a slot beyond the limits.
    probed: Option<Instant>,
    pub lately: Lately,
}

/// The slots of one payer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldSlots {
    /// Running walks.
    running: usize,
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
    payer: Arc<str>,
    /// Number of vendor pages read of the scroll. While it is 0, the search may still wait for the
    /// vendor's budget.
    pub pages: usize,
    /// Whether the vendor answered the search, so that a scroll is open.
    opened: bool,
    /// When the scroll became idle, because no reader wants its rows.
    idle: Option<u64>,
    /// Whether it is being read to its end because searches wait.
    draining: bool,
}

/// A scroll that no walk reads any more.
pub(super) struct LeftScroll {
    pub expiry: Instant,
    payer: Arc<str>,
    why: Left,
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
enum Left {
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
    notify: Arc<Notify>,
}

impl Waiting {
    pub fn payer(&self) -> &Arc<str> {
        self.spend.payer.name()
    }
}

/// A slot in use. If it is dropped without [`SlotLease::end`], its scroll counts until it expires.
pub struct SlotLease {
    slots: Arc<Slots>,
    id: SlotId,
    linger: Duration,
    ended: bool,
}

/// Why a search gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// The vendor's budget grows back only after the search's deadline, in this time.
    Budget(Duration),
    /// Slots are short: which ones, and the time until one may be free, if that is known.
    Short(Shortage, Option<Duration>),
    /// The vendor fails. The next probe is due in this time.
    VendorFails(Duration),
}

impl Slots {
    /// Creates slots of which none is in use. Without a budget or a circuit no search is refused
    /// because of them.
    pub fn new(
        limits: SlotLimits,
        budget: Option<Arc<Governor>>,
        circuit: Option<Arc<Circuit>>,
        store: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        show_limits(&metrics, limits);
        let slots = Arc::new(Self {
            state: Mutex::new(SlotState {
                limits,
                running: HashMap::new(),
                left: VecDeque::new(),
                excused: 0,
                held: HashMap::new(),
                waiting: BTreeMap::new(),
                next_id: 0,
                idled: 0,
                probed: None,
                lately: Lately::default(),
            }),
            pressed: Notify::new(),
            budget,
            circuit,
            store,
            taken_over: AtomicBool::new(false),
            clock,
            metrics,
        });
        slots.take_over();
        slots
    }

    /// Counts the scrolls that an earlier process may have left open at the vendor, as soon as the
    /// store has answered.
    fn take_over(self: &Arc<Self>) {
        if !self.store.is_on() {
            return;
        }
        let slots = self.clone();
        tokio::spawn(async move {
            let kept = slots.store.recall(SCROLLS).await.ok().flatten();
            let left = kept.and_then(|kept| read_scrolls(kept, &slots.clock));
            let left = left.unwrap_or_default();
            let now = slots.clock.now();
            let mut state = slots.state.lock();
            for left in left {
                state.leave(now + left, BEFORE.clone(), Left::Open);
            }
            slots.settle(&mut state);
            slots.taken_over.store(true, Ordering::Relaxed);
        });
    }

    /// Stores which scrolls are open at the vendor if the process ends now, and for how long.
    fn note(&self, state: &SlotState, linger: Duration) {
        if !self.taken_over.load(Ordering::Relaxed) {
            return;
        }
        let now = self.clock.now();
        let left = state
            .left
            .iter()
            .map(|left| left.expiry.saturating_duration_since(now));
        let running = state.running.values().map(|_| linger);
        let all: Vec<Duration> = running.chain(left).collect();
        self.store.note(SCROLLS, &write_scrolls(&all, &self.clock));
    }

    /// Changes the limits. Slots in use stay.
    pub fn resize(&self, limits: SlotLimits) {
        let mut state = self.state.lock();
        state.limits = limits;
        show_limits(&self.metrics, limits);
        self.settle(&mut state);
    }

    /// Returns whether half of the slots are in use. Then it is worth a few calls to end a scroll
    /// properly.
    pub fn is_half_used(&self) -> bool {
        let mut state = self.state.lock();
        state.expire(self.clock.now());
        let SlotLimits { running, standing } = state.limits;
        state.running.len() * 2 >= running || state.counted() * 2 >= standing
    }

    /// Returns the slots in use now. Updates the metrics.
    pub fn usage(&self) -> SlotUsage {
        let mut state = self.state.lock();
        self.settle(&mut state);
        state.usage()
    }

    /// Takes a slot for a payer. Waits at most until `deadline`. If slots are short only because
    /// the searches that have one wait for the vendor, it waits as long as the slot is wanted. If
    /// the scroll is abandoned, it counts for `linger` after its last page.
    ///
    /// # Errors
    /// Refuses at once if a slot, or the budget for the search, would certainly come too late, if
    /// too many searches wait, and if the vendor fails.
    pub async fn take(
        self: &Arc<Self>,
        spend: &Spend,
        linger: Duration,
        deadline: Instant,
    ) -> Result<SlotLease, NoSlot> {
        let begun = self.clock.now();
        let taken = self.wait(spend, linger, deadline).await;
        let waited = self.clock.now().saturating_duration_since(begun);
        spend.note(StoryStage::Slot, begun, waited);
        taken
    }

    async fn wait(
        self: &Arc<Self>,
        spend: &Spend,
        linger: Duration,
        mut deadline: Instant,
    ) -> Result<SlotLease, NoSlot> {
        let waiter = self.ask(spend, linger, deadline)?;
        loop {
            let until = {
                let mut state = self.state.lock();
                self.settle(&mut state);
                if state.running.contains_key(&waiter.id) {
                    drop(state);
                    return Ok(waiter.into_slot());
                }
                let Some(short) = state.short_for(waiter.id) else {
                    // It gave way to another payer's search.
                    return Err(NoSlot::Short(Shortage::WaitingSearches, None));
                };
                let now = self.clock.now();
                if let Some(verdict) = self.while_failing(&mut state, waiter.id, now) {
                    drop(state);
                    return verdict.map(|()| waiter.into_slot());
                }
                if now >= deadline {
                    let last = spend.wanted_until.checked_sub(LAST_MOMENT).unwrap_or(now);
                    if !state.moves() || now >= last {
                        return Err(NoSlot::Short(short, state.next_expiry(now, waiter.id)));
                    }
                    deadline = last;
                }
                let expiry = state.left.front().map(|left| left.expiry);
                let probe = state.probed.map(|probed| probed + PROBE_EVERY);
                let probe = probe.filter(|_| state.is_full_of_unanswered());
                let soonest = [Some(deadline), expiry, probe].into_iter().flatten().min();
                soonest.unwrap_or(deadline)
            };
            // Woken or timed out: check again in both cases.
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
        let now = self.clock.now();
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
        state.give(now);
        if state.waiting.contains_key(&id) {
            let mut refused = match self.while_failing(&mut state, id, now) {
                Some(verdict) => verdict.err(),
                None => state.too_late(id, self.budget.as_deref(), now),
            };
            if refused.is_none() && state.waiting.len() > WAITING_MAX {
                let room = state.displace_for(spend.payer.name());
                let crowded = NoSlot::Short(Shortage::WaitingSearches, None);
                refused = room.is_none().then_some(crowded);
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

    /// Decides about a search that finds no slot while the vendor fails: it gets a slot beyond the
    /// limits as a probe, or it is refused. `None` if the vendor is not known to fail.
    fn while_failing(
        &self,
        state: &mut SlotState,
        id: SlotId,
        now: Instant,
    ) -> Option<Result<(), NoSlot>> {
        let probe_in = state.probed.map_or(Duration::ZERO, |probed| {
            (probed + PROBE_EVERY).saturating_duration_since(now)
        });
        let circuit = self.circuit.as_ref().filter(|circuit| !circuit.is_closed());
        let wait = match circuit {
            Some(circuit) => circuit.peek().err().unwrap_or_default().max(probe_in),
            // The circuit has not noticed, for example because other calls are answered.
            None if state.is_full_of_unanswered() && probe_in.is_zero() => Duration::ZERO,
            // It waits, until it may probe or another probe is answered.
            None => return None,
        };
        if !wait.is_zero() {
            return Some(Err(NoSlot::VendorFails(wait)));
        }
        state.probed = Some(now);
        state.grant(id, now);
        Some(Ok(()))
    }

    /// Call this after every change. Gives free slots to waiting searches and makes idle scrolls
    /// check whether they must end.
    fn settle(&self, state: &mut SlotState) {
        state.give(self.clock.now());
        if state.waiting.is_empty() {
            state.lately.calm();
        } else {
            self.pressed.notify_waiters();
            if self.circuit.as_ref().is_some_and(|it| !it.is_closed()) {
                // They are refused now, or one of them probes.
                state
                    .waiting
                    .values()
                    .for_each(|one| one.notify.notify_one());
            }
        }
        let usage = state.usage();
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.open_scrolls.set(gauge(usage.running));
        self.metrics.vendor_scrolls.set(gauge(usage.standing));
    }
}

fn show_limits(metrics: &Metrics, limits: SlotLimits) {
    let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.open_scrolls_max.set(gauge(limits.running));
    metrics.vendor_scrolls_max.set(gauge(limits.standing));
}

impl SlotState {
    fn usage(&self) -> SlotUsage {
        SlotUsage {
            running: self.running.len(),
            standing: self.running.len() + self.left.len(),
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
        self.limits.standing.saturating_sub(self.counted())
    }

    pub fn held(&self, payer: &str) -> HeldSlots {
        self.held.get(payer).copied().unwrap_or_default()
    }

    fn change_held(&mut self, payer: &Arc<str>, change: impl FnOnce(&mut HeldSlots)) {
        let held = self.held.entry(Arc::clone(payer)).or_default();
        change(held);
        if *held == HeldSlots::default() {
            self.held.remove(payer);
        }
    }

    /// Records that a scroll is open at the vendor although no walk reads it.
    fn leave(&mut self, expiry: Instant, payer: Arc<str>, why: Left) {
        self.change_held(&payer, |held| held.left += 1);
        // Settings may change the time, so keep the order.
        let at = self.left.partition_point(|other| other.expiry <= expiry);
        self.left.insert(at, LeftScroll { expiry, payer, why });
    }

    fn expire(&mut self, now: Instant) {
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
    fn excuse(&mut self) {
        let mut excused = Vec::new();
        for left in &mut self.left {
            if left.why == Left::Unanswered {
                left.why = Left::Excused;
                excused.push(Arc::clone(&left.payer));
            }
        }
        self.excused += excused.len();
        for payer in excused {
            self.change_held(&payer, |held| held.left = held.left.saturating_sub(1));
        }
    }

    /// Returns whether searches without an answer leave no room at the vendor.
    fn is_full_of_unanswered(&self) -> bool {
        self.free_standing() == 0 && self.left.iter().any(|left| left.why == Left::Unanswered)
    }

    /// Gives free slots to waiting searches.
    fn give(&mut self, now: Instant) {
        self.expire(now);
        while let Some(id) = self.next_up() {
            self.grant(id, now);
        }
    }

    /// Returns whether slots are short only because the searches that have one wait for the vendor,
    /// or for the pages that end a scroll.
    fn moves(&self) -> bool {
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

    /// Returns why a search of this payer and lane gets no slot, or `None` if it may have one.
    pub fn short(&self, payer: &str, lane: Lane) -> Option<Shortage> {
        let held = self.held(payer);
        let may = |free: usize, held: usize, max: usize| {
            free > Self::kept_from(lane, max) && held < free.saturating_mul(TIMES_FREE)
        };
        if !may(self.free_running(), held.running, self.limits.running) {
            Some(Shortage::OpenScrolls)
        } else if !may(self.free_standing(), held.standing(), self.limits.standing) {
            Some(Shortage::VendorScrolls)
        } else {
            None
        }
    }

    /// Returns why a waiting search gets no slot. `None` if it does not wait.
    fn short_for(&self, id: SlotId) -> Option<Shortage> {
        let waiting = self.waiting.get(&id)?;
        let short = self.short(waiting.payer(), waiting.spend.lane);
        Some(short.unwrap_or(Shortage::OpenScrolls))
    }

    /// Returns the search that gets a slot now. Searches of payers that hold their share are passed
    /// over. The most urgent search goes first, then the one whose payer holds the fewest slots,
    /// then the one that arrived first.
    fn next_up(&self) -> Option<SlotId> {
        if self.free_running() == 0 || self.free_standing() == 0 {
            return None;
        }
        self.waiting
            .iter()
            .filter(|(_, waiting)| self.short(waiting.payer(), waiting.spend.lane).is_none())
            .map(|(id, waiting)| {
                let held = self.held(waiting.payer()).standing();
                (waiting.spend.lane, held, *id)
            })
            .min()
            .map(|(_, _, id)| id)
    }

    fn grant(&mut self, id: SlotId, now: Instant) {
        let Some(waiting) = self.waiting.remove(&id) else {
            return;
        };
        let payer = Arc::clone(waiting.payer());
        self.change_held(&payer, |held| held.running += 1);
        self.lately.give(id, &payer, now);
        self.running.insert(
            id,
            Running {
                payer,
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

    /// Returns whether the idle scroll `id` must be read to its end now, and in which lane. As many
    /// scrolls are as there are waiting searches: first those that are already being drained, then
    /// the longest idle ones of the payer with the most. The first of them goes before the others,
    /// because one slot soon is better than all of them late.
    fn drain_lane(&mut self, id: SlotId) -> Option<Lane> {
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

/// A place among the waiting searches. Dropping it leaves the queue.
struct Waiter {
    slots: Arc<Slots>,
    id: SlotId,
    linger: Duration,
    notify: Arc<Notify>,
    claimed: bool,
}

impl Waiter {
    /// Converts the place into the slot that was granted.
    fn into_slot(mut self) -> SlotLease {
        self.claimed = true;
        // The note is stored before the search is sent.
        self.slots.note(&self.slots.state.lock(), self.linger);
        SlotLease {
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
        // Granted and cancelled in the same moment: no scroll was opened.
        if let Some(running) = state.running.remove(&self.id) {
            state.change_held(&running.payer, |held| {
                held.running = held.running.saturating_sub(1)
            });
            self.slots.settle(&mut state);
        }
    }
}

impl SlotLease {
    /// Records a vendor page. With the first one, a scroll is open.
    pub fn page(&self) {
        let mut state = self.slots.state.lock();
        let Some(running) = state.running.get_mut(&self.id) else {
            return;
        };
        running.pages += 1;
        running.opened = true;
        let (pages, now) = (running.pages, self.slots.clock.now());
        state.lately.read(self.id, pages, false, now);
        self.slots.note(&state, self.linger);
        if pages == 1 && state.left.len() > state.excused {
            state.excuse();
            self.slots.settle(&mut state);
        }
    }

    /// Records that the vendor answered the search with something other than a page, so that a
    /// scroll is probably open.
    pub fn opened(&self) {
        if let Some(running) = self.slots.state.lock().running.get_mut(&self.id) {
            running.opened = true;
        }
    }

    /// Records that the scroll has ended at the vendor, or never began.
    pub fn end(mut self) {
        self.ended = true;
    }

    /// Records that rows of the scroll are wanted.
    pub fn busy(&self) {
        let mut state = self.slots.state.lock();
        let Some(running) = state.running.get_mut(&self.id) else {
            return;
        };
        running.draining = false;
        if running.idle.take().is_some() && !state.waiting.is_empty() {
            // Another scroll must end instead.
            self.slots.pressed.notify_waiters();
        }
    }

    /// Records that no reader wants rows of the scroll. If it must be read to its end because
    /// searches wait for slots, returns the lane for that. Call it again when [`Slots::pressed`] is
    /// notified.
    pub fn idle(&self) -> Option<Lane> {
        let mut state = self.slots.state.lock();
        state.idled += 1;
        let idled = state.idled;
        let running = state.running.get_mut(&self.id)?;
        running.idle.get_or_insert(idled);
        state.drain_lane(self.id)
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        let Some(running) = state.running.remove(&self.id) else {
            return;
        };
        let now = self.slots.clock.now();
        state.change_held(&running.payer, |held| {
            held.running = held.running.saturating_sub(1)
        });
        if self.ended {
            state.lately.read(self.id, running.pages, true, now);
        } else {
            let why = match running.opened {
                true => Left::Open,
                false => Left::Unanswered,
            };
            state.leave(now + self.linger, running.payer, why);
        }
        self.slots.settle(&mut state);
        self.slots.note(&state, self.linger);
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
pub(super) mod tests;
