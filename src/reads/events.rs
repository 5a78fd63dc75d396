//! Tells a caller which of the answers that it got have changed since.
//!
//! Each caller has a log: the targets it was answered for, each with the tag of its last answer, and
//! the last events. While a caller has a stream open, its targets are looked at whenever a vendor was
//! asked something: what this caller would get now, from memory alone, is compared with what it got.
//! So rows outside its audience cannot show, and no vendor is called for a stream.
//!
//! A stream reads the log at its reader's pace and holds nothing itself. A reader that falls behind
//! the log is cut.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::fast::FixedState;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answer::{Answer, Asker, Etag};
use super::billing::Billing;
use super::cases::{Cases, Search};
use super::changes::Changes;
use super::customers::Customers;
use super::{Ingredients, ReadError};
use crate::access::Caller;
use crate::admission::Payer;
use crate::cache::Directives;
use crate::clock::{self, Clock, Duration, Instant};
use crate::domain::audience::AudienceFingerprint;
use crate::domain::json::write_text;
use crate::domain::{ContractId, FieldSet, Kind, Month, Vendor};
use crate::metrics::Metrics;

/// Targets remembered of a caller; the one that was asked longest ago goes first.
const TARGETS_MAX: usize = 64;
/// Longest target and body remembered, together, in bytes. Others give no events.
const TARGET_BYTES_MAX: usize = 2 * 1024;
/// Events of a caller that can be told again.
const HISTORY_MAX: usize = 256;
/// How often a stream looks. A change is told so much later at most.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after a vendor's answer targets are still looked at: so long its reading may take.
const SETTLE: Duration = Duration::from_secs(5);
/// A comment is sent so often, so that nobody in between takes the connection for dead.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// A stream ends after so long; its reader comes back by itself and is authenticated anew.
const STREAM_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// Looking into memory takes no time; what would wait is passed over.
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// Every hit is hashed, so this is a fast hash.
const HASHER: FixedState = FixedState::with_seed(0);

/// What a stream is to tell.
#[derive(Clone, Debug)]
pub struct EventsRequest {
    /// These kinds only; `None`: all that the caller may see.
    pub kinds: Option<Vec<Kind>>,
    /// The id of the last event that the reader has.
    pub last_id: Option<String>,
}

/// A question that can be looked up again.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The customer list.
    Customers(FieldSet),
    /// A first page of a search.
    Search(Arc<Search>),
    /// Billable services.
    Services(Month, ContractId),
    /// Invoices of a month.
    Month(Month),
}

impl Lookup {
    fn kind(&self) -> Kind {
        match self {
            Self::Customers(_) => Kind::Customers,
            Self::Search(_) => Kind::Cases,
            Self::Services(..) | Self::Month(_) => Kind::Billing,
        }
    }
}

/// Where a question was asked.
#[derive(Clone, Copy, Debug)]
pub struct AskedAt<'a> {
    /// Path and query, as sent.
    pub target: &'a str,
    /// The body, as sent; only a search's says anything.
    pub body: &'a [u8],
}

impl AskedAt<'_> {
    /// Tells this question with this answer from others. A caller that finds two that are alike
    /// misses events of its own.
    fn mixed(&self, etag: &Etag) -> u64 {
        let mut hasher = HASHER.build_hasher();
        hasher.write(self.target.as_bytes());
        hasher.write(self.body);
        hasher.write(etag.value().as_bytes());
        // 0 stands for nothing.
        hasher.finish() | 1
    }
}

/// One target of a caller.
struct TargetState {
    lookup: Lookup,
    target: Box<str>,
    body: Box<str>,
    etag: Etag,
    /// The answer without its page token, which names a snapshot and says nothing of the rows.
    content: blake3::Hash,
}

struct Happened {
    kind: Kind,
    data: String,
}

/// What is known of a caller.
struct CallerLog {
    audience: AudienceFingerprint,
    /// Tells this log's ids from those of others and of other processes.
    epoch: u64,
    /// The least recently asked first.
    targets: VecDeque<TargetState>,
    history: VecDeque<Happened>,
    /// Of the last event.
    last: u64,
    /// Calls to vendors that had ended at the last look, and when that number last went up.
    calls: u64,
    moved: Instant,
    looked: Option<Instant>,
}

impl CallerLog {
    fn new(audience: AudienceFingerprint, now: Instant) -> Self {
        Self {
            audience,
            epoch: fastrand::u64(..),
            targets: VecDeque::new(),
            history: VecDeque::new(),
            last: 0,
            calls: 0,
            moved: now,
            looked: None,
        }
    }

    /// The number before the first event that is kept.
    fn before_history(&self) -> u64 {
        self.last - self.history.len() as u64
    }

    fn happened(&mut self, kind: Kind, data: String) {
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.last += 1;
        self.history.push_back(Happened { kind, data });
    }

