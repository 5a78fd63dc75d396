//! The one way to an answer: look in memory; if the entry is usable, answer now and refresh;
//! otherwise join or lead a flight and wait.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::fleet_flight::{FleetBoarding, Wish};
use super::flight::{Boarding, FlightEnd, FlightWait, Flights};
use super::freshness::{Directives, Lifetimes, ON_ERROR_WAIT, Standing};
use super::keeping::Keeping;
use super::key::CacheKey;
use super::local::{Entry, Fetched, Local};
use super::note::{CacheNote, Detail, Forward};
use super::verdict::{Remembered, Verdict};
use crate::access::ForcedRefreshes;
use crate::admission::Lane;
use crate::clock::{Clock, Duration, Instant};
use crate::domain::CacheOutcome;
use crate::metrics::StoreUsage;
use crate::store::Purges;
use crate::traces::LiveTrace;

/// The error type of an operation that cannot fail.
#[derive(Clone, Debug)]
enum Never {}

/// The properties of a failed fetch that a lookup needs.
pub trait FetchError: Clone + Send + Sync + 'static {
    /// Returns whether the vendor was not asked, because it had answered 429 or no budget was left.
    fn is_not_now(&self) -> bool;

    /// Returns whether a remembered answer may be served instead: the vendor failed, not the
    /// question.
    fn allows_stale(&self) -> bool;

    /// Returns the failure as bytes for other gateways. `None` unless the failure was a vendor's
    /// whole answer, because another gateway may reach a vendor that this one cannot reach.
    fn to_shared(&self) -> Option<Vec<u8>>;

    /// Returns the failure of such bytes. `None` for any others.
    fn of_shared(bytes: Bytes) -> Option<Self>;
}

/// How urgently a fetch is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No caller waits: the remembered answer was served.
    Later,
    /// A caller waits a moment, and then takes the remembered answer.
    Soon,
    /// A caller waits and has no other answer.
    Now,
}

impl Wanted {
    /// Returns the lane of the first vendor call. Callers who have another answer go behind those
    /// who have none.
    pub fn lane(self) -> Lane {
        match self {
            Self::Later | Self::Soon => Lane::Refresh,
            Self::Now => Lane::Interactive,
        }
    }
}

/// The answers of one kind, with their flights.
pub struct Shelf<V, E> {
    /// Answers in memory.
    pub local: Local<V>,
    /// Fetches in progress.
    pub flights: Arc<Flights<CacheKey, Landed<V>, E>>,
    /// Store lookups in progress. Concurrent callers share one.
    recalls: Arc<Flights<CacheKey, (), Never>>,
    /// Keeps answers beyond the process. `None` keeps nothing.
    keeping: Option<Arc<Keeping<V>>>,
    clock: Clock,
}

/// What an operator does with a shelf, whatever answers are on it.
pub trait AnswerShelf {
    /// Removes the answers that `which` names, or makes them stale, and returns their number.
    /// Flights under way answer only the callers that wait for them already.
    fn purge(&self, soft: bool, which: &dyn Fn(&CacheKey) -> bool) -> u64;

    /// Returns how full it is.
    fn usage(&self) -> StoreUsage;
}

impl<V, E> AnswerShelf for Shelf<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: FetchError,
{
    fn purge(&self, soft: bool, which: &dyn Fn(&CacheKey) -> bool) -> u64 {
        let purged = self.local.purge(soft, which);
        self.flights.outdate();
        purged
    }

    fn usage(&self) -> StoreUsage {
        self.local.usage()
    }
}

/// The result of a flight, and whether it was stored.
#[derive(Clone, Debug)]
pub struct Landed<V> {
    entry: Arc<Entry<V>>,
    kept: bool,
    /// Another gateway fetched it.
    shared: bool,
}

/// An answer and its origin.
#[derive(Clone, Debug)]
pub struct Found<V> {
    /// The answer.
    pub entry: Arc<Entry<V>>,
    /// Its origin.
    pub note: CacheNote,
    /// When the lookup ended.
    pub at: Instant,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum LookupError<E> {
    /// The fetch's own error.
    Fetch(E),
    /// The fetch panicked or its task ended early.
    Internal,
    /// The flight has its full number of waiters.
    Crowded,
    /// The caller's deadline passed. The fetch continues.
    DeadlinePassed,
    /// `only-if-cached` was sent and no usable answer is stored.
    NotCached,
}

/// The rules for one lookup.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Lifetimes of good answers.
    pub lifetimes: Lifetimes,
    /// Lifetimes of soft failures.
    pub negative: Duration,
    /// The caller's `Cache-Control`.
    pub directives: Directives,
    /// The caller's allowance of forced vendor calls.
    pub forced: &'a ForcedRefreshes,
    /// Whether a hot answer is refreshed before it is stale.
    pub refresh_ahead: bool,
    /// When the caller's answer is due.
    pub deadline: Instant,
    /// The request's trace, where it is sampled.
    pub trace: Option<&'a Arc<LiveTrace>>,
}

