//! What is measured of exported spans, resolved once.

use std::sync::{Arc, OnceLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::declare::Declare;

/// Why a span was not exported. The label `reason` of `traces_spans_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDrop {
    /// Too many spans wait for the collector.
    QueueFull,
    /// The request has as many spans as it may.
    TraceFull,
    /// No connection to the collector, or it broke.
    Unreachable,
    /// The collector did not answer in time.
    Timeout,
    /// The collector answered with another status than 2xx.
    Refused,
    /// The collector took the export and rejected some of its spans.
    Rejected,
    /// The process, or these settings, ended before.
    Closed,
}

impl SpanDrop {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::TraceFull,
        Self::Unreachable,
        Self::Timeout,
        Self::Refused,
        Self::Rejected,
        Self::Closed,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TraceFull => "trace_full",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Closed => "closed",
        }
    }
}

/// The metrics of traces. Shown from the moment on that spans are exported.
pub struct TraceMeter {
    resolved: OnceLock<Arc<TraceMetrics>>,
    up: IntGaugeVec,
    exported: IntCounterVec,
    dropped: IntCounterVec,
}

/// The same with its labels resolved.
#[derive(Debug)]
pub struct TraceMetrics {
    /// 1 while exports succeed, 0 after one that failed.
    pub up: IntGauge,
    exported: IntCounter,
    dropped: Vec<IntCounter>,
}

impl TraceMeter {
    pub(super) fn new(declare: &Declare<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            resolved: OnceLock::new(),
            up: declare.gauges(
                "traces_up",
                "1 while spans are exported, 0 after a failed export; present only with traces.",
                &[],
            )?,
            exported: declare.counters(
                "traces_spans_exported_total",
                "Spans that the collector accepted.",
                &[],
            )?,
            dropped: declare.counters(
                "traces_spans_dropped_total",
                "Spans that were not exported, by reason.",
                &["reason"],
            )?,
        })
    }

    /// Resolves the metrics of traces. From now on they are shown, from zero.
    pub fn resolve(&self) -> Arc<TraceMetrics> {
        let none: [&str; 0] = [];
        let dropped = |reason: SpanDrop| self.dropped.with_label_values(&[reason.as_str()]);
        let up = self.up.with_label_values(&none);
        // Nothing has failed yet.
        up.set(1);
        let metrics = Arc::new(TraceMetrics {
            up,
            exported: self.exported.with_label_values(&none),
            dropped: SpanDrop::ALL.into_iter().map(dropped).collect(),
        });
        // Every later one counts with the same counters.
        let _ = self.resolved.set(metrics.clone());
        metrics
    }

    /// Returns how many spans were not exported since the start.
    pub fn dropped_so_far(&self) -> u64 {
        let dropped = self.resolved.get().into_iter().flat_map(|of| &of.dropped);
        dropped.map(IntCounter::get).sum()
    }
}

impl TraceMetrics {
    /// Counts spans that the collector took.
    pub fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Counts spans that were not exported.
    pub fn dropped(&self, reason: SpanDrop, spans: usize) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.inc_by(spans as u64);
        }
    }
}
