//! A vendor's settings, checked.

use super::file::{File, VendorTable};
use super::report::{Report, rules};
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
    let (options, least) = (&table.options, table.requests_per_minute_min);
    let vendor = options.row.vendor.as_str();
    let (key, key_fallback) = (table.api_key.source(), table.api_key_fallback.source());
    let kept = table.account.source();
    let (given, has_key) = (&table.account_id, key.is_some());
    rules! { report, vendor;
        "connect_timeout" if options.connect_timeout > options.timeout =>
            "must not be longer than {vendor}.timeout";
        "requests_per_minute_min" if table.learn_rate && least > options.requests_per_minute =>
            "must not be more than {vendor}.requests_per_minute";
        "api_key_env" if key_fallback.is_some() && !has_key =>
            "is missing: a fallback key is configured, so {vendor}.api_key_env or {vendor}.api_key_file must be set too";
        "account_id" if given.is_some() && kept.is_some() =>
            "is given more than once; keep one of account_id, account_id_env and account_id_file";
        "account_id" if has_key && given.is_none() && kept.is_none() =>
            "is missing: give account_id, account_id_env or account_id_file beside the key";
    }
    Some(VendorSettings {
        options: VendorOptions {
            learn_down_to: table.learn_rate.then_some(least),
            hold_down_max,
            ..options.clone()
        },
        account: match (given.clone(), kept) {
            (Some(id), None) => AccountSource::Given(id),
            (None, Some(source)) => AccountSource::Kept(source),
            _ => return None,
        },
        key: key?,
        key_fallback,
        optional: table.optional,
    })
}
