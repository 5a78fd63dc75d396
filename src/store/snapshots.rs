//! Snapshots in the store: a head, then vendor pages in their order, then an end.
//!
//! The writer of a snapshot begins it once, appends each vendor page with the chain that the last
//! append returned, and ends it. A late append is queued and may be followed by the next one. If
//! the first never arrived, the engine rejects the next one, and from then on the snapshot is in
//! memory only.
//!
//! ```text
//! begin(head) ─▶ append(page 0, zero) ─▶ append(page 1, chain) ─▶ … ─▶ end
//!                         └ chain ─────────────────┘
//! ```

use bytes::Bytes;

use super::engine::{
    Chain, Fence, KeptAges, KeptEnd, KeptStanding, StoreFault, StoreOp, StoreReply,
};
use super::handle::Store;
use super::names::NameUse;
use super::pack::{PackReader, PackWriter};
use super::record::{RecordKind, RecordName, RecordPlace};
use crate::clock::Stamp;
use crate::domain::Kind;
use crate::metrics::{RecordReject, StoreLookup};

/// The number under which a head is sealed.
const HEAD_NUMBER: u32 = u32::MAX;

/// The rows of one vendor page in their stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRows {
    /// The texts of the rows, joined by commas.
    pub text: Bytes,
    /// The end offset of each row.
    pub ends: Vec<u32>,
}

impl KeptRows {
    /// Returns the chain after these rows.
    pub fn chain(&self, before: &Chain) -> Chain {
        let mut chain = Chain::default();
        blake3::Hasher::new()
            .update(before)
            .update(&self.text)
            .finalize_xof()
            .fill(&mut chain);
        chain
    }

    /// Returns the bytes to seal. They include the chain before the rows, which ties them to the
    /// rows before.
    fn write(&self, before: &Chain) -> Vec<u8> {
        let mut out = PackWriter::default();
        out.fixed(before).u64(self.ends.len() as u64);
        self.ends.iter().for_each(|end| {
            out.u32(*end);
        });
        out.bytes(&self.text).done()
    }

    /// Reads rows from bytes. `None` if the ends are not in order or exceed the text.
    fn read(content: Bytes) -> Option<(Chain, Self)> {
        let mut reader = PackReader::new(content);
        let before = reader.fixed()?;
        let count = usize::try_from(reader.u64()?).ok()?;
        let mut ends = Vec::new();
        for _ in 0..count {
            ends.push(reader.u32()?);
        }
        let text = reader.bytes()?;
        let last = usize::try_from(ends.last().copied().unwrap_or(0)).ok()?;
        let good = ends.is_sorted() && last == text.len() && std::str::from_utf8(&text).is_ok();
        (good && reader.is_over()).then_some((before, Self { text, ends }))
    }
}

/// The state of a snapshot that is being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPlace {
    /// Its name there.
    pub name: RecordName,
    /// Chunks.
    pub chunks: u32,
    /// Over their texts.
    pub chain: Chain,
}

impl KeptPlace {
    /// Returns the state of a snapshot without rows.
    fn first(name: RecordName) -> Self {
        Self {
            name,
            chunks: 0,
            chain: Chain::default(),
        }
    }
}

/// The snapshot that is to be stored.
#[derive(Debug)]
pub enum KeptOf<'a> {
    /// A snapshot that has already been begun.
    At(KeptPlace),
    /// A new snapshot.
    New {
        /// The search.
        identity: &'a [u8; 32],
        /// The snapshot.
        id: u128,
        /// The content that is kept beside its rows.
        head: Vec<u8>,
        /// Whether it becomes the current one of its search. Otherwise only tokens find it.
        current: bool,
    },
}

/// The news of a snapshot that are to be stored.
#[derive(Debug)]
pub struct KeptNews<'a> {
    /// The snapshot.
    pub of: KeptOf<'a>,
    /// Vendor pages.
    pub rows: Vec<KeptRows>,
    /// When the vendor sent the first of them.
    pub fetched: Stamp,
    /// Its ages, if they differ from those of its rows.
    pub ages: Option<KeptAges>,
    /// Its end, if it has ended.
    pub end: Option<KeptEnd>,
    /// The right to change it in a shared store.
    pub fence: Option<Fence>,
}

/// Why a part of a snapshot is not known to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// The store refuses it, and every later part.
    Refused,
    /// The store has other rows, or fewer.
    Conflict,
    /// The store no longer has the snapshot.
    Gone,
    /// Another gateway has claimed the search.
    Deposed,
    /// A shared store accepts nothing more at present.
    Full,
    /// A shared store did not reply, so the part may be stored.
    Unsure,
}

