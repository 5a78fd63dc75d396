//! Holds `config.toml` at the root of the repository to the mirror, both ways.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

use super::file::File;
use super::form::{Setting as _, below};
use super::from_text;
use super::report::Report;
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

/// The paths of the settings in a table of the reference, as the declaration has them.
fn in_reference(table: &toml::Table, before: &str, into: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = below(before, name);
        match value {
            toml::Value::Table(table) => in_reference(table, &path, into),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                into.insert(path.clone());
                for item in items {
                    in_reference(item.as_table().unwrap(), &format!("{path}[]"), into);
                }
            }
            _ => drop(into.insert(path)),
        }
    }
}

#[test]
fn every_key_is_in_the_reference_and_every_key_there_is_known() {
    let table: toml::Table = toml::from_str(&uncommented()).unwrap();
    let (mut there, mut known) = (BTreeSet::new(), BTreeSet::new());
    in_reference(&table, "", &mut there);
    File::each(&File::default(), "", &mut |path, _, _| {
        known.insert(path.to_owned());
    });
    assert_eq!(there, known);
}

#[test]
fn what_is_active_in_the_reference_is_the_default() {
    let active: toml::Table = toml::from_str(REFERENCE).unwrap();
    let (mut parsed, mut report) = (File::default(), Report::default());
    let given = Value::serialize(&active).unwrap();
    let mut given = Dict::from([(String::new(), given)]);
    File::read(&mut parsed, &mut given, "", &mut report);
    assert_eq!(report.verdict(), Ok(()));
    let values = |file: &File| {
        let mut values = Vec::new();
        File::each(file, "", &mut |path, value, _| {
            values.push((path.to_owned(), value))
        });
        values
    };
    assert_eq!(values(&parsed), values(&File::default()));
    // And nothing with a default is commented out there.
    let mut there = BTreeSet::new();
    in_reference(&active, "", &mut there);
    for (path, value) in values(&File::default()) {
        let empty = value.is_none_or(|value| value.as_str() == Some(""));
        assert!(empty || there.contains(&path), "{path}");
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
fn default_urls_are_right() {
    for url in [
        File::default().wiv.options.base_url,
        File::default().nable.options.base_url,
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
    for name in super::restart::NEEDS_RESTART {
        let there = marked.iter().any(|path| path.starts_with(name));
        assert!(there, "{name} is not in the reference");
    }
}
