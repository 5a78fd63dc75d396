//! Builds the whole gateway, in the order in which its parts need each other, and applies reloads.
//!
//! ```text
//! Settings, Secrets ─▶ App::build ─▶ Vendor sides ─▶ Snapshots ─▶ Reads ─▶ stacks ─▶ App::run
//!                      store, metrics   gates, stack                        public, admin
//! new Settings ──────▶ App::apply: builds everything new, then swaps; fails without a change
//! ```
//!
//! [`App`] is the gateway while it runs. Parts that a reload changes are behind swaps, such as
//! `ArcSwap`. All others live as long as the process: caches, snapshots, flights, gates and
//! metrics. `restart.rs` lists the settings that a reload cannot take over. `desk.rs` answers the
//! admin listener.
//!
//! What must never happen here:
//! - A reload changes one part and fails on another. Everything is built before the first swap.
//! - A reload forgets a budget, a circuit, a rejected key, a snapshot or an answer.

mod desk;
mod in_force;
mod kept;
mod measure;
mod recorder;
mod restart;
mod shown;
mod traced;
mod used;
mod vendor;

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use crate::access::CallerBook;
use crate::api::admin::{Admin, AdminParts};
use crate::cache::FiledBodies;
use crate::clock::{self, Clock, Duration, Instant};
use crate::config::{AuthMode, Secrets, Settings};
use crate::domain::PerVendor;
use crate::exchange::InFlight;
use crate::exchange::site::OwnNames;
use crate::history::History;
use crate::metrics::Metrics;
use crate::middleware::inbound::CrossOrigin;
use crate::problem::Code;
use crate::reads::{Ingredients, Policy, Reads};
use crate::secrets::sealing_key_of_this_process;
use crate::server::{
    Answering, Drain, DrainPhase, Listeners, Server, ServerOptions, Tls, TlsSetup, room_for_files,
};
use crate::snapshot::{Sealer, Snapshots};
use crate::stack::{Inbound, InboundParts, admin, inbound};
use crate::store::Store;
use crate::telemetry::LogSink;
use crate::traces::Traces;
use crate::vendors::Clients;

use in_force::InForce;
pub use kept::{open_store, store_seal};
use vendor::Side;
pub use vendor::Way;

/// Separates keys derived for page tokens from any other use of the same secret.
const SEALING_PURPOSE: &str = "msp-gateway 2026 page tokens";
/// How often expired entries are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long the end of the process waits until the store, and then the log, is written.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How long it waits before that for a collector to take the last spans.
const SPANS_LIMIT: Duration = Duration::from_secs(1);

/// The reason why the gateway could not be built.
#[derive(Debug)]
pub struct BuildError(String);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BuildError {}

/// The gateway while it runs. A reload swaps some of its parts. All others stay.
pub struct App {
    clock: Clock,
    metrics: Arc<Metrics>,
    started: Instant,
    server: ServerOptions,
    fixed: restart::FixedSettings,
    public_tls: Option<Arc<Tls>>,
    admin_tls: Option<Arc<Tls>>,
    drain: Drain,
    files: FiledBodies,
    in_flight: Arc<InFlight>,
    exports: Arc<InFlight>,
    followers: Arc<InFlight>,
    log: LogSink,
    history: Arc<History>,
    traced: traced::Traced,
    in_force: InForce,
    reads: Reads,
    snapshots: Arc<Snapshots>,
    store: Store,
    policy: Arc<ArcSwap<Policy>>,
    sealer: Arc<ArcSwap<Sealer>>,
    callers: ArcSwap<CallerBook>,
    sides: PerVendor<Option<Side>>,
    public: ArcSwap<Inbound>,
    admin: ArcSwap<Inbound>,
}

