//! Declares every metric once. This is the reference of what `/metrics` shows.
//!
//! Label sets are closed: every label value is one of our own words or a configured caller name.
//!
//! - [`Metrics`] holds the counters. Each is incremented when something happens.
//! - [`StateGauges`] holds what is true at one moment. The functions given to
//!   [`Metrics::before_scrape`] set it at each scrape, so the first scrape is as true as the last.
//! - [`CallerMeter`] holds the counters of one caller.
//!
//! `app` creates the [`Metrics`] and gives every room the part that it counts in; the admin
//! listener renders them. `declare` registers a metric, and `callers`, `state`, `store`, `traces`,
//! `events` and `process` declare those of one subject each. A new metric needs a declaration here
//! and a line in `deploy/METRICS.md`.
//!
//! Counters that an alert needs exist from the start, because a counter that first appears with 1
//! never increases.
//!
//! What must never happen here: a label holds text from a caller or a vendor, or a metric is
//! missing in `deploy/METRICS.md`.

mod callers;
mod declare;
mod events;
mod process;
mod reading;
mod state;
mod store;
mod traces;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

pub use callers::{CallerMeter, CallsCaused};
use callers::{Callers, Collected};
use declare::Declare;
pub use events::EventsMeter;
pub use reading::DURATION_BOUNDS_S;
pub use state::{StateGauges, StoreUsage, VendorStanding};
pub use store::{
    RecordReject, StoreLookup, StoreMeter, StoreMetrics, StoreOperation, StoreOutcome,
};
pub use traces::{SpanDrop, TraceMeter, TraceMetrics};

use crate::domain::{CacheOutcome, Kind, Operation, Route, Saved, Shortage, Vendor};

/// In seconds. Hits take tens of microseconds, vendor calls up to tens of seconds.
const REQUEST_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0,
];
const VENDOR_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The outcome of a walk. The label `outcome` of `walks_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkOutcome {
    /// Read to the vendor's end.
    Complete,
    /// The walk reached one of its own limits.
    Cut,
    /// The scroll was lost and no new search took over.
    Lost,
    /// The scroll was lost and a new search took over.
    Rewalked,
    /// No caller read on, and the walk was abandoned before the end.
    Abandoned,
    /// A new search did not repeat the rows already served.
    Broken,
    /// Another gateway took the search over.
    Deposed,
    /// This gateway took over a search that another one had begun to walk.
    TakenOver,
}

impl WalkOutcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Complete,
        Self::Cut,
        Self::Lost,
        Self::Rewalked,
        Self::Abandoned,
        Self::Broken,
        Self::Deposed,
        Self::TakenOver,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::Lost => "lost",
            Self::Rewalked => "rewalked",
            Self::Abandoned => "abandoned",
            Self::Broken => "broken",
            Self::Deposed => "deposed",
            Self::TakenOver => "taken_over",
        }
    }
}

/// The outcome of making a coded variant. The label `outcome` of `coded_variants_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VariantOutcome {
    /// The variant is kept.
    Made,
    /// The variant would be no smaller than the body.
    NotSmaller,
    /// The coder failed.
    Failed,
    /// Too many variants are waiting to be made. It is tried again at the next request.
    Crowded,
}

impl VariantOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Made, Self::NotSmaller, Self::Failed, Self::Crowded];

    /// Returns the word used in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::NotSmaller => "not_smaller",
            Self::Failed => "failed",
            Self::Crowded => "crowded",
        }
    }
}

/// The outcome of a TLS handshake. The label `outcome` of `tls_handshakes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// The connection is established.
    Ok,
    /// The peer did not speak TLS, rejected our certificate, or presented one that we reject.
    Failed,
    /// The handshake was not complete in time.
    TimedOut,
}

impl Handshake {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::TimedOut];

    /// Returns the word used in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The outcome of healing a page token whose snapshot was gone. The label `outcome` of
/// `token_heals_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealOutcome {
    /// Another snapshot showed the same rows before the token's place.
    Healed,
    /// The list had changed before the place, or the search is unknown: 410.
    Changed,
    /// The vendor, its budget or the deadline prevented it. The token stays valid.
    Failed,
}

impl HealOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Healed, Self::Changed, Self::Failed];

    /// Returns the word used in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healed => "healed",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}

