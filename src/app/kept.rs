//! The store: its place, and the keys that seal it.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use super::BuildError;
use crate::cache::Lifetimes;
use crate::clock::{Clock, Duration};
use crate::config::{Secrets, Settings, StoreKind, ValkeySettings};
use crate::metrics::Metrics;
use crate::secrets::SealingKey;
use crate::store::{
    Disk, DiskOptions, SealedRecord, Store, Valkey, ValkeyAccess, ValkeyLives, ValkeyOptions,
};
use crate::upstream::client_tls;

/// Keeps keys that are derived for the store apart from those of page tokens.
const STORE_PURPOSE: &str = "msp-gateway 2026 store";

/// Returns the keys that a purpose derives from the secret of page tokens: the current one and the
/// previous one. Without such a secret they come from the wiv key; without that either, there are
/// none.
pub(super) fn sealing_keys(
    secrets: &Secrets,
    purpose: &'static str,
) -> (Option<SealingKey>, Option<SealingKey>) {
    let derive = |secret| SealingKey::derive(purpose, secret);
    let of_vendor = |key| SealingKey::derive_from_vendor(purpose, key);
    let wiv = secrets.vendors.wiv.as_ref().map(|wiv| &wiv.keys);
    let current = match (&secrets.token_key, wiv) {
        (Some(secret), _) => Some(derive(secret)),
        (None, Some(keys)) => Some(of_vendor(&keys.primary)),
        (None, None) => None,
    };
    let previous = match (&secrets.token_key_previous, &secrets.token_key, wiv) {
        (Some(secret), _, _) => Some(derive(secret)),
        // While a vendor key is rotated, what was sealed with the other one stays good.
        (None, None, Some(keys)) => keys.fallback.as_ref().map(of_vendor),
        (None, _, _) => None,
    };
    (current, previous)
}

/// Returns the cipher of the store's records. `None` without a secret that outlives the process.
///
/// # Errors
/// If the cipher refuses a key.
pub fn store_seal(secrets: &Secrets) -> Result<Option<SealedRecord>, BuildError> {
    let (Some(current), previous) = sealing_keys(secrets, STORE_PURPOSE) else {
        return Ok(None);
    };
    match SealedRecord::new(&current, previous.as_ref()) {
        Some(records) => Ok(Some(records)),
        None => Err(BuildError("the cipher refused the store's key".to_owned())),
    }
}

/// Begins to open the store that the settings name.
///
/// # Errors
/// If the cipher refuses a key or the system gives no thread. What the disk says is heard later.
pub fn open_store(
    settings: &Settings,
    secrets: &Secrets,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Store, BuildError> {
    let lost = match settings.store.kind {
        StoreKind::None => return Ok(Store::none()),
        StoreKind::Disk if settings.store.directory.is_none() => {
            tracing::info!(
                "nothing is kept across a restart: store.directory is empty, and the service manager set no STATE_DIRECTORY"
            );
            return Ok(Store::none());
        }
        StoreKind::Disk => "nothing is kept across a restart",
        StoreKind::Valkey => "nothing is kept across a restart or shared with other gateways",
    };
    let Some(records) = store_seal(secrets)? else {
        tracing::warn!(
            "{lost}: the store has no key to seal with; configure a wiv key, pagination.token_key_file or pagination.token_key_env"
        );
        return Ok(Store::none());
    };
    if secrets.token_key.is_none() {
        tracing::warn!(
            "the store is sealed with a key derived from the wiv key, so a new wiv key empties it; set pagination.token_key_file to avoid that"
        );
    }
    if settings.store.kind == StoreKind::Valkey {
        let options = valkey_options(&settings.store.valkey, settings, secrets)?;
        let engine = Valkey::new(options, clock.clone(), metrics.store.resolve());
        return Ok(Store::over(engine, records, clock.clone(), metrics));
    }
    let Some(directory) = settings.store.directory.clone() else {
        return Ok(Store::none());
    };
    let options = DiskOptions {
        directory,
        bytes_max: settings.store.bytes_max,
    };
    let disk = Disk::open(options, metrics.store.resolve()).map_err(|error| {
        BuildError(format!(
            "the thread of the store cannot be started: {error}"
        ))
    })?;
    Ok(Store::over(disk, records, clock.clone(), metrics))
}

/// How the server of `store.valkey` is used.
fn valkey_options(
    valkey: &ValkeySettings,
    settings: &Settings,
    secrets: &Secrets,
) -> Result<ValkeyOptions, BuildError> {
    let tls = match valkey.uses_tls() {
        true => Some(Arc::new(trusting(valkey.ca_file.as_deref())?)),
        false => None,
    };
    Ok(ValkeyOptions {
        access: ValkeyAccess {
            addresses: valkey.addresses.clone(),
            tls,
            username: valkey.username.clone(),
            password: secrets.valkey_password.clone(),
        },
        prefix: valkey.prefix.clone(),
        timeout: valkey.timeout,
        lease: valkey.lease,
        lives: lives(settings),
        replicas_min: valkey.replicas_min,
        when_away: valkey.when_away,
    })
}

/// Returns the time after which no setting allows a record to be used.
fn lives(settings: &Settings) -> ValkeyLives {
    let policy = &settings.policy;
    let whole = |lives: Lifetimes| lives.fresh + lives.stale.max(lives.on_error);
    let cases = [policy.cases.open, policy.cases.recent, policy.cases.closed];
    let billing = [policy.billing_current, policy.billing_closed];
    let answers = policy.lists.each().chain(billing).map(whole);
    let pages = &settings.snapshots;
    let snapshots = cases
        .into_iter()
        .map(whole)
        .fold(pages.token_lifetime, Duration::max);
    ValkeyLives {
        answers: answers.fold(policy.billing_negative, Duration::max),
        snapshots: snapshots.min(pages.snapshot_lifetime_max),
    }
}

/// TLS that trusts the authorities of a file, or those whom the system trusts.
fn trusting(ca_file: Option<&Path>) -> Result<ClientConfig, BuildError> {
    let authorities = ca_file.map(|file| {
        crate::server::authorities(file).map_err(|problem| {
            let (file, why) = (file.display(), problem.why);
            BuildError(format!("store.valkey.ca_file: {file} {why}"))
        })
    });
    client_tls(authorities.transpose()?)
        .map_err(|error| BuildError(format!("TLS to Valkey cannot be set up: {error}")))
}
