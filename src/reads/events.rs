//! Streams to a caller which of its earlier answers have changed.
//!
//! Each caller has a log (`event_log`) with its targets, the tag of the last answer to each, and
//! the last events. While the caller has an open stream, its targets are looked up after every
//! vendor answer, and at intervals: the answer that this caller would get now, from memory alone,
//! is compared with its last one. So rows outside its audience never cause an event, and no vendor
//! is called for a stream.
//!
//! A stream reads the log at its reader's pace and buffers nothing. A reader that falls behind the
//! log is cut.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::fast::FixedState;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answer::{Answer, Asker, Etag};
use super::changes::Changes;
pub use super::event_log::FellBehind;
use super::event_log::{CallerLog, TARGET_BYTES_MAX, TargetState};
use super::{Ingredients, Lookup, Lookups, ReadError};
use crate::access::Caller;
use crate::admission::Payer;
use crate::cache::Directives;
use crate::clock::{self, Clock, Duration, Instant};
use crate::domain::{Kind, Vendor};
use crate::metrics::{EventsMeter, Metrics, StoreUsage};

/// How often a stream looks for changes. This is also the longest delay of a change.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long targets are still looked up after a vendor's answer, because reading it may take that
/// long.
const SETTLE: Duration = Duration::from_secs(5);
/// How often a comment is sent, so that proxies do not consider the connection dead. Targets are
/// looked up this often even without a vendor call, because an answer may come from the store.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// The longest time of a stream. Its reader reconnects by itself, perhaps to another gateway.
const STREAM_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// The time limit of a lookup. Memory answers at once and the store within this time; a lookup that
/// would take longer is skipped.
const LOOKUP_TIME_MAX: Duration = Duration::from_millis(50);
/// The most bytes of all callers' logs. A log has 300 KiB at most and 30 KiB as a rule. The least
/// recently used logs are evicted first; their readers are cut and start with `reset`.
const LOGS_BYTES_MAX: u64 = 32 << 20;

/// Every hit is hashed, so this is a fast hash.
const HASHER: FixedState = FixedState::with_seed(0);

/// A request for a stream.
#[derive(Clone, Debug)]
pub struct EventsRequest {
    /// The kinds to stream. `None` means all that the caller may see.
    pub kinds: Option<Vec<Kind>>,
    /// The id of the last event that the reader has.
    pub last_id: Option<String>,
}

/// The target of a request.
#[derive(Clone, Copy, Debug)]
pub struct AskedAt<'a> {
    /// Path and query, as sent.
    pub target: &'a str,
    /// The body, as sent. Only the body of a search matters.
    pub body: &'a [u8],
}

impl AskedAt<'_> {
    /// Returns a hash of this target and its answer. A caller that finds a collision misses only
    /// its own events.
    fn mixed(&self, etag: &Etag) -> u64 {
        let mut hasher = HASHER.build_hasher();
        hasher.write(self.target.as_bytes());
        hasher.write(self.body);
        hasher.write(etag.value().as_bytes());
        // 0 means that there is no hash.
        hasher.finish() | 1
    }
}

/// Answers `GET /v1/events`.
pub struct Events {
    lookups: Arc<Lookups>,
    changes: Arc<Changes>,
    clock: Clock,
    metrics: Arc<Metrics>,
    meter: EventsMeter,
    logs: Mutex<HashMap<Arc<str>, Arc<Mutex<CallerLog>>>>,
    /// The bytes of all logs.
    bytes: AtomicU64,
    let_go: AtomicU64,
}

impl Events {
    pub(super) fn new(of: &Ingredients, lookups: Arc<Lookups>, changes: Arc<Changes>) -> Self {
        Self {
            lookups,
            changes,
            clock: of.clock.clone(),
            meter: of.metrics.events.clone(),
            metrics: of.metrics.clone(),
            logs: Mutex::default(),
            bytes: AtomicU64::new(0),
            let_go: AtomicU64::new(0),
        }
    }

    /// Records that this caller got this answer. Takes a few instructions if it got the same answer
    /// before.
    pub fn note(
        &self,
        asker: &Asker,
        asked: AskedAt<'_>,
        answer: &Answer,
        lookup: impl FnOnce() -> Lookup,
    ) {
        let Some(etag) = &answer.etag else { return };
        let mixed = asked.mixed(etag);
        let known = asker.caller.presence.knows_target(mixed);
        if known.load(Ordering::Relaxed) != mixed {
            self.remember(asker, asked, answer, (etag, mixed), lookup());
            known.store(mixed, Ordering::Relaxed);
        }
    }

