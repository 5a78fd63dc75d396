//! Quantiles from a histogram's buckets.

use serde::Serialize;

/// Number of observations in each bucket of a histogram since the start of the process. The last
/// bucket is for observations above all bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketCounts(pub Vec<u64>);

impl BucketCounts {
    /// Adds the observations of another histogram with the same buckets.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours += theirs;
        }
    }

    /// Returns the observations since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let earlier = before.0.iter().copied().chain(std::iter::repeat(0));
        let pairs = self.0.iter().zip(earlier);
        Self(pairs.map(|(now, then)| now.saturating_sub(then)).collect())
    }

    /// Returns the number of all observations.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns the time in seconds below which this share (0 to 1) of the observations lies. It is
    /// interpolated within its bucket, as Prometheus does. `None` without observations.
    fn quantile(&self, part: f64, bounds_s: &[f64]) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = part * total as f64;
        let mut below = 0.0;
        let mut from = 0.0;
        for (count, to) in self.0.iter().zip(bounds_s) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(from + (to - from) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            from = *to;
        }
        // The last bucket has no upper bound to interpolate to.
        bounds_s.last().copied()
    }
}

/// Two quantiles of answer times, in milliseconds; `None` without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the answers came within this.
    pub p50: Option<f32>,
    /// 99 of 100 came within this.
    pub p99: Option<f32>,
}

impl Latency {
    /// Computes the percentiles of these observations.
    pub fn of(counts: &BucketCounts, bounds_s: &[f64]) -> Self {
        let ms = |part| {
            let seconds = counts.quantile(part, bounds_s)?;
            // Buckets are not more exact than three digits.
            Some((seconds * 1e6).round() as f32 / 1e3)
        };
        Self {
            p50: ms(0.5),
            p99: ms(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let bounds = [0.001, 0.01, 0.1];
        let of = |counts: &[u64]| Latency::of(&BucketCounts(counts.to_vec()), &bounds);
        assert_eq!(of(&[0, 0, 0, 0]), Latency::default());
        assert_eq!(of(&[100, 0, 0, 0]).p50, Some(0.5));
        assert_eq!(of(&[100, 0, 0, 0]).p99, Some(0.99));
        let two = of(&[90, 0, 10, 0]);
        assert!(two.p50.unwrap() < 1.0 && two.p99.unwrap() > 10.0, "{two:?}");
        assert_eq!(of(&[0, 0, 0, 3]).p50, Some(100.0));
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let before = BucketCounts(vec![1, 2]);
        let mut now = BucketCounts(vec![1, 5]);
        now.add(&BucketCounts(vec![0, 0, 7]));
        assert_eq!(now.since(&before), BucketCounts(vec![0, 3, 7]));
        assert_eq!(now.since(&BucketCounts::default()).total(), 13);
    }
}
