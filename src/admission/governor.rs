//! The shared handle of a vendor's pace: its settings, what the vendor's headers say, and what the
//! store remembers of both. In `turn` calls wait for their turn.

mod permit;
mod turn;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::permit::VendorPermit;
use super::limits;
use super::pace::{Called, Pace, PaceRefusal, PaceSettings, PaceSnapshot, micros};
use super::queue::WaiterId;
use super::remembered::{Notebook, PaceMemory};
use super::shared::SharedBudget;
use super::spend::Lane;
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{AccountId, Vendor};
use crate::metrics::{Metrics, PaceGauges};
use crate::store::{PurseWord, Store};

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

    /// Reads the budget in the store. Its credit grows from the first time that a gateway does so.
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

    /// Shares what the vendor said with the other gateways, if it is new.
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
}

#[cfg(test)]
#[path = "governor_tests.rs"]
mod tests;
