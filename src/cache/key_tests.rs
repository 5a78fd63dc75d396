//! The identity by properties: what means the same shares, and any one changed input separates, but
//! for the exemptions that `key.rs` lists.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::domain::CustomerId;
use crate::domain::json::Object;
use crate::domain::period::DateRange;
use crate::domain::query::SearchRequest;

/// Choices of spelling, taken one by one and from the start again when used up.
struct Spelling<'a>(&'a [u8], usize);

impl Spelling<'_> {
    fn draw(&mut self, n: usize) -> usize {
        self.1 += 1;
        usize::from(self.0[self.1 % self.0.len()]) % n
    }

    fn space(&mut self, out: &mut String) {
        out.push_str(["", "", " ", "\n", "\t ", "\r\n"][self.draw(6)]);
    }

    fn text(&mut self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            let escaped = self.draw(3) == 0 || c.is_control() || c == '"' || c == '\\';
            if escaped {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&match self.draw(2) {
                        0 => format!("\\u{unit:04x}"),
                        _ => format!("\\u{unit:04X}"),
                    });
                }
            } else {
                out.push(c);
            }
        }
        out.push('"');
    }

    fn members(&mut self, mut members: Vec<(String, String)>, out: &mut String) {
        for at in (1..members.len()).rev() {
            members.swap(at, self.draw(at + 1));
        }
        out.push('{');
        for (at, (name, value)) in members.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            self.space(out);
            self.text(name, out);
            self.space(out);
            out.push(':');
            self.space(out);
            out.push_str(value);
            self.space(out);
        }
        out.push('}');
    }

    fn value(&mut self, value: &Value) -> String {
        let mut out = String::new();
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
            Value::Number(digits) => out.push_str(digits),
            Value::Text(text) => self.text(text, &mut out),
            Value::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    self.space(&mut out);
                    out.push_str(&self.value(item));
                }
                self.space(&mut out);
                out.push(']');
            }
            Value::Object(members) => {
                let members = members.iter();
                let members = members
                    .map(|(name, value)| (name.to_string(), self.value(value)))
                    .collect();
                self.members(members, &mut out);
            }
        }
        out
    }

    /// A body that asks `query`, with whatever is exempt besides.
    fn body(&mut self, query: &SearchQuery) -> String {
        let mut members: Vec<(String, String)> = query
            .extra
            .iter()
            .map(|(name, value)| (name.to_string(), self.value(value)))
            .collect();
        match query.range {
            Some(range) => {
                let days = [("start", range.start()), ("end", range.end())];
                let days = days.map(|(name, day)| (name.to_owned(), format!("\"{day}\"")));
                let mut text = String::new();
                self.members(days.to_vec(), &mut text);
                members.push(("date_range".into(), text));
            }
            None if self.draw(2) == 0 => members.push(("date_range".into(), "null".into())),
            None => {}
        }
        match self.draw(3) {
            0 => {}
            1 => members.push(("max_returned_items".into(), "null".into())),
            _ => members.push((
                "max_returned_items".into(),
                (1 + self.draw(500)).to_string(),
            )),
        }
        match self.draw(3) {
            0 => members.push(("start_page_key".into(), "null".into())),
            1 => members.push(("start_page_key".into(), r#"{"scroll_id":"x"}"#.into())),
            _ => {}
        }
        let mut out = String::new();
        self.space(&mut out);
        self.members(members, &mut out);
        self.space(&mut out);
        out
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?"
            .prop_map(|digits| Value::Number(digits.into())),
        "\\PC{0,6}".prop_map(|text| Value::Text(text.into())),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::btree_map("[a-c]{0,2}", inner, 0..4).prop_map(|members| {
                let members = members.into_iter();
                Value::Object(members.map(|(name, value)| (name.into(), value)).collect())
            }),
        ]
    })
}

