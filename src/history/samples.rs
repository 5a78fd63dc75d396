//! The numbers of the console's charts: by the second for ten minutes, by the minute for a day, and
//! live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use super::latency::{BucketCounts, Latency};
use crate::clock::{Duration, Instant};
use crate::domain::CacheOutcome;

/// Samples by the second: ten minutes of them.
const SECONDS_MAX: usize = 600;
/// Samples by the minute: a day of them.
const MINUTES_MAX: usize = 1440;
const MINUTE: Duration = Duration::from_secs(60);
/// Maximum number of concurrent watchers. Each one holds one of the admin listener's 64
/// connections, and Prometheus must always find a free one.
pub const WATCHERS_MAX: usize = 16;
/// Columns of the outcomes: the last one is for requests that asked no cache.
pub const OUTCOMES: usize = CacheOutcome::ALL.len() + 1;

/// The window of the requested samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryWindow {
    /// By the second.
    TenMinutes,
    /// By the minute.
    Day,
}

/// A number of vendor calls for each lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByLane {
    /// For callers that wait.
    pub interactive: u32,
    /// For refreshes.
    pub refresh: u32,
    /// For reading ahead.
    pub read_ahead: u32,
    /// For exports and draining.
    pub export: u32,
}

/// The state of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VendorGauges {
    /// `ok`, `degraded` or `disabled`.
    pub state: &'static str,
    /// `closed`, `half_open` or `open`.
    pub circuit: &'static str,
    /// Time until the next probe, while the circuit is open.
    pub probe_in_ms: Option<u32>,
    /// Whether the vendor rejects our keys.
    pub key_rejected: bool,
    /// Time until the vendor may be called again, if it asked for a wait.
    pub hold_down_ms: Option<u32>,
    /// Calls that the budget admits right now.
    pub budget_remaining: u32,
    /// Maximum number of calls that the budget admits at once.
    pub budget_max: u32,
    /// Calls a minute, as configured or as learnt.
    pub rate_limit: u32,
    /// Calls in progress.
    pub in_flight: u32,
    /// Concurrent calls, as configured or as the vendor can handle.
    pub concurrency_limit: u32,
    /// Calls that wait.
    pub queued: ByLane,
    /// Calls that the budget admits right now, of each lane: less urgent ones leave a part.
    pub budget_by_lane: ByLane,
    /// The share of the rate for background work while the vendor recovers, in percent.
    pub background_percent: Option<u8>,
}

/// Scrolls, and searches that wait for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScrollCounts {
    /// Walks that run.
    pub open: u32,
    /// Walks that may run.
    pub max: u32,
    /// Scrolls that may be open at the vendor, those of running walks included.
    pub at_vendor: u32,
    /// How many of these there may be.
    pub at_vendor_max: u32,
    /// Searches that wait for a slot.
    pub waiting: u32,
}

/// One store in memory, with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StoreSize {
    /// `answers`, `pages`, `variants` or `snapshots`.
    pub store: &'static str,
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes it may hold.
    pub bytes_max: u64,
    /// Number of entries evicted for lack of room since the start.
    pub evicted: u64,
}

/// Lines and spans that were dropped, because their reader is slow or gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DropCounts {
    /// Log lines of both outputs.
    pub log_lines: u64,
    /// Spans that were not exported.
    pub spans: u64,
}

/// One vendor's part of a [`Reading`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VendorReading {
    /// The vendor's name.
    pub vendor: &'static str,
    /// Attempts so far.
    pub calls: u64,
    /// Number of these attempts without an answer.
    pub failed: u64,
    /// Requests so far that were answered without a call of their own.
    pub saved: u64,
    /// Its state.
    pub gauges: VendorGauges,
}

