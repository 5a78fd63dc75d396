//! Snapshots that outlive the process: rows go to the store before readers hear of them, and come
//! back from it when memory does not hold them.
//!
//! A walk hands each vendor page to [`Snapshots::keep_rows`] and then shows it to readers, who see
//! no row before (`State::told`). What is kept never changes. Should a new search replace rows that
//! were kept but never served, the snapshot is kept anew from its start.
//!
//! [`Snapshots::recall`] brings a snapshot back with its first rows and its true ages. The other
//! rows follow, one vendor page after the other, and readers wait for them as for those of a walk.
//! Rows that do not follow those before are never served: a new search goes on from there.

use std::sync::Arc;

use bytes::Bytes;

use super::frozen::{Ages, End, Snapshot};
use super::load::{Loaded, Loader, Restored};
use super::store::Snapshots;
use super::token::SnapshotId;
use crate::cache::flight::Boarding;
use crate::cache::{CacheKey, Lifetimes, Subject};
use crate::clock::{Duration, Instant};
use crate::domain::query::SearchRequest;
use crate::domain::{CustomerId, SearchQuery};
use crate::store::pack::{PackReader, PackWriter};
use crate::store::{
    KeptAges, KeptEnd, KeptNews, KeptOf, KeptPlace, KeptRows, KeptSnapshot, PurgeDepth,
};
use crate::upstream::EnvelopeMember;

/// How often the store is told that a snapshot is in use.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// What of a snapshot is in the store.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptPart {
    /// `None` before it was begun.
    pub place: Option<KeptPlace>,
    pub rows: usize,
    pub ages: Option<(Instant, Instant)>,
    pub ended: bool,
    /// It cannot be kept any further.
    pub off: bool,
    pub touched: Option<Instant>,
}

/// What is looked for in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Recall {
    /// The current snapshot of a search.
    Search(CacheKey),
    /// The snapshot of a page token.
    Token(SnapshotId),
}

/// The error of what cannot fail.
#[derive(Clone, Debug)]
pub(super) enum NoFailure {}

impl Snapshots {
    /// Returns whether snapshots outlive the process.
    pub fn keeps(&self) -> bool {
        self.kept.is_on()
    }

    /// Keeps what is new of a snapshot, whose scroll began after `begun` purges, and the end that
    /// it is about to have. Returns once a crash cannot undo it, or after a moment.
    pub(super) async fn keep_rows(&self, snapshot: &Arc<Snapshot>, begun: u64, end: Option<End>) {
        let mut part = snapshot.kept.lock().clone();
        let (rows, ages) = {
            let mut state = snapshot.lock();
            let cut_to = std::mem::replace(&mut state.cut_to, usize::MAX);
            if cut_to < part.rows {
                // Rows that were kept were replaced before anybody saw them.
                if let Some(place) = part.place {
                    self.kept.forget_snapshot(place.name);
                }
                part = KeptPart::default();
            }
            let Some(ages) = state.ages else { return };
            (state.rows.chunks_from(part.rows), ages)
        };
        if !part.off {
            part.off = self
                .keep(snapshot, &mut part, rows, ages, begun, end)
                .await
                .is_none();
            if part.off {
                tracing::debug!(search = %snapshot.key, "a snapshot will not be kept in the store any further");
            }
        }
        let mut kept = snapshot.kept.lock();
        part.touched = kept.touched;
        *kept = part;
    }

    /// `None` where it cannot be kept any further.
    async fn keep(
        &self,
        snapshot: &Snapshot,
        part: &mut KeptPart,
        rows: Vec<KeptRows>,
        ages: Ages,
        begun: u64,
        end: Option<End>,
    ) -> Option<()> {
        let end = end.and_then(kept_end).filter(|_| !part.ended);
        let count: usize = rows.iter().map(|rows| rows.ends.len()).sum();
        let renewed = part
            .ages
            .is_some_and(|kept| kept != (ages.head, ages.whole));
        if part.place.is_some() && rows.is_empty() && !renewed && end.is_none() {
            return Some(());
        }
        let of = match part.place {
            Some(place) => KeptOf::At(place),
            None => KeptOf::New {
                identity: snapshot.key.fingerprint(),
                id: snapshot.id.0,
                head: self.write_head(snapshot, begun),
            },
        };
        let fetched = self.clock.stamp_of(ages.head);
        let whole = self.clock.stamp_of(ages.whole);
        let new = KeptNews {
            of,
            rows,
            fetched,
            ages: (renewed || ages.head != ages.whole).then_some(KeptAges {
                head: fetched,
                whole,
            }),
            end,
        };
        part.place = Some(self.kept.keep_snapshot(new).await?);
        part.rows += count;
        part.ages = Some((ages.head, ages.whole));
        part.ended |= end.is_some();
        Some(())
    }

    /// Records that a snapshot was replaced, so that no rows will follow.
    pub(super) fn end_kept(&self, snapshot: &Snapshot, end: End) {
        let mut part = snapshot.kept.lock();
        let end = kept_end(end).filter(|_| !part.ended && !part.off);
        if let (Some(place), Some(end)) = (part.place, end) {
            part.ended = true;
            self.kept.end_snapshot(place.name, end);
        }
    }

    /// Tells the store which snapshots were used lately. To be called every few seconds.
    pub(super) fn touch_kept(&self, snapshot: &Snapshot, now: Instant) {
        let mut part = snapshot.kept.lock();
        let used = snapshot.last_used();
        let told = part.touched.unwrap_or_else(|| snapshot.birth());
        if let Some(place) = part.place
            && used > told
            && now.saturating_duration_since(told) >= TOUCH_EVERY
        {
            part.touched = Some(now);
            self.kept.touch_snapshot(place.name);
        }
    }

