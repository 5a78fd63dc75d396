//! One word for one state: in code, metric labels, `Cache-Status`, log and documents.

use std::collections::BTreeSet;

use msp_gateway::admission::{CircuitState, Lane};
use msp_gateway::cache::{CacheNote, Coding, Detail, Forward, Standing, VariantOptions, Variants};
use msp_gateway::domain::{CacheOutcome, Kind, Route, Saved, Vendor};
use msp_gateway::metrics::{
    Handshake, Metrics, RecordReject, StoreLookup, StoreOperation, StoreOutcome, VariantOutcome,
    WalkOutcome,
};
use msp_gateway::store::{StoreBar, StoreHealth, WhenAway};
use msp_gateway::telemetry::AccessEntry;
use msp_gateway::upstream::Fault;

use crate::whole::{ALL, SETTINGS, Whole, caller, get, search, secrets, world};

fn words_of<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().copied().map(word).collect()
}

/// A closed set: its name in the document, and its words.
fn sets() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        (
            "cache outcome",
            CacheOutcome::ALL.map(CacheOutcome::as_str).to_vec(),
        ),
        (
            "vendor call saved by",
            Saved::ALL.map(Saved::as_str).to_vec(),
        ),
        ("`detail`", Detail::ALL.map(Detail::as_str).to_vec()),
        ("`fwd`", Forward::ALL.map(Forward::as_str).to_vec()),
        ("standing", Standing::ALL.map(Standing::as_str).to_vec()),
        (
            "circuit",
            CircuitState::ALL.map(CircuitState::as_str).to_vec(),
        ),
        ("lane", Lane::ALL.map(Lane::as_str).to_vec()),
        ("walk", WalkOutcome::ALL.map(WalkOutcome::as_str).to_vec()),
        (
            "coded variant",
            VariantOutcome::ALL.map(VariantOutcome::as_str).to_vec(),
        ),
        ("kind", Kind::ALL.map(Kind::as_str).to_vec()),
        ("store", StoreHealth::ALL.map(StoreHealth::as_str).to_vec()),
        (
            "refused without the store",
            StoreBar::ALL.map(StoreBar::as_str).to_vec(),
        ),
        (
            "without the store",
            WhenAway::ALL.map(WhenAway::as_str).to_vec(),
        ),
        (
            "store operation",
            words_of(StoreOperation::ALL, StoreOperation::as_str),
        ),
        (
            "store outcome",
            words_of(StoreOutcome::ALL, StoreOutcome::as_str),
        ),
        (
            "store lookup",
            words_of(StoreLookup::ALL, StoreLookup::as_str),
        ),
        (
            "record rejected",
            words_of(RecordReject::ALL, RecordReject::as_str),
        ),
        (
            "TLS handshake",
            Handshake::ALL.map(Handshake::as_str).to_vec(),
        ),
    ]
}

#[test]
fn words_are_told_apart_and_spelt_alike() {
    for (set, words) in sets() {
        let once: BTreeSet<_> = words.iter().collect();
        assert_eq!(once.len(), words.len(), "{set}");
        // Headers take hyphens, as RFC 9211 does; labels and logs take underscores.
        let hyphens = set.starts_with('`');
        for word in words {
            let joint = if hyphens { '-' } else { '_' };
            let good = word.chars().all(|c| c.is_ascii_lowercase() || c == joint);
            assert!(good && !word.is_empty(), "{set}: {word}");
        }
    }
}

#[test]
fn one_thing_has_one_word_in_every_set() {
    for (one, two) in [
        (CacheOutcome::Hit.as_str(), Saved::Hit.as_str()),
        (CacheOutcome::Stale.as_str(), Saved::Stale.as_str()),
        (CacheOutcome::Stale.as_str(), Standing::Stale.as_str()),
        (CacheOutcome::Stale.as_str(), Forward::Stale.as_str()),
        (CacheOutcome::Collapsed.as_str(), Saved::Collapsed.as_str()),
        (CacheOutcome::Derived.as_str(), Saved::Derived.as_str()),
        (CacheOutcome::Derived.as_str(), Detail::Derived.as_str()),
        (CacheOutcome::Projected.as_str(), Saved::Projected.as_str()),
        (CacheOutcome::Projected.as_str(), Detail::Projected.as_str()),
        (
            &format!("circuit_{}", CircuitState::Open.as_str()),
            Fault::CircuitOpen.as_str(),
        ),
    ] {
        assert_eq!(one, two);
    }
    let states: Vec<_> = CircuitState::ALL
        .iter()
        .map(|state| state.gauge())
        .collect();
    assert_eq!(states, [0, 1, 2]);
}

