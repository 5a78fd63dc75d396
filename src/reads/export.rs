//! A whole search as a stream.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Asker, ReadError};
use crate::cache::CacheNote;
use crate::clock::Duration;
use crate::domain::SearchQuery;

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated values with a head line.
    Csv,
}

/// What goes down an export's stream.
#[derive(Debug)]
pub enum ExportPiece {
    /// Whole lines.
    Lines(Bytes),
    /// The end was reached: the number of rows, for the trailer. A stream that ends without this
    /// piece was cut, and its body must be aborted.
    End {
        /// Rows written.
        rows: u64,
    },
}

/// A running export.
pub struct ExportStream {
    /// Of the snapshot's first page.
    pub age: Duration,
    /// How the snapshot came about.
    pub note: CacheNote,
    /// Bounded, so a slow reader slows the walk down, not the memory up.
    pub pieces: mpsc::Receiver<ExportPiece>,
}

/// Answers `GET /v1/cases/export`.
pub struct Export {}

impl Export {
    /// Begins an export. Returns when the first rows are known, or the search failed.
    ///
    /// # Errors
    /// As a search.
    pub async fn begin(
        &self,
        _asker: &Asker,
        _query: SearchQuery,
        _format: ExportFormat,
    ) -> Result<ExportStream, ReadError> {
        Err(ReadError::Internal)
    }
}
