//! Streams a whole search while its walk is still running, in bounded memory.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::answer::Asker;
use super::cases::Cases;
use super::csv::CsvLines;
use super::whole_list::{STALL_MAX, WholeList, accounted};
use super::{Ingredients, ReadError};
use crate::cache::CacheNote;
use crate::clock::{Clock, Duration};
use crate::domain::SearchQuery;
use crate::metrics::Metrics;
use crate::snapshot::End;

/// Number of rows from which the columns of a CSV are taken.
const ROWS_FOR_COLUMNS: usize = 500;
/// Maximum number of rows in one piece.
const ROWS_PER_PIECE: usize = 100;
/// Maximum bytes of rows in one piece, unless a single row is longer. An export holds a few pieces
/// for a slow reader, and writes one piece between two turns of other tasks.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Number of pieces that may wait for a slow reader.
const PIECES_AHEAD: usize = 2;

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object per line.
    Ndjson,
    /// Comma-separated values with a header line.
    Csv {
        /// Whether it begins with a byte order mark, for spreadsheets.
        bom: bool,
    },
}

/// One piece of an export's stream.
#[derive(Debug)]
pub enum ExportPiece {
    /// Whole lines.
    Lines(Bytes),
    /// The end, with the number of rows for the trailer. A stream that ends without this piece was
    /// cut, and its body must be aborted.
    End {
        /// Number of rows written.
        rows: u64,
    },
}

/// A running export.
pub struct ExportStream {
    /// The age of the snapshot's first page.
    pub age: Duration,
    /// How the snapshot was found.
    pub note: CacheNote,
    /// The pieces. The channel is bounded, so that a slow reader slows the walk down instead of
    /// filling memory.
    pub pieces: mpsc::Receiver<ExportPiece>,
}

/// Answers `GET /v1/cases/export`.
pub struct Export {
    cases: Arc<Cases>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Export {
    pub(super) fn new(of: &Ingredients, cases: Arc<Cases>) -> Self {
        Self {
            cases,
            clock: of.clock.clone(),
            metrics: of.metrics.clone(),
        }
    }

    /// Starts an export. Returns when the first rows are known, or the search has failed.
    ///
    /// # Errors
    /// Fails like a search.
    pub async fn begin(
        &self,
        asker: &Asker,
        query: SearchQuery,
        format: ExportFormat,
    ) -> Result<ExportStream, ReadError> {
        asker.may_see(query.customer.as_ref())?;
        let begun = self.begin_rows(asker, Arc::new(query), format).await;
        accounted(&self.metrics, asker, begun)
    }

    async fn begin_rows(
        &self,
        asker: &Asker,
        query: Arc<SearchQuery>,
        format: ExportFormat,
    ) -> Result<ExportStream, ReadError> {
        let list = WholeList::open(&self.cases, asker, &query).await?;
        list.until_begun(asker).await?;
        let age = list.snapshot.age(true, self.clock.now());
        let note = list.note;
        let run = Run {
            list,
            asker: asker.clone(),
            clock: self.clock.clone(),
        };
        let (send, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(run.write(format, send));
        Ok(ExportStream { age, note, pieces })
    }
}

/// The task of one export.
struct Run {
    list: WholeList,
    asker: Asker,
    clock: Clock,
}

impl Run {
    /// Logs that the export ends before its last row.
    fn cut(&self, why: &dyn fmt::Display) {
        let payer = &self.asker.payer;
        let (request_id, trace_id) = (payer.request_id(), payer.trace_id());
        tracing::warn!(request_id, trace_id, %why, "export cut");
    }

    async fn write(self, format: ExportFormat, send: mpsc::Sender<ExportPiece>) {
        let mut lines = match format {
            ExportFormat::Ndjson => Lines::Ndjson,
            ExportFormat::Csv { bom } => {
                let WholeList { snapshot, view, .. } = &self.list;
                let rows = snapshot.first_rows(view, ROWS_FOR_COLUMNS);
                Lines::Csv(CsvLines::new(&rows, bom))
            }
        };
        let head = lines.head();
        if !head.is_empty() && send.send(ExportPiece::Lines(head)).await.is_err() {
            return;
        }
        let WholeList { snapshot, view, .. } = &self.list;
        let mut changes = snapshot.changes();
        let mut written = 0;
        loop {
            changes.borrow_and_update();
            let (rows, end) = snapshot.rows_known(view, written, ROWS_PER_PIECE);
            let rows = piece_of(&rows);
            if !rows.is_empty() {
                written += rows.len();
                let Some(text) = lines.write(rows) else {
                    return;
                };
                if send.send(ExportPiece::Lines(text)).await.is_err() {
                    // The reader left. The walk goes on for others.
                    return;
                }
                continue;
            }
            match end {
                End::Complete => {
                    let rows = written as u64;
                    let _ = send.send(ExportPiece::End { rows }).await;
                    return;
                }
                // Ends without the last piece, so that the body is aborted and cannot pass for
                // complete.
                End::Cut(setting) => {
                    return self.cut(&format_args!("the walk reached {setting}"));
                }
                End::Broken => return self.cut(&"the list changed while it was read"),
                End::Growing => {
                    let deadline = self.clock.now() + STALL_MAX;
                    let waited = tokio::select! {
                        waited = self.list.wait(&self.asker, deadline, &mut changes) => waited,
                        () = send.closed() => return,
                    };
                    if let Err(failure) = waited {
                        return self.cut(&failure);
                    }
                }
            }
        }
    }
}

/// Returns the first of these rows that fit into a piece, at least one.
fn piece_of(rows: &[Bytes]) -> &[Bytes] {
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        bytes += row.len() + 1;
        bytes <= PIECE_BYTES_MAX
    });
    let most = fit.count().max(1).min(rows.len());
    rows.get(..most).unwrap_or_default()
}

