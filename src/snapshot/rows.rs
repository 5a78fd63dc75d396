//! The rows of a walk: raw text in the vendor's order. Rows are cut by slicing and never serialised
//! again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::domain::record::{CaseHead, RowId};
use crate::store::KeptRows;
use crate::upstream::RawRows;

/// Number of a text in a [`Words`] table, or [`NO_WORD`] if a row has none.
pub type Word = u32;
/// The word of a row without a customer or a case type.
pub const NO_WORD: Word = u32::MAX;

/// Bytes of a row besides its text: end offset, id, customer and case type.
pub const ROW_OVERHEAD_BYTES: u64 = 4 + 16 + 4 + 4;

/// Texts that many rows share, numbered in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct Words {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, Word, RandomState>,
}

impl Words {
    /// Returns the number of a text, which is added if it is new. [`NO_WORD`] for `None`.
    fn number(&mut self, text: Option<&str>) -> Word {
        let Some(text) = text else { return NO_WORD };
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let Some(number) = Word::try_from(self.len()).ok().filter(|n| *n != NO_WORD) else {
            return NO_WORD;
        };
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    /// Returns the same for the next row of a column. Often it has the word of the row before.
    fn number_next(&mut self, text: Option<&str>, column: &[Word]) -> Word {
        match column.last() {
            Some(before) if text.is_some() && self.text(*before) == text => *before,
            _ => self.number(text),
        }
    }

    /// Returns the text of a number.
    pub fn text(&self, number: Word) -> Option<&str> {
        self.texts.get(number as usize).map(|text| &**text)
    }

    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// Moves columns from one table to another. Looks up each text once, however many rows have it.
struct Renumbering<'a> {
    from: &'a Words,
    known: Vec<Option<Word>>,
}

impl<'a> Renumbering<'a> {
    fn from(from: &'a Words) -> Self {
        Self {
            from,
            known: vec![None; from.len()],
        }
    }

    fn renumber(&mut self, column: &[Word], to: &mut Words) -> Box<[Word]> {
        let from = self.from;
        let number = |word: &Word| match self.known.get_mut(*word as usize) {
            Some(known) => *known.get_or_insert_with(|| to.number(from.text(*word))),
            None => NO_WORD,
        };
        column.iter().map(number).collect()
    }
}

/// Rows that arrived together: one text with the rows joined by commas, and a column for each
/// property of a row.
#[derive(Debug)]
pub struct Chunk {
    text: Bytes,
    ends: Box<[u32]>,
    ids: Box<[RowId]>,
    customers: Box<[Word]>,
    types: Box<[Word]>,
}

impl Chunk {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn start_of(&self, row: usize) -> usize {
        match row.checked_sub(1).and_then(|before| self.ends.get(before)) {
            Some(end) => *end as usize + 1,
            None => 0,
        }
    }

    fn end_of(&self, row: usize) -> usize {
        self.ends
            .get(row)
            .map_or(self.text.len(), |end| *end as usize)
    }

    /// Returns the text of a range of rows, with commas between them.
    fn cut(&self, rows: Range<usize>) -> Bytes {
        match rows.end.checked_sub(1) {
            Some(last) if rows.start <= last && last < self.len() => self
                .text
                .slice(self.start_of(rows.start)..self.end_of(last)),
            _ => Bytes::new(),
        }
    }

    fn bytes(&self) -> u64 {
        self.text.len() as u64 + ROW_OVERHEAD_BYTES * self.len() as u64
    }

    fn same_rows(&self, other: &Self) -> bool {
        self.text == other.text && self.ends == other.ends
    }

    /// Returns a chunk of the first `rows` rows.
    fn truncated(&self, rows: usize) -> Self {
        let take = |column: &[Word]| column.iter().take(rows).copied().collect();
        Self {
            text: self.cut(0..rows),
            ends: take(&self.ends),
            ids: self.ids.iter().take(rows).copied().collect(),
            customers: take(&self.customers),
            types: take(&self.types),
        }
    }

    /// Returns a chunk of the rows from `first` on.
    fn tail(&self, first: usize) -> Self {
        let skip = |column: &[Word]| column.iter().skip(first).copied().collect();
        let shift = u32::try_from(self.start_of(first)).unwrap_or(u32::MAX);
        Self {
            text: self.cut(first..self.len()),
            ends: self
                .ends
                .iter()
                .skip(first)
                .map(|end| end.saturating_sub(shift))
                .collect(),
            ids: self.ids.iter().skip(first).copied().collect(),
            customers: skip(&self.customers),
            types: skip(&self.types),
        }
    }
}

/// Rows in the vendor's order.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    chunks: Vec<Arc<Chunk>>,
    /// Index of each chunk's first row.
    starts: Vec<usize>,
    len: usize,
    bytes: u64,
    /// Customers of the rows.
    pub customers: Words,
    /// Case types of the rows.
    pub types: Words,
}

