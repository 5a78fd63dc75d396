//! One fetch that many callers wait for (single flight).
//!
//! The fetch runs in a task of its own. Callers only wait, each with its own deadline, and a caller
//! that leaves changes nothing. At most one flight per key accepts new waiters. A failure is shared
//! with its waiters and held for a moment, so that a burst of callers does not become a burst of
//! calls. A purge outdates the flights under way: they still answer their waiters, and later
//! callers board a new flight.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{Clock, Duration, Instant, timeout_at};

/// Most callers that wait for one flight: far more than any dashboard has. A waiter costs a few
/// hundred bytes.
pub const WAITERS_PER_FLIGHT_MAX: usize = 16_384;
/// Most callers that wait for all flights together.
pub const WAITERS_MAX: usize = 65_536;
/// Most failures held at once. Further failures are not held.
const HELD_MAX: usize = 4_096;
/// How long a failure is held. Jitter takes away up to half. It is short, so that the first request
/// after a vendor's recovery is not refused.
const HOLD: Duration = Duration::from_millis(400);

/// How a flight ended.
#[derive(Clone, Debug)]
pub enum FlightEnd<T, E> {
    /// With an answer.
    Landed(T),
    /// With the fetch's own error.
    Failed(E),
    /// With a panic, which was contained.
    Panicked,
}

/// How a caller's wait ended.
#[derive(Clone, Debug)]
pub enum FlightWait<T, E> {
    /// The flight ended.
    Ended(FlightEnd<T, E>),
    /// The caller's deadline passed. The flight continues.
    DeadlinePassed,
    /// The flight's task ended early, as at shutdown.
    Lost,
}

type End<T, E> = Option<FlightEnd<T, E>>;

enum Slot<T, E> {
    Flying {
        end: watch::Receiver<End<T, E>>,
        waiters: Arc<AtomicUsize>,
        began: Instant,
    },
    Held {
        end: FlightEnd<T, E>,
        until: Instant,
    },
}

/// The flights of one kind of answer.
pub struct Flights<K, T, E> {
    slots: Mutex<HashMap<K, Slot<T, E>>>,
    waiters: AtomicUsize,
    clock: Clock,
}

/// One waiter of a flight.
pub struct Ticket<K, T, E> {
    flights: Arc<Flights<K, T, E>>,
    end: watch::Receiver<End<T, E>>,
    waiters: Arc<AtomicUsize>,
    /// Whether this caller's request began the flight.
    pub led: bool,
    /// When the flight began.
    pub began: Instant,
}

