//! How many scrolls may be open at the vendor, and who opens the next one.
//!
//! A slot is taken before a search and given back when its scroll has ended. A scroll that was left
//! or lost stays open at the vendor until it expires there, so its slot lingers as long.
//!
//! Slots are shared between payers. A payer may hold a multiple of what is free, so that one with a
//! hundred searches leaves room for another's first; and a slot that frees up goes to whoever holds
//! fewest. While searches wait, as many idle scrolls are read to their end, those of the payer with
//! most first: that is the only way to free a slot at the vendor.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::admission::{Lane, Spend};
use crate::clock::{Clock, Duration, Instant, timeout_at};
use crate::metrics::Metrics;

/// Searches that may wait for a slot at once. Beyond it the payer with most of them gives way, or
/// the newcomer is refused.
const WAITING_MAX: usize = 4_096;
/// How many times the free slots one payer may hold. Alone it gets seven of eight slots, two get
/// seven of fifteen each: the more there are, the smaller the reserve, and nobody finds none left
/// because one came first. Fewer than eight slots have no reserve.
const TIMES_FREE: usize = 7;

/// Part of the slots that only searches which a caller waits for may have: others may hold theirs while
/// they wait long for the vendor's budget. Fewer than eight slots have no such part.
const KEPT_PART: usize = 4;

/// Names one who waits, and then the slot it got.
type SlotId = u64;

/// The slots of one vendor credential.
pub struct Slots {
    state: Mutex<State>,
    /// Rings when an idle scroll may have to be read to its end.
    pub pressed: Notify,
    clock: Clock,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    max: usize,
    running: HashMap<SlotId, Running>,
    /// When each left scroll expires at the vendor, in order, and whose it was.
    lingering: VecDeque<(Instant, Arc<str>)>,
    /// Slots of each payer, lingering ones among them; none without any.
    held: HashMap<Arc<str>, usize>,
    /// In the order of their coming.
    waiting: BTreeMap<SlotId, Waiting>,
    next_id: SlotId,
    /// Counts how often scrolls became idle, to know their order.
    idled: u64,
}

struct Running {
    payer: Arc<str>,
    /// Its search has not been answered: it may wait for the vendor's budget still.
    opening: bool,
    /// Since when nobody wants rows of its scroll.
    idle: Option<u64>,
    /// Being read to its end because searches wait.
    draining: bool,
}

struct Waiting {
    lane: Lane,
    payer: Arc<str>,
    notify: Arc<Notify>,
}

/// A slot in use. Dropped without a word it lingers, because the scroll's fate is unknown.
pub struct Slot {
    slots: Arc<Slots>,
    id: SlotId,
    linger: Duration,
    ended: bool,
}

