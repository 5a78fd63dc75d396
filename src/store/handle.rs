//! The interface of a store for other rooms: it takes and returns contents, whatever the engine is.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::away::WhenAway;
use super::bell::Bell;
use super::claims::HeldClaims;
use super::engine::{Engine, EngineFuture, EngineState, StoreFault, StoreOp, StoreReply};
use super::fleet::{FleetOp, FleetReply};
use super::names::{NameUse, Names};
use super::record::{RecordKind, RecordName, RecordPlace, SealedRecord};
use super::usage::FleetUse;
use super::watermarks::{Purges, Watermarks};
use crate::clock::{Clock, Duration, Instant, timeout_at};
use crate::metrics::{Metrics, RecordReject, StoreMetrics, StoreOperation, StoreOutcome};

#[path = "handle_answers.rs"]
mod answers;

pub use self::answers::KeptAnswer;
pub(super) use self::answers::answer_name;

/// How long a lookup waits for the file to be opened after the start. After a crash that takes up
/// to a third of a second, and a lookup that does not wait would call the vendor for a stored
/// answer.
const OPENING_WAIT: Duration = Duration::from_secs(1);
/// How long a purge waits until it would survive a crash.
const PURGE_WAIT: Duration = Duration::from_secs(1);
/// Late operations in a row after which the store is not called for a while.
const LATE_MAX: u32 = 3;
/// Contents from this size on are sealed and opened on a thread that serves no requests.
const OFF_THREAD_BYTES: usize = 256 << 10;

/// The health of the store in `/readyz` and `/admin/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// There is no store: nothing is kept across a restart.
    Off,
    /// Being opened.
    Opening,
    /// At work.
    Ok,
    /// Cannot be used at the moment; it retries by itself.
    Away,
}

impl StoreHealth {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Off, Self::Opening, Self::Ok, Self::Away];

    /// Returns the word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Opening => "opening",
            Self::Ok => "ok",
            Self::Away => "away",
        }
    }
}

/// Keeps data beyond the life of the process, or keeps nothing. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Option<Arc<StoreInner>>,
    purges: Arc<Purges>,
}

pub(super) struct StoreInner {
    pub(super) engine: Box<dyn Engine>,
    pub(super) records: SealedRecord,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<StoreMetrics>,
    /// The breaker of reads. Many of them need no disk and say nothing about its writes.
    reads: Mutex<Breaker>,
    /// The breaker of operations that wait until a crash cannot undo them.
    writes: Mutex<Breaker>,
    pub(super) purges: Arc<Purges>,
    began: Instant,
    /// The names in use, with the engine's number of resets when they were written to it.
    names: ArcSwapOption<(Names, u64)>,
    /// Lets one task at a time read or write the names.
    naming: tokio::sync::Mutex<()>,
    /// Identifies this process among those that share the engine.
    pub(super) replica: [u8; 16],
    /// Times the fleet was heard of.
    pub(super) beats: AtomicU64,
    /// When it was last heard of, in milliseconds after `began`.
    pub(super) heard_ms: AtomicU64,
    /// What this gateway does while the engine is away.
    pub(super) when_away: WhenAway,
    /// Counts the requests of callers.
    pub(super) usage: OnceLock<Box<dyn FleetUse>>,
    /// Applies the purges of other replicas to memory.
    pub(super) on_purge: OnceLock<PurgeHook>,
    /// Called when the store may have lost records while this process ran.
    pub(super) on_return: Mutex<Option<ReturnHook>>,
    /// Searches that this process walks.
    pub(super) claims: HeldClaims,
    /// Those who wait for changes of the engine.
    pub(super) bell: Arc<Bell>,
}

/// Applies to memory all purges that came after this number.
pub type PurgeHook = Box<dyn Fn(u64) + Send + Sync>;

/// Puts records back into a store that is reached, for the first time or `again`.
pub type ReturnHook = Arc<dyn Fn(bool) + Send + Sync>;

