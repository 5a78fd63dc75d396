//! The past that the console shows, in memory of a fixed size.
//!
//! Two kinds of things are remembered:
//!
//! - [`Samples`]: the counters, read once a second. The last ten minutes are kept by the second and
//!   the last day by the minute. A watcher gets each new sample.
//! - [`RequestRing`]: the last requests, each as recorded when its last byte was sent.
//!
//! ```text
//! request ends ──▶ RequestRing (three rings: from memory, refused, the others) ──▶ /admin/requests
//! every second ──▶ Reading ──▶ Samples (by the second, by the minute) ──▶ /admin/history
//!                                  └──▶ watch channel of one value ──▶ /admin/live
//! ```
//!
//! What must never happen here: a request that waits for a reader (a slot that is being read is
//! skipped), a reader that makes something pile up (a slow one misses samples), and memory that
//! grows with traffic (`console.history_bytes_max` is divided once, at the start).

mod latency;
pub mod requests;
pub mod samples;

pub use latency::{BucketCounts, Latency};
pub use requests::{FinishedRequest, RequestFilter, RequestRing, StatusFilter};
pub use samples::{
    ByLane, DropCounts, HistoryWindow, Reading, Sample, Samples, ScrollCounts, StoreSize,
    VendorGauges, VendorReading, Watcher,
};

use std::sync::Arc;

/// Both kinds.
#[derive(Debug)]
pub struct History {
    /// The charts' numbers.
    pub samples: Samples,
    /// The last requests.
    pub requests: RequestRing,
}

impl History {
    /// Remembers nothing yet, and never more than `bytes_max`. Samples come first, and requests get
    /// the rest of the memory. If it is too little for the samples of a day, fewer are kept. With
    /// zero, nothing is kept and the console shows only live samples.
    pub fn within(bytes_max: u64) -> Arc<Self> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let samples = Samples::within(bytes_max / 2);
        let left = bytes_max.saturating_sub(samples.bytes_max());
        Arc::new(Self {
            samples,
            requests: RequestRing::within(left),
        })
    }
}
