//! The rules of `[[callers]]`.

use std::collections::HashMap;

use super::file::{CALLERS_MAX, File};
use super::form::AuthMode;
use super::report::Report;
use super::tls::asks_for_certificates;
use crate::access::{CallerSpec, Role};
use crate::domain::Audience;

/// Returns the callers, complete and told apart by name and by key.
pub(super) fn specs(file: &File, report: &mut Report) -> Vec<CallerSpec> {
    if file.callers.len() > CALLERS_MAX {
        report.rule("callers", format!("must be at most {CALLERS_MAX}"));
        return Vec::new();
    }
    if file.callers.is_empty() && file.auth.mode == AuthMode::Keys {
        report.rule(
            "callers",
            "no caller is configured: add the [[callers]] stanza that `msp-gateway caller new NAME` prints",
        );
    }
    let (mut names, mut keys, mut sans) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut specs = Vec::with_capacity(file.callers.len());
    for (i, caller) in file.callers.iter().enumerate() {
        let at = |setting: &str| format!("callers[{i}].{setting}");
        let known_by = caller.key_hash.is_some() || caller.client_san.is_some();
        let (Some(name), true, Some(customers)) = (&caller.name, known_by, &caller.customers)
        else {
            for (missing, setting, why) in [
                (
                    caller.name.is_none(),
                    "name",
                    "is missing: give the caller a name",
                ),
                (
                    !known_by,
                    "key_hash",
                    "is missing: `msp-gateway caller new NAME` prints it; or give client_san",
                ),
                (
                    caller.customers.is_none(),
                    "customers",
                    "is missing: list customer ids, or [\"*\"] for all",
                ),
            ] {
                if missing {
                    report.rule(&at(setting), why);
                }
            }
            continue;
        };
        if let Some(first) = names.insert(name.clone(), i) {
            let text = format!("callers[{first}] has this name already");
            report.rule(&at("name"), text);
        }
        let hashes = caller.key_hash.as_deref().unwrap_or_default();
        for hash in hashes {
            if let Some(first) = keys.insert(*hash, i) {
                let text = format!("callers[{first}] has this key already");
                report.rule(&at("key_hash"), text);
            }
        }
        let known = caller.client_san.as_deref().unwrap_or_default();
        for san in known {
            if let Some(first) = sans.insert(san.clone(), i) {
                let text = format!("callers[{first}] has one of these names already");
                report.rule(&at("client_san"), text);
            }
        }
        let ids: Option<Vec<_>> = customers.iter().cloned().collect();
        let audience = ids.map_or(Audience::All, Audience::only);
        specs.push(CallerSpec {
            name: name.clone(),
            keys: hashes.to_vec(),
            sans: known.to_vec(),
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

/// Returns warnings about settings that are valid and yet cannot work.
pub(super) fn warnings(file: &File) -> Vec<String> {
    if asks_for_certificates(&file.listen) {
        return Vec::new();
    }
    let with_names = file
        .callers
        .iter()
        .enumerate()
        .filter(|(_, c)| c.client_san.is_some());
    with_names
        .map(|(i, _)| {
            format!(
                "callers[{i}].client_san: no listener asks for certificates; set client_auth in listen.public_tls or listen.admin_tls"
            )
        })
        .collect()
}
