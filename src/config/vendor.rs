//! A vendor's settings, checked.

use super::file::{self, File};
use super::form::{Of, cut, forms};
use super::report::Report;
use super::sources::named;
use crate::domain::{AccountId, PerVendor, Vendor};
use crate::secrets::SecretSource;
use crate::upstream::{BaseUrl, ProxyUrl, VendorOptions};

forms! {
    BaseUrl: "an https URL with a host and an optional path, without user, query or fragment (plain http only to localhost or a literal IP address)",
        Self::parse, Self::to_string;
    ProxyUrl: "http://host:port of a proxy that takes CONNECT, without user and path",
        Self::parse, Self::to_string;
}

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

/// Checks a vendor's table, whichever it is, and makes its settings with the account that a
/// function finds; `None` where the vendor is disabled or wrong.
macro_rules! checked {
    ($vendor:ident, $table:expr, $limits:expr, $report:expr, $account:expr) => {{
        let (vendor, table, report) = (Vendor::$vendor, &$table, $report);
        let at = |setting: &str| format!("{}.{setting}", vendor.as_str());
        if table.connect_timeout.get() > table.timeout.get() {
            let text = format!("must not be longer than {}", at("timeout"));
            report.rule(&at("connect_timeout"), text);
        }
        let (least, most) = (table.requests_per_minute_min, table.requests_per_minute);
        if table.learn_rate && least.0 > most.0 {
            let text = format!("must not be more than {}", at("requests_per_minute"));
            report.rule(&at("requests_per_minute_min"), text);
        }
        let (env, file) = (&table.api_key_env, &table.api_key_file);
        let key = named(&at("api_key"), env, file, report);
        let (env, file) = (&table.api_key_fallback_env, &table.api_key_fallback_file);
        let key_fallback = named(&at("api_key_fallback"), env, file, report);
        let keys = match (key, key_fallback) {
            (Some(key), fallback) => Some((key, fallback)),
            (None, None) => None,
            (None, Some(_)) => {
                let (env, file) = (at("api_key_env"), at("api_key_file"));
                report.rule(
                    &env,
                    format!("is missing: a fallback key is configured, so {env} or {file} must be set too"),
                );
                None
            }
        };
        let find: fn(&_, bool, &mut Report) -> Option<AccountSource> = $account;
        let account = find(table, keys.is_some(), report);
        let url = table.base_url.0.clone();
        let options = cut!(VendorOptions from table => {
            requests_per_minute, concurrency, concurrency_adaptive, timeout, connect_timeout,
        }
            proxy: table.proxy_url.as_ref().map(|Of(url)| url.clone()),
            key_header: table.api_key_header.0.clone(),
            learn_down_to: table.learn_rate.then_some(least.into()),
            hold_down_max: $limits.hold_down_max.get(),
            ..VendorOptions::new(vendor, url, AccountId::of_disabled())
        );
        keys.zip(account)
            .map(|((key, key_fallback), account)| VendorSettings {
                options,
                account,
                key,
                key_fallback,
                optional: table.optional,
            })
    }};
}

/// Cuts the vendors' tables; `None` where a vendor is disabled or wrong.
pub(super) fn vendors(file: &File, report: &mut Report) -> PerVendor<Option<VendorSettings>> {
    PerVendor {
        wiv: checked!(Wiv, file.wiv, file.limits, &mut *report, wiv_account),
        nable: checked!(Nable, file.nable, file.limits, &mut *report, nable_account),
    }
}

fn wiv_account(wiv: &file::Wiv, _: bool, _: &mut Report) -> Option<AccountSource> {
    // The form was an account id's already.
    let account = AccountId::parse(&wiv.credential.0).ok()?;
    Some(AccountSource::Given(account))
}

fn nable_account(nable: &file::Nable, has_key: bool, report: &mut Report) -> Option<AccountSource> {
    let path = "nable.account_id";
    let (env, file) = (&nable.account_id_env, &nable.account_id_file);
    match (&nable.account_id, named(path, env, file, report)) {
        (Some(_), Some(_)) => {
            let text = "is given more than once; keep one of account_id, account_id_env and account_id_file";
            report.rule(path, text);
            None
        }
        (Some(Of(id)), None) => Some(AccountSource::Given(id.clone())),
        (None, Some(source)) => Some(AccountSource::Kept(source)),
        (None, None) => {
            let text = "is missing: N-able needs account_id, account_id_env or account_id_file beside its key";
            if has_key {
                report.rule(path, text);
            }
            None
        }
    }
}
