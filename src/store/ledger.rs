//! The pure decisions of a store: which records it keeps, without their bytes.
//! [`Model`](super::Model) and [`Disk`](super::Disk) both use it, and differ only in where the
//! bytes are.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::engine::{CHUNKS_MAX, Chain, KeptAges, KeptEnd, KeptStanding, StoreOp, StoreReply};
use super::pack::{PackReader, PackWriter};
use super::record::RecordName;

/// The minimum size that a record is charged: one page of the file.
const RECORD_CHARGE_MIN: u64 = 4_096;
/// The number of a snapshot's head among its chunks.
const HEAD: u32 = u32::MAX;

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Answers, without their bytes.
    Answers,
    /// Lines: which snapshot of a search is current.
    Lines,
    /// Snapshots, without their bytes.
    Snapshots,
    /// The sealed bytes of answers, heads and chunks.
    Chunks,
    /// Small records about the gateway.
    State,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] = [
        Self::Answers,
        Self::Lines,
        Self::Snapshots,
        Self::Chunks,
        Self::State,
    ];

    /// Returns the name in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Lines => "lines",
            Self::Snapshots => "snapshots",
            Self::Chunks => "chunks",
            Self::State => "state",
        }
    }
}

/// The place of a record's bytes.
pub type Place = (Table, Vec<u8>);

/// One change of the tables. `None` removes the entry.
pub type TableChange = (Place, Option<Bytes>);

/// The outcome of an operation.
#[derive(Debug)]
pub(super) enum Judged {
    /// This reply.
    Reply(StoreReply),
    /// The bytes of this place.
    Read(Place),
    /// The bytes of this place, the head of a snapshot in this state.
    ReadHead(Place, KeptStanding),
    /// Nothing: the record is larger than the store.
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AnswerEntry {
    used: u64,
    bytes: u64,
    negative: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SnapshotEntry {
    standing: KeptStanding,
    /// The chain before the last chunk. It identifies a chunk that is sent twice.
    before_last: Chain,
    used: u64,
    bytes: u64,
}

/// The unit of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Answer(RecordName),
    Snapshot(RecordName),
}

/// The stored records, found by name and evicted in the order of their last use.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    answers: HashMap<RecordName, AnswerEntry, RandomState>,
    lines: HashMap<RecordName, RecordName, RandomState>,
    snapshots: HashMap<RecordName, SnapshotEntry, RandomState>,
    /// By last use.
    order: BTreeMap<u64, Unit>,
    uses: u64,
    bytes: u64,
    bytes_max: u64,
}

fn chunk_place(snapshot: RecordName, number: u32) -> Place {
    // Big-endian, so that the chunks of a snapshot sort in their order.
    let key = [&b"s"[..], &snapshot.0, &number.to_be_bytes()].concat();
    (Table::Chunks, key)
}

fn answer_place(name: RecordName) -> Place {
    (Table::Chunks, [&b"a"[..], &name.0].concat())
}

fn place(table: Table, name: RecordName) -> Place {
    (table, name.0.to_vec())
}

fn charge(bytes: &Bytes) -> u64 {
    (bytes.len() as u64).max(RECORD_CHARGE_MIN)
}

impl Ledger {
    /// Creates an empty ledger.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            answers: HashMap::default(),
            lines: HashMap::default(),
            snapshots: HashMap::default(),
            order: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Returns the stored bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the stored (answers, snapshots).
    pub fn counts(&self) -> (usize, usize) {
        (self.answers.len(), self.snapshots.len())
    }

    /// Loads an entry of a table as it was written. `None` if the entry is invalid.
    pub fn take_in(&mut self, table: Table, key: &[u8], value: Bytes) -> Option<()> {
        let name = || key.try_into().ok().map(RecordName);
        match table {
            Table::Answers => {
                let (name, entry) = (name()?, AnswerEntry::read(value)?);
                self.uses = self.uses.max(entry.used);
                self.bytes += entry.bytes;
                self.order.insert(entry.used, Unit::Answer(name));
                self.answers.insert(name, entry);
            }
            Table::Snapshots => {
                let (name, entry) = (name()?, SnapshotEntry::read(value)?);
                self.uses = self.uses.max(entry.used);
                self.bytes += entry.bytes;
                self.order.insert(entry.used, Unit::Snapshot(name));
                self.snapshots.insert(name, entry);
            }
            Table::Lines => {
                let current = value.as_ref().try_into().ok().map(RecordName)?;
                self.lines.insert(name()?, current);
            }
            Table::Chunks | Table::State => {}
        }
        Some(())
    }

