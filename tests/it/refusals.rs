//! Refusals tell the truth: each resource is used up, and nothing else, and what the caller, the
//! log and the metric say of it is compared with a table.

use std::sync::Arc;

use futures_util::future::join_all;
use msp_gateway::clock::{Duration, sleep};
use msp_gateway::domain::Shortage;

use crate::matrix::break_vendors;
use crate::whole::{ALL, Events, Reply, SETTINGS, Whole, caller, get, search, secrets, world};

const HANG: &str = r#"{"operation":"any","kind":"latency","ms":60000}"#;

/// One resource: how it is made scarce, which requests need it, and what the refusal says.
struct Row {
    short: Shortage,
    /// Replacements in the settings.
    settings: &'static [(&'static str, &'static str)],
    fault: &'static str,
    ask: fn(usize) -> String,
    times: usize,
    code: &'static str,
    detail: &'static str,
}

fn searches(n: usize) -> String {
    search(ALL, &format!("{{\"n\":{n}}}"))
}

fn bills(n: usize) -> String {
    get(&format!("/v1/billing/202609/c{n}"), ALL)
}

fn exports(n: usize) -> String {
    get(
        &format!("/v1/cases/export?start=2026-11-{:02}&end=2026-11-20", n + 1),
        ALL,
    )
}

/// The resources that a test can use up. 16,384 waiters for one answer, 4,096 searches that wait
/// for a slot and 200 lost scrolls are more than it can send; the tests of `cache::flight` and
/// `snapshot::slots` use those up, and `problem` holds the sentence and the code of each.
const ROWS: &[Row] = &[
    Row {
        short: Shortage::RequestsInFlight,
        settings: &[("[wiv]", "[limits]\nrequests_in_flight_max = 2\n[wiv]")],
        fault: HANG,
        ask: searches,
        times: 3,
        code: "overloaded",
        detail: "limits.requests_in_flight_max",
    },
    Row {
        short: Shortage::CallerRequests,
        settings: &[("[wiv]", "[limits]\nrequests_in_flight_max = 16\n[wiv]")],
        fault: HANG,
        ask: searches,
        times: 16,
        code: "overloaded",
        detail: "This caller already uses its share of limits.requests_in_flight_max",
    },
    Row {
        short: Shortage::Exports,
        settings: &[("[wiv]", "[limits]\nexports_max = 1\n[wiv]")],
        fault: HANG,
        ask: exports,
        times: 2,
        code: "overloaded",
        detail: "limits.exports_max",
    },
    Row {
        short: Shortage::CallerExports,
        settings: &[("[wiv]", "[limits]\nexports_max = 16\n[wiv]")],
        fault: HANG,
        ask: exports,
        times: 16,
        code: "overloaded",
        detail: "This caller already uses its share of limits.exports_max",
    },
    Row {
        short: Shortage::VendorHoldDown,
        settings: &[],
        fault: r#"{"operation":"any","kind":"status","status":429,"retry_after":"50"}"#,
        ask: bills,
        times: 2,
        code: "vendor_budget_exhausted",
        detail: "The vendor asked the gateway to wait.",
    },
    Row {
        short: Shortage::VendorBudget,
        settings: &[("requests_per_minute = 60000", "requests_per_minute = 1")],
        fault: "{\"clear\":true}",
        ask: bills,
        times: 2,
        code: "vendor_budget_exhausted",
        detail: "requests_per_minute",
    },
    Row {
        short: Shortage::VendorWaiters,
        settings: &[("concurrency = 64", "concurrency = 1")],
        fault: HANG,
        ask: bills,
        times: 260,
        code: "vendor_budget_exhausted",
        detail: "Too many calls are already waiting for the vendor",
    },
    Row {
        short: Shortage::SnapshotBytes,
        settings: &[(
            "vendor_page_size = 50",
            "vendor_page_size = 50\nwalk_bytes_max = \"1MiB\"\nsnapshot_bytes_max = \"1MiB\"",
        )],
        fault: "{\"clear\":true}",
        ask: searches,
        times: 8,
        code: "overloaded",
        detail: "pagination.snapshot_bytes_max",
    },
    Row {
        short: Shortage::OpenScrolls,
        settings: &[(
            "vendor_page_size = 50",
            "vendor_page_size = 50\nopen_scrolls_max = 1\nslot_wait_max = \"1s\"",
        )],
        fault: HANG,
        ask: searches,
        times: 2,
        code: "overloaded",
        detail: "pagination.open_scrolls_max",
    },
];

