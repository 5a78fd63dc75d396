//! Faults as JSON, for `POST /__sandbox/faults`.
//!
//! One fault, a list of them, or a switch:
//!
//! ```json
//! {"operation":"continue","kind":"status","status":503,"retry_after":5,"times":1,"after":2}
//! [{"kind":"latency","ms":200,"probability":0.1},{"operation":"search","kind":"drop_after","times":1}]
//! {"vendor":"nable","down":true}
//! {"clear":true}
//! ```
//!
//! `operation` is `any` (the default), `customers`, `search`, `continue`, `billing`, `invoices` or
//! `usage`. `times`, `probability` and `after` go with every kind; the other members by kind:
//!
//! | kind | members |
//! |---|---|
//! | `latency` | `ms` |
//! | `status` | `status`, and if wanted `body` (text, or any other JSON as it stands), `retry_after`, `processed` |
//! | `cut_body` | `at` |
//! | `stall_body` | `ms` |
//! | `wrong_content_type` | `content_type` |
//! | `html_error` | `status` |
//! | `redirect` | `location`, `status` |
//! | `insert` | `count` |
//! | `huge_body` | `bytes`, `chunked` |
//! | `drop_before` `drop_after` `malformed_json` `truncated_rows` `scroll_expired` `empty_page_with_cursor` `repeat_page` `endless` `duplicate_row` `short_page` `oversize` | none |
//!
//! A list is taken whole or not at all. A member that is unknown or does not go with its kind is
//! refused.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::faults::{FaultKind, PADDING_BYTES_MAX, SimFault, Target, WAIT_MS_MAX};
use super::options::{SimOperation, SimVendor};

/// Maximum number of cases that one fault may insert.
pub(super) const INSERT_MAX: usize = 10_000;

/// One command in the body of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Switch {
    /// Removes all faults and brings both vendors up.
    Clear,
    /// Makes a vendor close every connection, or stop doing so.
    Down(SimVendor, bool),
    /// Adds a fault.
    Add(Box<SimFault>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    operation: Option<String>,
    kind: Option<String>,
    times: Option<u64>,
    probability: Option<f64>,
    after: Option<u64>,
    ms: Option<u64>,
    status: Option<u16>,
    body: Option<Box<RawValue>>,
    retry_after: Option<serde_json::Value>,
    processed: Option<bool>,
    at: Option<usize>,
    content_type: Option<String>,
    location: Option<String>,
    count: Option<usize>,
    bytes: Option<u64>,
    chunked: Option<bool>,
    vendor: Option<String>,
    down: Option<bool>,
    clear: Option<bool>,
}

/// Parses the body of a request.
///
/// # Errors
/// Returns what is wrong with it, as a sentence.
pub(super) fn read(body: &[u8]) -> Result<Vec<Switch>, String> {
    let list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let raws: Vec<Raw> = if list {
        serde_json::from_slice(body).map_err(|error| error.to_string())?
    } else {
        vec![serde_json::from_slice(body).map_err(|error| error.to_string())?]
    };
    raws.into_iter().map(switch).collect()
}

fn switch(mut raw: Raw) -> Result<Switch, String> {
    let made = if let Some(clear) = raw.clear.take() {
        if !clear {
            return Err("`clear` can only be true".to_owned());
        }
        Switch::Clear
    } else if let Some(down) = raw.down.take() {
        let vendor = match raw.vendor.take().as_deref() {
            Some("wiv") => SimVendor::Wiv,
            Some("nable") => SimVendor::Nable,
            _ => return Err("`down` needs `vendor`: wiv or nable".to_owned()),
        };
        Switch::Down(vendor, down)
    } else {
        let target = target(raw.operation.take().as_deref().unwrap_or("any"))?;
        let probability = raw.probability.take();
        if probability.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return Err("`probability` goes from 0 to 1".to_owned());
        }
        let (times, after) = (raw.times.take(), raw.after.take().unwrap_or(0));
        let kind = kind(&mut raw)?;
        Switch::Add(Box::new(SimFault {
            target,
            kind,
            times,
            probability,
            after,
        }))
    };
    match left_over(&raw) {
        None => Ok(made),
        Some(member) => Err(format!("`{member}` does not go with this kind of fault")),
    }
}

fn target(word: &str) -> Result<Target, String> {
    if word == "any" {
        return Ok(Target::Any);
    }
    SimOperation::ALL
        .into_iter()
        .find(|operation| operation.as_str() == word && *operation != SimOperation::Other)
        .map(Target::Only)
        .ok_or_else(|| {
            "`operation` is any, customers, search, continue, billing, invoices or usage".to_owned()
        })
}