    #[cold]
    fn remember(
        &self,
        asker: &Asker,
        asked: AskedAt<'_>,
        answer: &Answer,
        (etag, mixed): (&Etag, u64),
        lookup: Lookup,
    ) {
        let is_page = matches!(&lookup, Lookup::Search(search) if search.is_continuation());
        let Ok(body) = str::from_utf8(asked.body) else {
            return;
        };
        let body = match lookup {
            Lookup::Search(_) => body,
            _ => "",
        };
        if is_page || asked.target.len() + body.len() > TARGET_BYTES_MAX {
            return;
        }
        let as_of = self.as_of(answer);
        let log = self.log_of(&asker.caller);
        let out_of_date = self.with(&log, |log| match log.find(asked.target, body) {
            Some(at) => {
                self.learn(log, at, answer, etag, as_of);
                log.asked_again(at, mixed)
            }
            None => {
                let etag = etag.clone();
                log.add(TargetState::new(lookup, asked.target, body, etag, mixed))
            }
        });
        if let Some(hash) = out_of_date {
            // The evicted target, or the earlier answer, may come again.
            asker.caller.presence.forget_target(hash);
        }
        self.make_room(&log);
    }

    fn learn(
        &self,
        log: &mut CallerLog,
        at: usize,
        answer: &Answer,
        etag: &Etag,
        as_of: Timestamp,
    ) {
        if log.learn(at, &answer.body, etag, as_of) {
            self.meter.changed();
        }
    }

    fn as_of(&self, answer: &Answer) -> Timestamp {
        let now = self.clock.wall();
        let age = jiff::SignedDuration::try_from(answer.age).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    }

    /// Changes a log, and updates the count of bytes.
    fn with<T>(&self, log: &Mutex<CallerLog>, change: impl FnOnce(&mut CallerLog) -> T) -> T {
        let mut log = log.lock();
        let before = log.bytes() as u64;
        let changed = change(&mut log);
        // An evicted log no longer counts.
        if !log.let_go {
            self.bytes.fetch_add(log.bytes() as u64, Ordering::Relaxed);
            self.bytes.fetch_sub(before, Ordering::Relaxed);
        }
        changed
    }