impl<V, E> Shelf<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: FetchError,
{
    /// Creates an empty shelf of this many bytes.
    ///
    /// `purges` counts the purges of everything that is remembered. With `keeping`, answers outlive
    /// the process.
    pub fn new(
        bytes_max: u64,
        purges: &Arc<Purges>,
        keeping: Option<Arc<Keeping<V>>>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            local: Local::new(bytes_max, purges.clone()),
            flights: Flights::new(clock.clone()),
            recalls: Flights::new(clock.clone()),
            keeping,
            clock,
        })
    }

    /// Returns the answer to `key`, and fetches it if necessary. `fetch` makes one vendor call. It
    /// is called at most once, in a task of its own, with the urgency of the call.
    ///
    /// # Errors
    /// If neither memory nor the vendor gives a usable answer in time.
    pub async fn lookup<F, Fut>(
        self: &Arc<Self>,
        key: &CacheKey,
        terms: &Terms<'_>,
        fetch: F,
    ) -> Result<Found<V>, LookupError<E>>
    where
        F: FnOnce(Wanted) -> Fut,
        Fut: Future<Output = Result<Fetched<V>, E>> + Send + 'static,
    {
        let mut now = self.clock.now();
        let since = now;
        let mut remembered = self.local.get(key);
        let mut recalled = false;
        if remembered.is_none()
            && let Some(keeping) = &self.keeping
            && !terms.directives.no_cache
            && self.local.get_negative(key, terms.negative, now).is_none()
        {
            // Boxed, because a hit never looks into the store.
            let span = terms.trace.map(|trace| trace.open(None));
            Box::pin(self.recall(keeping, key, terms)).await;
            now = self.clock.now();
            if let Some(span) = span {
                span.end_store("find_answer", now);
            }
            remembered = self.local.get(key);
            recalled = remembered.is_some();
        }
        let directives = self.obeyed(key, &remembered, terms, now);
        // What another gateway may answer instead of the vendor.
        let wish = |now: Instant| Wish {
            lives: (terms.lifetimes, terms.negative),
            after: remembered
                .as_ref()
                .map(|entry| entry.born)
                .max(directives.oldest(now)),
            since,
        };
        let told = |note: CacheNote| match directives == terms.directives {
            true => note,
            false => note.with_detail(Detail::AllowanceExhausted),
        };
        let why = match &remembered {
            None => Forward::UriMiss,
            Some(entry) => match judge(entry, terms, &directives, now) {
                (Verdict::Serve, note) => {
                    let note = match recalled {
                        true => note.with_detail(Detail::Store),
                        false => note,
                    };
                    return Ok(Found {
                        entry: entry.clone(),
                        note: told(note),
                        at: now,
                    });
                }
                (verdict @ (Verdict::RefreshAhead | Verdict::ServeAndRefresh), note) => {
                    let note = match verdict {
                        Verdict::ServeAndRefresh => note.with_detail(Detail::StaleWhileRevalidate),
                        _ => note,
                    };
                    self.flights
                        .launch_unwaited(key, || self.fill(key, wish(now), fetch(Wanted::Later)));
                    return Ok(Found {
                        entry: entry.clone(),
                        note: told(note),
                        at: now,
                    });
                }
                (Verdict::Ask(why), _) => why,
                // A soft failure that is remembered may still answer.
                (Verdict::NotCached, _) => Forward::Stale,
            },
        };
        if let Some(negative) = self.local.get_negative(key, terms.negative, now)
            && !directives.no_cache
        {
            return Ok(self.soft_failed(negative, None, remembered, terms, now));
        }
        if directives.only_if_cached {
            return Err(LookupError::NotCached);
        }

        let usable = |at| {
            let entry = remembered.as_ref();
            entry.is_some_and(|e| e.standing(&terms.lifetimes, at) != Standing::Expired)
        };
        // A caller that asks for a newer answer is prepared to wait for it.
        let wanted = match why == Forward::Stale && usable(now) {
            true => Wanted::Soon,
            false => Wanted::Now,
        };
        let ticket = match self
            .flights
            .board(key, || self.fill(key, wish(now), fetch(wanted)))
        {
            Boarding::Ticket(ticket) => ticket,
            Boarding::JustFailed(end) => {
                return self.fall_back(self.failure(end), remembered, terms);
            }
            Boarding::Crowded => {
                return self.fall_back(LookupError::Crowded, remembered, terms);
            }
        };
        let (collapsed, began) = (!ticket.led, ticket.began);
        let soon = began + ON_ERROR_WAIT;
        let until = match wanted {
            Wanted::Soon if usable(soon) => soon.min(terms.deadline),
            _ => terms.deadline,
        };
        // Boxed, because a hit never waits and should not carry the size of this future.
        match Box::pin(ticket.wait(until)).await {
            FlightWait::Ended(FlightEnd::Landed(landed)) => {
                let Landed {
                    entry,
                    kept,
                    shared,
                } = landed;
                let at = self.clock.now();
                let note = match shared {
                    false => CacheNote::forwarded(why, kept, collapsed),
                    true if entry.born < began => {
                        let note = CacheNote::hit(entry.ttl_s(&terms.lifetimes, at));
                        note.with_detail(Detail::Store)
                    }
                    // It waited for the call of another gateway.
                    true => CacheNote::forwarded(why, kept, true).with_detail(Detail::Store),
                };
                if entry.negative {
                    return Ok(self.soft_failed(entry, Some(note), remembered, terms, at));
                }
                Ok(Found { entry, note, at })
            }
            FlightWait::Ended(end) => self.fall_back(self.failure(end), remembered, terms),
            FlightWait::DeadlinePassed => {
                self.fall_back(LookupError::DeadlinePassed, remembered, terms)
            }
            FlightWait::Lost => self.fall_back(LookupError::Internal, remembered, terms),
        }
    }

    /// Returns the caller's directives. Removes those that would force a vendor call beyond the
    /// caller's allowance.
    fn obeyed(
        &self,
        key: &CacheKey,
        remembered: &Option<Arc<Entry<V>>>,
        terms: &Terms<'_>,
        now: Instant,
    ) -> Directives {
        let directives = terms.directives;
        if !directives.limits_age() {
            // The usual case: nothing is forced.
            return directives;
        }
        let would_do = |entry: &Arc<Entry<V>>| {
            directives.refuses_age(entry.age(now))
                && entry.standing(&terms.lifetimes, now) != Standing::Expired
        };
        let forces = remembered.as_ref().is_some_and(would_do)
            || (directives.no_cache && self.local.get_negative(key, terms.negative, now).is_some());
        if forces && !directives.only_if_cached && !terms.forced.allow(now) {
            directives.unforced()
        } else {
            directives
        }
    }

    /// The vendor soft-failed. A good answer that is usable on error is preferred.
    fn soft_failed(
        &self,
        negative: Arc<Entry<V>>,
        asked: Option<CacheNote>,
        remembered: Option<Arc<Entry<V>>>,
        terms: &Terms<'_>,
        now: Instant,
    ) -> Found<V> {
        match remembered.filter(|e| e.standing(&terms.lifetimes, now) != Standing::Expired) {
            Some(entry) => {
                let note = CacheNote::hit(entry.ttl_s(&terms.lifetimes, now));
                Found {
                    entry,
                    note: note.with_detail(Detail::SoftFailure),
                    at: now,
                }
            }
            None => {
                let note = asked.unwrap_or_else(|| {
                    let left = terms.negative.saturating_sub(negative.age(now));
                    let mut note =
                        CacheNote::hit(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
                    note.outcome = CacheOutcome::Negative;
                    note
                });
                Found {
                    entry: negative,
                    note: note.with_detail(Detail::SoftFailure),
                    at: now,
                }
            }
        }
    }

    fn failure(&self, end: FlightEnd<Landed<V>, E>) -> LookupError<E> {
        match end {
            FlightEnd::Failed(error) => LookupError::Fetch(error),
            FlightEnd::Panicked | FlightEnd::Landed(_) => LookupError::Internal,
        }
    }

    /// Returns the remembered answer if it may replace the failure, otherwise the failure.
    fn fall_back(
        &self,
        error: LookupError<E>,
        remembered: Option<Arc<Entry<V>>>,
        terms: &Terms<'_>,
    ) -> Result<Found<V>, LookupError<E>> {
        let detail = match &error {
            LookupError::Fetch(e) if !e.allows_stale() => return Err(error),
            LookupError::Fetch(e) if e.is_not_now() => Detail::StaleNoBudget,
            LookupError::NotCached => return Err(error),
            LookupError::Fetch(_)
            | LookupError::Internal
            | LookupError::Crowded
            | LookupError::DeadlinePassed => Detail::StaleOnError,
        };
        let now = self.clock.now();
        match remembered.filter(|e| e.standing(&terms.lifetimes, now) != Standing::Expired) {
            Some(entry) => {
                let note = CacheNote::hit(entry.ttl_s(&terms.lifetimes, now)).with_detail(detail);
                Ok(Found {
                    entry,
                    note,
                    at: now,
                })
            }
            None => Err(error),
        }
    }

    /// Runs a fetch and stores its result. Where gateways share a store, one of them fetches for
    /// all.
    fn fill<Fut>(
        self: &Arc<Self>,
        key: &CacheKey,
        wish: Wish,
        fetch: Fut,
    ) -> impl Future<Output = Result<Landed<V>, E>> + Send + 'static
    where
        Fut: Future<Output = Result<Fetched<V>, E>> + Send + 'static,
    {
        let (shelf, key) = (self.clone(), key.clone());
        let mut mark = self.local.mark();
        async move {
            let mut lead = None;
            if let Some(keeping) = shelf.keeping.as_ref().filter(|it| it.is_shared()) {
                let board = keeping.board(&shelf.local, &key, &wish, &shelf.clock);
                match Box::pin(board).await {
                    FleetBoarding::Landed(entry) => {
                        let (kept, shared) = (true, true);
                        return Ok(Landed {
                            entry,
                            kept,
                            shared,
                        });
                    }
                    FleetBoarding::Failed(error) => return Err(error),
                    FleetBoarding::Lead(claim) => lead = Some(claim),
                    FleetBoarding::Alone => {}
                }
                // Purges before this moment are before the fetch.
                mark = shelf.local.mark();
            }
            let fetched = match &lead {
                Some(claim) => claim.hold(fetch).await,
                None => fetch.await,
            };
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) => {
                    if let Some(claim) = lead {
                        claim.fail(&error);
                    }
                    return Err(error);
                }
            };
            let (entry, kept) = shelf.local.keep(&key, fetched, mark, shelf.clock.now());
            if let Some(keeping) = shelf.keeping.as_ref().filter(|_| kept) {
                match lead {
                    Some(claim) => claim.land(&entry, mark, &shelf.clock),
                    None => keeping.keep(&entry, mark, &shelf.clock),
                }
            }
            let shared = false;
            Ok(Landed {
                entry,
                kept,
                shared,
            })
        }
    }

    /// Looks into the store for what memory does not hold, and puts it there. Waits as long as the
    /// store lets anyone wait, or until the caller's deadline.
    async fn recall(
        self: &Arc<Self>,
        keeping: &Arc<Keeping<V>>,
        key: &CacheKey,
        terms: &Terms<'_>,
    ) {
        let lives = (terms.lifetimes, terms.negative);
        let look = || {
            let (shelf, keeping, key) = (self.clone(), keeping.clone(), key.clone());
            async move {
                let (local, clock) = (&shelf.local, &shelf.clock);
                keeping.recall(local, &key, lives, clock).await;
                Ok(())
            }
        };
        if let Boarding::Ticket(ticket) = self.recalls.board(key, look) {
            ticket.wait(terms.deadline).await;
        }
    }
}

fn judge<V>(
    entry: &Entry<V>,
    terms: &Terms<'_>,
    directives: &Directives,
    now: Instant,
) -> (Verdict, CacheNote) {
    let judged = entry.judge(&terms.lifetimes, now);
    let ttl_s = entry.ttl_s_of(&judged);
    let seen = Remembered {
        age: judged.age,
        standing: entry.standing_of(&judged),
        past_s: ttl_s.saturating_neg(),
        ahead: terms.refresh_ahead && entry.is_due(&judged),
    };
    (seen.verdict(directives), CacheNote::hit(ttl_s))
}
