//! The control routes under `/__sandbox`. They need no key, are not counted, and never fail.
//!
//! | route | answer |
//! |---|---|
//! | `GET /__sandbox/counts` | [`Counts`](super::Counts): `{"operations":{"search":{"requests","answered","by_status":{"200":1}},…},"vendors":{"wiv":{"in_flight","in_flight_peak","closed_while_down"},…},"scrolls":{"open","peak_open","opened","ended","expired"},"scroll_overlaps"}` |
//! | `GET /__sandbox/requests` | the last 1,000 requests, oldest first: a list of [`Recorded`](super::Recorded) |
//! | `GET /__sandbox/cases?customer_id=&start=&end=` | the exact rows that a search finds now, as one array in the vendor's order; the dates (both or none) are inside |
//! | `POST /__sandbox/faults` | one fault, a list, `{"vendor":…,"down":…}` or `{"clear":true}`, as `fault_json.rs` says; answers `{"faults":n}`, the number active. Clearing brings the vendors up, too |
//! | `POST /__sandbox/insert` | `{"count":n,"customer_id":optional,"date":optional}`; answers `{"inserted":n}` |
//! | `POST /__sandbox/alter` | `{"changed":n,"removed":n,"moved":n}`, each optional: this many cases, drawn at random, get another status, are removed, or move to another place in the list; answers `{"altered":true}` |
//! | `POST /__sandbox/expire` | ends all open scrolls; answers `{"expired":n}` |
//! | `POST /__sandbox/reset` | forgets counts, requests, faults, scrolls, inserted cases and used quota; answers `{"reset":true}` |
//!
//! Errors are `{"error":"…"}`: 400 for a wrong body or parameter, 404, 405, 413.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use serde::{Deserialize, Serialize};

use super::Sandbox;
use super::answer::{SimAnswer, SimBody};
use super::fault_json::{self, INSERT_MAX, Switch};
use super::http::query_value;
use super::options::SimVendor;
use super::wiv::strict_day;
use super::world::Filter;

/// Number of rows in one chunk of `GET /__sandbox/cases`.
const CASES_CHUNK: usize = 200;

/// Path prefix of these routes.
const PREFIX: &str = "/__sandbox/";

/// Returns whether `path` is one of these routes.
pub(super) fn is_control(path: &str) -> bool {
    path == "/__sandbox" || path.starts_with(PREFIX)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Insert {
    count: usize,
    customer_id: Option<String>,
    date: Option<String>,
}

/// Answers a control request. `None` for the body means that it is too large.
pub(super) fn answer(sandbox: &Sandbox, parts: &Parts, body: Option<&[u8]>) -> Response<SimBody> {
    let route = parts.uri.path().strip_prefix(PREFIX).unwrap_or("");
    let wanted = match route {
        "counts" | "requests" | "cases" => Method::GET,
        "faults" | "insert" | "alter" | "expire" | "reset" => Method::POST,
        _ => return plain(sandbox, refuse(404, "no such control route")),
    };
    if parts.method != wanted {
        return plain(
            sandbox,
            refuse(405, "another method").with("allow", wanted.to_string()),
        );
    }
    let Some(body) = body else {
        return plain(sandbox, refuse(413, "the body is too large"));
    };
    let answer = match route {
        "counts" => serialized(&sandbox.counts()),
        "requests" => serialized(&sandbox.requests()),
        "cases" => match filter(parts.uri.query()) {
            Ok(filter) => return cases(sandbox, &filter),
            Err(text) => refuse(400, text),
        },
        "faults" => faults(sandbox, body),
        "insert" => insert(sandbox, body),
        "alter" => alter(sandbox, body),
        "expire" => SimAnswer::json(200, format!("{{\"expired\":{}}}", sandbox.expire_scrolls())),
        _ => {
            sandbox.reset();
            SimAnswer::json(200, "{\"reset\":true}")
        }
    };
    plain(sandbox, answer)
}

fn plain(sandbox: &Sandbox, answer: SimAnswer) -> Response<SimBody> {
    answer.into_response(sandbox.http_date(0), None)
}

fn refuse(status: u16, text: &str) -> SimAnswer {
    SimAnswer::error(SimVendor::Wiv, status, text)
}

fn serialized<T: Serialize>(value: &T) -> SimAnswer {
    match serde_json::to_vec(value) {
        Ok(text) => SimAnswer::json(200, text),
        Err(error) => refuse(500, &error.to_string()),
    }
}

fn filter(query: Option<&str>) -> Result<Filter, &'static str> {
    let value = |name| query_value(query, name).filter(|value| !value.is_empty());
    let range = match (value("start"), value("end")) {
        (None, None) => None,
        (Some(start), Some(end)) => match (strict_day(&start), strict_day(&end)) {
            (Some(start), Some(end)) => Some((start, end)),
            _ => return Err("`start` and `end` are dates: YYYY-MM-DD"),
        },
        _ => return Err("`start` and `end` go together"),
    };
    Ok(Filter {
        customer_id: value("customer_id"),
        range,
        ..Filter::default()
    })
}

