//! The faults of a vendor, switched on and off while it runs.

use parking_lot::Mutex;

use super::dice::{Dice, Domain};
use super::options::SimOperation;
use super::scroll::Twists;
use crate::clock::Duration;

/// Maximum number of active faults. More is a mistake of the test.
const ACTIVE_MAX: usize = 1_000;
/// Maximum latency or stall, in milliseconds. An hour is longer than any timeout worth testing.
pub(super) const WAIT_MS_MAX: u64 = 60 * 60 * 1_000;
/// Maximum padding of a body, 16 GiB. It is made while it is sent, so it needs no memory.
pub(super) const PADDING_BYTES_MAX: u64 = 16 << 30;

/// The requests that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any operation of either vendor.
    Any,
    /// One operation.
    Only(SimOperation),
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The answer is due `ms` milliseconds later. Several latencies add up.
    Latency {
        /// Milliseconds, at most an hour.
        ms: u64,
    },
    /// This answer replaces the right one.
    Status {
        /// The status, 200 to 599.
        status: u16,
        /// The body. `None`: `{"error":"…"}`, as the vendor writes it.
        body: Option<String>,
        /// The value of `Retry-After`, in seconds or as a date.
        retry_after: Option<String>,
        /// Whether the request is processed anyway, so that a scroll moves.
        processed: bool,
    },
    /// The connection is closed before the request is processed, so a scroll does not move.
    DropBefore,
    /// The request is processed, then the connection is closed without an answer.
    DropAfter,
    /// `Content-Length` announces the whole body, but the connection closes after `at` bytes
    /// (`None`: half).
    CutBody {
        /// Number of bytes that are sent.
        at: Option<usize>,
    },
    /// The headers and half the body, then nothing for `ms` milliseconds, then the rest. Without
    /// `ms` the rest never comes: the connection closes after an hour.
    StallBody {
        /// Milliseconds, at most an hour.
        ms: Option<u64>,
    },
    /// A complete body with one comma too many: `{,"data":…`.
    MalformedJson,
    /// A complete answer whose body ends in the middle of the rows, with a matching length.
    TruncatedRows,
    /// The right body under another media type.
    WrongContentType {
        /// The media type. The default in JSON is `text/html`.
        content_type: String,
    },
    /// An HTML error page, like those of a proxy in front of the vendor.
    HtmlError {
        /// The status, 200 to 599. The default in JSON is 502.
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
    /// New cases appear just before the request is processed.
    Insert {
        /// Number of new cases.
        count: usize,
    },
    /// A page without rows that has an id. The position does not move.
    EmptyPageWithCursor,
    /// The page before is sent again. The position does not move.
    RepeatPage,
    /// From this page on the scroll never ends: after the last row, new ones are invented.
    Endless,
    /// The first row of the page is repeated at its end. No row is lost.
    DuplicateRow,
    /// A page with half of the requested rows. No row is lost.
    ShortPage,
    /// A page with twice the requested rows. No row is sent twice.
    Oversize,
    /// White space inside the body makes it `bytes` longer. The body is still valid JSON.
    HugeBody {
        /// Number of additional bytes, at most 16 GiB.
        bytes: u64,
        /// Whether the body is chunked, so that its length is not known in advance.
        chunked: bool,
    },
}

impl FaultKind {
    /// Returns the word in JSON.
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

    /// Returns whether the fault can apply to `operation`. Other requests do not use it up.
    fn concerns(&self, operation: SimOperation) -> bool {
        match self {
            Self::ScrollExpired | Self::RepeatPage => operation == SimOperation::Continue,
            Self::EmptyPageWithCursor
            | Self::Endless
            | Self::DuplicateRow
            | Self::ShortPage
            | Self::Oversize => {
                matches!(operation, SimOperation::Search | SimOperation::Continue)
            }
            _ => operation != SimOperation::Other,
        }
    }
}

