//! States in the store, so that sync tokens outlive the process.
//!
//! ```text
//! state   id → head: audience, search, table, rows      table  id → blocks of 4,096 ids
//!         id, part → numbers and hashes of 131,072 rows
//! ```
//!
//! Each is a record like an answer's: sealed, with a keyed name, and evicted when the store needs
//! room. A row costs 20 bytes in each state; an id is stored once, in the table that its states
//! share. Only the process that created a table adds to it. Another process that shares the store
//! only reads it. Writes are not awaited, so a crash may lose the last state; its token is then
//! answered with 410.

use bytes::Bytes;
use jiff::Timestamp;

use super::row_names::{Ids, RowHash};
use super::view_state::ViewState;
use crate::clock::{Clock, Instant};
use crate::domain::audience::AudienceFingerprint;
use crate::domain::period::parse_day;
use crate::domain::record::RowId;
use crate::domain::{CustomerId, DateRange, Kind, SearchQuery};
use crate::store::pack::{PackReader, PackWriter};
use crate::store::{KeptAnswer, Store};

/// The layout of these records.
const LAYOUT: u8 = 1;
/// Ids in one record: some 300 KiB. The last block of a table is written again when ids are added.
const IDS_PER_BLOCK: usize = 4_096;
/// Rows in one record: 2.5 MiB, well below the largest that a store takes.
const ROWS_PER_PART: usize = 131_072;
/// The most rows and ids that are read back. More would exceed `changes.bytes_max` in any case.
const COUNT_MAX: usize = 1 << 28;

/// The subject of a record. Different subjects never have the same identity.
#[derive(Clone, Copy)]
enum Piece {
    Head,
    Rows,
    Ids,
}

