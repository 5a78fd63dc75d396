//! The forms of wiv's answers: pages of a search, and the customer list.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::scroll::ScrollId;
use crate::domain::json::{self, Members, Steps};
use crate::domain::record::CasePlaces;
use crate::domain::{PageSize, SearchQuery};
use crate::upstream::body::{self, BodyFault, DEPTH_MAX, malformed};
use crate::upstream::{Cursor, EnvelopeMember, Fault, RawRows, SourcePage};

/// Most members beside the documented ones that an envelope may hold.
const ENVELOPE_MEMBERS_MAX: usize = 64;
/// Largest sum of their texts, in bytes: they are repeated on every page of a snapshot.
const ENVELOPE_BYTES_MAX: usize = 256 << 10;

/// A shorter scroll id could appear in another member by chance. Real ones have hundreds of
/// letters.
const TELLING_ID_BYTES_MIN: usize = 16;

/// Other members of a vendor's envelope: name and raw JSON text, in the vendor's order.
pub(super) type EnvelopeMembers = Vec<(String, String)>;

/// How the customer list came. Its form is not documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerEnvelope {
    /// `[…]`
    Bare,
    /// `{"data":[…]}`, with what stood before and after `data`.
    Data {
        /// Members before `data`.
        before: EnvelopeMembers,
        /// Members after `data`.
        after: EnvelopeMembers,
    },
}

/// The list of all customers.
#[derive(Clone, Debug)]
pub struct CustomerList {
    /// How it came.
    pub envelope: CustomerEnvelope,
    /// The customers.
    pub rows: RawRows,
    /// The vendor's whole body.
    pub body: Bytes,
}

impl CustomerList {
    /// Reads a body that [`super::Wiv::customers`] accepted before. Returns `None` for any other.
    pub fn of_body(body: &Bytes) -> Option<Self> {
        customer_list(body::text(body).ok()?, body).ok()
    }
}

const NO_OBJECT: BodyFault = malformed("the body is not a JSON object");
const NO_DATA: BodyFault = malformed("there is no data array");
const TWICE: BodyFault = malformed("a documented member appears twice");
const TOO_MANY: BodyFault = (Fault::TooLarge, "the rows are larger than 4 GiB");
const BAD_KEY: BodyFault = malformed("next_page_key is not of the documented form");

/// Rows that room is made for at once, by the length of the first: two of the vendor's largest
/// pages.
const ROWS_RESERVED_MAX: usize = 1_000;

/// A page's rows are kept within its body if the rest of the body is at most one part in this many
/// of them.
const SPARE_OF: usize = 16;

/// A search's answer in parts: its members in their order, `data` among them without a text.
struct PageForm<'a> {
    members: Vec<(Cow<'a, str>, Option<&'a str>)>,
    rows: Option<Vec<&'a str>>,
    places: Vec<Option<CasePlaces>>,
    /// Where the text holds all rows with one comma and nothing else between them. `None` if it
    /// does not.
    joined: Option<Range<usize>>,
}

impl<'a> PageForm<'a> {
    /// Reads a plain answer in one pass: rows are the most of it. `None` for any other, good or
    /// bad.
    fn step_through(text: &'a str) -> Option<Self> {
        let mut form = Self {
            members: Vec::with_capacity(4),
            rows: None,
            places: Vec::new(),
            joined: None,
        };
        let mut steps = Steps::at_start_of(text);
        if !steps.takes(b'{') {
            return None;
        }
        loop {
            let name = steps.name()?;
            let raw = if name != "data" {
                Some(steps.value(DEPTH_MAX - 1)?)
            } else if form.rows.is_none() && steps.takes(b'[') {
                let mut rows = Vec::new();
                while !steps.takes(b']') {
                    if !rows.is_empty() && !steps.takes(b',') {
                        return None;
                    }
                    let (row, places) = row(&mut steps)?;
                    let start = steps.at() - row.len();
                    if rows.is_empty() {
                        // Most rows of a page are about as long.
                        let guess = (text.len() / row.len().max(1)).min(ROWS_RESERVED_MAX);
                        rows.reserve(guess);
                        form.places.reserve(guess);
                        form.joined = Some(start..steps.at());
                    } else {
                        let joined = form.joined.take();
                        let joined = joined.filter(|joined| joined.end + 1 == start);
                        form.joined = joined.map(|joined| joined.start..steps.at());
                    }
                    rows.push(row);
                    form.places.push(places);
                }
                form.rows = Some(rows);
                None
            } else {
                return None;
            };
            form.members.push((Cow::Borrowed(name), raw));
            if !steps.takes(b',') {
                break;
            }
        }
        (steps.takes(b'}') && steps.is_over()).then_some(form)
    }

