//! Forms that are names: of variables, files, callers, headers, zones and accounts.

use http::HeaderName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::form::{forms, leaf, texts};
use crate::domain::{AccountId, CustomerId};

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

fn is_line(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

texts! {
    /// Names the variable that holds a secret; empty names none.
    VariableName: "the name of an environment variable (capital letters, digits and _), never the secret itself",
        |text| {
            let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            !text.starts_with(|c: char| c.is_ascii_digit()) && is_of(text, NAME_BYTES_MAX, good)
        };
    /// Names the file that holds a secret; empty names none.
    FileName: "the path of a file, never the secret itself", is_path;
    /// Begins the names of keys in Valkey, and names a user there.
    KeyPrefix: "up to 64 letters, digits, - and _",
        |text| is_of(text, NAME_BYTES_MAX, |b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    /// The path of a directory; empty names none.
    DirectoryName: "the absolute path of a directory",
        |text| is_path(text) && (text.is_empty() || text.starts_with('/'));
    /// A text for people.
    Text: format_args!("a text of 1 to {TEXT_BYTES_MAX} bytes on one line"), is_line;
    /// A caller's name: a metric label and a word in every log line.
    CallerName: "1 to 64 characters a-z, 0-9, _ and -, other than \"anonymous\", \"gateway\" and \"open\"",
        |text| {
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
            // Who is meant by these is fixed: no key, ourselves, everyone.
            let taken = ["", "anonymous", "gateway", "open"].contains(&text);
            !taken && is_of(text, NAME_BYTES_MAX, good)
        };
    /// Names the account behind a vendor's keys where the vendor has no word for it.
    CredentialSetting: ACCOUNT_ID, |text| AccountId::parse(text).is_ok();
}

/// N-able's `ClientId`, which the vendor writes as a number; so may the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilledId(pub String);
leaf!(BilledId);

const CUSTOMER_ID: &str = "a customer id: 1 to 128 letters, digits and characters - _ . : @ |";
const ACCOUNT_ID: &str = "an account id: 1 to 128 letters, digits and characters - _ . : @ |";

forms! {
    BilledId: format_args!("a text of 1 to {TEXT_BYTES_MAX} bytes on one line"),
        |text| is_line(text).then(|| Self(text.to_owned())), |id| id.0.clone(),
        |n| Some(Self(n.to_string()));
    CustomerId: CUSTOMER_ID, |text| Self::parse(text).ok(), |id| id.as_str().to_owned();
    AccountId: ACCOUNT_ID, |text| Self::parse(text).ok(), |id| id.as_str().to_owned(),
        |n| Self::parse(&n.to_string()).ok();
    Timestamp: "a time with its zone, such as \"2027-01-31T00:00:00Z\"",
        |text| (text.len() <= NAME_BYTES_MAX).then(|| text.parse().ok())?, Self::to_string;
    // "UTC" works without any tzdata.
    TimeZone: "\"UTC\" or a time zone such as \"Europe/Berlin\" that this machine's tzdata knows",
        |text| {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
            let known = is_of(text, NAME_BYTES_MAX, good).then(|| Self::get(text).ok());
            if text == "UTC" { Some(Self::UTC) } else { known? }
        },
        |zone| zone.iana_name().unwrap_or("UTC").to_owned();
    HeaderName: "the name of a header that the gateway does not use otherwise, such as \"X-API-Key\"",
        |text| {
            let name: Self = (text.len() <= NAME_BYTES_MAX).then(|| text.parse().ok())??;
            (!OWN_HEADERS.contains(&name.as_str())).then_some(name)
        },
        |name| name.as_str().to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::form::Form as _;

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
        assert!(TimeZone::from_text("UTC").is_some());
        assert!(TimeZone::from_text("Nowhere/Land").is_none());
        assert!(TimeZone::from_text("../../etc/passwd").is_none());
    }
}
