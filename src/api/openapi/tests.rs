//! Tests that the description is complete and that `docs/openapi.json` is up to date.

use std::collections::BTreeSet;

use super::*;
use crate::api::routes::{case_changes, case_export, case_search, customers, events, overview};
use crate::domain::{PageSize, Route};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

fn operations(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap();
        assert_eq!(item.len(), 1, "{path}");
        (path.clone(), item.values().next().unwrap().clone())
    };
    paths.iter().map(of).collect()
}

/// Collects every reference in a part of the document.
fn references(part: &Value, into: &mut BTreeSet<String>) {
    match part {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("$ref", Value::String(place)) => drop(into.insert(place.clone())),
                    _ => references(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

#[test]
fn the_file_in_docs_is_the_description() {
    let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_DESCRIPTION").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        kept == text,
        "docs/openapi.json is not what the program answers; UPDATE_DESCRIPTION=1 cargo test --lib openapi:: rewrites it"
    );
}

#[test]
fn every_route_is_described_once() {
    let document = document();
    assert_eq!(document["paths"].as_object().unwrap().len(), TABLE.len());
    let mut ids = BTreeSet::new();
    let tags: Vec<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    for (path, operation) in operations(&document) {
        for member in ["operationId", "summary", "description"] {
            assert!(
                operation[member]
                    .as_str()
                    .is_some_and(|text| text.len() > 5),
                "{path}: {member}"
            );
        }
        assert!(
            ids.insert(operation["operationId"].to_string()),
            "{path}: its id is taken"
        );
        assert!(tags.contains(&&operation["tags"][0]), "{path}: no tag");
        // Every parameter of the pattern, and examples of good answers.
        let all = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let all: Vec<_> = all
            .iter()
            .map(|parameter| resolved(&document, parameter))
            .collect();
        let in_path: Vec<_> = all
            .iter()
            .filter(|p| p["in"] == "path")
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        let wanted: Vec<_> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        assert_eq!(in_path, wanted, "{path}");
        for parameter in &all {
            assert!(
                parameter["description"].is_string() && !parameter["example"].is_null(),
                "{path}"
            );
        }
        let good = &operation["responses"]["200"]["content"];
        for (media, of) in good.as_object().unwrap() {
            assert!(of["schema"].is_object(), "{path} {media}");
            assert!(
                !of["examples"].as_object().unwrap().is_empty(),
                "{path} {media}"
            );
        }
    }
}

fn resolved<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(place) => document
            .pointer(&place[1..])
            .unwrap_or_else(|| panic!("no {place}")),
        None => part,
    }
}

#[test]
fn what_is_referred_to_is_there_and_what_is_there_is_used() {
    let document = document();
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for place in &used {
        assert!(
            document.pointer(&place[1..]).is_some(),
            "there is no {place}"
        );
    }
    for kind in ["parameters", "headers", "responses", "schemas"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let place = format!("#/components/{kind}/{name}");
            assert!(used.contains(&place), "nothing refers to {place}");
        }
    }
}

#[test]
fn every_code_is_some_routes_but_those_of_other_places() {
    let used: Vec<Code> = TABLE.iter().flat_map(codes).collect();
    for code in Code::ALL {
        // Purge and explain are on the admin listener.
        let elsewhere = code == Code::OperatorRequired;
        assert_eq!(used.contains(&code), !elsewhere, "{code:?}");
    }
    let words = &document()["components"]["schemas"]["ProblemCode"]["enum"];
    assert_eq!(words.as_array().unwrap().len(), Code::ALL.len());
}

#[test]
fn parameters_are_those_that_are_read() {
    let document = document();
    let of = |path: &str, method: &str| -> Vec<String> {
        let listed = document["paths"][path][method]["parameters"].as_array();
        let all = listed.unwrap().iter().map(|part| resolved(&document, part));
        let query = all.filter(|p| p["in"] == "query");
        query
            .map(|p| p["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of("/msp/customers", "get"), customers::PARAMS);
    assert_eq!(of("/v2/cases/msp/search", "post"), case_search::PARAMS);
    assert_eq!(of("/v1/cases/export", "get"), case_export::PARAMS);
    assert_eq!(of("/v1/cases/changes", "get"), case_changes::PARAMS);
    assert_eq!(of("/v1/events", "get"), events::PARAMS);
    assert_eq!(of("/v1/overview", "get"), overview::PARAMS);
}

#[test]
fn bounds_are_those_that_are_held() {
    let document = document();
    let size = &document["components"]["schemas"]["CaseSearch"]["properties"]["max_returned_items"];
    assert_eq!(size["maximum"], PageSize::MAX.to_u16());
    // No `default`: a generated client would send it, also with a page token of another size.
    assert!(size["default"].is_null());
    let told = format!("Absent: {} on a first page", PageSize::DEFAULT.to_u16());
    assert!(size["description"].as_str().unwrap().contains(&told));
    let fields = &document["components"]["schemas"]["CustomerField"]["enum"];
    let members = document["components"]["schemas"]["Customer"]["properties"].as_object();
    assert_eq!(fields.as_array().unwrap().len(), members.unwrap().len());
}

#[test]
fn keyless_routes_say_so_and_others_need_a_key() {
    for (path, operation) in operations(&document()) {
        let keyless = [Route::OpenApi, Route::Docs, Route::Health]
            .iter()
            .any(|route| route.fixed_path() == Some(path.as_str()));
        let open = operation["security"] == json!([]);
        assert_eq!(open, keyless, "{path}");
        assert_eq!(
            operation["responses"]["401"].is_object(),
            !keyless,
            "{path}"
        );
    }
}
