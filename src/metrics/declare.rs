//! Declares metrics: a prefix, a help text, labels, and a place in the registry.

use std::collections::HashSet;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Returns the name with our prefix, and the help text.
pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("msp_gateway_{name}"), help)
}

/// Declares metrics in one registry. Every method fails only if the registry has the name already.
pub(super) struct Declare<'a>(pub(super) &'a Registry);

impl Declare<'_> {
    fn register<C: Collector + Clone + 'static>(&self, made: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    /// Declares counters of which a row is shown, whole, once one of it counted. A row is the
    /// series with one word of the label `row`; without a label, all of them. No alert may need a
    /// row from zero on.
    pub(super) fn used_counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        row: Option<&'static str>,
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(opts(name, help), labels)?;
        let used = UsedRows(counters.clone(), row);
        self.0.register(Box::new(used))?;
        Ok(counters)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    /// Declares histograms whose series are shown from their first observation on. Each takes some
    /// twenty lines, and most pairs of route and outcome never occur.
    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        let vec = HistogramVec::new(opts, labels)?;
        self.0.register(Box::new(Observed(vec.clone())))?;
        Ok(vec)
    }
}

/// A histogram that shows the series that were observed at least once.
struct Observed(HistogramVec);

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in &mut families {
            let mut series = family.take_metric();
            series.retain(|series| series.get_histogram().get_sample_count() > 0);
            family.set_metric(series);
        }
        families
    }
}

/// Counters that show the rows of which one counted.
struct UsedRows(IntCounterVec, Option<&'static str>);

impl Collector for UsedRows {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let word = |series: &Metric| {
            let labels = series.get_label().iter();
            let mut labels = labels.filter(|label| Some(label.name()) == self.1);
            labels.next().map(|label| label.value().to_owned())
        };
        let mut families = self.0.collect();
        for family in &mut families {
            let mut series = family.take_metric();
            let counted = series.iter();
            let counted = counted.filter(|series| series.get_counter().get_value() > 0.0);
            let used: HashSet<_> = counted.map(word).collect();
            series.retain(|series| used.contains(&word(series)));
            family.set_metric(series);
        }
        families
    }
}