/// Stops calls to an engine that does not answer in time. Pure.
#[derive(Debug)]
struct Breaker {
    /// How long the engine is not called.
    rest: Duration,
    late_in_row: u32,
    away_until: Option<Instant>,
}

impl Breaker {
    fn new(rest: Duration) -> Self {
        Self {
            rest,
            late_in_row: 0,
            away_until: None,
        }
    }

    /// Returns whether the engine may be called now. While it is away, one operation tries it now
    /// and then.
    fn allows(&mut self, now: Instant) -> bool {
        match self.away_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.away_until = Some(now + self.rest);
                true
            }
            None => true,
        }
    }

    /// Records a reply. Returns whether the engine counts as away from now on.
    fn heard(&mut self, in_time: bool, now: Instant) -> bool {
        if in_time {
            *self = Self::new(self.rest);
            return false;
        }
        self.late_in_row += 1;
        let goes = self.late_in_row == LATE_MAX;
        if self.late_in_row >= LATE_MAX {
            self.away_until = Some(now + self.rest);
        }
        goes
    }

    fn is_away(&self) -> bool {
        self.away_until.is_some()
    }
}

impl Store {
    /// Creates a store that keeps nothing. It still counts purges.
    pub fn none() -> Self {
        Self {
            inner: None,
            purges: Arc::default(),
        }
    }

    /// Creates a store over an engine; `records` seals what goes into it.
    pub fn over(
        engine: impl Engine,
        records: SealedRecord,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let resolved = metrics.store.resolve();
        let purges: Arc<Purges> = Arc::default();
        let (rest, when_away) = (engine.rest(), engine.when_away());
        let inner = StoreInner {
            engine: Box::new(engine),
            records,
            began: clock.now(),
            clock,
            metrics: resolved,
            reads: Mutex::new(Breaker::new(rest)),
            writes: Mutex::new(Breaker::new(rest)),
            purges: purges.clone(),
            names: ArcSwapOption::empty(),
            naming: tokio::sync::Mutex::default(),
            replica: fastrand::u128(..).to_le_bytes(),
            beats: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            when_away,
            usage: OnceLock::new(),
            on_purge: OnceLock::new(),
            on_return: Mutex::default(),
            claims: HeldClaims::default(),
            bell: Arc::default(),
        };
        let inner = Arc::new(inner);
        inner.hear_rings();
        Self {
            inner: Some(inner),
            purges,
        }
    }

    /// Returns whether the store keeps anything.
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Returns the purges so far. Check them before a fetch, and before something is stored.
    pub fn purges(&self) -> &Arc<Purges> {
        &self.purges
    }

    /// Returns the health of the store.
    pub fn health(&self) -> StoreHealth {
        let Some(inner) = &self.inner else {
            return StoreHealth::Off;
        };
        match inner.engine.state() {
            EngineState::Opening => StoreHealth::Opening,
            EngineState::Ok if inner.reads.lock().is_away() => StoreHealth::Away,
            EngineState::Ok if inner.writes.lock().is_away() => StoreHealth::Away,
            EngineState::Ok => StoreHealth::Ok,
            EngineState::Away => StoreHealth::Away,
        }
    }