    /// Reads any answer.
    fn read(text: &'a str) -> Result<Self, BodyFault> {
        body::bounded(text)?;
        let Members(members) = serde_json::from_str(text).map_err(|_| NO_OBJECT)?;
        let mut form = Self {
            members: Vec::with_capacity(members.len()),
            rows: None,
            places: Vec::new(),
            joined: None,
        };
        for (name, raw) in members {
            let raw = if name == "data" {
                let rows: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| NO_DATA)?;
                once(
                    &mut form.rows,
                    rows.into_iter().map(RawValue::get).collect(),
                )?;
                None
            } else {
                Some(raw.get())
            };
            form.members.push((name, raw));
        }
        Ok(form)
    }
}

/// Steps over a row of `data`. Returns its text and, for a plain object, where the members of a
/// case are. `None` if the text is not JSON.
fn row<'a>(steps: &mut Steps<'a>) -> Option<(&'a str, Option<CasePlaces>)> {
    const DEPTH: usize = DEPTH_MAX - 2;
    steps.skip_space();
    let start = *steps;
    if let Some(found) = steps.object(&["case_id", "customer_id", "case_type"], DEPTH) {
        let [case_id, customer_id, case_type] = found;
        let places = CasePlaces {
            case_id,
            customer_id,
            case_type,
        };
        return Some((start.until(steps)?, Some(places)));
    }
    *steps = start;
    Some((steps.value(DEPTH)?, None))
}

/// Returns the body of a search's first request.
pub fn first_body(query: &SearchQuery, page_size: PageSize) -> String {
    let members = query.body_text();
    let members = members.strip_prefix('{').unwrap_or("}");
    let comma = if members == "}" { "" } else { "," };
    format!(
        "{{\"max_returned_items\":{}{comma}{members}",
        page_size.get()
    )
}

/// Returns the body of a request for the page at `scroll`.
pub(super) fn continuation(scroll: &ScrollId, page_size: PageSize) -> String {
    let mut body = format!("{{\"max_returned_items\":{},", page_size.get());
    body.push_str("\"start_page_key\":{\"scroll_id\":");
    json::write_text(scroll.reveal(), &mut body);
    body.push_str("}}");
    body
}

