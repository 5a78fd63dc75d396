//! Explains how a question would be answered, without answering it.

use std::sync::Arc;

use super::ReadError;
use super::cases::{Cases, ViewSource};
use crate::access::Caller;
use crate::admission::Lane;
use crate::cache::{
    CacheKey, Directives, FetchError, Lifetimes, Remembered, Shelf, Standing, Verdict, Wanted,
};
use crate::clock::{Duration, Instant};
use crate::domain::{CustomerId, Operation, SearchQuery};

/// The explanation of a question.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The start of the identity's fingerprint, in hex.
    pub identity: String,
    /// Whether an answer is remembered.
    pub held: bool,
    /// Whether the remembered answer is that N-able has no such data.
    pub negative: bool,
    /// For a search for one customer that is cut from one for all: the identity of that one.
    pub derived_from: Option<String>,
    /// Whether a vendor call for it is already running. A new caller would wait for that one.
    pub under_way: bool,
    /// How the answer may be used.
    pub standing: Standing,
    /// The age of the answer.
    pub age: Option<Duration>,
    /// The lifetimes that apply.
    pub lifetimes: Lifetimes,
    /// For a search: how settled its range is.
    pub grade: Option<&'static str>,
    /// For a search: `growing`, `complete`, `cut` or `broken`, and the number of rows in memory.
    pub snapshot: Option<(&'static str, usize)>,
    /// The lane in which a vendor call would go.
    pub lane: Option<Lane>,
    /// The operation that would be called now. `None` if memory would answer alone.
    pub call: Option<Operation>,
}

impl Explanation {
    pub(super) fn new(key: &CacheKey, lifetimes: Lifetimes, call: Operation) -> Self {
        Self {
            identity: key.to_string(),
            held: false,
            negative: false,
            derived_from: None,
            under_way: false,
            standing: Standing::Expired,
            age: None,
            lifetimes,
            grade: None,
            snapshot: None,
            lane: Some(Wanted::Now.lane()),
            call: Some(call),
        }
    }

    fn held(mut self, standing: Standing, age: Duration) -> Self {
        self.held = true;
        self.standing = standing;
        self.age = Some(age);
        let seen = Remembered {
            age,
            standing,
            past_s: 0,
            ahead: false,
        };
        let wanted = match seen.verdict(&Directives::default()) {
            Verdict::Serve | Verdict::RefreshAhead | Verdict::NotCached => return self.answered(),
            Verdict::ServeAndRefresh => Wanted::Later,
            Verdict::Ask(_) if standing == Standing::Expired => Wanted::Now,
            Verdict::Ask(_) => Wanted::Soon,
        };
        self.lane = Some(wanted.lane());
        self
    }

    /// Sets that nothing would be called.
    fn answered(mut self) -> Self {
        (self.lane, self.call) = (None, None);
        self
    }

    fn under_way(mut self, under_way: bool) -> Self {
        self.under_way = under_way;
        match under_way {
            true => self.answered(),
            false => self,
        }
    }

    /// Explains a lookup, in the way [`Shelf::lookup`] makes it. `negative` is how long a soft
    /// failure is remembered.
    pub(super) fn on<V, E>(
        self,
        shelf: &Shelf<V, E>,
        key: &CacheKey,
        negative: Duration,
        now: Instant,
    ) -> Self
    where
        V: Clone + Send + Sync + 'static,
        E: FetchError,
    {
        let lifetimes = self.lifetimes;
        let explanation = match shelf.local.get(key) {
            None => self,
            Some(entry) => self.held(entry.standing(&lifetimes, now), entry.age(now)),
        };
        let good = [Standing::Fresh, Standing::Stale].contains(&explanation.standing);
        match shelf.local.get_negative(key, negative, now) {
            Some(failure) if !good => {
                let mut explanation = explanation;
                if explanation.standing == Standing::Expired {
                    // Otherwise the older good answer is preferred.
                    explanation = explanation.held(Standing::Fresh, failure.age(now));
                }
                explanation.negative = true;
                explanation.answered()
            }
            _ => explanation.under_way(shelf.flights.is_under_way(key)),
        }
    }
}

impl Cases {
    /// Explains a search without a page token. `whole` means that all its rows are wanted, as the
    /// overview and exports want them.
    ///
    /// # Errors
    /// [`ReadError::CustomerNotAllowed`]
    pub fn explain(
        &self,
        caller: &Caller,
        query: &SearchQuery,
        whole: bool,
    ) -> Result<Explanation, ReadError> {
        let may_see = |customer: &CustomerId| caller.audience.contains(customer);
        if !query.customer.as_ref().is_none_or(may_see) {
            return Err(ReadError::CustomerNotAllowed);
        }
        let query = Arc::new(query.clone());
        let key = self.key(&query);
        let (grade, lifetimes) = self.lifetimes(&query);
        let mut explanation = Explanation::new(&key, lifetimes, Operation::Search);
        explanation.grade = Some(grade.as_str());
        let (snapshots, now) = (self.snapshots(), self.clock.now());
        let usable = [Standing::Fresh, Standing::Stale];
        if let Some(ViewSource {
            snapshot: source, ..
        }) = self.view_source(&query, &usable, now)
        {
            let all = self.key(&Arc::new(query.for_all_customers()));
            explanation.derived_from = Some(all.to_string());
            explanation.snapshot = Some((source.end().as_str(), source.size().0));
            return Ok(explanation
                .held(source.standing(true, now), source.age(true, now))
                .under_way(snapshots.is_refreshing(&all)));
        }
        let Some(current) = snapshots.current(&key) else {
            return Ok(explanation);
        };
        explanation.snapshot = Some((current.end().as_str(), current.size().0));
        let look = current.look(whole, now);
        if look.is_new() {
            // Its first rows have not arrived yet.
            return Ok(explanation.under_way(true));
        }
        let growing = look.growing && !look.purged;
        let standing = match growing {
            true => Standing::Fresh,
            false => look.standing(),
        };
        Ok(explanation
            .held(standing, look.age())
            .under_way(growing || snapshots.is_refreshing(&key)))
    }
}