/// A snapshot from the store.
#[derive(Clone, Debug)]
pub struct KeptSnapshot {
    /// Its name.
    pub name: RecordName,
    /// Its head, as it was stored when the snapshot began.
    pub head: Bytes,
    /// Its state.
    pub standing: KeptStanding,
}

fn place(kind: RecordKind, name: RecordName, number: u32) -> RecordPlace {
    RecordPlace { kind, name, number }
}

impl Store {
    /// Stores the news of a snapshot, and returns the state after that. Waits until a crash cannot
    /// undo it, or until the operation is late and queued.
    ///
    /// All operations are started before the first is awaited, so that a disk writes them together.
    ///
    /// # Errors
    /// If the news is not stored, or if a shared store does not reply.
    pub async fn keep_snapshot(&self, new: KeptNews<'_>) -> Result<KeptPlace, NotKept> {
        let inner = self.inner.as_ref().ok_or(NotKept::Refused)?;
        let shared = inner.is_shared();
        let unnamed = match shared {
            true => NotKept::Unsure,
            false => NotKept::Refused,
        };
        let mut until = inner.patience();
        let (fence, end) = (new.fence, new.end);
        let (mut at, begin) = match new.of {
            KeptOf::At(at) => (at, None),
            KeptOf::New {
                identity,
                id,
                head,
                current,
            } => {
                let names = inner.names(until).await.ok_or(unnamed)?;
                let line = names.0.of_line(identity);
                let name = names.0.of(NameUse::Snapshot, &id.to_le_bytes());
                let place = place(RecordKind::Head, name, HEAD_NUMBER);
                let head = inner.seal_off_thread(place, head).await;
                (
                    KeptPlace::first(name),
                    Some((line, head.ok_or(NotKept::Refused)?, current)),
                )
            }
        };
        let snapshot = at.name;
        let mut ops = Vec::new();
        for rows in new.rows {
            let (number, chain, next) = (at.chunks, at.chain, rows.chain(&at.chain));
            let count = u32::try_from(rows.ends.len()).map_err(|_| NotKept::Refused)?;
            let place = place(RecordKind::Chunk, snapshot, number);
            let chunk = inner.seal_off_thread(place, rows.write(&chain)).await;
            let chunk = chunk.ok_or(NotKept::Refused)?;
            ops.push(StoreOp::Append {
                snapshot,
                number,
                chain,
                next,
                rows: count,
                chunk,
                at: new.fetched,
                fence,
            });
            (at.chunks, at.chain) = (number + 1, next);
        }
        let renewed = new.ages.map(|ages| StoreOp::Renewed { snapshot, ages });
        let ended = end.map(|end| StoreOp::End {
            snapshot,
            end,
            of: Some((at.chunks, at.chain)),
            fence,
        });
        ops.extend(renewed.into_iter().chain(ended));
        if let Some((line, head, current)) = begin {
            let begin = match current {
                true => {
                    let was = inner.call(StoreOp::Line { line }, until).await;
                    let Ok(StoreReply::Current(was)) = was else {
                        return Err(unnamed);
                    };
                    StoreOp::Begin {
                        line,
                        snapshot,
                        head,
                        was,
                        fence,
                    }
                }
                false => StoreOp::PutBack {
                    line,
                    snapshot,
                    head,
                    fence,
                },
            };
            ops.insert(0, begin);
        }
        until = inner.patience();
        let calls: Vec<_> = ops.into_iter().map(|op| inner.begin(op, until)).collect();
        for call in calls {
            match call.reply().await {
                Ok(StoreReply::Kept) => {}
                Err(StoreFault::Away) if !shared => {}
                Err(StoreFault::Away) => return Err(NotKept::Unsure),
                Err(StoreFault::Full) if shared => return Err(NotKept::Full),
                Ok(StoreReply::Deposed) => return Err(NotKept::Deposed),
                Ok(StoreReply::Gone) => return Err(NotKept::Gone),
                Ok(StoreReply::Conflict) => return Err(NotKept::Conflict),
                Ok(_) | Err(StoreFault::Full | StoreFault::Failed) => return Err(NotKept::Refused),
            }
        }
        Ok(at)
    }