fn queries() -> impl Strategy<Value = SearchQuery> {
    let extra = proptest::collection::btree_map("[a-z]{1,3}", values(), 0..4);
    let day = || (1i8..=28).prop_map(|day| jiff::civil::date(2026, 5, day));
    let range = proptest::option::of((day(), day()));
    let customer = proptest::option::of("org_[1-9]");
    (customer, range, extra).prop_map(|(customer, range, extra)| SearchQuery {
        customer: customer.map(|id| CustomerId::parse(&id).unwrap()),
        range: range.and_then(|(a, b)| DateRange::new(a.min(b), a.max(b))),
        extra: extra.into_iter().map(|(n, v)| (n.into(), v)).collect(),
    })
}

fn account(text: &str) -> AccountId {
    AccountId::parse(text).unwrap()
}

fn key(query: SearchQuery) -> CacheKey {
    CacheKey::new(account("wiv"), Subject::Search(Arc::new(query)))
}

fn read(query: &SearchQuery, spelling: &[u8]) -> SearchQuery {
    let body = Spelling(spelling, 0).body(query);
    let request = SearchRequest::parse(body.as_bytes(), query.customer.clone());
    request
        .unwrap_or_else(|problem| panic!("{body:?}: {problem}"))
        .query
}

/// Another value at this place or below it.
fn changed(value: &Value, at: &Index) -> Value {
    match value {
        Value::Null => Value::Bool(false),
        Value::Bool(is) => Value::Bool(!is),
        // The same number, written otherwise, is another one.
        Value::Number(digits) if digits.contains(['e', 'E']) => {
            Value::Number(format!("-{digits}").replace("--", "").into())
        }
        Value::Number(digits) if digits.contains('.') => Value::Number(format!("{digits}0").into()),
        Value::Number(digits) => Value::Number(format!("{digits}.0").into()),
        Value::Text(text) => Value::Text(format!("{text}\u{301}").into()),
        Value::List(items) if items.is_empty() => Value::List(vec![Value::Null]),
        Value::List(items) => {
            let mut items = items.clone();
            let at_item = at.index(items.len());
            items[at_item] = changed(&items[at_item], at);
            Value::List(items)
        }
        Value::Object(members) if members.is_empty() => Value::List(Vec::new()),
        Value::Object(members) => Value::Object(changed_member(members, at)),
    }
}

fn changed_member(members: &Object, at: &Index) -> Object {
    let mut out = members.clone();
    let name = members.keys().nth(at.index(members.len())).unwrap();
    out.insert(name.clone(), changed(&members[name], at));
    out
}

/// Every query that differs from `query` in one input.
fn neighbours(query: &SearchQuery, at: &Index) -> Vec<SearchQuery> {
    let with = |change: &dyn Fn(&mut SearchQuery)| {
        let mut other = query.clone();
        change(&mut other);
        other
    };
    let mut out = vec![
        with(&|q| {
            q.customer = match &q.customer {
                None => Some(CustomerId::parse("org_1").unwrap()),
                Some(id) => Some(CustomerId::parse(&format!("{id}0")).unwrap()),
            };
        }),
        with(&|q| {
            q.range = match q.range {
                None => {
                    DateRange::new(jiff::civil::date(2026, 5, 1), jiff::civil::date(2026, 5, 2))
                }
                Some(range) => DateRange::new(range.start(), range.end().tomorrow().unwrap()),
            };
        }),
        // `null` equals absent for documented members only.
        with(&|q| {
            q.extra.insert("more".into(), Value::Null);
        }),
    ];
    if query.customer.is_some() {
        out.push(query.for_all_customers());
    }
    if let Some(range) = query.range {
        out.push(with(&|q| q.range = None));
        let earlier = range.start().yesterday().unwrap();
        out.push(with(&|q| q.range = DateRange::new(earlier, range.end())));
    }
    if let Some(first) = query.extra.keys().next() {
        out.push(with(&|q| q.extra = changed_member(&query.extra, at)));
        out.push(with(&|q| {
            q.extra.remove(first);
        }));
        out.push(with(&|q| {
            let value = q.extra.remove(first).unwrap();
            q.extra.insert(format!("{first}_").into(), value);
        }));
    }
    out
}

