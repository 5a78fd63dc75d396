//! The settings in force: the options of each room, cut from the tables of the file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;

use super::callers;
use super::file::{self, File, LINKS_MAX, ListenTls};
use super::form::or_list;
use super::report::{Refusal, Report, rules};
use super::rules;
use super::vendor::{self, VendorSettings};
use crate::access::CallerSpec;
use crate::cache::VariantOptions;
use crate::domain::{PerVendor, Vendor};
use crate::middleware::inbound::CrossOrigin;
use crate::reads::{GradedLifetimes, Link, LinkTo, Policy};
use crate::server::{ClientAuth, ServerOptions, TlsOptions};
use crate::snapshot::SnapshotOptions;
use crate::store::ValkeyAddress;

pub use super::file::{
    CacheSettings, ChangesSettings, ConsoleSettings, LogSettings, StoreSettings, TraceSettings,
    ValkeySettings,
};
pub use super::form::{AuthMode, StoreKind};

/// All settings, checked, as the options of each room.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[listen]` and `[limits]`.
    pub server: ServerOptions,
    /// Which callers are accepted.
    pub auth: AuthMode,
    /// The origins whose web pages may read answers.
    pub cross_origin: Option<Arc<CrossOrigin>>,
    /// `[[callers]]`; names and keys are unique.
    pub callers: Vec<CallerSpec>,
    /// The vendors; `None` where no key is named.
    pub vendors: PerVendor<Option<VendorSettings>>,
    /// Vendor calls that one caller's `Cache-Control` may force per minute.
    pub forced_refreshes_per_minute: u32,
    /// How reads judge and join.
    pub policy: Policy,
    /// Walks, snapshots and tokens.
    pub snapshots: SnapshotOptions,
    /// Answers in memory.
    pub cache: CacheSettings,
    /// States of searches that callers keep in step with.
    pub changes: ChangesSettings,
    /// The store, which outlives the process.
    pub store: StoreSettings,
    /// Which answers are encoded.
    pub compression: VariantOptions,
    /// What is logged.
    pub log: LogSettings,
    /// What the console remembers.
    pub console: ConsoleSettings,
    /// Where spans go.
    pub traces: TraceSettings,
    /// Settings that are valid but probably not intended: one line each, without values.
    pub warnings: Vec<String>,
    pub(super) file: File,
    /// Where each setting was given.
    pub(super) report: Report,
}

/// Checks the rules and cuts the tables into options.
pub(super) fn settings(file: File, mut report: Report) -> Result<Settings, Refusal> {
    let report = &mut report;
    rules::check(&file, report);
    let callers = callers::specs(&file, report);
    let vendors = vendor::vendors(&file, report);
    let policy = policy(&file, report);
    let mut store = file.store.clone();
    if store.kind != StoreKind::Valkey {
        store.valkey = ValkeySettings::default();
    }
    // Without one, nothing could ever be answered. A key that is named badly is a problem already.
    let mut words = Vendor::ALL.into_iter().map(Vendor::as_str);
    if vendors.present().next().is_none() && !words.any(|word| report.is_about(word)) {
        let of = |word: &str| ["env", "file"].map(|kind| format!("{word}.api_key_{kind}"));
        let keys = Vendor::ALL.map(|vendor| of(vendor.as_str()));
        let keys = or_list(keys.as_flattened());
        let text = format!(
            "no vendor has a key: name the variable or the file that holds one in {keys}; one vendor is enough"
        );
        report.rule("", text);
    }
    report.verdict()?;
    Ok(Settings {
        server: server(&file),
        auth: file.auth.mode,
        cross_origin: CrossOrigin::of(file.cors.origins.clone(), file.cors.max_age).map(Arc::new),
        callers,
        vendors,
        forced_refreshes_per_minute: file.limits.forced_refreshes_per_minute,
        policy,
        snapshots: file.pagination.snapshots.clone(),
        cache: file.cache,
        changes: file.changes,
        store,
        compression: file.compression,
        log: file.log,
        console: file.console,
        traces: file.traces.clone(),
        warnings: rules::warnings(&file),
        report: std::mem::take(report),
        file,
    })
}

