//! What a vendor does wrong, switched on and off while it runs.

use parking_lot::Mutex;

use super::dice::{Dice, Domain};
use super::options::Operation;
use super::scroll::Twists;
use crate::clock::Duration;

/// Faults that may be active at once: more is a mistake of the test.
const ACTIVE_MAX: usize = 1_000;
/// A latency or stall at most: an hour is beyond any timeout worth testing.
pub(super) const WAIT_MS_MAX: u64 = 60 * 60 * 1_000;
/// A padded body at most, 16 GiB: it is made while it is sent, and takes no memory.
pub(super) const PADDING_BYTES_MAX: u64 = 16 << 30;

/// The requests that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any operation of either vendor.
    Any,
    /// One operation.
    Only(Operation),
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer is due `ms` milliseconds later. Latencies that meet add up.
    Latency {
        /// Milliseconds, at most an hour.
        ms: u64,
    },
    /// This answer instead of the right one.
    Status {
        /// 200..=599.
        status: u16,
        /// The body; none: `{"error":"…"}` as the vendor writes it.
        body: Option<String>,
        /// The value of `Retry-After`, seconds or a date.
        retry_after: Option<String>,
        /// Whether the request was processed all the same, so that a scroll moved.
        processed: bool,
    },
    /// The connection is closed before the request is processed: a scroll does not move.
    DropBefore,
    /// The request is processed, then the connection is closed without an answer.
    DropAfter,
    /// `Content-Length` promises the whole body; after `at` bytes (none: half) the connection closes.
    CutBody {
        /// Bytes that are sent.
        at: Option<usize>,
    },
    /// The headers and half the body, then nothing for `ms` milliseconds, then the rest. Without
    /// `ms` the rest never comes: the connection closes after an hour.
    StallBody {
        /// Milliseconds, at most an hour.
        ms: Option<u64>,
    },
    /// A complete body with a comma too many: `{,"data":…`.
    MalformedJson,
    /// A complete answer whose body ends in the middle of the rows, with a matching length.
    TruncatedRows,
    /// The right body under another media type.
    WrongContentType {
        /// The media type, `text/html` unless told.
        content_type: String,
    },
    /// An HTML error page, as a proxy before the vendor makes them.
    HtmlError {
        /// 200..=599, 502 unless told.
        status: u16,
    },
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The value of `Location`.
        location: String,
    },
    /// The scroll of this continuation has just expired.
    ScrollExpired,
    /// So many new cases appear just before the request is processed.
    Insert {
        /// How many.
        count: usize,
    },
    /// A page without rows that carries an id. The position stays.
    EmptyPageWithCursor,
    /// The page before comes once more. The position stays.
    RepeatPage,
    /// From this page on the scroll never ends: after the last row it invents new ones.
    Endless,
    /// The first row of the page comes again at its end. No row is lost.
    DuplicateRow,
    /// A page with half the rows asked for. No row is lost.
    ShortPage,
    /// A page with twice the rows asked for. No row comes twice.
    Oversize,
    /// White space amid the body, so that it is `bytes` longer; still valid JSON.
    HugeBody {
        /// How much longer, at most 16 GiB.
        bytes: u64,
        /// Chunked, so that the length is not known in advance.
        chunked: bool,
    },
}

impl Kind {
    /// Its word in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Status { .. } => "status",
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::CutBody { .. } => "cut_body",
            Self::StallBody { .. } => "stall_body",
            Self::MalformedJson => "malformed_json",
            Self::TruncatedRows => "truncated_rows",
            Self::WrongContentType { .. } => "wrong_content_type",
            Self::HtmlError { .. } => "html_error",
            Self::Redirect { .. } => "redirect",
            Self::ScrollExpired => "scroll_expired",
            Self::Insert { .. } => "insert",
            Self::EmptyPageWithCursor => "empty_page_with_cursor",
            Self::RepeatPage => "repeat_page",
            Self::Endless => "endless",
            Self::DuplicateRow => "duplicate_row",
            Self::ShortPage => "short_page",
            Self::Oversize => "oversize",
            Self::HugeBody { .. } => "huge_body",
        }
    }

    /// Whether it means anything to `operation`; if not, such a request does not use it up.
    fn concerns(&self, operation: Operation) -> bool {
        match self {
            Self::ScrollExpired | Self::RepeatPage => operation == Operation::Continue,
            Self::EmptyPageWithCursor
            | Self::Endless
            | Self::DuplicateRow
            | Self::ShortPage
            | Self::Oversize => {
                matches!(operation, Operation::Search | Operation::Continue)
            }
            _ => operation != Operation::Other,
        }
    }
}

