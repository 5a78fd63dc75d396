//! The shared handle of a vendor's pace: calls wait here for their turn, and the vendor's limit
//! headers are read here.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::limits;
use super::pace::{Called, Pace, PaceDecision, PaceRefusal, PaceSettings, PaceSnapshot, micros};
use super::places::Felt;
use super::queue::WaiterId;
use super::remembered::{Notebook, PaceMemory};
use super::shared::{SharedBudget, SharedCall};
use super::spend::{Lane, Spend};
use crate::clock::{Clock, Duration, Instant, sleep_until};
use crate::domain::{AccountId, Vendor};
use crate::metrics::{Metrics, PaceGauges};
use crate::store::{PurseReply, PurseTake, PurseWord, Store, StoreFault};

/// `Retry-After` of a call that was to look whether a hold-down is over, and got no reply.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Minimum time between two log lines about waits that were cut.
const CUT_LOGGED_EVERY: Duration = Duration::from_secs(3600);

struct Waiting {
    /// Notified when the verdict is there. The next waiter in line also runs the timer for all, so
    /// it is notified of every change that may make its turn come sooner. The others sleep.
    notify: Arc<Notify>,
    verdict: Option<Result<(), PaceRefusal>>,
}

struct Inner {
    pace: Pace,
    /// When a cut wait was last logged.
    cut_logged: Option<Instant>,
    waiting: HashMap<WaiterId, Waiting>,
}

impl Inner {
    fn tell(&mut self, called: Called) {
        let (id, verdict) = match called {
            Called::Admitted(id) => (id, Ok(())),
            Called::Refused(id, refusal) => (id, Err(refusal)),
        };
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.verdict = Some(verdict);
            waiting.notify.notify_one();
        }
    }
}

/// The pace of one vendor credential, shared by its stack, the status page and reloads.
pub struct Governor {
    vendor: Vendor,
    clock: Clock,
    gauges: PaceGauges,
    notebook: Notebook,
    /// The budget of all gateways that share a store.
    shared: OnceLock<SharedBudget>,
    inner: Mutex<Inner>,
}

impl Governor {
    /// Creates a governor with a full budget.
    pub fn new(
        vendor: Vendor,
        settings: PaceSettings,
        clock: Clock,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let pace = Pace::new(settings, clock.now());
        let this = Self {
            vendor,
            clock,
            gauges: metrics.pace(vendor),
            notebook: Notebook::default(),
            shared: OnceLock::new(),
            inner: Mutex::new(Inner {
                pace,
                cut_logged: None,
                waiting: HashMap::new(),
            }),
        };
        this.snapshot();
        Arc::new(this)
    }

    /// From now on, the store keeps the budget, for all gateways that use this account.
    pub(super) fn share(&self, store: &Store, account: &AccountId) {
        // This is set once, when the gateway is built.
        let _ = self
            .shared
            .set(SharedBudget::new(store, self.vendor, account));
        self.inner.lock().pace.share(self.clock.now());
    }

    /// From now on, stores what the vendor says. No call goes out before [`Self::recall`].
    pub(super) fn remember(&self, store: &Store, account: &AccountId) {
        self.notebook.open(store, "pace", self.vendor, account);
        self.inner.lock().pace.begin_unread(self.clock.now());
    }

    /// Loads the stored state and lets calls go. If the store does not answer, the budget grows
    /// from zero.
    pub(super) async fn recall(&self) {
        let begun = self.clock.now();
        let kept = self.notebook.read().await;
        let now = self.clock.now();
        let (memory, idle) = match kept {
            Ok(Some(bytes)) => PaceMemory::read(bytes, &self.clock).unwrap_or_default(),
            // Nothing was stored, so no call was made recently.
            Ok(None) => (PaceMemory::default(), Duration::MAX),
            Err(()) => Default::default(),
        };
        let idle = idle.saturating_sub(now.saturating_duration_since(begun));
        let mut inner = self.inner.lock();
        inner.pace.go_on(now, memory, idle);
        self.settle(&mut inner, None);
    }

    /// Stores the part of the state that outlives the process.
    fn note(&self, memory: PaceMemory) {
        self.notebook.note(&memory.write(&self.clock));
    }

    /// Changes rates. Calls in flight go on, and the rest of the budget is kept.
    pub fn set(&self, settings: PaceSettings) {
        let mut inner = self.inner.lock();
        inner.pace.set(settings, self.clock.now());
        self.settle(&mut inner, None);
    }