    /// Removes a snapshot from the store as well.
    pub(super) fn forget_kept(&self, snapshot: &Snapshot) {
        // Others may use it still; the engine lets go of what nobody uses.
        if self.kept.is_shared() && !snapshot.is_ended() {
            return;
        }
        if let Some(place) = snapshot.kept.lock().place.take() {
            self.kept.forget_snapshot(place.name);
        }
    }

    /// Looks into the store for what memory does not hold, once for all that look for it, and puts
    /// it into memory. Returns when it is there, is not to be found, or when the deadline passes.
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
        let Some(head) = read_head(found.head.clone()) else {
            return self.kept.reject_chain();
        };
        let key = CacheKey::new(
            self.walked.account.clone(),
            Subject::Search(head.query.clone()),
        );
        let asked = match &what {
            Recall::Search(asked) => *asked == key,
            Recall::Token(id) => *id == head.id,
        };
        if !asked || *key.fingerprint() != head.identity || self.held.get(head.id).is_some() {
            return;
        }
        let covered = self.purged_by(&key, head.begun);
        if covered == Some(PurgeDepth::Hard) {
            self.kept.forget_snapshot(found.name);
            return;
        }
        let now = self.clock.now();
        let Some((ages, known)) = self.ages_of(&found, head.lifetimes, now) else {
            return;
        };
        if !self.has_room() {
            return;
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
                    off: false,
                    touched: None,
                },
            },
            self.total.clone(),
            self.clock.clone(),
        );
        if self.kept.is_shared() {
            // It is there because somebody used it lately.
            snapshot.touch(0);
        }
        if self.is_kept_too_long(&snapshot, now) {
            grower.leave(&mut snapshot.lock());
            self.forget_kept(&snapshot);
            return;
        }
        snapshot.touch(0);
        let mut loader = Loader::new(self.clone(), snapshot.clone(), found);
        // A first page needs no more than the first rows. Only readers of the others wait for
        // those.
        match loader.load_next().await {
            Loaded::More => {
                tokio::spawn(loader.load_rest(grower));
            }
            Loaded::Whole => snapshot.loaded(grower, true),
            Loaded::Damaged | Loaded::Away => {
                grower.leave(&mut snapshot.lock());
                return;
            }
        }
        self.hold(&snapshot, current);
        self.make_room();
    }

    /// When the vendor said so, in this process's time, and whether that is known. What is of
    /// unknown age is stale.
    fn ages_of(
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

    fn write_head(&self, snapshot: &Snapshot, begun: u64) -> Vec<u8> {
        let state = snapshot.lock();
        let Lifetimes {
            fresh,
            stale,
            on_error,
        } = state.lifetimes;
        let mut out = PackWriter::default();
        out.fixed(&snapshot.id.0.to_le_bytes())
            .fixed(snapshot.key.fingerprint())
            .u64(snapshot.draw.to_bits())
            .u64(begun);
        for time in [fresh, stale, on_error] {
            out.u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
        let customer = snapshot.query.customer.as_ref();
        out.bytes(customer.map_or("", CustomerId::as_str).as_bytes());
        out.bytes(snapshot.query.body_text().as_bytes());
        out.u32(u32::try_from(state.envelope.len()).unwrap_or(u32::MAX));
        for member in state.envelope.iter() {
            match member {
                EnvelopeMember::Data => {
                    out.u8(b'd');
                }
                EnvelopeMember::NextPageKey => {
                    out.u8(b'n');
                }
                EnvelopeMember::Other(name, raw) => {
                    out.u8(b'o').bytes(name.as_bytes()).bytes(raw.as_bytes());
                }
            }
        }
        out.done()
    }
}

/// `None` while more rows may come.
fn kept_end(end: End) -> Option<KeptEnd> {
    match end {
        End::Growing => None,
        End::Complete => Some(KeptEnd::Complete),
        End::Cut(_) => Some(KeptEnd::Cut),
        End::Broken => Some(KeptEnd::Broken),
    }
}

/// What was kept of a snapshot when it began.
struct Head {
    id: SnapshotId,
    identity: [u8; 32],
    draw: f64,
    begun: u64,
    lifetimes: Lifetimes,
    query: Arc<SearchQuery>,
    envelope: Vec<EnvelopeMember>,
}

fn read_head(bytes: Bytes) -> Option<Head> {
    let mut reader = PackReader::new(bytes);
    let text = |bytes: Bytes| String::from_utf8(bytes.into()).ok();
    let id = SnapshotId(u128::from_le_bytes(reader.fixed()?));
    let identity = reader.fixed()?;
    let draw = f64::from_bits(reader.u64()?).clamp(0.0, 1.0);
    let begun = reader.u64()?;
    let mut time = || reader.u64().map(Duration::from_millis);
    let lifetimes = Lifetimes {
        fresh: time()?,
        stale: time()?,
        on_error: time()?,
    };
    let customer = match text(reader.bytes()?)?.as_str() {
        "" => None,
        customer => Some(CustomerId::parse(customer).ok()?),
    };
    let request = SearchRequest::parse(&reader.bytes()?, customer).ok()?;
    let mut envelope = Vec::new();
    for _ in 0..reader.u32()? {
        envelope.push(match reader.u8()? {
            b'd' => EnvelopeMember::Data,
            b'n' => EnvelopeMember::NextPageKey,
            b'o' => EnvelopeMember::Other(text(reader.bytes()?)?, text(reader.bytes()?)?),
            _ => return None,
        });
    }
    reader.is_over().then_some(Head {
        id,
        identity,
        draw,
        begun,
        lifetimes,
        query: Arc::new(request.query),
        envelope,
    })
}
