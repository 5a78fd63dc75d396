//! Loads snapshots that memory does not hold from the store.
//!
//! [`Snapshots::recall`] loads a snapshot with its first rows and its true ages. The other rows
//! follow, one vendor page after the other, and readers wait for them as for those of a walk. Rows
//! that do not follow the earlier ones are never served: a new search continues from there.

use std::sync::Arc;

use super::frozen::{Ages, End, Snapshot};
use super::keep::KeptPart;
use super::kept_head::read_head;
use super::load::{Loaded, Loader, Restored};
use super::store::Snapshots;
use super::token::SnapshotId;
use crate::cache::flight::Boarding;
use crate::cache::{CacheKey, Lifetimes, Standing, Subject};
use crate::clock::Instant;
use crate::store::{Chain, KeptEnd, KeptPlace, KeptSnapshot, PurgeDepth};

/// The subject of a lookup in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Recall {
    /// The current snapshot of a search.
    Search(CacheKey),
    /// The snapshot of a page token.
    Token(SnapshotId),
}

/// The error type of an operation that cannot fail.
#[derive(Clone, Debug)]
pub(super) enum NoFailure {}

impl Snapshots {
    /// Looks up in the store what memory does not hold, and loads it. Concurrent lookups of one
    /// subject share a call. Returns when it is loaded or not found, or when the deadline passes.
    pub(super) async fn recall(self: &Arc<Self>, what: Recall, deadline: Instant) {
        if !self.kept.is_on() {
            return;
        }
        let look = || {
            let (this, what) = (self.clone(), what.clone());
            async move {
                this.read_back(what).await;
                Ok(())
            }
        };
        if let Boarding::Ticket(ticket) = self.recalls.board(&what, look) {
            ticket.wait(deadline).await;
        }
    }

    async fn read_back(self: &Arc<Self>, what: Recall) {
        let found = match &what {
            Recall::Search(key) => self.kept.find_current(key.fingerprint()).await,
            Recall::Token(id) => self.kept.find_snapshot(id.0).await,
        };
        let Some(found) = found else { return };
        let current = matches!(what, Recall::Search(_)) || self.kept.is_current(&found).await;
        if let Some((snapshot, begun)) = self.put_back(&what, found).await {
            self.hold(&snapshot, begun, current);
            self.make_room();
        }
    }

    /// Makes the snapshot of another gateway the current one of its search, unless it cannot be
    /// used.
    pub(super) async fn take_current(
        self: &Arc<Self>,
        key: &CacheKey,
        found: KeptSnapshot,
    ) -> bool {
        let Some(head) = read_head(found.head.clone()) else {
            return false;
        };
        let (snapshot, begun) = match self.held.get(head.id) {
            Some(held) if held.key == *key && !held.is_ended() => (held, head.begun),
            Some(_) => return false,
            None => match self.put_back(&Recall::Search(key.clone()), found).await {
                Some((snapshot, begun)) => {
                    self.hold(&snapshot, begun, false);
                    (snapshot, begun)
                }
                None => return false,
            },
        };
        if let Some(lineage) = self.existing_lineage(key) {
            lineage.replace(snapshot.clone());
        }
        self.end_if_purged(&snapshot, begun);
        self.make_room();
        !snapshot.is_ended()
    }