impl<K, T, E> Drop for Ticket<K, T, E> {
    fn drop(&mut self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        self.flights.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The result of boarding.
pub enum Boarding<K, T, E> {
    /// The caller may wait.
    Ticket(Ticket<K, T, E>),
    /// The flight before failed a moment ago, with this result.
    JustFailed(FlightEnd<T, E>),
    /// Too many callers wait.
    Crowded,
}

impl<K, T, E> Flights<K, T, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Creates an empty set of flights.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(HashMap::new()),
            waiters: AtomicUsize::new(0),
            clock,
        })
    }

    /// Joins the flight of `key`, or starts it with `fetch` in a task of its own.
    pub fn board<F, Fut>(self: &Arc<Self>, key: &K, fetch: F) -> Boarding<K, T, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let now = self.clock.now();
        let mut slots = self.slots.lock();
        match slots.get(key) {
            Some(Slot::Held { end, until }) if now < *until => {
                return Boarding::JustFailed(end.clone());
            }
            Some(Slot::Flying {
                end,
                waiters,
                began,
            }) => {
                if waiters.load(Ordering::Relaxed) >= WAITERS_PER_FLIGHT_MAX
                    || self.waiters.load(Ordering::Relaxed) >= WAITERS_MAX
                {
                    return Boarding::Crowded;
                }
                let (end, waiters, began) = (end.clone(), waiters.clone(), *began);
                return Boarding::Ticket(self.ticket(end, waiters, began, false));
            }
            Some(Slot::Held { .. }) | None => {}
        }
        let (send, end) = watch::channel(None);
        let waiters = Arc::new(AtomicUsize::new(0));
        slots.insert(
            key.clone(),
            Slot::Flying {
                end: end.clone(),
                waiters: waiters.clone(),
                began: now,
            },
        );
        let ticket = self.ticket(end, waiters.clone(), now, true);
        drop(slots);
        self.launch(key.clone(), waiters, fetch(), send);
        Boarding::Ticket(ticket)
    }

    /// Starts a flight without a waiter, unless one is under way or failed a moment ago.
    pub fn launch_unwaited<F, Fut>(self: &Arc<Self>, key: &K, fetch: F) -> bool
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        match self.board(key, fetch) {
            Boarding::Ticket(ticket) => ticket.led,
            Boarding::JustFailed(_) | Boarding::Crowded => false,
        }
    }

    fn ticket(
        self: &Arc<Self>,
        end: watch::Receiver<End<T, E>>,
        waiters: Arc<AtomicUsize>,
        began: Instant,
        led: bool,
    ) -> Ticket<K, T, E> {
        waiters.fetch_add(1, Ordering::Relaxed);
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Ticket {
            flights: self.clone(),
            end,
            waiters,
            led,
            began,
        }
    }

    fn launch<Fut>(
        self: &Arc<Self>,
        key: K,
        own: Arc<AtomicUsize>,
        fetch: Fut,
        send: watch::Sender<End<T, E>>,
    ) where
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let flights = self.clone();
        tokio::spawn(async move {
            // The slot is freed when the task ends, for whatever reason.
            let landing = Landing {
                flights: &flights,
                key: &key,
                own: &own,
                hold: None,
            };
            let end = match AssertUnwindSafe(fetch).catch_unwind().await {
                Ok(Ok(answer)) => FlightEnd::Landed(answer),
                Ok(Err(error)) => FlightEnd::Failed(error),
                Err(_) => FlightEnd::Panicked,
            };
            landing.land(&end);
            // There may be no waiter left.
            let _ = send.send(Some(end));
        });
    }

    /// Outdates all flights under way: they keep their waiters and accept no new ones.
    pub fn outdate(&self) {
        self.slots
            .lock()
            .retain(|_, slot| !matches!(slot, Slot::Flying { .. }));
    }

    /// Returns whether a caller that asks for `key` now would join a flight.
    pub fn is_under_way(&self, key: &K) -> bool {
        matches!(self.slots.lock().get(key), Some(Slot::Flying { .. }))
    }

    /// Flights under way.
    pub fn under_way(&self) -> usize {
        let slots = self.slots.lock();
        slots
            .values()
            .filter(|slot| matches!(slot, Slot::Flying { .. }))
            .count()
    }
}

struct Landing<'a, K: Eq + Hash, T, E> {
    flights: &'a Flights<K, T, E>,
    key: &'a K,
    /// The counter of its waiters. A flight recognises its own slot by it.
    own: &'a Arc<AtomicUsize>,
    hold: Option<(FlightEnd<T, E>, Instant)>,
}

impl<K: Eq + Hash + Clone, T: Clone, E: Clone> Landing<'_, K, T, E> {
    fn land(mut self, end: &FlightEnd<T, E>) {
        if !matches!(end, FlightEnd::Landed(_)) {
            let hold = HOLD.mul_f64(1.0 - 0.5 * fastrand::f64());
            self.hold = Some((end.clone(), self.flights.clock.now() + hold));
        }
    }
}

impl<K: Eq + Hash, T, E> Drop for Landing<'_, K, T, E> {
    fn drop(&mut self) {
        let mut slots = self.flights.slots.lock();
        let now = self.flights.clock.now();
        if !matches!(slots.get(self.key), Some(Slot::Flying { waiters, .. }) if Arc::ptr_eq(waiters, self.own))
        {
            // This flight is outdated, so the slot and the held failure belong to its successor.
            return;
        }
        let Some(key) = slots.remove_entry(self.key).map(|(key, _)| key) else {
            return;
        };
        if slots.len() >= HELD_MAX {
            slots.retain(|_, slot| !matches!(slot, Slot::Held { until, .. } if now >= *until));
        }
        if let Some((end, until)) = self.hold.take()
            && slots.len() < HELD_MAX
        {
            slots.insert(key, Slot::Held { end, until });
        }
    }
}