/// Everything that is read once a second. Counters count from the start of the process.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// The same, for people.
    pub wall: Timestamp,
    /// Answer times by cache outcome, in the order of [`CacheOutcome::ALL`], then those of no
    /// cache.
    pub durations: [BucketCounts; OUTCOMES],
    /// The buckets' upper bounds.
    pub bounds_s: &'static [f64],
    /// Answers by status: 2xx and 3xx, 4xx, 5xx.
    pub statuses: [u64; 3],
    /// Of each vendor.
    pub vendors: Vec<VendorReading>,
    /// Requests being answered.
    pub requests_in_flight: u32,
    /// Exports being sent.
    pub exports_running: u32,
    /// Connections on the public listener.
    pub connections: u32,
    /// Scrolls of wiv.
    pub scrolls: ScrollCounts,
    /// The stores.
    pub stores: Vec<StoreSize>,
    /// What was dropped so far.
    pub dropped: DropCounts,
}

/// Answers within a sample's time, by cache outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct ByOutcome {
    hit: u64,
    stale: u64,
    miss: u64,
    collapsed: u64,
    derived: u64,
    projected: u64,
    negative: u64,
    error: u64,
    none: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct ByStatus {
    good: u64,
    refused: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct VendorSample {
    calls: u64,
    failed: u64,
    saved: u64,
    #[serde(flatten)]
    gauges: VendorGauges,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Latencies {
    hit: Latency,
    miss: Latency,
}

/// The numbers of the charts for one second or one minute: counts of events within it, and the
/// state at its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Its end.
    #[serde(serialize_with = "as_text")]
    time: Timestamp,
    /// Its length.
    seconds: f32,
    answers: ByOutcome,
    statuses: ByStatus,
    /// The share of answers from memory among requests that asked a cache, from 0 to 1.
    hit_ratio: Option<f32>,
    latency_ms: Latencies,
    vendors: ByVendor,
    requests_in_flight: u32,
    exports_running: u32,
    connections: u32,
    scrolls: ScrollCounts,
    stores: Vec<StoreSize>,
    dropped: DropCounts,
}

fn as_text<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.3}"))
}

/// An object by vendor's name, kept as a list: two are no map.
#[derive(Clone, Debug, PartialEq)]
struct ByVendor(Vec<(&'static str, VendorSample)>);

impl Serialize for ByVendor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, sample)| (name, sample)))
    }
}

impl Sample {
    /// What happened from one reading to the next.
    fn between(before: &Reading, now: &Reading) -> Self {
        let mut columns = before.durations.iter().zip(&now.durations);
        let mut of = || {
            let next = columns.next();
            next.map_or_else(BucketCounts::default, |(before, now)| now.since(before))
        };
        // In the order of `CacheOutcome::ALL`.
        let [hit, stale, miss, collapsed] = [of(), of(), of(), of()];
        let [derived, projected, negative, error, none] = [of(), of(), of(), of(), of()];
        let answers = ByOutcome {
            hit: hit.total(),
            stale: stale.total(),
            miss: miss.total(),
            collapsed: collapsed.total(),
            derived: derived.total(),
            projected: projected.total(),
            negative: negative.total(),
            error: error.total(),
            none: none.total(),
        };
        let sum = |parts: &[&BucketCounts]| {
            let mut all = BucketCounts::default();
            parts.iter().for_each(|part| all.add(part));
            all
        };
        let from_memory = sum(&[&hit, &stale, &derived, &projected, &negative]);
        let asked = sum(&[&miss, &collapsed]);
        let whole = from_memory.total() + asked.total() + error.total();
        let [good, refused, failed] = std::array::from_fn(|class| {
            let at = |of: &[u64; 3]| of.get(class).copied().unwrap_or(0);
            at(&now.statuses).saturating_sub(at(&before.statuses))
        });
        let vendors = now.vendors.iter().map(|vendor| {
            let mut earlier = before.vendors.iter();
            let earlier = earlier.find(|earlier| earlier.vendor == vendor.vendor);
            let since = |count: fn(&VendorReading) -> u64| {
                count(vendor).saturating_sub(earlier.map_or(0, count))
            };
            let sample = VendorSample {
                calls: since(|v| v.calls),
                failed: since(|v| v.failed),
                saved: since(|v| v.saved),
                gauges: vendor.gauges,
            };
            (vendor.vendor, sample)
        });
        Self {
            time: now.wall,
            seconds: now.at.saturating_duration_since(before.at).as_secs_f32(),
            answers,
            statuses: ByStatus {
                good,
                refused,
                failed,
            },
            hit_ratio: (whole > 0).then(|| from_memory.total() as f32 / whole as f32),
            latency_ms: Latencies {
                hit: Latency::of(&from_memory, now.bounds_s),
                miss: Latency::of(&asked, now.bounds_s),
            },
            vendors: ByVendor(vendors.collect()),
            requests_in_flight: now.requests_in_flight,
            exports_running: now.exports_running,
            connections: now.connections,
            scrolls: now.scrolls,
            stores: now.stores.clone(),
            dropped: DropCounts {
                log_lines: now
                    .dropped
                    .log_lines
                    .saturating_sub(before.dropped.log_lines),
                spans: now.dropped.spans.saturating_sub(before.dropped.spans),
            },
        }
    }

