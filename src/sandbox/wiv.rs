//! The simulated wiv: the customer list and the case search.

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use jiff::civil::Date;
use serde_json::Value;

use super::Sandbox;
use super::answer::SimAnswer;
use super::counts::Watch;
use super::faults::Plan;
use super::http::query_value;
use super::json::{Style, array, object, plain};
use super::options::{CustomersEnvelope, ExpiredAnswer, PageCap, SimOperation, SimVendor, WIV_KEY};
use super::recorder::key_state;
use super::rows::FIELDS;
use super::scroll::Page;
use super::world::Filter;
use crate::clock::{Duration, Instant};

/// Page size of a search without one.
const PAGE_ROWS_DEFAULT: usize = 250;
/// Maximum page size.
const PAGE_ROWS_MAX: u64 = 500;

/// A request as wiv parses it.
#[derive(Debug)]
pub(super) enum WivCall {
    /// The customer list, with the text of `fields`.
    Customers(Option<String>),
    /// A search that opens a scroll.
    Search { filter: Box<Filter>, size: usize },
    /// The next page of a scroll.
    Continue(String),
    /// A search with a wrong body, and the error text.
    Refused(&'static str),
    /// A request that wiv does not know.
    Unlisted,
}

/// An answer that may still change until it is due.
#[derive(Debug)]
pub(super) enum Draft {
    Ready(SimAnswer),
    Page(Box<Page>),
}

impl WivCall {
    /// Parses a request.
    pub(super) fn read(sandbox: &Sandbox, parts: &Parts, body: &Bytes) -> Self {
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/msp/customers") => {
                Self::Customers(query_value(parts.uri.query(), "fields"))
            }
            (&Method::POST, "/v2/cases/msp/search") => {
                let customer = query_value(parts.uri.query(), "customer_id");
                search(customer, body, sandbox.options.page_cap).unwrap_or_else(Self::Refused)
            }
            _ => Self::Unlisted,
        }
    }

    /// Returns the operation.
    pub(super) fn operation(&self) -> SimOperation {
        match self {
            Self::Customers(_) => SimOperation::Customers,
            Self::Search { .. } | Self::Refused(_) => SimOperation::Search,
            Self::Continue(_) => SimOperation::Continue,
            Self::Unlisted => SimOperation::Other,
        }
    }

    /// Returns the refusal of a request, if it is refused.
    pub(super) fn refusal(&self, parts: &Parts) -> Option<SimAnswer> {
        if matches!(self, Self::Unlisted) {
            return Some(error(404, "Not found"));
        }
        (key_state(parts, WIV_KEY) != "correct").then(|| error(401, "Authentication required"))
    }

    /// Processes a request. Scrolls move now, although the answer is due in `latency`.
    pub(super) fn process(
        self,
        sandbox: &Sandbox,
        plan: &Plan,
        now: Instant,
        latency: Duration,
    ) -> Draft {
        Draft::Ready(match self {
            Self::Customers(fields) => customers(sandbox, fields.as_deref()),
            Self::Search { filter, size } => {
                let selection = sandbox.world.select(&filter);
                match sandbox.scrolls.open(selection, size, now, plan.twists) {
                    Some(page) => return Draft::Page(Box::new(page)),
                    None => error(500, "Internal server error"),
                }
            }
            Self::Continue(id) => {
                if plan.scroll_expired {
                    sandbox.scrolls.expire_one(&id);
                }
                match sandbox.scrolls.next(&id, now, latency, plan.twists) {
                    Some(page) => return Draft::Page(Box::new(page)),
                    None => match sandbox.options.expired_answer {
                        ExpiredAnswer::NotFound => error(404, "Scroll not found"),
                        ExpiredAnswer::InternalError => error(500, "Internal server error"),
                    },
                }
            }
            Self::Refused(text) => error(400, text),
            Self::Unlisted => error(404, "Not found"),
        })
    }
}

impl Draft {
    /// Returns the answer when it is due. A page holds its scroll until `watch` ends.
    pub(super) fn finish(self, sandbox: &Sandbox, watch: &mut Watch) -> SimAnswer {
        let page = match self {
            Self::Ready(answer) => return answer,
            Self::Page(page) => page,
        };
        let rows = page.rows();
        let texts: Vec<&str> = rows.iter().map(|row| sandbox.world.text(row)).collect();
        let next = match &page.cursor {
            None => "null".to_owned(),
            Some(id) => format!("{{\"scroll_id\":{}}}", plain(id)),
        };
        let total = if sandbox.options.envelope_total {
            format!(",\"total\":{}", page.total)
        } else {
            String::new()
        };
        let text = format!(
            "{{\"data\":{},\"next_page_key\":{next}{total}}}",
            array(&texts)
        );
        watch.hold(page.into_claim());
        SimAnswer::json(200, text)
    }
}

fn error(status: u16, text: &str) -> SimAnswer {
    SimAnswer::error(SimVendor::Wiv, status, text)
}

fn customers(sandbox: &Sandbox, fields: Option<&str>) -> SimAnswer {
    let wanted = match fields.map(selected).transpose() {
        Ok(wanted) => wanted,
        Err(()) => return error(400, "Invalid fields requested"),
    };
    let rows: Vec<String> = sandbox
        .world
        .customers()
        .iter()
        .map(|customer| match &wanted {
            None => object(&customer.members, Style::default()),
            Some(wanted) => {
                let kept: Vec<&(&str, String)> = customer
                    .members
                    .iter()
                    .filter(|(name, _)| wanted.contains(name))
                    .collect();
                object(
                    &kept
                        .iter()
                        .map(|(name, text)| (*name, text.as_str()))
                        .collect::<Vec<_>>(),
                    Style::default(),
                )
            }
        })
        .collect();
    match sandbox.options.customers_envelope {
        CustomersEnvelope::Bare => SimAnswer::json(200, array(&rows)),
        CustomersEnvelope::Data => SimAnswer::json(200, format!("{{\"data\":{}}}", array(&rows))),
    }
}

