//! Reads query strings strictly: what is not documented is refused, not ignored.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::domain::json::quoted;
use crate::domain::period::parse_day;
use crate::domain::{ContractId, CustomerId, DateRange, Month};
use crate::problem::Problem;

/// Maximum length of a request body inside a parameter, in bytes. The same as for a body.
const BODY_BYTES_MAX: usize = crate::exchange::bound::BODY_BYTES_MAX as usize;
/// Maximum length of a decoded value, in bytes. The longest sensible one names all eleven fields.
pub const VALUE_BYTES_MAX: usize = 1024;

/// The parameters of one request: all known, each at most once.
#[derive(Debug)]
pub struct Params<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads `query`, which may contain only the parameters in `known`.
    ///
    /// # Errors
    /// `invalid_query`, naming the parameter.
    pub fn parse(query: Option<&'a str>, known: &[&'static str]) -> Result<Self, Problem> {
        Self::parse_with_list(query, known, None)
    }

    /// Reads `query`, in which `body` is the body of a request and may be as long as one.
    ///
    /// # Errors
    /// `invalid_query`, naming the parameter.
    pub fn parse_with_body(
        query: Option<&'a str>,
        known: &[&'static str],
        body: &'static str,
    ) -> Result<Self, Problem> {
        Self::read(query, known, None, Some(body))
    }

    /// Reads `query`, in which `list` may be repeated, also as `list[]` and `list[0]`, because
    /// clients write lists in these ways. Its value is then all of them, joined by commas.
    ///
    /// # Errors
    /// `invalid_query`, naming the parameter.
    pub fn parse_with_list(
        query: Option<&'a str>,
        known: &[&'static str],
        list: Option<&'static str>,
    ) -> Result<Self, Problem> {
        Self::read(query, known, list, None)
    }

    fn read(
        query: Option<&'a str>,
        known: &[&'static str],
        list: Option<&'static str>,
        body: Option<&'static str>,
    ) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        let query = query.unwrap_or("");
        if query.is_empty() {
            return Ok(Self(found));
        }
        let mut rest = Some(query);
        while let Some(text) = rest {
            let (pair, after) = parted(text, b'&');
            rest = after;
            let (name, value) = parted(pair, b'=');
            let value = value.unwrap_or("");
            let name = decode(name, "a parameter's name")?;
            let is_item = list.is_some_and(|list| is_item_of(&name, list));
            let named =
                |known: &&&'static str| **known == name || (is_item && Some(**known) == list);
            let Some(name) = known.iter().find(named) else {
                return Err(Problem::invalid_query(if known.is_empty() {
                    format!(
                        "This route takes no parameters; remove \"{}\".",
                        quoted(&name)
                    )
                } else {
                    format!(
                        "\"{}\" is not a parameter of this route; its parameters are {}.",
                        quoted(&name),
                        known.join(", ")
                    )
                }));
            };
            let bytes_max = match body {
                Some(body) if body == *name => BODY_BYTES_MAX,
                _ => VALUE_BYTES_MAX,
            };
            let value = decode_up_to(value, name, bytes_max)?;
            let before = found.iter_mut().find(|(n, _)| n == name);
            if let Some((_, before)) = before {
                if list == Some(*name) {
                    let whole = format!("{before},{value}");
                    if whole.len() > VALUE_BYTES_MAX {
                        return Err(too_long(name, VALUE_BYTES_MAX));
                    }
                    *before = Cow::Owned(whole);
                    continue;
                }
                return Err(Problem::invalid_query(format!(
                    "The parameter \"{name}\" appears twice."
                )));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// Returns the decoded value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| &**value)
    }

    /// Returns `customer_id`, if it is there.
    ///
    /// # Errors
    /// `invalid_query`
    pub fn customer(&self) -> Result<Option<CustomerId>, Problem> {
        self.get("customer_id")
            .map(|text| CustomerId::parse(text).map_err(|why| wrong("customer_id", why)))
            .transpose()
    }

    /// Returns `start` and `end`. Both or none must be there.
    ///
    /// # Errors
    /// `invalid_query`
    pub fn range(&self) -> Result<Option<DateRange>, Problem> {
        let day = |name| match self.get(name) {
            None => Ok(None),
            Some(text) => parse_day(text)
                .map(Some)
                .ok_or_else(|| wrong(name, "must be a day, YYYY-MM-DD")),
        };
        match (day("start")?, day("end")?) {
            (None, None) => Ok(None),
            (Some(start), Some(end)) => DateRange::new(start, end)
                .map(Some)
                .ok_or_else(|| wrong("end", "must not be before start")),
            (Some(_), None) => Err(wrong("end", "is required when start is given")),
            (None, Some(_)) => Err(wrong("start", "is required when end is given")),
        }
    }
}

/// Splits `text` at the first `at`. These texts are so short that comparing byte by byte is faster
/// than the standard search.
fn parted(text: &str, at: u8) -> (&str, Option<&str>) {
    let place = text.bytes().position(|byte| byte == at);
    let parts = place.and_then(|place| Some((text.get(..place)?, text.get(place + 1..)?)));
    parts.map_or((text, None), |(before, after)| (before, Some(after)))
}

/// Parses a month in the path.
///
/// # Errors
/// `invalid_query`
pub fn path_month(segment: &str) -> Result<Month, Problem> {
    month(&decode_value(segment, "timeframe")?)
}

/// Parses a month.
///
/// # Errors
/// `invalid_query`
pub fn month(text: &str) -> Result<Month, Problem> {
    Month::parse(text).ok_or_else(|| wrong("timeframe", "must be a month, YYYYMM"))
}

/// Parses a contract in the path.
///
/// # Errors
/// `invalid_query`
pub fn path_contract(segment: &str) -> Result<ContractId, Problem> {
    let text = decode_value(segment, "contract")?;
    ContractId::parse(&text).map_err(|why| wrong("contract", why))
}

/// Returns whether `name` is how some clients name an item of the list: `fields[]` or `fields[0]`.
fn is_item_of(name: &str, list: &str) -> bool {
    let index = name
        .strip_prefix(list)
        .and_then(|rest| rest.strip_prefix('['))
        .and_then(|rest| rest.strip_suffix(']'));
    index.is_some_and(|index| index.len() <= 3 && index.bytes().all(|b| b.is_ascii_digit()))
}

fn too_long(name: &str, bytes_max: usize) -> Problem {
    wrong(name, format!("is longer than {bytes_max} bytes"))
}

/// Creates the problem for a wrong parameter.
pub fn wrong(name: &str, why: impl std::fmt::Display) -> Problem {
    Problem::invalid_query(format!("The parameter \"{name}\" {why}."))
}

/// Decodes a value and checks its length and that it has no control characters.
///
/// # Errors
/// `invalid_query`, naming the parameter.
pub fn decode_value<'a>(text: &'a str, name: &str) -> Result<Cow<'a, str>, Problem> {
    decode_up_to(text, name, VALUE_BYTES_MAX)
}

fn decode_up_to<'a>(text: &'a str, name: &str, bytes_max: usize) -> Result<Cow<'a, str>, Problem> {
    let value = decode(text, name)?;
    if value.len() > bytes_max {
        return Err(too_long(name, bytes_max));
    }
    let ascii = |byte: u8| byte.is_ascii() && !byte.is_ascii_control();
    if !value.bytes().all(ascii) && value.chars().any(char::is_control) {
        return Err(wrong(name, "contains a control character"));
    }
    Ok(value)
}

