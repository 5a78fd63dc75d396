//! Case searches: pages cut from snapshots and connected by page tokens.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::answer::{Account, Answer, Asker};
use super::heal::HealingTurns;
use super::{Ingredients, Policy, ReadError};
use crate::cache::{
    CacheKey, CacheNote, Detail, Lifetimes, ON_ERROR_WAIT, Pages, Rendered, Standing, Subject,
};
use crate::clock::{Clock, Instant, timeout_at};
use crate::domain::near::NearMember;
use crate::domain::period::RangeGrade;
use crate::domain::query::SearchRequest;
use crate::domain::{CacheOutcome, Kind, PageSize, Saved, SearchQuery, Vendor};
use crate::metrics::{Metrics, StoreUsage};
use crate::snapshot::page::render;
use crate::snapshot::token::EXTRA_BYTES_MAX;
use crate::snapshot::{
    Claims, Marks, Open, Opened, PageAsk, Sealer, Snapshot, SnapshotId, Snapshots, View, Want,
};
use crate::vendors::Wiv;

/// Standings of a view that is used only if the vendor gives nothing better.
const OLDER: [Standing; 2] = [Standing::Stale, Standing::OnError];

#[derive(Clone, PartialEq, Eq, Hash)]
struct PageKey {
    snapshot: SnapshotId,
    view: View,
    offset: u32,
    size: PageSize,
}

/// A search request after preparation: the parts that take time to compute and are the same each
/// time. Contains nothing about the caller.
#[derive(Clone, Debug)]
pub enum Search {
    /// Requests a first page.
    First {
        /// The search.
        query: Arc<SearchQuery>,
        /// The cache key of the search.
        key: CacheKey,
        /// Number of rows in a page.
        size: PageSize,
        /// A member that looks like a documented one.
        near: Option<NearMember>,
    },
    /// Continues from a page token.
    Next {
        /// The page token.
        token: String,
        /// The parts of the search that the request repeats.
        repeated: SearchQuery,
        /// Number of rows in a page, if the request has it.
        size: Option<PageSize>,
        /// A member that looks like a documented one.
        near: Option<NearMember>,
    },
}

impl Search {
    /// Returns whether it continues from a page token.
    pub fn is_continuation(&self) -> bool {
        matches!(self, Self::Next { .. })
    }

    /// Returns a member that looks like a documented one.
    pub fn near(&self) -> Option<&NearMember> {
        match self {
            Self::First { near, .. } | Self::Next { near, .. } => near.as_ref(),
        }
    }
}

/// A place in a snapshot, as one caller sees it.
pub(super) struct PagePlace {
    pub snapshot: Arc<Snapshot>,
    pub view: View,
    pub offset: u32,
    pub size: PageSize,
    /// The marks that the rows before it must show, if a token contains them.
    pub marks: Option<Marks>,
    /// The purpose of the page.
    pub want: Want,
}

/// A view of a snapshot of all customers that answers a search for one.
pub(super) struct Derived {
    pub snapshot: Arc<Snapshot>,
    pub view: View,
    pub detail: Detail,
    /// Whether the snapshot of all customers is stale.
    pub stale: bool,
}

/// The snapshot that a search for one customer may be cut from.
pub(super) struct ViewSource {
    /// A complete snapshot of all customers.
    pub snapshot: Arc<Snapshot>,
    /// Whether it is stale.
    pub stale: bool,
    /// The standing of the search's own snapshot, if it has one.
    pub own: Option<Standing>,
}

/// Answers `POST` and `QUERY /v2/cases/msp/search`.
pub struct Cases {
    wiv: Arc<Wiv>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) healing: HealingTurns,
    sealer: Arc<ArcSwap<Sealer>>,
    pages: Pages<PageKey>,
    policy: Arc<ArcSwap<Policy>>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

impl Cases {
    pub(super) fn new(of: &Ingredients, pages_bytes: u64) -> Self {
        Self {
            wiv: of.clients.wiv.clone(),
            snapshots: of.snapshots.clone(),
            healing: HealingTurns::default(),
            sealer: of.sealer.clone(),
            pages: Pages::new(pages_bytes, of.files.clone()),
            policy: of.policy.clone(),
            clock: of.clock.clone(),
            metrics: of.metrics.clone(),
        }
    }

