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
//! has room. While the vendor fails, a search that finds no slot is refused with the reason that
//! the circuit gives. One search at a time gets a slot all the same, as a probe.
//!
//! Payers share the slots. One payer may hold a multiple of what is free, so that a payer with a
//! hundred searches leaves room for another's first. A slot that frees up goes to the payer that
//! holds fewest. While searches wait, the same number of idle scrolls is read to the end, because
//! only the end frees a scroll at the vendor. Those of the payer with the most scrolls go first.
//!
//! Gateways over one store count the scrolls at the vendor together; see `slot_fleet.rs`. The
//! number of running walks is each gateway's own.
//!
//! A search whose slot, or whose vendor budget after it, would come too late is refused at once.
//! Otherwise it would hold a request in flight for nothing. `forecast` estimates when it would
//! come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::slot_fleet::{FleetSlots, SlotCount};
pub use super::slot_lease::SlotLease;
use super::slot_lease::Waiter;
use super::slot_note::{BEFORE, SCROLLS, read_scrolls, write_scrolls};
use super::slot_state::{Left, LeftScroll, SlotId, SlotState, Waiting};
use crate::admission::{Circuit, Governor, Spend, StoryStage};
use crate::clock::{Clock, Duration, Instant, timeout_at};
use crate::domain::Shortage;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::fleet::ClaimId;

/// Maximum number of searches that wait for a slot. Beyond it, the newest search of the payer with
/// the most gives way, or the new search is refused.
const WAITING_MAX: usize = 4_096;
/// A search without a slot is refused this long before its callers leave, so that the refusal still
/// reaches them.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Minimum time between two probes that get a slot beyond the limits. The circuit probes at the
/// same rate.
const PROBE_EVERY: Duration = Duration::from_millis(500);

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
    pub(super) state: Mutex<SlotState>,
    /// Notified when an idle scroll may have to be read to its end, or as far as time allows.
    pub pressed: Notify,
    /// The budget that searches wait for once they have a slot.
    budget: Option<Arc<Governor>>,
    /// The circuit, which shows whether the vendor fails.
    circuit: Option<Arc<Circuit>>,
    pub(super) clock: Clock,
    metrics: Arc<Metrics>,
    /// Stores which scrolls may be open when the process ends, or grants slots for all gateways.
    pub(super) store: Store,
    /// The vendor account in the store.
    pub(super) account: Arc<str>,
    /// Whether the stored note was loaded, so that it may be replaced.
    taken_over: AtomicBool,
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
    /// Creates free slots. Without a budget or a circuit, no search is refused because of one. If
    /// gateways share the store, it counts the scrolls of the account.
    pub fn new(
        limits: SlotLimits,
        budget: Option<Arc<Governor>>,
        circuit: Option<Arc<Circuit>>,
        (store, account): (Store, Arc<str>),
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        show_limits(&metrics, limits);
        let mut state = SlotState::new(limits);
        if store.is_shared() {
            state.count = SlotCount::Fleet(FleetSlots::default());
        }
        let slots = Arc::new(Self {
            state: Mutex::new(state),
            pressed: Notify::new(),
            budget,
            circuit,
            store,
            account,
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
                state.leave(LeftScroll {
                    expiry: now + left,
                    payer: BEFORE.clone(),
                    claim: ClaimId::random(),
                    why: Left::Open,
                });
            }
            slots.settle(&mut state);
            slots.taken_over.store(true, Ordering::Relaxed);
        });
    }

    /// Stores which scrolls are open at the vendor if the process ends now, and for how long.
    pub(super) fn note(&self, state: &SlotState, linger: Duration) {
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
        let (running, standing) = (state.limits.running, state.standing_max());
        let counted = state.counted() + state.others();
        state.running.len() * 2 >= running || counted * 2 >= standing
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
        let mut look_at = None;
        loop {
            if let Some(refused) = self.ask_store(&waiter).await {
                look_at = refused;
                continue;
            }
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
                let look = look_at.filter(|at| *at > now && state.is_shared());
                let soonest = [Some(deadline), expiry, probe, look];
                let soonest = soonest.into_iter().flatten().min();
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
                linger,
                notify: Arc::clone(&notify),
            },
        );
        state.give(now);
        // Whether the store has a slot is not known yet.
        let asks = state.asks(now).is_some() || state.is_asking();
        if state.waiting.contains_key(&id) {
            let mut refused = match asks {
                true => None,
                false => match self.while_failing(&mut state, id, now) {
                    Some(verdict) => verdict.err(),
                    None => state.too_late(id, self.budget.as_deref(), now),
                },
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

    /// Gives free slots to waiting searches and makes idle scrolls check whether they must end.
    /// Call this after every change.
    pub(super) fn settle(&self, state: &mut SlotState) {
        let now = self.clock.now();
        self.come_back(state);
        state.give(now);
        if let Some(first) = state.asks(now).and_then(|id| state.waiting.get(&id)) {
            first.notify.notify_one();
        }
        if state.waiting_elsewhere() > 0 {
            self.pressed.notify_waiters();
        }
        if state.waiting.is_empty() {
            state.recent.calm();
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

#[cfg(test)]
#[path = "slots_tests.rs"]
pub(super) mod tests;