    /// Returns the sealed bytes in the store.
    pub fn bytes(&self) -> u64 {
        let inner = self.inner.as_ref();
        let bytes = inner.map_or(0, |inner| inner.metrics.bytes.get());
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Reads a note by its name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn recall(&self, what: &str) -> Result<Option<Bytes>, StoreFault> {
        let Some(inner) = &self.inner else {
            return Ok(None);
        };
        if inner.is_shared() {
            return Err(StoreFault::Away);
        }
        let until = inner.patience();
        let names = inner.names(until).await.ok_or(StoreFault::Away)?;
        let name = names.0.of(NameUse::State, what.as_bytes());
        inner.recall(name, until).await
    }

    /// Stores a small note under a name, in place of the note before. It is written soon; the call
    /// does not wait.
    pub fn note(&self, what: &str, content: &[u8]) {
        let Some(inner) = self.inner.as_ref().filter(|inner| !inner.is_shared()) else {
            return;
        };
        if let Some(names) = inner.known_names() {
            let name = names.0.of(NameUse::State, what.as_bytes());
            inner.note_at_once(name, content);
            return;
        }
        let (inner, what, content) = (inner.clone(), what.to_owned(), content.to_vec());
        tokio::spawn(async move {
            if let Some(names) = inner.names(inner.patience()).await {
                let name = names.0.of(NameUse::State, what.as_bytes());
                inner.note_at_once(name, &content);
            }
        });
    }

    /// Waits until the purges so far would survive a crash. Returns whether they would. They are in
    /// force either way.
    pub async fn keep_purges(&self) -> bool {
        let Some(inner) = &self.inner else {
            return true;
        };
        let until = inner.clock.now() + PURGE_WAIT;
        let Some(names) = inner.names(until).await else {
            return false;
        };
        if inner.is_shared() {
            return inner.share_purges(until).await.is_some();
        }
        inner.note_purges(&names.0, until).await
    }

    /// Loads names and purges, which are needed before any record can be checked. Call it once,
    /// within a runtime. It waits for the file to be opened, for as long as that normally takes.
    pub async fn warm(&self) {
        if let Some(inner) = &self.inner {
            inner.names(inner.patience()).await;
        }
    }

    /// Writes queued operations within `limit`. Blocks.
    pub fn close(&self, limit: Duration) {
        if let Some(inner) = &self.inner {
            inner.release_claims();
            inner.engine.close(limit);
        }
    }
}

/// Returns where the names are stored. The place depends on the sealing key, so that a start with a
/// wrong key finds nothing and loses nothing.
fn place_of_names(key_id: &[u8]) -> RecordName {
    let mut name = *b"names of         ";
    name.iter_mut()
        .skip(12)
        .zip(key_id)
        .for_each(|(to, from)| *to = *from);
    RecordName(name.first_chunk().copied().unwrap_or_default())
}

/// The name under which the purges are stored.
const PURGES: &[u8] = b"purges";

impl StoreInner {
    /// Returns until when a lookup may wait.
    pub(super) fn patience(&self) -> Instant {
        let now = self.clock.now();
        match self.engine.state() {
            EngineState::Opening => (self.began + OPENING_WAIT).max(now + self.engine.wait_max()),
            EngineState::Ok | EngineState::Away => now + self.engine.wait_max(),
        }
    }

    /// Runs one operation with a time limit, and counts it.
    pub(super) async fn call(&self, op: StoreOp, until: Instant) -> Result<StoreReply, StoreFault> {
        self.begin(op, until).reply().await
    }

    /// Starts one operation. It takes effect before operations that are started later.
    pub(super) fn begin(&self, op: StoreOp, until: Instant) -> StoreCall<'_, StoreReply> {
        let (operation, began) = (op.operation(), self.clock.now());
        let writes = op.is_to_be_safe();
        let breaker = if writes { &self.writes } else { &self.reads };
        let allowed = breaker.lock().allows(began);
        let reply = match allowed {
            true => BegunCall::Waits(self.engine.call(op), breaker),
            // It may still be queued. No request waits for it.
            false if writes => match self.engine.call(op).now_or_never() {
                Some(reply) => BegunCall::Replied(reply),
                None => BegunCall::Replied(Err(StoreFault::Away)),
            },
            false => BegunCall::Replied(Err(StoreFault::Away)),
        };
        StoreCall {
            inner: self,
            operation,
            began,
            until,
            reply,
        }
    }