    /// Takes over the answer to a question. An event, if it is another than before.
    fn learn(&mut self, at: usize, answer: &Answer, etag: &Etag, as_of: Timestamp) {
        let Some(state) = self.targets.get_mut(at) else {
            return;
        };
        if state.etag == *etag {
            return;
        }
        state.etag = etag.clone();
        let content = content_of(&answer.body);
        if std::mem::replace(&mut state.content, content) == content {
            return;
        }
        let (kind, data) = (state.lookup.kind(), data_of(state, as_of));
        self.happened(kind, data);
    }
}

/// The members of an event.
fn data_of(state: &TargetState, as_of: Timestamp) -> String {
    let kind = state.lookup.kind().as_str();
    let mut data = format!("{{\"kind\":\"{kind}\",\"target\":");
    write_text(&state.target, &mut data);
    if !state.body.is_empty() {
        data.push_str(",\"body\":");
        write_text(&state.body, &mut data);
    }
    data.push_str(",\"etag\":");
    write_text(state.etag.value().to_str().unwrap_or_default(), &mut data);
    let _ = write!(data, ",\"as_of\":\"{as_of:.3}\"}}");
    data
}

/// A hash of an answer but for its page token.
fn content_of(body: &[u8]) -> blake3::Hash {
    const TOKEN: &[u8] = b"\"next_page_key\":{\"scroll_id\":\"";
    let begin = memchr::memmem::rfind(body, TOKEN).map(|at| at + TOKEN.len());
    let parts = begin.and_then(|at| body.split_at_checked(at));
    let Some((before, after)) = parts else {
        return blake3::hash(body);
    };
    let end = after.iter().position(|byte| *byte == b'"').unwrap_or(0);
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(after.get(end..).unwrap_or_default());
    hasher.finalize()
}

/// Answers `GET /v1/events`.
pub struct Events {
    customers: Arc<Customers>,
    cases: Arc<Cases>,
    billing: Arc<Billing>,
    changes: Arc<Changes>,
    clock: Clock,
    metrics: Arc<Metrics>,
    logs: Mutex<HashMap<Arc<str>, Arc<Mutex<CallerLog>>>>,
}

impl Events {
    pub(super) fn new(
        of: &Ingredients,
        customers: Arc<Customers>,
        cases: Arc<Cases>,
        billing: Arc<Billing>,
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            customers,
            cases,
            billing,
            changes,
            clock: of.clock.clone(),
            metrics: of.metrics.clone(),
            logs: Mutex::default(),
        }
    }

    /// Remembers that this caller got this answer. Costs a few instructions where it got the same
    /// one before.
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
            self.remember(asker, asked, answer, etag, lookup(), (known, mixed));
        }
    }

    #[cold]
    fn remember(
        &self,
        asker: &Asker,
        asked: AskedAt<'_>,
        answer: &Answer,
        etag: &Etag,
        lookup: Lookup,
        (known, mixed): (&AtomicU64, u64),
    ) {
        let is_page = matches!(&lookup, Lookup::Search(search) if search.is_continuation());
        let Ok(body) = str::from_utf8(asked.body) else {
            return;
        };
        let body = match lookup.kind() {
            Kind::Cases => body,
            Kind::Customers | Kind::Billing => "",
        };
        if is_page || asked.target.len() + body.len() > TARGET_BYTES_MAX {
            return;
        }
        let as_of = self.as_of(answer);
        let log = self.log_of(&asker.caller);
        let mut log = log.lock();
        let mut states = log.targets.iter();
        let is_it = |state: &TargetState| *state.target == *asked.target && *state.body == *body;
        match states.position(is_it) {
            Some(at) => {
                log.learn(at, answer, etag, as_of);
                if let Some(state) = log.targets.remove(at) {
                    log.targets.push_back(state);
                }
            }
            None => {
                if log.targets.len() >= TARGETS_MAX {
                    log.targets.pop_front();
                    // It may be asked again.
                    asker.caller.presence.forget_targets();
                }
                log.targets.push_back(TargetState {
                    lookup,
                    target: asked.target.into(),
                    body: body.into(),
                    etag: etag.clone(),
                    content: content_of(&answer.body),
                });
            }
        }
        known.store(mixed, Ordering::Relaxed);
    }

    fn as_of(&self, answer: &Answer) -> Timestamp {
        let now = self.clock.wall();
        let age = jiff::SignedDuration::try_from(answer.age).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    }

    /// The log of a caller, which begins anew when its audience is another.
    fn log_of(&self, caller: &Caller) -> Arc<Mutex<CallerLog>> {
        let audience = caller.audience.fingerprint();
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&caller.name)
            && log.lock().audience == audience
        {
            return log.clone();
        }
        caller.presence.forget_targets();
        let log = Arc::new(Mutex::new(CallerLog::new(audience, self.clock.now())));
        logs.insert(caller.name.clone(), log.clone());
        log
    }

    /// Begins a stream.
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
            // What changed while nobody read is found by the first look.
            log.looked = None;
            let last = log.last;
            let told = match &request.last_id {
                None => Some(last),
                Some(id) => told_of(id, log.epoch)
                    .filter(|told| (log.before_history()..=last).contains(told)),
            };
            let id = format!("{:016x}-{}", log.epoch, told.unwrap_or(last));
            let opening = match told {
                Some(_) => format!(": open\nid: {id}\n\n"),
                None => format!("event: reset\nid: {id}\ndata: {{}}\n\n"),
            };
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

    /// Looks at a caller's targets, unless another of its streams has just done so, or nothing can
    /// have changed.
    async fn look(&self, asker: &mut Asker, log: &Mutex<CallerLog>) {
        let now = self.clock.now();
        let attempts = |vendor| self.metrics.vendor_attempts(vendor).0;
        let calls = attempts(Vendor::Wiv) + attempts(Vendor::Nable);
        let lookups: Vec<(Lookup, Box<str>, Box<str>)> = {
            let mut log = log.lock();
            if log.calls != calls {
                (log.calls, log.moved) = (calls, now);
            }
            let is_due = match log.looked {
                None => true,
                Some(at) => {
                    now.saturating_duration_since(at) >= LOOK_EVERY
                        && now.saturating_duration_since(log.moved) <= SETTLE
                }
            };
            if !is_due {
                return;
            }
            log.looked = Some(now);
            let of = |state: &TargetState| {
                let (target, body) = (state.target.clone(), state.body.clone());
                (state.lookup.clone(), target, body)
            };
            log.targets.iter().map(of).collect()
        };
        for (lookup, target, body) in lookups {
            asker.deadline = self.clock.now() + LOOK_TIME_MAX;
            let Some(answer) = self.now(asker, &lookup).await else {
                continue;
            };
            let Some(etag) = &answer.etag else { continue };
            let as_of = self.as_of(&answer);
            let mut log = log.lock();
            let is_it = |s: &TargetState| s.target == target && s.body == body;
            if let Some(at) = log.targets.iter().position(is_it) {
                log.learn(at, &answer, etag, as_of);
            }
        }
    }

    /// What memory would answer now.
    async fn now(&self, asker: &Asker, lookup: &Lookup) -> Option<Answer> {
        match lookup {
            Lookup::Customers(fields) => self.customers.peek(asker, *fields).await,
            Lookup::Search(search) => self.cases.peek(asker, search).await,
            Lookup::Services(month, contract) => {
                let found = self.billing.find_services(asker, *month, contract).await;
                self.billing.peeked(found)
            }
            Lookup::Month(month) => {
                let found = self.billing.find_month(asker, *month).await;
                self.billing.peeked(found)
            }
        }
    }
}

