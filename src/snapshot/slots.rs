//! How many scrolls may be open at the vendor.
//!
//! A slot is taken before a search and given back when its scroll has ended. A scroll that was left
//! or lost stays open at the vendor until it expires there, so its slot lingers as long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{Clock, Duration, Instant, timeout_at};
use crate::metrics::Metrics;

/// Searches that may wait for a slot at once; more are refused at once.
const WAITING_MAX: usize = 4_096;

/// The slots of one vendor credential.
pub struct Slots {
    state: Mutex<State>,
    freed: Notify,
    waiting: AtomicUsize,
    /// Rings when a search begins to wait: idle walks drain.
    pub pressed: Notify,
    clock: Clock,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    max: usize,
    running: usize,
    /// When each left scroll expires at the vendor; in order.
    lingering: VecDeque<Instant>,
}

/// A slot in use. Dropped without a word it lingers, because the scroll's fate is unknown.
pub struct Slot {
    slots: Arc<Slots>,
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
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            pressed: Notify::new(),
            clock,
            metrics,
        })
    }

    /// Changes the number of slots; those in use stay.
    pub fn resize(&self, max: usize) {
        self.state.lock().max = max;
        self.metrics
            .open_scrolls_max
            .set(i64::try_from(max).unwrap_or(i64::MAX));
        self.freed.notify_waiters();
    }

    /// Whether a search waits for a slot.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether half of the slots are in use: then it is worth a few calls to end a scroll properly.
    pub fn is_half_used(&self) -> bool {
        let (used, _) = self.usage();
        used * 2 >= self.state.lock().max
    }

    /// (slots in use or lingering, searches waiting).
    pub fn usage(&self) -> (usize, usize) {
        let mut state = self.state.lock();
        state.expire(self.clock.now());
        (
            state.running + state.lingering.len(),
            self.waiting.load(Ordering::Relaxed),
        )
    }

    fn try_take(self: &Arc<Self>, linger: Duration) -> Result<Slot, Option<Instant>> {
        let mut state = self.state.lock();
        state.expire(self.clock.now());
        if state.running + state.lingering.len() >= state.max {
            return Err(state.lingering.front().copied());
        }
        state.running += 1;
        self.show(&state);
        Ok(Slot {
            slots: self.clone(),
            linger,
            ended: false,
        })
    }

    /// Takes a slot, waiting until `deadline` at most. The slot lingers for `linger` where its scroll
    /// is left open.
    pub async fn take(self: &Arc<Self>, linger: Duration, deadline: Instant) -> Option<Slot> {
        if let Ok(slot) = self.try_take(linger) {
            return Some(slot);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let _waiting = Waiting(self);
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            let expiry = match self.try_take(linger) {
                Ok(slot) => return Some(slot),
                Err(expiry) => expiry,
            };
            self.pressed.notify_waiters();
            let now = self.clock.now();
            if now >= deadline {
                return None;
            }
            let until = expiry.map_or(deadline, |expiry| expiry.min(deadline));
            // Woken or timed out: look again either way.
            let _ = timeout_at(until, freed).await;
        }
    }

    fn show(&self, state: &State) {
        let open = state.running + state.lingering.len();
        self.metrics
            .open_scrolls
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }
}

struct Waiting<'a>(&'a Slots);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        while self.lingering.front().is_some_and(|expiry| *expiry <= now) {
            self.lingering.pop_front();
        }
    }
}

impl Slot {
    /// The scroll has ended at the vendor, or never began.
    pub fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        state.running = state.running.saturating_sub(1);
        let now = self.slots.clock.now();
        if !self.ended {
            // Settings may change the time, so keep the order.
            let expiry = now + self.linger;
            let at = state.lingering.partition_point(|other| *other <= expiry);
            state.lingering.insert(at, expiry);
        }
        state.expire(now);
        self.slots.show(&state);
        drop(state);
        self.slots.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn left_scrolls_linger_until_they_expire() {
        let clock = Clock::system();
        let slots = Slots::new(2, clock.clone(), Metrics::new().unwrap());
        let linger = Duration::from_secs(300);
        let soon = |s| clock.now() + Duration::from_secs(s);
        let one = slots.take(linger, soon(0)).await.unwrap();
        let two = slots.take(linger, soon(0)).await.unwrap();
        assert!(slots.take(linger, soon(1)).await.is_none());
        one.end();
        let three = slots.take(linger, soon(0)).await.unwrap();
        drop(two);
        drop(three);
        assert_eq!(slots.usage(), (2, 0));
        assert!(slots.take(linger, soon(299)).await.is_none());
        assert!(slots.take(linger, soon(2)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_search_presses_and_is_woken() {
        let clock = Clock::system();
        let slots = Slots::new(1, clock.clone(), Metrics::new().unwrap());
        let linger = Duration::from_secs(300);
        let held = slots.take(linger, clock.now()).await.unwrap();
        let waiting = tokio::spawn({
            let (slots, deadline) = (slots.clone(), clock.now() + Duration::from_secs(10));
            async move { slots.take(linger, deadline).await.is_some() }
        });
        slots.pressed.notified().await;
        assert!(slots.is_short());
        held.end();
        assert!(waiting.await.unwrap());
        assert!(!slots.is_short());
    }
}
