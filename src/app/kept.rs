//! The store: its place, and the keys that seal it.

use std::sync::Arc;

use super::BuildError;
use crate::clock::Clock;
use crate::config::{Secrets, Settings};
use crate::metrics::Metrics;
use crate::secrets::SealingKey;
use crate::store::{Disk, DiskOptions, SealedRecord, Store};

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
    if !settings.store.enabled {
        return Ok(Store::none());
    }
    let Some(directory) = settings.store.directory.clone() else {
        tracing::info!(
            "nothing is kept across a restart: store.directory is empty, and the service manager set no STATE_DIRECTORY"
        );
        return Ok(Store::none());
    };
    let Some(records) = store_seal(secrets)? else {
        tracing::warn!(
            "nothing is kept across a restart: without a wiv key, the store needs pagination.token_key_file or pagination.token_key_env to be sealed with"
        );
        return Ok(Store::none());
    };
    if secrets.token_key.is_none() {
        tracing::warn!(
            "the store is sealed with a key derived from the wiv key, so a new wiv key empties it; name a secret in pagination.token_key_file to keep it"
        );
    }
    let options = DiskOptions {
        directory,
        bytes_max: settings.store.bytes_max,
    };
    let disk = Disk::open(options, metrics.store.resolve())
        .map_err(|error| BuildError(format!("the store has no thread: {error}")))?;
    Ok(Store::over(disk, records, clock.clone(), metrics))
}