    /// A minute shows the worst that happened in it: a circuit that was open for half of it was
    /// open.
    fn worsen_by(&mut self, other: &Self) {
        let badness = |gauges: &VendorGauges| match (gauges.state, gauges.circuit) {
            (_, "open") => 3,
            (_, "half_open") => 2,
            ("degraded", _) => 1,
            _ => 0,
        };
        for (name, ours) in &mut self.vendors.0 {
            let theirs = other.vendors.0.iter().find(|(other, _)| other == name);
            if let Some((_, theirs)) = theirs
                && badness(&theirs.gauges) > badness(&ours.gauges)
            {
                ours.gauges.state = theirs.gauges.state;
                ours.gauges.circuit = theirs.gauges.circuit;
                ours.gauges.key_rejected |= theirs.gauges.key_rejected;
                ours.gauges.hold_down_ms = theirs.gauges.hold_down_ms;
            }
        }
        let most = |ours: &mut u32, theirs: u32| *ours = (*ours).max(theirs);
        most(&mut self.requests_in_flight, other.requests_in_flight);
        most(&mut self.scrolls.open, other.scrolls.open);
        most(&mut self.scrolls.waiting, other.scrolls.waiting);
    }
}

/// A ring of samples.
#[derive(Debug)]
struct SampleRing {
    kept: VecDeque<Sample>,
    kept_max: usize,
}

impl SampleRing {
    fn of(kept_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            kept_max,
        }
    }

    fn push(&mut self, sample: Sample) {
        while self.kept.len() >= self.kept_max.max(1) {
            self.kept.pop_front();
        }
        if self.kept_max > 0 {
            self.kept.push_back(sample);
        }
    }
}

#[derive(Debug)]
struct SampleTables {
    seconds: SampleRing,
    minutes: SampleRing,
    /// The last reading, and the one with which the current minute began.
    last: Option<(Reading, Reading)>,
}

/// The kept samples, and their watchers.
#[derive(Debug)]
pub struct Samples {
    tables: Mutex<SampleTables>,
    bytes_max: usize,
    /// The last sample as text; `None` before the first one.
    live: watch::Sender<Live>,
    watchers: Arc<AtomicUsize>,
}

/// What a watcher gets.
#[derive(Clone, Debug)]
enum Live {
    /// Nothing yet.
    Nothing,
    /// A sample in JSON.
    Sample(Bytes),
    /// No more samples will come.
    Over,
}

