//! Search bodies and their identity: one meaning, one key; another meaning, another key; and what
//! is written for the vendor means what was read.

use std::sync::Arc;

use msp_gateway::cache::CacheKey;
use msp_gateway::cache::key::Subject;
use msp_gateway::domain::json::{Object, Value};
use msp_gateway::domain::query::SearchRequest;
use msp_gateway::domain::{AccountId, PageSize, SearchQuery};
use msp_gateway::vendors::wiv::first_body;

/// Changes tried on one body.
const CHANGES_MAX: usize = 24;

fn key(query: &SearchQuery) -> CacheKey {
    let account = AccountId::parse("wiv").unwrap();
    CacheKey::new(account, Subject::Search(Arc::new(query.clone())))
}

/// The same text, every character of it escaped.
fn text_otherwise(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04X}"));
    }
    out.push('"');
}

/// The same value in other words: members backwards, space everywhere, texts escaped.
fn otherwise(value: &Value, out: &mut String) {
    match value {
        Value::Text(text) => text_otherwise(text, out),
        Value::List(items) => {
            out.push_str("[ ");
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "\n,\t" } else { "" });
                otherwise(item, out);
            }
            out.push_str(" ]");
        }
        Value::Object(members) => {
            out.push_str("{\r\n");
            for (at, (name, value)) in members.iter().rev().enumerate() {
                out.push_str(if at > 0 { " , " } else { "" });
                text_otherwise(name, out);
                out.push_str(" : ");
                otherwise(value, out);
            }
            out.push_str(" }");
        }
        plain => plain.write(out),
    }
}

/// Changes the value in one place, the `at`th; `false` if it has fewer.
fn change(value: &mut Value, at: &mut usize) -> bool {
    if *at == 0 {
        match value {
            Value::Null => *value = Value::Bool(false),
            Value::Bool(was) => *was = !*was,
            Value::Number(digits) if &**digits == "1" => *digits = "1.0".into(),
            Value::Number(digits) => *digits = "1".into(),
            Value::Text(text) => *text = format!("{text}\u{0}").into(),
            Value::List(items) => items.push(Value::Null),
            Value::Object(members) => {
                let mut name = String::from("n");
                while members.contains_key(&*name) {
                    name.push('n');
                }
                members.insert(name.into(), Value::Null);
            }
        }
        return true;
    }
    *at -= 1;
    match value {
        Value::List(items) => items.iter_mut().any(|item| change(item, at)),
        Value::Object(members) => members.values_mut().any(|value| change(value, at)),
        _ => false,
    }
}

pub fn hold(bytes: &[u8]) {
    let Ok(request) = SearchRequest::parse(bytes, None) else {
        // Nothing is refused by its spelling alone, so what is refused stays so between spaces.
        if !bytes.is_empty() {
            let spaced = [b" \n", bytes, b"\t"].concat();
            assert!(SearchRequest::parse(&spaced, None).is_err());
        }
        return;
    };
    let query = &request.query;
    let identity = key(query);

    // What the vendor is sent means what was read, and reads the same again.
    let sent = first_body(query, PageSize::MAX);
    let again = SearchRequest::parse(sent.as_bytes(), None).expect("we understand ourselves");
    assert_eq!(&again.query, query);
    assert_eq!(again.page_size, Some(PageSize::MAX));
    assert_eq!(again.page_token, None);
    assert_eq!(first_body(&again.query, PageSize::MAX), sent);

    // The same in other words is the same.
    let whole = msp_gateway::domain::json::parse_object(bytes).expect("it was taken");
    let mut spelled = String::new();
    otherwise(&Value::Object(whole), &mut spelled);
    let same = SearchRequest::parse(spelled.as_bytes(), None).expect("it means the same");
    assert_eq!(same, request, "{spelled}");
    assert_eq!(key(&same.query), identity);

    // A change in any one place is another search.
    let mut seen = vec![*identity.fingerprint()];
    for place in 0..CHANGES_MAX {
        let mut other = Value::Object(query.extra.clone());
        if !change(&mut other, &mut place.clone()) {
            break;
        }
        let Value::Object(extra) = other else {
            break;
        };
        seen.push(differing(query, extra));
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "two searches share an identity");
}

fn differing(query: &SearchQuery, extra: Object) -> [u8; 32] {
    let other = SearchQuery {
        extra,
        ..query.clone()
    };
    assert_ne!(key(&other), key(query));
    *key(&other).fingerprint()
}
