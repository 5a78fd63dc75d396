//! What the operating system knows about this process, read at each scrape.

use std::fs;

use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::declare::opts;

/// Reads `/proc/self` at each scrape. Leaves out a value that cannot be read, because no value is
/// better than a wrong one.
pub(super) struct ProcessCollector {
    resident: Desc,
    cpu: Desc,
    open_fds: Desc,
    max_fds: Desc,
}

impl ProcessCollector {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| opts(name, help).describe();
        let counter = gauge;
        Ok(Self {
            resident: gauge(
                "process_resident_memory_bytes",
                "Resident memory of the process.",
            )?,
            cpu: counter(
                "process_cpu_seconds_total",
                "CPU time of the process, user and system.",
            )?,
            open_fds: gauge("process_open_fds", "Open file descriptors of the process.")?,
            max_fds: gauge("process_max_fds", "Soft limit on open file descriptors.")?,
        })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.resident, &self.cpu, &self.open_fds, &self.max_fds]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = |desc, value: Option<u64>| family(desc, MetricType::GAUGE, value? as f64);
        let cpu = cpu_seconds().and_then(|s| family(&self.cpu, MetricType::COUNTER, s));
        [
            now(&self.resident, resident_bytes()),
            cpu,
            now(&self.open_fds, open_descriptors()),
            now(&self.max_fds, getrlimit(Resource::Nofile).current),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn family(desc: &Desc, kind: MetricType, value: f64) -> Option<MetricFamily> {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    Some(family)
}

/// Returns the resident memory. The second number of `statm` is in pages.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(page_size() as u64))
}

/// Returns the CPU time. `utime` and `stime` are the 12th and 13th words after the program's name,
/// which is in brackets and may contain anything.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    let mut words = behind.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((user + system) as f64 / clock_ticks_per_second() as f64)
}

/// Returns the number of open descriptors. From Linux 6.2 on it is the folder's size. Before that,
/// the entries are counted.
fn open_descriptors() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // One of them is the folder itself.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        let before = open_descriptors().unwrap();
        assert!(before >= 3, "standard input and outputs at least");
        let more: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests open and close files at the same time.
        assert!(open_descriptors().unwrap() >= before + 50);
        drop(more);
        let begun = cpu_seconds().unwrap();
        let mut spun = 0_u64;
        while cpu_seconds().unwrap() < begun + 0.02 {
            spun += (0..100_000_u64).map(std::hint::black_box).sum::<u64>() & 1;
        }
        assert_eq!(spun, std::hint::black_box(spun));
    }
}
