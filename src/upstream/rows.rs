//! The rows of an answer, exactly as the vendor sent them.

use std::ops::Range;

use bytes::Bytes;

use crate::domain::record::CasePlaces;

/// Rows as raw JSON text: all texts joined by `,`, with the end of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRows {
    /// The texts, joined by `,`.
    pub text: Bytes,
    /// The offset after each row, its comma not included.
    pub ends: Vec<u32>,
    /// Where the members of a case are in each row. `None` for a row that needs a full parser, and
    /// empty if the source did not look.
    pub places: Vec<Option<CasePlaces>>,
}

impl RawRows {
    /// Copies rows into one buffer. `None` past 4 GiB.
    pub fn collect(rows: &[&str], places: Vec<Option<CasePlaces>>) -> Option<Self> {
        let bytes = rows.iter().map(|row| row.len() + 1).sum();
        let mut text = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(rows.len());
        for row in rows {
            if !text.is_empty() {
                text.push(b',');
            }
            text.extend_from_slice(row.as_bytes());
            ends.push(u32::try_from(text.len()).ok()?);
        }
        Some(Self {
            text: text.into(),
            ends,
            places,
        })
    }

    /// Takes rows that are joined by `,` in `text` already. `None` past 4 GiB, and if they are not
    /// as long as the text.
    pub fn joined(text: Bytes, rows: &[&str], places: Vec<Option<CasePlaces>>) -> Option<Self> {
        let mut ends = Vec::with_capacity(rows.len());
        let mut next = 0;
        for row in rows {
            let end = next + row.len();
            ends.push(u32::try_from(end).ok()?);
            next = end + 1;
        }
        let fits = next == text.len() + usize::from(!rows.is_empty());
        fits.then_some(Self { text, ends, places })
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the text of a row; empty past the end.
    pub fn get(&self, index: usize) -> &str {
        self.range(index)
            .and_then(|range| self.text.get(range))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("")
    }

    /// Returns the texts in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        // Checks all texts at once.
        let text = std::str::from_utf8(&self.text).unwrap_or("");
        (0..self.len()).map(move |index| {
            let range = self.range(index);
            range.and_then(|range| text.get(range)).unwrap_or("")
        })
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let end = usize::try_from(*self.ends.get(index)?).ok()?;
        let start = match index.checked_sub(1) {
            None => 0,
            Some(before) => usize::try_from(*self.ends.get(before)?).ok()? + 1,
        };
        Some(start..end)
    }
}