    /// Returns the log of a caller. A new audience starts a new log.
    fn log_of(&self, caller: &Caller) -> Arc<Mutex<CallerLog>> {
        let audience = caller.audience.fingerprint();
        let now = self.clock.now();
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&caller.name) {
            let mut known = log.lock();
            if known.audience == audience {
                known.used = now;
                drop(known);
                return log.clone();
            }
        }
        caller.presence.forget_targets();
        let log = CallerLog::new(audience, now);
        self.bytes.fetch_add(log.bytes() as u64, Ordering::Relaxed);
        let log = Arc::new(Mutex::new(log));
        if let Some(before) = logs.insert(caller.name.clone(), log.clone()) {
            self.end(&before);
        }
        log
    }

    fn end(&self, log: &Mutex<CallerLog>) {
        let mut log = log.lock();
        log.let_go = true;
        self.bytes.fetch_sub(log.bytes() as u64, Ordering::Relaxed);
    }

    /// Evicts the least recently used logs until the limit holds, but never `newest`.
    fn make_room(&self, newest: &Arc<Mutex<CallerLog>>) {
        while self.bytes.load(Ordering::Relaxed) > LOGS_BYTES_MAX {
            let mut logs = self.logs.lock();
            let others = logs.iter().filter(|(_, log)| !Arc::ptr_eq(log, newest));
            let oldest = others.min_by_key(|(_, log)| log.lock().used);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            if let Some(log) = logs.remove(&name) {
                self.end(&log);
                self.let_go.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns how full the logs are. An entry is a caller.
    pub fn usage(&self) -> StoreUsage {
        StoreUsage {
            entries: self.logs.lock().len() as u64,
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: LOGS_BYTES_MAX,
            evicted: self.let_go.load(Ordering::Relaxed),
        }
    }

    /// Starts a stream.
    ///
    /// # Errors
    /// [`ReadError::BillingNotAllowed`]
    pub fn begin(
        self: &Arc<Self>,
        asker: &Asker,
        request: EventsRequest,
    ) -> Result<EventStream, ReadError> {
        let billing = asker.caller.billing;
        let kinds = match request.kinds {
            Some(kinds) if kinds.contains(&Kind::Billing) && !billing => {
                return Err(ReadError::BillingNotAllowed);
            }
            Some(kinds) => kinds,
            None => {
                let seen = |kind: &Kind| *kind != Kind::Billing || billing;
                Kind::ALL.into_iter().filter(seen).collect()
            }
        };
        let log = self.log_of(&asker.caller);
        let (told, opening) = {
            let mut log = log.lock();
            // The first look finds changes since the last stream ended.
            log.looked = None;
            let last = log.last();
            let told = match &request.last_id {
                None => Some(last),
                Some(id) => log.number_of(id),
            };
            let id = log.id(told.unwrap_or(last));
            let opening = match told {
                Some(_) => format!(": open\nid: {id}\n\n"),
                None => format!("event: reset\nid: {id}\ndata: {{}}\n\n"),
            };
            if told.is_none() {
                self.meter.reset();
            }
            (told.unwrap_or(last), opening)
        };
        let now = self.clock.now();
        Ok(EventStream {
            events: Arc::downgrade(self),
            clock: self.clock.clone(),
            leaving: self.changes.leaving(),
            asker: Asker {
                caller: asker.caller.clone(),
                payer: Payer::gateway(),
                deadline: now,
                directives: Directives {
                    only_if_cached: true,
                    ..Directives::default()
                },
            },
            log,
            kinds,
            told,
            opening: Some(opening),
            comment_at: now + COMMENT_EVERY,
            until: now + STREAM_TIME_MAX,
        })
    }

    /// Looks up a caller's targets, unless another of its streams has just done so or nothing can
    /// have changed.
    async fn look(&self, asker: &mut Asker, log: &Mutex<CallerLog>) {
        let now = self.clock.now();
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_early = |at| since(at) < LOOK_EVERY;
        if log.lock().looked.is_some_and(is_early) {
            return;
        }
        let attempts = |vendor| self.metrics.vendor_attempts(vendor).0;
        let calls = Vendor::ALL.into_iter().map(attempts).sum();
        let lookups: Vec<(Lookup, Box<str>, Box<str>)> = {
            let mut log = log.lock();
            if log.calls != calls {
                (log.calls, log.moved) = (calls, now);
            }
            let is_due = since(log.moved) <= SETTLE
                || log.looked.is_none_or(|at| since(at) >= COMMENT_EVERY);
            if !is_due {
                return;
            }
            log.looked = Some(now);
            let of = |state: &TargetState| {
                let (target, body) = (state.target.clone(), state.body.clone());
                (state.lookup.clone(), target, body)
            };
            log.targets().map(of).collect()
        };
        for (lookup, target, body) in lookups {
            asker.deadline = self.clock.now() + LOOKUP_TIME_MAX;
            let found = clock::timeout(LOOKUP_TIME_MAX, self.lookups.peek(asker, &lookup)).await;
            let Ok(Some(answer)) = found else { continue };
            let Some(etag) = &answer.etag else { continue };
            let as_of = self.as_of(&answer);
            self.with(log, |log| {
                if let Some(at) = log.find(&target, &body) {
                    self.learn(log, at, &answer, etag, as_of);
                    log.look(at, &answer.body);
                }
            });
        }
    }
}

/// One stream of events.
pub struct EventStream {
    events: Weak<Events>,
    clock: Clock,
    leaving: watch::Receiver<bool>,
    asker: Asker,
    log: Arc<Mutex<CallerLog>>,
    kinds: Vec<Kind>,
    /// The number of the last event that was sent or skipped.
    told: u64,
    opening: Option<String>,
    comment_at: Instant,
    until: Instant,
}

impl EventStream {
    /// Returns the next bytes. `None` at the end: the gateway is draining, or the stream's time is
    /// over.
    pub async fn next(&mut self) -> Option<Result<Bytes, FellBehind>> {
        if let Some(opening) = self.opening.take() {
            return Some(Ok(opening.into()));
        }
        loop {
            match self.untold() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(text.into())),
                Err(behind) => {
                    if let Some(events) = self.events.upgrade() {
                        events.meter.cut();
                    }
                    return Some(Err(behind));
                }
            }
            let now = self.clock.now();
            if *self.leaving.borrow() || now >= self.until {
                return None;
            }
            if now >= self.comment_at {
                self.comment_at = now + COMMENT_EVERY;
                // The comment carries an id, so that a reader of few kinds does not fall behind the
                // events of other kinds.
                let id = self.log.lock().id(self.told);
                return Some(Ok(format!(": still here\nid: {id}\n\n").into()));
            }
            let events = self.events.upgrade()?;
            let mut leaving = self.leaving.clone();
            tokio::select! {
                () = events.look(&mut self.asker, &self.log) => {}
                // Its sender lives as long as the gateway.
                _ = leaving.wait_for(|leaving| *leaving) => continue,
            }
            drop(events);
            if self.log.lock().last() > self.told {
                continue;
            }
            let next = (self.clock.now() + LOOK_EVERY).min(self.comment_at);
            tokio::select! {
                () = clock::sleep_until(next) => {}
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        }
    }

    /// Returns the events that were not sent yet.
    fn untold(&mut self) -> Result<String, FellBehind> {
        let log = self.log.lock();
        let text = log.after(self.told, &self.kinds)?;
        self.told = log.last();
        Ok(text)
    }
}
