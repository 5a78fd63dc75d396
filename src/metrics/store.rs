//! What is measured of the store, resolved once.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::declare::Declare;
use crate::domain::Kind;

/// Seconds; a commit takes some milliseconds, and nobody waits longer than 50.
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
            /// Every one.
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
    /// What is asked of a store. The label `operation` of `store_requests_total`.
    StoreOperation {
        /// Look for an answer.
        Find = "find",
        /// Keep an answer.
        Land = "land",
        /// Look for a search's current snapshot.
        Line = "line",
        /// Begin a snapshot.
        Begin = "begin",
        /// Keep a vendor page.
        Append = "append",
        /// Renew the ages of a snapshot.
        Renewed = "renewed",
        /// End a snapshot.
        End = "end",
        /// Look for a snapshot.
        Head = "head",
        /// Look for a vendor page.
        Chunk = "chunk",
        /// Note a use.
        Touch = "touch",
        /// Forget a snapshot.
        Forget = "forget",
        /// Note something about the gateway.
        Note = "note",
        /// Look for that.
        Recall = "recall",
    }
);

words!(
    /// How an operation of the store ended. The label `outcome` of `store_requests_total`.
    StoreOutcome {
        /// With a reply.
        Ok = "ok",
        /// The store takes no more: too much waits to be written.
        Refused = "refused",
        /// Not in time.
        Late = "late",
        /// Not tried: the store cannot be used at present.
        Away = "away",
        /// It failed.
        Error = "error",
    }
);

words!(
    /// How a look into the store ended. The label `outcome` of `store_lookups_total`.
    StoreLookup {
        /// It was there.
        Found = "found",
        /// It was not, or not in time.
        Missing = "missing",
        /// It was, and did not open or was purged.
        Rejected = "rejected",
    }
);

words!(
    /// Why something in the store was not taken. The label `why` of `store_rejects_total`.
    RecordReject {
        /// It has another layout.
        Format = "format",
        /// It was sealed with another key.
        Key = "key",
        /// Its seal is broken: bytes have changed, or it stands in another's place.
        Seal = "seal",
        /// It is too long or too short.
        Size = "size",
        /// It opens and makes no sense.
        Content = "content",
        /// Its rows do not go on from those before.
        Chain = "chain",
        /// A purge covers it.
        Purged = "purged",
        /// The whole file could not be read, and was put aside.
        File = "file",
    }
);

/// The store's metrics. Shown from the moment on that there is a store.
pub struct StoreMeter {
    up: IntGaugeVec,
    requests: IntCounterVec,
    durations: HistogramVec,
    lookups: IntCounterVec,
    rejects: IntCounterVec,
    bytes: IntGaugeVec,
    resets: IntCounterVec,
}

/// The same with its labels resolved.
pub struct StoreMetrics {
    /// 1 while the store is at work.
    pub up: IntGauge,
    /// Sealed bytes kept.
    pub bytes: IntGauge,
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
                "1 while the store is at work, 0 while it is away; only where there is one.",
                &[],
            )?,
            requests: declare.counters(
                "store_requests_total",
                "Operations of the store, and how they ended.",
                &["operation", "outcome"],
            )?,
            durations: declare.histograms(
                "store_request_duration_seconds",
                "Time of an operation of the store.",
                &STORE_BUCKETS,
                &["operation"],
            )?,
            lookups: declare.counters(
                "store_lookups_total",
                "Looks into the store for what memory did not hold, by kind and how they ended.",
                &["kind", "outcome"],
            )?,
            rejects: declare.counters(
                "store_rejects_total",
                "What the store held and was not taken, by reason.",
                &["why"],
            )?,
            bytes: declare.gauges("store_bytes", "Sealed bytes in the store.", &[])?,
            resets: declare.counters(
                "store_resets_total",
                "Times the store began empty because what was kept could not be read.",
                &[],
            )?,
        })
    }

    /// Its metrics; from now on they are shown, from zero.
    pub fn resolve(&self) -> Arc<StoreMetrics> {
        let none: [&str; 0] = [];
        Arc::new(StoreMetrics {
            up: self.up.with_label_values(&none),
            bytes: self.bytes.with_label_values(&none),
            resets: self.resets.with_label_values(&none),
            requests: StoreOperation::ALL
                .iter()
                .map(|operation| {
                    StoreOutcome::ALL
                        .iter()
                        .map(|outcome| {
                            let labels = [operation.as_str(), outcome.as_str()];
                            self.requests.with_label_values(&labels)
                        })
                        .collect()
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
        {
            histogram.observe(seconds);
        }
    }

    /// Counts a look for something of `kind`.
    pub fn lookup(&self, kind: Kind, outcome: StoreLookup) {
        let counters = self.lookups.get(kind as usize);
        if let Some(counter) = counters.and_then(|row| row.get(outcome as usize)) {
            counter.inc();
        }
    }

    /// Counts something that was not taken.
    pub fn reject(&self, why: RecordReject) {
        if let Some(counter) = self.rejects.get(why as usize) {
            counter.inc();
        }
    }
}
