//! A vendor's settings, checked.

use std::fmt;

use http::HeaderName;

use super::file;
use super::form::{Form, Of};
use super::report::Report;
use super::sources::named;
use crate::clock::Duration;
use crate::domain::{AccountId, Vendor};
use crate::secrets::SecretSource;
use crate::upstream::{BaseUrl, ProxyUrl};

impl Form for BaseUrl {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an https URL of a host and perhaps a path, without user, query or fragment (plain http only to localhost or a literal IP address)",
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Form for ProxyUrl {
    fn expecting(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http://host:port of a proxy that takes CONNECT, without user and path")
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
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
    /// Which one.
    pub vendor: Vendor,
    /// Where it is.
    pub base_url: BaseUrl,
    /// Asked for a tunnel to it; `None`: connections are direct.
    pub proxy: Option<ProxyUrl>,
    /// Carries the key.
    pub key_header: HeaderName,
    /// The vendor's budget.
    pub requests_per_minute: u32,
    /// Where the vendor's limit is to be learnt: the least requests a minute.
    pub learn_down_to: Option<u32>,
    /// Calls at once.
    pub concurrency: usize,
    /// Fewer while the vendor is late.
    pub concurrency_adaptive: bool,
    /// For one attempt, until its body was read.
    pub timeout: Duration,
    /// For its connection.
    pub connect_timeout: Duration,
    /// The longest wait that its headers can ask for.
    pub hold_down_max: Duration,
    /// Whose data the keys show; names the credential in every cache key.
    pub account: AccountSource,
    /// Holds the key.
    pub key: SecretSource,
    /// Holds the key to use when the vendor refuses the first.
    pub key_fallback: Option<SecretSource>,
    /// Disabled where its key is not there, instead of refused.
    pub optional: bool,
}

/// The keys of a vendor: `None` where it is disabled.
fn vendor_keys(
    table: &str,
    key: Option<SecretSource>,
    fallback: Option<SecretSource>,
    report: &mut Report,
) -> Option<(SecretSource, Option<SecretSource>)> {
    match (key, fallback) {
        (Some(key), fallback) => Some((key, fallback)),
        (None, None) => None,
        (None, Some(_)) => {
            report.rule(
                &format!("{table}.api_key_env"),
                format!("a fallback is named, so {table}.api_key_env or {table}.api_key_file must be too"),
            );
            None
        }
    }
}

fn attempt(table: &str, timeout: file::Wait, connect: file::Wait, report: &mut Report) {
    if connect.get() > timeout.get() {
        report.rule(
            &format!("{table}.connect_timeout"),
            format!("must not be longer than {table}.timeout"),
        );
    }
}

/// The least rate, where it is to be learnt.
fn learn_down_to(
    table: &str,
    learn: bool,
    least: u32,
    most: u32,
    report: &mut Report,
) -> Option<u32> {
    if learn && least > most {
        report.rule(
            &format!("{table}.requests_per_minute_min"),
            format!("must not be more than {table}.requests_per_minute"),
        );
    }
    learn.then_some(least)
}

/// wiv; `None` where it is disabled or wrong.
pub(super) fn wiv(
    wiv: &file::Wiv,
    limits: &file::Limits,
    report: &mut Report,
) -> Option<VendorSettings> {
    attempt("wiv", wiv.timeout, wiv.connect_timeout, report);
    let learn_down_to = learn_down_to(
        "wiv",
        wiv.learn_rate,
        wiv.requests_per_minute_min.to_u32(),
        wiv.requests_per_minute.to_u32(),
        report,
    );
    let key = named("wiv.api_key", &wiv.api_key_env, &wiv.api_key_file, report);
    let fallback = named(
        "wiv.api_key_fallback",
        &wiv.api_key_fallback_env,
        &wiv.api_key_fallback_file,
        report,
    );
    let (key, key_fallback) = vendor_keys("wiv", key, fallback, report)?;
    Some(VendorSettings {
        vendor: Vendor::Wiv,
        base_url: wiv.base_url.0.clone(),
        proxy: wiv.proxy_url.as_ref().map(|Of(url)| url.clone()),
        key_header: wiv.api_key_header.0.clone(),
        requests_per_minute: wiv.requests_per_minute.to_u32(),
        learn_down_to,
        concurrency: wiv.concurrency.to_usize(),
        concurrency_adaptive: wiv.concurrency_adaptive,
        timeout: wiv.timeout.get(),
        connect_timeout: wiv.connect_timeout.get(),
        hold_down_max: limits.hold_down_max.get(),
        // The form was an account id's already.
        account: AccountSource::Given(AccountId::parse(&wiv.credential.0).ok()?),
        key,
        key_fallback,
        optional: wiv.optional,
    })
}

/// N-able; `None` where it is disabled or wrong.
pub(super) fn nable(
    nable: &file::Nable,
    limits: &file::Limits,
    report: &mut Report,
) -> Option<VendorSettings> {
    attempt("nable", nable.timeout, nable.connect_timeout, report);
    let learn_down_to = learn_down_to(
        "nable",
        nable.learn_rate,
        nable.requests_per_minute_min.to_u32(),
        nable.requests_per_minute.to_u32(),
        report,
    );
    let key = named(
        "nable.api_key",
        &nable.api_key_env,
        &nable.api_key_file,
        report,
    );
    let fallback = named(
        "nable.api_key_fallback",
        &nable.api_key_fallback_env,
        &nable.api_key_fallback_file,
        report,
    );
    let kept = named(
        "nable.account_id",
        &nable.account_id_env,
        &nable.account_id_file,
        report,
    );
    let account = match (&nable.account_id, kept) {
        (Some(_), Some(_)) => {
            report.rule(
                "nable.account_id",
                "is named twice: keep one of account_id, account_id_env and account_id_file",
            );
            None
        }
        (Some(Of(id)), None) => Some(AccountSource::Given(id.clone())),
        (None, Some(source)) => Some(AccountSource::Kept(source)),
        (None, None) => None,
    };
    let (key, key_fallback) = vendor_keys("nable", key, fallback, report)?;
    let Some(account) = account else {
        report.rule(
            "nable.account_id",
            "is missing: N-able needs account_id, account_id_env or account_id_file beside its key",
        );
        return None;
    };
    Some(VendorSettings {
        vendor: Vendor::Nable,
        base_url: nable.base_url.0.clone(),
        proxy: nable.proxy_url.as_ref().map(|Of(url)| url.clone()),
        key_header: nable.api_key_header.0.clone(),
        requests_per_minute: nable.requests_per_minute.to_u32(),
        learn_down_to,
        concurrency: nable.concurrency.to_usize(),
        concurrency_adaptive: nable.concurrency_adaptive,
        timeout: nable.timeout.get(),
        connect_timeout: nable.connect_timeout.get(),
        hold_down_max: limits.hold_down_max.get(),
        account,
        key,
        key_fallback,
        optional: nable.optional,
    })
}
