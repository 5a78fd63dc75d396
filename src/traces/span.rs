//! Spans and their parts.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::LiveTrace;
use crate::clock::{Duration, Instant};

/// Names a trace; never all zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Parses 32 hex digits in lower case. `None` for anything else, and for zeros.
    pub fn of_hex(digits: &[u8; 32]) -> Option<Self> {
        let text = std::str::from_utf8(digits).ok()?;
        let number = u128::from_str_radix(text, 16).ok()?;
        (number != 0).then(|| Self(number.to_be_bytes()))
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names a span; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl SpanId {
    /// Creates a random id. It is not secret, so a fast generator is used.
    pub fn fresh() -> Self {
        Self(fastrand::u64(1..))
    }

    /// Parses 16 hex digits. `None` for anything else, and for zeros.
    pub fn of_hex(digits: &str) -> Option<Self> {
        let number = u64::from_str_radix(digits, 16).ok()?;
        (digits.len() == 16 && number != 0).then_some(Self(number))
    }

    pub(super) fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The side of a call that made the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Neither: something inside the gateway.
    Internal,
    /// The gateway answered.
    Server,
    /// The gateway sent the request.
    Client,
}

/// The value of an attribute. Texts are our own words or names from the settings.
#[derive(Clone, Debug, PartialEq)]
pub enum SpanValue {
    /// One of our own words.
    Word(&'static str),
    /// A name from the settings.
    Name(Arc<str>),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
    /// An address.
    Address(IpAddr),
}

impl From<&'static str> for SpanValue {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<Arc<str>> for SpanValue {
    fn from(name: Arc<str>) -> Self {
        Self::Name(name)
    }
}

impl From<u16> for SpanValue {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for SpanValue {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for SpanValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<IpAddr> for SpanValue {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

/// A span that has ended: its times and attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanDraft {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) begun: Instant,
    pub(super) took: Duration,
    pub(super) failed: bool,
    pub(super) attributes: Vec<(&'static str, SpanValue)>,
}

impl SpanDraft {
    /// Creates a span with a name of our own words.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        begun: Instant,
        took: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            begun,
            took,
            failed: false,
            attributes: Vec::with_capacity(12),
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<SpanValue>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// Adds an attribute if there is a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<SpanValue>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Marks the span as failed: its status is an error, and `error.type` names the error.
    #[must_use]
    pub fn failed(mut self, why: &'static str) -> Self {
        self.failed = true;
        self.with("error.type", why)
    }
}

/// A span in the queue.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FinishedSpan {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub draft: SpanDraft,
}

/// A child span that has begun. If it is dropped without [`Self::end`], no span is recorded.
#[derive(Debug)]
pub struct OpenSpan {
    live: Arc<LiveTrace>,
    id: SpanId,
    parent: Option<SpanId>,
    begun: Instant,
}

impl OpenSpan {
    pub(super) fn new(live: Arc<LiveTrace>, parent: Option<SpanId>, begun: Instant) -> Self {
        Self {
            live,
            id: SpanId::fresh(),
            parent,
            begun,
        }
    }

    /// Returns the id, which names it as the parent of other spans.
    pub fn id(&self) -> SpanId {
        self.id
    }

    /// Ends the span. `describe` gets a draft with its times.
    pub fn end(
        self,
        name: &'static str,
        kind: SpanKind,
        now: Instant,
        describe: impl FnOnce(SpanDraft) -> SpanDraft,
    ) {
        let took = now.saturating_duration_since(self.begun);
        let draft = describe(SpanDraft::new(name, kind, self.begun, took));
        self.live.note(self.id, self.parent, draft);
    }

    /// Ends the span of an operation of the store.
    pub fn end_store(self, operation: &'static str, now: Instant) {
        self.end("store", SpanKind::Internal, now, |draft| {
            draft.with("msp_gateway.store.operation", operation)
        });
    }
}
