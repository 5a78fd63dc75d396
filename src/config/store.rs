//! The rules of `[store.valkey]`.

use super::check::ValkeySettings;
use super::file::File;
use super::form::StoreKind;
use super::report::Report;
use super::sources::named;
use crate::store::WhenAway;

/// Returns the server's settings; `None` where the store is of another kind, or they are wrong.
pub(super) fn valkey(file: &File, report: &mut Report) -> Option<ValkeySettings> {
    let table = &file.store.valkey;
    let (env, by_file) = (&table.password_env, &table.password_file);
    let password = named("store.valkey.password", env, by_file, report);
    if table.prefix.is_empty() {
        report.rule("store.valkey.prefix", "must not be empty");
    }
    if file.store.kind != StoreKind::Valkey {
        if table.when_away != WhenAway::Open {
            report.rule(
                "store.valkey.when_away",
                format!(
                    "is \"{}\", which needs store.kind = \"valkey\"; with kind = \"{}\" it must be \"open\"",
                    table.when_away.as_str(),
                    file.store.kind.as_str()
                ),
            );
        }
        return None;
    }
    if table.addresses.is_empty() {
        report.rule(
            "store.valkey.addresses",
            "is missing: kind = \"valkey\" needs the address of a server",
        );
        return None;
    }
    if table.username.is_some() && password.is_none() {
        report.rule(
            "store.valkey.password_file",
            "is missing: username needs the password of the user",
        );
    }
    Some(ValkeySettings {
        addresses: table.addresses.clone(),
        tls: table.tls.unwrap_or_else(|| is_beyond(file)),
        ca_file: table.ca_file.clone(),
        username: table.username.clone(),
        password,
        prefix: table.prefix.clone(),
        timeout: table.timeout,
        lease: table.lease,
        replicas_min: table.replicas_min,
        when_away: table.when_away,
    })
}

/// Whether the server is beyond this machine.
fn is_beyond(file: &File) -> bool {
    let mut addresses = file.store.valkey.addresses.iter();
    !addresses.all(|address| address.is_loopback())
}

/// Returns warnings about settings that are valid but probably not intended.
pub(super) fn warnings(file: &File) -> Vec<String> {
    let table = &file.store.valkey;
    let used = file.store.kind == StoreKind::Valkey;
    if used && table.tls == Some(false) && is_beyond(file) {
        return vec![
            "store.valkey.tls: off, although the server is not on this machine; the password crosses the network unencrypted".to_owned(),
        ];
    }
    if used && table.tls != Some(true) && !is_beyond(file) && table.ca_file.is_some() {
        return vec![
            "store.valkey.ca_file: not used, because connections to this machine use TLS only with store.valkey.tls = true".to_owned(),
        ];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use crate::config::{self, StoreKind};
    use crate::store::WhenAway;

    #[test]
    fn only_a_shared_store_may_forbid_to_go_on_without_it() {
        let read = |kind: &str, mode: &str| {
            let text = format!(
                "[auth]\nmode = \"open\"\n[listen]\npublic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[wiv]\nbase_url = \"http://127.0.0.1:1\"\napi_key_env = \"PATH\"\n[store]\nkind = \"{kind}\"\n[store.valkey]\naddresses = [\"127.0.0.1:6379\"]\nwhen_away = \"{mode}\"\n"
            );
            config::from_text("c", &text, Vec::new())
        };
        for (mode, meant) in [
            ("open", WhenAway::Open),
            ("stale_only", WhenAway::StaleOnly),
            ("closed", WhenAway::Closed),
        ] {
            let settings = read("valkey", mode).unwrap();
            assert_eq!(settings.store.kind, StoreKind::Valkey);
            assert_eq!(settings.store.valkey.unwrap().when_away, meant);
            for kind in ["disk", "none"] {
                let read = read(kind, mode);
                if mode == "open" {
                    assert!(read.is_ok(), "{kind}");
                    continue;
                }
                let refusal = format!("{:?}", read.err().unwrap());
                let said = format!(
                    "is \\\"{mode}\\\", which needs store.kind = \\\"valkey\\\"; with kind = \\\"{kind}\\\" it must be \\\"open\\\""
                );
                assert!(refusal.contains(&said), "{refusal}");
            }
        }
        let refusal = read("valkey", "shut").err().unwrap();
        assert!(format!("{refusal:?}").contains("stale_only"), "{refusal:?}");
    }
}
