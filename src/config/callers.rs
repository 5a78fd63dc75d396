//! The rules of `[[callers]]`.

use std::collections::HashMap;

use super::file::{CALLERS_MAX, File};
use super::form::AuthMode;
use super::report::{Report, rules};
use crate::access::{CallerSpec, Role};
use crate::domain::Audience;

/// Returns the callers, complete and told apart by name and by key.
pub(super) fn specs(file: &File, report: &mut Report) -> Vec<CallerSpec> {
    if file.callers.len() > CALLERS_MAX {
        report.rule("callers", format!("must be at most {CALLERS_MAX}"));
        return Vec::new();
    }
    rules! { report, "";
        "callers" if file.callers.is_empty() && file.auth.mode == AuthMode::Keys =>
            "no caller is configured: add the [[callers]] stanza that `msp-gateway caller new NAME` prints";
    }
    let mut seen = HashMap::new();
    let mut specs = Vec::with_capacity(file.callers.len());
    for (i, caller) in file.callers.iter().enumerate() {
        let at = format!("callers[{i}]");
        let known_by = caller.key_hash.is_some() || caller.client_san.is_some();
        rules! { report, &at;
            "name" if caller.name.is_none() => "is missing: give the caller a name";
            "key_hash" if !known_by =>
                "is missing: `msp-gateway caller new NAME` prints it; or give client_san";
            "customers" if caller.customers.is_none() =>
                "is missing: list customer ids, or [\"*\"] for all";
        }
        let (Some(name), true, Some(customers)) = (&caller.name, known_by, &caller.customers)
        else {
            continue;
        };
        let keys = caller.key_hash.clone().unwrap_or_default();
        let sans = caller.client_san.clone().unwrap_or_default();
        let names = [("name", "this name", name.clone())];
        let hashes = keys
            .iter()
            .map(|hash| ("key_hash", "this key", hash.to_string()));
        let certified = sans
            .iter()
            .map(|san| ("client_san", "one of these names", san.as_str().to_owned()));
        for (setting, what, value) in names.into_iter().chain(hashes).chain(certified) {
            if let Some(first) = seen.insert((setting, value), i) {
                let text = format!("callers[{first}] has {what} already");
                report.rule(&format!("{at}.{setting}"), text);
            }
        }
        let ids: Option<Vec<_>> = customers.iter().cloned().collect();
        let audience = ids.map_or(Audience::All, Audience::only);
        specs.push(CallerSpec {
            name: name.clone(),
            keys,
            sans,
            role: caller.role.unwrap_or(Role::Reader),
            billing: caller.billing.unwrap_or(audience.is_all()),
            audience,
            requests_per_minute: caller.requests_per_minute,
            forced_refreshes_per_minute: file.limits.forced_refreshes_per_minute,
            expires: caller.expires,
        });
    }
    specs
}