    /// Returns the state for operators. Also sets the gauges, as every scrape does.
    pub fn snapshot(&self) -> PaceSnapshot {
        let snapshot = self.inner.lock().pace.snapshot(self.clock.now());
        let places = i64::try_from(snapshot.concurrency_limit).unwrap_or(i64::MAX);
        self.gauges.remaining.set(i64::from(snapshot.remaining));
        self.gauges.rate_limit.set(i64::from(snapshot.rate_limit));
        self.gauges.concurrency_limit.set(places);
        snapshot
    }

    /// Restarts the budget after an outage: the vendor gets requests at the rate, without a burst
    /// on top.
    pub fn begin_anew(&self) {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        inner.pace.begin_anew(now);
        let cost_us = inner.pace.cost_us();
        let word = PurseWord {
            credit_max_us: Some(cost_us),
            ..inner.pace.word(now, &inner.pace.memory(now), false)
        };
        self.settle(&mut inner, None);
        drop(inner);
        self.tell(word);
    }

    /// Lets the credit in the store grow from now on, if it is the first of its gateways that
    /// looks at it.
    pub(super) async fn open_purse(&self) {
        let wish = self.inner.lock().pace.wish(Lane::Interactive);
        if let Some(shared) = self.shared.get() {
            shared.look(wish).await;
        }
    }

    /// Returns whether the store keeps the budget at present.
    #[cfg(test)]
    pub(super) fn is_shared(&self) -> bool {
        self.inner.lock().pace.is_shared()
    }

    /// Tells the other gateways what the vendor said, if it is anything new.
    fn tell(&self, word: PurseWord) {
        let says = word.strike || word.answered || word.resume;
        if let Some(shared) = self.shared.get()
            && (says || word.stop.is_some() || word.credit_max_us.is_some())
        {
            shared.tell(word);
        }
    }