/// Streams all rows of `filter`.
fn cases(sandbox: &Sandbox, filter: &Filter) -> Response<SimBody> {
    let world = std::sync::Arc::clone(&sandbox.world);
    let selection = world.select(filter);
    let mut position = 0;
    let mut closed = false;
    let chunks = move || {
        if closed {
            return None;
        }
        let rows = selection.rows(position, CASES_CHUNK);
        let mut chunk = String::new();
        for row in &rows {
            chunk.push(if position == 0 { '[' } else { ',' });
            chunk.push_str(world.text(row));
            position += 1;
        }
        if position == selection.len() {
            closed = true;
            chunk.push_str(if position == 0 { "[]" } else { "]" });
        }
        Some(Bytes::from(chunk))
    };
    let mut response = Response::new(SimBody::pull(chunks));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn faults(sandbox: &Sandbox, body: &[u8]) -> SimAnswer {
    let switches = match fault_json::read(body) {
        Ok(switches) => switches,
        Err(text) => return refuse(400, &text),
    };
    match sandbox.switch(switches) {
        Ok(active) => SimAnswer::json(200, format!("{{\"faults\":{active}}}")),
        Err(text) => refuse(400, text),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alter {
    #[serde(default)]
    changed: usize,
    #[serde(default)]
    removed: usize,
    #[serde(default)]
    moved: usize,
}

fn alter(sandbox: &Sandbox, body: &[u8]) -> SimAnswer {
    let alter: Alter = match serde_json::from_slice(body) {
        Ok(alter) => alter,
        Err(error) => return refuse(400, &error.to_string()),
    };
    let Alter {
        changed,
        removed,
        moved,
    } = alter;
    if [changed, removed, moved]
        .iter()
        .any(|count| *count > INSERT_MAX)
    {
        return refuse(400, &format!("each goes up to {INSERT_MAX}"));
    }
    sandbox.alter(changed, removed, moved);
    SimAnswer::json(200, "{\"altered\":true}")
}

fn insert(sandbox: &Sandbox, body: &[u8]) -> SimAnswer {
    let insert: Insert = match serde_json::from_slice(body) {
        Ok(insert) => insert,
        Err(error) => return refuse(400, &error.to_string()),
    };
    if insert.count > INSERT_MAX {
        return refuse(400, &format!("`count` goes up to {INSERT_MAX}"));
    }
    let date = match insert.date.as_deref().map(strict_day) {
        None => None,
        Some(Some(date)) => Some(date),
        Some(None) => return refuse(400, "`date` is a date: YYYY-MM-DD"),
    };
    match sandbox.insert(insert.count, insert.customer_id.as_deref(), date) {
        Some(inserted) => SimAnswer::json(200, format!("{{\"inserted\":{inserted}}}")),
        None => refuse(400, "`customer_id` is no customer"),
    }
}

impl Sandbox {
    /// Applies `switches` in order. The new faults come last. If there would be too many of them,
    /// none is added.
    fn switch(&self, switches: Vec<Switch>) -> Result<usize, &'static str> {
        let mut fresh = Vec::new();
        for switch in switches {
            match switch {
                Switch::Clear => {
                    fresh.clear();
                    self.clear_faults();
                }
                Switch::Down(vendor, down) => self.set_down(vendor, down),
                Switch::Add(fault) => fresh.push(*fault),
            }
        }
        self.faults.add(fresh)
    }
}
