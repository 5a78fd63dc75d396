//! The last requests, in three rings of fixed size.
//!
//! A single ring would hold only the hits of the last tenth of a second. So there are three rings:
//! requests that memory answered quickly, requests that were refused because of the caller, and all
//! others. A flood of one kind never evicts the failures that an operator looks for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use parking_lot::Mutex;

use crate::admission::Payer;
use crate::admission::story::{STAGES_MAX, StageTimes};
use crate::cache::CacheNote;
use crate::clock::{Duration, Instant};
use crate::domain::{CacheOutcome, Route};

/// Maximum bytes kept of a path that is not the route's own.
const PATH_BYTES_MAX: usize = 96;
/// Answers from memory that took longer count as slow.
const SLOW: Duration = Duration::from_millis(250);
/// Status of a request whose caller left before the answer.
const CALLER_LEFT: u16 = 499;

/// One request when its last byte had gone.
#[derive(Clone, Debug)]
pub struct FinishedRequest {
    /// The request id's 32 hex digits.
    pub id: [u8; 32],
    /// When its head was complete.
    pub arrived: Instant,
    /// Time from then to the answer's head.
    pub took: Duration,
    /// Time from then to the answer's last byte.
    pub lasted: Duration,
    /// As sent.
    pub method: Method,
    /// The route.
    pub route: Route,
    /// The path without its query, if it is not the route's own.
    pub path: Option<Box<str>>,
    /// The caller's name. `None`: no caller was found for its key.
    pub caller: Option<Arc<str>>,
    /// The address that it came from.
    pub peer: Option<IpAddr>,
    /// The answer's status. 499 if the caller left before it.
    pub status: u16,
    /// The problem's code.
    pub code: Option<&'static str>,
    /// How memory answered, if it was asked.
    pub outcome: Option<CacheOutcome>,
    /// The same with its details, if there was an answer.
    pub note: Option<CacheNote>,
    /// Bytes of the answer's body.
    pub sent_bytes: u64,
    /// Whether the caller read the whole body.
    pub whole: bool,
    /// The waits and vendor calls of the request. `None` if memory alone answered.
    pub payer: Option<Arc<Payer>>,
}

/// The ring that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RingLot {
    /// Answered from memory, quickly.
    Memory = 0,
    /// Refused because of what the caller sent.
    Refused = 1,
    /// All others: vendor calls, failures, slow answers, callers that left.
    Worked = 2,
}

impl FinishedRequest {
    /// Returns whether its requests keep their waits and vendor calls. Only one ring does.
    pub fn has_story(status: u16, outcome: Option<CacheOutcome>, lasted: Duration) -> bool {
        lot(status, outcome, lasted) == RingLot::Worked
    }

    /// Returns a path as it is kept.
    pub fn kept_path(path: &str) -> Box<str> {
        let mut end = path.len().min(PATH_BYTES_MAX);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        path.get(..end).unwrap_or_default().into()
    }
}

fn lot(status: u16, outcome: Option<CacheOutcome>, lasted: Duration) -> RingLot {
    let from_memory = match outcome {
        None
        | Some(
            CacheOutcome::Hit
            | CacheOutcome::Stale
            | CacheOutcome::Derived
            | CacheOutcome::Projected
            | CacheOutcome::Negative,
        ) => true,
        Some(CacheOutcome::Miss | CacheOutcome::Collapsed | CacheOutcome::Error) => false,
    };
    match status {
        ..400 if from_memory && lasted < SLOW => RingLot::Memory,
        CALLER_LEFT => RingLot::Worked,
        400..500 if from_memory => RingLot::Refused,
        _ => RingLot::Worked,
    }
}

/// Selects requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// Requests of this caller. `anonymous`: requests without a caller.
    pub caller: Option<String>,
    /// Of this route.
    pub route: Option<Route>,
    /// With such a status.
    pub status: Option<StatusFilter>,
    /// With this cache outcome. `Some(None)` selects requests that asked no cache.
    pub outcome: Option<Option<CacheOutcome>>,
    /// Those whose answer's head took longer than this.
    pub slower_than: Option<Duration>,
}

/// One status, or all of a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// This one.
    Exactly(u16),
    /// `5` for 500 to 599.
    Class(u16),
}

