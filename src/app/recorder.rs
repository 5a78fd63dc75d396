//! Reads the counters once a second, for the console's charts.

use super::App;
use super::desk::vendor_state;
use super::vendor::Side;
use crate::admission::{CircuitState, Lane};
use crate::api::admin::VendorState;
use crate::clock::{self, Duration};
use crate::domain::CacheOutcome;
use crate::history::{
    BucketCounts, ByLane, DropCounts, Reading, ScrollCounts, StoreSize, VendorGauges, VendorReading,
};
use crate::metrics::DURATION_BOUNDS_S;
use crate::server::DrainPhase;

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(1);

fn small(n: impl TryInto<u32>) -> u32 {
    n.try_into().unwrap_or(u32::MAX)
}

impl App {
    /// Takes samples for as long as it is polled.
    pub(super) async fn record(&self) {
        let mut beat = clock::interval(EVERY);
        beat.set_missed_tick_behavior(clock::MissedTickBehavior::Delay);
        let sampling = async {
            loop {
                beat.tick().await;
                self.history.samples.take(self.reading());
            }
        };
        tokio::select! {
            () = sampling => {}
            () = self.drain.reached(DrainPhase::Cut) => {}
        }
        // Watchers would otherwise keep the last connections of the admin listener open.
        self.history.samples.end();
        std::future::pending().await
    }

    fn reading(&self) -> Reading {
        let metrics = &self.metrics;
        let outcomes: [Option<CacheOutcome>; 9] =
            std::array::from_fn(|at| CacheOutcome::ALL.get(at).copied());
        let slots = self.snapshots.slots.usage();
        let options = self.snapshots.options.load();
        let stores = self.reads.usages().map(|(store, usage)| StoreSize {
            store,
            entries: usage.entries,
            bytes: usage.bytes,
            bytes_max: usage.bytes_max,
            evicted: usage.evicted,
        });
        Reading {
            at: self.clock.now(),
            wall: self.clock.wall(),
            durations: outcomes.map(|outcome| BucketCounts(metrics.durations_of(outcome))),
            bounds_s: DURATION_BOUNDS_S,
            statuses: metrics.answers_by_class(),
            vendors: self
                .sides
                .iter()
                .map(|(vendor, side)| {
                    let (calls, failed) = metrics.vendor_attempts(vendor);
                    VendorReading {
                        vendor: vendor.as_str(),
                        calls,
                        failed,
                        saved: metrics.calls_saved(vendor),
                        gauges: gauges(side),
                    }
                })
                .collect(),
            requests_in_flight: small(self.in_flight.now()),
            exports_running: small(self.exports.now()),
            connections: small(metrics.connections.get()),
            scrolls: ScrollCounts {
                open: small(slots.running),
                max: small(options.open_scrolls_max),
                at_vendor: small(slots.standing),
                at_vendor_max: small(options.vendor_scrolls_max),
                waiting: small(slots.waiting),
            },
            stores: stores.into(),
            dropped: DropCounts {
                log_lines: metrics.log_lines_dropped.get(),
                spans: metrics.traces.dropped_so_far(),
            },
        }
    }
}

fn gauges(side: &Option<Side>) -> VendorGauges {
    let Some(configured) = side else {
        return VendorGauges {
            state: VendorState::Disabled.as_str(),
            circuit: CircuitState::Closed.as_str(),
            probe_in_ms: None,
            key_rejected: false,
            hold_down_ms: None,
            budget_remaining: 0,
            budget_max: 0,
            rate_limit: 0,
            in_flight: 0,
            concurrency_limit: 0,
            queued: ByLane::default(),
            budget_by_lane: ByLane::default(),
            background_percent: None,
        };
    };
    let gates = configured.gates();
    let pace = gates.governor.snapshot();
    let circuit = gates.circuit.snapshot();
    let by_lane = |of: &dyn Fn(Lane) -> u32| ByLane {
        interactive: of(Lane::Interactive),
        refresh: of(Lane::Refresh),
        read_ahead: of(Lane::ReadAhead),
        export: of(Lane::Export),
    };
    let queued = |lane| {
        let mut queued = pace.queued.iter();
        small(queued.find(|(one, _)| *one == lane).map_or(0, |(_, n)| *n))
    };
    let remaining = |lane| {
        let mut remaining = pace.remaining_by_lane.iter();
        remaining
            .find(|(one, _)| *one == lane)
            .map_or(0, |(_, n)| *n)
    };
    VendorGauges {
        state: vendor_state(side).as_str(),
        circuit: circuit.state.as_str(),
        probe_in_ms: circuit.probe_in.map(|wait| small(wait.as_millis())),
        key_rejected: gates.credential.is_rejected(),
        hold_down_ms: pace.hold_down.map(|wait| small(wait.as_millis())),
        budget_remaining: pace.remaining,
        budget_max: pace.burst,
        rate_limit: pace.rate_limit,
        in_flight: small(pace.in_flight),
        concurrency_limit: small(pace.concurrency_limit),
        queued: by_lane(&queued),
        budget_by_lane: by_lane(&remaining),
        background_percent: pace.ramp.map(|(percent, _)| percent),
    }
}