/// One fault: what, where, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The requests it may hit.
    pub target: Target,
    /// What goes wrong.
    pub kind: Kind,
    /// How many requests it hits; none: until cleared.
    pub times: Option<u64>,
    /// The chance that a request is hit, 0..=1, by the sandbox's seed; none: each.
    pub probability: Option<f64>,
    /// How many requests pass before the first can be hit.
    pub after: u64,
}

impl Fault {
    /// `kind` for every request of `operation`, until cleared.
    pub fn on(operation: Operation, kind: Kind) -> Self {
        Self {
            target: Target::Only(operation),
            kind,
            times: None,
            probability: None,
            after: 0,
        }
    }

    /// `kind` for every request of either vendor, until cleared.
    pub fn on_any(kind: Kind) -> Self {
        Self {
            target: Target::Any,
            kind,
            times: None,
            probability: None,
            after: 0,
        }
    }

    /// It hits only `times` requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// It hits a request with `probability`, 0..=1.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// It lets `after` requests pass first.
    #[must_use]
    pub fn after(mut self, after: u64) -> Self {
        self.after = after;
        self
    }

    fn targets(&self, operation: Operation) -> bool {
        let aimed = match self.target {
            Target::Any => true,
            Target::Only(only) => only == operation,
        };
        aimed && self.kind.concerns(operation)
    }
}

/// What happens instead of processing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// The connection closes.
    Drop,
    /// This kind of answer is given.
    Answer(Kind),
}

/// All that goes wrong with one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) latency: Duration,
    pub(super) insert: usize,
    pub(super) scroll_expired: bool,
    pub(super) instead: Option<Instead>,
    pub(super) twists: Twists,
    /// What is done to the finished answer, in this order.
    pub(super) after: Vec<Kind>,
}

impl Plan {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Latency { ms } => {
                self.latency = self
                    .latency
                    .saturating_add(Duration::from_millis(ms.min(WAIT_MS_MAX)));
            }
            Kind::Insert { count } => self.insert = self.insert.saturating_add(count),
            Kind::ScrollExpired => self.scroll_expired = true,
            Kind::EmptyPageWithCursor => self.twists.empty = true,
            Kind::RepeatPage => self.twists.repeat = true,
            Kind::Endless => self.twists.endless = true,
            Kind::DuplicateRow => self.twists.duplicate = true,
            Kind::ShortPage => self.twists.short = true,
            Kind::Oversize => self.twists.oversize = true,
            Kind::DropBefore => {
                self.instead.get_or_insert(Instead::Drop);
            }
            Kind::Status {
                processed: false, ..
            }
            | Kind::HtmlError { .. }
            | Kind::Redirect { .. } => {
                self.instead.get_or_insert(Instead::Answer(kind));
            }
            Kind::Status { .. }
            | Kind::DropAfter
            | Kind::CutBody { .. }
            | Kind::StallBody { .. }
            | Kind::MalformedJson
            | Kind::TruncatedRows
            | Kind::WrongContentType { .. }
            | Kind::HugeBody { .. } => self.after.push(kind),
        }
    }
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    dice: Dice,
}

#[derive(Debug)]
struct Inner {
    active: Vec<Active>,
    /// Faults ever added: each has its own stream of chances.
    added: u64,
}

/// The faults that are active.
#[derive(Debug)]
pub(super) struct Faults {
    seed: u64,
    inner: Mutex<Inner>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            inner: Mutex::new(Inner {
                active: Vec::new(),
                added: 0,
            }),
        }
    }

    /// Adds all of `faults` or, when they are too many, none. Says how many are active now.
    pub(super) fn add(&self, faults: Vec<Fault>) -> Result<usize, &'static str> {
        let mut inner = self.inner.lock();
        if inner.active.len().saturating_add(faults.len()) > ACTIVE_MAX {
            return Err("more than 1000 faults would be active");
        }
        for fault in faults {
            inner.added += 1;
            let dice = Dice::new(self.seed, Domain::Faults, inner.added);
            inner.active.push(Active { fault, dice });
        }
        Ok(inner.active.len())
    }

    /// Takes all faults back; streams of chances start anew.
    pub(super) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.active.clear();
        inner.added = 0;
    }

    /// What goes wrong with the request that asks for `operation`; uses the faults up.
    pub(super) fn plan(&self, operation: Operation) -> Plan {
        let mut plan = Plan::default();
        self.inner
            .lock()
            .active
            .retain_mut(|Active { fault, dice }| {
                if !fault.targets(operation) {
                    return true;
                }
                if fault.after > 0 {
                    fault.after -= 1;
                    return true;
                }
                if fault
                    .probability
                    .is_some_and(|chance| dice.unit() >= chance)
                {
                    return true;
                }
                if fault.times == Some(0) {
                    return false;
                }
                plan.add(fault.kind.clone());
                fault.times = fault.times.map(|times| times - 1);
                fault.times != Some(0)
            });
        plan
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