    /// Evicts records until the limit holds, for instance after a change of the settings.
    pub fn shrink(&mut self, changes: &mut Vec<TableChange>) {
        self.make_room(None, changes);
    }

    /// Adds a snapshot without rows.
    fn begin(
        &mut self,
        line: RecordName,
        snapshot: RecordName,
        head: &Bytes,
        changes: &mut Vec<TableChange>,
    ) {
        let used = self.next_use(Unit::Snapshot(snapshot));
        let entry = SnapshotEntry {
            standing: KeptStanding {
                line,
                chunks: 0,
                rows: 0,
                chain: Chain::default(),
                end: KeptEnd::Open,
                ages: None,
            },
            before_last: Chain::default(),
            used,
            bytes: charge(head),
        };
        self.bytes += entry.bytes;
        changes.push((place(Table::Snapshots, snapshot), Some(entry.write())));
        changes.push((chunk_place(snapshot, HEAD), Some(head.clone())));
        self.snapshots.insert(snapshot, entry);
    }

    /// Judges an operation, and adds what it changes to `changes`.
    pub fn judge(&mut self, op: &StoreOp, changes: &mut Vec<TableChange>) -> Judged {
        Judged::Reply(match op {
            StoreOp::Find { name } => {
                if !self.use_answer(*name, changes) {
                    return Judged::Reply(StoreReply::Value(None));
                }
                return Judged::Read(answer_place(*name));
            }
            StoreOp::Land {
                name,
                record,
                negative,
            } => {
                let before = self.answers.get(name);
                if *negative && before.is_some_and(|before| !before.negative) {
                    return Judged::Reply(StoreReply::Conflict);
                }
                if charge(record) > self.bytes_max {
                    return Judged::TooLarge;
                }
                self.drop_answer(*name, changes);
                let used = self.next_use(Unit::Answer(*name));
                let entry = AnswerEntry {
                    used,
                    bytes: charge(record),
                    negative: *negative,
                };
                self.bytes += entry.bytes;
                self.answers.insert(*name, entry);
                changes.push((place(Table::Answers, *name), Some(entry.write())));
                changes.push((answer_place(*name), Some(record.clone())));
                self.make_room(Some(Unit::Answer(*name)), changes);
                StoreReply::Kept
            }
            StoreOp::Line { line } => StoreReply::Current(self.lines.get(line).copied()),
            StoreOp::Begin {
                line,
                snapshot,
                head,
                was,
                ..
            } => {
                if self.snapshots.contains_key(snapshot) {
                    let is_current = self.lines.get(line) == Some(snapshot);
                    return Judged::Reply(match is_current {
                        true => StoreReply::Kept,
                        false => StoreReply::Conflict,
                    });
                }
                if self.lines.get(line) != was.as_ref() {
                    return Judged::Reply(StoreReply::Conflict);
                }
                if charge(head) > self.bytes_max {
                    return Judged::TooLarge;
                }
                self.begin(*line, *snapshot, head, changes);
                self.lines.insert(*line, *snapshot);
                let current = Bytes::copy_from_slice(&snapshot.0);
                changes.push((place(Table::Lines, *line), Some(current)));
                self.make_room(Some(Unit::Snapshot(*snapshot)), changes);
                StoreReply::Kept
            }
            StoreOp::PutBack {
                line,
                snapshot,
                head,
                ..
            } => {
                if self.snapshots.contains_key(snapshot) {
                    return Judged::Reply(StoreReply::Kept);
                }
                if charge(head) > self.bytes_max {
                    return Judged::TooLarge;
                }
                self.begin(*line, *snapshot, head, changes);
                self.make_room(Some(Unit::Snapshot(*snapshot)), changes);
                StoreReply::Kept
            }
            StoreOp::Append { .. } => return self.append(op, changes),
            StoreOp::Renewed { snapshot, ages } => self.change(*snapshot, changes, |entry| {
                entry.standing.ages = Some(*ages);
            }),
            StoreOp::End {
                snapshot, end, of, ..
            } => {
                let standing = self.snapshots.get(snapshot).map(|entry| &entry.standing);
                if standing.is_some_and(|standing| {
                    standing.end == KeptEnd::Open
                        && of.is_some_and(|of| of != (standing.chunks, standing.chain))
                }) {
                    return Judged::Reply(StoreReply::Conflict);
                }
                self.change(*snapshot, changes, |entry| {
                    if entry.standing.end == KeptEnd::Open {
                        entry.standing.end = *end;
                    }
                })
            }
            StoreOp::Head { snapshot } => {
                return match self.snapshots.get(snapshot) {
                    Some(entry) => {
                        Judged::ReadHead(chunk_place(*snapshot, HEAD), entry.standing.clone())
                    }
                    None => Judged::Reply(StoreReply::Head(None)),
                };
            }
            StoreOp::Chunk { snapshot, number } => {
                let entry = self.snapshots.get(snapshot);
                if entry.is_some_and(|entry| *number < entry.standing.chunks) {
                    return Judged::Read(chunk_place(*snapshot, *number));
                }
                StoreReply::Value(None)
            }
            StoreOp::Touch { snapshot } => self.change(*snapshot, changes, |_| {}),
            StoreOp::Forget { snapshot } => {
                self.drop_snapshot(*snapshot, changes);
                StoreReply::Kept
            }
            StoreOp::Note { name, record, .. } => {
                changes.push((place(Table::State, *name), Some(record.clone())));
                StoreReply::Kept
            }
            StoreOp::Recall { name } => return Judged::Read(place(Table::State, *name)),
        })
    }

