//! `caller_timing [SAMPLES]`: measures whether the time of a caller lookup reveals how much of a
//! presented key is right. Keys that share their first half with a real key are compared with keys
//! that share nothing with it, in random order. The result is Welch's t over the times. The slowest
//! hundredth is left out, because it shows the machine. Below 4.5 in amount, the two kinds cannot
//! be distinguished. Each lookup uses a new key, because the time of a single key depends on where
//! its hash lies. The program only prints: times are never a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A tool.

use std::hint::black_box;

use msp_gateway::access::{CallerBook, CallerKeyHash, CallerSpec, Role};
use msp_gateway::clock::Clock;
use msp_gateway::domain::Audience;
use msp_gateway::metrics::Metrics;

const REAL: &str = "mspgw_0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab";

fn main() {
    let samples: usize = std::env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().expect("a number"));
    let spec = CallerSpec {
        name: "timed".into(),
        keys: vec![CallerKeyHash::of(REAL.as_bytes())],
        sans: Vec::new(),
        role: Role::Reader,
        audience: Audience::All,
        billing: false,
        requests_per_minute: None,
        forced_refreshes_per_minute: 6,
        expires: None,
    };
    let clock = Clock::system();
    let book = CallerBook::new(&[spec], &Metrics::new().unwrap(), clock.clone());
    let mut key = [0; REAL.len()];
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    for _ in 0..2 * samples {
        let class = fastrand::usize(..2);
        let right = if class == 0 { REAL.len() / 2 } else { 0 };
        // A new key each time, in the same memory, because the time of a single key depends on its
        // hash.
        for (at, (to, real)) in key.iter_mut().zip(REAL.bytes()).enumerate() {
            let other = fastrand::alphanumeric() as u8;
            *to = if at < right { real } else { other };
        }
        let begun = clock.now();
        let found = black_box(book.find(Some(black_box(&key)), None));
        let took = clock.now().saturating_duration_since(begun);
        assert!(found.is_none());
        times[class].push(took.as_nanos() as f64);
    }
    let mut all: Vec<f64> = times.concat();
    all.sort_by(f64::total_cmp);
    let cut = all[all.len() * 99 / 100];
    let of = |times: &[f64]| {
        let kept: Vec<f64> = times.iter().copied().filter(|time| *time <= cut).collect();
        let n = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / n;
        let variance = kept.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (n, mean, variance)
    };
    let (a, b) = (of(&times[0]), of(&times[1]));
    let t = (a.1 - b.1) / (a.2 / a.0 + b.2 / b.0).sqrt();
    println!("the first half right: {} samples, mean {:.1} ns", a.0, a.1);
    println!("every byte random:    {} samples, mean {:.1} ns", b.0, b.1);
    println!("Welch's t: {t:.2} (from 4.5 in amount on, the kinds differ)");
}
