//! Gauges of the present state: set at each scrape, or when the state changes.
//!
//! Alerts are about states, not about events. A counter that first appears with 1, or whose window
//! has passed, says nothing about what is wrong now.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::declare::Declare;
use crate::clock::Duration;
use crate::domain::Vendor;

/// How full one store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Number of entries.
    pub entries: u64,
    /// Bytes charged for them.
    pub bytes: u64,
    /// Maximum bytes.
    pub bytes_max: u64,
    /// Entries evicted for lack of room since the start.
    pub evicted: u64,
}

impl std::ops::Add for StoreUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
            bytes_max: self.bytes_max + other.bytes_max,
            evicted: self.evicted + other.evicted,
        }
    }
}

/// The state of one vendor's gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VendorStanding {
    /// Rest of the hold-down that the vendor asked for.
    pub hold_down: Duration,
    /// Whether the vendor rejects every key of ours.
    pub key_refused: bool,
    /// Whether the primary key is rejected and the fallback key is in use.
    pub fallback_in_use: bool,
    /// Calls in flight.
    pub in_flight: usize,
}

/// The gauges of the present state.
pub struct StateGauges {
    /// Requests in flight on the public listener.
    pub requests_in_flight: IntGauge,
    /// `limits.requests_in_flight_max`.
    pub requests_in_flight_max: IntGauge,
    /// Running exports.
    pub exports_running: IntGauge,
    /// `limits.exports_max`.
    pub exports_max: IntGauge,
    /// Waiting change requests and open event streams.
    pub followers: IntGauge,
    /// `changes.followers_max`.
    pub followers_max: IntGauge,
    /// Connections that the public listener takes at once.
    pub connections_max: IntGauge,
    /// Searches waiting for a free scroll.
    pub searches_waiting: IntGauge,
    /// When the process started, in Unix time.
    pub start_time: IntGauge,
    vendor_queued: IntGaugeVec,
    vendor_in_flight: IntGaugeVec,
    hold_down: IntGaugeVec,
    key_refused: IntGaugeVec,
    fallback_in_use: IntGaugeVec,
    cache_bytes: IntGaugeVec,
    cache_bytes_max: IntGaugeVec,
    cache_entries: IntGaugeVec,
    cache_evictions: IntCounterVec,
    /// 1 while a check of the settings, key or certificate files does not return.
    pub files_stalled: IntGauge,
    reload_successful: IntGauge,
    reload_at: IntGauge,
    reload_success_at: IntGauge,
}

impl StateGauges {
    pub(super) fn new(declare: &Declare<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests_in_flight: declare.gauge(
                "requests_in_flight",
                "Requests on the public listener whose answers are not complete yet.",
            )?,
            requests_in_flight_max: declare.gauge(
                "requests_in_flight_max",
                "Maximum concurrent requests: limits.requests_in_flight_max.",
            )?,
            exports_running: declare.gauge("exports_running", "Running exports.")?,
            exports_max: declare.gauge(
                "exports_max",
                "Maximum concurrent exports: limits.exports_max.",
            )?,
            followers: declare.gauge(
                "followers",
                "Waiting change requests and open event streams.",
            )?,
            followers_max: declare.gauge(
                "followers_max",
                "Maximum of waiting change requests and open event streams: changes.followers_max.",
            )?,
            connections_max: declare.gauge(
                "connections_max",
                "Maximum connections: limits.connections_max, or half of the limit on open files.",
            )?,
            searches_waiting: declare.gauge(
                "searches_waiting",
                "Searches waiting for a free scroll.",
            )?,
            start_time: declare.gauge(
                "process_start_time_seconds",
                "Start time of the process, in Unix time.",
            )?,
            vendor_queued: declare.gauges(
                "vendor_queued",
                "Vendor calls waiting for budget or a place, by lane.",
                &["vendor", "lane"],
            )?,
            vendor_in_flight: declare.gauges(
                "vendor_in_flight",
                "Vendor calls in progress.",
                &["vendor"],
            )?,
            hold_down: declare.gauges(
                "vendor_hold_down_seconds",
                "Remaining wait that the vendor asked for, during which nothing is sent to it; otherwise 0.",
                &["vendor"],
            )?,
            key_refused: declare.gauges(
                "vendor_key_refused",
                "1 while the vendor rejects all of our keys.",
                &["vendor"],
            )?,
            fallback_in_use: declare.gauges(
                "vendor_key_fallback_in_use",
                "1 while the vendor rejects our primary key and accepts the fallback key.",
                &["vendor"],
            )?,
            cache_bytes: declare.gauges("cache_bytes", "Bytes in each cache.", &["store"])?,
            cache_bytes_max: declare.gauges(
                "cache_bytes_max",
                "Maximum bytes of each cache.",
                &["store"],
            )?,
            cache_entries: declare.gauges("cache_entries", "Entries in each cache.", &["store"])?,
            cache_evictions: declare.counters(
                "cache_evictions_total",
                "Entries evicted from each cache to make room.",
                &["store"],
            )?,
            files_stalled: declare.gauge(
                "config_files_stalled",
                "1 while files of settings, keys or certificates cannot be read in time; the settings in force stay.",
            )?,
            reload_successful: declare.gauge(
                "config_last_reload_successful",
                "1 while the settings in the files are in force, 0 after a rejected reload.",
            )?,
            reload_at: declare.gauge(
                "config_last_reload_timestamp_seconds",
                "Time of the last reload, applied or rejected, in Unix time.",
            )?,
            reload_success_at: declare.gauge(
                "config_last_reload_success_timestamp_seconds",
                "Time since when the current settings are in force, in Unix time.",
            )?,
        })
    }

    /// Sets the gauges of one configured vendor. `queued` is the number of calls in each lane.
    pub fn set_vendor(
        &self,
        vendor: Vendor,
        standing: VendorStanding,
        queued: impl IntoIterator<Item = (&'static str, usize)>,
    ) {
        let vendor = vendor.as_str();
        let set = |gauges: &IntGaugeVec, value: i64| {
            gauges.with_label_values(&[vendor]).set(value);
        };
        // Rounded up: an alert would miss the last part of a second otherwise.
        let hold_down = standing.hold_down.as_millis().div_ceil(1000);
        set(
            &self.hold_down,
            i64::try_from(hold_down).unwrap_or(i64::MAX),
        );
        set(&self.key_refused, i64::from(standing.key_refused));
        set(&self.fallback_in_use, i64::from(standing.fallback_in_use));
        set(&self.vendor_in_flight, signed(standing.in_flight as u64));
        for (lane, calls) in queued {
            self.vendor_queued
                .with_label_values(&[vendor, lane])
                .set(signed(calls as u64));
        }
    }

    /// Sets how full a store is: one of those that `cache_bytes` has.
    pub fn set_store(&self, store: &'static str, usage: StoreUsage) {
        let set = |gauges: &IntGaugeVec, value: u64| {
            gauges.with_label_values(&[store]).set(signed(value));
        };
        set(&self.cache_bytes, usage.bytes);
        set(&self.cache_bytes_max, usage.bytes_max);
        set(&self.cache_entries, usage.entries);
        let evictions = self.cache_evictions.with_label_values(&[store]);
        evictions.inc_by(usage.evicted.saturating_sub(evictions.get()));
    }

    /// Sets the time and the outcome of reading the settings, at the start or at a reload.
    pub fn set_reload(&self, applied: bool, unix_s: i64) {
        self.reload_successful.set(i64::from(applied));
        self.reload_at.set(unix_s);
        if applied {
            self.reload_success_at.set(unix_s);
        }
    }
}

/// Converts a count to the type of a gauge.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