/// Returns the members that the field names in `fields` select.
fn selected(fields: &str) -> Result<Vec<&'static str>, ()> {
    let member = |field| {
        FIELDS
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, member)| *member)
            .ok_or(())
    };
    fields.split(',').map(member).collect()
}

/// Parses the body of a search. Unknown members are ignored. Of a continuation only the id counts:
/// the first request has set everything else.
fn search(customer_id: Option<String>, body: &[u8], cap: PageCap) -> Result<WivCall, &'static str> {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return Err("Request body must be a dictionary");
    };
    match body.get("start_page_key") {
        None | Some(Value::Null) => {}
        Some(key) => {
            let id = key
                .get("scroll_id")
                .and_then(Value::as_str)
                .ok_or("Invalid start_page_key")?;
            return Ok(WivCall::Continue(id.to_owned()));
        }
    }
    let size = match body.get("max_returned_items") {
        None => PAGE_ROWS_DEFAULT,
        Some(size) => match (size.as_u64(), cap) {
            (None | Some(0), _) => return Err("Invalid max_returned_items"),
            (Some(size), PageCap::Refuse) if size > PAGE_ROWS_MAX => {
                return Err("max_returned_items must not exceed 500");
            }
            (Some(size), _) => {
                usize::try_from(size.min(PAGE_ROWS_MAX)).unwrap_or(PAGE_ROWS_DEFAULT)
            }
        },
    };
    let range = match body.get("date_range") {
        None => None,
        Some(range) => match (
            range.get("start").and_then(day),
            range.get("end").and_then(day),
        ) {
            (Some(start), Some(end)) if start <= end => Some((start, end)),
            _ => return Err("Invalid date_range"),
        },
    };
    let text = |member: &str| body.get(member).and_then(Value::as_str).map(str::to_owned);
    let filter = Filter {
        // As in the vendor's language, an empty text counts as absent, so it selects everything.
        customer_id: customer_id.filter(|id| !id.is_empty()),
        range,
        case_type: text("case_type"),
        status: text("status"),
    };
    Ok(WivCall::Search {
        filter: Box::new(filter),
        size,
    })
}

fn day(value: &Value) -> Option<Date> {
    strict_day(value.as_str()?)
}

/// Parses a date in the spelling `YYYY-MM-DD` and no other.
pub(super) fn strict_day(text: &str) -> Option<Date> {
    let date: Date = text.parse().ok()?;
    (date.to_string() == text).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, cap: PageCap) -> &'static str {
        search(None, body.as_bytes(), cap).unwrap_err()
    }

    #[test]
    fn bodies_that_are_refused() {
        for body in ["", "[]", "null", "1", "{", "\"{}\"", "{} {}"] {
            assert_eq!(
                refused(body, PageCap::Clamp),
                "Request body must be a dictionary",
                "{body}"
            );
        }
        for size in ["0", "-1", "2.5", "\"25\"", "null", "1e400"] {
            let body = format!("{{\"max_returned_items\":{size}}}");
            assert!(
                search(None, body.as_bytes(), PageCap::Clamp).is_err(),
                "{size}"
            );
        }
        for range in [
            "null",
            "{}",
            r#"{"start":"2026-01-01"}"#,
            r#"{"start":"2026-01-02","end":"2026-01-01"}"#,
            r#"{"start":"20260101","end":"2026-01-02"}"#,
            r#"{"start":"2026-02-30","end":"2026-03-02"}"#,
            r#"{"start":"2026-01-01T00:00:00","end":"2026-03-02"}"#,
        ] {
            assert_eq!(
                refused(&format!("{{\"date_range\":{range}}}"), PageCap::Clamp),
                "Invalid date_range",
                "{range}"
            );
        }
        for start in ["{}", "\"x\"", r#"{"scroll_id":null}"#] {
            let body = format!("{{\"start_page_key\":{start}}}");
            assert_eq!(
                refused(&body, PageCap::Clamp),
                "Invalid start_page_key",
                "{start}"
            );
        }
        assert!(refused(r#"{"max_returned_items":501}"#, PageCap::Refuse).contains("500"));
    }

    #[test]
    fn bodies_that_are_read() {
        let size = |body: &str, cap| match search(None, body.as_bytes(), cap).unwrap() {
            WivCall::Search { size, .. } => size,
            other => panic!("{other:?}"),
        };
        assert_eq!(size("{}", PageCap::Refuse), 250);
        assert_eq!(size(r#"{"max_returned_items":500}"#, PageCap::Refuse), 500);
        assert_eq!(
            size(r#"{"max_returned_items":9999,"other":1}"#, PageCap::Clamp),
            500
        );
        let body =
            br#"{"date_range":5,"max_returned_items":-1,"start_page_key":{"scroll_id":"x"}}"#;
        assert!(
            matches!(search(None, body, PageCap::Refuse), Ok(WivCall::Continue(id)) if id == "x")
        );
        let body = br#"{"date_range":{"start":"2026-01-01","end":"2026-01-01"},"status":"To Do","start_page_key":null}"#;
        let Ok(WivCall::Search { filter, .. }) =
            search(Some("org_1".into()), body, PageCap::Refuse)
        else {
            panic!()
        };
        assert_eq!(
            (filter.customer_id.as_deref(), filter.status.as_deref()),
            (Some("org_1"), Some("To Do"))
        );
        assert!(filter.range.is_some());
    }
}