    /// Returns the snapshots that pages are cut from.
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    pub(super) fn sweep(&self) {
        self.snapshots.sweep();
    }

    pub(super) fn pages_usage(&self) -> StoreUsage {
        self.pages.usage()
    }

    /// Returns the cache key of a search.
    pub fn key(&self, query: &Arc<SearchQuery>) -> CacheKey {
        CacheKey::new(
            self.wiv.credential().clone(),
            Subject::Search(query.clone()),
        )
    }

    /// Returns how settled a search's range is today, and the lifetimes of its answers.
    pub fn lifetimes(&self, query: &SearchQuery) -> (RangeGrade, Lifetimes) {
        let policy = self.policy.load();
        let today = self.clock.today(&policy.time_zone);
        let grade = match query.range {
            None => RangeGrade::Open,
            Some(range) => range.grade(today, policy.recent_days),
        };
        let lifetimes = match grade {
            RangeGrade::Open => policy.cases.open,
            RangeGrade::Recent => policy.cases.recent,
            RangeGrade::Closed => policy.cases.closed,
        };
        (grade, lifetimes)
    }

    /// Prepares a search.
    pub fn prepare(&self, request: SearchRequest) -> Search {
        let SearchRequest {
            query,
            page_size: size,
            page_token,
        } = request;
        let near = NearMember::among(query.extra.keys().map(|name| &**name));
        if let Some(token) = page_token {
            return Search::Next {
                token,
                repeated: query,
                size,
                near,
            };
        }
        let query = Arc::new(query);
        Search::First {
            key: self.key(&query),
            query,
            size: size.unwrap_or(PageSize::DEFAULT),
            near,
        }
    }

    /// Returns whether members that look like a documented one are refused.
    pub fn is_strict(&self) -> bool {
        self.policy.load().strict_members
    }

    /// Returns one page of a search.
    ///
    /// # Errors
    /// Fails with any refusal of a token, a walk or the vendor.
    pub async fn search(&self, asker: &Asker, request: SearchRequest) -> Result<Answer, ReadError> {
        self.answer(asker, &self.prepare(request)).await
    }

    /// Returns one page of a prepared search.
    ///
    /// # Errors
    /// Fails with any refusal of a token, a walk or the vendor.
    pub async fn answer(&self, asker: &Asker, search: &Search) -> Result<Answer, ReadError> {
        let account = Account {
            metrics: &self.metrics,
            vendor: Vendor::Wiv,
            kind: Kind::Cases,
        };
        let answered = match search {
            Search::Next {
                token,
                repeated,
                size,
                ..
            } => Box::pin(self.continued(asker, token, repeated, *size)).await,
            Search::First {
                query, key, size, ..
            } => self.first_page(asker, query, key, *size).await,
        };
        match answered {
            Ok((answer, saved)) => {
                account.answered(asker, &answer.note, saved);
                Ok(answer)
            }
            Err(error) => {
                account.refused(&error);
                Err(error)
            }
        }
    }

    /// Returns what memory would answer to a first page. It is not counted, because no caller asks.
    /// `None` also while the page is still being read: this never reads from the vendor.
    pub(super) async fn peek(&self, asker: &Asker, search: &Search) -> Option<Answer> {
        let Search::First {
            query, key, size, ..
        } = search
        else {
            return None;
        };
        if let Some(own) = self.snapshots.current(key).filter(|own| own.is_growing()) {
            let view = View::new(None, asker.audience().clone());
            if own.known(&view).0 <= size.get() {
                return None;
            }
        }
        let answered = self.first_page(asker, query, key, *size).await;
        answered.ok().map(|(answer, _)| answer)
    }

