//! The rules between settings, and the options each module owns.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::callers;
use super::file::{self, File, LINKS_MAX};
use super::form::or_list;
use super::report::{Refusal, Report, SettingPlaces};
use super::sources::named;
use super::store;
use super::tls;
use super::traces::{self, TraceSettings};
use super::vendor::{self, VendorSettings};
use crate::access::{CallerSpec, Role};
use crate::cache::VariantOptions;
use crate::clock::Duration;
use crate::domain::{PerVendor, Vendor};
use crate::middleware::inbound::CrossOrigin;
use crate::reads::{GradedLifetimes, Link, LinkTo, Policy};
use crate::secrets::SecretSource;
use crate::server::ServerOptions;
use crate::snapshot::SnapshotOptions;
use crate::store::{ValkeyAddress, WhenAway};

pub use super::file::{CacheSettings, ChangesSettings, ConsoleSettings, LogSettings};
pub use super::form::{AuthMode, StoreKind};

/// The `[store]` settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The engine that keeps the records.
    pub kind: StoreKind,
    /// The directory of the file. `None`: the settings name none, and the service manager gave
    /// none.
    pub directory: Option<PathBuf>,
    /// Maximum sealed bytes.
    pub bytes_max: u64,
    /// The server of `kind = "valkey"`; `None` for any other kind.
    pub valkey: Option<ValkeySettings>,
}