/// Reads a page of a search. `text` is the text of `body`.
pub(super) fn search_page(text: &str, body: &Bytes) -> Result<SourcePage, BodyFault> {
    let PageForm {
        members,
        rows,
        places,
        joined,
    } = match PageForm::step_through(text) {
        Some(form) => form,
        None => PageForm::read(text)?,
    };
    let mut next = None;
    let mut others = Others::default();
    let mut order = Vec::with_capacity(members.len() + 1);
    for (name, raw) in members {
        order.push(match (name.as_ref(), raw) {
            (_, None) => EnvelopeMember::Data,
            ("next_page_key", Some(raw)) => {
                once(&mut next, raw)?;
                EnvelopeMember::NextPageKey
            }
            (_, Some(raw)) => {
                others.push(&name, raw)?;
                EnvelopeMember::Other(name.into_owned(), raw.to_owned())
            }
        });
    }
    if next.is_none() {
        order.push(EnvelopeMember::NextPageKey);
    }
    // Elasticsearch itself names the id a second time, also where the cursor is null.
    order
        .retain(|member| !matches!(member, EnvelopeMember::Other(name, _) if name == "_scroll_id"));
    let rows = rows.ok_or(NO_DATA)?;
    let scroll = match next.map_or(Ok(None), scroll) {
        // A page without rows is the end, so its cursor is not needed and may have any form.
        Err(_) if rows.is_empty() => None,
        read => read?,
    };
    if let Some(scroll) = &scroll
        && scroll.reveal().len() >= TELLING_ID_BYTES_MIN
    {
        let id = scroll.reveal().as_bytes();
        order.retain(|member| match member {
            EnvelopeMember::Other(name, raw) => {
                !json::repeats(name.as_bytes(), id) && !json::repeats(raw.as_bytes(), id)
            }
            EnvelopeMember::Data | EnvelopeMember::NextPageKey => true,
        });
    }
    // Rows that stand in the body as a snapshot keeps them need no copy, unless that would keep too
    // much of the body besides them.
    let joined = joined.filter(|joined| (text.len() - joined.len()) * SPARE_OF <= joined.len());
    let rows = match joined {
        Some(joined) => RawRows::joined(body.slice(joined), &rows, places),
        None => RawRows::collect(&rows, places),
    };
    Ok(SourcePage {
        rows: rows.ok_or(TOO_MANY)?,
        next: scroll.map(Cursor::new),
        envelope: order,
    })
}

pub(super) fn customer_list(text: &str, body: &Bytes) -> Result<CustomerList, BodyFault> {
    body::bounded(text)?;
    let body = body.clone();
    let first = text.trim_start().as_bytes().first();
    if first == Some(&b'[') {
        let whole = serde_json::from_str(text).map_err(|_| malformed("the body is not JSON"))?;
        return Ok(CustomerList {
            envelope: CustomerEnvelope::Bare,
            rows: rows(whole)?,
            body,
        });
    }
    let Members(members) = serde_json::from_str(text).map_err(|_| NO_OBJECT)?;
    let mut data = None;
    let (mut before, mut after) = (Others::default(), Others::default());
    for (name, raw) in members {
        if name == "data" {
            once(&mut data, raw)?;
        } else if data.is_none() {
            before.push(&name, raw.get())?;
        } else {
            after.push(&name, raw.get())?;
        }
    }
    Ok(CustomerList {
        envelope: CustomerEnvelope::Data {
            before: before.members,
            after: after.members,
        },
        rows: rows(data.ok_or(NO_DATA)?)?,
        body,
    })
}

/// Two members of one name mean different things to different readers.
fn once<T>(slot: &mut Option<T>, raw: T) -> Result<(), BodyFault> {
    match slot.replace(raw) {
        None => Ok(()),
        Some(_) => Err(TWICE),
    }
}

fn rows(data: &RawValue) -> Result<RawRows, BodyFault> {
    let rows: Vec<&RawValue> = serde_json::from_str(data.get()).map_err(|_| NO_DATA)?;
    let rows: Vec<&str> = rows.into_iter().map(RawValue::get).collect();
    RawRows::collect(&rows, Vec::new()).ok_or(TOO_MANY)
}

fn scroll(raw: &str) -> Result<Option<ScrollId>, BodyFault> {
    if raw == "null" {
        return Ok(None);
    }
    let Members(members) = serde_json::from_str(raw).map_err(|_| BAD_KEY)?;
    let mut id = None;
    for (name, raw) in members {
        if name == "scroll_id" {
            once(&mut id, raw)?;
        }
    }
    let text: String = serde_json::from_str(id.ok_or(BAD_KEY)?.get()).map_err(|_| BAD_KEY)?;
    ScrollId::new(text).map(Some).ok_or(BAD_KEY)
}

#[derive(Default)]
struct Others {
    members: EnvelopeMembers,
    bytes: usize,
}

