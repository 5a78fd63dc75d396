//! Forms that are lists of texts: a caller's keys, the names in its certificates and its customers;
//! origins that may read answers, host names of the admin listener, and addresses of Valkey.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use figment::value::Value;
use serde_json::{Value as Json, json};
use toml::Value as Toml;

use super::form::{Form, forms};
use crate::access::{CallerKeyHash, ClientSan};
use crate::domain::CustomerId;
use crate::exchange::site::{Origin, is_host};
use crate::store::ValkeyAddress;

/// An item of a list of texts. Its [`Form::right`] says what would be right of the list.
pub trait Listed: Form {
    /// Fewest and most items.
    const COUNT: RangeInclusive<usize>;
    /// Whether a single item may be written without a list.
    const ALONE: bool = false;

    /// Returns whether these items may be in one list.
    fn fit_together(_: &[Self::Value]) -> bool {
        true
    }
}

/// A list of texts. One wrong item makes the whole setting wrong.
pub struct List<T>(PhantomData<T>);

impl<T: Listed> Form for List<T> {
    type Value = Vec<T::Value>;

    fn right() -> String {
        T::right()
    }

    fn take(given: &Value) -> Option<Self::Value> {
        let items = match given {
            Value::Array(_, items) => items.as_slice(),
            Value::String(..) if T::ALONE => std::slice::from_ref(given),
            _ => return None,
        };
        if !T::COUNT.contains(&items.len()) {
            return None;
        }
        let items: Vec<_> = items.iter().map(T::take).collect::<Option<_>>()?;
        T::fit_together(&items).then_some(items)
    }

    fn show(value: &Self::Value) -> Toml {
        match value.as_slice() {
            [one] if T::ALONE => T::show(one),
            many => Toml::Array(many.iter().map(T::show).collect()),
        }
    }

    fn shape() -> Json {
        let (text, list) = (T::shape(), json!({"type": "array", "items": T::shape()}));
        match T::ALONE {
            true => json!({"anyOf": [text, list]}),
            false => list,
        }
    }
}

/// The name of a host.
pub struct Host;
/// An item of a caller's `customers`: a customer, or `*` for all of them, which is `None`.
pub struct Visible;

forms! {
    CallerKeyHash: "\"sha256:\" and 64 lowercase hexadecimal digits, or a list of 1 to 16 of these; `msp-gateway caller new` prints one",
        Self::parse,
        |hash| {
            // Its first digits: enough to distinguish keys.
            let mut text = hash.to_string();
            text.truncate("sha256:".len() + 8);
            text + "…"
        };
    ClientSan: "a list of 1 to 16 DNS names or URIs, such as \"dashboards.internal\" or \"spiffe://corp.example/dashboards\", without wildcards",
        Self::parse, |name| name.as_str().to_owned();
    ValkeyAddress: "a list of at most 16 addresses, each a host and a port such as \"valkey.internal:6379\"",
        Self::parse, Self::to_string;
    Origin: "a list of at most 100 origins such as \"https://dash.example:8443\": http or https in lower case, without a path or the scheme's default port",
        Self::parse, Self::to_string;
    Host => String: "a list of at most 100 host names in lower case, without ports",
        |text| is_host(text).then(|| text.to_owned()), String::clone;
    Visible => Option<CustomerId>: "[\"*\"] alone, or a list of 1 to 10000 customer ids",
        |text| match text {
            "*" => Some(None),
            id => CustomerId::parse(id).ok().map(Some),
        },
        |id| id.as_ref().map_or("*", CustomerId::as_str).to_owned();
}

// Two keys are needed during a rotation.
impl Listed for CallerKeyHash {
    const COUNT: RangeInclusive<usize> = 1..=16;
    const ALONE: bool = true;
}

impl Listed for ClientSan {
    const COUNT: RangeInclusive<usize> = 1..=16;
}

// A primary has seldom more replicas.
impl Listed for ValkeyAddress {
    const COUNT: RangeInclusive<usize> = 0..=16;
}

// Each request is compared with all of them.
impl Listed for Origin {
    const COUNT: RangeInclusive<usize> = 0..=100;
}

impl Listed for Host {
    const COUNT: RangeInclusive<usize> = 0..=100;
}

// An MSP with more customers gives the caller `["*"]`.
impl Listed for Visible {
    const COUNT: RangeInclusive<usize> = 1..=10_000;

    fn fit_together(items: &[Option<CustomerId>]) -> bool {
        items.len() == 1 || items.iter().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: Listed>(text: &str) -> Option<Vec<T::Value>> {
        let table: toml::Table = toml::from_str(text).unwrap();
        List::<T>::take(&Value::serialize(&table["x"]).unwrap())
    }

    #[test]
    fn lists_for_browsers_are_checked_whole() {
        let origins = |text: &str| of::<Origin>(text).map(|origins| origins.len());
        assert_eq!(origins("x = []"), Some(0));
        assert_eq!(
            origins("x = [\"https://a.example\", \"http://b:1\"]"),
            Some(2)
        );
        assert_eq!(origins("x = [\"https://a.example\", \"*\"]"), None);
        assert_eq!(origins("x = \"https://a.example\""), None);
        let many = format!("x = [{}]", "\"http://a\",".repeat(101));
        assert_eq!(origins(&many), None);
        assert_eq!(of::<Host>("x = [\"a.b\"]"), Some(vec!["a.b".to_owned()]));
        assert_eq!(of::<Host>("x = [\"a.b:9180\"]"), None);
        assert_eq!(of::<Host>("x = [\"A\"]"), None);
    }
}
