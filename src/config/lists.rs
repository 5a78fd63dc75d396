//! Forms that are lists: a caller's keys, the names in its certificates, and its customers.

use std::fmt;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

use super::form::{Form, Of, refused};
use super::names::Text;
use crate::access::{CallerKeyHash, ClientSan};
use crate::domain::{Audience, CustomerId};

/// Keys one caller may have at once. Two are needed during a rotation.
const KEYS_MAX: usize = 16;
/// Names of certificates one caller may have.
const SANS_MAX: usize = 16;
/// Customers one caller may list. An MSP with more gives the caller `["*"]`.
const CUSTOMERS_MAX: usize = 10_000;

/// Reads a list of forms; any wrong one makes the whole setting wrong.
pub(super) fn list<'de, T, A, V>(mut seq: A, max: usize, visitor: &V) -> Result<Vec<T>, A::Error>
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

impl Form for ClientSan {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a DNS name or a URI")
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

/// The names in certificates that speak for a caller.
#[derive(Clone, Debug)]
pub struct ClientSans(pub Vec<ClientSan>);

impl<'de> serde::Deserialize<'de> for ClientSans {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = ClientSans;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "a list of 1 to {SANS_MAX} DNS names or URIs, such as \"dashboards.internal\" or \"spiffe://corp.example/dashboards\", without wildcards"
                )
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ClientSans, A::Error> {
                let names = list(seq, SANS_MAX, &self)?;
                if names.is_empty() {
                    return Err(refused(&self));
                }
                Ok(ClientSans(names))
            }
        }
        d.deserialize_any(Names)
    }
}

impl serde::Serialize for ClientSans {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(Form::to_text))
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