    /// Returns the refusal of every call, if the store is away and forbids calls without it.
    pub fn barred(&self) -> Option<PaceRefusal> {
        self.shared.get()?.barred()
    }

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
            // As after the store was emptied.
            let told = inner.pace.word(now, &inner.pace.memory(now), false);
            self.tell(PurseWord {
                stop: Some(left),
                refuses,
                ..told
            });
        }
        Ok(goes)
    }

    /// Asks the store whether a call may go although a hold-down is running. `_place` is held here
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

    /// The store gave no reply. Goes on alone if it is away, and not only late.
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

    /// Reads status and headers of an answer. For a 429, returns the time for which no call will go
    /// out.
    pub fn hear(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut inner = self.inner.lock();
        let before = inner.pace.memory(now);
        let left = limits::remaining(headers, wall);
        let hold = if status == StatusCode::TOO_MANY_REQUESTS {
            let reset = left.filter(|left| left.requests == 0);
            let named = limits::retry_after(headers, wall).or(reset.and_then(|left| left.reset));
            self.log_cut(&mut inner, now, named);
            Some(inner.pace.rate_limited(now, named))
        } else {
            inner.pace.answered(now);
            None
        };
        let credit = inner.pace.credit();
        if let Some(left) = left {
            if left.requests == 0 {
                self.log_cut(&mut inner, now, left.reset);
            }
            inner.pace.told_remaining(now, left.requests, left.reset);
        }
        let after = inner.pace.memory(now);
        let mut word = inner.pace.word(now, &before, hold.is_some());
        if word.stop.is_none() && inner.pace.credit() < credit {
            word.credit_max_us = Some(micros(inner.pace.credit()));
        }
        self.settle(&mut inner, None);
        drop(inner);
        self.tell(word);
        if after != before {
            self.note(after);
        }
        if let Some(hold) = hold {
            tracing::warn!(
                vendor = self.vendor.as_str(),
                hold_s = hold.as_secs(),
                "the vendor answered 429; the gateway sends it nothing for hold_s seconds"
            );
        }
        hold
    }

    /// Checks whether the vendor or the store has forbidden calls since this one was admitted.
    /// Connecting takes time, so this is checked again before sending.
    ///
    /// # Errors
    /// Returns the refusal that [`admit`](Self::admit) would return now.
    pub fn may_still_send(&self) -> Result<(), PaceRefusal> {
        if let Some(refusal) = self.barred() {
            return Err(refusal);
        }
        self.inner.lock().pace.may_still_send(self.clock.now())
    }

    /// Ends a wait that the vendor asked for. Returns the rest of that wait, or `None` if there was
    /// none.
    pub fn resume(&self) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let left = inner.pace.resume(now);
        let after = inner.pace.memory(now);
        let word = PurseWord {
            resume: true,
            ..inner.pace.word(now, &after, false)
        };
        self.settle(&mut inner, None);
        drop(inner);
        self.tell(word);
        self.note(after);
        left
    }

    /// Returns the longest wait that the gateway accepts from a vendor's headers.
    pub fn hold_down_max(&self) -> Duration {
        self.inner.lock().pace.hold_down_max()
    }

    /// Logs a wait that was cut, at most once in [`CUT_LOGGED_EVERY`].
    fn log_cut(&self, inner: &mut Inner, now: Instant, asked: Option<Duration>) {
        let most = inner.pace.hold_down_max();
        let Some(asked) = asked.filter(|asked| *asked > most) else {
            return;
        };
        if inner
            .cut_logged
            .is_none_or(|at| now.saturating_duration_since(at) >= CUT_LOGGED_EVERY)
        {
            inner.cut_logged = Some(now);
            tracing::warn!(
                vendor = self.vendor.as_str(),
                asked_s = asked.as_secs(),
                hold_s = most.as_secs(),
                "the vendor asked for a longer wait than limits.hold_down_max; the wait is shortened to that"
            );
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

    fn permit(self: &Arc<Self>, probe: bool, shared: Option<SharedCall>) -> VendorPermit {
        let now = self.clock.now();
        if self.notebook.is_due(now) {
            let memory = self.inner.lock().pace.memory(now);
            self.note(memory);
        }
        VendorPermit {
            governor: Arc::clone(self),
            began: self.clock.now(),
            sent: true,
            probe: probe || shared.as_ref().is_some_and(SharedCall::is_probe),
            felt: Felt::Nothing,
            shared: shared.map(SharedCall::into_sent),
        }
    }

    /// Call this after every change. Admits the waiters whose turn has come, and notifies the next
    /// in line. `asking` is the waiter that runs this, which needs no notification.
    fn settle(&self, inner: &mut Inner, asking: Option<WaiterId>) {
        let now = self.clock.now();
        for called in inner.pace.advance(now) {
            inner.tell(called);
        }
        let next = inner.pace.next(now).map(|(id, _)| id);
        if next != asking
            && let Some(waiting) = next.and_then(|id| inner.waiting.get(&id))
        {
            waiting.notify.notify_one();
        }
    }

    fn release(&self, permit: &VendorPermit) {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        inner.pace.felt(now, permit.felt, permit.began);
        inner.pace.release(permit.sent);
        self.settle(&mut inner, None);
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
    /// It waits for news, until then.
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

/// The right to have one request in flight. Hold it until the answer's body has been read.
#[must_use = "dropping it frees the place"]
pub struct VendorPermit {
    governor: Arc<Governor>,
    began: Instant,
    sent: bool,
    probe: bool,
    felt: Felt,
    /// Its place in the store.
    shared: Option<SharedCall>,
}

impl VendorPermit {
    /// Records that the vendor answered with another status than 429. If the call was a probe, ends
    /// the hold-down.
    pub fn answered(&self) {
        if self.probe
            && let Some(left) = self.governor.resume()
        {
            tracing::info!(
                vendor = self.governor.vendor.as_str(),
                left_s = left.as_secs(),
                "the vendor answers again; the rest of the wait that it asked for is skipped"
            );
        }
    }

    /// Returns the place and the budget, because nothing was sent.
    pub fn unsent(mut self) {
        self.sent = false;
        if let Some(call) = self.shared.as_mut() {
            call.was_not_sent();
        }
    }

    /// Returns the time since the permit was given.
    pub fn age(&self) -> Duration {
        let now = self.governor.clock.now();
        now.saturating_duration_since(self.began)
    }

    /// Returns the place and records how the call went.
    pub fn ended(mut self, felt: Felt) {
        self.felt = felt;
    }
}

impl Drop for VendorPermit {
    fn drop(&mut self) {
        // First there, so that the next one in line finds the place free.
        drop(self.shared.take());
        self.governor.clone().release(self);
    }
}

#[cfg(test)]
#[path = "governor_tests.rs"]
mod tests;
