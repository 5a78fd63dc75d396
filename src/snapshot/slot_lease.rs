//! A place in the queue for a slot, and the slot that follows from it.

use std::sync::Arc;

use tokio::sync::Notify;

use super::slot_state::{Left, LeftScroll, SlotId};
use super::slots::Slots;
use crate::admission::Lane;
use crate::clock::Duration;

/// A slot in use. If it is dropped without [`SlotLease::end`], its scroll counts until it expires.
pub struct SlotLease {
    slots: Arc<Slots>,
    id: SlotId,
    linger: Duration,
    ended: bool,
}

/// A place among the waiting searches. Dropping it leaves the queue.
pub(super) struct Waiter {
    pub slots: Arc<Slots>,
    pub id: SlotId,
    pub linger: Duration,
    pub notify: Arc<Notify>,
    pub claimed: bool,
}

impl Waiter {
    /// Converts the place into the slot that was granted.
    pub fn into_slot(mut self) -> SlotLease {
        self.claimed = true;
        // Stored before the search is sent.
        let state = self.slots.state.lock();
        self.slots.note(&state, self.linger);
        if let Some(running) = state.running.get(&self.id)
            && !running.granted_by_store
        {
            self.slots.note_scroll(&state, running);
        }
        drop(state);
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
            if state.is_shared() {
                // Another search takes over its turn to ask the store.
                state.ask_again();
                self.slots.settle(&mut state);
            }
            return;
        }
        // Granted and cancelled in the same moment: no scroll was opened.
        if let Some(running) = state.running.remove(&self.id) {
            state.change_held(&running.payer, |held| {
                held.running = held.running.saturating_sub(1)
            });
            self.slots
                .end_scroll(&mut state, running.claim, &running.payer);
            state.ask_again();
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
        state.recent.read(self.id, pages, false, now);
        self.slots.note(&state, self.linger);
        if let Some(running) = state.running.get(&self.id) {
            self.slots.note_scroll(&state, running);
        }
        if pages == 1 && state.left.len() > state.excused {
            for (claim, payer) in state.excuse() {
                self.slots.end_scroll(&mut state, claim, &payer);
            }
            state.ask_again();
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
            state.recent.read(self.id, running.pages, true, now);
            self.slots
                .end_scroll(&mut state, running.claim, &running.payer);
            state.ask_again();
        } else {
            self.slots.note_scroll(&state, &running);
            let why = match running.opened {
                true => Left::Open,
                false => Left::Unanswered,
            };
            state.leave(LeftScroll {
                expiry: now + self.linger,
                payer: running.payer,
                claim: running.claim,
                why,
            });
        }
        self.slots.settle(&mut state);
        self.slots.note(&state, self.linger);
    }
}
