//! The meaning of a case search, read from a request body.

use std::fmt;

use super::ids::CustomerId;
use super::json::{self, JsonProblem, Object, Value, quoted};
use super::period::{DateRange, parse_day};

/// How many cases a page holds: `max_returned_items`, 1 to 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageSize(u16);

impl PageSize {
    /// The page size that the vendor documents for an absent `max_returned_items`.
    pub const DEFAULT: Self = Self(250);
    /// The largest page. The vendor advises it for batch work.
    pub const MAX: Self = Self(500);

    /// Creates a page size. `None` outside 1..=500.
    pub fn new(items: u64) -> Option<Self> {
        let items = u16::try_from(items).ok()?;
        (1..=Self::MAX.0).contains(&items).then_some(Self(items))
    }

    /// Returns the number of cases.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// Returns the number as a page token contains it.
    pub fn to_u16(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for PageSize {
    type Error = ();

    fn try_from(items: u64) -> Result<Self, ()> {
        Self::new(items).ok_or(())
    }
}

impl From<PageSize> for u64 {
    fn from(size: PageSize) -> Self {
        size.0.into()
    }
}

/// A search without its paging: the question that one walk at the vendor answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct SearchQuery {
    /// `customer_id` of the query string.
    pub customer: Option<CustomerId>,
    /// `date_range` of the body.
    pub range: Option<DateRange>,
    /// Every other top-level member of the body, undocumented filters among them.
    pub extra: Object,
}

impl SearchQuery {
    /// Returns the range and the other members as one canonical JSON object, which
    /// [`SearchRequest::parse`] reads. The customer is not part of it.
    pub fn body_text(&self) -> String {
        let mut out = String::from("{");
        if let Some(range) = self.range {
            let (start, end) = (range.start(), range.end());
            out = format!("{{\"date_range\":{{\"start\":\"{start}\",\"end\":\"{end}\"}}");
            if !self.extra.is_empty() {
                out.push(',');
            }
        }
        json::write_members(&self.extra, &mut out);
        out.push('}');
        out
    }

    /// Returns the members of `extra` as one canonical JSON object.
    pub fn extra_text(&self) -> String {
        let mut out = String::from("{");
        json::write_members(&self.extra, &mut out);
        out.push('}');
        out
    }

    /// Reads what [`Self::extra_text`] wrote.
    pub fn read_extra(text: &str) -> Option<Object> {
        json::parse_object(text.as_bytes()).ok()
    }

    /// Returns the same search for all customers.
    pub fn for_all_customers(&self) -> Self {
        Self {
            customer: None,
            range: self.range,
            extra: self.extra.clone(),
        }
    }
}

/// A parsed search body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// The search. On a continuation: the parts of the search that the caller repeated.
    pub query: SearchQuery,
    /// `max_returned_items`, if it was sent.
    pub page_size: Option<PageSize>,
    /// `start_page_key.scroll_id`: the page token of a continuation.
    pub page_token: Option<String>,
}

/// Why a search body was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyProblem {
    /// Nothing was sent.
    Empty,
    /// Not a JSON object, or an ambiguous one.
    Json(JsonProblem),
    /// A documented member has the wrong form. Names the member and what would be right.
    Member(&'static str, &'static str),
    /// A member inside `date_range` or `start_page_key` that does not belong there.
    Unknown(&'static str, String),
}

impl BodyProblem {
    /// Returns whether the vendor answers this fault with "Request body must be a dictionary".
    pub fn is_not_a_dictionary(&self) -> bool {
        matches!(self, Self::Empty | Self::Json(JsonProblem::NotAnObject))
    }
}

impl fmt::Display for BodyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the body is empty; send {} to search everything"),
            Self::Json(problem) => problem.fmt(f),
            Self::Member(name, right) => write!(f, "\"{name}\" must be {right}"),
            Self::Unknown(parent, name) => {
                write!(f, "\"{parent}\" has an unknown member \"{name}\"")
            }
        }
    }
}

const SIZE_FORM: &str = "an integer from 1 to 500";
const RANGE_FORM: &str =
    "an object with \"start\" and \"end\", both YYYY-MM-DD, start not after end";
const PAGE_FORM: &str =
    "an object with the text \"scroll_id\", copied from next_page_key of the previous page";

impl SearchRequest {
    /// Reads a body and the `customer_id` of the query string.
    pub fn parse(body: &[u8], customer: Option<CustomerId>) -> Result<Self, BodyProblem> {
        if body.is_empty() {
            return Err(BodyProblem::Empty);
        }
        let mut members = json::parse_object(body).map_err(BodyProblem::Json)?;
        let page_size = match present(&mut members, "max_returned_items") {
            None => None,
            Some(value) => Some(size(&value)?),
        };
        let range = match present(&mut members, "date_range") {
            None => None,
            Some(value) => Some(date_range(value)?),
        };
        let page_token = match present(&mut members, "start_page_key") {
            None => None,
            Some(value) => Some(page_token(value)?),
        };
        Ok(Self {
            query: SearchQuery {
                customer,
                range,
                extra: members,
            },
            page_size,
            page_token,
        })
    }
}