    /// Ends a snapshot: no row will follow the stored ones.
    pub fn end_snapshot(&self, snapshot: RecordName, end: KeptEnd, fence: Option<Fence>) {
        let of = None;
        self.tell(StoreOp::End {
            snapshot,
            end,
            of,
            fence,
        });
    }

    /// Records a use, so that the snapshot is evicted last.
    pub fn touch_snapshot(&self, snapshot: RecordName) {
        self.tell(StoreOp::Touch { snapshot });
    }

    /// Removes a snapshot.
    pub fn forget_snapshot(&self, snapshot: RecordName) {
        self.tell(StoreOp::Forget { snapshot });
    }

    fn tell(&self, op: StoreOp) {
        if let Some(inner) = &self.inner {
            inner.tell(op);
        }
    }

    /// Returns the current snapshot of a search.
    pub async fn find_current(&self, identity: &[u8; 32]) -> Option<KeptSnapshot> {
        let inner = self.inner.as_ref()?;
        let until = inner.patience();
        let names = inner.names(until).await?;
        let line = names.0.of_line(identity);
        let current = inner.call(StoreOp::Line { line }, until).await;
        let found = match current {
            Ok(StoreReply::Current(Some(name))) => self.find_head(name).await,
            Ok(_) | Err(_) => None,
        };
        self.count_lookup(found.is_some());
        found
    }

    /// Returns the name that the snapshot of this id has in the store. `None` if the store does not
    /// answer.
    pub async fn name_of_snapshot(&self, id: u128) -> Option<RecordName> {
        let inner = self.inner.as_ref()?;
        let names = inner.names(inner.patience()).await?;
        Some(names.0.of(NameUse::Snapshot, &id.to_le_bytes()))
    }

    /// Returns the snapshot of this id.
    pub async fn find_snapshot(&self, id: u128) -> Option<KeptSnapshot> {
        let name = self.name_of_snapshot(id).await?;
        let found = self.find_head(name).await;
        self.count_lookup(found.is_some());
        found
    }

    /// Returns whether it is the current one of its search.
    pub async fn is_current(&self, found: &KeptSnapshot) -> bool {
        let Some(inner) = &self.inner else {
            return false;
        };
        let line = found.standing.line;
        let current = inner.call(StoreOp::Line { line }, inner.patience()).await;
        current == Ok(StoreReply::Current(Some(found.name)))
    }

    async fn find_head(&self, snapshot: RecordName) -> Option<KeptSnapshot> {
        self.look_at_snapshot(snapshot).await.ok().flatten()
    }

