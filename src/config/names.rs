//! Forms that are names: of variables, files, callers, headers, zones and accounts.

use std::fmt;

use http::HeaderName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::form::{Form, leaf};
use crate::domain::{AccountId, CustomerId};

/// Longest path of a file, as Linux has it.
const PATH_BYTES_MAX: usize = 4096;
/// Longest name of an environment variable, of a time zone, of a caller.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of a billed client; N-able's are company names.
const TEXT_BYTES_MAX: usize = 256;

leaf!(
    VariableName,
    FileName,
    DirectoryName,
    Text,
    BilledId,
    CallerName,
    Credential,
    Expiry,
    Zone
);

/// Names the variable that holds a secret; empty names none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VariableName(pub String);

impl Form for VariableName {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of an environment variable (capital letters, digits and _), never the secret itself",
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let head = text.bytes().next().is_none_or(|b| !b.is_ascii_digit());
        (head && text.len() <= NAME_BYTES_MAX && text.bytes().all(good))
            .then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Names the file that holds a secret; empty names none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FileName(pub String);

impl Form for FileName {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path of a file, never the secret itself")
    }

    fn from_text(text: &str) -> Option<Self> {
        (text.len() <= PATH_BYTES_MAX && !text.chars().any(char::is_control))
            .then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// The path of a directory; empty names none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DirectoryName(pub String);

impl Form for DirectoryName {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the absolute path of a directory")
    }

    fn from_text(text: &str) -> Option<Self> {
        let good = text.len() <= PATH_BYTES_MAX && !text.chars().any(char::is_control);
        (good && (text.is_empty() || text.starts_with('/'))).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// A text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Form for Text {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of 1 to {TEXT_BYTES_MAX} bytes on one line")
    }

    fn from_text(text: &str) -> Option<Self> {
        let good = !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
        (good && !text.chars().any(char::is_control)).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// N-able's `ClientId`, which the vendor writes as a number; so may the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilledId(pub String);

impl Form for BilledId {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text::expecting(f)
    }

    fn from_text(text: &str) -> Option<Self> {
        Text::from_text(text).map(|text| Self(text.0))
    }

    fn from_integer(n: u64) -> Option<Self> {
        Some(Self(n.to_string()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// A caller's name: a metric label and a word in every log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerName(pub String);

impl Form for CallerName {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "1 to 64 characters a-z, 0-9, _ and -, other than \"anonymous\", \"gateway\" and \"open\"",
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let sized = (1..=NAME_BYTES_MAX).contains(&text.len());
        // Who is meant by these is fixed: no key, ourselves, everyone.
        let taken = ["anonymous", "gateway", "open"].contains(&text);
        (sized && !taken && text.bytes().all(good)).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Names the account behind a vendor's keys where the vendor has no word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential(pub String);

impl Form for Credential {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AccountId::expecting(f)
    }

    fn from_text(text: &str) -> Option<Self> {
        AccountId::parse(text).ok().map(|_| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// When a caller's keys stop working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(pub Timestamp);

impl Form for Expiry {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time with its zone, such as \"2027-01-31T00:00:00Z\"")
    }

    fn from_text(text: &str) -> Option<Self> {
        (text.len() <= NAME_BYTES_MAX)
            .then(|| text.parse().ok().map(Self))
            .flatten()
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// A time zone of the IANA database.
#[derive(Clone, Debug)]
pub struct Zone(pub TimeZone);

impl Form for Zone {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\"UTC\" or a time zone such as \"Europe/Berlin\" that this machine's tzdata knows",
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        // Works without any tzdata.
        if text == "UTC" {
            return Some(Self(TimeZone::UTC));
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
        if text.len() > NAME_BYTES_MAX || !text.bytes().all(good) {
            return None;
        }
        TimeZone::get(text).ok().map(Self)
    }

    fn to_text(&self) -> String {
        self.0.iana_name().unwrap_or("UTC").to_owned()
    }
}

impl Form for HeaderName {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of a header that no other part of a request uses, such as \"X-API-Key\"",
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        const OURS: [&str; 13] = [
            "host",
            "connection",
            "content-length",
            "content-type",
            "content-encoding",
            "transfer-encoding",
            "te",
            "upgrade",
            "user-agent",
            "accept",
            "accept-encoding",
            "traceparent",
            "expect",
        ];
        let name: HeaderName = (text.len() <= NAME_BYTES_MAX).then(|| text.parse().ok())??;
        (!OURS.contains(&name.as_str())).then_some(name)
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

macro_rules! id_form {
    ($name:ident, $what:literal, $integer:expr) => {
        impl Form for $name {
            fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(
                    $what,
                    ": 1 to 128 letters, digits and characters - _ . : @ |"
                ))
            }

            fn from_text(text: &str) -> Option<Self> {
                Self::parse(text).ok()
            }

            fn from_integer(n: u64) -> Option<Self> {
                let read: fn(u64) -> Option<Self> = $integer;
                read(n)
            }

            fn to_text(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

id_form!(CustomerId, "a customer id", |_| None);
id_form!(AccountId, "an account id", |n| Self::parse(&n.to_string())
    .ok());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_are_not_keys() {
        for good in ["", "WIV_API_KEY", "_X1"] {
            assert!(VariableName::from_text(good).is_some(), "{good}");
        }
        for bad in [
            "wiv_api_key",
            "sk-1234",
            "1A",
            "A B",
            "A=B",
            &"A".repeat(65),
        ] {
            assert!(VariableName::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn headers_the_gateway_sets_itself_cannot_carry_a_key() {
        assert!(HeaderName::from_text("X-API-Key").is_some());
        for bad in ["Host", "content-length", "a b", "", "x:y"] {
            assert!(HeaderName::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn callers_have_plain_names() {
        assert!(CallerName::from_text("dash_board-1").is_some());
        for bad in [
            "",
            "Dash",
            "a b",
            "anonymous",
            "gateway",
            "open",
            &"a".repeat(65),
            "é",
        ] {
            assert!(CallerName::from_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn zones_need_no_database_for_utc() {
        assert!(Zone::from_text("UTC").is_some());
        assert!(Zone::from_text("Nowhere/Land").is_none());
        assert!(Zone::from_text("../../etc/passwd").is_none());
    }
}
