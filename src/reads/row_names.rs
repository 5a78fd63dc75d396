//! The names of rows in states: a number for each id, and a hash for each text.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::record::RowId;

/// Bytes of an id besides its text: its hash twice, its number, the end of its text.
const ID_OVERHEAD_BYTES: u64 = 56;

/// A hash of a row's text.
pub type RowHash = [u8; 16];

/// Returns the hash of a row's text.
pub fn hash_of(text: &[u8]) -> RowHash {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(blake3::hash(text).as_bytes()) {
        *to = *from;
    }
    out
}

/// Returns a hash in hex.
pub fn hex(hash: &RowHash) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(32);
    for byte in hash {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The ids that the rows of one search have or had.
#[derive(Debug)]
pub(super) struct Ids {
    /// Its id in the store.
    pub table: u128,
    /// How many of them are in the store.
    pub kept: usize,
    /// Whether another process created it. Only that process may add to it, because two writers
    /// would give two rows the same number.
    pub is_loaded: bool,
    /// The number of each id.
    pub numbers: HashMap<RowId, u32, RandomState>,
    /// The ids, by number.
    pub ids: Vec<RowId>,
    /// The id members of each row, one after the other.
    texts: String,
    ends: Vec<u32>,
}

impl Default for Ids {
    /// Returns an empty table of this process.
    fn default() -> Self {
        Self {
            table: fastrand::u128(..),
            kept: 0,
            is_loaded: false,
            numbers: HashMap::default(),
            ids: Vec::new(),
            texts: String::new(),
            ends: Vec::new(),
        }
    }
}

impl Ids {
    /// Returns an empty table that is about to be read from the store.
    pub fn loaded(table: u128) -> Self {
        Self {
            table,
            is_loaded: true,
            ..Self::default()
        }
    }

    /// Returns the number of a row's id. `None` beyond 4 GiB of ids.
    pub fn number(&mut self, id: RowId, row: &[u8]) -> Option<u32> {
        if let Some(known) = self.numbers.get(&id) {
            return Some(*known);
        }
        self.add(id, &name_of(&String::from_utf8_lossy(row)))
    }

    /// Adds an id that is not in the table, and returns its number. `None` beyond 4 GiB of ids.
    pub fn add(&mut self, id: RowId, name: &str) -> Option<u32> {
        let number = u32::try_from(self.ids.len()).ok()?;
        let end = u32::try_from(self.texts.len() + name.len()).ok()?;
        self.texts.push_str(name);
        self.ends.push(end);
        self.ids.push(id);
        self.numbers.insert(id, number);
        Some(number)
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns the ids with their names, from a place on.
    pub fn iter_from(&self, start: usize) -> impl Iterator<Item = (RowId, &str)> {
        let rest = self.ids.iter().enumerate().skip(start);
        rest.map(|(at, id)| (*id, self.name(u32::try_from(at).unwrap_or(u32::MAX))))
    }

    /// Returns the id members of a row's number.
    pub fn name(&self, number: u32) -> &str {
        let number = number as usize;
        let end = self.ends.get(number).map_or(0, |end| *end as usize);
        let before = number.checked_sub(1).and_then(|n| self.ends.get(n));
        let start = before.map_or(0, |start| *start as usize);
        self.texts.get(start..end).unwrap_or("")
    }

    /// Returns the bytes that the table is charged.
    pub fn bytes(&self) -> u64 {
        self.texts.len() as u64 + self.ids.len() as u64 * ID_OVERHEAD_BYTES
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    customer_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    case_id: Option<&'a RawValue>,
}

/// Returns whether a row has no `case_id`, so that its own text names it.
pub fn is_nameless(row: &str) -> bool {
    match serde_json::from_str::<Named<'_>>(row) {
        Ok(named) => named.case_id.is_none(),
        Err(_) => true,
    }
}

/// Returns the identifying members of a removed row.
fn name_of(row: &str) -> String {
    match serde_json::from_str::<Named<'_>>(row) {
        Ok(Named {
            customer_id,
            case_id: Some(case),
        }) => {
            let customer = customer_id.map_or("null", RawValue::get);
            format!("\"customer_id\":{customer},\"case_id\":{}", case.get())
        }
        Ok(_) | Err(_) => format!("\"row_hash\":\"{}\"", hex(&hash_of(row.as_bytes()))),
    }
}