/// How two rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By case id.
    Ids,
    /// By every byte.
    Text,
}

impl Rows {
    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes of all rows, with what they cost besides their text.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn push(&mut self, chunk: Arc<Chunk>) {
        if chunk.len() == 0 {
            return;
        }
        self.starts.push(self.len);
        self.len += chunk.len();
        self.bytes += chunk.bytes();
        self.chunks.push(chunk);
    }

    /// Returns the chunk of a row, and the row's index in it.
    fn place(&self, row: usize) -> Option<(&Arc<Chunk>, usize)> {
        let at = self
            .starts
            .partition_point(|start| *start <= row)
            .checked_sub(1)?;
        let (chunk, start) = (self.chunks.get(at)?, self.starts.get(at)?);
        let within = row - start;
        (within < chunk.len()).then_some((chunk, within))
    }

    /// Adds a vendor page. Leaves out the rows that `is_new` rejects, and returns their number.
    pub fn append(&mut self, page: RawRows, mut is_new: impl FnMut(RowId) -> bool) -> usize {
        let count = page.len();
        let mut left_out = Vec::new();
        let mut ids = Vec::with_capacity(count);
        let mut customers = Vec::with_capacity(count);
        let mut types = Vec::with_capacity(count);
        for (row, text) in page.iter().enumerate() {
            let head = match page.places.get(row) {
                Some(Some(places)) => CaseHead::read_at(text, places),
                Some(None) | None => CaseHead::read(text),
            };
            if !is_new(head.id) {
                left_out.push(row);
                continue;
            }
            ids.push(head.id);
            let customer = head.customer.as_deref();
            customers.push(self.customers.number_next(customer, &customers));
            let case_type = head.case_type.as_deref();
            types.push(self.types.number_next(case_type, &types));
        }
        let (text, ends) = match left_out.is_empty() {
            true => (page.text, page.ends.into()),
            false => joined(&page, &left_out),
        };
        self.push(Arc::new(Chunk {
            text,
            ends,
            ids: ids.into(),
            customers: customers.into(),
            types: types.into(),
        }));
        left_out.len()
    }