async fn refused(row: &Row) -> (Arc<Whole>, Vec<Reply>) {
    let mut text = SETTINGS.to_owned();
    for (from, to) in row.settings {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let text = text + &caller("all", "role = \"operator\"");
    let whole = Arc::new(Whole::with(&text, &secrets(), world()));
    break_vendors(&whole, row.fault).await;
    let asked = (0..row.times).map(|n| {
        let (whole, question) = (whole.clone(), (row.ask)(n));
        async move {
            // One after the other, so that who comes last is the one who finds nothing.
            sleep(Duration::from_millis(n as u64 * 2)).await;
            whole.ask(&question).await
        }
    });
    let replies = join_all(asked).await;
    (whole, replies)
}

#[tokio::test(start_paused = true)]
async fn each_refusal_names_what_was_short() {
    for row in ROWS {
        let (events, _listening) = Events::listen();
        let (whole, replies) = refused(row).await;
        let word = row.short.as_str();
        let told: Vec<_> = replies
            .iter()
            .filter(|reply| reply.status == 503)
            .map(|reply| {
                let body = reply.json();
                (reply.code(), body["detail"].as_str().unwrap().to_owned())
            })
            .collect();
        let named = told
            .iter()
            .filter(|(_, detail)| detail.contains(row.detail));
        let named = named.count();
        assert!(named > 0, "{word}: {told:?}");
        assert!(
            told.iter().all(|(code, _)| code == row.code),
            "{word}: {told:?}"
        );
        let line = format!("requests_shed_total{{what=\"{word}\"}}");
        assert!(whole.metric(&line).await >= named as f64, "{word}");
        for other in Shortage::ALL.iter().filter(|other| **other != row.short) {
            let line = format!("requests_shed_total{{what=\"{}\"}}", other.as_str());
            assert_eq!(whole.metric(&line).await, 0.0, "{word}: {}", other.as_str());
        }
        assert!(events.text().contains(word), "{word}: {}", events.text());
    }
}

/// A call that waits for a place waits longer than its caller. So the caller reads that no answer
/// was there in time, and not that the vendor, which was never called for it, did not answer.
#[tokio::test(start_paused = true)]
async fn a_deadline_blames_no_vendor_that_was_not_called() {
    let row = Row {
        short: Shortage::VendorPlaces,
        settings: &[
            ("concurrency = 64", "concurrency = 1"),
            ("timeout = \"10s\"", "timeout = \"60s\""),
        ],
        fault: HANG,
        ask: bills,
        times: 3,
        code: "vendor_timeout",
        detail: "No answer from nable arrived before the request's deadline",
    };
    let (_whole, replies) = refused(&row).await;
    for reply in &replies {
        let body = reply.json();
        let detail = body["detail"].as_str().unwrap().to_owned();
        assert_eq!((reply.status, reply.code().as_str()), (504, row.code));
        assert!(detail.contains(row.detail), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_served_is_not_cached() {
    for read in ["customers", "search"] {
        let text = SETTINGS.to_owned() + &caller("all", "role = \"operator\"");
        let whole = Whole::with(&text, &secrets(), world());
        let ask = |directives: &str| {
            let headers = format!("{ALL}cache-control: {directives}\r\n");
            match read {
                "customers" => get("/msp/customers", &headers),
                _ => search(&headers, "{}"),
            }
        };
        let nothing = whole.ask(ask("only-if-cached")).await;
        assert_eq!(nothing.code(), "not_cached", "{read}");
        assert_eq!(whole.ask(ask("max-age=60")).await.status, 200, "{read}");
        // The walk behind a search may read one page more meanwhile.
        sleep(Duration::from_secs(10)).await;
        let calls = whole.vendor_calls();
        for (directives, served) in [
            ("only-if-cached", true),
            ("only-if-cached, max-age=60", true),
            ("only-if-cached, max-age=5", false),
            ("only-if-cached, no-cache", false),
            ("only-if-cached, max-age=5, max-stale", false),
        ] {
            let reply = whole.ask(ask(directives)).await;
            let expected = if served { 200 } else { 504 };
            assert_eq!(reply.status, expected, "{read}: {directives}");
        }
        assert_eq!(whole.vendor_calls(), calls, "{read}");
        // Past `on_error`, which is an hour after `fresh`, nothing stands in for the vendor.
        sleep(Duration::from_secs(3_700)).await;
        break_vendors(
            &whole,
            r#"{"operation":"any","kind":"status","status":500}"#,
        )
        .await;
        for directives in ["max-stale", "max-stale=100000", "only-if-cached, max-stale"] {
            let reply = whole.ask(ask(directives)).await;
            assert!(
                reply.status >= 500,
                "{read}: {directives}: {}",
                reply.status
            );
        }
    }
}
