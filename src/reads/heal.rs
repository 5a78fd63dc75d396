//! Healing: a page token may outlive its snapshot.
//!
//! A token names its snapshot. It also contains the caller's search and the marks of the rows
//! before its place. If the snapshot is gone, or ends before the page, the same view of another
//! snapshot of that search may answer, provided that its rows before the place show the same marks:
//!
//! ```text
//! token ─▶ its snapshot is held ─────────────────────────▶ page
//!              │ gone, or broken before the page
//!              ▼
//!          current snapshot, known to the place ─ marks agree ─▶ page, and the next token names it
//!              │ none, or too short                └─ differ ─▶ 410
//!              ▼
//!          turn of the caller ─▶ a walk reads to the place ─▶ as above
//! ```
//!
//! Rows are compared and served in one step, so a list that changed before the place is never
//! served in part: the answer is 410. Failures of the vendor, the budget and the deadline keep
//! their own codes, and the token stays valid. If the list changed at its head, the first vendor
//! page shows it, and no further page is read. A refused token costs no further vendor call while
//! the snapshot it was compared with is current, because that snapshot is compared first.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{Answer, Asker};
use super::cases::{Cases, PagePlace};
use super::error::ReadError;
use crate::cache::{Directives, Standing};
use crate::clock::{Duration, Instant, timeout_at};
use crate::domain::{PageSize, SearchQuery, Shortage};
use crate::metrics::HealOutcome;
use crate::snapshot::{Claims, Marks, Snapshot, View, Want};

/// A caller that waits for the healing of its other token is refused this long before its deadline,
/// so that the refusal still reaches it.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Allows one healing walk at a time for each caller. The callers are those of the settings, so
/// they are few.
#[derive(Default)]
pub(super) struct HealingTurns(Mutex<HashMap<Arc<str>, Arc<Semaphore>>>);

impl HealingTurns {
    /// Waits until the caller heals no other token. `None` if `until` comes first.
    async fn take(&self, caller: &Arc<str>, until: Instant) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut callers = self.0.lock();
            let turns = callers.entry(Arc::clone(caller));
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        timeout_at(until, turns.acquire_owned()).await.ok()?.ok()
    }
}

/// A token that must continue in another snapshot.
struct Wound {
    query: Arc<SearchQuery>,
    offset: u32,
    size: PageSize,
    marks: Marks,
}

impl Cases {
    /// Returns the page of a token whose snapshot is gone.
    ///
    /// # Errors
    /// Fails with [`ReadError::PageTokenExpired`] if the list changed before the place, or the
    /// token does not contain its search. Otherwise fails like a first page.
    pub(super) async fn heal(
        &self,
        asker: &Asker,
        claims: &Claims,
        repeated: &SearchQuery,
        size: PageSize,
    ) -> Result<Answer, ReadError> {
        let healed = match self.wound(claims, repeated, size)? {
            Some(wound) => Box::pin(self.healed(asker, &wound)).await,
            None => Err(ReadError::PageTokenExpired),
        };
        self.metrics.heal(match &healed {
            Ok(_) => HealOutcome::Healed,
            Err(ReadError::PageTokenExpired) => HealOutcome::Changed,
            Err(_) => HealOutcome::Failed,
        });
        healed
    }

    /// Returns what is needed to heal a token. `None` if its search is unknown.
    fn wound(
        &self,
        claims: &Claims,
        repeated: &SearchQuery,
        size: PageSize,
    ) -> Result<Option<Wound>, ReadError> {
        let heals = self.snapshots.options.load().token_heal;
        let Some(marks) = claims.marks.filter(|_| heals) else {
            return Ok(None);
        };
        let carried = claims.extra.as_deref().and_then(SearchQuery::read_extra);
        let repeats = |(name, value)| {
            carried
                .as_ref()
                .is_none_or(|it| it.get(name) == Some(value))
        };
        if !repeated.extra.iter().all(repeats) {
            return Err(ReadError::InvalidPageToken);
        }
        let query = SearchQuery {
            customer: claims.customer.clone(),
            range: claims.range,
            extra: carried.unwrap_or_else(|| repeated.extra.clone()),
        };
        // The cache key shows whether the repeated search is the whole one, and whether the
        // vendor's account is still the one that was searched.
        let searched = Arc::new(match claims.derived {
            true => query.for_all_customers(),
            false => query.clone(),
        });
        let same = self
            .key(&searched)
            .fingerprint()
            .starts_with(&claims.identity);
        Ok(same.then(|| Wound {
            query: Arc::new(query),
            offset: claims.offset,
            size,
            marks,
        }))
    }

    async fn healed(&self, asker: &Asker, wound: &Wound) -> Result<Answer, ReadError> {
        let usable = [Standing::Fresh, Standing::Stale];
        self.recall_views(asker, &wound.query).await;
        if let Some(all) = self.derived(asker, &wound.query, &usable)
            && all.snapshot.shows(&all.view, wound.offset, &wound.marks)
        {
            all.snapshot.note_view();
            return self
                .page(asker, wound.place(all.snapshot, all.view), None)
                .await;
        }
        let key = self.key(&wound.query);
        let view = View::new(None, asker.audience().clone());
        let directives = Directives {
            only_if_cached: asker.directives.only_if_cached,
            ..Directives::default()
        };
        let asker = Asker {
            directives,
            ..asker.clone()
        };
        let mut turn = None;
        loop {
            // The snapshot that a first page would be cut from, if that needs no vendor call.
            let current = self.snapshots.current(&key).filter(|current| {
                let standing = current.standing(false, self.clock.now());
                turn.is_some() || usable.contains(&standing)
            });
            if current.is_some() || turn.is_some() || asker.directives.only_if_cached {
                let opened = self.open_keyed(&asker, &key, &wound.query, false).await?;
                let (snapshot, size) = (opened.snapshot, wound.size.get());
                let decided = snapshot.is_decided(&view, wound.offset, size, &wound.marks);
                if decided || turn.is_some() {
                    return self.page(&asker, wound.place(snapshot, view), None).await;
                }
                if asker.directives.only_if_cached {
                    return Err(ReadError::NotCached);
                }
            }
            let last = asker.deadline.checked_sub(LAST_MOMENT);
            let until = last.unwrap_or(asker.deadline);
            let taken = self.healing.take(asker.payer.name(), until).await;
            turn = Some(taken.ok_or_else(|| ReadError::overloaded(Shortage::HealingWalks))?);
        }
    }
}

impl Wound {
    fn place(&self, snapshot: Arc<Snapshot>, view: View) -> PagePlace {
        PagePlace {
            snapshot,
            view,
            offset: self.offset,
            size: self.size,
            marks: Some(self.marks),
            want: Want::Healed,
        }
    }
}