    fn append(&mut self, op: &StoreOp, changes: &mut Vec<TableChange>) -> Judged {
        let StoreOp::Append {
            snapshot,
            number,
            chain,
            next,
            rows,
            chunk,
            at,
            ..
        } = op
        else {
            return Judged::Reply(StoreReply::Conflict);
        };
        let bytes_max = self.bytes_max;
        let Some(entry) = self.snapshots.get_mut(snapshot) else {
            return Judged::Reply(StoreReply::Gone);
        };
        let standing = &mut entry.standing;
        let sent_twice = standing.chunks.checked_sub(1) == Some(*number)
            && entry.before_last == *chain
            && standing.chain == *next;
        if sent_twice {
            return Judged::Reply(StoreReply::Kept);
        }
        if standing.chunks != *number || standing.chain != *chain || standing.end != KeptEnd::Open {
            return Judged::Reply(StoreReply::Conflict);
        }
        if *number >= CHUNKS_MAX || entry.bytes + charge(chunk) > bytes_max {
            return Judged::TooLarge;
        }
        standing.chunks += 1;
        standing.rows += u64::from(*rows);
        standing.chain = *next;
        let ages = standing.ages.get_or_insert(KeptAges {
            head: *at,
            whole: *at,
        });
        ages.whole = ages.head;
        entry.before_last = *chain;
        entry.bytes += charge(chunk);
        self.bytes += charge(chunk);
        changes.push((chunk_place(*snapshot, *number), Some(chunk.clone())));
        self.change(*snapshot, changes, |_| {});
        self.make_room(Some(Unit::Snapshot(*snapshot)), changes);
        Judged::Reply(StoreReply::Kept)
    }

    /// Changes a snapshot and marks it as used now.
    fn change(
        &mut self,
        name: RecordName,
        changes: &mut Vec<TableChange>,
        change: impl FnOnce(&mut SnapshotEntry),
    ) -> StoreReply {
        let used = self.uses + 1;
        let Some(entry) = self.snapshots.get_mut(&name) else {
            return StoreReply::Gone;
        };
        self.uses = used;
        self.order.remove(&entry.used);
        entry.used = used;
        change(entry);
        changes.push((place(Table::Snapshots, name), Some(entry.write())));
        self.order.insert(used, Unit::Snapshot(name));
        StoreReply::Kept
    }

