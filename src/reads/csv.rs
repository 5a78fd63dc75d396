//! Rows as CSV: stable columns, nested values as JSON, formula cells guarded.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::domain::json::{Members, write_text};

/// Maximum number of columns. Further members go to `_more`. Spreadsheets accept 16,384.
const COLUMNS_MAX: usize = 512;
const MORE: &str = "_more";
/// The columns if there is no row to take them from: the members that wiv documents.
const DOCUMENTED: [&str; 4] = ["case_id", "customer_id", "customer_name", "case_type"];
/// Marks the text as UTF-8 for spreadsheets.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Writes rows under one set of columns.
pub struct CsvLines {
    columns: Vec<String>,
    places: HashMap<String, usize>,
    bom: bool,
}

impl CsvLines {
    /// Creates a writer. The columns are the members of these rows in order of appearance, then
    /// `_more`. Without a row they are the documented ones. With `bom`, the text begins with a byte
    /// order mark.
    pub fn new(rows: &[Bytes], bom: bool) -> Self {
        let mut this = Self {
            columns: Vec::new(),
            places: HashMap::new(),
            bom,
        };
        for row in rows {
            let Ok(Members(members)) = serde_json::from_slice(row) else {
                continue;
            };
            for (name, _) in members {
                let known = this.places.contains_key(&*name);
                if !known && name != MORE && this.columns.len() < COLUMNS_MAX {
                    this.places.insert(name.to_string(), this.columns.len());
                    this.columns.push(name.into_owned());
                }
            }
        }
        if this.columns.is_empty() {
            let names = DOCUMENTED.iter().enumerate();
            this.places = names.map(|(at, name)| ((*name).to_owned(), at)).collect();
            this.columns = DOCUMENTED.map(str::to_owned).to_vec();
        }
        this
    }

    /// Returns the header line.
    pub fn head(&self) -> Bytes {
        let start = if self.bom { BYTE_ORDER_MARK } else { &[] };
        let mut writer = csv::Writer::from_writer(start.to_vec());
        let names = self.columns.iter().map(|name| guarded(name, false));
        // Writing to memory cannot fail.
        let _ = writer.write_record(names.chain([MORE.to_owned()]));
        writer.into_inner().unwrap_or_default().into()
    }

    /// Returns the lines of rows. `None` only if writing to memory fails.
    pub fn write(&self, rows: &[Bytes]) -> Option<Bytes> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.write_record(self.cells(row)).ok()?;
        }
        writer.into_inner().ok().map(Bytes::from)
    }

    fn cells(&self, row: &[u8]) -> Vec<String> {
        let mut cells = vec![String::new(); self.columns.len() + 1];
        let Ok(Members(members)) = serde_json::from_slice(row) else {
            // A row that is not an object has no columns. All of it goes to `_more`.
            if let Some(more) = cells.last_mut() {
                *more = String::from_utf8_lossy(row).into_owned();
            }
            return cells;
        };
        let mut more = String::new();
        for (name, raw) in members {
            let place = self
                .places
                .get(&*name)
                .and_then(|place| cells.get_mut(*place));
            match place {
                Some(cell) if cell.is_empty() => *cell = text(raw),
                _ => {
                    more.push(if more.is_empty() { '{' } else { ',' });
                    write_text(&name, &mut more);
                    more.push(':');
                    more.push_str(raw.get());
                }
            }
        }
        if !more.is_empty() {
            more.push('}');
        }
        if let Some(last) = cells.last_mut() {
            *last = more;
        }
        cells
    }
}

/// Returns the cell of a value: decoded text, the digits of a number, nothing for null, JSON for
/// the rest.
fn text(raw: &RawValue) -> String {
    let raw = raw.get();
    match raw.as_bytes().first() {
        Some(b'"') => {
            let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
            guarded(&text, false)
        }
        Some(b'n') => String::new(),
        Some(b'-' | b'0'..=b'9') => guarded(raw, true),
        _ => raw.to_owned(),
    }
}

/// Puts a quote before a cell that begins like a formula, because spreadsheets would run it.
fn guarded(text: &str, number: bool) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula && !number && !is_plain_number(text) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn is_plain_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all(whole) && all(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(columns_of: &[&str], rows: &[&str]) -> String {
        let bytes = |rows: &[&str]| -> Vec<Bytes> {
            rows.iter()
                .map(|row| Bytes::copy_from_slice(row.as_bytes()))
                .collect()
        };
        let lines = CsvLines::new(&bytes(columns_of), false);
        let mut out = lines.head().to_vec();
        out.extend_from_slice(&lines.write(&bytes(rows)).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_stable_and_nothing_is_lost() {
        let first = [r#"{"b":1,"a":"x"}"#, r#"{"c":[1, 2]}"#];
        let text = lines(
            &first,
            &[
                first[0],
                first[1],
                r#"{"a":"q\"u,o","d":1.50,"e":{"f":null}}"#,
                "7",
            ],
        );
        assert_eq!(
            text,
            "b,a,c,_more\n1,x,,\n,,\"[1, 2]\",\n,\"q\"\"u,o\",,\"{\"\"d\"\":1.50,\"\"e\"\":{\"\"f\"\":null}}\"\n,,,7\n"
        );
    }

    #[test]
    fn an_empty_search_has_the_documented_columns_and_a_mark_comes_first() {
        let head = "case_id,customer_id,customer_name,case_type,_more\n";
        assert_eq!(lines(&[], &[]), head);
        // Later rows fill these columns.
        let row = r#"{"case_type":"t","case_id":"c","x":1}"#;
        assert_eq!(
            lines(&[], &[row]),
            format!("{head}c,,,t,\"{{\"\"x\"\":1}}\"\n")
        );
        let marked = CsvLines::new(&[], true).head();
        assert_eq!(marked, format!("\u{feff}{head}"));
    }

    #[test]
    fn formulas_are_guarded_and_numbers_are_not() {
        let row = r#"{"a":"=1+1","b":"+cmd","c":"-2.5","d":-12345678901234567890.10,"e":"@x","f":"\tx","g":"-x","h":null,"i":true}"#;
        let text = lines(&[row], &[row]);
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "'=1+1,'+cmd,-2.5,-12345678901234567890.10,'@x,'\tx,'-x,,true,"
        );
    }
}