    /// Returns the text of a range of rows, in pieces. There are commas within each piece, but not
    /// between pieces.
    pub fn cut(&self, rows: Range<usize>) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut row = rows.start;
        while row < rows.end {
            let Some((chunk, within)) = self.place(row) else {
                break;
            };
            let take = (rows.end - row).min(chunk.len() - within);
            pieces.push(chunk.cut(within..within + take));
            row += take;
        }
        pieces
    }

    /// Returns the rows from `first` on, in the chunks in which they arrived, for the store.
    /// `first` must be the start of a chunk.
    pub fn chunks_from(&self, first: usize) -> Vec<KeptRows> {
        let chunks = self.chunks.iter().zip(&self.starts);
        chunks
            .filter(|(_, start)| **start >= first)
            .map(|(chunk, _)| KeptRows {
                text: chunk.text.clone(),
                ends: chunk.ends.to_vec(),
            })
            .collect()
    }

    /// Returns the whole chunks from row `first` on that end by row `upto`: one at least, and no
    /// more once they have `bytes_max`. Also returns whether there are more of them.
    pub fn chunks_within(
        &self,
        first: usize,
        upto: usize,
        bytes_max: usize,
    ) -> (Vec<KeptRows>, bool) {
        let skipped = self.starts.partition_point(|start| *start < first);
        let chunks = self.chunks.iter().zip(&self.starts).skip(skipped);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for (chunk, start) in chunks {
            if start + chunk.len() > upto {
                break;
            }
            if !taken.is_empty() && bytes + chunk.text.len() > bytes_max {
                return (taken, true);
            }
            bytes += chunk.text.len();
            taken.push(KeptRows {
                text: chunk.text.clone(),
                ends: chunk.ends.to_vec(),
            });
        }
        (taken, false)
    }

    /// Returns the text of one row.
    pub fn text(&self, row: usize) -> Bytes {
        match self.place(row) {
            Some((chunk, within)) => chunk.cut(within..within + 1),
            None => Bytes::new(),
        }
    }

    fn id(&self, row: usize) -> Option<RowId> {
        let (chunk, within) = self.place(row)?;
        chunk.ids.get(within).copied()
    }

    /// Calls `each` with the id of every row of a range.
    pub fn for_each_id(&self, rows: Range<usize>, each: &mut dyn FnMut(RowId)) {
        let mut row = rows.start;
        while row < rows.end {
            let Some((chunk, within)) = self.place(row) else {
                return;
            };
            let take = (rows.end - row).min(chunk.len() - within);
            chunk
                .ids
                .iter()
                .skip(within)
                .take(take)
                .for_each(|id| each(*id));
            row += take;
        }
    }

    /// Calls `each` with the id and the text of every row of a range.
    pub fn for_each_row(&self, rows: Range<usize>, each: &mut dyn FnMut(RowId, Bytes)) {
        let mut row = rows.start;
        while row < rows.end {
            let Some((chunk, within)) = self.place(row) else {
                return;
            };
            let take = (rows.end - row).min(chunk.len() - within);
            let ids = chunk.ids.iter().enumerate().skip(within).take(take);
            ids.for_each(|(at, id)| each(*id, chunk.cut(at..at + 1)));
            row += take;
        }
    }

    /// Calls `each` with (row, customer, case type) for the rows from `first` on.
    pub fn for_each_from(&self, first: usize, mut each: impl FnMut(usize, Word, Word)) {
        let at = self
            .starts
            .partition_point(|start| *start <= first)
            .saturating_sub(1);
        let chunks = self.chunks.iter().zip(&self.starts).skip(at);
        for (chunk, start) in chunks {
            let columns = chunk.customers.iter().zip(&chunk.types).enumerate();
            for (within, (customer, case_type)) in columns {
                if start + within >= first {
                    each(start + within, *customer, *case_type);
                }
            }
        }
    }

    /// Returns the first row of `range` in which the two lists differ. A row that one list lacks
    /// counts as different.
    pub fn first_difference(&self, other: &Self, range: Range<usize>, by: By) -> Option<usize> {
        let mut row = range.start;
        while row < range.end {
            let (Some((mine, at)), Some((theirs, other_at))) = (self.place(row), other.place(row))
            else {
                return Some(row);
            };
            // Pages of the same size give equal chunks. Then one comparison answers for all their
            // rows.
            if at == 0 && other_at == 0 && (Arc::ptr_eq(mine, theirs) || mine.same_rows(theirs)) {
                row += mine.len();
                continue;
            }
            let same = match by {
                By::Ids => self.id(row) == other.id(row),
                By::Text => mine.cut(at..at + 1) == theirs.cut(other_at..other_at + 1),
            };
            if !same {
                return Some(row);
            }
            row += 1;
        }
        None
    }

    /// Removes the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let (Some(chunk), Some(start)) = (self.chunks.pop(), self.starts.pop()) else {
                break;
            };
            self.len = start;
            self.bytes -= chunk.bytes();
            if start < len {
                self.push(Arc::new(chunk.truncated(len - start)));
            }
        }
    }

    /// Moves another list's rows from its row `first` on to the end of this one.
    pub fn take_from(&mut self, other: Self, first: usize) {
        if first == 0 && self.is_empty() && self.customers.is_empty() && self.types.is_empty() {
            // Most walks begin like this, and many end like this: the chunks are moved, and their
            // word numbers stay valid.
            *self = other;
            return;
        }
        let mut customers = Renumbering::from(&other.customers);
        let mut types = Renumbering::from(&other.types);
        let at = other
            .starts
            .partition_point(|start| *start <= first)
            .saturating_sub(1);
        for (chunk, start) in other.chunks.iter().zip(&other.starts).skip(at) {
            let skip = first.saturating_sub(*start);
            if skip >= chunk.len() {
                continue;
            }
            let tail = if skip == 0 {
                None
            } else {
                Some(chunk.tail(skip))
            };
            let chunk = tail.as_ref().unwrap_or(chunk);
            let moved = Chunk {
                text: chunk.text.clone(),
                ends: chunk.ends.clone(),
                ids: chunk.ids.clone(),
                customers: customers.renumber(&chunk.customers, &mut self.customers),
                types: types.renumber(&chunk.types, &mut self.types),
            };
            self.push(Arc::new(moved));
        }
    }

    /// Replaces the last chunk of `self` by an equal one of `other` at the same place, so that rows
    /// held twice need memory once.
    pub fn share_last(&mut self, other: &Self) {
        let at = self.chunks.len().wrapping_sub(1);
        if let (Some(mine), Some(theirs)) = (self.chunks.get_mut(at), other.chunks.get(at))
            && self.starts.get(at) == other.starts.get(at)
            && mine.same_rows(theirs)
            && mine.customers == theirs.customers
            && mine.types == theirs.types
        {
            *mine = theirs.clone();
        }
    }
}

/// Returns a page's text and row ends without the rows left out, whose numbers are sorted.
fn joined(page: &RawRows, left_out: &[usize]) -> (Bytes, Box<[u32]>) {
    let mut text = Vec::with_capacity(page.text.len());
    let mut ends = Vec::with_capacity(page.len());
    let mut left_out = left_out.iter().peekable();
    for (row, raw) in page.iter().enumerate() {
        if left_out.next_if(|out| **out == row).is_some() {
            continue;
        }
        if !ends.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(raw.as_bytes());
        ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
    }
    (text.into(), ends.into())
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
