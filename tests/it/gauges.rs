//! What `/metrics` shows at the first scrape, and that sizes and states are true at each one.

use std::collections::BTreeMap;

use msp_gateway::clock::{Clock, Duration, sleep};
use msp_gateway::problem::Code;
use msp_gateway::sandbox::{self, FaultKind, SimFault};
use msp_gateway::store::{Model, SharedModel};

use crate::whole::{ALL, SETTINGS, Whole, caller, get, post, search, secrets, world};

/// Lines of `/metrics` of a fresh process, its comments included: an operator reads them.
const FRESH_LINES_MAX: usize = 300;

fn whole(more: &str) -> Whole {
    let text = format!("{SETTINGS}{more}{}", caller("all", ""));
    Whole::with(&text, &secrets(), world())
}

/// Every series that begins so, by the value of its label.
async fn by_label(whole: &Whole, metric: &str, label: &str) -> BTreeMap<String, f64> {
    let text = whole.metrics_text().await;
    let start = format!("msp_gateway_{metric}{{{label}=\"");
    let of = text.lines().filter_map(|line| {
        let (word, value) = line.strip_prefix(&start)?.split_once("\"} ")?;
        Some((word.to_owned(), value.parse().unwrap()))
    });
    of.collect()
}

#[tokio::test(start_paused = true)]
async fn a_fresh_process_shows_every_state_in_few_lines() {
    let whole = whole("");
    let text = format!("{SETTINGS}{}", caller("all", ""));
    let clock = Clock::anchored(crate::kit::NOW.parse().unwrap());
    let over = (&whole.sandbox, &clock);
    let alone = Whole::begin(&text, &secrets(), over, Model::new(64 << 20));
    let engine = SharedModel::new(64 << 20, clock.clone());
    let fleet = Whole::begin(&text, &secrets(), over, engine);
    for (gateway, kept) in [(&whole, false), (&alone, true), (&fleet, true)] {
        // A round of what gateways do for themselves.
        sleep(Duration::from_secs(5)).await;
        let text = gateway.metrics_text().await;
        assert_eq!(text.contains("_store_bytes 0\n"), kept, "{text}");
        let lines = text.lines().count();
        assert!(lines < FRESH_LINES_MAX, "{lines} lines\n{text}");
    }
    let text = whole.metrics_text().await;
    for store in ["answers", "pages", "variants", "snapshots"] {
        for metric in ["cache_bytes", "cache_entries", "cache_evictions_total"] {
            let line = format!("msp_gateway_{metric}{{store=\"{store}\"}} 0\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
    let maxima = by_label(&whole, "cache_bytes_max", "store").await;
    assert_eq!(maxima["snapshots"], 256.0 * 1024.0 * 1024.0);
    let answers = maxima["answers"] + maxima["pages"] + maxima["variants"];
    assert_eq!(answers, 256.0 * 1024.0 * 1024.0, "{maxima:?}");
    for code in Code::ALL {
        let line = format!(
            "msp_gateway_problems_total{{code=\"{}\"}} 0\n",
            code.as_str()
        );
        assert_eq!(text.contains(&line), code.status() >= 500, "{line}");
    }
    // What an alert names has to exist before it first counts.
    let alerts = include_str!("../../deploy/alerts.yml");
    let of_shed = alerts.split("requests_shed_total{what=").skip(1);
    let words: Vec<_> = of_shed
        .filter_map(|rest| rest.split('"').nth(1))
        .flat_map(|words| words.split('|'))
        .collect();
    assert!(words.len() >= 7, "{words:?}");
    for word in words {
        let line = format!("requests_shed_total{{what=\"{word}\"}} 0\n");
        assert!(text.contains(&line), "{line}");
    }
    for line in [
        "answers_total{class=\"5xx\"} 0",
        "vendor_circuit_state{vendor=\"wiv\"} 0",
        "vendor_key_refused{vendor=\"nable\"} 0",
        "vendor_key_fallback_in_use{vendor=\"wiv\"} 0",
        "vendor_hold_down_seconds{vendor=\"wiv\"} 0",
        "vendor_queued{lane=\"interactive\",vendor=\"wiv\"} 0",
        "vendor_requests_total{operation=\"continue\",outcome=\"rate_limited\",vendor=\"wiv\"} 0",
        "searches_waiting 0",
        "requests_in_flight 0",
        "requests_in_flight_max 1024",
        "exports_running 0",
        "exports_max 32",
        "walks_total{outcome=\"cut\"} 0",
        "panics_total 0",
        "config_reloads_total{outcome=\"refused\"} 0",
        "config_last_reload_successful 1",
    ] {
        assert!(
            text.contains(&format!("msp_gateway_{line}\n")),
            "{line}\n{text}"
        );
    }
    // The start is when the settings in force were read.
    let begun = whole.metric("process_start_time_seconds").await;
    assert!(begun > 1_700_000_000.0);
    for at in ["", "_success"] {
        let name = format!("config_last_reload{at}_timestamp_seconds");
        assert_eq!(whole.metric(&name).await, begun, "{name}");
    }
    for name in [
        "resident_memory_bytes",
        "cpu_seconds_total",
        "open_fds",
        "max_fds",
    ] {
        assert!(
            whole.metric(&format!("process_{name}")).await > 0.0,
            "{name}"
        );
    }
    assert!(
        !text.contains("_bucket{"),
        "histograms begin with their first observation"
    );
}

/// No time passes between what changes a store and the scrape.
#[tokio::test(start_paused = true)]
async fn sizes_are_those_of_the_moment() {
    let whole = whole("");
    let empty = by_label(&whole, "cache_bytes", "store").await;
    assert!(empty.values().all(|bytes| *bytes == 0.0), "{empty:?}");
    for _ in 0..3 {
        whole.ask(get("/msp/customers?fields=id", ALL)).await;
        whole.ask(search(ALL, "{\"max_returned_items\":7}")).await;
    }
    let (bytes, entries) = (
        by_label(&whole, "cache_bytes", "store").await,
        by_label(&whole, "cache_entries", "store").await,
    );
    for store in ["answers", "pages", "snapshots"] {
        assert!(
            bytes[store] > 0.0 && entries[store] >= 1.0,
            "{store}: {bytes:?} {entries:?}"
        );
    }
    let status = whole.ask_admin(get("/admin/status", "")).await.json();
    assert_eq!(
        status["snapshots"]["bytes"].as_f64(),
        Some(bytes["snapshots"])
    );
    assert_eq!(
        status["snapshots"]["entries"].as_f64(),
        Some(entries["snapshots"])
    );
    let purge = post(
        "/admin/purge",
        "content-type: application/json\r\n",
        "{\"all\":true,\"soft\":false}",
    );
    assert_eq!(whole.ask_admin(purge).await.status, 200);
    let after = by_label(&whole, "cache_entries", "store").await;
    assert_eq!(
        (after["answers"], after["snapshots"]),
        (0.0, 0.0),
        "{after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_goes_for_want_of_room_is_counted() {
    let text = SETTINGS.to_owned() + "snapshot_bytes_max = \"1MiB\"\n";
    let text = text + "walk_bytes_max = \"1MiB\"\n" + &caller("all", "");
    let world = sandbox::Options {
        cases: 4000,
        ..world()
    };
    let whole = Whole::with(&text, &secrets(), world);
    for day in 1..=30 {
        let range = format!("{{\"start\":\"2026-09-{day:02}\",\"end\":\"2026-11-20\"}}");
        let body = format!("{{\"max_returned_items\":500,\"date_range\":{range}}}");
        assert_eq!(whole.ask(search(ALL, &body)).await.status, 200, "{day}");
    }
    let evicted = by_label(&whole, "cache_evictions_total", "store").await;
    let bytes = by_label(&whole, "cache_bytes", "store").await;
    assert!(evicted["snapshots"] >= 1.0, "{evicted:?} {bytes:?}");
    assert!(bytes["snapshots"] <= 1024.0 * 1024.0, "{bytes:?}");
    assert_eq!(evicted["answers"], 0.0);
}

/// A state ends when it ends, however long ago it began, and though nobody asks meanwhile.
#[tokio::test(start_paused = true)]
async fn vendor_states_are_those_of_the_moment() {
    let whole = whole("");
    let ask = async || whole.ask(get("/msp/customers", ALL)).await.status;
    let refuse = |status, retry_after: Option<&str>| {
        let kind = FaultKind::Status {
            status,
            body: None,
            retry_after: retry_after.map(str::to_owned),
            processed: false,
        };
        whole.sandbox.fault(SimFault::on_any(kind));
    };
    let hold_down = "vendor_hold_down_seconds{vendor=\"wiv\"}";
    refuse(429, Some("90"));
    assert_eq!(ask().await, 503);
    let code = "problems_total{code=\"vendor_budget_exhausted\"}";
    assert_eq!(whole.metric(code).await, 1.0);
    for (after_s, left) in [(0, 90.0), (60, 30.0), (31, 0.0)] {
        sleep(Duration::from_secs(after_s)).await;
        let held = whole.metric(hold_down).await;
        assert!((left - 5.0..=left).contains(&held), "{held}, some {left}");
    }
    whole.sandbox.clear_faults();
    assert_eq!(ask().await, 200);
    sleep(Duration::from_secs(2 * 3600)).await;
    refuse(401, None);
    assert_eq!(ask().await, 502);
    let refused = "vendor_key_refused{vendor=\"wiv\"}";
    assert_eq!(whole.metric(refused).await, 1.0);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(whole.metric(refused).await, 1.0);
    whole.sandbox.clear_faults();
    assert_eq!(ask().await, 200);
    assert_eq!(whole.metric(refused).await, 0.0);
    assert_eq!(whole.metric("answers_total{class=\"5xx\"}").await, 2.0);
    assert_eq!(whole.metric("answers_total{class=\"2xx\"}").await, 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_reload_shows_until_a_good_one() {
    let whole = whole("");
    let shown = async || {
        let at = |end| format!("config_last_reload{end}");
        (
            whole.metric(&at("_successful")).await,
            whole.metric(&at("_timestamp_seconds")).await,
            whole.metric(&at("_success_timestamp_seconds")).await,
        )
    };
    let (_, begun, _) = shown().await;
    sleep(Duration::from_secs(10)).await;
    whole.app.note_reload(&Err("wrong".to_owned()));
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(shown().await, (0.0, begun + 10.0, begun));
    whole.app.note_reload(&Ok(Vec::new()));
    let now = begun + 3610.0;
    assert_eq!(shown().await, (1.0, now, now));
    assert_eq!(
        whole
            .metric("config_reloads_total{outcome=\"refused\"}")
            .await,
        1.0
    );
}
