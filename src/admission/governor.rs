//! The shared handle of a vendor's pace: calls wait here for their turn, and the vendor's limit
//! headers are read here.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::limits;
use super::pace::{Called, Pace, PaceDecision, PaceRefusal, PaceSettings, PaceSnapshot};
use super::places::Felt;
use super::queue::WaiterId;
use super::remembered::{Notebook, PaceMemory};
use super::spend::{Lane, Spend};
use crate::clock::{Clock, Duration, Instant, sleep_until};
use crate::domain::{AccountId, Vendor};
use crate::metrics::{Metrics, PaceGauges};
use crate::store::Store;

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
            inner: Mutex::new(Inner {
                pace,
                cut_logged: None,
                waiting: HashMap::new(),
            }),
        };
        this.snapshot();
        Arc::new(this)
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
            // Nothing was stored, so no call was made lately.
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
        inner.pace.begin_anew(self.clock.now());
        self.settle(&mut inner, None);
    }

    /// Waits for budget and a place, at most until the deadline.
    ///
    /// # Errors
    /// Refuses at once if the wait would certainly be too long, while the vendor's 429 or
    /// `Retry-After` forbids calls, and if too many calls wait already.
    pub async fn admit(self: &Arc<Self>, spend: &Spend) -> Result<VendorPermit, PaceRefusal> {
        let waiter = match self.ask(spend)? {
            Turn::Now { probe } => return Ok(self.permit(probe)),
            Turn::Later(waiter) => waiter,
        };
        let mut wanted = spend.lane.is_interactive() && self.clock.now() < spend.wanted_until;
        loop {
            let wake = {
                let mut inner = self.inner.lock();
                let now = self.clock.now();
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
                    return Ok(waiter.into_permit());
                }
                let latest = match wanted {
                    true => spend.deadline.min(spend.wanted_until),
                    false => spend.deadline,
                };
                match inner.pace.next(now) {
                    Some((id, Some(at))) if id == waiter.id => at.min(latest),
                    _ => latest,
                }
            };
            tokio::select! {
                () = waiter.notify.notified() => {}
                () = sleep_until(wake) => {}
            }
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
        if let Some(left) = left {
            if left.requests == 0 {
                self.log_cut(&mut inner, now, left.reset);
            }
            inner.pace.told_remaining(now, left.requests, left.reset);
        }
        let after = inner.pace.memory(now);
        self.settle(&mut inner, None);
        drop(inner);
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

    /// Checks whether the vendor has forbidden calls since this one was admitted. Connecting takes
    /// time, so this is checked again before sending.
    ///
    /// # Errors
    /// Returns the refusal that [`admit`](Self::admit) would return now.
    pub fn may_still_send(&self) -> Result<(), PaceRefusal> {
        self.inner.lock().pace.may_still_send(self.clock.now())
    }

    /// Ends a wait that the vendor asked for. Returns the rest of that wait, or `None` if there was
    /// none.
    pub fn resume(&self) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let left = inner.pace.resume(now);
        let after = inner.pace.memory(now);
        self.settle(&mut inner, None);
        drop(inner);
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
        let (asked, displaced) = inner.pace.ask(now, lane, spend.payer.name(), latest);
        let turn = match asked {
            PaceDecision::Admitted => Turn::Now { probe: false },
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

    fn permit(self: &Arc<Self>, probe: bool) -> VendorPermit {
        let now = self.clock.now();
        if self.notebook.is_due(now) {
            let memory = self.inner.lock().pace.memory(now);
            self.note(memory);
        }
        VendorPermit {
            governor: Arc::clone(self),
            began: self.clock.now(),
            sent: true,
            probe,
            felt: Felt::Nothing,
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
    /// When its turn comes.
    Later(Waiter),
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
    fn into_permit(self) -> VendorPermit {
        self.governor.inner.lock().waiting.remove(&self.id);
        self.governor.permit(false)
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
        self.governor.clone().release(self);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::admission::{HOLD_DOWN_MAX, Payer};
    use crate::clock::{sleep, timeout};

    const SECOND: Duration = Duration::from_secs(1);

    fn settings(requests_per_minute: u32, concurrency: usize) -> PaceSettings {
        PaceSettings {
            requests_per_minute,
            concurrency,
            learn_down_to: None,
            concurrency_adaptive: false,
            hold_down_max: HOLD_DOWN_MAX,
        }
    }

    fn governor(requests_per_minute: u32, concurrency: usize) -> Arc<Governor> {
        let settings = settings(requests_per_minute, concurrency);
        let metrics = Metrics::new().unwrap();
        Governor::new(Vendor::Wiv, settings, Clock::system(), &metrics)
    }

    fn spend(lane: Lane, caller: &str, wait: Duration) -> Spend {
        Spend {
            lane,
            deadline: Clock::system().now() + wait,
            wanted_until: Clock::system().now() + wait,
            payer: Payer::caller(caller.into(), None),
            within: None,
        }
    }

    /// Admits in the background and logs its name when it goes.
    fn go(
        governor: &Arc<Governor>,
        log: &Arc<Mutex<Vec<&'static str>>>,
        lane: Lane,
        name: &'static str,
    ) -> tokio::task::JoinHandle<()> {
        let (governor, log) = (Arc::clone(governor), Arc::clone(log));
        let spend = spend(lane, name.split('-').next().unwrap(), SECOND * 600);
        tokio::spawn(async move {
            if let Ok(permit) = governor.admit(&spend).await {
                log.lock().push(name);
                sleep(Duration::from_millis(10)).await;
                drop(permit);
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_by_lane_and_caller() {
        let governor = governor(60, 1);
        let log = Arc::default();
        let held = governor
            .admit(&spend(Lane::Interactive, "x", SECOND))
            .await
            .unwrap();
        let mut tasks = Vec::new();
        for (lane, name) in [
            (Lane::Export, "e-1"),
            (Lane::Interactive, "a-1"),
            (Lane::Interactive, "a-2"),
            (Lane::Interactive, "a-3"),
            (Lane::ReadAhead, "r-1"),
            (Lane::Interactive, "b-1"),
            (Lane::Refresh, "f-1"),
        ] {
            tasks.push(go(&governor, &log, lane, name));
            tokio::task::yield_now().await;
        }
        assert_eq!(governor.snapshot().queued[0], (Lane::Interactive, 4));
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let order = log.lock().clone();
        assert_eq!(order, ["a-1", "b-1", "a-2", "a-3", "f-1", "r-1", "e-1"]);
        assert_eq!(governor.snapshot().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_saturated_budget_gives_exactly_the_rate() {
        let governor = governor(120, 8);
        let start = Clock::system().now();
        let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let mut tasks = Vec::new();
        for n in 0..140 {
            let name = if n % 2 == 0 { "a-1" } else { "b-1" };
            tasks.push(go(&governor, &log, Lane::Interactive, name));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(log.lock().len(), 140);
        // 20 go at once, 120 at two a second.
        let took = start.elapsed();
        assert!(took >= SECOND * 60 && took < SECOND * 61, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_holds_nobody_up() {
        let governor = governor(60_000, 1);
        let log = Arc::default();
        let held = governor
            .admit(&spend(Lane::Interactive, "x", SECOND))
            .await
            .unwrap();
        let first = go(&governor, &log, Lane::Interactive, "a-1");
        tokio::task::yield_now().await;
        let second = go(&governor, &log, Lane::Interactive, "b-1");
        tokio::task::yield_now().await;
        // Admitted and cancelled in the same moment: the turn passes on.
        drop(held);
        first.abort();
        second.await.unwrap();
        assert_eq!(*log.lock(), ["b-1"]);
        let after = governor.snapshot();
        assert_eq!((after.in_flight, after.queued[0].1), (0, 0));
        assert!(governor.inner.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_outlasts_its_deadline() {
        let governor = governor(60_000, 1);
        let held = governor
            .admit(&spend(Lane::Interactive, "x", SECOND))
            .await
            .unwrap();
        let start = Clock::system().now();
        let late = governor.admit(&spend(Lane::Interactive, "a", SECOND)).await;
        assert!(late.is_err());
        assert_eq!(start.elapsed(), SECOND);
        drop(held);
        assert!(governor.inner.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whom_nobody_waits_for_any_more_lets_others_pass() {
        let governor = governor(60, 1);
        let left = |wait| Spend {
            wanted_until: Clock::system().now() + wait,
            ..spend(Lane::Interactive, "a", SECOND * 60)
        };
        let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let held = governor
            .admit(&spend(Lane::Interactive, "x", SECOND))
            .await
            .unwrap();
        let abandoned = {
            let (governor, log, spend) = (Arc::clone(&governor), Arc::clone(&log), left(SECOND));
            tokio::spawn(async move {
                let permit = governor.admit(&spend).await;
                log.lock().push("abandoned");
                drop(permit);
            })
        };
        sleep(SECOND * 2).await;
        assert_eq!(governor.snapshot().queued[1], (Lane::Refresh, 1));
        let wanted = go(&governor, &log, Lane::Interactive, "b-1");
        tokio::task::yield_now().await;
        drop(held);
        wanted.await.unwrap();
        abandoned.await.unwrap();
        assert_eq!(*log.lock(), ["b-1", "abandoned"]);
        // A call that would be too late is refused at once. A call whose callers have left waits in
        // a background lane.
        let governor = self::governor(6, 1);
        drop(governor.admit(&spend(Lane::Interactive, "x", SECOND)).await);
        assert!(governor.admit(&left(SECOND)).await.is_err());
        let start = Clock::system().now();
        drop(governor.admit(&left(Duration::ZERO)).await.unwrap());
        assert_eq!(start.elapsed(), SECOND * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_refuses_the_waiting_and_a_reset_lets_them_wait() {
        let governor = governor(600, 1);
        let held = governor
            .admit(&spend(Lane::Interactive, "x", SECOND))
            .await
            .unwrap();
        let waiting = {
            let (governor, spend) = (
                Arc::clone(&governor),
                spend(Lane::Interactive, "a", SECOND * 60),
            );
            tokio::spawn(async move { governor.admit(&spend).await.map(drop) })
        };
        tokio::task::yield_now().await;
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("9"));
        let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
        assert_eq!(hold, Some(SECOND * 9));
        assert_eq!(waiting.await.unwrap().unwrap_err().retry_after, SECOND * 9);
        drop(held);

        sleep(SECOND * 9).await;
        headers.clear();
        headers.insert("ratelimit", HeaderValue::from_static("\"a\";r=0;t=4"));
        governor.hear(StatusCode::OK, &headers);
        assert_eq!(governor.snapshot().hold_down, Some(SECOND * 4));
        let start = Clock::system().now();
        let patient = spend(Lane::Interactive, "a", SECOND * 5);
        let permit = timeout(SECOND * 5, governor.admit(&patient));
        permit.await.unwrap().unwrap().unsent();
        assert_eq!(start.elapsed(), SECOND * 4);
        assert_eq!(governor.snapshot().remaining, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_force_is_told_at_every_look() {
        let metrics = Metrics::new().unwrap();
        let governor = Governor::new(Vendor::Wiv, settings(120, 8), Clock::system(), &metrics);
        let told = || {
            // As every scrape does.
            governor.snapshot();
            let text = metrics.render().unwrap();
            ["budget_remaining", "rate_limit", "concurrency_limit"].map(|name| {
                let line = format!("msp_gateway_vendor_{name}{{vendor=\"wiv\"}} ");
                let value = text.lines().find_map(|text| text.strip_prefix(&line));
                value.unwrap().parse::<u32>().unwrap()
            })
        };
        assert_eq!(told(), [20, 120, 8]);
        let wanted = spend(Lane::Interactive, "a", SECOND * 9);
        let permit = governor.admit(&wanted).await.unwrap();
        assert_eq!(told(), [19, 120, 8]);
        permit.unsent();
        assert_eq!(told(), [20, 120, 8]);
        governor.set(settings(60, 2));
        assert_eq!(told(), [10, 60, 2]);
        governor.begin_anew();
        assert_eq!(told(), [1, 60, 2]);
        sleep(SECOND * 3).await;
        assert_eq!(governor.snapshot().remaining, 4);
        assert_eq!(told(), [4, 60, 2]);
        // A late vendor gets fewer concurrent calls, if `concurrency_adaptive` is on.
        governor.set(PaceSettings {
            concurrency_adaptive: true,
            ..settings(60, 5)
        });
        let permit = governor.admit(&wanted).await.unwrap();
        sleep(SECOND * 6).await;
        assert_eq!(permit.age(), SECOND * 6);
        permit.ended(Felt::Late);
        assert_eq!(told(), [9, 60, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_that_comes_after_the_turn_is_told_before_anything_is_sent() {
        let governor = governor(120, 8);
        assert_eq!(governor.may_still_send(), Ok(()));
        let none = HeaderMap::new();
        assert_eq!(governor.hear(StatusCode::OK, &none), None);
        let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &none);
        assert_eq!(hold, Some(SECOND * 5));
        sleep(SECOND * 2).await;
        let refused = governor.may_still_send().unwrap_err();
        assert_eq!(refused.retry_after, SECOND * 3);
        sleep(SECOND * 3).await;
        assert_eq!(governor.may_still_send(), Ok(()));
        // Without a `Retry-After`, the reset of an exhausted count is the time to come back. The
        // reset of a count that is not exhausted says nothing.
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", HeaderValue::from_static("\"a\";r=0;t=40"));
        let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
        assert_eq!(hold, Some(SECOND * 40));
        sleep(SECOND * 40).await;
        headers.insert("ratelimit", HeaderValue::from_static("\"a\";r=1;t=40"));
        let hold = governor.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
        assert_eq!(hold, Some(SECOND * 20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_too_long_for_those_who_would_be_gone() {
        let governor = governor(60, 8);
        governor.begin_anew();
        drop(governor.admit(&spend(Lane::Interactive, "x", SECOND)).await);
        let others = (3, Lane::Interactive);
        let wanted = |wait| Spend {
            wanted_until: Clock::system().now() + wait,
            ..spend(Lane::Interactive, "a", SECOND * 60)
        };
        let wait = |spend: &Spend| governor.too_long(spend, others);
        assert_eq!(wait(&wanted(SECOND * 4)), Some(SECOND * 4));
        assert_eq!(wait(&wanted(SECOND * 5)), None);
        assert_eq!(wait(&spend(Lane::Refresh, "a", SECOND * 60)), None);
        // A call that no caller waits for uses a background lane. The ramp gives that lane four
        // calls in eleven seconds.
        let late = |wait| Spend {
            wanted_until: Clock::system().now(),
            ..spend(Lane::Interactive, "a", wait)
        };
        assert_eq!(wait(&late(SECOND * 60)), None);
        let told = wait(&late(SECOND * 5)).unwrap();
        assert_eq!(told.as_millis() / 10, 1137);
    }

    #[tokio::test(start_paused = true)]
    async fn new_rates_reach_those_who_wait() {
        let governor = governor(1, 1);
        drop(governor.admit(&spend(Lane::Interactive, "x", SECOND)).await);
        let log = Arc::default();
        let waiting = go(&governor, &log, Lane::Interactive, "a-1");
        tokio::task::yield_now().await;
        let start = Clock::system().now();
        governor.set(settings(600, 1));
        waiting.await.unwrap();
        assert!(start.elapsed() < SECOND);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_is_lost_when_calls_come_and_go_on_many_threads() {
        let governor = governor(u32::MAX, 3);
        let mut tasks = Vec::new();
        for n in 0..2000usize {
            let governor = Arc::clone(&governor);
            let spend = spend(Lane::ALL[n % 4], ["a", "b", "c"][n % 3], SECOND * 600);
            tasks.push(tokio::spawn(async move {
                let permit = governor.admit(&spend).await;
                tokio::task::yield_now().await;
                drop(permit);
            }));
            if n % 5 == 0 {
                tasks[fastrand::usize(..tasks.len())].abort();
            }
            if n % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for task in tasks {
            let _ = task.await;
        }
        let after = governor.snapshot();
        assert_eq!(after.in_flight, 0);
        assert!(after.queued.iter().all(|(_, n)| *n == 0));
        assert!(governor.inner.lock().waiting.is_empty());
    }
}
