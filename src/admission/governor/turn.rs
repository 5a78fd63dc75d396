//! A call waits here for its turn: for budget, for a place, and for the store that keeps the budget
//! of all gateways.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Governor, Inner, VendorPermit, Waiting};
use crate::admission::pace::{PaceDecision, PaceRefusal};
use crate::admission::queue::WaiterId;
use crate::admission::shared::SharedCall;
use crate::admission::spend::{Lane, Spend};
use crate::clock::{Duration, Instant, sleep_until};
use crate::store::{PurseReply, PurseTake, PurseWord, StoreFault};

/// `Retry-After` of a call that the store did not allow as a probe, if the hold-down has ended
/// meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Governor {
    /// Waits for budget and a place, at most until the deadline.
    ///
    /// # Errors
    /// Refuses at once if the wait would certainly be too long, while the vendor's 429 or
    /// `Retry-After` forbids calls, while the store forbids them, and if too many calls wait
    /// already.
    pub async fn admit(self: &Arc<Self>, spend: &Spend) -> Result<VendorPermit, PaceRefusal> {
        if let Some(refusal) = self.barred() {
            return Err(refusal);
        }
        let waiter = match self.ask(spend)? {
            Turn::Now { probe } => return Ok(self.permit(probe, None)),
            Turn::Look(place) => return self.look(place).await,
            Turn::Later(waiter) => waiter,
        };
        let mut wanted = spend.lane.is_interactive() && self.clock.now() < spend.wanted_until;
        loop {
            if let Some(refusal) = self.barred() {
                return Err(refusal);
            }
            let step = {
                let mut inner = self.inner.lock();
                let now = self.clock.now();
                self.come_back(&mut inner, now);
                if wanted && now >= spend.wanted_until {
                    // The callers that waited for this call have left.
                    wanted = false;
                    let payer = spend.payer.name();
                    inner.pace.yield_to_others(waiter.id, Lane::Refresh, payer);
                }
                self.settle(&mut inner, Some(waiter.id));
                // A turn that comes at the deadline is passed on.
                if now >= spend.deadline {
                    return Err(PaceRefusal {
                        retry_after: Duration::from_secs(1),
                        short: inner.pace.short_of(spend.lane),
                    });
                }
                if let Some(verdict) = waiter.verdict(&inner) {
                    drop(inner);
                    verdict?;
                    return Ok(waiter.into_permit(None));
                }
                let latest = match wanted {
                    true => spend.deadline.min(spend.wanted_until),
                    false => spend.deadline,
                };
                match (inner.pace.asks(now), inner.pace.next(now)) {
                    (Some((id, lane)), _) if id == waiter.id => {
                        Step::Take(lane, inner.pace.wish(lane))
                    }
                    (_, Some((id, Some(at)))) if id == waiter.id => Step::Sleep(at.min(latest)),
                    _ => Step::Sleep(latest),
                }
            };
            match step {
                Step::Sleep(wake) => tokio::select! {
                    () = waiter.notify.notified() => {}
                    () = sleep_until(wake) => {}
                },
                // Boxed, because without a shared store no call needs it.
                Step::Take(lane, wish) => {
                    if let Some(call) = Box::pin(self.take(waiter.id, lane, wish)).await? {
                        return Ok(waiter.into_permit(Some(call)));
                    }
                }
            }
        }
    }

    /// Returns the minimum wait if `others` more calls were queued ahead, the last of them in the
    /// given lane. `Some` only if [`Self::admit`] would refuse the call because of them.
    pub fn too_long(&self, spend: &Spend, others: (usize, Lane)) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let (lane, latest) = urgency(spend, now);
        let payer = spend.payer.name();
        inner.pace.too_long(now, lane, payer, others, latest)
    }

    fn ask(self: &Arc<Self>, spend: &Spend) -> Result<Turn, PaceRefusal> {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let (lane, latest) = urgency(spend, now);
        self.come_back(&mut inner, now);
        let (asked, displaced) = inner.pace.ask(now, lane, spend.payer.name(), latest);
        let turn = match asked {
            PaceDecision::Admitted => Turn::Now { probe: false },
            PaceDecision::Probe if inner.pace.is_shared() => Turn::Look(HeldPlace {
                governor: Arc::clone(self),
                is_free: false,
            }),
            PaceDecision::Probe => Turn::Now { probe: true },
            PaceDecision::Refused(refusal) => return Err(refusal),
            PaceDecision::Queued(id) => {
                let notify = Arc::new(Notify::new());
                let waiting = Waiting {
                    notify: Arc::clone(&notify),
                    verdict: None,
                };
                inner.waiting.insert(id, waiting);
                Turn::Later(Waiter {
                    governor: Arc::clone(self),
                    id,
                    notify,
                })
            }
        };
        if let Some(called) = displaced {
            inner.tell(called);
        }
        self.settle(&mut inner, None);
        Ok(turn)
    }

    /// Asks the store for the call of a waiter. `None` if it gave none, or if the waiter's turn
    /// was refused meanwhile.
    ///
    /// # Errors
    /// If the store is away and forbids calls without it.
    async fn take(
        self: &Arc<Self>,
        id: WaiterId,
        lane: Lane,
        wish: PurseTake,
    ) -> Result<Option<SharedCall>, PaceRefusal> {
        let Some(shared) = self.shared.get() else {
            return Ok(None);
        };
        let (call, reply) = shared.take(wish).await;
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let goes = self.heard(&mut inner, now, reply)?;
        let waits = inner.waiting.get(&id);
        let waits = waits.is_some_and(|waiting| waiting.verdict.is_none());
        if goes && waits {
            inner.pace.grant(id, lane);
        }
        self.settle(&mut inner, Some(id));
        drop(inner);
        // Dropping the call gives it back, if it was taken.
        Ok((goes && waits).then_some(call))
    }

    /// Asks the store whether a call may go although a hold-down is running. `place` is held
    /// meanwhile.
    async fn look(self: &Arc<Self>, place: HeldPlace) -> Result<VendorPermit, PaceRefusal> {
        let wish = self.inner.lock().pace.wish(Lane::Interactive);
        let Some(shared) = self.shared.get() else {
            return Ok(place.into_permit(None));
        };
        let (call, reply) = Box::pin(shared.take(wish)).await;
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let goes = self.heard(&mut inner, now, reply)?;
        let refusal = inner.pace.stopped(now).unwrap_or(PaceRefusal {
            retry_after: LOOK_AGAIN,
            short: inner.pace.short_of(Lane::Interactive),
        });
        self.settle(&mut inner, None);
        drop(inner);
        match goes {
            true => Ok(place.into_permit(Some(call))),
            false => Err(refusal),
        }
    }

    /// Records what the store answered. Returns whether the call may go.
    ///
    /// # Errors
    /// If the store is away and forbids calls without it.
    fn heard(
        &self,
        inner: &mut Inner,
        now: Instant,
        reply: Result<PurseReply, StoreFault>,
    ) -> Result<bool, PaceRefusal> {
        let Ok(reply) = reply else {
            self.went_without(inner, now)?;
            return Ok(false);
        };
        let goes = inner.pace.heard(now, &reply);
        if let Some((left, refuses)) = inner.pace.untold(now) {
            // The store has lost the hold-down, as after it was emptied.
            let told = inner.pace.word(now, &inner.pace.memory(now), false);
            self.tell(PurseWord {
                stop: Some(left),
                refuses,
                ..told
            });
        }
        Ok(goes)
    }

    /// Handles a missing reply of the store. Continues without the store if it is away, and not
    /// only late.
    ///
    /// # Errors
    /// If the store forbids calls without it.
    fn went_without(&self, inner: &mut Inner, now: Instant) -> Result<(), PaceRefusal> {
        if let Some(shared) = self.shared.get()
            && inner.pace.is_shared()
            && let Some(of) = shared.leave()?
        {
            inner.pace.go_alone(now, of);
            tracing::warn!(
                vendor = self.vendor.as_str(),
                "the store is away: until it is back, this gateway takes one part in {of} of the vendor's budget"
            );
        }
        Ok(())
    }

    /// Lets the store keep the budget again once it is back.
    fn come_back(&self, inner: &mut Inner, now: Instant) {
        if let Some(shared) = self.shared.get()
            && !inner.pace.is_shared()
            && shared.is_back()
        {
            inner.pace.share(now);
        }
    }
}

