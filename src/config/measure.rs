//! Numbers, and times and sizes as people write them: `"1h30m"`, `"256MiB"`.

use std::fmt;
use std::marker::PhantomData;

use figment::value::Value;
use serde_json::{Value as Json, json};
use toml::Value as Toml;

use super::form::{Form, whole};
use crate::clock::Duration;

/// Longest time or size text; the longest sensible one has under 20 characters.
const TEXT_BYTES_MAX: usize = 32;

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

/// Units of time, longest first: a text names each at most once and in this order.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
    ("ms", 1),
];

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// Splits digits from what follows them. `None` where there are no digits or too many.
fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// Parses `"1h30m"`, `"45s"`, `"500ms"`. `None` for anything else, and for overflow.
pub fn parse_time_ms(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (mut rest, mut total, mut smaller_than) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (count, after) = digits(rest)?;
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, ms) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
        if *ms >= smaller_than {
            return None;
        }
        smaller_than = *ms;
        total = total.checked_add(count.checked_mul(*ms)?)?;
        rest = after;
    }
    Some(total)
}

/// Parses `"256MiB"` or `"1000"` into bytes. `None` for anything else, and for overflow.
pub fn parse_size(text: &str) -> Option<u64> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (count, unit) = digits(text)?;
    let (_, bytes) = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit || (unit.is_empty() && *name == "B"))?;
    count.checked_mul(*bytes)
}

struct ShowTime(u64);

impl fmt::Display for ShowTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, ms) in TIME_UNITS {
            // "24h" reads better than "1d"; "7d" reads better than "168h".
            if unit == "d" && (rest < 2 * DAY || !rest.is_multiple_of(DAY)) {
                continue;
            }
            if let Some(count) = rest.checked_div(ms).filter(|count| *count > 0) {
                write!(f, "{count}{unit}")?;
                rest = rest.saturating_sub(count.saturating_mul(ms));
            }
        }
        Ok(())
    }
}

struct ShowSize(u64);

impl fmt::Display for ShowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = SIZE_UNITS
            .iter()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0.checked_div(*bytes).unwrap_or(0))
    }
}

/// The types of numbers that settings become.
pub trait Number: Copy + TryFrom<u64> + TryInto<u64> {}
impl<T: Copy + TryFrom<u64> + TryInto<u64>> Number for T {}

fn number(number: impl Number) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

/// A whole number between two bounds.
pub struct Count<const MIN: u64, const MAX: u64, T = u64>(PhantomData<T>);

impl<const MIN: u64, const MAX: u64, T: Number> Form for Count<MIN, MAX, T> {
    type Value = T;

    fn right() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn take(given: &Value) -> Option<T> {
        let n = whole(given)?;
        T::try_from(n).ok().filter(|_| (MIN..=MAX).contains(&n))
    }

    fn show(value: &T) -> Toml {
        Toml::Integer(number(*value).try_into().unwrap_or(i64::MAX))
    }

    fn shape() -> Json {
        json!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// A share, from 0 to 1.
pub struct Share;

impl Form for Share {
    type Value = f64;

    fn right() -> String {
        "a number from 0 to 1".to_owned()
    }

    fn take(given: &Value) -> Option<f64> {
        // The value of a variable is a text.
        let share = match given.as_str() {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                text.parse().ok()?
            }
            Some(_) => return None,
            None => given.to_f64().or_else(|| Some(whole(given)? as f64))?,
        };
        (0.0..=1.0).contains(&share).then_some(share)
    }

    fn show(value: &f64) -> Toml {
        (*value).into()
    }

    fn shape() -> Json {
        json!({"type": "number", "minimum": 0, "maximum": 1})
    }
}

/// A time between two bounds, in milliseconds.
pub struct Time<const MIN_MS: u64, const MAX_MS: u64>;

impl<const MIN_MS: u64, const MAX_MS: u64> Form for Time<MIN_MS, MAX_MS> {
    type Value = Duration;

    fn right() -> String {
        let (min, max) = (ShowTime(MIN_MS), ShowTime(MAX_MS));
        format!("a time such as \"45s\", \"5m\" or \"1h30m\", from {min} to {max}")
    }

    fn take(given: &Value) -> Option<Duration> {
        let ms = parse_time_ms(given.as_str()?)?;
        (MIN_MS..=MAX_MS)
            .contains(&ms)
            .then(|| Duration::from_millis(ms))
    }

    fn show(value: &Duration) -> Toml {
        let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        ShowTime(ms).to_string().into()
    }
}

/// A number of bytes between two bounds.
pub struct Size<const MIN: u64, const MAX: u64, T = u64>(PhantomData<T>);

impl<const MIN: u64, const MAX: u64, T: Number> Form for Size<MIN, MAX, T> {
    type Value = T;

    fn right() -> String {
        let (min, max) = (ShowSize(MIN), ShowSize(MAX));
        format!("a size such as \"64KiB\" or \"256MiB\", from {min} to {max}")
    }

    fn take(given: &Value) -> Option<T> {
        let bytes = match given.as_str() {
            Some(text) => parse_size(text)?,
            None => whole(given)?,
        };
        T::try_from(bytes)
            .ok()
            .filter(|_| (MIN..=MAX).contains(&bytes))
    }

    fn show(value: &T) -> Toml {
        ShowSize(number(*value)).to_string().into()
    }

    fn shape() -> Json {
        json!({"type": ["string", "integer"]})
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(ShowTime(ms).to_string(), shown);
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
            assert_eq!(ShowSize(bytes).to_string(), shown);
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
