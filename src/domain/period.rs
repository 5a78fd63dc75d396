//! Months and date ranges, and how settled their data is.

use std::fmt;

use jiff::ToSpan as _;
use jiff::civil::Date;

/// A billing month, written `YYYYMM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// Reads `YYYYMM`, years 2000 to 2099.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let year = text.get(..4)?.parse().ok()?;
        let month = text.get(4..)?.parse().ok()?;
        ((2000..2100).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// Returns the month of a day.
    pub fn of(day: Date) -> Self {
        Self {
            year: day.year(),
            month: day.month(),
        }
    }

    /// Returns the month before.
    pub fn previous(self) -> Self {
        if self.month == 1 {
            Self {
                year: self.year - 1,
                month: 12,
            }
        } else {
            Self {
                month: self.month - 1,
                ..self
            }
        }
    }

    /// Returns whether N-able may still change this month on `today`. That holds for the running
    /// month, and for the last month until the 6th, because a month is final around the 4th to 5th
    /// of the next.
    pub fn is_current(self, today: Date) -> bool {
        let running = Self::of(today);
        self >= running || (self == running.previous() && today.day() <= 5)
    }

    /// Returns the last month that is closed on `today`.
    pub fn last_closed(today: Date) -> Self {
        Self::of(today).previous()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}{:02}", self.year, self.month)
    }
}

/// Days from `start` to `end`, both included, as the caller wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DateRange {
    start: Date,
    end: Date,
}

/// How likely the answer to a date range is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeGrade {
    /// Ends today or later, or has no end.
    Open,
    /// Ended less than `recent_days` ago.
    Recent,
    /// Ended earlier. Cases still change state, so even these answers expire.
    Closed,
}

impl RangeGrade {
    /// Returns the word used in settings and explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Recent => "recent",
            Self::Closed => "closed",
        }
    }
}

/// Reads exactly `YYYY-MM-DD`.
pub fn parse_day(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, b)| match at {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        });
    if !shape {
        return None;
    }
    let year = text.get(..4)?.parse().ok()?;
    let month = text.get(5..7)?.parse().ok()?;
    let day = text.get(8..)?.parse().ok()?;
    Date::new(year, month, day).ok()
}

impl DateRange {
    /// Creates a range. `None` if it ends before it starts.
    pub fn new(start: Date, end: Date) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// Returns the last `days` days up to and including `today`.
    pub fn last_days(today: Date, days: i64) -> Self {
        Self {
            start: today.saturating_sub(days.days()),
            end: today,
        }
    }

    /// Returns the first day.
    pub fn start(self) -> Date {
        self.start
    }

    /// Returns the last day.
    pub fn end(self) -> Date {
        self.end
    }

    /// Returns how settled the range is on `today`.
    pub fn grade(self, today: Date, recent_days: u16) -> RangeGrade {
        if self.end >= today {
            RangeGrade::Open
        } else if today.duration_since(self.end).as_hours() < 24 * i64::from(recent_days) {
            RangeGrade::Recent
        } else {
            RangeGrade::Closed
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn months_have_one_spelling() {
        assert_eq!(Month::parse("202409").unwrap().to_string(), "202409");
        for bad in [
            "2024", "2024-09", "202413", "202400", "20240９", "+20249", "199912",
        ] {
            assert_eq!(Month::parse(bad), None, "{bad:?}");
        }
        assert_eq!(
            Month::parse("202401").unwrap().previous(),
            Month::parse("202312").unwrap()
        );
    }

    #[test]
    fn the_last_month_settles_on_the_sixth() {
        let october = Month::parse("202610").unwrap();
        assert!(october.is_current(date(2026, 11, 5)));
        assert!(!october.is_current(date(2026, 11, 6)));
        assert!(
            Month::parse("202611")
                .unwrap()
                .is_current(date(2026, 11, 22))
        );
    }

    #[test]
    fn days_have_one_spelling() {
        assert_eq!(parse_day("2026-11-22"), Some(date(2026, 11, 22)));
        for bad in [
            "2026-02-30",
            "2026-1-2",
            "20261122",
            "2026-11-22T00",
            "+026-11-22",
            "",
        ] {
            assert_eq!(parse_day(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ranges_grade_by_their_end() {
        let today = date(2026, 11, 22);
        let grade = |end| {
            DateRange::new(date(2026, 1, 1), end)
                .unwrap()
                .grade(today, 7)
        };
        assert_eq!(grade(date(2026, 11, 22)), RangeGrade::Open);
        assert_eq!(grade(date(2026, 11, 21)), RangeGrade::Recent);
        assert_eq!(grade(date(2026, 11, 16)), RangeGrade::Recent);
        assert_eq!(grade(date(2026, 11, 15)), RangeGrade::Closed);
    }
}