/// Removes a documented member and returns it. `null` counts as absent.
fn present(members: &mut Object, name: &str) -> Option<Value> {
    members.remove(name).filter(|value| *value != Value::Null)
}

fn size(value: &Value) -> Result<PageSize, BodyProblem> {
    let wrong = BodyProblem::Member("max_returned_items", SIZE_FORM);
    match value {
        // "25.0" and "1e2" are integers to some parsers only, so they are refused.
        Value::Number(digits) => digits.parse().ok().and_then(PageSize::new).ok_or(wrong),
        _ => Err(wrong),
    }
}

fn date_range(value: Value) -> Result<DateRange, BodyProblem> {
    let wrong = || BodyProblem::Member("date_range", RANGE_FORM);
    let Value::Object(mut members) = value else {
        return Err(wrong());
    };
    let mut day = |name| match members.remove(name) {
        Some(Value::Text(text)) => parse_day(&text).ok_or_else(wrong),
        _ => Err(wrong()),
    };
    let (start, end) = (day("start")?, day("end")?);
    if let Some(name) = members.keys().next() {
        return Err(BodyProblem::Unknown("date_range", quoted(name)));
    }
    DateRange::new(start, end).ok_or_else(wrong)
}

fn page_token(value: Value) -> Result<String, BodyProblem> {
    let wrong = BodyProblem::Member("start_page_key", PAGE_FORM);
    let Value::Object(mut members) = value else {
        return Err(wrong);
    };
    let Some(Value::Text(token)) = members.remove("scroll_id") else {
        return Err(wrong);
    };
    match members.keys().next() {
        Some(name) => Err(BodyProblem::Unknown("start_page_key", quoted(name))),
        None => Ok(token.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SearchRequest, BodyProblem> {
        SearchRequest::parse(text.as_bytes(), None)
    }

    #[test]
    fn null_equals_absent_for_documented_members_only() {
        let bare = parse("{}").unwrap();
        assert_eq!(
            parse(r#"{"date_range":null,"max_returned_items":null,"start_page_key":null}"#)
                .unwrap(),
            bare
        );
        assert_ne!(parse(r#"{"other":null}"#).unwrap(), bare);
    }

    #[test]
    fn page_size_is_not_part_of_the_query() {
        assert_eq!(
            parse("{}").unwrap().query,
            parse(r#"{"max_returned_items":7}"#).unwrap().query
        );
    }

    #[test]
    fn wrong_forms_name_the_member() {
        for bad in [
            "0",
            "501",
            "-1",
            "25.0",
            "25.5",
            "1e2",
            "1e309",
            "\"25\"",
            "true",
            "[]",
            "{}",
            "99999999999999999999",
        ] {
            let problem = parse(&format!("{{\"max_returned_items\":{bad}}}")).unwrap_err();
            assert_eq!(
                problem,
                BodyProblem::Member("max_returned_items", SIZE_FORM),
                "{bad}"
            );
        }
        for bad in [
            "[]",
            "{}",
            r#"{"start":"2026-01-01"}"#,
            r#"{"start":"2026-01-02","end":"2026-01-01"}"#,
            r#"{"start":"2026-1-2","end":"2026-01-03"}"#,
            r#"{"start":null,"end":"2026-01-03"}"#,
            r#"{"start":20260101,"end":"2026-01-03"}"#,
        ] {
            let problem = parse(&format!("{{\"date_range\":{bad}}}")).unwrap_err();
            assert_eq!(
                problem,
                BodyProblem::Member("date_range", RANGE_FORM),
                "{bad}"
            );
        }
        let extra = r#"{"date_range":{"start":"2026-01-01","end":"2026-01-02","tz":1}}"#;
        assert_eq!(
            parse(extra),
            Err(BodyProblem::Unknown("date_range", "tz".into()))
        );
        for bad in ["\"x\"", "{}", r#"{"scroll_id":1}"#] {
            assert!(
                parse(&format!("{{\"start_page_key\":{bad}}}")).is_err(),
                "{bad}"
            );
        }
        assert!(parse(r#"{"start_page_key":{"scroll_id":"x","n":1}}"#).is_err());
        assert_eq!(parse(""), Err(BodyProblem::Empty));
    }

    #[test]
    fn the_text_of_a_search_holds_everything_but_its_paging() {
        for (sent, text) in [
            (
                r#"{"z":1.50,"max_returned_items":3,"date_range":{"end":"2026-02-01","start":"2026-01-01"},"a":{"y":1,"x":[]}}"#,
                r#"{"date_range":{"start":"2026-01-01","end":"2026-02-01"},"a":{"x":[],"y":1},"z":1.50}"#,
            ),
            (r#"{"z":1}"#, r#"{"z":1}"#),
            (
                r#"{"date_range":{"start":"2026-01-01","end":"2026-02-01"}}"#,
                r#"{"date_range":{"start":"2026-01-01","end":"2026-02-01"}}"#,
            ),
            ("{}", "{}"),
        ] {
            let query = parse(sent).unwrap().query;
            assert_eq!(query.body_text(), text);
            assert_eq!(parse(text).unwrap().query, query);
        }
    }
}