enum Lines {
    Ndjson,
    Csv(CsvLines),
}

impl Lines {
    fn head(&mut self) -> Bytes {
        match self {
            Self::Ndjson => Bytes::new(),
            Self::Csv(lines) => lines.head(),
        }
    }

    fn write(&mut self, rows: &[Bytes]) -> Option<Bytes> {
        match self {
            Self::Ndjson => {
                let mut out = Vec::with_capacity(rows.iter().map(|row| row.len() + 1).sum());
                for row in rows {
                    write_line(row, &mut out);
                }
                Some(out.into())
            }
            Self::Csv(lines) => lines.write(rows),
        }
    }
}

/// Writes a row without line ends.
pub(super) fn write_in_one_line(row: &[u8], out: &mut Vec<u8>) {
    // Within JSON, a line end can only be between tokens, never inside a text.
    let mut rest = row;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        out.push(b' ');
        rest = from.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Writes a row as one line for every reader of lines. Many readers also take U+2028, U+2029 and
/// U+0085 for a line end, and JSON allows them within a text. They are escaped, which gives the
/// same value.
fn write_line(row: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    write_in_one_line(row, out);
    let written = out.get(start..).unwrap_or_default();
    if memchr::memchr2(0xc2, 0xe2, written).is_some() {
        let line = out.split_off(start);
        escape_separators(&line, out);
    }
    out.push(b'\n');
}

fn escape_separators(line: &[u8], out: &mut Vec<u8>) {
    let mut rest = line;
    while let Some(at) = memchr::memchr2(0xc2, 0xe2, rest) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        let (escape, bytes): (&[u8], _) = match from {
            [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
            [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
            [0xc2, 0x85, ..] => (b"\\u0085", 2),
            _ => (from.get(..1).unwrap_or_default(), 1),
        };
        out.extend_from_slice(escape);
        rest = from.get(bytes..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_bounded_in_bytes_and_never_empty() {
        let rows = |bytes: usize, count| vec![Bytes::from(vec![b'x'; bytes]); count];
        assert_eq!(piece_of(&[]).len(), 0);
        assert_eq!(piece_of(&rows(600, 100)).len(), 100);
        assert_eq!(piece_of(&rows(1_023, 100)).len(), 64);
        assert_eq!(piece_of(&rows(1_024, 100)).len(), 63);
        // A row that is too long for any piece is a piece of its own.
        assert_eq!(piece_of(&rows(PIECE_BYTES_MAX, 3)).len(), 1);
    }

    #[test]
    fn a_row_is_one_line() {
        let row = Bytes::from_static(b"{\r\n \"a\": 1,\n\"b\":\"x\\ny\"}\n");
        let lines = Lines::Ndjson.write(&[row, "{}".into()]).unwrap();
        assert_eq!(lines, "{   \"a\": 1, \"b\":\"x\\ny\"} \n{}\n");
    }

    #[test]
    fn no_reader_of_lines_finds_more_lines_than_rows() {
        let texts = [
            "a\u{2028}b",
            "\u{2029}",
            "\u{85}\u{85}",
            "\u{2028}\u{85}",
            "\u{c5}\u{2026}\u{20ac}",
            "\u{a0}x",
            "\\\u{2028}",
        ];
        let rows = texts.map(|text| Bytes::from(serde_json::json!({ "t": text }).to_string()));
        let lines = Lines::Ndjson.write(&rows).unwrap();
        let text = std::str::from_utf8(&lines).unwrap();
        let ends = [
            '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
            '\u{2029}',
        ];
        let found: Vec<_> = text.split(ends).collect();
        assert_eq!(found.len(), texts.len() + 1);
        for (line, text) in found.iter().zip(texts) {
            let read: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(read["t"], text);
        }
    }
}