impl App {
    /// Builds everything and opens no socket. Access lines go to `log` while `log.access` is on.
    ///
    /// # Errors
    /// Fails if TLS, a sealing key or a metric cannot be set up.
    pub fn build(
        settings: &Settings,
        secrets: &Secrets,
        log: LogSink,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, BuildError> {
        // Begins to open its file while everything else is built.
        let store = kept::open_store(settings, secrets, &clock, &metrics)?;
        Self::build_over(Way::Network, store, settings, secrets, log, clock, metrics)
    }

    /// Builds everything. Vendors are reached by `way`, and `store` replaces the one in the
    /// settings.
    ///
    /// # Errors
    /// Fails like [`Self::build`].
    pub fn build_over(
        way: Way,
        store: Store,
        settings: &Settings,
        secrets: &Secrets,
        log: LogSink,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, BuildError> {
        let sides = PerVendor::try_from_fn(|vendor| {
            match (settings.vendors.get(vendor), secrets.vendors.get(vendor)) {
                (Some(settings), Some(secrets)) => {
                    Side::new(&way, settings, secrets, &clock, &metrics).map(Some)
                }
                _ => Ok(None),
            }
        })?;
        for side in sides.present() {
            side.gates().remember(&store, &side.options().credential);
        }
        let clients = Clients::new(PerVendor::from_fn(|vendor| {
            let side = sides.get(vendor).as_ref();
            side.map(|side| (side.service(), side.options()))
        }));
        let snapshots = Snapshots::new(
            clients.wiv.walked(sides.wiv.as_ref().map(Side::gates)),
            settings.snapshots.clone(),
            store.clone(),
            clock.clone(),
            metrics.clone(),
        );
        let policy = Arc::new(ArcSwap::from_pointee(settings.policy.clone()));
        let sealer = Arc::new(ArcSwap::from_pointee(sealer(secrets)?));
        let files = FiledBodies::up_to(room_for_files());
        let reads = Reads::new(Ingredients {
            clients,
            snapshots: snapshots.clone(),
            sealer: sealer.clone(),
            policy: policy.clone(),
            cache_bytes_max: settings.cache.bytes_max,
            changes_bytes_max: settings.changes.bytes_max,
            store: store.clone(),
            files: files.clone(),
            compression: settings.compression,
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let callers = Arc::new(caller_book(settings, None, &metrics, &clock));
        let tls = |setup: &Option<TlsSetup>, listener| {
            let setup = setup.clone()?;
            Some(Tls::new(setup, listener, metrics.clone()))
        };
        let public_tls = tls(&secrets.certificates.public, "public");
        let admin_tls = tls(&secrets.certificates.admin, "admin");
        for code in Code::ALL {
            // There are alerts about these.
            if code.status() >= 500 {
                metrics.declare_problem(code.as_str());
            }
        }
        let begun = clock.wall().as_second();
        metrics.state.start_time.set(begun);
        // The settings of the start are in force.
        metrics.state.set_reload(true, begun);
        let access = access_log(settings, &log);
        let in_flight = InFlight::of_requests(settings.server.requests_in_flight_max);
        let exports = InFlight::of_exports(settings.server.exports_max);
        let followers = InFlight::of_followers(settings.server.followers_max);
        let drain = Drain::default();
        let (leaving, changes) = (drain.clone(), Arc::downgrade(&reads.changes));
        let walks = Arc::downgrade(&snapshots);
        tokio::spawn(async move {
            leaving.reached(DrainPhase::Leaving).await;
            if let Some(changes) = changes.upgrade() {
                changes.leave();
            }
            if let Some(walks) = walks.upgrade() {
                walks.leave();
            }
        });
        let history = History::within(settings.console.history_bytes_max);
        let traced = traced::Traced::new(&way, settings, secrets, &clock, &metrics)?;
        let traces = traced.current();
        let fixed = restart::FixedSettings::of(settings);
        let in_force = InForce::new(settings.shown());
        let counted = (store.clone(), clock.clone());
        Ok(Arc::new_cyclic(|app: &Weak<Self>| {
            let (store_of_fleet, clock_of_fleet) = counted;
            let callers_of_fleet = used::FleetCallers::new(app.clone(), clock_of_fleet);
            store_of_fleet.on_use(Box::new(callers_of_fleet));
            let measured = app.clone();
            metrics.before_scrape(move || {
                if let Some(app) = measured.upgrade() {
                    app.measure();
                }
            });
            let build = Stacks {
                clock: &clock,
                metrics: &metrics,
                callers: &callers,
                log: &access,
                history: &history,
                traces: traces.traces(),
                in_flight: &in_flight,
                exports: &exports,
                followers: &followers,
                reads: &reads,
                server: &settings.server,
                cross_origin: &settings.cross_origin,
            };
            Self {
                public: ArcSwap::from_pointee(build.public()),
                admin: ArcSwap::from_pointee(build.admin(desk::Desk::of(app.clone()))),
                started: clock.now(),
                server: settings.server.clone(),
                fixed,
                in_force,
                history: history.clone(),
                traced,
                public_tls,
                admin_tls,
                drain,
                files,
                callers: ArcSwap::new(callers.clone()),
                sides,
                clock: clock.clone(),
                metrics: metrics.clone(),
                in_flight: in_flight.clone(),
                exports: exports.clone(),
                followers: followers.clone(),
                log: log.clone(),
                reads: reads.clone(),
                snapshots,
                store,
                policy,
                sealer,
            }
        }))
    }

    /// Takes over new settings while requests go on. Requests in flight end on the old stacks.
    /// Caches, snapshots, flights, circuits, budgets and metrics stay. Returns one line for each
    /// setting that needs a restart and was not taken over.
    ///
    /// # Errors
    /// Fails if anything cannot be built. Then nothing has changed.
    pub fn apply(
        self: &Arc<Self>,
        settings: &Settings,
        secrets: &Secrets,
    ) -> Result<Vec<String>, BuildError> {
        let sealer = sealer(secrets)?;
        let shown = settings.shown();
        let mut later = Vec::new();
        let prepared = PerVendor::try_from_fn(|vendor| {
            let (settings, secrets) = (settings.vendors.get(vendor), secrets.vendors.get(vendor));
            Side::prepare(
                self.sides.get(vendor),
                vendor,
                settings,
                secrets,
                &mut later,
            )
        })?;
        let mut server = settings.server.clone();
        (server.public, server.admin) = (self.server.public, self.server.admin);
        if settings.auth == AuthMode::Open && !restart::is_loopback(&server) {
            // The settings were checked against the addresses in them. These are the addresses in
            // use.
            return Err(BuildError(
                "auth.mode: \"open\" needs loopback addresses, and those in use change with a restart only"
                    .to_owned(),
            ));
        }
        let certificates = &secrets.certificates;
        let listeners = [
            ("listen.public_tls", &self.public_tls, &certificates.public),
            ("listen.admin_tls", &self.admin_tls, &certificates.admin),
        ];
        for (setting, tls, setup) in listeners {
            self.check_certificate(setting, tls.as_deref(), setup.as_ref())?;
        }
        restart::needed(&self.fixed, settings, &mut later);
        let before = self.callers.load();
        let callers = caller_book(settings, Some(&before), &self.metrics, &self.clock);
        let callers = Arc::new(callers);
        let access = access_log(settings, &self.log);
        let traces = self.traced.prepare(settings, secrets)?;
        let build = Stacks {
            clock: &self.clock,
            metrics: &self.metrics,
            callers: &callers,
            log: &access,
            history: &self.history,
            traces: traces.traces(),
            in_flight: &self.in_flight,
            exports: &self.exports,
            followers: &self.followers,
            reads: &self.reads,
            server: &server,
            cross_origin: &settings.cross_origin,
        };
        let public = build.public();
        let admin = build.admin(desk::Desk::of(Arc::downgrade(self)));

        // Everything is built; from here on nothing can fail.
        for prepared in prepared.into_each().filter_map(|(_, prepared)| prepared) {
            prepared.commit();
        }
        for (_, tls, setup) in listeners {
            if let (Some(tls), Some(setup)) = (tls, setup) {
                tls.replace(setup.clone());
            }
        }
        self.traced.commit(traces);
        self.sealer.store(Arc::new(sealer));
        // Rendered pages contain tokens of the earlier sealing key.
        self.reads.cases.forget_pages();
        self.policy.store(Arc::new(settings.policy.clone()));
        self.snapshots.configure(settings.snapshots.clone());
        self.reads.variants.configure(settings.compression);
        self.in_flight.admit_up_to(server.requests_in_flight_max);
        self.exports.admit_up_to(server.exports_max);
        self.followers.admit_up_to(server.followers_max);
        self.callers.store(callers.clone());
        self.public.store(Arc::new(public));
        self.admin.store(Arc::new(admin));
        // This comes last, because an answer that ends for it must not start again with the old
        // book.
        before.succeed(callers);
        self.in_force.replace(shown, &later);
        Ok(later)
    }

    /// Refuses a new certificate that callers would reject. The one in use may expire meanwhile,
    /// which is no reason to refuse other settings.
    fn check_certificate(
        &self,
        setting: &str,
        tls: Option<&Tls>,
        setup: Option<&TlsSetup>,
    ) -> Result<(), BuildError> {
        let (Some(tls), Some(setup)) = (tls, setup) else {
            return Ok(());
        };
        match setup.untimely(self.clock.wall()) {
            Some(why) if !setup.is_same_certificate(&tls.current()) => Err(BuildError(format!(
                "{setting}.certificate_file: the new certificate {why}"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the TLS of the public listener.
    pub fn public_tls(&self) -> Option<&Arc<Tls>> {
        self.public_tls.as_ref()
    }

    /// Returns the TLS of the admin listener.
    pub fn admin_tls(&self) -> Option<&Arc<Tls>> {
        self.admin_tls.as_ref()
    }

    /// Returns the drain, which makes the gateway leave.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the service for callers. Each request uses the stack in force.
    pub fn public(self: &Arc<Self>) -> Answering {
        let app = self.clone();
        Arc::new(move |arrival| app.public.load().answer(arrival))
    }

    /// Returns the service for operators. Each request uses the stack in force.
    pub fn admin(self: &Arc<Self>) -> Answering {
        let app = self.clone();
        Arc::new(move |arrival| app.admin.load().answer(arrival))
    }

    /// Serves until [`Drain::begin`] was called and everything has ended.
    pub async fn run(self: &Arc<Self>, listeners: Listeners) {
        let server = Server {
            options: self.server.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            public: self.public(),
            admin: self.admin(),
            public_tls: self.public_tls.clone(),
            admin_tls: self.admin_tls.clone(),
            drain: self.drain.clone(),
            files: self.files.clone(),
        };
        let store = self.store.clone();
        tokio::spawn(async move { store.warm().await });
        tokio::select! {
            drained = server.run(listeners) => {
                if drained.cut > 0 {
                    tracing::warn!(connections = drained.cut, "connections were cut because limits.drain_grace was over");
                }
            }
            () = self.sweep() => {}
            () = self.record() => {}
            () = self.attend() => {}
        }
        self.traced.close(SPANS_LIMIT).await;
        self.store.close(CLOSE_LIMIT);
    }

    /// Takes part in the fleet of those that share the store.
    async fn attend(&self) {
        self.store.attend().await;
        // There is no fleet.
        std::future::pending::<()>().await;
    }

    async fn sweep(&self) {
        loop {
            clock::sleep(SWEEP_EVERY).await;
            self.reads.sweep();
        }
    }
}

/// The parts of stacks, before and after a reload.
struct Stacks<'a> {
    clock: &'a Clock,
    metrics: &'a Arc<Metrics>,
    callers: &'a Arc<CallerBook>,
    log: &'a LogSink,
    history: &'a Arc<History>,
    traces: &'a Traces,
    in_flight: &'a Arc<InFlight>,
    exports: &'a Arc<InFlight>,
    followers: &'a Arc<InFlight>,
    reads: &'a Reads,
    server: &'a ServerOptions,
    cross_origin: &'a Option<Arc<CrossOrigin>>,
}

impl Stacks<'_> {
    fn public(&self) -> Inbound {
        let parts = InboundParts {
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            callers: self.callers.clone(),
            log: self.log.clone(),
            history: self.history.clone(),
            traces: self.traces.clone(),
            in_flight: self.in_flight.clone(),
            request_timeout: self.server.request_timeout,
            body_timeout: self.server.body_timeout,
            cross_origin: self.cross_origin.clone(),
            docs: self.server.docs,
        };
        let routes = crate::api::Routes::new(
            self.reads.clone(),
            self.exports.clone(),
            self.followers.clone(),
        );
        inbound(parts, routes)
    }

    fn admin(&self, desk: desk::Desk) -> Inbound {
        let loopback = self.server.admin.ip().is_loopback();
        let names = match &self.server.admin_hosts {
            none if none.is_empty() && !loopback => OwnNames::Any,
            more => OwnNames::Only(more.clone()),
        };
        let service = Admin::new(AdminParts {
            reads: Arc::new(desk),
            metrics: self.metrics.clone(),
            history: self.history.clone(),
            clock: self.clock.clone(),
            callers: self.callers.clone(),
            loopback,
            names,
            body_timeout: self.server.body_timeout,
        });
        let timeout = self.server.request_timeout;
        admin(self.clock.clone(), self.metrics.clone(), timeout, service)
    }
}

/// Returns the destination of access lines: `log`, or none.
fn access_log(settings: &Settings, log: &LogSink) -> LogSink {
    match settings.log.access {
        true => log.clone(),
        false => LogSink::off(),
    }
}

fn caller_book(
    settings: &Settings,
    before: Option<&CallerBook>,
    metrics: &Metrics,
    clock: &Clock,
) -> CallerBook {
    let specs = &settings.callers;
    match settings.auth {
        AuthMode::Keys => CallerBook::after(before, specs, metrics, clock.clone()),
        AuthMode::Open => CallerBook::open(
            before,
            specs,
            settings.forced_refreshes_per_minute,
            metrics,
            clock.clone(),
        ),
    }
}

fn sealer(secrets: &Secrets) -> Result<Sealer, BuildError> {
    let (current, previous) = kept::sealing_keys(secrets, SEALING_PURPOSE);
    let current = match current {
        Some(key) => key,
        None => sealing_key_of_this_process().map_err(BuildError)?,
    };
    Sealer::new(&current, previous.as_ref())
        .ok_or_else(|| BuildError("the cipher refused the sealing key".to_owned()))
}
