//! A vendor's settings, checked.

use super::file::{File, VendorTable};
use super::report::Report;
use super::sources::named;
use crate::clock::Duration;
use crate::domain::{AccountId, PerVendor, Vendor};
use crate::secrets::SecretSource;
use crate::upstream::VendorOptions;

/// Where the account's name comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSource {
    /// From the settings themselves.
    Given(AccountId),
    /// From beside the keys.
    Kept(SecretSource),
}

/// One vendor, enabled.
#[derive(Clone, Debug)]
pub struct VendorSettings {
    /// How the vendor is called. The account in it is a placeholder until the secrets are read.
    pub options: VendorOptions,
    /// Whose data the keys show; names the credential in every cache key.
    pub account: AccountSource,
    /// Holds the key.
    pub key: SecretSource,
    /// Holds the key to use when the vendor refuses the first.
    pub key_fallback: Option<SecretSource>,
    /// Disabled where its key is not there, instead of refused.
    pub optional: bool,
}

impl VendorSettings {
    /// Returns the vendor.
    pub fn vendor(&self) -> Vendor {
        self.options.row.vendor
    }
}

/// Checks the vendors' tables; `None` where a vendor is disabled or wrong.
pub(super) fn vendors(file: &File, report: &mut Report) -> PerVendor<Option<VendorSettings>> {
    let hold_down_max = file.limits.hold_down_max;
    PerVendor::from_fn(|vendor| checked(file.vendor(vendor), hold_down_max, report))
}

fn checked(
    table: &VendorTable,
    hold_down_max: Duration,
    report: &mut Report,
) -> Option<VendorSettings> {
    let options = &table.options;
    let vendor = options.row.vendor.as_str();
    let at = |setting: &str| format!("{vendor}.{setting}");
    if options.connect_timeout > options.timeout {
        let text = format!("must not be longer than {}", at("timeout"));
        report.rule(&at("connect_timeout"), text);
    }
    let least = table.requests_per_minute_min;
    if table.learn_rate && least > options.requests_per_minute {
        let text = format!("must not be more than {}", at("requests_per_minute"));
        report.rule(&at("requests_per_minute_min"), text);
    }
    let (env, file) = (&table.api_key_env, &table.api_key_file);
    let key = named(&at("api_key"), env, file, report);
    let (env, file) = (&table.api_key_fallback_env, &table.api_key_fallback_file);
    let key_fallback = named(&at("api_key_fallback"), env, file, report);
    if key.is_none() && key_fallback.is_some() {
        let (env, file) = (at("api_key_env"), at("api_key_file"));
        let text =
            format!("is missing: a fallback key is configured, so {env} or {file} must be set too");
        report.rule(&env, text);
    }
    let account = account(&at("account_id"), table, key.is_some(), report);
    Some(VendorSettings {
        options: VendorOptions {
            learn_down_to: table.learn_rate.then_some(least),
            hold_down_max,
            ..options.clone()
        },
        account: account?,
        key: key?,
        key_fallback,
        optional: table.optional,
    })
}

/// Returns where the account is named, by the setting at `path` or the two beside it.
fn account(
    path: &str,
    table: &VendorTable,
    has_key: bool,
    report: &mut Report,
) -> Option<AccountSource> {
    let (env, file) = (&table.account_id_env, &table.account_id_file);
    match (&table.account_id, named(path, env, file, report)) {
        (Some(_), Some(_)) => {
            let text = "is given more than once; keep one of account_id, account_id_env and account_id_file";
            report.rule(path, text);
            None
        }
        (Some(id), None) => Some(AccountSource::Given(id.clone())),
        (None, Some(source)) => Some(AccountSource::Kept(source)),
        (None, None) => {
            let text =
                "is missing: give account_id, account_id_env or account_id_file beside the key";
            if has_key {
                report.rule(path, text);
            }
            None
        }
    }
}
