//! Forms that are lists: a caller's keys, the names in its certificates and its customers; whose
//! pages may read answers, and under which names the admin listener is asked.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

use super::form::{Form, Of, forms, leaf, refused};
use crate::access::{CallerKeyHash, ClientSan};
use crate::domain::{Audience, CustomerId};
use crate::exchange::site::{Origin, is_host};
use crate::store::ValkeyAddress;

/// An item of a list of settings.
pub trait Listed: Form {
    /// Fewest and most items.
    const COUNT: (usize, usize);
    /// Whether a single item may stand without a list.
    const ALONE: bool = false;
    /// What would be right, as the end of a sentence that begins with "must be".
    const RIGHT: &str;

    /// Returns whether these items may be in one list.
    fn fit_together(_: &[Self]) -> bool {
        true
    }
}

/// A list of forms. Any wrong one makes the whole setting wrong.
#[derive(Clone, Debug)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Listed> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::RIGHT)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<List<T>, E> {
        let item = T::from_text(text).filter(|_| T::ALONE);
        item.map(|item| List(vec![item]))
            .ok_or_else(|| refused(&self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
        let (min, max) = T::COUNT;
        let mut items = Vec::new();
        loop {
            match seq.next_element::<Of<T>>() {
                Ok(Some(item)) if items.len() < max => items.push(item.0),
                Ok(None) if items.len() >= min && T::fit_together(&items) => {
                    return Ok(List(items));
                }
                _ => return Err(refused(&self)),
            }
        }
    }
}

impl<'de, T: Listed> serde::Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ListVisitor(PhantomData))
    }
}

impl<T: Listed> serde::Serialize for List<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] if T::ALONE => s.serialize_str(&one.to_text()),
            many => s.collect_seq(many.iter().map(Form::to_text)),
        }
    }
}

/// The name of a host.
#[derive(Clone, Debug)]
pub struct Host(pub String);
leaf!(Host);

forms! {
    CallerKeyHash: "a hash", Self::parse, |hash| {
        // Its first digits: enough to tell keys apart.
        let mut text = hash.to_string();
        text.truncate("sha256:".len() + 8);
        text + "…"
    };
    ClientSan: "a DNS name or a URI", Self::parse, |name| name.as_str().to_owned();
    ValkeyAddress: "a host, a colon and a port", Self::parse, Self::to_string;
    Origin: "an origin", Self::parse, Self::to_string;
    Host: "a host", |text| is_host(text).then(|| Self(text.to_owned())), |host| host.0.clone();
}

// Two keys are needed during a rotation.
impl Listed for CallerKeyHash {
    const COUNT: (usize, usize) = (1, 16);
    const ALONE: bool = true;
    const RIGHT: &str = "\"sha256:\" and 64 lowercase hexadecimal digits, or a list of 1 to 16 of these; `msp-gateway caller new` prints one";
}

impl Listed for ClientSan {
    const COUNT: (usize, usize) = (1, 16);
    const RIGHT: &str = "a list of 1 to 16 DNS names or URIs, such as \"dashboards.internal\" or \"spiffe://corp.example/dashboards\", without wildcards";
}

// Each request is compared with all of them.
impl Listed for Origin {
    const COUNT: (usize, usize) = (0, 100);
    const RIGHT: &str = "a list of at most 100 origins such as \"https://dash.example:8443\": http or https in lower case, without a path or the scheme's default port";
}

impl Listed for Host {
    const COUNT: (usize, usize) = (0, 100);
    const RIGHT: &str = "a list of at most 100 host names in lower case, without ports";
}

// A primary has seldom more replicas.
impl Listed for ValkeyAddress {
    const COUNT: (usize, usize) = (0, 16);
    const RIGHT: &str =
        "a list of at most 16 addresses, each a host and a port such as \"valkey.internal:6379\"";
}

/// An item of a caller's `customers`: a customer, or `*` for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visible(pub Option<CustomerId>);

forms! {
    Visible: "a customer id",
        |text| match text {
            "*" => Some(Self(None)),
            id => CustomerId::parse(id).ok().map(|id| Self(Some(id))),
        },
        |this| this.0.as_ref().map_or("*", CustomerId::as_str).to_owned();
}

// An MSP with more customers gives the caller `["*"]`.
impl Listed for Visible {
    const COUNT: (usize, usize) = (1, 10_000);
    const RIGHT: &str = "[\"*\"] alone, or a list of 1 to 10000 customer ids";

    fn fit_together(items: &[Self]) -> bool {
        items.len() == 1 || items.iter().all(|item| item.0.is_some())
    }
}

impl List<Visible> {
    /// Returns the customers as an audience.
    pub fn audience(&self) -> Audience {
        let ids: Option<Vec<CustomerId>> = self.0.iter().map(|item| item.0.clone()).collect();
        ids.map_or(Audience::All, Audience::only)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_browsers_are_checked_whole() {
        let origins = |text: &str| toml::from_str::<toml::Table>(text).unwrap()["x"].clone();
        let of = |text: &str| {
            origins(text)
                .try_into::<List<Origin>>()
                .map(|o| o.0.len())
                .ok()
        };
        assert_eq!(of("x = []"), Some(0));
        assert_eq!(of("x = [\"https://a.example\", \"http://b:1\"]"), Some(2));
        assert_eq!(of("x = [\"https://a.example\", \"*\"]"), None);
        assert_eq!(of("x = \"https://a.example\""), None);
        let many = format!("x = [{}]", "\"http://a\",".repeat(101));
        assert_eq!(of(&many), None);
        let hosts = |text: &str| {
            origins(text)
                .try_into::<List<Host>>()
                .map(|list| list.0.into_iter().map(|host| host.0).collect::<Vec<_>>())
                .ok()
        };
        assert_eq!(hosts("x = [\"a.b\"]"), Some(vec!["a.b".to_owned()]));
        assert_eq!(hosts("x = [\"a.b:9180\"]"), None);
        assert_eq!(hosts("x = [\"A\"]"), None);
    }
}