fn identity(piece: Piece, id: u128, number: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("msp-gateway 2026 sync states");
    hasher.update(&[piece as u8]);
    hasher.update(&id.to_le_bytes());
    hasher.update(&(number as u64).to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// A state that was found in the store.
pub(super) struct FoundState {
    pub audience: AudienceFingerprint,
    pub query: SearchQuery,
    /// The table of its ids, and how many of them it needs.
    pub table: u128,
    pub ids: usize,
    pub rows: Vec<u32>,
    pub hashes: Vec<RowHash>,
    /// When the vendor confirmed the state, in this process's time and by the wall clock.
    pub as_of: (Instant, Timestamp),
}

/// The states in the store. Costs nothing without a store.
pub(super) struct KeptStates {
    store: Store,
    clock: Clock,
}

impl KeptStates {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    fn answer(&self, content: Vec<u8>, born: Instant) -> KeptAnswer {
        KeptAnswer {
            content: content.into(),
            negative: false,
            born: self.clock.stamp_of(born),
            draw: 0.0,
            begun: self.store.purges().number(),
        }
    }

    /// Empties a record. Does not wait for the store.
    fn drop_record(&self, identity: [u8; 32]) {
        let answer = self.answer(Vec::new(), self.clock.now());
        self.store.keep_answer(&identity, answer);
    }

    async fn get(&self, identity: [u8; 32]) -> Option<KeptAnswer> {
        let found = self.store.find_answer(Kind::Cases, &identity).await?;
        // A removed state is stored as an empty record.
        (!found.content.is_empty()).then_some(found)
    }

    /// Keeps a state that this process made. Waits until a crash cannot undo it, 50 ms at most.
    pub async fn keep(&self, state: &ViewState) {
        if !self.store.is_on() {
            return;
        }
        let (at, wall) = state.as_of();
        let mut records = Vec::new();
        let mut add = |identity, content| records.push((identity, self.answer(content, at)));
        let (table, ids) = {
            let mut ids = state.ids().lock();
            for (number, block) in unkept_blocks(&mut ids) {
                add(identity(Piece::Ids, ids.table, number), block);
            }
            (ids.table, ids.len())
        };
        for (number, part) in parts_of(state).enumerate() {
            add(identity(Piece::Rows, state.id, number), part);
        }
        // The head comes last: a crash in between leaves no head without its rows.
        let head = write_head(state, table, ids, wall);
        add(identity(Piece::Head, state.id, 0), head);
        self.store.keep_safely(records).await;
    }

    /// Removes a state of this process; with `its_table`, the ids too.
    pub fn forget(&self, state: &ViewState, its_table: bool) {
        if !self.store.is_on() {
            return;
        }
        self.drop_record(identity(Piece::Head, state.id, 0));
        for number in 0..state.row_count().div_ceil(ROWS_PER_PART) {
            self.drop_record(identity(Piece::Rows, state.id, number));
        }
        let mut ids = state.ids().lock();
        if its_table {
            for number in 0..ids.kept.div_ceil(IDS_PER_BLOCK) {
                self.drop_record(identity(Piece::Ids, ids.table, number));
            }
            ids.kept = 0;
        }
    }

    /// Returns the state of this id. `None` if any part of it is missing.
    pub async fn find(&self, id: u128) -> Option<FoundState> {
        if !self.store.is_on() {
            return None;
        }
        let kept = self.get(identity(Piece::Head, id, 0)).await?;
        let born = self.clock.instant_of(&kept.born);
        let (mut found, rows) = read_head(kept.content, born.unwrap_or_else(|| self.clock.now()))?;
        for number in 0..rows.div_ceil(ROWS_PER_PART) {
            let part = self.get(identity(Piece::Rows, id, number)).await?;
            read_part(part.content, &mut found)?;
        }
        let fits = |number: &u32| (*number as usize) < found.ids;
        (found.rows.len() == rows && found.rows.iter().all(fits)).then_some(found)
    }

    /// Returns the ids of a table, as many as a state needs or more.
    pub async fn find_ids(&self, table: u128, needed: usize) -> Option<Ids> {
        let mut ids = Ids::loaded(table);
        let mut number = 0;
        while ids.len() < needed {
            let block = self.get(identity(Piece::Ids, table, number)).await?;
            read_block(block.content, number, &mut ids)?;
            number += 1;
        }
        Some(ids)
    }
}

/// Returns the blocks with ids that were not stored yet. They count as stored from now on.
fn unkept_blocks(ids: &mut Ids) -> Vec<(usize, Vec<u8>)> {
    // A table that was read from the store is complete there.
    if ids.is_loaded || ids.kept == ids.len() {
        return Vec::new();
    }
    let blocks = ids.kept / IDS_PER_BLOCK..ids.len().div_ceil(IDS_PER_BLOCK);
    let made = blocks.map(|number| {
        let start = number * IDS_PER_BLOCK;
        let mut out = PackWriter::default();
        let count = IDS_PER_BLOCK.min(ids.len() - start);
        out.u8(LAYOUT).u64(start as u64).u64(count as u64);
        for (id, name) in ids.iter_from(start).take(count) {
            out.fixed(&id.0.to_le_bytes()).bytes(name.as_bytes());
        }
        (number, out.done())
    });
    let made = made.collect();
    ids.kept = ids.len();
    made
}

fn read_block(content: Bytes, number: usize, ids: &mut Ids) -> Option<()> {
    let mut reader = PackReader::new(content);
    let layout = reader.u8()?;
    let start = usize::try_from(reader.u64()?).ok()?;
    let count = usize::try_from(reader.u64()?).ok()?;
    let is_next = start == number * IDS_PER_BLOCK && start == ids.len();
    if layout != LAYOUT || !is_next || count == 0 || count > IDS_PER_BLOCK {
        return None;
    }
    for _ in 0..count {
        let id = RowId(u128::from_le_bytes(reader.fixed()?));
        let name = reader.bytes()?;
        ids.add(id, std::str::from_utf8(&name).ok()?)?;
    }
    reader.is_over().then_some(())
}

fn write_head(state: &ViewState, table: u128, ids: usize, wall: Timestamp) -> Vec<u8> {
    let mut out = PackWriter::default();
    out.u8(LAYOUT)
        .fixed(&state.view.audience_fingerprint().0)
        .fixed(&table.to_le_bytes())
        .u64(ids as u64)
        .u64(state.row_count() as u64)
        .fixed(&wall.as_millisecond().to_le_bytes());
    let customer = state.query.customer.as_ref();
    out.bytes(customer.map_or("", |customer| customer.as_str()).as_bytes());
    let days = state.query.range.map(|range| (range.start(), range.end()));
    let text = days.map_or(String::new(), |(start, end)| format!("{start}/{end}"));
    out.bytes(text.as_bytes()).done()
}

/// Returns the state without its rows, and the number of rows.
fn read_head(content: Bytes, at: Instant) -> Option<(FoundState, usize)> {
    let mut reader = PackReader::new(content);
    if reader.u8()? != LAYOUT {
        return None;
    }
    let audience = AudienceFingerprint(reader.fixed()?);
    let table = u128::from_le_bytes(reader.fixed()?);
    let mut count = || {
        let count = usize::try_from(reader.u64()?).ok()?;
        (count <= COUNT_MAX).then_some(count)
    };
    let (ids, rows) = (count()?, count()?);
    let wall = Timestamp::from_millisecond(i64::from_le_bytes(reader.fixed()?)).ok()?;
    let customer = reader.bytes()?;
    let customer = match std::str::from_utf8(&customer).ok()? {
        "" => None,
        text => Some(CustomerId::parse(text).ok()?),
    };
    let days = reader.bytes()?;
    let range = match std::str::from_utf8(&days).ok()? {
        "" => None,
        text => {
            let (start, end) = text.split_once('/')?;
            Some(DateRange::new(parse_day(start)?, parse_day(end)?)?)
        }
    };
    let query = SearchQuery {
        customer,
        range,
        ..SearchQuery::default()
    };
    let found = FoundState {
        audience,
        query,
        table,
        ids,
        rows: Vec::new(),
        hashes: Vec::new(),
        as_of: (at, wall),
    };
    reader.is_over().then_some((found, rows))
}

fn parts_of(state: &ViewState) -> impl Iterator<Item = Vec<u8>> {
    let (rows, hashes) = state.rows();
    let parts = rows.chunks(ROWS_PER_PART).zip(hashes.chunks(ROWS_PER_PART));
    parts.map(|(rows, hashes)| {
        let mut out = PackWriter::default();
        out.u8(LAYOUT).u64(rows.len() as u64);
        for number in rows {
            out.u32(*number);
        }
        for hash in hashes {
            out.fixed(hash);
        }
        out.done()
    })
}

fn read_part(content: Bytes, found: &mut FoundState) -> Option<()> {
    let mut reader = PackReader::new(content);
    let layout = reader.u8()?;
    let count = usize::try_from(reader.u64()?).ok()?;
    if layout != LAYOUT || count > ROWS_PER_PART {
        return None;
    }
    for _ in 0..count {
        found.rows.push(reader.u32()?);
    }
    for _ in 0..count {
        found.hashes.push(reader.fixed()?);
    }
    reader.is_over().then_some(())
}
