//! The metrics of the store, with their labels resolved once.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::declare::Declare;
use crate::domain::Kind;

/// In seconds. A commit takes some milliseconds, and no request waits longer than 50.
pub(super) const STORE_BUCKETS: [f64; 10] = [
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0,
];

/// Declares a closed set of words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every variant.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the word used in labels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

words!(
    /// The operation of a store. The label `operation` of `store_requests_total`.
    StoreOperation {
        /// Find an answer.
        Find = "find",
        /// Store an answer.
        Land = "land",
        /// Find a search's current snapshot.
        Line = "line",
        /// Start a snapshot.
        Begin = "begin",
        /// Store a vendor page.
        Append = "append",
        /// Renew the ages of a snapshot.
        Renewed = "renewed",
        /// End a snapshot.
        End = "end",
        /// Find a snapshot.
        Head = "head",
        /// Find a vendor page.
        Chunk = "chunk",
        /// Record a use.
        Touch = "touch",
        /// Remove a snapshot.
        Forget = "forget",
        /// Store a note about the gateway.
        Note = "note",
        /// Find such a note.
        Recall = "recall",
        /// Claim a search.
        Claim = "claim",
        /// Renew a claim.
        Renew = "renew",
        /// End a claim.
        Release = "release",
        /// Say which rows are wanted, and look whose turn it is.
        Want = "want",
        /// Keep something once and for all gateways.
        Settle = "settle",
        /// Look for the purges of all gateways.
        Purges = "purges",
        /// Add to them.
        Purge = "purge",
        /// Learn which gateway fetches an answer.
        Board = "board",
        /// Share a failed fetch.
        Fail = "fail",
        /// Leave a fetch to others.
        GiveUp = "give_up",
        /// Take a vendor call from the budget of all gateways.
        Take = "take",
        /// Keep the place of such a call while it is sent.
        /// Keep the place of a call in progress.
        KeepCall = "keep_call",
        /// End such a call.
        EndCall = "end_call",
        /// Share what a vendor said about its limits.
        Word = "word",
        /// Sum the requests of callers.
        Use = "use",
        /// Ask for a place for one more open scroll.
        Slot = "slot",
        /// Say that a scroll is open still.
        SlotUsed = "slot_used",
        /// Say that a scroll is open no more.
        SlotEnded = "slot_ended",
        /// Be counted, and learn of purges.
        Beat = "beat",
    }
);

impl StoreOperation {
    /// The gateway does this for itself, at its start and now and then. It is counted, not timed:
    /// durations are there to show what requests and walks wait for.
    const fn is_bookkeeping(self) -> bool {
        matches!(
            self,
            Self::Note
                | Self::Recall
                | Self::Settle
                | Self::Purges
                | Self::Use
                | Self::SlotUsed
                | Self::SlotEnded
                | Self::Beat
        )
    }
}

words!(
    /// The outcome of a store operation. The label `outcome` of `store_requests_total`.
    StoreOutcome {
        /// It succeeded.
        Ok = "ok",
        /// It was refused, because too much waits to be written.
        Refused = "refused",
        /// It was not complete in time.
        Late = "late",
        /// It was not tried, because the store is unusable at present.
        Away = "away",
        /// It failed.
        Error = "error",
    }
);

words!(
    /// The outcome of a lookup in the store. The label `outcome` of `store_lookups_total`.
    StoreLookup {
        /// The record was found.
        Found = "found",
        /// The record is not there, or was not found in time.
        Missing = "missing",
        /// The record was found, but could not be opened or was purged.
        Rejected = "rejected",
    }
);

words!(
    /// Why a stored record was rejected. The label `why` of `store_rejects_total`.
    RecordReject {
        /// It has another layout.
        Format = "format",
        /// It was sealed with another key.
        Key = "key",
        /// Its seal is broken: its bytes have changed, or it is in another record's place.
        Seal = "seal",
        /// It is too long or too short.
        Size = "size",
        /// It can be opened, but its content is invalid.
        Content = "content",
        /// Its rows do not continue the ones before.
        Chain = "chain",
        /// A purge covers it.
        Purged = "purged",
        /// The whole file could not be read, and was moved aside.
        File = "file",
    }
);

/// The store's metrics. They are shown from the moment a store exists.
pub struct StoreMeter {
    up: IntGaugeVec,
    requests: IntCounterVec,
    durations: HistogramVec,
    lookups: IntCounterVec,
    rejects: IntCounterVec,
    bytes: IntGaugeVec,
    replicas: IntGaugeVec,
    detached: IntGaugeVec,
    resets: IntCounterVec,
}

/// The store's metrics with their labels resolved.
pub struct StoreMetrics {
    /// 1 while the store works.
    pub up: IntGauge,
    /// Sealed bytes kept.
    pub bytes: IntGauge,
    /// Gateways that share the store.
    pub replicas: IntGauge,
    /// Snapshots that only this gateway can continue, although the store is shared.
    pub detached: IntGauge,
    /// Times the store began empty where something had been kept.
    pub resets: IntCounter,
    requests: Vec<Vec<IntCounter>>,
    durations: Vec<Histogram>,
    lookups: Vec<Vec<IntCounter>>,
    rejects: Vec<IntCounter>,
}