/// Bytes that one sample may cost: two vendors and up to five stores, in lists without room to
/// grow.
const SAMPLE_BYTES: usize = size_of::<Sample>()
    + 2 * size_of::<(&'static str, VendorSample)>()
    + 5 * size_of::<StoreSize>();

impl Samples {
    /// Returns as many samples as are wanted, or fit.
    pub fn within(bytes_max: usize) -> Self {
        let fit = bytes_max / SAMPLE_BYTES;
        let seconds = SECONDS_MAX.min(fit);
        let minutes = MINUTES_MAX.min(fit - seconds);
        let tables = SampleTables {
            seconds: SampleRing::of(seconds),
            minutes: SampleRing::of(minutes),
            last: None,
        };
        Self {
            tables: Mutex::new(tables),
            bytes_max: (seconds + minutes) * SAMPLE_BYTES,
            live: watch::Sender::new(Live::Nothing),
            watchers: Arc::default(),
        }
    }

    /// Returns the bytes of all samples together.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Takes the reading of a second.
    pub fn take(&self, now: Reading) {
        let mut tables = self.tables.lock();
        let Some((last, minute)) = tables.last.take() else {
            tables.last = Some((now.clone(), now));
            return;
        };
        let sample = Sample::between(&last, &now);
        let text = serde_json::to_vec(&sample).unwrap_or_default();
        tables.seconds.push(sample);
        let minute = if now.at.saturating_duration_since(minute.at) >= MINUTE {
            let mut whole = Sample::between(&minute, &now);
            let within = tables.seconds.kept.iter().rev().take(60);
            within.for_each(|second| whole.worsen_by(second));
            tables.minutes.push(whole);
            now.clone()
        } else {
            minute
        };
        tables.last = Some((now, minute));
        drop(tables);
        self.live.send_replace(Live::Sample(text.into()));
    }

    /// Returns the samples of a window as a JSON array, the oldest first.
    pub fn json(&self, window: HistoryWindow) -> Vec<u8> {
        let tables = self.tables.lock();
        let ring = match window {
            HistoryWindow::TenMinutes => &tables.seconds,
            HistoryWindow::Day => &tables.minutes,
        };
        serde_json::to_vec(&ring.kept).unwrap_or_else(|_| b"[]".to_vec())
    }

    /// Watches from now on. `None` if there are too many watchers.
    pub fn watch(&self) -> Option<Watcher> {
        let before = self.watchers.fetch_add(1, Ordering::Relaxed);
        // Gives the place back if it is not given out.
        let watcher = Watcher {
            from: self.live.subscribe(),
            begun: false,
            watchers: self.watchers.clone(),
        };
        (before < WATCHERS_MAX).then_some(watcher)
    }

    /// Ends all watching, because the gateway shuts down.
    pub fn end(&self) {
        self.live.send_replace(Live::Over);
    }
}

/// A watcher of the samples. It holds the last sample only, so a slow watcher misses some and
/// delays no other.
#[derive(Debug)]
pub struct Watcher {
    from: watch::Receiver<Live>,
    begun: bool,
    watchers: Arc<AtomicUsize>,
}

impl Watcher {
    /// Returns the next sample in JSON: at first the last one, if there is one. `None` when no more
    /// will come.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if std::mem::replace(&mut self.begun, true) {
                self.from.changed().await.ok()?;
            }
            match &*self.from.borrow_and_update() {
                Live::Nothing => {}
                Live::Sample(text) => return Some(text.clone()),
                Live::Over => return None,
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BOUNDS: [f64; 2] = [0.001, 0.1];

    fn gauges(circuit: &'static str) -> VendorGauges {
        VendorGauges {
            state: if circuit == "closed" {
                "ok"
            } else {
                "degraded"
            },
            circuit,
            probe_in_ms: None,
            key_rejected: false,
            hold_down_ms: None,
            budget_remaining: 20,
            budget_max: 20,
            rate_limit: 120,
            in_flight: 0,
            concurrency_limit: 8,
            queued: ByLane::default(),
            budget_by_lane: ByLane::default(),
            background_percent: None,
        }
    }

    /// After `n` seconds of one hit, two misses and one failed call a second.
    fn reading(start: Instant, n: u64, circuit: &'static str) -> Reading {
        let mut durations: [BucketCounts; OUTCOMES] =
            std::array::from_fn(|_| BucketCounts::default());
        durations[CacheOutcome::Hit as usize] = BucketCounts(vec![n, 0, 0]);
        durations[CacheOutcome::Miss as usize] = BucketCounts(vec![0, 2 * n, 0]);
        Reading {
            at: start + SECOND * u32::try_from(n).unwrap(),
            wall: Timestamp::UNIX_EPOCH,
            durations,
            bounds_s: &BOUNDS,
            statuses: [3 * n, 0, n],
            vendors: vec![VendorReading {
                vendor: "wiv",
                calls: 2 * n,
                failed: n,
                saved: n,
                gauges: gauges(circuit),
            }],
            requests_in_flight: 1,
            exports_running: 0,
            connections: 2,
            scrolls: ScrollCounts::default(),
            stores: vec![StoreSize {
                store: "answers",
                entries: 1,
                bytes: 10,
                bytes_max: 100,
                evicted: 0,
            }],
            dropped: DropCounts {
                log_lines: 5 * n,
                spans: 7 * n,
            },
        }
    }

    fn kept(samples: &Samples, window: HistoryWindow) -> Vec<Value> {
        serde_json::from_slice(&samples.json(window)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_and_minutes_are_kept_within_their_bounds() {
        let samples = Samples::within(SECONDS_MAX * 2 * SAMPLE_BYTES);
        let start = Instant::now();
        for n in 0..=u64::try_from(SECONDS_MAX).unwrap() + 40 {
            let circuit = if n == 90 { "open" } else { "closed" };
            samples.take(reading(start, n, circuit));
        }
        let seconds = kept(&samples, HistoryWindow::TenMinutes);
        assert_eq!(seconds.len(), SECONDS_MAX);
        let last = seconds.last().unwrap();
        assert_eq!(
            (&last["answers"]["hit"], &last["answers"]["miss"]),
            (&1.into(), &2.into())
        );
        assert_eq!(last["seconds"], 1.0);
        assert!((last["hit_ratio"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(last["latency_ms"]["hit"]["p50"], 0.5);
        assert_eq!(last["statuses"]["failed"], 1);
        assert_eq!(last["dropped"]["log_lines"], 5);
        assert_eq!(last["dropped"]["spans"], 7);
        let wiv = &last["vendors"]["wiv"];
        assert_eq!(
            (&wiv["calls"], &wiv["failed"], &wiv["circuit"]),
            (&2.into(), &1.into(), &"closed".into())
        );
        let minutes = kept(&samples, HistoryWindow::Day);
        assert_eq!(minutes.len(), 10);
        assert_eq!(minutes[0]["answers"]["miss"], 120);
        let circuits: Vec<_> = minutes
            .iter()
            .map(|m| &m["vendors"]["wiv"]["circuit"])
            .collect();
        assert_eq!(
            (circuits[0], circuits[1], circuits[2]),
            (&"closed".into(), &"open".into(), &"closed".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_fits_into_a_few_mebibytes() {
        let samples = Samples::within(2 << 20);
        let tables = samples.tables.lock();
        assert_eq!(tables.seconds.kept_max, SECONDS_MAX);
        assert_eq!(tables.minutes.kept_max, MINUTES_MAX);
        drop(tables);
        assert!(samples.bytes_max() < 2 << 20);
        let none = Samples::within(0);
        let start = Instant::now();
        (0..3).for_each(|n| none.take(reading(start, n, "closed")));
        assert!(kept(&none, HistoryWindow::TenMinutes).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_watcher_misses_samples_and_all_end_together() {
        let samples = Samples::within(1 << 20);
        let start = Instant::now();
        let mut slow = samples.watch().unwrap();
        for n in 0..50 {
            samples.take(reading(start, n, "closed"));
        }
        let text = slow.next().await.unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap()["seconds"],
            1.0
        );
        let held: Vec<_> = (1..WATCHERS_MAX)
            .map(|_| samples.watch().unwrap())
            .collect();
        assert!(samples.watch().is_none(), "one too many");
        drop(held);
        assert!(samples.watch().is_some());
        samples.end();
        assert_eq!(slow.next().await, None);
        assert_eq!(samples.watch().unwrap().next().await, None);
    }
}
