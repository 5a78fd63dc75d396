//! The counters of each caller.
//!
//! A request increments several of its caller's counters. They are next to each other in memory, so
//! the request touches two cache lines, however many callers there are. Separate counters would
//! need one cache line each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};

use super::declare::opts;
use crate::domain::Route;

/// Statuses with a label value of their own. Others are counted as `other`. They are sorted by
/// frequency, because they are searched one by one.
const STATUSES: [(u16, &str); 20] = [
    (200, "200"),
    (304, "304"),
    (204, "204"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (410, "410"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (429, "429"),
    (431, "431"),
    (499, "499"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];
/// The classes of `answers_total`. Statuses without a label value of their own count as `other`.
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];
const OTHER_STATUS: usize = STATUSES.len();

/// The counters of one caller, the most frequently incremented first.
#[repr(C)]
struct Tally {
    name: Arc<str>,
    saved: AtomicU64,
    calls: AtomicU64,
    requests: [[AtomicU64; Route::ALL.len()]; STATUSES.len() + 1],
}

/// The counters of one caller.
#[derive(Clone)]
pub struct CallerMeter(Arc<Tally>);

impl CallerMeter {
    /// Counts one answered request.
    pub fn request(&self, route: Route, status: u16) {
        let index = STATUSES
            .iter()
            .position(|(code, _)| *code == status)
            .unwrap_or(OTHER_STATUS);
        let row = self.0.requests.get(index);
        if let Some(count) = row.and_then(|row| row.get(route as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the counter for vendor calls that this caller causes, however long after its
    /// request.
    pub fn calls_caused(&self) -> CallsCaused {
        CallsCaused(self.0.clone())
    }

    /// Counts a request of this caller that needed no vendor call.
    pub fn saved(&self) {
        self.0.saved.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests answered so far with a status of 2xx or 3xx, of 4xx, and of
    /// 5xx, and of those whose caller left before the answer.
    pub fn asked(&self) -> [u64; 4] {
        let mut classes = [0; 4];
        let statuses = STATUSES.iter().map(|(status, _)| *status).chain([200]);
        for (row, status) in self.0.requests.iter().zip(statuses) {
            let class = match status {
                499 => 3,
                ..400 => 0,
                400..500 => 1,
                _ => 2,
            };
            let count: u64 = row.iter().map(|count| count.load(Ordering::Relaxed)).sum();
            if let Some(sum) = classes.get_mut(class) {
                *sum += count;
            }
        }
        classes
    }

    /// Returns (vendor calls caused, vendor calls saved) so far.
    pub fn ledger(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.0.calls), of(&self.0.saved))
    }
}

/// Counts the vendor calls that one caller causes.
#[derive(Clone)]
pub struct CallsCaused(Arc<Tally>);

impl CallsCaused {
    /// Returns the caller's configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Counts one call.
    pub fn add(&self) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of calls so far.
    pub fn count(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for CallsCaused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallsCaused")
            .field("name", self.name())
            .field("count", &self.count())
            .finish()
    }
}

/// Every caller's counters by name. Like all counters they exist as long as the gateway runs. So a
/// caller whose name is removed and added again keeps counting from where it was.
pub(super) struct Callers {
    tallies: Mutex<BTreeMap<Arc<str>, Arc<Tally>>>,
    requests: Desc,
    answers: Desc,
    calls: Desc,
    saved: Desc,
}

impl Callers {
    pub(super) fn new() -> Result<Arc<Self>, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            opts(name, help).variable_labels(labels).describe()
        };
        Ok(Arc::new(Self {
            tallies: Mutex::default(),
            requests: counters(
                "requests_total",
                "Requests answered on the public listener.",
                &["route", "caller", "status"],
            )?,
            answers: counters(
                "answers_total",
                "Requests answered on the public listener, by status class; every class starts at zero.",
                &["class"],
            )?,
            calls: counters(
                "caller_vendor_calls_total",
                "Vendor calls that a caller caused; calls of \"gateway\" are refreshes and read-ahead.",
                &["caller"],
            )?,
            saved: counters(
                "caller_vendor_calls_saved_total",
                "Requests of a caller that needed no vendor call.",
                &["caller"],
            )?,
        }))
    }

    /// Returns the answers of all callers with 2xx or 3xx, with 4xx, and with 5xx.
    pub(super) fn by_class(&self) -> [u64; 3] {
        let tallies: Vec<_> = self.tallies.lock().values().cloned().collect();
        let mut sums = [0; 3];
        for tally in tallies {
            for (sum, count) in sums.iter_mut().zip(CallerMeter(tally).asked()) {
                *sum += count;
            }
        }
        sums
    }

    /// Returns the counters of the caller of this name.
    pub(super) fn of(&self, name: &str) -> CallerMeter {
        let mut tallies = self.tallies.lock();
        if let Some(tally) = tallies.get(name) {
            return CallerMeter(tally.clone());
        }
        let name: Arc<str> = name.into();
        let tally = Arc::new(Tally {
            name: name.clone(),
            saved: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            requests: Default::default(),
        });
        tallies.insert(name, tally.clone());
        CallerMeter(tally)
    }
}

/// The collector for the registry.
pub(super) struct Collected(pub(super) Arc<Callers>);

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        let Callers {
            requests,
            answers,
            calls,
            saved,
            ..
        } = &*self.0;
        vec![requests, answers, calls, saved]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let tallies: Vec<_> = self.0.tallies.lock().values().cloned().collect();
        let (mut requests, mut calls, mut saved) = (Vec::new(), Vec::new(), Vec::new());
        let mut answers = CLASSES.map(|class| (class, 0));
        for tally in &tallies {
            let caller = ("caller", &*tally.name);
            calls.push(sample(&[caller], tally.calls.load(Ordering::Relaxed)));
            saved.push(sample(&[caller], tally.saved.load(Ordering::Relaxed)));
            let words = STATUSES.iter().map(|(_, word)| *word).chain(["other"]);
            for (row, status) in tally.requests.iter().zip(words) {
                for (count, route) in row.iter().zip(Route::ALL) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let labels = [caller, ("route", route.as_str()), ("status", status)];
                        requests.push(sample(&labels, count));
                    }
                    let same = |(class, _): &&mut (&str, u64)| class.get(..1) == status.get(..1);
                    if let Some((_, sum)) = answers.iter_mut().find(same) {
                        *sum += count;
                    }
                }
            }
        }
        let answers = answers.map(|(class, sum)| sample(&[("class", class)], sum));
        let answers = answers.into_iter().collect();
        vec![
            family(&self.0.requests, requests),
            family(&self.0.answers, answers),
            family(&self.0.calls, calls),
            family(&self.0.saved, saved),
        ]
    }
}