fn kind(raw: &mut Raw) -> Result<FaultKind, String> {
    let word = raw.kind.take().ok_or("`kind` is missing")?;
    Ok(match word.as_str() {
        "latency" => FaultKind::Latency {
            ms: needed(wait(raw.ms.take())?, "ms")?,
        },
        "status" => FaultKind::Status {
            status: status(needed(raw.status.take(), "status")?)?,
            body: raw.body.take().map(|body| text(&body)),
            retry_after: raw.retry_after.take().map(retry_after).transpose()?,
            processed: raw.processed.take().unwrap_or(false),
        },
        "drop_before" => FaultKind::DropBefore,
        "drop_after" => FaultKind::DropAfter,
        "cut_body" => FaultKind::CutBody { at: raw.at.take() },
        "stall_body" => FaultKind::StallBody {
            ms: wait(raw.ms.take())?,
        },
        "malformed_json" => FaultKind::MalformedJson,
        "truncated_rows" => FaultKind::TruncatedRows,
        "wrong_content_type" => {
            let content_type = raw
                .content_type
                .take()
                .unwrap_or_else(|| "text/html".to_owned());
            FaultKind::WrongContentType {
                content_type: header(content_type, "content_type")?,
            }
        }
        "html_error" => FaultKind::HtmlError {
            status: status(raw.status.take().unwrap_or(502))?,
        },
        "redirect" => {
            let status = raw.status.take().unwrap_or(302);
            if ![301, 302, 303, 307, 308].contains(&status) {
                return Err("a redirect's `status` is 301, 302, 303, 307 or 308".to_owned());
            }
            FaultKind::Redirect {
                status,
                location: header(needed(raw.location.take(), "location")?, "location")?,
            }
        }
        "scroll_expired" => FaultKind::ScrollExpired,
        "insert" => match needed(raw.count.take(), "count")? {
            count @ 0..=INSERT_MAX => FaultKind::Insert { count },
            _ => return Err(format!("`count` goes up to {INSERT_MAX}")),
        },
        "empty_page_with_cursor" => FaultKind::EmptyPageWithCursor,
        "repeat_page" => FaultKind::RepeatPage,
        "endless" => FaultKind::Endless,
        "duplicate_row" => FaultKind::DuplicateRow,
        "short_page" => FaultKind::ShortPage,
        "oversize" => FaultKind::Oversize,
        "huge_body" => match needed(raw.bytes.take(), "bytes")? {
            bytes @ 0..=PADDING_BYTES_MAX => FaultKind::HugeBody {
                bytes,
                chunked: raw.chunked.take().unwrap_or(false),
            },
            _ => return Err(format!("`bytes` goes up to {PADDING_BYTES_MAX}")),
        },
        _ => return Err("`kind` is unknown".to_owned()),
    })
}

fn needed<T>(value: Option<T>, member: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("`{member}` is missing"))
}

fn wait(ms: Option<u64>) -> Result<Option<u64>, String> {
    match ms {
        Some(ms) if ms > WAIT_MS_MAX => Err(format!("`ms` goes up to {WAIT_MS_MAX}")),
        ms => Ok(ms),
    }
}

fn status(status: u16) -> Result<u16, String> {
    match status {
        // A 1xx is not a final answer: the connection would break instead.
        200..=599 => Ok(status),
        _ => Err("`status` goes from 200 to 599".to_owned()),
    }
}

fn header(value: String, member: &str) -> Result<String, String> {
    match http::HeaderValue::from_str(&value) {
        Ok(_) => Ok(value),
        Err(_) => Err(format!("`{member}` cannot stand in a header")),
    }
}

/// Returns the body text: the content of a JSON string, and any other JSON as it is.
fn text(body: &RawValue) -> String {
    serde_json::from_str(body.get()).unwrap_or_else(|_| body.get().to_owned())
}

fn retry_after(value: serde_json::Value) -> Result<String, String> {
    match value {
        serde_json::Value::String(text) => header(text, "retry_after"),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        _ => Err("`retry_after` is a number or a text".to_owned()),
    }
}

/// Returns a member that does not belong to the fault's kind.
fn left_over(raw: &Raw) -> Option<&'static str> {
    let Raw {
        operation,
        kind,
        times,
        probability,
        after,
        ms,
        status,
        body,
        retry_after,
        processed,
        at,
        content_type,
        location,
        count,
        bytes,
        chunked,
        vendor,
        down,
        clear,
    } = raw;
    [
        (operation.is_some(), "operation"),
        (kind.is_some(), "kind"),
        (times.is_some(), "times"),
        (probability.is_some(), "probability"),
        (after.is_some(), "after"),
        (ms.is_some(), "ms"),
        (status.is_some(), "status"),
        (body.is_some(), "body"),
        (retry_after.is_some(), "retry_after"),
        (processed.is_some(), "processed"),
        (at.is_some(), "at"),
        (content_type.is_some(), "content_type"),
        (location.is_some(), "location"),
        (count.is_some(), "count"),
        (bytes.is_some(), "bytes"),
        (chunked.is_some(), "chunked"),
        (vendor.is_some(), "vendor"),
        (down.is_some(), "down"),
        (clear.is_some(), "clear"),
    ]
    .into_iter()
    .find_map(|(left, member)| left.then_some(member))
}

#[cfg(test)]
#[path = "fault_json_tests.rs"]
mod tests;