/// Returns the lane of a call that asks now, and how long it may wait there.
fn urgency(spend: &Spend, now: Instant) -> (Lane, Instant) {
    match spend.lane {
        lane if lane.is_interactive() && now < spend.wanted_until => {
            (lane, spend.wanted_until.min(spend.deadline))
        }
        Lane::Interactive | Lane::Healing => (Lane::Refresh, spend.deadline),
        lane => (lane, spend.deadline),
    }
}

/// When a call may go.
enum Turn {
    /// Now. `probe` is true if the vendor's hold-down is still running.
    Now { probe: bool },
    /// When the store says so, although a hold-down is running.
    Look(HeldPlace),
    /// When its turn comes.
    Later(Waiter),
}

/// What a waiter does next.
enum Step {
    /// It waits for a notification, until this time at most.
    Sleep(Instant),
    /// It asks the store for a call of this lane.
    Take(Lane, PurseTake),
}

/// A place at this gateway, for a call that the store has not allowed yet.
struct HeldPlace {
    governor: Arc<Governor>,
    is_free: bool,
}

impl HeldPlace {
    fn into_permit(mut self, shared: Option<SharedCall>) -> VendorPermit {
        // The permit has it now.
        self.is_free = true;
        self.governor.permit(false, shared)
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        if !self.is_free {
            let mut inner = self.governor.inner.lock();
            inner.pace.release(true);
            self.governor.settle(&mut inner, None);
        }
    }
}

/// One place in the queue. Dropping it leaves the queue.
struct Waiter {
    governor: Arc<Governor>,
    id: WaiterId,
    notify: Arc<Notify>,
}

impl Waiter {
    fn verdict(&self, inner: &Inner) -> Option<Result<(), PaceRefusal>> {
        inner.waiting.get(&self.id)?.verdict
    }

    /// Takes the turn. Removes the entry first, so that dropping the waiter gives nothing back.
    fn into_permit(self, shared: Option<SharedCall>) -> VendorPermit {
        self.governor.inner.lock().waiting.remove(&self.id);
        self.governor.permit(false, shared)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.governor.inner.lock();
        let Some(waiting) = inner.waiting.remove(&self.id) else {
            return;
        };
        match waiting.verdict {
            // Admitted, but cancelled before it could go.
            Some(Ok(())) => inner.pace.release(false),
            Some(Err(_)) => {}
            None => inner.pace.leave(self.id),
        }
        self.governor.settle(&mut inner, None);
    }
}