    /// Returns the time since the start.
    pub(super) fn age(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.began)
    }

    /// Returns whether the engine is not asked for a while because it was late.
    pub(super) fn reads_are_away(&self) -> bool {
        self.reads.lock().is_away()
    }

    /// Returns whether the last operation that was waited for was late.
    pub(super) fn was_late(&self) -> bool {
        self.reads.lock().late_in_row > 0
    }

    /// Runs one operation of a fleet with a time limit, and counts it.
    pub(super) async fn ask(&self, op: FleetOp, until: Instant) -> Result<FleetReply, StoreFault> {
        let (operation, began) = (op.operation(), self.clock.now());
        let fleet = self.engine.fleet().ok_or(StoreFault::Away)?;
        let allowed = self.reads.lock().allows(began);
        let reply = match allowed {
            true => BegunCall::Waits(fleet.ask(op), &self.reads),
            false => BegunCall::Replied(Err(StoreFault::Away)),
        };
        let call = StoreCall {
            inner: self,
            operation,
            began,
            until,
            reply,
        };
        call.reply().await
    }

    pub(super) fn known_names(&self) -> Option<Arc<(Names, u64)>> {
        let known = self.names.load_full()?;
        (known.1 == self.engine.resets()).then_some(known)
    }

    /// Returns the names. Reads them from the engine, or creates them. If the engine started empty,
    /// the names and the purges are written again.
    pub(super) async fn names(&self, until: Instant) -> Option<Arc<(Names, u64)>> {
        if let Some(known) = self.known_names() {
            return Some(known);
        }
        let _turn = timeout_at(until, self.naming.lock()).await.ok()?;
        if let Some(known) = self.known_names() {
            return Some(known);
        }
        let resets = self.engine.resets();
        let (current, previous) = self.records.key_ids();
        let here = place_of_names(&current);
        let mut names = None;
        let before = self.names.load_full();
        if let Some(before) = &before {
            names = Names::of_bytes(before.0.bytes());
        }
        let mut noted = false;
        for key_id in [Some(current), previous].into_iter().flatten() {
            if names.is_some() {
                break;
            }
            let place = place_of_names(&key_id);
            // A store that does not answer may hold names, so no new ones are created.
            let found = self.recall(place, until).await.ok()?;
            names = found.and_then(|bytes| Names::of_bytes(&bytes));
            noted = names.is_some() && place == here;
        }
        let names = match names {
            Some(names) => names,
            None => Names::random()?,
        };
        if self.is_shared() {
            let names = self.share_names(here, &names, until).await?;
            // The purges of others come first, so that no record that they cover is used.
            self.share_purges(until).await?;
            let names = Arc::new((names, resets));
            self.names.store(Some(names.clone()));
            let hook = self.on_return.lock().clone();
            if let Some(hook) = hook {
                hook(before.is_some());
            }
            return Some(names);
        }
        if !noted && !self.note_safely(here, names.bytes(), until).await {
            return None;
        }
        if before.is_none() {
            let place = names.of(NameUse::State, PURGES);
            let kept = self.recall(place, until).await.ok()?;
            let kept = kept.and_then(Watermarks::of_bytes).unwrap_or_default();
            let some = self.purges.number() > 0;
            self.purges.count_on_from(&kept);
            if some {
                self.note_purges(&names, until).await;
            }
        } else {
            self.note_purges(&names, until).await;
        }
        let names = Arc::new((names, resets));
        self.names.store(Some(names.clone()));
        Some(names)
    }

    async fn note_purges(&self, names: &Names, until: Instant) -> bool {
        let bytes = self.purges.hold().to_bytes();
        let place = names.of(NameUse::State, PURGES);
        self.note_safely(place, &bytes, until).await
    }

    async fn recall(&self, name: RecordName, until: Instant) -> Result<Option<Bytes>, StoreFault> {
        let StoreReply::Value(Some(record)) = self.call(StoreOp::Recall { name }, until).await?
        else {
            return Ok(None);
        };
        let opened = self.records.open(state_place(name), &record);
        Ok(opened.map_err(|why| self.metrics.reject(why)).ok())
    }

    async fn note_safely(&self, name: RecordName, content: &[u8], until: Instant) -> bool {
        let Some(record) = self.records.seal(state_place(name), content) else {
            return false;
        };
        let safe = true;
        let op = StoreOp::Note { name, record, safe };
        self.call(op, until).await.is_ok()
    }

    /// Writes a note without waiting. Notes of one name keep their order.
    fn note_at_once(&self, name: RecordName, content: &[u8]) {
        let Some(record) = self.records.seal(state_place(name), content) else {
            return;
        };
        // Written at once, although no request waits for it.
        let safe = true;
        self.tell(StoreOp::Note { name, record, safe });
    }

    /// Runs an operation whose reply is not needed.
    pub(super) fn tell(&self, op: StoreOp) {
        let operation = op.operation();
        let outcome = match self.engine.call(op).now_or_never() {
            Some(Ok(_)) | None => StoreOutcome::Ok,
            Some(Err(fault)) => outcome_of(fault),
        };
        self.metrics.request(operation, outcome, 0.0);
    }

    pub(super) async fn open_off_thread(
        self: &Arc<Self>,
        place: RecordPlace,
        record: Bytes,
    ) -> Result<Bytes, RecordReject> {
        if record.len() < OFF_THREAD_BYTES {
            return self.records.open(place, &record);
        }
        let this = self.clone();
        let opened = tokio::task::spawn_blocking(move || this.records.open(place, &record));
        opened.await.unwrap_or(Err(RecordReject::Content))
    }

    pub(super) async fn seal_off_thread(
        self: &Arc<Self>,
        place: RecordPlace,
        content: Vec<u8>,
    ) -> Option<Bytes> {
        if content.len() < OFF_THREAD_BYTES {
            return self.records.seal(place, &content);
        }
        let this = self.clone();
        let sealed = tokio::task::spawn_blocking(move || this.records.seal(place, &content));
        sealed.await.ok().flatten()
    }
}