impl Others {
    fn push(&mut self, name: &str, raw: &str) -> Result<(), BodyFault> {
        self.bytes += name.len() + raw.len();
        if self.members.len() >= ENVELOPE_MEMBERS_MAX || self.bytes > ENVELOPE_BYTES_MAX {
            return Err((Fault::TooLarge, "the envelope is larger than the limit"));
        }
        self.members.push((name.to_owned(), raw.to_owned()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::query::SearchRequest;
    use crate::domain::record::CaseHead;

    fn read_page(text: &str) -> Result<SourcePage, BodyFault> {
        search_page(text, &Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn rows_are_kept_within_the_body_where_that_wastes_little() {
        let row = format!("{{\"text\":\"{}\"}}", "x".repeat(400));
        let page = |between: &str, after: &str| {
            let rows = [&*row, "2", &row].join(between);
            format!("{{\"data\":[{rows}],\"next_page_key\":null{after}}}")
        };
        let note = format!(",\"note\":\"{}\"", "y".repeat(400));
        for (between, after, shared) in [
            (",", "", true),
            (", ", "", false),
            (" ,", "", false),
            (",", &*note, false),
        ] {
            let body = Bytes::from(page(between, after));
            let text = std::str::from_utf8(&body).unwrap();
            let page = search_page(text, &body).unwrap();
            let rows: Vec<&str> = page.rows.iter().collect();
            assert_eq!(rows, [&*row, "2", &row]);
            assert_eq!(page.rows.text, [&*row, "2", &row].join(",").as_bytes());
            let within = body.as_ptr_range().contains(&page.rows.text.as_ptr());
            assert_eq!(within, shared, "{between:?} {after}");
        }
    }

    #[test]
    fn members_that_repeat_the_scroll_id_are_left_out() {
        let id = "FGluY2x1ZGVfY29udGV4/A==";
        let total = EnvelopeMember::Other("total".to_owned(), "1".to_owned());
        let kept = [EnvelopeMember::Data, EnvelopeMember::NextPageKey, total];
        for again in [
            format!(r#""_scroll_id":"{id}""#),
            format!(r#""_scroll_id":"{}""#, id.replace('/', r"\/")),
            format!(r#""a":[{{"b":"x {}"}}]"#, id.replace('=', r"\u003d")),
            format!(r#""{id}":1"#),
        ] {
            let text = format!(
                r#"{{{again},"data":[],"next_page_key":{{"scroll_id":"{id}"}},"total":1}}"#
            );
            let page = read_page(&text).unwrap();
            assert_eq!(page.envelope, kept, "{again}");
        }
        let last = format!(r#"{{"_scroll_id":"{id}","data":[1],"total":1,"next_page_key":null}}"#);
        let last = read_page(&last).unwrap();
        assert_eq!(last.envelope.len(), 3, "{last:?}");
    }

    #[test]
    fn pages_keep_every_digit_and_all_that_came_with_them() {
        let page = read_page(
            r#" { "total" : 12345678901234567890.123 , "data":[ {"a": 1.50, "b" : "\u0061,"} ,2,
                "x,y" ], "next_page_key" :{"scroll_id":"FGlu\u0041=="}, "warnings":[ ] }"#,
        )
        .unwrap();
        let rows: Vec<&str> = page.rows.iter().collect();
        assert_eq!(rows, [r#"{"a": 1.50, "b" : "\u0061,"}"#, "2", "\"x,y\""]);
        assert_eq!(
            page.rows.text,
            r#"{"a": 1.50, "b" : "\u0061,"},2,"x,y""#.as_bytes()
        );
        assert_eq!(page.rows.get(3), "");
        let scroll: &ScrollId = page.next.as_ref().unwrap().read().unwrap();
        assert_eq!(scroll.reveal(), "FGluA==");
        let other = |name: &str, raw: &str| EnvelopeMember::Other(name.into(), raw.into());
        assert_eq!(
            page.envelope,
            [
                other("total", "12345678901234567890.123"),
                EnvelopeMember::Data,
                EnvelopeMember::NextPageKey,
                other("warnings", "[ ]"),
            ]
        );
        assert!(!format!("{page:?}").contains("FGlu"));
    }

    #[test]
    fn plain_answers_are_read_in_one_pass_and_others_alike() {
        for (text, plain) in [
            (
                r#"{"data":[{"a":1},2],"next_page_key":{"scroll_id":"s"}}"#,
                true,
            ),
            (r#" {"t" : 1 , "data" : [ ] , "w":[{}] } "#, true),
            (r#"{"d\u0061ta":[1],"x":2}"#, false),
        ] {
            let quick = PageForm::step_through(text);
            assert_eq!(quick.is_some(), plain, "{text}");
            let whole = PageForm::read(text).unwrap();
            if let Some(quick) = quick {
                assert_eq!(
                    (quick.members, quick.rows),
                    (whole.members, whole.rows),
                    "{text}"
                );
            }
        }
        for bad in [
            r#"{"data":[1,]}"#,
            r#"{"data":[,1]}"#,
            r#"{"data":[1 2]}"#,
            r#"{"data":[1]"#,
            r#"{"data":[1]} 2"#,
            r#"{"data":[1],}"#,
            r#"{"data":[],"data":[]}"#,
            r#"{"data":{}}"#,
            "[]",
        ] {
            assert!(PageForm::step_through(bad).is_none(), "{bad}");
        }
        let deep = |n: usize| format!("{{\"data\":[{}{}]}}", "[".repeat(n), "]".repeat(n));
        assert!(read_page(&deep(DEPTH_MAX - 2)).is_ok());
        assert!(read_page(&deep(DEPTH_MAX - 1)).is_err());
    }

    #[test]
    fn rows_are_found_as_the_full_reader_finds_them() {
        let rows = [
            r#"{"case_id":"c1","customer_id":7,"case_type":"a"}"#,
            r#" { "n" : [{"case_id":9}] , "case_id" : "c1" } "#,
            r#"{"case_id":1,"case_id":2}"#,
            r#"{"c\u0061se_id":1}"#,
            "{}",
            "1",
        ];
        let text = format!("{{\"data\":[{}]}}", rows.join(","));
        let page = PageForm::step_through(&text).unwrap();
        for (at, raw) in rows.iter().enumerate() {
            let row = page.rows.as_ref().unwrap()[at];
            assert_eq!(row, raw.trim());
            assert_eq!(page.places[at].is_some(), ![2, 3, 5].contains(&at), "{raw}");
            let Some(places) = page.places[at] else {
                continue;
            };
            let (quick, whole) = (CaseHead::read_at(row, &places), CaseHead::read(row));
            assert_eq!(quick.id, whole.id, "{raw}");
            assert_eq!(quick.customer, whole.customer, "{raw}");
            assert_eq!(quick.case_type, whole.case_type, "{raw}");
        }
    }

    #[test]
    fn the_first_request_carries_the_whole_search() {
        let body = |sent: &str| {
            let request = SearchRequest::parse(sent.as_bytes(), None).unwrap();
            first_body(&request.query, PageSize::MAX)
        };
        assert_eq!(body("{}"), r#"{"max_returned_items":500}"#);
        assert_eq!(
            body(
                r#"{"z":1.50,"max_returned_items":3,"date_range":{"end":"2026-02-01","start":"2026-01-01"}}"#
            ),
            r#"{"max_returned_items":500,"date_range":{"start":"2026-01-01","end":"2026-02-01"},"z":1.50}"#
        );
    }

    #[test]
    fn every_known_end_is_understood() {
        for (text, rows, more) in [
            (r#"{"data":[],"next_page_key":null}"#, 0, false),
            (r#"{"data":[]}"#, 0, false),
            (r#"{"data":[1],"next_page_key":null}"#, 1, false),
            (r#"{"data":[],"next_page_key":{"scroll_id":"s"}}"#, 0, true),
            (r#"{"data":[],"next_page_key":"s"}"#, 0, false),
            (r#"{"data":[],"next_page_key":""}"#, 0, false),
            (r#"{"data":[],"next_page_key":{}}"#, 0, false),
            (r#"{"data":[],"next_page_key":[]}"#, 0, false),
            (r#"{"data":[],"next_page_key":false}"#, 0, false),
            (r#"{"data":[],"next_page_key":0}"#, 0, false),
            (r#"{"data":[],"next_page_key":{"scroll_id":7}}"#, 0, false),
            (
                r#"{"data":[],"next_page_key":{"scroll_id":null}}"#,
                0,
                false,
            ),
            (
                r#"{"data":[],"next_page_key":{"scroll_id":false}}"#,
                0,
                false,
            ),
            (r#"{"data":[],"next_page_key":{"scroll_id":""}}"#, 0, false),
            (
                r#"{"data":[],"next_page_key":{"a":{"scroll_id":"s"}}}"#,
                0,
                false,
            ),
            (
                r#"{"data":[],"next_page_key":{"scroll_id":"\ud800"}}"#,
                0,
                false,
            ),
            (
                r#"{"next_page_key":{"n":1,"scroll_id":"s"},"data":[1,1]}"#,
                2,
                true,
            ),
        ] {
            let page = read_page(text).unwrap();
            assert_eq!(
                (page.rows.len(), page.next.is_some()),
                (rows, more),
                "{text}"
            );
            assert_eq!(page.rows.is_empty(), rows == 0);
        }
    }

    #[test]
    fn other_forms_are_malformed() {
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{}}"#,
            r#"{"data":"[]"}"#,
            r#"{"data":[]"#,
            r#"{"data":[1,]}"#,
            r#"{"data":[],"data":[]}"#,
            r#"{"data":[],"d\u0061ta":[1]}"#,
            r#"{"data":[],"next_page_key":null,"next_page_key":null}"#,
            r#"{"data":[1],"next_page_key":"s"}"#,
            r#"{"data":[1],"next_page_key":{}}"#,
            r#"{"data":[1],"next_page_key":{"scroll_id":7}}"#,
            r#"{"data":[1],"next_page_key":{"scroll_id":null}}"#,
            r#"{"data":[1],"next_page_key":{"scroll_id":""}}"#,
            r#"{"data":[1],"next_page_key":{"scroll_id":"a","scroll_id":"b"}}"#,
            r#"{"data":[1],"next_page_key":{"scroll_id":"\ud800"}}"#,
            r#"{"data":[]} {}"#,
        ] {
            assert_eq!(read_page(bad).unwrap_err().0, Fault::Malformed, "{bad}");
        }
        let long = format!(
            r#"{{"data":[1],"next_page_key":{{"scroll_id":"{}"}}}}"#,
            "x".repeat(20_000)
        );
        assert!(read_page(&long).is_err());
        let wide: String = (0..70).map(|n| format!("\"m{n}\":1,")).collect();
        let wide = format!("{{{wide}\"data\":[]}}");
        assert_eq!(read_page(&wide).unwrap_err().0, Fault::TooLarge);
    }

    #[test]
    fn both_forms_of_the_customer_list_are_taken() {
        let list = |text: &'static str| customer_list(text, &Bytes::from_static(text.as_bytes()));
        let bare = list(" [ {\"customer_id\":\"a\"} ] ").unwrap();
        assert_eq!(bare.envelope, CustomerEnvelope::Bare);
        assert_eq!(bare.rows.get(0), "{\"customer_id\":\"a\"}");
        assert_eq!(bare.body, " [ {\"customer_id\":\"a\"} ] ");
        let wrapped = list(r#"{"total":1,"data":[{"x":1}],"at":"now"}"#).unwrap();
        let CustomerEnvelope::Data { before, after } = wrapped.envelope else {
            panic!("wrapped");
        };
        assert_eq!(before, [("total".to_owned(), "1".to_owned())]);
        assert_eq!(after, [("at".to_owned(), "\"now\"".to_owned())]);
        for bad in [
            "",
            "7",
            "{}",
            "[1",
            r#"{"data":7}"#,
            r#"{"data":[],"data":[]}"#,
            "[1]]",
        ] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }
}