/// The `[store.valkey]` settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValkeySettings {
    /// The addresses to try. The first primary is used.
    pub addresses: Vec<ValkeyAddress>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The authorities of its certificate. `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The user. `None`: the default user.
    pub username: Option<String>,
    /// The password of the user. `None`: no password.
    pub password: Option<SecretSource>,
    /// The start of every key.
    pub prefix: String,
    /// Time limit of one operation.
    pub timeout: Duration,
    /// Lease of the claim on a search that a gateway walks.
    pub lease: Duration,
    /// Minimum number of gateways that share it.
    pub replicas_min: u32,
    /// What the gateway does while it is away.
    pub when_away: WhenAway,
}

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
    /// Seals page tokens; `None`: derived from the wiv key.
    pub token_key: Option<SecretSource>,
    /// The secret that sealed page tokens before.
    pub token_key_previous: Option<SecretSource>,
    /// What is logged.
    pub log: LogSettings,
    /// What the console remembers.
    pub console: ConsoleSettings,
    /// Where spans go; `None` where traces are off.
    pub traces: Option<TraceSettings>,
    /// Settings that are valid but probably not intended: one line each, without values.
    pub warnings: Vec<String>,
    pub(super) file: File,
    pub(super) places: SettingPlaces,
    pub(super) label: Option<Arc<str>>,
}

/// Checks the rules and cuts the mirror into options.
pub(super) fn settings(file: File, mut report: Report) -> Result<Settings, Refusal> {
    let report = &mut report;
    listeners(&file, report);
    let callers = callers::specs(&file, report);
    let vendors = vendor::vendors(&file, report);
    let policy = policy(&file, report);
    let snapshots = snapshots(&file.pagination.snapshots, report);
    let traces = traces::settings(&file.traces, report);
    let pages = &file.pagination;
    let (env, by_file) = (&pages.token_key_env, &pages.token_key_file);
    let token_key = named("pagination.token_key", env, by_file, report);
    let (env, by_file) = (
        &pages.token_key_previous_env,
        &pages.token_key_previous_file,
    );
    let token_key_previous = named("pagination.token_key_previous", env, by_file, report);
    let valkey = store::valkey(&file, report);
    // Without one, nothing could ever be answered. A key that is named badly is a problem already.
    let mut words = Vendor::ALL.into_iter().map(Vendor::as_str);
    if vendors.present().next().is_none() && !words.any(|word| report.is_about(word)) {
        let keys = Vendor::ALL.map(|vendor| {
            let word = vendor.as_str();
            [
                format!("{word}.api_key_env"),
                format!("{word}.api_key_file"),
            ]
        });
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
        snapshots,
        cache: file.cache,
        changes: file.changes,
        store: StoreSettings {
            kind: file.store.kind,
            directory: file.store.directory.clone(),
            bytes_max: file.store.bytes_max,
            valkey,
        },
        compression: file.compression,
        token_key,
        token_key_previous,
        log: file.log,
        console: file.console,
        traces,
        warnings: callers::warnings(&file)
            .into_iter()
            .chain(store::warnings(&file))
            .chain(lifetime_warnings(&file))
            .collect(),
        places: std::mem::take(&mut report.places),
        label: report.file.take(),
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

fn server(file: &File) -> ServerOptions {
    let (listen, limits) = (&file.listen, &file.limits);
    ServerOptions {
        public: listen.public,
        admin: listen.admin,
        public_tls: tls::options(&listen.public_tls),
        admin_tls: tls::options(&listen.admin_tls),
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

fn listeners(file: &File, report: &mut Report) {
    let (public, admin): (SocketAddr, SocketAddr) = (file.listen.public, file.listen.admin);
    let overlap = public.ip() == admin.ip()
        || (public.is_ipv4() == admin.is_ipv4()
            && (public.ip().is_unspecified() || admin.ip().is_unspecified()));
    if public.port() != 0 && public.port() == admin.port() && overlap {
        report.rule("listen.admin", "must differ from listen.public");
    }
    tls::check(tls::PUBLIC, &file.listen.public_tls, report);
    tls::check(tls::ADMIN, &file.listen.admin_tls, report);
    let open = file.auth.mode == AuthMode::Open;
    if open && !public.ip().is_loopback() {
        report.rule(
            "auth.mode",
            "\"open\" accepts requests without a key, so it needs a loopback address in listen.public",
        );
    } else if open && !admin.ip().is_loopback() {
        report.rule(
            "auth.mode",
            "\"open\" makes everyone an operator, so it needs a loopback address in listen.admin",
        );
    }
    let operator = |caller: &file::Caller| caller.role == Some(Role::Operator);
    if !open && !admin.ip().is_loopback() && !file.callers.iter().any(operator) {
        report.rule(
            "listen.admin",
            "must be a loopback address, or a caller must have role = \"operator\"",
        );
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
        let at = |setting: &str| format!("links[{i}].{setting}");
        let Some(customer) = &link.customer_id else {
            report.rule(
                &at("customer_id"),
                "is missing: give the id of the linked customer",
            );
            continue;
        };
        let to = match (&link.client_id, &link.client_name) {
            (Some(id), None) => LinkTo::Id(id.clone()),
            (None, Some(name)) => LinkTo::Name(name.clone()),
            (Some(_), Some(_)) => {
                report.rule(
                    &at("client_name"),
                    "is given together with client_id; keep one of them",
                );
                continue;
            }
            (None, None) => {
                report.rule(
                    &at("client_id"),
                    "is missing: give client_id or client_name",
                );
                continue;
            }
        };
        let link = Link {
            customer: customer.clone(),
            to,
        };
        let words = match &link.to {
            LinkTo::Id(id) => (customer.clone(), true, id.clone()),
            LinkTo::Name(name) => (customer.clone(), false, name.clone()),
        };
        if let Some(first) = seen.insert(words, i) {
            report.rule(
                &at("customer_id"),
                format!("repeats links[{first}]; remove one of them"),
            );
        }
        out.push(link);
    }
    out
}

/// Returns a warning for each lifetime that a walk without readers may exceed.
fn lifetime_warnings(file: &File) -> Vec<String> {
    let cases = &file.cases;
    let kinds = [
        ("open", cases.open),
        ("recent", cases.recent),
        ("closed", cases.closed),
    ];
    let short = kinds
        .into_iter()
        .filter(|(_, lives)| lives.fresh < file.pagination.snapshots.scroll_idle_max);
    short
        .map(|(kind, _)| {
            format!(
                "cases.{kind}.fresh: shorter than pagination.scroll_idle_max; first pages come from a walk until it ends, so they may be as old as that: lower scroll_idle_max"
            )
        })
        .collect()
}

fn snapshots(options: &SnapshotOptions, report: &mut Report) -> SnapshotOptions {
    if options.scroll_idle_max >= options.scroll_expiry {
        report.rule(
            "pagination.scroll_idle_max",
            "must be shorter than pagination.scroll_expiry: an idle scroll must be ended while the vendor still has it",
        );
    }
    if options.token_lifetime > options.snapshot_lifetime_max {
        report.rule(
            "pagination.token_lifetime",
            "must not be longer than pagination.snapshot_lifetime_max",
        );
    }
    if options.walk_bytes_max > options.snapshot_bytes_max {
        report.rule(
            "pagination.walk_bytes_max",
            "must not be larger than pagination.snapshot_bytes_max, which holds all walks",
        );
    }
    options.clone()
}
