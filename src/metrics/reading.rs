//! Reads counters for the console, once a second: sums over labels, at no cost for a request.

use prometheus::core::{Collector as _, Metric as _};
use prometheus::proto::MetricFamily;

use super::{Metrics, REQUEST_BUCKETS};
use crate::domain::{CacheOutcome, Vendor};

/// Upper bounds of the buckets of [`Metrics::durations_of`], in seconds.
pub const DURATION_BOUNDS_S: &[f64] = &REQUEST_BUCKETS;

impl Metrics {
    /// Returns how many answers with this outcome fell into each bucket of duration, over all
    /// routes, since the start: one count for each of [`DURATION_BOUNDS_S`], and one for those
    /// above all of them.
    pub fn durations_of(&self, outcome: Option<CacheOutcome>) -> Vec<u64> {
        let column = outcome.map_or(CacheOutcome::ALL.len(), |outcome| outcome as usize);
        let mut counts = vec![0; DURATION_BOUNDS_S.len() + 1];
        let histograms = self.durations.iter().filter_map(|row| row.get(column));
        for histogram in histograms.filter(|h| h.get_sample_count() > 0) {
            let metric = histogram.metric();
            let of = metric.get_histogram();
            let mut below = 0;
            let up_to = of.get_bucket().iter().map(|b| b.cumulative_count());
            for (count, up_to) in counts.iter_mut().zip(up_to.chain([of.get_sample_count()])) {
                *count += up_to - below;
                below = up_to;
            }
        }
        counts
    }

    /// Returns (attempts at this vendor, those without an answer) since the start.
    pub fn vendor_attempts(&self, vendor: Vendor) -> (u64, u64) {
        let (mut all, mut failed) = (0, 0);
        let families = self.vendor_requests.collect();
        for metric in families.iter().flat_map(MetricFamily::get_metric) {
            let is = |name: &str, value: &str| {
                let mut labels = metric.get_label().iter();
                labels.any(|label| label.name() == name && label.value() == value)
            };
            if !is("vendor", vendor.as_str()) {
                continue;
            }
            // The library returns this counter of whole numbers as a float.
            let count = metric.get_counter().get_value() as u64;
            all += count;
            if !is("outcome", "ok") {
                failed += count;
            }
        }
        (all, failed)
    }

    /// Returns the number of requests answered without a call to this vendor, since the start.
    pub fn calls_saved(&self, vendor: Vendor) -> u64 {
        let row = self.saved.get(vendor as usize);
        row.into_iter().flatten().map(|count| count.get()).sum()
    }

    /// Returns the answers with a status of 2xx or 3xx, of 4xx (without 499, which no caller
    /// received), and of 5xx, since the start.
    pub fn answers_by_class(&self) -> [u64; 3] {
        self.callers.by_class()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Operation, Route, Saved};

    #[test]
    fn sums_are_those_of_the_counters() {
        let metrics = Metrics::new().unwrap();
        let hit = Some(CacheOutcome::Hit);
        metrics.duration(Route::Customers, hit, 0.000_05);
        metrics.duration(Route::CaseSearch, hit, 0.000_2);
        metrics.duration(Route::CaseSearch, hit, 100.0);
        metrics.duration(Route::OpenApi, None, 0.000_05);
        let counts = metrics.durations_of(hit);
        assert_eq!(counts.len(), DURATION_BOUNDS_S.len() + 1);
        assert_eq!((counts[0], counts[1], counts.last()), (1, 1, Some(&1)));
        assert_eq!(metrics.durations_of(None).iter().sum::<u64>(), 1);
        assert_eq!(
            metrics
                .durations_of(Some(CacheOutcome::Miss))
                .iter()
                .sum::<u64>(),
            0
        );
        metrics.vendor_request(Operation::Search, "ok", 0.1);
        metrics.vendor_request(Operation::Continue, "timeout", 10.0);
        metrics.vendor_request(Operation::Billing, "ok", 0.1);
        assert_eq!(metrics.vendor_attempts(Vendor::Wiv), (2, 1));
        assert_eq!(metrics.vendor_attempts(Vendor::Nable), (1, 0));
        metrics.call_saved(Vendor::Wiv, Saved::Hit);
        metrics.call_saved(Vendor::Wiv, Saved::Stale);
        assert_eq!(
            (
                metrics.calls_saved(Vendor::Wiv),
                metrics.calls_saved(Vendor::Nable)
            ),
            (2, 0)
        );
        let meter = metrics.caller("dash");
        for status in [200, 304, 404, 499, 503, 299] {
            meter.request(Route::Customers, status);
        }
        assert_eq!(metrics.answers_by_class(), [3, 1, 1]);
        assert_eq!(meter.asked(), [3, 1, 1, 1]);
    }
}