/// The number in an id of this log.
fn told_of(id: &str, epoch: u64) -> Option<u64> {
    let (of, number) = id.split_once('-')?;
    let plain = number.bytes().all(|b| b.is_ascii_digit());
    (of == format!("{epoch:016x}") && plain).then(|| number.parse().ok())?
}

/// A reader fell behind what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FellBehind;

/// One stream of events.
pub struct EventStream {
    events: Weak<Events>,
    clock: Clock,
    leaving: watch::Receiver<bool>,
    asker: Asker,
    log: Arc<Mutex<CallerLog>>,
    kinds: Vec<Kind>,
    /// The last event that was told or passed over.
    told: u64,
    opening: Option<String>,
    comment_at: Instant,
    until: Instant,
}

impl EventStream {
    /// The next bytes. `None` at the end: the gateway leaves, or the time of a stream is over.
    pub async fn next(&mut self) -> Option<Result<Bytes, FellBehind>> {
        if let Some(opening) = self.opening.take() {
            return Some(Ok(opening.into()));
        }
        loop {
            match self.untold() {
                Ok(text) if text.is_empty() => {}
                told => return Some(told.map(Bytes::from)),
            }
            let now = self.clock.now();
            if *self.leaving.borrow() || now >= self.until {
                return None;
            }
            if now >= self.comment_at {
                self.comment_at = now + COMMENT_EVERY;
                return Some(Ok(Bytes::from_static(b": still here\n\n")));
            }
            self.events
                .upgrade()?
                .look(&mut self.asker, &self.log)
                .await;
            if self.log.lock().last > self.told {
                continue;
            }
            let next = (self.clock.now() + LOOK_EVERY).min(self.comment_at);
            tokio::select! {
                () = clock::sleep_until(next) => {}
                // Its sender lives as long as the gateway.
                _ = self.leaving.wait_for(|leaving| *leaving) => {}
            }
        }
    }

    /// The events that were not told yet.
    fn untold(&mut self) -> Result<String, FellBehind> {
        let log = self.log.lock();
        let before = log.before_history();
        if self.told < before {
            return Err(FellBehind);
        }
        let mut text = String::new();
        for (number, event) in (before + 1..).zip(&log.history) {
            if number > self.told && self.kinds.contains(&event.kind) {
                let (epoch, data) = (log.epoch, &event.data);
                let _ = write!(
                    text,
                    "event: changed\nid: {epoch:016x}-{number}\ndata: {data}\n\n"
                );
            }
        }
        self.told = log.last;
        Ok(text)
    }
}
