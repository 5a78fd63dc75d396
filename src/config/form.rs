//! The forms a single setting may have. Each checks itself while it is read, and says what would be
//! right without repeating what was wrong: it might be a secret.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;

use http::HeaderName;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::ser::Serializer;

use crate::access::{CallerKeyHash, Role};
use crate::domain::{AccountId, Audience, CustomerId};

/// Longest path of a file, as Linux has it.
const PATH_BYTES_MAX: usize = 4096;
/// Longest name of an environment variable, of a time zone, of a caller.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of a billed client; N-able's are company names.
const TEXT_BYTES_MAX: usize = 256;
/// Keys one caller may have at once. Two are needed during a rotation.
const KEYS_MAX: usize = 16;
/// Customers one caller may list. An MSP with more gives the caller `["*"]`.
const CUSTOMERS_MAX: usize = 10_000;

/// One setting's value.
pub trait Form: Sized {
    /// What would be right, as the end of a sentence that begins with "must be".
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Reads a text.
    fn from_text(text: &str) -> Option<Self>;

    /// Reads a number, where one may be written without quotes.
    fn from_integer(_: u64) -> Option<Self> {
        None
    }

    /// As it would be written in `config.toml`.
    fn to_text(&self) -> String;
}

/// Reads a [`Form`].
pub(super) struct FormVisitor<T>(pub PhantomData<T>);

impl<T: Form> Visitor<'_> for FormVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::expecting(f)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| refused(&self))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<T, E> {
        T::from_integer(n).ok_or_else(|| refused(&self))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<T, E> {
        u64::try_from(n)
            .ok()
            .and_then(T::from_integer)
            .ok_or_else(|| refused(&self))
    }
}

/// The error of a wrong value: names what would be right, holds nothing of what was there.
fn refused<'de, V: Visitor<'de>, E: Error>(visitor: &V) -> E {
    E::invalid_value(Unexpected::Other("value"), visitor)
}

/// Lets serde read and write a [`Form`].
macro_rules! leaf {
    ([$($generics:tt)*] $name:ty) => {
        impl<'de, $($generics)*> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any($crate::config::form::FormVisitor(std::marker::PhantomData))
            }
        }

        impl<$($generics)*> serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&$crate::config::form::Form::to_text(self))
            }
        }
    };
    ($($name:ty),*) => {
        $($crate::config::form::leaf!([] $name);)*
    };
}
pub(super) use leaf;

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// For counts of things in memory.
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// For rates.
    pub fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Form for Count<MIN, MAX> {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn from_text(_: &str) -> Option<Self> {
        None
    }

    fn from_integer(n: u64) -> Option<Self> {
        (MIN..=MAX).contains(&n).then_some(Self(n))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl<'de, const MIN: u64, const MAX: u64> serde::Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(FormVisitor(PhantomData))
    }
}

impl<const MIN: u64, const MAX: u64> serde::Serialize for Count<MIN, MAX> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Form for Address {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an IP address and a port, such as \"127.0.0.1:8080\"")
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// A form that is one of a few words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $right:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word used in settings.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Form for $name {
            fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($right)
            }

            fn from_text(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)* _ => None }
            }

            fn to_text(&self) -> String {
                self.as_str().to_owned()
            }
        }
    };
}

words! {
    /// Who is let in.
    AuthMode, "\"keys\" or \"open\"", {
        /// Whoever presents a caller key.
        Keys = "keys",
        /// Everyone; for loopback only.
        Open = "open",
    }
}

words! {
    /// How much is logged.
    Level, "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"", {
        /// Only what failed.
        Error = "error",
        /// And what an operator should look at.
        Warn = "warn",
        /// And what happened.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

impl Form for Role {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"reader\" or \"operator\"")
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Reader, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == text)
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

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

/// A foreign type as a setting.
#[derive(Clone, Debug)]
pub struct Of<T>(pub T);

impl<'de, T: Form> serde::Deserialize<'de> for Of<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(FormVisitor(PhantomData)).map(Self)
    }
}

impl<T: Form> serde::Serialize for Of<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_text())
    }
}

leaf!(
    Address,
    AuthMode,
    Level,
    VariableName,
    FileName,
    Text,
    BilledId,
    CallerName,
    Credential,
    Expiry,
    Zone
);

/// Reads a list of forms; any wrong one makes the whole setting wrong.
fn list<'de, T, A, V>(mut seq: A, max: usize, visitor: &V) -> Result<Vec<T>, A::Error>
where
    T: Form,
    A: SeqAccess<'de>,
    V: Visitor<'de>,
{
    let mut items = Vec::new();
    while let Some(item) = seq
        .next_element::<Of<T>>()
        .map_err(|_| refused::<_, A::Error>(visitor))?
    {
        if items.len() == max {
            return Err(refused(visitor));
        }
        items.push(item.0);
    }
    Ok(items)
}

impl Form for CallerKeyHash {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash")
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    /// Its first digits: enough to tell keys apart.
    fn to_text(&self) -> String {
        let mut text = self.to_string();
        text.truncate("sha256:".len() + 8);
        text.push('…');
        text
    }
}

/// The hashes of a caller's keys: one, or a list during a rotation.
#[derive(Clone, Debug)]
pub struct KeyHashes(pub Vec<CallerKeyHash>);

impl<'de> serde::Deserialize<'de> for KeyHashes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Hashes;
        impl<'de> Visitor<'de> for Hashes {
            type Value = KeyHashes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "\"sha256:\" and 64 lowercase hex digits, or a list of 1 to {KEYS_MAX} such; `msp-gateway caller new` prints it"
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<KeyHashes, E> {
                CallerKeyHash::parse(text)
                    .map(|hash| KeyHashes(vec![hash]))
                    .ok_or_else(|| refused(&self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<KeyHashes, A::Error> {
                let hashes = list(seq, KEYS_MAX, &self)?;
                if hashes.is_empty() {
                    return Err(refused(&self));
                }
                Ok(KeyHashes(hashes))
            }
        }
        d.deserialize_any(Hashes)
    }
}

impl serde::Serialize for KeyHashes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => s.serialize_str(&one.to_text()),
            many => s.collect_seq(many.iter().map(Form::to_text)),
        }
    }
}

/// Whose data a caller may see.
#[derive(Clone, Debug)]
pub struct Customers(pub Audience);

impl<'de> serde::Deserialize<'de> for Customers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = Customers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "[\"*\"] alone, or a list of 1 to {CUSTOMERS_MAX} customer ids"
                )
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Customers, A::Error> {
                let texts: Vec<Text> = list(seq, CUSTOMERS_MAX, &self)?;
                if let [Text(star)] = texts.as_slice()
                    && star == "*"
                {
                    return Ok(Customers(Audience::All));
                }
                let ids: Option<Vec<CustomerId>> = texts
                    .iter()
                    .map(|text| CustomerId::parse(&text.0).ok())
                    .collect();
                match ids {
                    Some(ids) if !ids.is_empty() => Ok(Customers(Audience::only(ids))),
                    _ => Err(refused(&self)),
                }
            }
        }
        d.deserialize_any(Ids)
    }
}

impl serde::Serialize for Customers {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Audience::All => s.collect_seq(["*"]),
            Audience::Only(ids) => s.collect_seq(ids.iter().map(CustomerId::as_str)),
        }
    }
}

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