/// Makes a sample. `labels` must be sorted by name, like those of all metrics.
fn sample(labels: &[(&str, &str)], count: u64) -> Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    let mut counter = Counter::default();
    counter.set_value(count as f64);
    metric.set_counter(counter);
    metric
}

fn family(desc: &Desc, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_counted_under_its_name_alone_and_counts_on_after_a_reload() {
        let registry = prometheus::Registry::new();
        let callers = Callers::new().unwrap();
        registry
            .register(Box::new(Collected(callers.clone())))
            .unwrap();
        let (one, other) = (callers.of("one"), callers.of("other"));
        one.request(Route::Customers, 200);
        one.request(Route::CaseSearch, 200);
        one.request(Route::CaseSearch, 503);
        one.request(Route::CaseSearch, 299);
        one.calls_caused().add();
        other.saved();
        callers.of("one").request(Route::Customers, 200);
        assert_eq!((one.ledger(), other.ledger()), ((1, 0), (0, 1)));
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "msp_gateway_answers_total{class=\"2xx\"} 3",
                "msp_gateway_answers_total{class=\"3xx\"} 0",
                "msp_gateway_answers_total{class=\"4xx\"} 0",
                "msp_gateway_answers_total{class=\"5xx\"} 1",
                "msp_gateway_answers_total{class=\"other\"} 1",
                "msp_gateway_caller_vendor_calls_saved_total{caller=\"one\"} 0",
                "msp_gateway_caller_vendor_calls_saved_total{caller=\"other\"} 1",
                "msp_gateway_caller_vendor_calls_total{caller=\"one\"} 1",
                "msp_gateway_caller_vendor_calls_total{caller=\"other\"} 0",
                "msp_gateway_requests_total{caller=\"one\",route=\"case_search\",status=\"200\"} 1",
                "msp_gateway_requests_total{caller=\"one\",route=\"case_search\",status=\"503\"} 1",
                "msp_gateway_requests_total{caller=\"one\",route=\"case_search\",status=\"other\"} 1",
                "msp_gateway_requests_total{caller=\"one\",route=\"customers\",status=\"200\"} 2",
            ]
        );
        assert!(text.contains("# TYPE msp_gateway_requests_total counter"));
        assert_eq!(
            format!("{:?}", one.calls_caused()),
            "CallsCaused { name: \"one\", count: 1 }"
        );
    }
}