/// Shortages that alerts are about. Their counts exist from the start; others from the first
/// refusal on.
const SHED_ALERTED: [Shortage; 7] = [
    Shortage::CallerRequests,
    Shortage::VendorBudget,
    Shortage::VendorPlaces,
    Shortage::VendorWaiters,
    Shortage::Time,
    Shortage::WaitingSearches,
    Shortage::SnapshotBytes,
];

/// Updates gauges before a scrape.
type Measure = Box<dyn Fn() + Send + Sync>;

/// All metrics of one gateway. Clone the `Arc`, never the struct.
pub struct Metrics {
    registry: Registry,
    callers: Arc<Callers>,
    durations: Vec<Vec<Histogram>>,
    lookups: Vec<Vec<IntCounter>>,
    vendor_requests: IntCounterVec,
    vendor_durations: HistogramVec,
    connect_failures: IntCounterVec,
    saved: Vec<Vec<IntCounter>>,
    budget_remaining: IntGaugeVec,
    rate_limit: IntGaugeVec,
    concurrency_limit: IntGaugeVec,
    circuit_state: IntGaugeVec,
    credential_fallbacks: IntCounterVec,
    walks: IntCounterVec,
    /// Running walks.
    pub open_scrolls: IntGauge,
    /// `pagination.open_scrolls_max`, for alerts on how much of it is in use.
    pub open_scrolls_max: IntGauge,
    /// Scrolls that may be open at the vendor.
    pub vendor_scrolls: IntGauge,
    /// `pagination.vendor_scrolls_max`, for alerts on how much of it is in use.
    pub vendor_scrolls_max: IntGauge,
    requests_shed: IntCounterVec,
    heals: IntCounterVec,
    /// Rows that a walk got twice and kept once.
    pub duplicate_rows: IntCounter,
    /// Gauges of the present state.
    pub state: StateGauges,
    problems: IntCounterVec,
    measures: Mutex<Vec<Measure>>,
    variants: IntCounterVec,
    config_reloads: IntCounterVec,
    tls_handshakes: IntCounterVec,
    certificate_not_after: IntGaugeVec,
    /// What happened in streams of events.
    pub events: EventsMeter,
    /// What is measured of the store.
    pub store: StoreMeter,
    /// What is measured of exported spans.
    pub traces: TraceMeter,
    /// Panics contained in a request or a flight.
    pub panics: IntCounter,
    /// Lines of standard output and standard error that could not be written.
    pub log_lines_dropped: IntCounter,
    /// Open connections on the public listener.
    pub connections: IntGauge,
    /// Connections closed at once because their peer had as many as it may.
    pub connections_refused: IntCounter,
}

/// The gauges of one vendor's pace, resolved once.
pub struct PaceGauges {
    /// Requests that the budget admits now.
    pub remaining: IntGauge,
    /// Rate in force, in requests per minute.
    pub rate_limit: IntGauge,
    /// Concurrent requests in force.
    pub concurrency_limit: IntGauge,
}