impl StoreMeter {
    pub(super) fn new(declare: &Declare<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            up: declare.gauges(
                "store_up",
                "1 while the store works, 0 while it is away; present only with a store.",
                &[],
            )?,
            // No engine knows every operation.
            requests: declare.used_counters(
                "store_requests_total",
                "Store operations, by outcome.",
                &["operation", "outcome"],
                Some("operation"),
            )?,
            durations: declare.histograms(
                "store_request_duration_seconds",
                "Duration of a store operation.",
                &STORE_BUCKETS,
                &["operation"],
            )?,
            lookups: declare.used_counters(
                "store_lookups_total",
                "Store lookups after a miss in memory, by kind and outcome.",
                &["kind", "outcome"],
                Some("kind"),
            )?,
            rejects: declare.counters(
                "store_rejects_total",
                "Store records that were not used, by reason.",
                &["why"],
            )?,
            bytes: declare.gauges("store_bytes", "Sealed bytes in the store.", &[])?,
            replicas: declare.gauges(
                "replicas",
                "Gateways that share the store, as last counted; 0 for a store of one gateway.",
                &[],
            )?,
            detached: declare.gauges(
                "snapshots_detached",
                "Snapshots in memory that only this gateway can continue, because the shared store missed rows of them; as last counted.",
                &[],
            )?,
            resets: declare.counters(
                "store_resets_total",
                "Times the store was found unreadable or emptied, and started empty.",
                &[],
            )?,
        })
    }

    /// Resolves the store's metrics. From now on they are shown: those that alerts need from zero
    /// on, and operations and lookups from the first of their kind on.
    pub fn resolve(&self) -> Arc<StoreMetrics> {
        let none: [&str; 0] = [];
        Arc::new(StoreMetrics {
            up: self.up.with_label_values(&none),
            bytes: self.bytes.with_label_values(&none),
            replicas: self.replicas.with_label_values(&none),
            detached: self.detached.with_label_values(&none),
            resets: self.resets.with_label_values(&none),
            requests: StoreOperation::ALL
                .iter()
                .map(|operation| {
                    let outcomes = StoreOutcome::ALL.iter();
                    let of = |outcome: &StoreOutcome| {
                        let labels = [operation.as_str(), outcome.as_str()];
                        self.requests.with_label_values(&labels)
                    };
                    outcomes.map(of).collect()
                })
                .collect(),
            durations: StoreOperation::ALL
                .iter()
                .map(|operation| self.durations.with_label_values(&[operation.as_str()]))
                .collect(),
            lookups: Kind::ALL
                .iter()
                .map(|kind| {
                    StoreLookup::ALL
                        .iter()
                        .map(|outcome| {
                            let labels = [kind.as_str(), outcome.as_str()];
                            self.lookups.with_label_values(&labels)
                        })
                        .collect()
                })
                .collect(),
            rejects: RecordReject::ALL
                .iter()
                .map(|why| self.rejects.with_label_values(&[why.as_str()]))
                .collect(),
        })
    }
}

impl StoreMetrics {
    /// Counts and times an operation.
    pub fn request(&self, operation: StoreOperation, outcome: StoreOutcome, seconds: f64) {
        let counters = self.requests.get(operation as usize);
        if let Some(counter) = counters.and_then(|row| row.get(outcome as usize)) {
            counter.inc();
        }
        if let Some(histogram) = self.durations.get(operation as usize)
            && outcome != StoreOutcome::Away
            && !operation.is_bookkeeping()
        {
            histogram.observe(seconds);
        }
    }

    /// Counts a lookup of `kind`.
    pub fn lookup(&self, kind: Kind, outcome: StoreLookup) {
        let counters = self.lookups.get(kind as usize);
        if let Some(counter) = counters.and_then(|row| row.get(outcome as usize)) {
            counter.inc();
        }
    }

    /// Counts a rejected record.
    pub fn reject(&self, why: RecordReject) {
        if let Some(counter) = self.rejects.get(why as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn an_operation_is_shown_with_all_outcomes_from_its_first_use_on() {
        let metrics = Metrics::new().unwrap();
        let store = metrics.store.resolve();
        let shown = || {
            let text = metrics.render().unwrap();
            let of = |line: &&str| line.starts_with("msp_gateway_store_requests_total{");
            text.lines().filter(of).count()
        };
        assert_eq!(shown(), 0);
        store.request(StoreOperation::Append, StoreOutcome::Ok, 0.001);
        assert_eq!(shown(), StoreOutcome::ALL.len());
        store.request(StoreOperation::Append, StoreOutcome::Late, 0.05);
        assert_eq!(shown(), StoreOutcome::ALL.len());
    }
}
