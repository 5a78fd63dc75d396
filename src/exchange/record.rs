//! What is known about a request so far, for metrics, the access log and the answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue, Method, Uri};

use super::call::PeerIdentity;
use super::mentions::{Mention, Mentions};
use crate::access::Caller;
use crate::admission::{Payer, trace_id};
use crate::cache::{CacheNote, Detail, Forward};
use crate::clock::{Clock, Duration, Instant};
use crate::domain::{CacheOutcome, Route, Shortage};
use crate::history::{FinishedRequest, History};
use crate::telemetry::{AccessEntry, AccessTimes, LogSink, logged_path};
use crate::traces::{LiveTrace, SpanDraft, SpanKind, Traces};

/// Id of one request: 128 random bits in hex. The gateway makes it itself and never takes the
/// caller's, so it is unique and safe in every log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// Creates a random id. It is not a secret, so a fast generator is enough.
    pub fn fresh() -> Self {
        let mut out = [b'0'; 32];
        for half in out.chunks_exact_mut(16) {
            let random = fastrand::u64(..);
            let (first, second) = half.split_at_mut(8);
            first.copy_from_slice(&hex(random as u32));
            second.copy_from_slice(&hex((random >> 32) as u32));
        }
        Self(out)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        // Hex digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or("")
    }

    /// Returns the id as bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Returns the value of `X-Request-Id`.
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Returns eight hex digits, the lowest first. All are computed at once, because every request
/// needs four times as many.
fn hex(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in the bytes that must become letters. Letters are 39 further in ASCII than the digits
    // would be.
    let letters = ((digits + 6 * ONES) >> 4) & ONES;
    (digits + u64::from(b'0') * ONES + letters * 39).to_le_bytes()
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Status recorded for a request whose caller left before the head of the answer. nginx uses the
/// same number.
pub const CALLER_LEFT: u16 = 499;

/// Header with the [`RequestId`].
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known about a request so far. The layers fill it in. It is read at the request's end,
/// however it ends.
#[derive(Debug)]
pub struct Record {
    /// The request's id.
    pub id: RequestId,
    /// When the head was complete.
    pub arrived: Instant,
    /// When the answer is due.
    pub deadline: Instant,
    /// The method, as sent.
    pub method: Method,
    /// The target, as sent. Only its path is ever logged.
    pub target: Uri,
    /// Which headers the request has.
    pub mentions: Mentions,
    /// The other end of the connection.
    pub peer: Arc<PeerIdentity>,
    /// The `traceparent` to send to vendors: the caller's trace with a span of our own.
    pub traceparent: Option<HeaderValue>,
    /// `Some` if the request is sampled.
    pub trace: Option<Arc<LiveTrace>>,
    route: Noted,
    payer: OnceLock<(Arc<Caller>, Arc<Payer>)>,
    cache: NotedCache,
    code: OnceLock<&'static str>,
    shortage: OnceLock<Shortage>,
}

/// A word from a closed set, set once. Layers run one after the other, so a plain store is enough.
#[derive(Debug, Default)]
struct Noted(AtomicU8);

impl Noted {
    /// Sets the word. Does nothing if one is set.
    fn set(&self, number: u8) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(number + 1, Ordering::Relaxed);
        }
    }

    /// Returns the word from `all`, which lists the set in the order of its numbers.
    fn of<T: Copy>(&self, all: &[T]) -> Option<T> {
        let at = usize::from(self.0.load(Ordering::Relaxed)).checked_sub(1)?;
        all.get(at).copied()
    }
}

/// How the cache answered, packed into one word: the outcome counted from one, the words of a
/// [`CacheNote`] counted from one, and the remaining freshness in 32 bits.
#[derive(Debug, Default)]
struct NotedCache(AtomicU64);

impl NotedCache {
    const HAS_NOTE: u64 = 1 << 8;
    const STORED: u64 = 1 << 9;
    const COLLAPSED: u64 = 1 << 10;
    const HAS_TTL: u64 = 1 << 11;
    const FORWARD_AT: u32 = 12;
    const DETAIL_AT: u32 = 16;
    const TTL_AT: u32 = 32;