impl Slots {
    /// `max` slots.
    pub fn new(max: usize, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics
            .open_scrolls_max
            .set(i64::try_from(max).unwrap_or(i64::MAX));
        Arc::new(Self {
            state: Mutex::new(State {
                max,
                ..State::default()
            }),
            pressed: Notify::new(),
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
    pub async fn take(
        self: &Arc<Self>,
        spend: &Spend,
        linger: Duration,
        mut deadline: Instant,
    ) -> Option<Slot> {
        let waiter = self.ask(spend, linger)?;
        loop {
            let until = {
                let mut state = self.state.lock();
                self.settle(&mut state);
                if state.running.contains_key(&waiter.id) {
                    drop(state);
                    return Some(waiter.into_slot());
                }
                // Another's search was more modest.
                if !state.waiting.contains_key(&waiter.id) {
                    return None;
                }
                let now = self.clock.now();
                if now >= deadline {
                    let moves = state.running.values().any(|running| running.opening);
                    if !moves || now >= spend.wanted_until {
                        return None;
                    }
                    deadline = spend.wanted_until;
                }
                let expiry = state.lingering.front().map(|(expiry, _)| *expiry);
                expiry.map_or(deadline, |expiry| expiry.min(deadline))
            };
            // Woken or timed out: look again either way.
            let _ = timeout_at(until, waiter.notify.notified()).await;
        }
    }

    fn ask(self: &Arc<Self>, spend: &Spend, linger: Duration) -> Option<Waiter> {
        let notify = Arc::new(Notify::new());
        let mut state = self.state.lock();
        if state.waiting.len() >= WAITING_MAX {
            state.displace_for(spend.payer.name())?;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.insert(
            id,
            Waiting {
                lane: spend.lane,
                payer: Arc::clone(spend.payer.name()),
                notify: Arc::clone(&notify),
            },
        );
        self.settle(&mut state);
        Some(Waiter {
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
        state.expire(self.clock.now());
        while let Some(id) = state.next_up() {
            state.grant(id);
        }
        if !state.waiting.is_empty() {
            self.pressed.notify_waiters();
        }
        let open = i64::try_from(state.used()).unwrap_or(i64::MAX);
        self.metrics.open_scrolls.set(open);
    }
}

impl State {
    fn used(&self) -> usize {
        self.running.len() + self.lingering.len()
    }

    fn held(&self, payer: &str) -> usize {
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

    /// Who gets a slot now: the most urgent of those whose payer has not got its share, of whoever
    /// holds fewest, in the order of their coming.
    fn next_up(&self) -> Option<SlotId> {
        let free = self.max.saturating_sub(self.used());
        if free == 0 {
            return None;
        }
        let may = free.saturating_mul(TIMES_FREE);
        let kept = if self.max < 8 {
            0
        } else {
            self.max / KEPT_PART
        };
        self.waiting
            .iter()
            .filter(|(_, waiting)| waiting.lane == Lane::Interactive || free > kept)
            .map(|(id, waiting)| (waiting.lane, self.held(&waiting.payer), *id))
            .filter(|(_, held, _)| *held < may)
            .min()
            .map(|(_, _, id)| id)
    }

    fn grant(&mut self, id: SlotId) {
        let Some(waiting) = self.waiting.remove(&id) else {
            return;
        };
        *self.held.entry(Arc::clone(&waiting.payer)).or_default() += 1;
        self.running.insert(
            id,
            Running {
                payer: waiting.payer,
                opening: true,
                idle: None,
                draining: false,
            },
        );
        waiting.notify.notify_one();
    }

    /// Makes room among those who wait: the newest of the payer with most gives way to one with
    /// fewer. `None` where that is the newcomer's own.
    fn displace_for(&mut self, payer: &str) -> Option<()> {
        let mut of: HashMap<&str, (usize, SlotId)> = HashMap::new();
        for (id, waiting) in &self.waiting {
            let (count, newest) = of.entry(&waiting.payer).or_default();
            *count += 1;
            *newest = *id;
        }
        let own = of.get(payer).map_or(0, |(count, _)| *count);
        let (count, newest) = of.into_values().max()?;
        if count <= own + 1 {
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
    /// Its search was answered: a scroll is open now.
    pub fn opened(&self) {
        let mut state = self.slots.state.lock();
        if let Some(running) = state.running.get_mut(&self.id) {
            running.opening = false;
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
mod tests {
    use super::*;
    use crate::admission::Payer;

    const LINGER: Duration = Duration::from_secs(300);
    const SECOND: Duration = Duration::from_secs(1);

    fn slots(max: usize) -> Arc<Slots> {
        Slots::new(max, Clock::system(), Metrics::new().unwrap())
    }

    fn spend(lane: Lane, payer: &str) -> Spend {
        Spend {
            lane,
            deadline: Clock::system().now(),
            wanted_until: Clock::system().now(),
            payer: Payer::caller(payer.into(), None),
        }
    }

    async fn take(slots: &Arc<Slots>, payer: &str, patience: Duration) -> Option<Slot> {
        let deadline = Clock::system().now() + patience;
        let taken = slots
            .take(&spend(Lane::Interactive, payer), LINGER, deadline)
            .await;
        taken.inspect(Slot::opened)
    }

    /// Asks in the background and notes its name when it gets one.
    async fn queue(
        slots: &Arc<Slots>,
        log: &Arc<Mutex<Vec<&'static str>>>,
        lane: Lane,
        name: &'static str,
    ) -> tokio::task::JoinHandle<Option<Slot>> {
        let (slots, log) = (Arc::clone(slots), Arc::clone(log));
        let task = tokio::spawn(async move {
            let spend = spend(lane, name.split('-').next().unwrap());
            let deadline = Clock::system().now() + SECOND * 60;
            let slot = slots.take(&spend, LINGER, deadline).await;
            log.lock().push(name);
            slot
        });
        tokio::task::yield_now().await;
        task
    }

    fn is_clean(slots: &Slots) -> bool {
        let state = slots.state.lock();
        let held: usize = state.held.values().sum();
        held == state.used() && state.waiting.is_empty() && state.held.values().all(|n| *n > 0)
    }

    #[tokio::test(start_paused = true)]
    async fn left_scrolls_linger_until_they_expire() {
        let slots = slots(2);
        let one = take(&slots, "a", Duration::ZERO).await.unwrap();
        let two = take(&slots, "a", Duration::ZERO).await.unwrap();
        assert!(take(&slots, "a", SECOND).await.is_none());
        one.end();
        let three = take(&slots, "a", Duration::ZERO).await.unwrap();
        drop(two);
        drop(three);
        assert_eq!(slots.usage(), (2, 0));
        assert!(take(&slots, "a", SECOND * 299).await.is_none());
        take(&slots, "a", SECOND * 2).await.unwrap().end();
        assert_eq!(slots.usage(), (0, 0));
        assert!(is_clean(&slots));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_search_presses_and_is_woken() {
        let slots = slots(1);
        let held = take(&slots, "a", Duration::ZERO).await.unwrap();
        assert_eq!(held.idle(), None);
        let pressed = slots.pressed.notified();
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { take(&slots, "a", SECOND * 10).await.is_some() }
        });
        pressed.await;
        assert_eq!(held.idle(), Some(Lane::Refresh));
        held.end();
        assert!(waiting.await.unwrap());
        assert!(!slots.is_half_used() || slots.usage().1 == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_payer_leaves_room_for_another() {
        let slots = slots(32);
        let mut held = Vec::new();
        while let Some(slot) = take(&slots, "greedy", Duration::ZERO).await {
            held.push(slot);
        }
        assert_eq!(held.len(), 28);
        for payer in ["b", "c", "d", "e"] {
            held.push(take(&slots, payer, Duration::ZERO).await.unwrap());
        }
        assert!(take(&slots, "f", Duration::ZERO).await.is_none());
        // Few slots have no reserve.
        let few = self::slots(4);
        for _ in 0..4 {
            held.push(take(&few, "greedy", Duration::ZERO).await.unwrap());
        }
        held.drain(..).for_each(Slot::end);
        assert!(is_clean(&slots) && is_clean(&few));
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_slot_goes_to_the_urgent_and_then_to_whoever_holds_fewest() {
        let slots = slots(4);
        let mut held = Vec::new();
        for payer in ["a", "a", "a", "b"] {
            held.push(take(&slots, payer, Duration::ZERO).await.unwrap());
        }
        let log = Arc::default();
        let mut tasks = Vec::new();
        for (lane, name) in [
            (Lane::Export, "e-1"),
            (Lane::Interactive, "a-1"),
            (Lane::Interactive, "a-2"),
            (Lane::Interactive, "b-1"),
            (Lane::Interactive, "b-2"),
            (Lane::Interactive, "c-1"),
            (Lane::Refresh, "r-1"),
        ] {
            tasks.push(queue(&slots, &log, lane, name).await);
        }
        assert_eq!(slots.usage(), (4, 7));
        // a holds 3, b 1, c 0; then a 2, b 0, c 1; then a 1 and b 1, twice.
        for at in [0, 2, 0, 0] {
            held.remove(at).end();
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(*log.lock(), ["c-1", "b-1", "a-1", "a-2"]);
        // What waits still: b-2, r-1, e-1.
        for (name, at) in [("c-1", 5), ("b-1", 3), ("a-1", 1)] {
            let slot = (&mut tasks[at]).await.unwrap().unwrap();
            assert_eq!(
                log.lock().iter().position(|n| *n == name).map(|p| p < 4),
                Some(true)
            );
            slot.end();
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(log.lock()[4..], ["b-2", "r-1", "e-1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_idle_scrolls_end_as_searches_wait_and_the_greediest_first() {
        let slots = slots(6);
        let mut held = Vec::new();
        for payer in ["b", "a", "a", "a", "c", "a"] {
            held.push(take(&slots, payer, Duration::ZERO).await.unwrap());
        }
        let lanes = |held: &[Slot]| held.iter().map(Slot::idle).collect::<Vec<_>>();
        held[5].busy();
        assert_eq!(lanes(&held[..5]), [None; 5]);
        let log = Arc::default();
        let first = queue(&slots, &log, Lane::Interactive, "d-1").await;
        let second = queue(&slots, &log, Lane::Interactive, "d-2").await;
        let (refresh, export) = (Some(Lane::Refresh), Some(Lane::Export));
        let want = [None, refresh, export, None, None];
        assert_eq!(lanes(&held[..5]), want);
        // Whoever is at it stays at it, and a reader's wish puts another in its place.
        held[1].busy();
        assert_eq!(lanes(&held[2..5]), [refresh, export, None]);
        held.remove(2).end();
        held.remove(2).end();
        for task in [first, second] {
            task.await.unwrap().unwrap().end();
        }
        assert_eq!(lanes(&held[..1]), [None]);
        held.drain(..).for_each(Slot::end);
        assert!(is_clean(&slots));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_keeps_nothing() {
        let slots = slots(1);
        let held = take(&slots, "a", Duration::ZERO).await.unwrap();
        let log = Arc::default();
        let gone = queue(&slots, &log, Lane::Interactive, "b-1").await;
        let next = queue(&slots, &log, Lane::Interactive, "c-1").await;
        // Granted and gone in the same moment: the slot passes on.
        held.end();
        gone.abort();
        next.await.unwrap().unwrap().end();
        assert_eq!(*log.lock(), ["c-1"]);
        assert!(is_clean(&slots) && slots.usage() == (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn among_too_many_the_modest_find_a_place() {
        let slots = slots(1);
        let held = take(&slots, "a", Duration::ZERO).await.unwrap();
        let log = Arc::default();
        let mut tasks = Vec::new();
        for _ in 0..WAITING_MAX {
            tasks.push(queue(&slots, &log, Lane::Interactive, "a-1").await);
        }
        assert!(take(&slots, "a", SECOND).await.is_none());
        let modest = queue(&slots, &log, Lane::Interactive, "b-1").await;
        assert_eq!(slots.usage().1, WAITING_MAX);
        // The newest of the many was told.
        assert!(tasks.pop().unwrap().await.unwrap().is_none());
        for task in tasks {
            task.abort();
            assert!(task.await.is_err());
        }
        held.end();
        modest.await.unwrap().unwrap().end();
        assert!(is_clean(&slots));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_is_lost_when_searches_come_and_go_on_many_threads() {
        let slots = slots(5);
        let mut tasks = Vec::new();
        for n in 0..2_000usize {
            let slots = Arc::clone(&slots);
            tasks.push(tokio::spawn(async move {
                let spend = spend(Lane::ALL[n % 4], ["a", "b", "c"][n % 3]);
                let deadline = Clock::system().now() + SECOND * 600;
                let slot = slots.take(&spend, Duration::ZERO, deadline).await;
                tokio::task::yield_now().await;
                if let Some(slot) = slot
                    && n % 2 == 0
                {
                    slot.end();
                }
            }));
            if n % 5 == 0 {
                tasks[fastrand::usize(..tasks.len())].abort();
            }
        }
        for task in tasks {
            let _ = task.await;
        }
        assert_eq!(slots.usage(), (0, 0));
        assert!(is_clean(&slots));
    }
}
