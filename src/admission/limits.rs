//! Reads the vendors' limit headers: `Retry-After`, `RateLimit` and their relatives.

use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;

use crate::clock::Duration;

/// Longest time read from a header. `limits.hold_down_max` decides how much of it is obeyed.
pub const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Numbers above this are not seconds from now, but seconds since 1970.
const EPOCH_SECONDS_MIN: u64 = 1_000_000_000;
/// Numbers above this are milliseconds since 1970.
const EPOCH_MILLIS_MIN: u64 = 1_000_000_000_000;

/// Returns `Retry-After` as a time from now, at most [`WAIT_MAX`]. Reads both its forms, seconds
/// and date.
pub fn retry_after(headers: &HeaderMap, wall: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(WAIT_MAX));
    }
    Some(until(http_date(text)?, wall))
}

/// Parses the three date forms of RFC 9110.
fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(zoned.timestamp());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())
        .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|zoned| zoned.timestamp())
}

fn until(at: Timestamp, wall: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(wall))
        .unwrap_or(Duration::ZERO)
        .min(WAIT_MAX)
}

/// What the vendor says is left of its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Number of requests left.
    pub requests: u64,
    /// Time until the count is reset, at most [`WAIT_MAX`].
    pub reset: Option<Duration>,
}

static PAIRS: [(HeaderName, HeaderName); 3] = [
    (
        HeaderName::from_static("ratelimit-remaining"),
        HeaderName::from_static("ratelimit-reset"),
    ),
    (
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderName::from_static("x-ratelimit-reset"),
    ),
    (
        HeaderName::from_static("x-rate-limit-remaining"),
        HeaderName::from_static("x-rate-limit-reset"),
    ),
];

/// Returns the lowest count that the answer's headers state.
pub fn remaining(headers: &HeaderMap, wall: Timestamp) -> Option<Remaining> {
    let number = |name: &HeaderName| whole(headers.get(name)?.to_str().ok()?);
    let pairs = PAIRS.iter().filter_map(|(left, reset)| {
        Some(Remaining {
            requests: number(left)?,
            reset: number(reset).map(|n| from_now(n, wall)),
        })
    });
    let policies = headers
        .get_all("ratelimit")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| rate_limit(text, wall));
    // Of equal counts, the one that is reset later is the limit.
    pairs
        .chain(policies)
        .min_by_key(|r| (r.requests, std::cmp::Reverse(r.reset)))
}

/// Parses `RateLimit` in the form of the RFC drafts since 2024 (`"day";r=5;t=60, "hour";r=1`), and
/// in the older form (`limit=10, remaining=5, reset=60`).
fn rate_limit(text: &str, wall: Timestamp) -> Vec<Remaining> {
    let member = |piece: &str, names: [&str; 2]| {
        piece.split([';', ',']).find_map(|part| {
            let (name, value) = part.split_once('=')?;
            names.contains(&name.trim()).then(|| whole(value))?
        })
    };
    let one = |piece: &str| {
        Some(Remaining {
            requests: member(piece, ["r", "remaining"])?,
            reset: member(piece, ["t", "reset"]).map(|n| from_now(n, wall)),
        })
    };
    if text.contains("remaining") {
        one(text).into_iter().collect()
    } else {
        text.split(',').filter_map(one).collect()
    }
}

/// Parses a number of requests or seconds. Fractions are cut off.
fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.split_once('.').map_or(text, |(whole, _)| whole);
    digits.parse().ok()
}

fn from_now(number: u64, wall: Timestamp) -> Duration {
    let moment = |at: Result<Timestamp, jiff::Error>| at.map_or(WAIT_MAX, |at| until(at, wall));
    if number >= EPOCH_MILLIS_MIN {
        moment(Timestamp::from_millisecond(
            i64::try_from(number).unwrap_or(i64::MAX),
        ))
    } else if number >= EPOCH_SECONDS_MIN {
        moment(Timestamp::from_second(
            i64::try_from(number).unwrap_or(i64::MAX),
        ))
    } else {
        Duration::from_secs(number).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn wall() -> Timestamp {
        "1994-11-06T08:49:30Z".parse().unwrap()
    }

    #[test]
    fn retry_after_comes_in_seconds_and_dates() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("99999999999999999999999", Some(365 * 24 * 3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7)),
            ("Sun Nov  6 08:49:37 1994", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Tue, 06 Nov 2035 08:49:37 GMT", Some(365 * 24 * 3600)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let said = retry_after(&headers(&[("retry-after", text)]), wall());
            assert_eq!(said, seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), wall()), None);
    }

    #[test]
    fn every_spelling_of_what_is_left_is_read() {
        let (r, t) = (3, Some(Duration::from_secs(40)));
        for given in [
            headers(&[("ratelimit", "\"default\";r=3;t=40")]),
            headers(&[("ratelimit", "\"a\";r=9;t=1, \"b\";r=3;t=40")]),
            headers(&[("ratelimit", "limit=10, remaining=3, reset=40")]),
            headers(&[("ratelimit-remaining", "3"), ("ratelimit-reset", "40")]),
            headers(&[("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "40")]),
            headers(&[
                ("x-rate-limit-remaining", "3"),
                ("x-rate-limit-reset", "40.5"),
            ]),
        ] {
            let said = remaining(&given, wall()).unwrap();
            assert_eq!((said.requests, said.reset), (r, t), "{given:?}");
        }
        assert_eq!(remaining(&headers(&[("ratelimit", "x")]), wall()), None);
        assert_eq!(
            remaining(&headers(&[("ratelimit-remaining", "-4")]), wall()),
            None
        );
        let ms = headers(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1700000040000"),
        ]);
        let later: Timestamp = "2023-11-14T22:13:20Z".parse().unwrap();
        assert_eq!(
            remaining(&ms, later).unwrap().reset,
            Some(Duration::from_secs(40))
        );
    }
}