    fn packed(note: &CacheNote) -> u64 {
        let CacheNote {
            outcome,
            forward,
            stored,
            collapsed,
            ttl_s,
            detail,
        } = *note;
        let mut word = (outcome as u64 + 1) | Self::HAS_NOTE;
        word |= forward.map_or(0, |f| f as u64 + 1) << Self::FORWARD_AT;
        word |= detail.map_or(0, |d| d as u64 + 1) << Self::DETAIL_AT;
        if stored {
            word |= Self::STORED;
        }
        if collapsed {
            word |= Self::COLLAPSED;
        }
        if let Some(ttl_s) = ttl_s {
            let ttl_s = ttl_s.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            word |= Self::HAS_TTL | u64::from(ttl_s.cast_unsigned()) << Self::TTL_AT;
        }
        word
    }

    /// Sets the packed note. Does nothing if one is set.
    fn set(&self, word: u64) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(word, Ordering::Relaxed);
        }
    }

    fn outcome(&self) -> Option<CacheOutcome> {
        let at = (self.0.load(Ordering::Relaxed) & 0xff) as usize;
        CacheOutcome::ALL.get(at.checked_sub(1)?).copied()
    }

    fn note(&self) -> Option<CacheNote> {
        let word = self.0.load(Ordering::Relaxed);
        let has = |bit: u64| word & bit != 0;
        let at = |place: u32| ((word >> place & 0xf) as usize).checked_sub(1);
        if !has(Self::HAS_NOTE) {
            return None;
        }
        Some(CacheNote {
            outcome: self.outcome()?,
            forward: at(Self::FORWARD_AT).and_then(|at| Forward::ALL.get(at).copied()),
            stored: has(Self::STORED),
            collapsed: has(Self::COLLAPSED),
            ttl_s: has(Self::HAS_TTL)
                .then(|| i64::from(((word >> Self::TTL_AT) as u32).cast_signed())),
            detail: at(Self::DETAIL_AT).and_then(|at| Detail::ALL.get(at).copied()),
        })
    }
}

impl Record {
    /// Creates a record of a request of which only the head is known.
    pub fn new(
        head: &http::request::Parts,
        peer: Arc<PeerIdentity>,
        arrived: Instant,
        deadline: Instant,
        traces: &Traces,
    ) -> Arc<Self> {
        let mentions = Mentions::of(&head.headers);
        let id = RequestId::fresh();
        let continued = match mentions.has(Mention::Traceparent) {
            true => super::trace::continued(&head.headers),
            false => None,
        };
        Arc::new(Self {
            id,
            arrived,
            deadline,
            method: head.method.clone(),
            target: head.uri.clone(),
            mentions,
            peer,
            trace: traces.begin(continued.as_ref(), &id.0),
            traceparent: continued.map(|trace| trace.header),
            route: Noted::default(),
            payer: OnceLock::new(),
            cache: NotedCache::default(),
            code: OnceLock::new(),
            shortage: OnceLock::new(),
        })
    }

    /// Sets the route. Does nothing if one is set.
    pub fn set_route(&self, route: Route) {
        self.route.set(route as u8);
    }

    /// Returns the route, or `Other` while it is unknown.
    pub fn route(&self) -> Route {
        self.route.of(&Route::ALL).unwrap_or(Route::Other)
    }

    /// Returns the path as it is logged.
    fn logged_path(&self) -> Cow<'static, str> {
        match self.route().fixed_path() {
            Some(fixed) => Cow::Borrowed(fixed),
            None => Cow::Owned(logged_path(&self.target)),
        }
    }

    /// Sets caller and payer.
    pub fn set_caller(&self, caller: Arc<Caller>, payer: Arc<Payer>) {
        let _ = self.payer.set((caller, payer));
    }

    /// Returns the caller, once authenticated.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.payer.get().map(|(caller, _)| caller)
    }

    /// Sets how the cache failed to answer.
    pub fn set_cache(&self, outcome: CacheOutcome) {
        self.cache.set(outcome as u64 + 1);
    }

    /// Sets how the cache answered.
    pub fn set_note(&self, note: &CacheNote) {
        self.cache.set(NotedCache::packed(note));
    }

    /// Returns how the cache answered, if it was used.
    pub fn cache(&self) -> Option<CacheOutcome> {
        self.cache.outcome()
    }

    /// Sets the code of the problem in the answer.
    pub fn set_code(&self, code: &'static str) {
        let _ = self.code.set(code);
    }

    /// Sets what the gateway was short of when it refused the request unread.
    pub fn set_shortage(&self, shortage: Shortage) {
        let _ = self.shortage.set(shortage);
    }

    /// Returns what the gateway was short of, if it refused the request unread.
    pub fn shortage(&self) -> Option<Shortage> {
        self.shortage.get().copied()
    }

    /// Returns the code of the problem in the answer, if there is one.
    pub fn code(&self) -> Option<&'static str> {
        self.code.get().copied()
    }

    /// Returns how the request's time was spent. `None` if it caused no wait and no vendor call.
    fn spent(&self, took: Duration) -> Option<Box<AccessTimes>> {
        let (_, payer) = self.payer.get()?;
        let spent = payer.story.spent(self.arrived, took)?;
        Some(Box::new(AccessTimes {
            waited: spent.slot + spent.budget + spent.pause,
            vendor: spent.vendor,
            own: spent.own,
        }))
    }

    /// Returns the id of the caller's trace if it sent one, or of our own if the request is
    /// sampled.
    pub fn trace_id(&self) -> Option<&str> {
        match (&self.traceparent, &self.trace) {
            (Some(header), _) => trace_id(header),
            (None, Some(_)) => Some(self.id.as_str()),
            (None, None) => None,
        }
    }

    /// Returns the number of vendor requests made for it so far.
    pub fn vendor_calls(&self) -> u32 {
        self.payer.get().map_or(0, |(_, payer)| payer.calls())
    }
}

