//! Forms that are lists of texts: a caller's keys, the names in its certificates and its customers;
//! origins that may read answers, host names of the admin listener, and addresses of Valkey.

use std::marker::PhantomData;

use figment::value::Value;
use serde_json::json;
use toml::Value as Toml;

use super::form::{Form, forms, texts};
use crate::access::{CallerKeyHash, ClientSan};
use crate::domain::CustomerId;
use crate::exchange::site::{Origin, is_host};
use crate::store::ValkeyAddress;

/// A list of `MIN` to `MAX` texts. Its item's [`Form::right`] says what would be right of the list.
/// One wrong item makes the whole setting wrong. `ALONE`: a single item may be written without a
/// list.
pub struct List<T, const MIN: usize, const MAX: usize, const ALONE: bool = false>(PhantomData<T>);
/// The name of a host.
pub struct Host;
/// An item of a caller's `customers`: a customer, or `*` for all of them, which is `None`.
pub struct Visible;
/// A caller's `customers`. An MSP with more of them gives the caller `["*"]`.
pub struct VisibleCustomers;

type Ids = List<Visible, 1, 10_000>;

forms! {
    where [T: Form, const MIN: usize, const MAX: usize, const ALONE: bool] List<T, MIN, MAX, ALONE> => Vec<T::Value>:
        T::right(),
        (match ALONE {
            true => json!({"anyOf": [T::shape(), {"type": "array", "items": T::shape()}]}),
            false => json!({"type": "array", "items": T::shape()}),
        }),
        |given| {
            let items = match given {
                Value::Array(_, items) => items.as_slice(),
                Value::String(..) if ALONE => std::slice::from_ref(given),
                _ => return None,
            };
            let fits = (MIN..=MAX).contains(&items.len());
            fits.then(|| items.iter().map(T::take).collect())?
        },
        |value| match value.as_slice() {
            [one] if ALONE => T::show(one),
            many => Toml::Array(many.iter().map(T::show).collect()),
        };
    VisibleCustomers => Vec<Option<CustomerId>>: Ids::right(), (Ids::shape()),
        |given| Ids::take(given).filter(|ids| ids.len() == 1 || ids.iter().all(Option::is_some)),
        Ids::show;
}

texts! {
    CallerKeyHash => Self: "\"sha256:\" and 64 lowercase hexadecimal digits, or a list of 1 to 16 of these; `msp-gateway caller new` prints one",
        Self::parse,
        |hash| {
            // Its first digits: enough to distinguish keys.
            let mut text = hash.to_string();
            text.truncate("sha256:".len() + 8);
            text + "…"
        };
    ClientSan => Self: "a list of 1 to 16 DNS names or URIs, such as \"dashboards.internal\" or \"spiffe://corp.example/dashboards\", without wildcards",
        Self::parse, |name| name.as_str().to_owned();
    ValkeyAddress => Self: "a list of at most 16 addresses, each a host and a port such as \"valkey.internal:6379\"",
        Self::parse, Self::to_string;
    Origin => Self: "a list of at most 100 origins such as \"https://dash.example:8443\": http or https in lower case, without a path or the scheme's default port",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: Form>(text: &str) -> Option<Vec<T::Value>> {
        let table: toml::Table = toml::from_str(text).unwrap();
        List::<T, 0, 100>::take(&Value::serialize(&table["x"]).unwrap())
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
