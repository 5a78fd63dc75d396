//! Holds `config.toml` at the root of the repository to the mirror, both ways.

use std::collections::BTreeSet;

use figment::error::Kind;
use figment::value::{Dict, Value};
use serde::Deserialize;

use super::file::{self, File};
use super::from_text;
use crate::upstream::BaseUrl;

const REFERENCE: &str = include_str!("../../config.toml");

/// The file with its commented keys and tables in force: `#` right before a key or a bracket. Of
/// keys that exclude each other the commented ones are left out where `all` is false.
fn uncommented() -> String {
    let key = |rest: &str| {
        rest.starts_with("[[")
            || rest
                .split_once(" = ")
                .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if key(rest) => rest,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The names of a table's keys. serde lists them in its error about an unknown key.
fn names<'de, T: Deserialize<'de>>() -> BTreeSet<String> {
    let odd = Value::from(Dict::from([("?".to_owned(), Value::from(0))]));
    let Err(error) = odd.deserialize::<T>() else {
        panic!("no table takes a key \"?\"");
    };
    match error.kind {
        Kind::UnknownField(_, known) => known.iter().map(|name| (*name).to_owned()).collect(),
        kind => panic!("{kind:?}"),
    }
}

/// The names of the keys under a path of the reference, its first table where it is a list.
fn in_reference(table: &toml::Table, path: &str) -> BTreeSet<String> {
    let mut at: Vec<&toml::Table> = vec![table];
    for level in path.split('.').filter(|level| !level.is_empty()) {
        at = match &at[0][level] {
            toml::Value::Table(below) => vec![below],
            toml::Value::Array(items) => items.iter().map(|i| i.as_table().unwrap()).collect(),
            _ => panic!("{path} is no table"),
        };
    }
    at.into_iter()
        .flat_map(|table| table.keys().cloned())
        .collect()
}

#[test]
fn every_key_is_in_the_reference_and_every_key_there_is_known() {
    let table: toml::Table = toml::from_str(&uncommented()).unwrap();
    for (path, known) in [
        ("", names::<File>()),
        ("listen", names::<file::Listen>()),
        ("listen.public_tls", names::<file::ListenTls>()),
        ("listen.admin_tls", names::<file::ListenTls>()),
        ("auth", names::<file::Auth>()),
        ("cors", names::<file::Cors>()),
        ("callers", names::<file::Caller>()),
        ("limits", names::<file::Limits>()),
        ("wiv", names::<file::Wiv>()),
        ("nable", names::<file::Nable>()),
        ("customers", names::<file::CustomersLives>()),
        ("cases", names::<file::Cases>()),
        ("cases.open", names::<file::OpenLives>()),
        ("cases.recent", names::<file::RecentLives>()),
        ("cases.closed", names::<file::ClosedLives>()),
        ("billing", names::<file::Billing>()),
        ("billing.current", names::<file::BillingCurrentLives>()),
        ("billing.closed", names::<file::BillingClosedLives>()),
        ("links", names::<file::Link>()),
        ("pagination", names::<file::Pagination>()),
        ("cache", names::<file::Cache>()),
        ("store", names::<file::Store>()),
        ("store.valkey", names::<file::StoreValkey>()),
        ("compression", names::<file::Compression>()),
        ("log", names::<file::Log>()),
        ("console", names::<file::Console>()),
        ("traces", names::<file::Traces>()),
    ] {
        assert_eq!(in_reference(&table, path), known, "[{path}]");
    }
}

#[test]
fn what_is_active_in_the_reference_is_the_default() {
    let parsed: File = toml::from_str(REFERENCE).unwrap();
    let plain = |file: &File| toml::to_string(file).unwrap();
    assert_eq!(plain(&parsed), plain(&File::default()));
    // And nothing with a default is commented out there.
    let shown: toml::Table = toml::from_str(&plain(&File::default())).unwrap();
    let active: toml::Table = toml::from_str(REFERENCE).unwrap();
    for (name, table) in shown.iter().filter(|(_, value)| value.is_table()) {
        for (key, value) in table.as_table().unwrap() {
            let empty = value.as_str() == Some("");
            assert!(empty || active[name].get(key).is_some(), "{name}.{key}");
        }
    }
}

#[test]
fn the_reference_is_accepted_once_a_caller_and_a_vendor_are_in_it() {
    let refused = from_text("config.toml", REFERENCE, []).unwrap_err();
    let refused = refused.to_string();
    let [vendor, caller] = refused.lines().collect::<Vec<_>>()[..] else {
        panic!("{refused}");
    };
    assert!(
        vendor.starts_with("config.toml: no vendor has a key: "),
        "{vendor}"
    );
    assert_eq!(
        caller,
        "config.toml: callers: no caller is configured: add the [[callers]] stanza that `msp-gateway caller new NAME` prints"
    );
    let with_caller = REFERENCE.replace("#[[callers]]", "[[callers]]");
    let with_caller: String = with_caller
        .lines()
        .map(|line| match line {
            l if l.starts_with("#name")
                || l.starts_with("#api_key_env")
                || l.starts_with("#account_id_env")
                || l.starts_with("#key_hash")
                || l.starts_with("#customers") =>
            {
                &l[1..]
            }
            l => l,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let settings = from_text("config.toml", &with_caller, []).unwrap();
    assert!(
        settings.vendors.wiv.is_some()
            && settings.vendors.nable.is_some()
            && settings.warnings.is_empty()
    );
    assert_eq!(settings.callers[0].name, "dashboards");
}

#[test]
fn the_examples_in_comments_are_accepted() {
    // Of keys that exclude each other, only one may stand.
    let text: String = uncommented()
        .lines()
        .filter(|line| !line.contains("_env = ") && !line.starts_with("account_id = "))
        .fold(String::new(), |text, line| text + line + "\n");
    let settings = from_text("config.toml", &text, []).unwrap();
    assert_eq!(settings.policy.links.len(), 2);
    assert!(settings.vendors.wiv.unwrap().key_fallback.is_some());
}

#[test]
fn defaults_are_those_of_the_modules() {
    let text = "auth.mode = \"open\"\nwiv.api_key_env = \"K\"";
    let settings = from_text("c", text, []).unwrap();
    let expected = crate::snapshot::SnapshotOptions::default();
    assert_eq!(format!("{:?}", settings.snapshots), format!("{expected:?}"));
    for url in [
        File::default().wiv.base_url.0,
        File::default().nable.base_url.0,
    ] {
        assert_eq!(BaseUrl::parse(&url.to_string()), Some(url));
    }
}

#[test]
fn the_container_settings_are_accepted() {
    let text = include_str!("../../deploy/gateway.toml");
    let settings = from_text("gateway.toml", text, []).unwrap();
    assert!(settings.vendors.wiv.is_some() && settings.vendors.nable.is_some());
}

#[test]
fn the_reference_marks_what_needs_a_restart_and_nothing_else() {
    let mut table = "";
    let mut marked = BTreeSet::new();
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            table = name;
        }
        let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") else {
            continue;
        };
        if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            let path = format!("{table}.{key}");
            let is_marked = line.ends_with(" (restart)");
            assert_eq!(is_marked, super::needs_restart(&path), "{path}");
            if is_marked {
                marked.insert(path);
            }
        }
    }
    for name in super::NEEDS_RESTART {
        let there = marked.iter().any(|path| path.starts_with(name));
        assert!(there, "{name} is not in the reference");
    }
}