/// Where the end of a request is written.
#[derive(Debug)]
pub struct Ends {
    /// The access log.
    pub log: LogSink,
    /// The last requests.
    pub history: Arc<History>,
    /// The clock for its end.
    pub clock: Clock,
}

/// Records the very end of a request. It is part of the answer's body. When it is dropped, it
/// writes the line of the access log and the entry for the console.
#[derive(Debug)]
pub struct Tail {
    ends: Arc<Ends>,
    record: Arc<Record>,
    status: u16,
    took: Duration,
    pub(super) sent_bytes: u64,
    pub(super) whole: bool,
    /// Whether body and head were ready together.
    pub(super) at_once: bool,
}

impl Tail {
    /// Creates the tail of an answer whose head went out `took` after the request's head.
    pub fn new(ends: Arc<Ends>, record: Arc<Record>, status: u16, took: Duration) -> Self {
        Self {
            ends,
            record,
            status,
            took,
            sent_bytes: 0,
            whole: false,
            at_once: false,
        }
    }
}

impl Tail {
    /// Adds the request to the recent ones.
    fn remember(&self, ended: Option<Instant>) {
        let requests = &self.ends.history.requests;
        if requests.is_off() {
            return;
        }
        let record = &self.record;
        let lasted = match ended {
            Some(_) => self.took,
            None => self
                .ends
                .clock
                .now()
                .saturating_duration_since(record.arrived),
        };
        let outcome = record.cache();
        let payer = record.payer.get();
        let told = FinishedRequest::has_story(self.status, outcome, lasted);
        let path = match record.route().fixed_path() {
            Some(_) => None,
            None => Some(FinishedRequest::kept_path(record.target.path())),
        };
        requests.put(FinishedRequest {
            id: record.id.0,
            arrived: record.arrived,
            took: self.took,
            lasted,
            method: record.method.clone(),
            route: record.route(),
            path,
            caller: payer.map(|(caller, _)| caller.name.clone()),
            peer: record.peer.address.map(|address| address.ip()),
            status: self.status,
            code: record.code.get().copied(),
            outcome,
            note: record.cache.note(),
            sent_bytes: self.sent_bytes,
            whole: self.whole || record.method == Method::HEAD,
            payer: payer.filter(|_| told).map(|(_, payer)| payer.clone()),
        });
    }
}

/// Methods that a span names. Any other text is recorded as `_OTHER`, as the conventions ask.
const SPAN_METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "QUERY", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT",
];