    async fn first_page(
        &self,
        asker: &Asker,
        query: &Arc<SearchQuery>,
        key: &CacheKey,
        size: PageSize,
    ) -> Result<(Answer, Option<Saved>), ReadError> {
        asker.may_see(query.customer.as_ref())?;
        let place = |snapshot, view| PagePlace {
            snapshot,
            view,
            offset: 0,
            size,
            marks: None,
            want: Want::Page,
        };
        let usable = [Standing::Fresh, Standing::Stale];
        // Boxed, because memory answers most searches.
        Box::pin(self.recall_views(asker, query)).await;
        if let Some(derived) = self.derived(asker, query, &usable) {
            if derived.stale {
                // All rows are read again once, for the views of all customers.
                let all = Arc::new(query.for_all_customers());
                self.open(asker, &all, true).await?;
            }
            let place = place(derived.snapshot, derived.view);
            // Boxed, because it is rarer than the rest, which should not carry the memory for it.
            return Box::pin(self.derived_page(asker, place, derived.detail)).await;
        }
        let asked = async {
            let opened = self.open_keyed(asker, key, query, false).await?;
            let view = View::new(None, asker.audience().clone());
            let note = opened.note;
            let place = place(opened.snapshot, view);
            self.page(asker, place, Some(note)).await
        };
        let opened = match query.customer {
            None => asked.await,
            Some(_) => self.within_patience(asker, query, key, asked).await,
        };
        match opened {
            Ok(answer) => Ok((answer, None)),
            Err(error) if error.allows_stale() => match self.derived(asker, query, &OLDER) {
                Some(derived) => {
                    let place = place(derived.snapshot, derived.view);
                    Box::pin(self.derived_page(asker, place, Detail::StaleOnError)).await
                }
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Answers a search for one customer. If an older view of all customers would do on error, the
    /// vendor gets a short time to answer and not all of the caller's.
    async fn within_patience(
        &self,
        asker: &Asker,
        query: &Arc<SearchQuery>,
        key: &CacheKey,
        asked: impl Future<Output = Result<Answer, ReadError>>,
    ) -> Result<Answer, ReadError> {
        tokio::pin!(asked);
        // The time counts from the start of the walk, so that a walk that hangs delays only its
        // first callers.
        let own = self.snapshots.current(key).filter(|s| s.ages().is_none());
        let since = own.map_or_else(|| self.clock.now(), |own| own.birth());
        let soon = (since + ON_ERROR_WAIT).min(asker.deadline);
        if let Ok(answered) = timeout_at(soon, &mut asked).await {
            return answered;
        }
        // A caller that asks for something newer is prepared to wait.
        let directives = asker.directives;
        let takes_old = !directives.no_cache && directives.max_age.is_none();
        match takes_old && self.derived(asker, query, &OLDER).is_some() {
            true => Err(ReadError::DeadlinePassed {
                vendor: Vendor::Wiv,
            }),
            false => asked.await,
        }
    }

    /// Opens the snapshot of a search.
    pub(super) async fn open(
        &self,
        asker: &Asker,
        query: &Arc<SearchQuery>,
        whole: bool,
    ) -> Result<Opened, ReadError> {
        self.open_keyed(asker, &self.key(query), query, whole).await
    }

    pub(super) async fn open_keyed(
        &self,
        asker: &Asker,
        key: &CacheKey,
        query: &Arc<SearchQuery>,
        whole: bool,
    ) -> Result<Opened, ReadError> {
        let ask = Open {
            key,
            query,
            lifetimes: &|| self.lifetimes(query).1,
            whole,
            directives: asker.directives,
            forced: &asker.caller.forced,
            refresh_ahead: !whole && self.policy.load().refresh_ahead,
            deadline: asker.deadline,
            payer: &asker.payer,
        };
        Ok(self.snapshots.open(&ask).await?)
    }

    /// Returns a view of a complete snapshot of all customers that answers a search for one.
    pub(super) fn derived(
        &self,
        asker: &Asker,
        query: &Arc<SearchQuery>,
        standings: &[Standing],
    ) -> Option<Derived> {
        let customer = query.customer.clone()?;
        let now = self.clock.now();
        let ViewSource {
            snapshot,
            stale,
            own,
        } = self.view_source(query, standings, now)?;
        let mut detail = Detail::Derived;
        if asker.directives.refuses_age(snapshot.age(true, now)) {
            // A question to a usable snapshot of its own counts against the allowance.
            let own_usable = own.is_some_and(|own| own != Standing::Expired);
            if own_usable || asker.caller.forced.allow(now) {
                return None;
            }
            detail = Detail::AllowanceExhausted;
        }
        let view = View::new(Some(customer), asker.audience().clone());
        Some(Derived {
            snapshot,
            view,
            detail,
            stale,
        })
    }

    /// Loads a search for one customer, and the same search for all, from the store if memory holds
    /// neither. [`Self::derived`] reads only memory.
    pub(super) async fn recall_views(&self, asker: &Asker, query: &Arc<SearchQuery>) {
        let derives = query.customer.is_some() && self.policy.load().derive_customer;
        if !derives || asker.directives.no_cache || !self.snapshots.keeps() {
            return;
        }
        let own = self.key(query);
        let all = self.key(&Arc::new(query.for_all_customers()));
        if self.snapshots.current(&own).is_none() && self.snapshots.current(&all).is_none() {
            let keys = [&own, &all];
            self.snapshots.recall_current(&keys, asker.deadline).await;
        }
    }

    /// Returns the complete snapshot of all customers that a search for one would be cut from,
    /// unless the search has a better answer of its own.
    pub(super) fn view_source(
        &self,
        query: &Arc<SearchQuery>,
        standings: &[Standing],
        now: Instant,
    ) -> Option<ViewSource> {
        if query.customer.is_none() || !self.policy.load().derive_customer {
            return None;
        }
        let current = self.snapshots.current(&self.key(query));
        let own = current.as_ref().map(|own| own.standing(false, now));
        // Its first rows have not arrived yet. A caller that accepts an older answer does not wait
        // for them.
        let joined = |own: Arc<Snapshot>| {
            own.is_growing() && (own.ages().is_some() || standings.contains(&Standing::Fresh))
        };
        if current.is_some_and(joined) || own == Some(Standing::Fresh) {
            return None;
        }
        let all = Arc::new(query.for_all_customers());
        let snapshot = self.snapshots.complete(&self.key(&all), standings)?;
        let stale = snapshot.standing(true, now) == Standing::Stale;
        if stale && standings.contains(&Standing::Fresh) {
            // While all rows are read again, an own answer that is equally stale is as good.
            if own == Some(Standing::Stale) || !self.snapshots.is_read_whole(&snapshot) {
                return None;
            }
        }
        Some(ViewSource {
            snapshot,
            stale,
            own,
        })
    }

    async fn derived_page(
        &self,
        asker: &Asker,
        place: PagePlace,
        detail: Detail,
    ) -> Result<(Answer, Option<Saved>), ReadError> {
        let note = self.derived_note(&place.snapshot, detail);
        place.snapshot.note_view();
        let answer = self.page(asker, place, Some(note)).await?;
        Ok((answer, Some(Saved::Derived)))
    }

    pub(super) fn derived_note(&self, snapshot: &Snapshot, detail: Detail) -> CacheNote {
        let mut note = CacheNote::hit(snapshot.ttl_s(true, self.clock.now()));
        if note.outcome == CacheOutcome::Hit {
            note.outcome = CacheOutcome::Derived;
        }
        note.with_detail(detail)
    }

    async fn continued(
        &self,
        asker: &Asker,
        token: &str,
        repeated: &SearchQuery,
        size: Option<PageSize>,
    ) -> Result<(Answer, Option<Saved>), ReadError> {
        let claims = self
            .sealer
            .load()
            .open(token)
            .ok_or(ReadError::InvalidPageToken)?;
        let matches = claims.audience == asker.audience().fingerprint()
            && (repeated.customer.is_none() || repeated.customer == claims.customer)
            && (repeated.range.is_none() || repeated.range == claims.range);
        if !matches {
            return Err(ReadError::InvalidPageToken);
        }
        let size = size.unwrap_or(claims.size);
        let Some(marks) = claims.marks else {
            // The token is from an earlier version, whose tokens have no marks.
            return Err(ReadError::PageTokenExpired);
        };
        let found = self.snapshots.find(claims.snapshot, asker.deadline).await;
        let Some(snapshot) = found else {
            return Ok((self.heal(asker, &claims, repeated, size).await?, None));
        };
        let of_it = snapshot.key.fingerprint().starts_with(&claims.identity);
        let repeats = |(name, value)| snapshot.query.extra.get(name) == Some(value);
        if !of_it || !repeated.extra.iter().all(repeats) {
            return Err(ReadError::InvalidPageToken);
        }
        let customer = claims.customer.clone().filter(|_| claims.derived);
        let place = PagePlace {
            view: View::new(customer, asker.audience().clone()),
            snapshot,
            offset: claims.offset,
            size,
            marks: Some(marks),
            want: Want::Page,
        };
        let answer = match self.page(asker, place, None).await {
            // The snapshot broke, and the page is beyond its served rows.
            Err(ReadError::PageTokenExpired) => {
                return Ok((self.heal(asker, &claims, repeated, size).await?, None));
            }
            answer => answer?,
        };
        let saved = answer.note.is_from_memory().then_some(Saved::Repaged);
        Ok((answer, saved))
    }

    /// Cuts and renders a page. `note` says how the snapshot was found. Without a note it is a
    /// later page, which makes its own.
    pub(super) async fn page(
        &self,
        asker: &Asker,
        place: PagePlace,
        note: Option<CacheNote>,
    ) -> Result<Answer, ReadError> {
        let PagePlace {
            snapshot,
            view,
            offset,
            size,
            marks,
            want,
        } = place;
        let page_key = PageKey {
            snapshot: snapshot.id(),
            view,
            offset,
            size,
        };
        let whole = offset > 0 || page_key.view.customer.is_some();
        let finish = |rendered: Rendered, waited: bool, now: Instant| {
            let note = note.unwrap_or_else(|| {
                if waited {
                    let shared = asker.payer.calls() == 0;
                    CacheNote::forwarded(crate::cache::Forward::UriMiss, true, shared)
                } else {
                    CacheNote::hit(snapshot.ttl_s(whole, now)).with_detail(Detail::Snapshot)
                }
            });
            Answer {
                body: rendered.body,
                etag: Some(rendered.etag),
                age: snapshot.age(whole, now),
                note,
            }
        };
        // A page of the token's own snapshot is right. A page of another one must show the token's
        // marks.
        let is_its = || match marks {
            Some(marks) if want == Want::Healed => snapshot.shows(&page_key.view, offset, &marks),
            _ => true,
        };
        if let Some(rendered) = self.pages.get(&page_key)
            && is_its()
        {
            snapshot.touch(offset);
            return Ok(finish(rendered, false, self.clock.now()));
        }
        let ask = PageAsk {
            view: &page_key.view,
            offset,
            size: size.get(),
            marks,
            want,
            deadline: asker.deadline,
            payer: &asker.payer,
        };
        let (page, waited) = Box::pin(self.snapshots.page(&snapshot, &ask)).await?;
        let token = match page.next {
            None => None,
            Some(next) => {
                let claims = self.claims(&snapshot, &page_key.view, next, size);
                let token = self.sealer.load().seal(&claims);
                Some(token.ok_or(ReadError::Internal)?)
            }
        };
        let rendered = Rendered::new(render(&page, token.as_deref()));
        self.pages.note_reading(&page_key, &rendered);
        Ok(finish(rendered, waited, self.clock.now()))
    }

    fn claims(
        &self,
        snapshot: &Snapshot,
        view: &View,
        (offset, marks): (u32, Marks),
        size: PageSize,
    ) -> Claims {
        let derived = view.customer.is_some();
        let mut identity = [0; 16];
        for (to, from) in identity.iter_mut().zip(snapshot.key.fingerprint()) {
            *to = *from;
        }
        Claims {
            snapshot: snapshot.id(),
            offset,
            size,
            audience: view.audience_fingerprint(),
            identity,
            customer: view.customer.clone().or(snapshot.query.customer.clone()),
            derived,
            range: snapshot.query.range,
            extra: Some(snapshot.query.extra_text()).filter(|it| it.len() <= EXTRA_BYTES_MAX),
            marks: Some(marks),
        }
    }

    /// Forgets rendered pages. Call this after a rotation of the sealing key or a hard purge.
    pub fn forget_pages(&self) {
        self.pages.clear();
    }
}