impl StoreSettings {
    /// Takes the first of the directories that the service manager made for the gateway, where the
    /// settings name none.
    pub(super) fn or_state_directory(&mut self, given: Option<&OsStr>) {
        if self.directory.is_none() {
            let first = given
                .and_then(OsStr::to_str)
                .and_then(|all| all.split(':').next());
            self.directory = first.filter(|name| !name.is_empty()).map(Into::into);
        }
    }
}

impl ValkeySettings {
    /// Returns whether a server is beyond this machine.
    pub(super) fn is_beyond(&self) -> bool {
        !self.addresses.iter().all(ValkeyAddress::is_loopback)
    }

    /// Returns whether connections are encrypted.
    pub fn uses_tls(&self) -> bool {
        self.tls.unwrap_or_else(|| self.is_beyond())
    }
}

impl ListenTls {
    /// Returns whether the listener requests certificates from callers.
    pub(super) fn asks(&self) -> bool {
        self.client_auth != ClientAuth::None
    }

    /// Returns the TLS options of the listener. `None`: no TLS.
    fn options(&self) -> Option<TlsOptions> {
        Some(TlsOptions {
            certificate_file: self.certificate_file.clone()?,
            private_key_file: self.private_key_file.clone()?,
            client_ca_file: self.client_ca_file.clone(),
            client_auth: self.client_auth,
        })
    }
}

fn server(file: &File) -> ServerOptions {
    let (listen, limits) = (&file.listen, &file.limits);
    ServerOptions {
        public: listen.public,
        admin: listen.admin,
        public_tls: listen.public_tls.options(),
        admin_tls: listen.admin_tls.options(),
        admin_hosts: listen.admin_hosts.clone(),
        docs: listen.docs,
        header_timeout: limits.header_timeout,
        body_timeout: limits.body_timeout,
        request_timeout: limits.request_timeout,
        idle_timeout: limits.idle_timeout,
        write_stall_timeout: limits.write_stall_timeout,
        connections_max: limits.connections_max,
        connections_per_peer_max: limits.connections_per_peer_max,
        requests_in_flight_max: limits.requests_in_flight_max,
        exports_max: limits.exports_max,
        followers_max: file.changes.followers_max,
        drain_delay: limits.drain_delay,
        drain_grace: limits.drain_grace,
    }
}

fn policy(file: &File, report: &mut Report) -> Policy {
    let (cases, billing) = (&file.cases, &file.billing);
    Policy {
        lists: file.lists(),
        cases: GradedLifetimes {
            open: cases.open,
            recent: cases.recent,
            closed: cases.closed,
        },
        recent_days: cases.recent_days,
        time_zone: cases.time_zone.clone(),
        derive_customer: cases.derive_customer,
        strict_members: cases.strict_members,
        refresh_ahead: file.cache.refresh_ahead,
        billing_current: billing.current,
        billing_closed: billing.closed,
        billing_negative: billing.negative,
        links: links(&file.links, report),
    }
}

fn links(links: &[file::Link], report: &mut Report) -> Vec<Link> {
    if links.len() > LINKS_MAX {
        report.rule("links", format!("must be at most {LINKS_MAX}"));
        return Vec::new();
    }
    let mut seen = HashMap::new();
    let mut out = Vec::with_capacity(links.len());
    for (i, link) in links.iter().enumerate() {
        let at = format!("links[{i}]");
        let (id, name) = (&link.client_id, &link.client_name);
        let to = match (id.clone(), name.clone()) {
            (Some(id), None) => Some(LinkTo::Id(id)),
            (None, Some(name)) => Some(LinkTo::Name(name)),
            _ => None,
        };
        rules! { report, &at;
            "customer_id" if link.customer_id.is_none() =>
                "is missing: give the id of the linked customer";
            "client_name" if link.customer_id.is_some() && id.is_some() && name.is_some() =>
                "is given together with client_id; keep one of them";
            "client_id" if link.customer_id.is_some() && id.is_none() && name.is_none() =>
                "is missing: give client_id or client_name";
        }
        let (Some(customer), Some(to)) = (link.customer_id.clone(), to) else {
            continue;
        };
        if let Some(first) = seen.insert((customer.clone(), to.clone()), i) {
            let text = format!("repeats links[{first}]; remove one of them");
            report.rule(&format!("{at}.customer_id"), text);
        }
        out.push(Link { customer, to });
    }
    out
}