    /// Brings a snapshot back with its first rows. The others follow. Also returns the number of
    /// the purges before its scroll began.
    async fn put_back(
        self: &Arc<Self>,
        what: &Recall,
        found: KeptSnapshot,
    ) -> Option<(Arc<Snapshot>, u64)> {
        let Some(head) = read_head(found.head.clone()) else {
            self.kept.reject_chain();
            return None;
        };
        let key = CacheKey::new(
            self.walked.account.clone(),
            Subject::Search(head.query.clone()),
        );
        let asked = match what {
            Recall::Search(asked) => *asked == key,
            Recall::Token(id) => *id == head.id,
        };
        if !asked || *key.fingerprint() != head.identity || self.held.get(head.id).is_some() {
            return None;
        }
        let covered = self.purged_by(&key, head.begun);
        if covered == Some(PurgeDepth::Hard) {
            self.kept.forget_snapshot(found.name);
            return None;
        }
        let now = self.clock.now();
        let (ages, known) = self.ages_of(&found, head.lifetimes, now)?;
        if !self.has_room() {
            return None;
        }
        let standing = &found.standing;
        let (snapshot, grower) = Snapshot::restored(
            Restored {
                id: head.id,
                key,
                query: head.query,
                lifetimes: head.lifetimes,
                draw: head.draw,
                envelope: head.envelope.into(),
                end: match standing.end {
                    KeptEnd::Open => End::Growing,
                    KeptEnd::Complete => End::Complete,
                    KeptEnd::Cut => End::Cut("pagination.walk_rows_max"),
                    KeptEnd::Broken => End::Broken,
                },
                ages,
                purged: covered.is_some() || !known,
                kept: KeptPart {
                    place: Some(KeptPlace {
                        name: found.name,
                        chunks: standing.chunks,
                        chain: standing.chain,
                    }),
                    rows: usize::try_from(standing.rows).unwrap_or(usize::MAX),
                    ages: Some((ages.head, ages.whole)),
                    ended: standing.end != KeptEnd::Open,
                    begun: Some(head.begun),
                    ..KeptPart::default()
                },
            },
            self.total.clone(),
            self.clock.clone(),
        );
        if self.kept.is_shared() {
            // The snapshot is in the store because it was used recently.
            snapshot.touch(0);
        }
        if self.is_kept_too_long(&snapshot, now) {
            grower.leave(&mut snapshot.lock());
            self.forget_kept(&snapshot);
            return None;
        }
        snapshot.touch(0);
        let mut loader = Loader::new(self.clone(), snapshot.clone(), found);
        // A first page needs only the first rows. Readers of later pages wait for the others.
        match loader.load_next().await {
            Loaded::More => {
                tokio::spawn(loader.load_rest(grower));
            }
            Loaded::Whole => snapshot.loaded(grower, true),
            Loaded::Damaged | Loaded::Away => {
                grower.leave(&mut snapshot.lock());
                return None;
            }
        }
        Some((snapshot, head.begun))
    }

    /// Makes an empty snapshot the copy of a snapshot that another gateway began, if the latter can
    /// answer the waiting callers: it still `grows`, is fresh, or is newer than their requests.
    /// Returns whether it can. The caller must then load its rows.
    pub(super) fn adopt(
        &self,
        snapshot: &Arc<Snapshot>,
        found: &KeptSnapshot,
        grows: bool,
    ) -> bool {
        let Some(head) = read_head(found.head.clone()) else {
            self.kept.reject_chain();
            return false;
        };
        let now = self.clock.now();
        let known = self.ages_of(found, head.lifetimes, now);
        let Some((ages, true)) = known.filter(|_| head.identity == *snapshot.key.fingerprint())
        else {
            return false;
        };
        if self.purged_by(&snapshot.key, head.begun).is_some() {
            return false;
        }
        let judged = head.lifetimes.judge(ages.head, head.draw, now).standing();
        let mut state = snapshot.lock();
        let newer = ages.head >= snapshot.birth();
        let serves = newer || !state.forced && (grows || judged == Standing::Fresh);
        if !serves || state.ages.is_some() || state.told > 0 {
            return false;
        }
        state.truncate(0);
        state.cut_to = usize::MAX;
        state.envelope = head.envelope.into();
        state.lifetimes = head.lifetimes;
        state.ages = Some(ages);
        drop(state);
        // No reader has seen a row of it, so no token names its own id.
        self.held.rename(snapshot, head.id);
        let mut part = snapshot.kept.lock();
        *part = KeptPart {
            place: Some(KeptPlace {
                name: found.name,
                chunks: 0,
                chain: Chain::default(),
            }),
            ages: Some((ages.head, ages.whole)),
            touched: part.touched,
            begun: Some(head.begun),
            ..KeptPart::default()
        };
        true
    }

    /// Takes over the ages that another gateway stored, if they are newer.
    pub(super) fn take_ages(&self, snapshot: &Snapshot, found: &KeptSnapshot) {
        let lifetimes = snapshot.lifetimes();
        let known = self.ages_of(found, lifetimes, self.clock.now());
        let Some((theirs, true)) = known else { return };
        let mut state = snapshot.lock();
        if let Some(ages) = &mut state.ages
            && theirs.head > ages.head
        {
            *ages = theirs;
            state.hits = 0;
            drop(state);
            snapshot.kept.lock().ages = Some((theirs.head, theirs.whole));
        }
    }

    /// Returns the ages of a stored snapshot in this process's time, and whether they are known. If
    /// they are not, the ages are those of a stale snapshot.
    pub(super) fn ages_of(
        &self,
        found: &KeptSnapshot,
        lifetimes: Lifetimes,
        now: Instant,
    ) -> Option<(Ages, bool)> {
        let kept = found.standing.ages?;
        let (head, whole) = (
            self.clock.instant_of(&kept.head),
            self.clock.instant_of(&kept.whole),
        );
        Some(match (head, whole) {
            (Some(head), Some(whole)) => (Ages { head, whole }, true),
            _ => {
                let old = now.checked_sub(lifetimes.fresh).unwrap_or(now);
                let ages = Ages {
                    head: old,
                    whole: old,
                };
                (ages, false)
            }
        })
    }
}
