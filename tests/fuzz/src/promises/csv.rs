//! CSV: a reader of CSV gets every value back, and a spreadsheet never a formula. The bytes are
//! JSON rows, one a line; the first half of them makes the columns.

use bytes::Bytes;
use msp_gateway::reads::csv::CsvLines;
use serde_json::Value;
use serde_json::value::RawValue;

/// What makes a spreadsheet compute.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix(['-', '+']).unwrap_or(cell);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.parse::<f64>().is_ok()
        && !digits.contains(|c: char| c.is_alphabetic() && !matches!(c, 'e' | 'E'))
}

/// The cell of a value, without its guard.
fn shown(value: &Value, cell: &str) -> bool {
    match value {
        Value::Null => cell.is_empty(),
        Value::String(text) => cell == text || cell.strip_prefix('\'') == Some(text),
        other => serde_json::from_str::<Value>(cell).is_ok_and(|cell| cell == *other),
    }
}

pub fn hold(bytes: &[u8]) {
    // Rows are JSON without space around it by the time they get here, and read by this reader too.
    let rows: Vec<Bytes> = bytes
        .split(|b| *b == b'\n')
        .filter(|row| serde_json::from_slice::<Value>(row).is_ok())
        .filter_map(|row| serde_json::from_slice::<&RawValue>(row).ok())
        .map(|row| Bytes::copy_from_slice(row.get().as_bytes()))
        .collect();
    let lines = CsvLines::new(&rows[..rows.len() / 2], false);
    let mut text = lines.head().to_vec();
    text.extend_from_slice(&lines.write(&rows).expect("memory"));
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(&*text);
    let records: Vec<_> = reader
        .records()
        .map(|record| record.expect("CSV"))
        .collect();
    assert_eq!(
        records.len(),
        rows.len() + 1,
        "one line a row, and the head"
    );
    for cell in records.iter().flatten() {
        assert!(!cell.starts_with(FORMULA) || is_number(cell), "{cell:?}");
    }
    let head = &records[0];
    for (row, record) in rows.iter().zip(&records[1..]) {
        assert_eq!(record.len(), head.len());
        let value: Value = serde_json::from_slice(row).unwrap();
        let more = &record[record.len() - 1];
        let Value::Object(members) = value else {
            assert_eq!(more.as_bytes(), &row[..]);
            continue;
        };
        for (name, value) in &members {
            // Two members may share a heading: a guarded one's stands for the other's own name.
            let mut named = head.iter().zip(record).take(head.len() - 1);
            let kept = named.any(|(column, cell)| {
                let is_named = column == name || column.strip_prefix('\'') == Some(name);
                is_named && shown(value, cell)
            });
            assert!(kept || more.contains(':'), "{name:?} of {row:?} is lost");
        }
    }
}
