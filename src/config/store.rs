//! The rules of `[store.valkey]`.

use super::check::ValkeySettings;
use super::file::File;
use super::form::StoreKind;
use super::report::Report;
use super::sources::named;

/// Returns the server's settings; `None` where the store is of another kind, or they are wrong.
pub(super) fn valkey(file: &File, report: &mut Report) -> Option<ValkeySettings> {
    let table = &file.store.valkey;
    let password = named(
        "store.valkey.password",
        &table.password_env,
        &table.password_file,
        report,
    );
    if table.prefix.0.is_empty() {
        report.rule("store.valkey.prefix", "must not be empty");
    }
    if file.store.kind != StoreKind::Valkey {
        return None;
    }
    let addresses = table.addresses.0.clone();
    if addresses.is_empty() {
        report.rule(
            "store.valkey.addresses",
            "is missing: kind = \"valkey\" needs the address of a server",
        );
        return None;
    }
    if !table.username.0.is_empty() && password.is_none() {
        report.rule(
            "store.valkey.password_file",
            "is missing: username needs the password of the user",
        );
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(ValkeySettings {
        tls: table.tls.unwrap_or_else(|| is_beyond(file)),
        ca_file: text(&table.ca_file.0).map(Into::into),
        username: text(&table.username.0),
        password,
        prefix: table.prefix.0.clone(),
        timeout: table.timeout.get(),
        lease: table.lease.get(),
        replicas_min: table.replicas_min.into(),
        addresses,
    })
}

/// Whether the server is beyond this machine.
fn is_beyond(file: &File) -> bool {
    let mut addresses = file.store.valkey.addresses.0.iter();
    !addresses.all(|address| address.is_loopback())
}

/// Lists what is allowed and yet probably not meant.
pub(super) fn warnings(file: &File) -> Vec<String> {
    let table = &file.store.valkey;
    let used = file.store.kind == StoreKind::Valkey;
    if used && table.tls == Some(false) && is_beyond(file) {
        return vec![
            "store.valkey.tls: off, although the server is not on this machine; the password crosses the network unencrypted".to_owned(),
        ];
    }
    if used && table.tls != Some(true) && !is_beyond(file) && !table.ca_file.0.is_empty() {
        return vec![
            "store.valkey.ca_file: not used, because connections to this machine use TLS only with store.valkey.tls = true".to_owned(),
        ];
    }
    Vec::new()
}