#[test]
fn metrics_use_the_words() {
    let metrics = Metrics::new().unwrap();
    for outcome in CacheOutcome::ALL {
        metrics.duration(Route::CaseSearch, Some(outcome), 0.1);
    }
    // A row is shown once one of it counted.
    for kind in Kind::ALL {
        metrics.lookup(kind, CacheOutcome::Hit);
    }
    for vendor in Vendor::ALL {
        metrics.call_saved(vendor, Saved::Hit);
    }
    for coding in Coding::ALL {
        metrics.variant(coding.as_str(), VariantOutcome::Made);
    }
    let text = metrics.render().unwrap();
    let has = |line: String| assert!(text.contains(&line), "{line}");
    for outcome in CacheOutcome::ALL.map(CacheOutcome::as_str) {
        for kind in Kind::ALL.map(Kind::as_str) {
            has(format!(
                "msp_gateway_cache_lookups_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}"
            ));
        }
        has(format!("{{cache=\"{outcome}\",route=\"case_search\""));
    }
    for reason in Saved::ALL.map(Saved::as_str) {
        for vendor in Vendor::ALL.map(Vendor::as_str) {
            has(format!(
                "msp_gateway_vendor_calls_saved_total{{reason=\"{reason}\",vendor=\"{vendor}\"}}"
            ));
        }
    }
    for walk in WalkOutcome::ALL.map(WalkOutcome::as_str) {
        has(format!("msp_gateway_walks_total{{outcome=\"{walk}\"}}"));
    }
    let _variants = Variants::new(1 << 20, VariantOptions::default(), metrics.clone());
    let text = metrics.render().unwrap();
    for outcome in VariantOutcome::ALL.map(VariantOutcome::as_str) {
        for coding in Coding::ALL.map(Coding::as_str) {
            let line = format!(
                "msp_gateway_coded_variants_total{{coding=\"{coding}\",outcome=\"{outcome}\"}}"
            );
            assert!(text.contains(&line), "{line}");
        }
    }
    // The states of a circuit are numbers there; the help says which.
    has("0 closed, 1 half-open, 2 open.".to_owned());
}

#[test]
fn the_header_uses_the_words() {
    for detail in Detail::ALL {
        let text = CacheNote::hit(1).with_detail(detail).header_value();
        assert_eq!(
            text,
            format!("msp-gateway; hit; ttl=1; detail={}", detail.as_str())
        );
    }
    for why in Forward::ALL {
        let note = CacheNote::forwarded(why, false, true);
        let text = note.header_value();
        assert_eq!(
            text,
            format!("msp-gateway; fwd={}; collapsed", why.as_str())
        );
        assert_eq!(note.outcome.as_str(), "collapsed");
    }
}

#[test]
fn the_log_uses_the_words() {
    for outcome in CacheOutcome::ALL {
        let entry = AccessEntry {
            request_id: [b'0'; 32],
            peer: None,
            caller: None,
            route: Route::CaseSearch,
            method: http::Method::POST,
            path: "/v2/cases/msp/search".into(),
            status: 200,
            code: None,
            cache: Some(outcome),
            spent: None,
            trace_id: None,
            took: msp_gateway::clock::Duration::ZERO,
            vendor_calls: 0,
            sent_bytes: 0,
            whole: true,
        };
        let mut line = String::new();
        entry.write_line(
            msp_gateway::telemetry::Format::Json,
            crate::kit::NOW.parse().unwrap(),
            &mut line,
        );
        let member = format!("\"cache\":\"{}\"", outcome.as_str());
        assert!(line.contains(&member), "{line}");
    }
}

/// Also where memory was asked and gave no answer.
#[tokio::test(start_paused = true)]
async fn metrics_and_the_log_tell_the_same_of_one_request() {
    let text = format!("{SETTINGS}{}", caller("all", ""));
    let whole = Whole::with(&text, &secrets(), world());
    for (request, status, word) in [
        (get("/v1/billing/202609/no-such", ALL), 404, "miss"),
        (get("/v1/billing/202609/no-such", ALL), 404, "negative"),
        (
            search(&format!("{ALL}cache-control: only-if-cached\r\n"), "{}"),
            504,
            "error",
        ),
        (search(ALL, "{}"), 200, "miss"),
        (search(ALL, "{}"), 200, "hit"),
        (search(ALL, "[]"), 400, "none"),
    ] {
        let counted = |text: &str, series: &str| -> f64 {
            let of = text.lines().filter(|line| line.starts_with(series));
            let of = of.filter(|line| line.contains(&format!("\"{word}\"")));
            of.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum()
        };
        let (lookups, durations) = (
            "msp_gateway_cache_lookups_total{",
            "msp_gateway_request_duration_seconds_count{",
        );
        let before = whole.metrics_text().await;
        whole.log.lines();
        assert_eq!(whole.ask(&request).await.status, status, "{word}");
        let after = whole.metrics_text().await;
        let looked_up = if word == "none" { 0.0 } else { 1.0 };
        assert_eq!(
            counted(&after, lookups) - counted(&before, lookups),
            looked_up,
            "{word}"
        );
        assert_eq!(
            counted(&after, durations) - counted(&before, durations),
            1.0,
            "{word}"
        );
        let log = whole.log.lines().concat();
        assert!(
            log.contains(&format!("\"cache\":\"{word}\"")),
            "{word}: {log}"
        );
    }
}

/// docs/state-words.md has one row for each set, with every word and no other.
#[test]
fn documents_use_the_words() {
    let text = include_str!("../../docs/state-words.md");
    for (set, words) in sets() {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| {set} |")))
            .unwrap_or_else(|| panic!("docs/state-words.md has no row for {set}"));
        let cell = row.split('|').nth(2).unwrap();
        let told: Vec<&str> = cell.split(',').map(|word| word.trim()).collect();
        assert_eq!(told, words, "{set}");
    }
}
