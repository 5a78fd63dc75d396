//! Numbers, and times and sizes as people write them: `"1h30m"`, `"256MiB"`.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use super::form::{forms, whole};
use crate::clock::Duration;

/// One second, in milliseconds.
pub const SECOND: u64 = 1_000;
/// One minute, in milliseconds.
pub const MINUTE: u64 = 60 * SECOND;
/// One hour, in milliseconds.
pub const HOUR: u64 = 60 * MINUTE;
/// One day, in milliseconds.
pub const DAY: u64 = 24 * HOUR;

/// One KiB, in bytes.
pub const KIB: u64 = 1 << 10;
/// One MiB, in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB, in bytes.
pub const GIB: u64 = 1 << 30;

/// Returns this many milliseconds.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Units of time, longest first.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
    ("ms", 1),
];

/// Units of size, longest first. A number alone is bytes.
const SIZE_UNITS: [(&str, u64); 5] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1), ("", 1)];

/// Parses counts with units, such as `1h30m`. Each unit occurs at most once, in the order of
/// `units`. `None` for anything else, and for overflow.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let is_digit = |c: char| c.is_ascii_digit();
    let (mut rest, mut total) = (text, 0_u64);
    for (unit, worth) in units {
        let count = rest
            .split_once(|c| !is_digit(c))
            .map_or(rest, |(count, _)| count);
        let after = rest
            .strip_prefix(count)
            .and_then(|after| after.strip_prefix(unit));
        if let Some(after) = after.filter(|after| after.is_empty() || after.starts_with(is_digit)) {
            let count: u64 = count.parse().ok()?;
            total = total.checked_add(count.checked_mul(*worth)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

/// Parses `"1h30m"`, `"45s"`, `"500ms"`. `None` for anything else, and for overflow.
fn parse_time_ms(text: &str) -> Option<u64> {
    parse(text, &TIME_UNITS)
}

/// Parses `"256MiB"` or `"1000"` into bytes. `None` for anything else, and for overflow.
fn parse_size(text: &str) -> Option<u64> {
    SIZE_UNITS.iter().find_map(|unit| parse(text, &[*unit]))
}

/// Returns a time as people write it.
fn shown_time(ms: u64) -> String {
    // "24h" reads better than "1d"; "7d" reads better than "168h".
    let in_days = ms >= 2 * DAY && ms.is_multiple_of(DAY);
    let (mut rest, mut text) = (ms, String::new());
    for (unit, worth) in TIME_UNITS {
        if rest >= worth && (unit != "d" || in_days) {
            text += &format!("{}{unit}", rest / worth);
            rest %= worth;
        }
    }
    match text.as_str() {
        "" => "0s".to_owned(),
        _ => text,
    }
}

/// Returns a size in the largest unit that divides it.
fn shown_size(bytes: u64) -> String {
    let fits = |worth: u64| bytes >= worth && bytes.is_multiple_of(worth);
    let unit = SIZE_UNITS.iter().find(|(_, worth)| fits(*worth));
    let (unit, worth) = unit.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / worth)
}

/// The types of numbers that settings become.
pub trait Number: Copy + TryFrom<u64> + TryInto<u64> {}
impl<T: Copy + TryFrom<u64> + TryInto<u64>> Number for T {}

fn wide(number: impl Number) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn within<T: Number>(bounds: RangeInclusive<u64>, number: u64) -> Option<T> {
    bounds.contains(&number).then(|| T::try_from(number).ok())?
}

/// A whole number between two bounds.
pub struct Count<const MIN: u64, const MAX: u64, T = u64>(PhantomData<T>);
/// A share, from 0 to 1.
pub struct Share;
/// A time between two bounds, in milliseconds.
pub struct Time<const MIN: u64, const MAX: u64>;
/// A number of bytes between two bounds.
pub struct Size<const MIN: u64, const MAX: u64, T = u64>(PhantomData<T>);

forms! {
    where [const MIN: u64, const MAX: u64, T: Number] Count<MIN, MAX, T> => T:
        format!("a whole number from {MIN} to {MAX}"),
        {"type": "integer", "minimum": MIN, "maximum": MAX},
        |given| within(MIN..=MAX, whole(given)?),
        |count| i64::try_from(wide(*count)).unwrap_or(i64::MAX);
    Share => f64:
        "a number from 0 to 1",
        {"type": "number", "minimum": 0, "maximum": 1},
        |given| {
            let share = match given.as_str() {
                // The value of a variable is a text.
                Some(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                    text.parse().ok()?
                }
                Some(_) => return None,
                None => given.to_f64().or_else(|| Some(whole(given)? as f64))?,
            };
            (0.0..=1.0).contains(&share).then_some(share)
        },
        |share| *share;
    where [const MIN: u64, const MAX: u64] Time<MIN, MAX> => Duration:
        format!("a time such as \"45s\", \"5m\" or \"1h30m\", from {} to {}", shown_time(MIN), shown_time(MAX)),
        {"type": "string"},
        |given| within(MIN..=MAX, parse_time_ms(given.as_str()?)?).map(ms),
        |time| shown_time(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    where [const MIN: u64, const MAX: u64, T: Number] Size<MIN, MAX, T> => T:
        format!("a size such as \"64KiB\" or \"256MiB\", from {} to {}", shown_size(MIN), shown_size(MAX)),
        {"type": ["string", "integer"]},
        |given| within(MIN..=MAX, given.as_str().map_or_else(|| whole(given), parse_size)?),
        |bytes| shown_size(wide(*bytes));
}

#[cfg(test)]
mod tests {
    use figment::value::Value;

    use super::super::form::Form as _;
    use super::*;

    #[test]
    fn times_read_and_show() {
        for (text, ms, shown) in [
            ("45s", 45_000, "45s"),
            ("500ms", 500, "500ms"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("24h", DAY, "24h"),
            ("168h", 7 * DAY, "7d"),
            ("1d12h", 36 * HOUR, "36h"),
            ("1s500ms", 1_500, "1s500ms"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(parse_time_ms(text), Some(ms), "{text}");
            assert_eq!(shown_time(ms), shown);
        }
        for bad in [
            "",
            "s",
            "5",
            "5 m",
            "5M",
            "-5s",
            "+5s",
            "1.5h",
            "30m1h",
            "1s1s",
            "5m5m",
            "5ｍ",
            "٣s",
            "99999999999999999999s",
            "999999999999999999d",
            " 5s",
            "5s ",
            "1h30",
        ] {
            assert_eq!(parse_time_ms(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_and_show() {
        for (text, bytes, shown) in [
            ("64KiB", 65_536, "64KiB"),
            ("256MiB", 256 << 20, "256MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1024", 1024, "1KiB"),
            ("1000", 1000, "1000B"),
            ("1000B", 1000, "1000B"),
            ("0", 0, "0B"),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(shown_size(bytes), shown);
        }
        for bad in [
            "",
            "MiB",
            "1MB",
            "1 MiB",
            "-1",
            "1.5GiB",
            "1mib",
            "18446744073709551615GiB",
            "99999999999999999999",
        ] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn bounds_are_held() {
        type T = Time<100, 5_000>;
        let time = |text: &str| T::take(&Value::from(text));
        assert!(time("99ms").is_none() && time("5001ms").is_none());
        assert_eq!(time("5s"), Some(Duration::from_secs(5)));
        type S = Size<1, { KIB }>;
        assert!(S::take(&Value::from(0)).is_none() && S::take(&Value::from(1025)).is_none());
        assert_eq!(S::take(&Value::from("1KiB")), Some(1024));
    }
}