impl RequestFilter {
    fn takes(&self, request: &FinishedRequest) -> bool {
        let caller = request.caller.as_deref().unwrap_or("anonymous");
        self.caller.as_ref().is_none_or(|wanted| wanted == caller)
            && self.route.is_none_or(|wanted| wanted == request.route)
            && self.status.is_none_or(|wanted| match wanted {
                StatusFilter::Exactly(status) => status == request.status,
                StatusFilter::Class(class) => class == request.status / 100,
            })
            && self.outcome.is_none_or(|wanted| wanted == request.outcome)
            && self.slower_than.is_none_or(|limit| request.took > limit)
    }
}

#[derive(Debug)]
struct OneRing {
    next: AtomicUsize,
    /// Their number is a power of two, or zero.
    slots: Box<[Mutex<Option<FinishedRequest>>]>,
}

impl OneRing {
    /// As many slots as fit, if each has the maximum size.
    fn within(bytes_max: usize, slot_bytes_max: usize) -> Self {
        let fit = bytes_max / slot_bytes_max.max(1);
        let slots = match fit {
            0 => 0,
            fit => 1_usize << fit.ilog2(),
        };
        Self {
            next: AtomicUsize::new(0),
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
        }
    }

    fn put(&self, request: FinishedRequest) {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let place = at & self.slots.len().wrapping_sub(1);
        // A slot that is being read is skipped, because no request waits for a reader.
        if let Some(mut slot) = self.slots.get(place).and_then(Mutex::try_lock) {
            *slot = Some(request);
        }
    }
}

/// The last requests.
#[derive(Debug)]
pub struct RequestRing {
    rings: [OneRing; 3],
}

impl RequestRing {
    /// Divides the memory: half of it for the requests with a story, a quarter for each of the
    /// others.
    pub fn within(bytes_max: usize) -> Self {
        let plain = size_of::<Mutex<Option<FinishedRequest>>>() + PATH_BYTES_MAX;
        let story = size_of::<Payer>() + STAGES_MAX * size_of::<StageTimes>() + 64;
        let quarter = bytes_max / 4;
        Self {
            rings: [
                OneRing::within(quarter, plain),
                OneRing::within(quarter, plain),
                OneRing::within(bytes_max / 2, plain + story),
            ],
        }
    }

    /// Returns whether anything is kept at all.
    pub fn is_off(&self) -> bool {
        self.rings.iter().all(|ring| ring.slots.is_empty())
    }

    /// Returns how many requests are kept at most.
    pub fn capacity(&self) -> usize {
        self.rings.iter().map(|ring| ring.slots.len()).sum()
    }

    /// Keeps a request. Never waits.
    pub fn put(&self, request: FinishedRequest) {
        let lot = lot(request.status, request.outcome, request.lasted);
        if let Some(ring) = self.rings.get(lot as usize) {
            ring.put(request);
        }
    }

    /// Returns at most `limit` requests that `filter` selects, newest end first, and how many it
    /// selects in total.
    pub fn find(&self, filter: &RequestFilter, limit: usize) -> (Vec<FinishedRequest>, usize) {
        let mut found = self.all(|request| filter.takes(request));
        let matched = found.len();
        found.sort_by_key(|request| std::cmp::Reverse(request.arrived + request.lasted));
        found.truncate(limit);
        (found, matched)
    }

    /// Returns the request of this id.
    pub fn get(&self, id: &[u8]) -> Option<FinishedRequest> {
        self.all(|request| request.id == id).pop()
    }