impl Tail {
    /// Returns the request's own span. It holds no text that the caller wrote.
    fn span(&self, ended: Option<Instant>) -> SpanDraft {
        let record = &self.record;
        let lasted = match ended {
            Some(_) => self.took,
            None => {
                let now = self.ends.clock.now();
                now.saturating_duration_since(record.arrived)
            }
        };
        let sent = record.method.as_str();
        let method = SPAN_METHODS.into_iter().find(|known| *known == sent);
        let route = record.route().template();
        let name: Cow<'static, str> = match (method, route) {
            (Some(method), Some(route)) => format!("{method} {route}").into(),
            (Some(method), None) => method.into(),
            (None, _) => "HTTP".into(),
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let code = record.code.get().copied();
        let answered = Some(self.status).filter(|status| *status != CALLER_LEFT);
        let draft = SpanDraft::new(name, SpanKind::Server, record.arrived, lasted)
            .with("http.request.method", method.unwrap_or("_OTHER"))
            .with_some("http.route", route)
            // Path parameters are text of the caller. The access line has them.
            .with_some("url.path", record.route().fixed_path())
            .with(
                "url.scheme",
                if record.peer.secure { "https" } else { "http" },
            )
            .with_some("http.response.status_code", answered)
            .with("http.response.body.size", self.sent_bytes)
            .with_some(
                "client.address",
                record.peer.address.map(|address| address.ip()),
            )
            .with(
                "msp_gateway.request_id",
                Arc::<str>::from(record.id.as_str()),
            )
            .with(
                "msp_gateway.caller",
                match record.caller() {
                    Some(caller) => caller.name.clone(),
                    None => "anonymous".into(),
                },
            )
            .with(
                "msp_gateway.cache",
                record.cache().map_or("none", CacheOutcome::as_str),
            )
            .with("msp_gateway.vendor_calls", u64::from(record.vendor_calls()))
            .with("msp_gateway.head_ms", millis(self.took))
            .with_some("msp_gateway.code", code);
        match self.status {
            CALLER_LEFT => draft.failed("caller_left"),
            500.. => draft.failed(code.unwrap_or("internal_error")),
            _ => draft,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let record = &self.record;
        // If the request ended when its head went out, the clock need not be read again.
        let ended = (self.whole && self.at_once).then(|| record.arrived + self.took);
        self.remember(ended);
        if let Some(trace) = &record.trace {
            trace.finish(self.span(ended));
        }
        self.ends.log.write(ended, || AccessEntry {
            request_id: record.id.0,
            peer: record.peer.address,
            caller: record.caller().map(|caller| caller.name.clone()),
            route: record.route(),
            method: record.method.clone(),
            path: record.logged_path(),
            status: self.status,
            code: record.code.get().copied(),
            cache: record.cache(),
            took: self.took,
            spent: record.spent(self.took),
            trace_id: record.trace_id().map(Box::from),
            vendor_calls: record.vendor_calls(),
            sent_bytes: self.sent_bytes,
            // A HEAD answer has no body that could be cut.
            whole: self.whole || record.method == Method::HEAD,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_noted_once_by_their_numbers() {
        for (at, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, at);
            let noted = Noted::default();
            assert_eq!(noted.of(&Route::ALL), None);
            noted.set(route as u8);
            noted.set(Route::Other as u8);
            assert_eq!(noted.of(&Route::ALL), Some(route));
        }
        for (at, outcome) in CacheOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }

    #[test]
    fn a_note_comes_back_as_it_was_noted() {
        let forwards = [None, Some(Forward::UriMiss), Some(Forward::Request)];
        let details = Detail::ALL.into_iter().map(Some).chain([None]);
        for detail in details {
            for forward in forwards {
                for ttl_s in [None, Some(0), Some(-1), Some(86_400), Some(-7_776_000)] {
                    let note = CacheNote {
                        outcome: CacheOutcome::Error,
                        forward,
                        stored: ttl_s.is_none(),
                        collapsed: forward.is_some(),
                        ttl_s,
                        detail,
                    };
                    let noted = NotedCache::default();
                    noted.set(NotedCache::packed(&note));
                    noted.set(1);
                    assert_eq!(noted.note(), Some(note));
                    assert_eq!(noted.outcome(), Some(CacheOutcome::Error));
                }
            }
        }
        let noted = NotedCache::default();
        assert_eq!((noted.outcome(), noted.note()), (None, None));
        for outcome in CacheOutcome::ALL {
            let noted = NotedCache::default();
            noted.set(outcome as u64 + 1);
            assert_eq!((noted.outcome(), noted.note()), (Some(outcome), None));
        }
    }

    #[test]
    fn hex_digits_are_those_of_the_number() {
        for number in [
            0,
            1,
            9,
            10,
            15,
            0x89ab_cdef,
            0x0123_4567,
            0xfedc_ba98,
            u32::MAX,
        ] {
            let digits: Vec<u8> = format!("{number:08x}").bytes().rev().collect();
            assert_eq!(hex(number).to_vec(), digits);
        }
    }

    #[test]
    fn request_ids_are_hex_and_differ() {
        let (one, two) = (RequestId::fresh(), RequestId::fresh());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 32);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(one.header_value(), one.as_str());
    }
}