    fn use_answer(&mut self, name: RecordName, changes: &mut Vec<TableChange>) -> bool {
        let used = self.uses + 1;
        let Some(entry) = self.answers.get_mut(&name) else {
            return false;
        };
        self.uses = used;
        self.order.remove(&entry.used);
        entry.used = used;
        changes.push((place(Table::Answers, name), Some(entry.write())));
        self.order.insert(used, Unit::Answer(name));
        true
    }

    fn next_use(&mut self, unit: Unit) -> u64 {
        self.uses += 1;
        self.order.insert(self.uses, unit);
        self.uses
    }

    fn drop_answer(&mut self, name: RecordName, changes: &mut Vec<TableChange>) {
        let Some(entry) = self.answers.remove(&name) else {
            return;
        };
        self.order.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        changes.push((place(Table::Answers, name), None));
        changes.push((answer_place(name), None));
    }

    fn drop_snapshot(&mut self, name: RecordName, changes: &mut Vec<TableChange>) {
        let Some(entry) = self.snapshots.remove(&name) else {
            return;
        };
        self.order.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        let line = entry.standing.line;
        if self.lines.get(&line) == Some(&name) {
            self.lines.remove(&line);
            changes.push((place(Table::Lines, line), None));
        }
        changes.push((place(Table::Snapshots, name), None));
        changes.push((chunk_place(name, HEAD), None));
        for number in 0..entry.standing.chunks {
            changes.push((chunk_place(name, number), None));
        }
    }

    /// Evicts the least recently used records, except `spared`.
    fn make_room(&mut self, spared: Option<Unit>, changes: &mut Vec<TableChange>) {
        while self.bytes > self.bytes_max {
            let mut oldest = self.order.values().copied();
            match oldest.find(|unit| Some(*unit) != spared) {
                Some(Unit::Answer(name)) => self.drop_answer(name, changes),
                Some(Unit::Snapshot(name)) => self.drop_snapshot(name, changes),
                None => return,
            }
        }
    }
}

impl AnswerEntry {
    fn write(&self) -> Bytes {
        let mut out = PackWriter::default();
        out.u64(self.used).u64(self.bytes).flag(self.negative);
        out.done().into()
    }

    fn read(bytes: Bytes) -> Option<Self> {
        let mut reader = PackReader::new(bytes);
        let read = Self {
            used: reader.u64()?,
            bytes: reader.u64()?,
            negative: reader.flag()?,
        };
        reader.is_over().then_some(read)
    }
}

impl SnapshotEntry {
    fn write(&self) -> Bytes {
        let Self {
            standing,
            before_last,
            used,
            bytes,
        } = self;
        let mut out = PackWriter::default();
        out.fixed(&standing.line.0)
            .u32(standing.chunks)
            .u64(standing.rows)
            .fixed(&standing.chain)
            .fixed(before_last)
            .u8(standing.end as u8)
            .u64(*used)
            .u64(*bytes)
            .flag(standing.ages.is_some());
        if let Some(ages) = standing.ages {
            out.stamp(ages.head).stamp(ages.whole);
        }
        out.done().into()
    }

    fn read(bytes: Bytes) -> Option<Self> {
        let mut reader = PackReader::new(bytes);
        let line = RecordName(reader.fixed()?);
        let (chunks, rows) = (reader.u32()?, reader.u64()?);
        let (chain, before_last) = (reader.fixed()?, reader.fixed()?);
        let end = KeptEnd::of(reader.u8()?)?;
        let (used, bytes) = (reader.u64()?, reader.u64()?);
        let ages = match reader.flag()? {
            false => None,
            true => Some(KeptAges {
                head: reader.stamp()?,
                whole: reader.stamp()?,
            }),
        };
        let standing = KeptStanding {
            line,
            chunks,
            rows,
            chain,
            end,
            ages,
        };
        reader.is_over().then_some(Self {
            standing,
            before_last,
            used,
            bytes,
        })
    }
}
