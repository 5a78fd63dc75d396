//! Forms that are names and addresses: of variables, files, callers, headers, zones, accounts,
//! vendors and collectors.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::HeaderName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::form::texts;
use crate::domain::{AccountId, CustomerId};
use crate::traces::CollectorUrl;
use crate::upstream::{BaseUrl, ProxyUrl};

/// Longest path of a file, as Linux has it.
const PATH_BYTES_MAX: usize = 4096;
/// Longest name of an environment variable, of a time zone, of a caller.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of a billed client; N-able's are company names.
const TEXT_BYTES_MAX: usize = 256;

/// Headers that the gateway sets itself, so that none of them can carry a key.
const OWN_HEADERS: [&str; 13] = [
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

/// Whether a text is not too long and holds these characters alone.
fn is_of(text: &str, bytes_max: usize, good: fn(u8) -> bool) -> bool {
    text.len() <= bytes_max && text.bytes().all(good)
}

fn is_path(text: &str) -> bool {
    text.len() <= PATH_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Returns a text, or `None` where it is empty: an empty name names nothing, so that a variable can
/// take back what the file names.
fn named<T: for<'a> From<&'a str>>(text: &str) -> Option<T> {
    (!text.is_empty()).then(|| text.into())
}

fn shown_path(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}

fn shown_name(name: &Option<String>) -> String {
    name.clone().unwrap_or_default()
}

/// Names the variable that holds a secret.
pub struct VariableName;
/// Names a file, such as one that holds a secret.
pub struct FileName;
/// Names a directory.
pub struct DirectoryName;
/// Begins the names of keys in Valkey.
pub struct KeyPrefix;
/// Names a user in Valkey.
pub struct UserName;
/// Names the account behind a vendor's keys where the vendor has no word for it.
pub struct CredentialName;
/// A text for people.
pub struct Text;
/// A caller's name: a metric label and a word in every log line.
pub struct CallerName;
/// N-able's `ClientId`, which the vendor writes as a number.
pub struct BilledId;

const LINE: &str = "a text of 1 to 256 bytes on one line";
const ACCOUNT_ID: &str = "an account id: 1 to 128 letters, digits and characters - _ . : @ |";
const WORD: &str = "up to 64 letters, digits, - and _";

fn line(text: &str) -> Option<String> {
    let fits = (1..=TEXT_BYTES_MAX).contains(&text.len());
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn is_word(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    is_of(text, NAME_BYTES_MAX, good)
}

texts! {
    VariableName => Option<String>: "the name of an environment variable (capital letters, digits and _), never the secret itself",
        |text| {
            let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            let digit = text.starts_with(|c: char| c.is_ascii_digit());
            (!digit && is_of(text, NAME_BYTES_MAX, good)).then(|| named(text))
        },
        shown_name;
    FileName => Option<PathBuf>: "the path of a file, never the secret itself",
        |text| is_path(text).then(|| named(text)), shown_path;
    DirectoryName => Option<PathBuf>: "the absolute path of a directory",
        |text| (is_path(text) && (text.is_empty() || text.starts_with('/'))).then(|| named(text)),
        shown_path;
    KeyPrefix => String: WORD, |text| is_word(text).then(|| text.to_owned()), String::clone;
    UserName => Option<String>: WORD, |text| is_word(text).then(|| named(text)), shown_name;
    Text => String: LINE, line, String::clone;
    BilledId => String: LINE, line, String::clone, or number;
    CallerName => String: "1 to 64 characters a-z, 0-9, _ and -, other than \"anonymous\", \"gateway\" and \"open\"",
        |text| {
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
            // These words name no key, the gateway itself, and everyone.
            let taken = ["", "anonymous", "gateway", "open"].contains(&text);
            (!taken && is_of(text, NAME_BYTES_MAX, good)).then(|| text.to_owned())
        },
        String::clone;
    CustomerId => Self: "a customer id: 1 to 128 letters, digits and characters - _ . : @ |",
        |text| Self::parse(text).ok(), |id| id.as_str().to_owned();
    CredentialName => AccountId: ACCOUNT_ID, |text| AccountId::parse(text).ok(),
        |id| id.as_str().to_owned();
    AccountId => Self: ACCOUNT_ID,
        |text| Self::parse(text).ok(), |id| id.as_str().to_owned(), or number;
    SocketAddr => Self: "an IP address and a port, such as \"127.0.0.1:8080\"",
        |text| text.parse().ok(), Self::to_string;
    BaseUrl => Self: "an https URL with a host and an optional path, without user, query or fragment (plain http only to localhost or a literal IP address)",
        Self::parse, Self::to_string;
    ProxyUrl => Self: "http://host:port of a proxy that takes CONNECT, without user and path",
        Self::parse, Self::to_string;
    // Empty: no collector.
    CollectorUrl => Option<Self>: "the address of an OpenTelemetry collector, such as \"http://127.0.0.1:4318\", or empty",
        |text| match text {
            "" => Some(None),
            text => Self::parse(text).map(Some),
        },
        |url| url.as_ref().map_or_else(String::new, ToString::to_string);
    Timestamp => Self: "a time with its zone, such as \"2027-01-31T00:00:00Z\"",
        |text| (text.len() <= NAME_BYTES_MAX).then(|| text.parse().ok())?, Self::to_string;
    // "UTC" works without any tzdata.
    TimeZone => Self: "\"UTC\" or a time zone such as \"Europe/Berlin\" that this machine's tzdata knows",
        |text| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
            let known = is_of(text, NAME_BYTES_MAX, good).then(|| Self::get(text).ok());
            if text == "UTC" { Some(Self::UTC) } else { known? }
        },
        |zone| zone.iana_name().unwrap_or("UTC").to_owned();
    HeaderName => Self: "the name of a header that the gateway does not use otherwise, such as \"X-API-Key\"",
        |text| {
            let name: Self = (text.len() <= NAME_BYTES_MAX).then(|| text.parse().ok())??;
            (!OWN_HEADERS.contains(&name.as_str())).then_some(name)
        },
        |name| name.as_str().to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::form::parsed;

    #[test]
    fn names_of_variables_are_not_keys() {
        for good in ["", "WIV_API_KEY", "_X1"] {
            assert!(parsed::<VariableName>(good).is_ok(), "{good}");
        }
        for bad in [
            "wiv_api_key",
            "sk-1234",
            "1A",
            "A B",
            "A=B",
            &"A".repeat(65),
        ] {
            assert!(parsed::<VariableName>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_the_gateway_sets_itself_cannot_carry_a_key() {
        assert!(parsed::<HeaderName>("X-API-Key").is_ok());
        for bad in ["Host", "content-length", "a b", "", "x:y"] {
            assert!(parsed::<HeaderName>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn callers_have_plain_names() {
        assert!(parsed::<CallerName>("dash_board-1").is_ok());
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
            assert!(parsed::<CallerName>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_need_no_database_for_utc() {
        assert!(parsed::<TimeZone>("UTC").is_ok());
        assert!(parsed::<TimeZone>("Nowhere/Land").is_err());
        assert!(parsed::<TimeZone>("../../etc/passwd").is_err());
    }
}
