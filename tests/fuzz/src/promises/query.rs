//! Query strings: read as a plain reader reads them, or refused.

use msp_gateway::api::query_string::{Params, VALUE_BYTES_MAX};

use super::unescaped;

const KNOWN: [&str; 5] = ["fields", "customer_id", "start", "end", "format"];

/// What a plain reader makes of it; `None` where it should be refused.
fn plainly(query: &str) -> Option<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    if query.is_empty() {
        return Some(found);
    }
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (unescaped(name, true)?, unescaped(value, true)?);
        let fine = KNOWN.contains(&&*name)
            && found.iter().all(|(other, _)| *other != name)
            && value.len() <= VALUE_BYTES_MAX
            && !value.chars().any(char::is_control);
        if !fine {
            return None;
        }
        found.push((name, value));
    }
    Some(found)
}

pub fn hold(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else {
        return;
    };
    match (Params::parse(Some(query), &KNOWN), plainly(query)) {
        (Ok(params), Some(plain)) => {
            for name in KNOWN {
                let theirs = plain.iter().find(|(other, _)| other == name);
                assert_eq!(
                    params.get(name),
                    theirs.map(|(_, value)| &**value),
                    "{query}"
                );
            }
            if let Ok(Some(id)) = params.customer() {
                assert_eq!(Some(id.as_str()), params.get("customer_id"));
            }
            if let Ok(Some(range)) = params.range() {
                assert!(range.start() <= range.end());
                assert_eq!(Some(&*range.start().to_string()), params.get("start"));
                assert_eq!(Some(&*range.end().to_string()), params.get("end"));
            }
        }
        (Err(problem), None) => {
            assert_eq!(problem.code().status(), 400);
            assert!(
                problem.detail().chars().count() < 400,
                "{}",
                problem.detail()
            );
            assert!(!problem.detail().chars().any(char::is_control));
        }
        (ours, plain) => panic!("{query:?}: {ours:?} but {plain:?}"),
    }
}