proptest! {
    #[test]
    fn equal_by_meaning_share(
        query in queries(),
        one in proptest::collection::vec(any::<u8>(), 64),
        two in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let (a, b) = (key(read(&query, &one)), key(read(&query, &two)));
        prop_assert_eq!(&a, &key(query));
        prop_assert_eq!(&a, &b);
        prop_assert_eq!(a.fingerprint(), b.fingerprint());
    }

    #[test]
    fn one_changed_input_separates(
        query in queries(),
        at in any::<Index>(),
        spelling in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let own = key(query.clone());
        for other in neighbours(&query, &at) {
            let other = key(read(&other, &spelling));
            prop_assert_ne!(&own, &other);
            prop_assert_ne!(own.fingerprint(), other.fingerprint());
        }
        let elsewhere = CacheKey::new(account("wiv2"), own.subject().clone());
        prop_assert_ne!(&own, &elsewhere);
        prop_assert_ne!(own.fingerprint(), elsewhere.fingerprint());
    }
}

#[test]
fn parts_do_not_run_into_each_other() {
    let parse = |body: &str| key(SearchRequest::parse(body.as_bytes(), None).unwrap().query);
    for (one, two) in [
        (r#"{"a":"bc"}"#, r#"{"ab":"c"}"#),
        (r#"{"a":["b","c"]}"#, r#"{"a":["b"],"c":[]}"#),
        (r#"{"a":[[],[]]}"#, r#"{"a":[[[]]]}"#),
        (r#"{"a":1,"b":2}"#, r#"{"a":12,"b":""}"#),
        (r#"{"a":"1"}"#, r#"{"a":1}"#),
        (r#"{"a":null}"#, "{}"),
        (r#"{"a":1}"#, r#"{"a":1.0}"#),
        (r#"{"a":1e0}"#, r#"{"a":1E0}"#),
        (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
    ] {
        assert_ne!(parse(one), parse(two), "{one} {two}");
        // By their hashes alone, for keys compare their parts as well.
        let hash = |body| *parse(body).fingerprint();
        assert_ne!(hash(one), hash(two), "{one} {two}");
    }
}

#[test]
fn kinds_months_and_contracts_separate() {
    let month = |text| Month::parse(text).unwrap();
    let contract = |text| ContractId::parse(text).unwrap();
    let billing = |m, c| Subject::Billing {
        month: month(m),
        contract: contract(c),
    };
    let subjects = [
        Subject::Customers,
        Subject::Search(Arc::default()),
        billing("202409", "1"),
        billing("202410", "1"),
        billing("202409", "11"),
        Subject::Invoices {
            month: month("202409"),
        },
        Subject::Invoices {
            month: month("202410"),
        },
    ];
    let keys: HashSet<CacheKey> = ["a", "b"]
        .iter()
        .flat_map(|id| subjects.clone().map(|s| CacheKey::new(account(id), s)))
        .collect();
    assert_eq!(keys.len(), 2 * subjects.len());
    let hashes: HashSet<_> = keys.iter().map(|key| *key.fingerprint()).collect();
    assert_eq!(hashes.len(), keys.len());
}

#[test]
fn keys_whose_hashes_met_are_told_apart_by_their_parts() {
    let own = key(SearchQuery::default());
    let subject = Subject::Customers;
    for (credential, subject) in [
        (account("other"), own.subject.clone()),
        (own.credential.clone(), subject),
    ] {
        let met = CacheKey {
            credential,
            subject,
            fingerprint: own.fingerprint,
        };
        assert_ne!(own, met);
    }
    let other_hash = CacheKey {
        fingerprint: [7; 32],
        ..own.clone()
    };
    assert_ne!(own, other_hash);
}

#[test]
fn keys_spread_in_a_table_and_show_the_start_of_their_fingerprint() {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    let table = BuildHasherDefault::<DefaultHasher>::default();
    let hashes: HashSet<u64> = (1..=100)
        .map(|n| account(&format!("a{n}")))
        .map(|account| table.hash_one(CacheKey::new(account, Subject::Customers)))
        .collect();
    assert_eq!(hashes.len(), 100);
    let shown = CacheKey {
        fingerprint: std::array::from_fn(|at| u8::try_from(at % 15).unwrap() * 17),
        ..key(SearchQuery::default())
    };
    assert_eq!(shown.to_string(), "0011223344556677");
    assert_eq!(format!("{shown:?}"), "CacheKey(0011223344556677)");
}