    /// Returns the snapshot of this name as it stands now.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn look_at_snapshot(
        &self,
        snapshot: RecordName,
    ) -> Result<Option<KeptSnapshot>, StoreFault> {
        let Some(inner) = &self.inner else {
            return Ok(None);
        };
        let op = StoreOp::Head { snapshot };
        let StoreReply::Head(Some((standing, head))) = inner.call(op, inner.patience()).await?
        else {
            return Ok(None);
        };
        let place = place(RecordKind::Head, snapshot, HEAD_NUMBER);
        let opened = inner.open_off_thread(place, head).await;
        let head = opened.map_err(|why| inner.metrics.reject(why)).ok();
        Ok(head.map(|head| KeptSnapshot {
            name: snapshot,
            head,
            standing,
        }))
    }

    /// Returns a vendor page of a snapshot, and the chain after it. `None` if the page does not
    /// exist or does not follow that chain.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn find_rows(
        &self,
        snapshot: RecordName,
        number: u32,
        chain: Chain,
    ) -> Result<Option<(KeptRows, Chain)>, StoreFault> {
        let Some(inner) = &self.inner else {
            return Ok(None);
        };
        let op = StoreOp::Chunk { snapshot, number };
        let StoreReply::Value(Some(chunk)) = inner.call(op, inner.patience()).await? else {
            return Ok(None);
        };
        let place = place(RecordKind::Chunk, snapshot, number);
        let opened = inner.open_off_thread(place, chunk).await;
        let rows = opened.and_then(|content| KeptRows::read(content).ok_or(RecordReject::Content));
        let why = match rows {
            Ok((before, rows)) if before == chain => {
                let next = rows.chain(&chain);
                return Ok(Some((rows, next)));
            }
            Ok(_) => RecordReject::Chain,
            Err(why) => why,
        };
        inner.metrics.reject(why);
        Ok(None)
    }

    /// Counts a snapshot whose head or rows do not match its stored state.
    pub fn reject_chain(&self) {
        if let Some(inner) = &self.inner {
            inner.metrics.reject(RecordReject::Chain);
        }
    }

    fn count_lookup(&self, found: bool) {
        if let Some(inner) = &self.inner {
            let outcome = match found {
                true => StoreLookup::Found,
                false => StoreLookup::Missing,
            };
            inner.metrics.lookup(Kind::Cases, outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::store::record::tests::sealing_key;
    use crate::store::{Model, SealedRecord};

    fn store() -> Store {
        let records = SealedRecord::new(&sealing_key("a"), None).unwrap();
        let metrics = Metrics::new().unwrap();
        Store::over(Model::new(64 << 20), records, Clock::system(), &metrics)
    }

    fn rows(texts: &[&str]) -> KeptRows {
        let mut ends = Vec::new();
        let mut text = String::new();
        for row in texts {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(row);
            ends.push(u32::try_from(text.len()).unwrap());
        }
        KeptRows {
            text: text.into(),
            ends,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rows_come_back_in_their_order_and_others_are_refused() {
        let (store, at) = (store(), Clock::system().stamp());
        let (one, two) = (rows(&["1", "22"]), rows(&["333"]));
        let keep = |of: KeptOf<'static>, rows: &[&KeptRows], end| {
            let new = KeptNews {
                of,
                rows: rows.iter().map(|rows| (*rows).clone()).collect(),
                fetched: at,
                ages: None,
                end,
                fence: None,
            };
            store.keep_snapshot(new).map(Result::ok)
        };
        let new = |id, head: &[u8]| KeptOf::New {
            identity: &[7; 32],
            id,
            head: head.to_vec(),
            current: true,
        };
        let first = keep(new(9, b"head"), &[&one], None).await.unwrap();
        let (name, zero) = (first.name, Chain::default());
        let second = keep(KeptOf::At(first), &[&two], None).await.unwrap();
        // An append that is sent twice is kept once. An append to other rows is rejected.
        let twice = keep(KeptOf::At(first), &[&two], None).await;
        assert_eq!(twice, Some(second));
        let elsewhere = KeptPlace {
            chain: first.chain,
            ..second
        };
        assert_eq!(keep(KeptOf::At(elsewhere), &[&one], None).await, None);
        let ended = keep(KeptOf::At(second), &[], Some(KeptEnd::Complete)).await;
        assert_eq!(ended, Some(second));
        assert_eq!(keep(KeptOf::At(second), &[&one], None).await, None);
        let (first, second) = (first.chain, second.chain);

        let found = store.find_current(&[7; 32]).await.unwrap();
        assert_eq!((found.name, &found.head[..]), (name, &b"head"[..]));
        let standing = &found.standing;
        assert_eq!(
            (standing.chunks, standing.rows, standing.chain),
            (2, 3, second)
        );
        assert_eq!(standing.end, KeptEnd::Complete);
        assert!(store.is_current(&found).await);
        for (number, chain, found) in [
            (0, zero, Some((one, first))),
            (1, first, Some((two, second))),
            (2, second, None),
            // Rows follow only the rows after which they were stored.
            (1, zero, None),
        ] {
            assert_eq!(store.find_rows(name, number, chain).await, Ok(found));
        }

        let next = keep(new(10, b"next"), &[], None).await.unwrap().name;
        let old = store.find_snapshot(9).await.unwrap();
        assert!(
            !store.is_current(&old).await,
            "its tokens find it, no search does"
        );
        store.forget_snapshot(next);
        assert!(store.find_current(&[7; 32]).await.is_none());
        assert!(store.find_snapshot(9).await.is_some());
    }

    #[test]
    fn bytes_that_are_no_rows_are_not_read() {
        let good = rows(&["1", "22"]);
        let before = [7; 16];
        let written = good.write(&before).into();
        assert_eq!(KeptRows::read(written), Some((before, good.clone())));
        for bad in [
            KeptRows {
                ends: vec![4, 1],
                ..good.clone()
            },
            KeptRows {
                ends: vec![1, 5],
                ..good.clone()
            },
            KeptRows {
                ends: vec![1, 3],
                ..good.clone()
            },
            KeptRows {
                ends: Vec::new(),
                ..good.clone()
            },
            KeptRows {
                text: Bytes::from_static(b"1,\xff\xff"),
                ..good
            },
        ] {
            assert_eq!(KeptRows::read(bad.write(&before).into()), None, "{bad:?}");
        }
    }
}