/// An operation in progress.
pub(super) struct StoreCall<'a, T> {
    inner: &'a StoreInner,
    operation: StoreOperation,
    began: Instant,
    until: Instant,
    reply: BegunCall<'a, T>,
}

enum BegunCall<'a, T> {
    Replied(Result<T, StoreFault>),
    Waits(EngineFuture<'a, T>, &'a Mutex<Breaker>),
}

impl<T> StoreCall<'_, T> {
    /// Returns the engine's reply if it comes in time. Counts the outcome.
    pub(super) async fn reply(self) -> Result<T, StoreFault> {
        let (inner, mut seconds) = (self.inner, 0.0);
        let (reply, outcome) = match self.reply {
            BegunCall::Replied(reply) => {
                let outcome = reply
                    .as_ref()
                    .map_or_else(|fault| outcome_of(*fault), |_| StoreOutcome::Ok);
                (reply, outcome)
            }
            BegunCall::Waits(reply, breaker) => {
                // Operations that were started together count as late once.
                let was_late = inner.clock.now() >= self.until;
                let reply = timeout_at(self.until, reply).await;
                let now = inner.clock.now();
                // A file that is still being opened is not late.
                let in_time = reply.is_ok() || inner.engine.state() != EngineState::Ok;
                let counts = in_time || !was_late;
                if counts && breaker.lock().heard(in_time, now) {
                    tracing::warn!("the store does not answer in time; it is not used for a while");
                }
                seconds = now.saturating_duration_since(self.began).as_secs_f64();
                match reply {
                    Ok(Ok(reply)) => (Ok(reply), StoreOutcome::Ok),
                    Ok(Err(fault)) => (Err(fault), outcome_of(fault)),
                    Err(_) => (Err(StoreFault::Away), StoreOutcome::Late),
                }
            }
        };
        inner.metrics.request(self.operation, outcome, seconds);
        reply
    }
}

pub(super) fn outcome_of(fault: StoreFault) -> StoreOutcome {
    match fault {
        StoreFault::Away => StoreOutcome::Away,
        StoreFault::Full => StoreOutcome::Refused,
        StoreFault::Failed => StoreOutcome::Error,
    }
}

pub(super) fn state_place(name: RecordName) -> RecordPlace {
    RecordPlace {
        kind: RecordKind::State,
        name,
        number: 0,
    }
}