/// One fault: what goes wrong, for which requests, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct SimFault {
    /// The requests that it may hit.
    pub target: Target,
    /// What goes wrong.
    pub kind: FaultKind,
    /// Number of requests that it hits. `None`: until it is cleared.
    pub times: Option<u64>,
    /// Chance that a request is hit, 0 to 1, from the sandbox's seed. `None`: every request is hit.
    pub probability: Option<f64>,
    /// Number of requests that pass before the first can be hit.
    pub after: u64,
}

impl SimFault {
    /// Creates a fault of `kind` for every request of `operation`, until cleared.
    pub fn on(operation: SimOperation, kind: FaultKind) -> Self {
        Self {
            target: Target::Only(operation),
            kind,
            times: None,
            probability: None,
            after: 0,
        }
    }

    /// Creates a fault of `kind` for every request of either vendor, until cleared.
    pub fn on_any(kind: FaultKind) -> Self {
        Self {
            target: Target::Any,
            kind,
            times: None,
            probability: None,
            after: 0,
        }
    }

    /// Limits the fault to `times` requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Sets the chance that a request is hit, 0 to 1.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    /// Lets `after` requests pass first.
    #[must_use]
    pub fn after(mut self, after: u64) -> Self {
        self.after = after;
        self
    }

    fn targets(&self, operation: SimOperation) -> bool {
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
    /// This kind of answer is sent.
    Answer(FaultKind),
}

/// Everything that goes wrong with one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) latency: Duration,
    pub(super) insert: usize,
    pub(super) scroll_expired: bool,
    pub(super) instead: Option<Instead>,
    pub(super) twists: Twists,
    /// Changes to the finished answer, in this order.
    pub(super) after: Vec<FaultKind>,
}

impl Plan {
    fn add(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::Latency { ms } => {
                self.latency = self
                    .latency
                    .saturating_add(Duration::from_millis(ms.min(WAIT_MS_MAX)));
            }
            FaultKind::Insert { count } => self.insert = self.insert.saturating_add(count),
            FaultKind::ScrollExpired => self.scroll_expired = true,
            FaultKind::EmptyPageWithCursor => self.twists.empty = true,
            FaultKind::RepeatPage => self.twists.repeat = true,
            FaultKind::Endless => self.twists.endless = true,
            FaultKind::DuplicateRow => self.twists.duplicate = true,
            FaultKind::ShortPage => self.twists.short = true,
            FaultKind::Oversize => self.twists.oversize = true,
            FaultKind::DropBefore => {
                self.instead.get_or_insert(Instead::Drop);
            }
            FaultKind::Status {
                processed: false, ..
            }
            | FaultKind::HtmlError { .. }
            | FaultKind::Redirect { .. } => {
                self.instead.get_or_insert(Instead::Answer(kind));
            }
            FaultKind::Status { .. }
            | FaultKind::DropAfter
            | FaultKind::CutBody { .. }
            | FaultKind::StallBody { .. }
            | FaultKind::MalformedJson
            | FaultKind::TruncatedRows
            | FaultKind::WrongContentType { .. }
            | FaultKind::HugeBody { .. } => self.after.push(kind),
        }
    }
}

#[derive(Debug)]
struct Active {
    fault: SimFault,
    dice: Dice,
}

#[derive(Debug)]
struct Inner {
    active: Vec<Active>,
    /// Number of faults ever added. Each has its own stream of random numbers.
    added: u64,
}

/// The active faults.
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

    /// Adds `faults`, or none of them if there would be too many. Returns the number of active
    /// faults.
    pub(super) fn add(&self, faults: Vec<SimFault>) -> Result<usize, &'static str> {
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

    /// Removes all faults. Streams of random numbers start over.
    pub(super) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.active.clear();
        inner.added = 0;
    }

    /// Returns what goes wrong with a request of `operation`. Uses up the faults that apply.
    pub(super) fn plan(&self, operation: SimOperation) -> Plan {
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
