//! The origin of an answer, as `Cache-Status` (RFC 9211) reports it.

use std::cell::RefCell;

use http::HeaderValue;

use crate::clock::Duration;
use crate::domain::CacheOutcome;

/// Why a request was forwarded to the vendor, in RFC 9211's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Nothing was stored.
    UriMiss,
    /// The stored answer was too old.
    Stale,
    /// The caller's `Cache-Control` asked for a newer answer.
    Request,
}

impl Forward {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::UriMiss, Self::Stale, Self::Request];

    /// Returns the token of RFC 9211.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

/// Further information: the `detail` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Projected: cut from the full list.
    Projected,
    /// Derived: a view over an answer to a wider question.
    Derived,
    /// Stale, while a refresh runs.
    StaleWhileRevalidate,
    /// Stale, because the vendor failed.
    StaleOnError,
    /// Stale, because no budget was left or the vendor had answered 429.
    StaleNoBudget,
    /// The vendor answered 200 without the data that was asked for.
    SoftFailure,
    /// The caller's `Cache-Control` was not obeyed, because its allowance is used up.
    AllowanceExhausted,
    /// A page of a snapshot that is kept for page tokens.
    Snapshot,
    /// Memory did not hold it, and the store did.
    Store,
}

impl Detail {
    /// Every detail.
    pub const ALL: [Self; 9] = [
        Self::Projected,
        Self::Derived,
        Self::StaleWhileRevalidate,
        Self::StaleOnError,
        Self::StaleNoBudget,
        Self::SoftFailure,
        Self::AllowanceExhausted,
        Self::Snapshot,
        Self::Store,
    ];

    /// Returns the word used in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Projected => "projected",
            Self::Derived => "derived",
            Self::StaleWhileRevalidate => "stale-while-revalidate",
            Self::StaleOnError => "stale-on-error",
            Self::StaleNoBudget => "stale-no-budget",
            Self::SoftFailure => "soft-failure",
            Self::AllowanceExhausted => "allowance-exhausted",
            Self::Snapshot => "snapshot",
            Self::Store => "store",
        }
    }
}

/// The origin of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheNote {
    /// The word for metrics and logs.
    pub outcome: CacheOutcome,
    /// Why the vendor was asked, if it was.
    pub forward: Option<Forward>,
    /// Whether the vendor's answer was stored.
    pub stored: bool,
    /// Whether another request's vendor call was shared.
    pub collapsed: bool,
    /// Seconds of freshness left, negative when stale. Only for answers from memory.
    pub ttl_s: Option<i64>,
    /// The detail, if there is one.
    pub detail: Option<Detail>,
}

impl CacheNote {
    /// Creates the note of an answer from memory with this much freshness left.
    pub fn hit(ttl_s: i64) -> Self {
        Self {
            outcome: if ttl_s >= 0 {
                CacheOutcome::Hit
            } else {
                CacheOutcome::Stale
            },
            forward: None,
            stored: false,
            collapsed: false,
            ttl_s: Some(ttl_s),
            detail: None,
        }
    }

    /// Creates the note of an answer that a vendor was called for.
    pub fn forwarded(why: Forward, stored: bool, collapsed: bool) -> Self {
        Self {
            outcome: if collapsed {
                CacheOutcome::Collapsed
            } else {
                CacheOutcome::Miss
            },
            forward: Some(why),
            stored,
            collapsed,
            ttl_s: None,
            detail: None,
        }
    }

    /// Adds a detail.
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Returns whether the answer came from memory without a vendor call.
    pub fn is_from_memory(&self) -> bool {
        self.forward.is_none()
    }

    /// Returns the value of `Cache-Status`.
    pub fn header_value(&self) -> HeaderValue {
        let Some(ttl_s) = self.ttl_s else {
            return self.written();
        };
        let detail = self.detail.map_or(0, |detail| detail as usize + 1);
        let place = (ttl_s.unsigned_abs() as usize ^ (detail << 3)) % SAID_LAST;
        SAID.with_borrow_mut(|said| match said.get_mut(place) {
            Some(Some((note, value))) if note == self => value.clone(),
            Some(other) => {
                let value = self.written();
                *other = Some((*self, value.clone()));
                value
            }
            None => self.written(),
        })
    }

    fn written(&self) -> HeaderValue {
        let mut out = Line::default();
        out.push("msp-gateway");
        match self.forward {
            None => out.push("; hit"),
            Some(why) => {
                out.push("; fwd=");
                out.push(why.as_str());
            }
        }
        if self.stored {
            out.push("; stored");
        }
        if self.collapsed {
            out.push("; collapsed");
        }
        if let Some(ttl_s) = self.ttl_s {
            out.push("; ttl=");
            out.push(itoa::Buffer::new().format(ttl_s));
        }
        if let Some(detail) = self.detail {
            out.push("; detail=");
            out.push(detail.as_str());
        }
        // RFC 9211's tokens and numbers are always a valid header value.
        HeaderValue::from_bytes(out.bytes()).unwrap_or(HeaderValue::from_static("msp-gateway"))
    }
}

/// Values of `Cache-Status` that each thread keeps. Hits have the same value for a second.
const SAID_LAST: usize = 64;

thread_local! {
    static SAID: RefCell<[Option<(CacheNote, HeaderValue)>; SAID_LAST]> =
        const { RefCell::new([const { None }; SAID_LAST]) };
}

/// Size of the longest `Cache-Status`, which has 101 bytes.
const LINE_BYTES: usize = 128;

/// Builds a header's text on the stack, because every answer has one.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; LINE_BYTES],
            len: 0,
        }
    }
}

impl Line {
    /// Appends `text`. Text beyond the buffer's end is dropped.
    fn push(&mut self, text: &str) {
        let end = self.len + text.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(text.as_bytes());
            self.len = end;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Returns the whole seconds of a signed difference, rounded down.
pub fn seconds_left(until_end: Option<Duration>, past_end: Duration) -> i64 {
    match until_end {
        Some(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        None => i64::try_from(past_end.as_secs())
            .unwrap_or(i64::MAX)
            .saturating_neg()
            .saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_texts() {
        assert_eq!(
            CacheNote::hit(42).header_value(),
            "msp-gateway; hit; ttl=42"
        );
        assert_eq!(
            CacheNote::forwarded(Forward::UriMiss, true, true).header_value(),
            "msp-gateway; fwd=uri-miss; stored; collapsed"
        );
        assert_eq!(
            CacheNote::hit(-3)
                .with_detail(Detail::StaleOnError)
                .header_value(),
            "msp-gateway; hit; ttl=-3; detail=stale-on-error"
        );
    }

    #[test]
    fn a_value_at_hand_is_that_of_the_very_note() {
        let details = Detail::ALL.into_iter().map(Some).chain([None]);
        let notes = details.flat_map(|detail| {
            (-200..200).map(move |ttl_s| CacheNote {
                detail,
                ..CacheNote::hit(ttl_s)
            })
        });
        let notes: Vec<_> = notes.collect();
        for note in notes.iter().chain(notes.iter().rev()) {
            assert_eq!(note.header_value(), note.written());
            assert_eq!(note.header_value(), note.written());
        }
    }
}