fn decode<'a>(text: &'a str, name: &str) -> Result<Cow<'a, str>, Problem> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut after_percent = text.split('%').skip(1);
    let hex = |b: &u8| b.is_ascii_hexdigit();
    let escaped = |rest: &str| {
        let rest = rest.as_bytes();
        rest.len() >= 2 && rest.iter().take(2).all(hex)
    };
    if !after_percent.all(escaped) {
        return Err(wrong(
            name,
            "contains a % that is not followed by two hexadecimal digits",
        ));
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(Cow::Owned(decoded.into_owned())),
        Err(_) => Err(wrong(name, "is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    const KNOWN: [&str; 4] = ["fields", "customer_id", "start", "end"];

    fn refused(query: &str) -> String {
        let problem = Params::parse(Some(query), &KNOWN).unwrap_err();
        assert_eq!(problem.code(), Code::InvalidQuery);
        problem.detail().to_owned()
    }

    #[test]
    fn values_are_decoded_once() {
        let params = Params::parse(Some("fields=id%2Cname+x&customer_id=a%2541"), &KNOWN).unwrap();
        assert_eq!(params.get("fields"), Some("id,name x"));
        assert_eq!(params.get("customer_id"), Some("a%41"));
        assert_eq!(params.get("start"), None);
        assert!(Params::parse(Some(""), &KNOWN).is_ok());
        assert!(Params::parse(None, &[]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, name) in [
            ("nope=1", "nope"),
            ("fields=a&nope=1", "nope"),
            ("fields=a&fields=a", "fields"),
            ("fields=a&%66ields=b", "fields"),
            ("fields=%", "fields"),
            ("fields=%4", "fields"),
            ("fields=%zz", "fields"),
            ("fields=%ff", "fields"),
            ("fields=%00", "fields"),
            ("fields=a%0d%0ab", "fields"),
            ("fields=a&", "\"\""),
            ("%zz=1", "name"),
        ] {
            let detail = refused(query);
            assert!(detail.contains(name), "{query}: {detail}");
        }
        let long = format!("fields={}", "x".repeat(VALUE_BYTES_MAX + 1));
        assert!(refused(&long).contains("longer"));
        assert!(refused(&"x".repeat(4000)).len() < 300);
    }

    #[test]
    fn lists_are_read_however_clients_write_them() {
        let list = |query| {
            let params = Params::parse_with_list(Some(query), &KNOWN, Some("fields"));
            params.map(|params| params.get("fields").map(str::to_owned))
        };
        for query in [
            "fields=id,name",
            "fields=id&fields=name",
            "fields[]=id&fields[]=name",
            "fields%5B%5D=id&fields%5B%5D=name",
            "fields[0]=id&fields[1]=name",
            "fields=id&customer_id=c&fields[]=name",
        ] {
            assert_eq!(list(query).unwrap().as_deref(), Some("id,name"), "{query}");
        }
        let half = "x".repeat(VALUE_BYTES_MAX / 2);
        for query in [
            "fields[=id",
            "fields[a]=id",
            "fields[0][1]=id",
            "fields[]x=id",
            "start[]=2026-01-01",
            "customer_id=a&customer_id=b",
            &format!("fields={half}&fields={half}"),
        ] {
            assert!(list(query).is_err(), "{query}");
        }
        // This holds only for a parameter that is a list.
        assert!(refused("fields[]=id").contains("fields[]"));
        assert!(refused("fields=id&fields=name").contains("twice"));
    }

    #[test]
    fn ranges_need_both_ends() {
        let range = |query| Params::parse(Some(query), &KNOWN).unwrap().range();
        assert!(range("").unwrap().is_none());
        assert!(range("start=2026-01-01&end=2026-01-01").unwrap().is_some());
        for bad in [
            "start=2026-01-01",
            "end=2026-01-01",
            "start=2026-01-02&end=2026-01-01",
            "start=2026-1-2&end=2026-01-03",
            "start=&end=",
        ] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn path_parameters_cannot_leave_their_segment() {
        assert!(path_contract("c%7C1").is_ok());
        for bad in ["a%2Fb", "..", "%2e%2e", "a;b", "a%00", "%zz", "%c3%28"] {
            assert!(path_contract(bad).is_err(), "{bad}");
        }
        assert!(path_month("202409").is_ok() && path_month("2024-09").is_err());
    }
}