    fn all(&self, wanted: impl Fn(&FinishedRequest) -> bool) -> Vec<FinishedRequest> {
        let slots = self.rings.iter().flat_map(|ring| &ring.slots);
        slots
            .filter_map(|slot| slot.lock().as_ref().filter(|r| wanted(r)).cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn request(id: u8, status: u16, outcome: Option<CacheOutcome>) -> FinishedRequest {
        let arrived = Instant::now() + Duration::from_secs(u64::from(id));
        FinishedRequest {
            id: [id; 32],
            arrived,
            took: Duration::from_millis(u64::from(id)),
            lasted: Duration::from_millis(u64::from(id)),
            method: Method::GET,
            route: Route::Customers,
            path: None,
            caller: Some("dash".into()),
            peer: None,
            status,
            code: None,
            outcome,
            note: None,
            sent_bytes: 0,
            whole: true,
            payer: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_kind_leaves_the_others() {
        let ring = RequestRing::within(MIB);
        assert!(ring.capacity() > 1000, "{}", ring.capacity());
        ring.put(request(1, 503, Some(CacheOutcome::Error)));
        ring.put(request(2, 429, None));
        for _ in 0..ring.capacity() {
            ring.put(request(3, 200, Some(CacheOutcome::Hit)));
        }
        let (all, matched) = ring.find(&RequestFilter::default(), 2000);
        assert_eq!(all.len(), matched);
        assert!(matched < ring.capacity() && matched > 100);
        assert!(ring.get(&[1; 32]).is_some() && ring.get(&[2; 32]).is_some());
        assert!(ring.get(&[9; 32]).is_none() && ring.get(b"x").is_none());
        assert_eq!(all[0].id, [3; 32], "the last one first");
    }

    #[tokio::test(start_paused = true)]
    async fn every_filter_picks_its_own() {
        let ring = RequestRing::within(MIB);
        ring.put(request(1, 200, Some(CacheOutcome::Hit)));
        ring.put(request(2, 504, Some(CacheOutcome::Error)));
        ring.put(FinishedRequest {
            caller: None,
            route: Route::Other,
            ..request(3, 404, None)
        });
        let ids = |filter: RequestFilter| {
            let (found, _) = ring.find(&filter, 10);
            found
                .iter()
                .map(|request| request.id[0])
                .collect::<Vec<_>>()
        };
        let none = RequestFilter::default;
        assert_eq!(ids(none()), [3, 2, 1]);
        let caller = |name: &str| RequestFilter {
            caller: Some(name.to_owned()),
            ..none()
        };
        assert_eq!(ids(caller("dash")), [2, 1]);
        assert_eq!(ids(caller("anonymous")), [3]);
        let status = |status| RequestFilter {
            status: Some(status),
            ..none()
        };
        assert_eq!(ids(status(StatusFilter::Exactly(404))), [3]);
        assert_eq!(ids(status(StatusFilter::Class(5))), [2]);
        let route = RequestFilter {
            route: Some(Route::Other),
            ..none()
        };
        assert_eq!(ids(route), [3]);
        let outcome = |outcome| RequestFilter {
            outcome: Some(outcome),
            ..none()
        };
        assert_eq!(ids(outcome(Some(CacheOutcome::Hit))), [1]);
        assert_eq!(ids(outcome(None)), [3]);
        let slow = RequestFilter {
            slower_than: Some(Duration::from_millis(1)),
            ..none()
        };
        assert_eq!(ids(slow), [3, 2]);
        assert_eq!(ring.find(&none(), 1), {
            let (mut one, matched) = ring.find(&none(), 10);
            one.truncate(1);
            (one, matched)
        });
    }

    impl PartialEq for FinishedRequest {
        fn eq(&self, other: &Self) -> bool {
            self.id == other.id
        }
    }

    #[test]
    fn every_end_has_its_ring() {
        let fast = Duration::from_millis(1);
        for (status, outcome, lasted, wanted) in [
            (200, Some(CacheOutcome::Hit), fast, RingLot::Memory),
            (304, Some(CacheOutcome::Stale), fast, RingLot::Memory),
            (200, None, fast, RingLot::Memory),
            (200, Some(CacheOutcome::Hit), SLOW, RingLot::Worked),
            (200, Some(CacheOutcome::Miss), fast, RingLot::Worked),
            (200, Some(CacheOutcome::Collapsed), fast, RingLot::Worked),
            (404, Some(CacheOutcome::Negative), fast, RingLot::Refused),
            (400, Some(CacheOutcome::Error), fast, RingLot::Worked),
            (401, None, fast, RingLot::Refused),
            (429, None, fast, RingLot::Refused),
            (499, Some(CacheOutcome::Hit), fast, RingLot::Worked),
            (503, None, fast, RingLot::Worked),
        ] {
            assert_eq!(lot(status, outcome, lasted), wanted, "{status} {outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_where_there_is_no_room() {
        let ring = RequestRing::within(0);
        ring.put(request(1, 200, None));
        assert!(ring.is_off());
        assert_eq!(ring.find(&RequestFilter::default(), 10).1, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_read_is_left_alone() {
        let ring = OneRing::within(2 * 1024, 1024);
        let read = ring.slots[0].lock();
        ring.put(request(1, 200, None));
        ring.put(request(2, 200, None));
        drop(read);
        assert!(ring.slots[0].lock().is_none());
        assert_eq!(ring.slots[1].lock().as_ref().map(|r| r.id), Some([2; 32]));
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        let path = format!("/{}ü", "x".repeat(PATH_BYTES_MAX - 2));
        assert_eq!(FinishedRequest::kept_path(&path).len(), PATH_BYTES_MAX - 1);
        assert_eq!(&*FinishedRequest::kept_path("/v1"), "/v1");
    }
}