impl<K, T: Clone, E: Clone> Ticket<K, T, E> {
    /// Waits for the flight's end, at most until `deadline`.
    pub async fn wait(mut self, deadline: Instant) -> FlightWait<T, E> {
        match timeout_at(deadline, self.end.wait_for(Option::is_some)).await {
            Err(_) => FlightWait::DeadlinePassed,
            Ok(Err(_)) => FlightWait::Lost,
            Ok(Ok(end)) => match end.clone() {
                Some(end) => FlightWait::Ended(end),
                None => FlightWait::Lost,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    type Numbers = Flights<&'static str, u32, &'static str>;

    fn flights() -> Arc<Numbers> {
        Flights::new(Clock::system())
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    async fn ask(flights: &Arc<Numbers>, calls: &Arc<AtomicUsize>, deadline: Instant) -> String {
        let calls = calls.clone();
        let boarding = flights.board(&"k", || async move {
            calls.fetch_add(1, Ordering::Relaxed);
            clock::sleep(Duration::from_millis(500)).await;
            Ok(7)
        });
        match boarding {
            Boarding::Ticket(ticket) => format!("{:?}", ticket.wait(deadline).await),
            Boarding::JustFailed(end) => format!("{end:?}"),
            Boarding::Crowded => "crowded".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_misses_make_one_call() {
        let (flights, calls) = (flights(), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10_000 {
            let (flights, calls) = (flights.clone(), calls.clone());
            tasks.spawn(async move { ask(&flights, &calls, far()).await });
        }
        for end in tasks.join_all().await {
            assert_eq!(end, "Ended(Landed(7))");
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(
            (flights.under_way(), flights.waiters.load(Ordering::Relaxed)),
            (0, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_flight_outlives_impatient_callers() {
        let (flights, calls) = (flights(), Arc::new(AtomicUsize::new(0)));
        let soon = Instant::now() + Duration::from_millis(50);
        assert_eq!(ask(&flights, &calls, soon).await, "DeadlinePassed");
        // The second joins the flight that the first began and left.
        assert_eq!(ask(&flights, &calls, far()).await, "Ended(Landed(7))");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_shared_then_held_then_forgotten() {
        for panics in [false, true] {
            let flights = flights();
            let fail = || async move {
                assert!(!panics, "contained");
                Err("no")
            };
            let Boarding::Ticket(ticket) = flights.board(&"k", fail) else {
                panic!("no ticket")
            };
            let FlightWait::Ended(end) = ticket.wait(far()).await else {
                panic!("no end")
            };
            assert!(!matches!(end, FlightEnd::Landed(_)));
            assert!(matches!(flights.board(&"k", fail), Boarding::JustFailed(_)));
            clock::sleep(HOLD).await;
            let Boarding::Ticket(ticket) = flights.board(&"k", || async { Ok(1) }) else {
                panic!("still held")
            };
            assert!(matches!(
                ticket.wait(far()).await,
                FlightWait::Ended(FlightEnd::Landed(1))
            ));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_boards_an_outdated_flight_and_it_has_one_successor() {
        let flights = flights();
        let lands = |number: u32, after_ms: u64| {
            move || async move {
                clock::sleep(Duration::from_millis(after_ms)).await;
                match number {
                    0 => Err("late"),
                    number => Ok(number),
                }
            }
        };
        let end = async |boarding| {
            let Boarding::Ticket(ticket) = boarding else {
                panic!("no ticket")
            };
            format!("{:?}", ticket.wait(far()).await)
        };
        // An outdated flight lands before its successor, after it, or fails; none of it is its
        // affair.
        for (old, old_takes) in [(1, 100), (1, 900), (0, 100), (0, 900)] {
            let aboard = flights.board(&"k", lands(old, old_takes));
            flights.outdate();
            let next = flights.board(&"k", lands(2, 500));
            let joined = flights.board(&"k", lands(3, 500));
            let ends = tokio::join!(end(aboard), end(next), end(joined));
            let own = match old {
                0 => "Ended(Failed(\"late\"))",
                _ => "Ended(Landed(1))",
            };
            assert_eq!(ends.0, own);
            assert_eq!(
                (&*ends.1, &*ends.2),
                ("Ended(Landed(2))", "Ended(Landed(2))")
            );
            assert!(flights.slots.lock().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_capped() {
        let flights = flights();
        let fetch = || async {
            clock::sleep(Duration::from_secs(1)).await;
            Ok(1)
        };
        let tickets: Vec<_> = (0..WAITERS_PER_FLIGHT_MAX)
            .map(|_| flights.board(&"k", fetch))
            .collect();
        assert!(tickets.iter().all(|b| matches!(b, Boarding::Ticket(_))));
        assert!(matches!(flights.board(&"k", fetch), Boarding::Crowded));
        drop(tickets);
        assert!(matches!(flights.board(&"k", fetch), Boarding::Ticket(_)));
    }
}