impl Metrics {
    /// Declares every metric.
    ///
    /// # Errors
    /// Fails only if two metrics have the same name, which a test excludes.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let declare = Declare(&registry);
        let request_durations = declare.histograms(
            "request_duration_seconds",
            "Time from the end of a request's headers to the start of its answer, by route and cache outcome.",
            &REQUEST_BUCKETS,
            &["route", "cache"],
        )?;
        let lookups = declare.used_counters(
            "cache_lookups_total",
            "Cache lookups, by kind and outcome.",
            &["kind", "outcome"],
            Some("kind"),
        )?;
        let saved = declare.used_counters(
            "vendor_calls_saved_total",
            "Requests that were answered without a new vendor call, by reason.",
            &["vendor", "reason"],
            Some("vendor"),
        )?;
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        let callers = Callers::new()?;
        registry.register(Box::new(Collected(callers.clone())))?;
        let build = declare.gauges(
            "build_info",
            "Always 1; the labels describe the running build.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        let this = Self {
            callers,
            durations: Route::ALL
                .iter()
                .map(|route| {
                    CacheOutcome::ALL
                        .iter()
                        .map(|outcome| outcome.as_str())
                        .chain(["none"])
                        .map(|word| request_durations.with_label_values(&[route.as_str(), word]))
                        .collect()
                })
                .collect(),
            lookups: Kind::ALL
                .iter()
                .map(|kind| {
                    CacheOutcome::ALL
                        .iter()
                        .map(|outcome| {
                            lookups.with_label_values(&[kind.as_str(), outcome.as_str()])
                        })
                        .collect()
                })
                .collect(),
            vendor_requests: declare.counters(
                "vendor_requests_total",
                "Requests sent to a vendor, by outcome; every attempt counts.",
                &["vendor", "operation", "outcome"],
            )?,
            vendor_durations: declare.histograms(
                "vendor_request_duration_seconds",
                "Duration of one attempt at a vendor, until the body was read.",
                &VENDOR_BUCKETS,
                &["vendor", "operation"],
            )?,
            connect_failures: declare.counters(
                "vendor_connect_failures_total",
                "Failed connection attempts to a vendor, by cause.",
                &["vendor", "cause"],
            )?,
            saved: Vendor::ALL
                .iter()
                .map(|vendor| {
                    Saved::ALL
                        .iter()
                        .map(|reason| saved.with_label_values(&[vendor.as_str(), reason.as_str()]))
                        .collect()
                })
                .collect(),
            budget_remaining: declare.gauges(
                "vendor_budget_remaining",
                "Requests that the vendor's budget allows right now.",
                &["vendor"],
            )?,
            rate_limit: declare.gauges(
                "vendor_rate_limit",
                "Maximum requests a minute to the vendor, as configured or as learnt.",
                &["vendor"],
            )?,
            concurrency_limit: declare.gauges(
                "vendor_concurrency_limit",
                "Maximum concurrent requests to the vendor, as configured or as adapted.",
                &["vendor"],
            )?,
            circuit_state: declare.gauges(
                "vendor_circuit_state",
                "0 closed, 1 half-open, 2 open.",
                &["vendor"],
            )?,
            credential_fallbacks: declare.used_counters(
                "vendor_credential_fallbacks_total",
                "Rejections of our primary key by a vendor; accepted means that the fallback key worked.",
                &["vendor", "outcome"],
                Some("vendor"),
            )?,
            walks: declare.counters("walks_total", "Ended walks, by outcome.", &["outcome"])?,
            open_scrolls: declare.gauge("open_scrolls", "Running walks; each reads one scroll.")?,
            open_scrolls_max: declare.gauge(
                "open_scrolls_max",
                "Maximum number of running walks: pagination.open_scrolls_max.",
            )?,
            vendor_scrolls: declare.gauge(
                "vendor_scrolls",
                "Scrolls that may be open at the vendor: those of running walks, and abandoned ones until they expire.",
            )?,
            vendor_scrolls_max: declare.gauge(
                "vendor_scrolls_max",
                "Maximum number of scrolls open at the vendor: pagination.vendor_scrolls_max.",
            )?,
            requests_shed: declare.counters(
                "requests_shed_total",
                "Requests and reads that were refused for a shortage, by what was short.",
                &["what"],
            )?,
            heals: declare.used_counters(
                "token_heals_total",
                "Page tokens whose snapshot was gone, by outcome.",
                &["outcome"],
                None,
            )?,
            duplicate_rows: declare.counter(
                "walk_duplicate_rows_total",
                "Rows that the vendor repeated within a walk; each is kept once.",
            )?,
            state: StateGauges::new(&declare)?,
            problems: declare.counters(
                "problems_total",
                "Requests on the public listener that were answered with a problem, by problem code.",
                &["code"],
            )?,
            measures: Mutex::default(),
            variants: declare.used_counters(
                "coded_variants_total",
                "Answer bodies that were compressed, by coding and outcome.",
                &["coding", "outcome"],
                Some("coding"),
            )?,
            config_reloads: declare.counters(
                "config_reloads_total",
                "Reloads of the settings, by outcome.",
                &["outcome"],
            )?,
            tls_handshakes: declare.counters(
                "tls_handshakes_total",
                "TLS handshakes on our own listeners, by listener and outcome.",
                &["listener", "outcome"],
            )?,
            certificate_not_after: declare.gauges(
                "tls_certificate_not_after_timestamp_seconds",
                "Expiry of a listener's certificate, in Unix time; present only with TLS.",
                &["listener"],
            )?,
            events: EventsMeter::new(&declare)?,
            store: StoreMeter::new(&declare)?,
            traces: TraceMeter::new(&declare)?,
            panics: declare.counter("panics_total", "Panics that were contained.")?,
            log_lines_dropped: declare.counter(
                "log_lines_dropped_total",
                "Log lines that were dropped because their reader is too slow or gone, or the disk is full.",
            )?,
            connections: declare.gauge("connections", "Open connections on the public listener.")?,
            connections_refused: declare.counter(
                "connections_refused_total",
                "Connections that were closed at once because their peer already had limits.connections_per_peer_max open.",
            )?,
            registry: registry.clone(),
        };
        for vendor in Vendor::ALL {
            this.circuit_state
                .with_label_values(&[vendor.as_str()])
                .set(0);
            for outcome in ["accepted", "refused"] {
                this.credential_fallbacks
                    .with_label_values(&[vendor.as_str(), outcome])
                    .reset();
            }
        }
        for operation in Operation::ALL {
            let vendor = operation.vendor().as_str();
            this.vendor_requests
                .with_label_values(&[vendor, operation.as_str(), "rate_limited"]);
        }
        for outcome in WalkOutcome::ALL {
            this.walks.with_label_values(&[outcome.as_str()]).reset();
        }
        for outcome in HealOutcome::ALL {
            this.heals.with_label_values(&[outcome.as_str()]).reset();
        }
        for what in SHED_ALERTED {
            this.requests_shed
                .with_label_values(&[what.as_str()])
                .reset();
        }
        for outcome in ["applied", "refused"] {
            this.config_reloads.with_label_values(&[outcome]).reset();
        }
        Ok(Arc::new(this))
    }

    /// Returns the counters of one caller, by its configured name.
    pub fn caller(&self, name: &str) -> CallerMeter {
        self.callers.of(name)
    }

    /// Returns the counter for vendor calls that no caller waited for: refreshes and reading ahead.
    pub fn background_calls(&self) -> CallsCaused {
        self.callers.of("gateway").calls_caused()
    }

    /// Records the duration of one answered request. `None` if the cache was not used.
    pub fn duration(&self, route: Route, cache: Option<CacheOutcome>, seconds: f64) {
        let column = cache.map_or(CacheOutcome::ALL.len(), |outcome| outcome as usize);
        if let Some(h) = self
            .durations
            .get(route as usize)
            .and_then(|r| r.get(column))
        {
            h.observe(seconds);
        }
    }

    /// Counts one lookup in the cache.
    pub fn lookup(&self, kind: Kind, outcome: CacheOutcome) {
        if let Some(c) = self
            .lookups
            .get(kind as usize)
            .and_then(|r| r.get(outcome as usize))
        {
            c.inc();
        }
    }

    /// Counts a request that cost no vendor call.
    pub fn call_saved(&self, vendor: Vendor, reason: Saved) {
        if let Some(c) = self
            .saved
            .get(vendor as usize)
            .and_then(|r| r.get(reason as usize))
        {
            c.inc();
        }
    }

    /// Counts and times one attempt at a vendor. `outcome` is `ok` or a `Fault`'s word.
    pub fn vendor_request(&self, operation: Operation, outcome: &'static str, seconds: f64) {
        let (vendor, operation) = (operation.vendor().as_str(), operation.as_str());
        self.vendor_requests
            .with_label_values(&[vendor, operation, outcome])
            .inc();
        self.vendor_durations
            .with_label_values(&[vendor, operation])
            .observe(seconds);
    }

    /// Counts a failed attempt to connect. `cause` is the word of a `ConnectCause`.
    pub fn connect_failure(&self, vendor: Vendor, cause: &'static str) {
        self.connect_failures
            .with_label_values(&[vendor.as_str(), cause])
            .inc();
    }

    /// Returns the gauges of a vendor's pace. They are shown from the first call on.
    pub fn pace(&self, vendor: Vendor) -> PaceGauges {
        let of = |gauges: &IntGaugeVec| gauges.with_label_values(&[vendor.as_str()]);
        PaceGauges {
            remaining: of(&self.budget_remaining),
            rate_limit: of(&self.rate_limit),
            concurrency_limit: of(&self.concurrency_limit),
        }
    }

    /// Sets the circuit of a vendor: 0 closed, 1 half-open, 2 open.
    pub fn set_circuit_state(&self, vendor: Vendor, state: i64) {
        self.circuit_state
            .with_label_values(&[vendor.as_str()])
            .set(state);
    }

    /// Counts a rejected primary key, with the outcome of the fallback key.
    pub fn credential_fallback(&self, vendor: Vendor, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "refused" };
        self.credential_fallbacks
            .with_label_values(&[vendor.as_str(), outcome])
            .inc();
    }

    /// Counts the end of a walk.
    pub fn walk(&self, outcome: WalkOutcome) {
        self.walks.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a page token whose snapshot was gone.
    pub fn heal(&self, outcome: HealOutcome) {
        self.heals.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts a read that was refused because the gateway itself was short of something.
    pub fn shed(&self, what: Shortage) {
        self.requests_shed.with_label_values(&[what.as_str()]).inc();
    }

    /// Resolves the counts of a coding. They are shown from its first use on.
    pub fn declare_variant(&self, coding: &'static str) {
        for outcome in VariantOutcome::ALL {
            self.variants.with_label_values(&[coding, outcome.as_str()]);
        }
    }

    /// Counts the making of a coded variant.
    pub fn variant(&self, coding: &'static str, outcome: VariantOutcome) {
        self.variants
            .with_label_values(&[coding, outcome.as_str()])
            .inc();
    }

    /// Counts a reload of the settings at this Unix time.
    pub fn config_reload(&self, applied: bool, unix_s: i64) {
        let outcome = if applied { "applied" } else { "refused" };
        self.config_reloads.with_label_values(&[outcome]).inc();
        self.state.set_reload(applied, unix_s);
    }

    /// Shows the count of a problem from zero on.
    pub fn declare_problem(&self, code: &'static str) {
        self.problems.with_label_values(&[code]);
    }

    /// Counts a request that was answered with a problem.
    pub fn problem(&self, code: &'static str) {
        self.problems.with_label_values(&[code]).inc();
    }

    /// Calls `measure` before each scrape. It sets gauges, must be fast, and must not add another
    /// one.
    pub fn before_scrape(&self, measure: impl Fn() + Send + Sync + 'static) {
        self.measures.lock().push(Box::new(measure));
    }

    /// Sets when the certificate of a listener, `public` or `admin`, expires.
    pub fn set_certificate_not_after(&self, listener: &'static str, unix_s: i64) {
        self.certificate_not_after
            .with_label_values(&[listener])
            .set(unix_s);
        for outcome in Handshake::ALL {
            // These exist from the start, so that rates can be computed.
            self.tls_handshakes
                .with_label_values(&[listener, outcome.as_str()]);
        }
    }

    /// Counts a TLS handshake on a listener.
    pub fn tls_handshake(&self, listener: &'static str, outcome: Handshake) {
        self.tls_handshakes
            .with_label_values(&[listener, outcome.as_str()])
            .inc();
    }

    /// Returns the text that Prometheus scrapes.
    ///
    /// # Errors
    /// Fails if a metric cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        // Held to the end, so that each of two concurrent scrapes sees one state.
        let measures = self.measures.lock();
        for measure in &*measures {
            measure();
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_prefix_and_hostile_statuses_fold() {
        let metrics = Metrics::new().unwrap();
        let meter = metrics.caller("dash");
        meter.request(Route::Customers, 200);
        meter.request(Route::Customers, 299);
        metrics.duration(Route::Customers, Some(CacheOutcome::Hit), 0.1);
        metrics.lookup(Kind::Cases, CacheOutcome::Derived);
        metrics.call_saved(Vendor::Wiv, Saved::Repaged);
        let text = metrics.render().unwrap();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            assert!(line.starts_with("msp_gateway_"), "{line}");
        }
        assert!(text.contains(
            "msp_gateway_requests_total{caller=\"dash\",route=\"customers\",status=\"other\"} 1"
        ));
        assert!(
            text.contains("msp_gateway_cache_lookups_total{kind=\"cases\",outcome=\"derived\"} 1")
        );
    }
}
