//! What a walk does when the vendor misbehaves: each outcome decided, each visible.

use std::sync::Arc;

use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::domain::{Audience, CacheOutcome, PageSize, SearchQuery};
use msp_gateway::reads::export::{ExportFormat, ExportPiece};
use msp_gateway::reads::{Purge, ReadError};
use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};

use crate::kept::latency;
use crate::kit::{Page, Rig, Setup, continued, export_line, first};

type Tweak = fn(&mut Setup);

fn status(status: u16) -> FaultKind {
    FaultKind::Status {
        status,
        body: None,
        retry_after: None,
        processed: true,
    }
}

/// A rig whose walks read 50 rows a page of a world of `cases`.
fn small(cases: usize, tweak: impl FnOnce(&mut Setup)) -> Rig {
    let mut setup = Setup::default();
    setup.world.cases = cases;
    setup.snapshots.vendor_page_size = PageSize::new(50).unwrap();
    tweak(&mut setup);
    Rig::new(setup)
}

async fn get(rig: &Rig, body: &str) -> Result<Page, ReadError> {
    rig.page(&rig.everyone(), None, body).await
}

/// Reads on from a page to the end, or to the first error.
async fn rest(rig: &Rig, from: Page, size: usize) -> (Vec<String>, Option<ReadError>) {
    let (mut rows, mut token) = (from.rows, from.token);
    while let Some(open) = token {
        match get(rig, &continued(&open, Some(size))).await {
            Ok(page) => {
                rows.extend(page.rows);
                token = page.token;
            }
            Err(error) => return (rows, Some(error)),
        }
    }
    (rows, None)
}

#[tokio::test(start_paused = true)]
async fn each_lost_scroll_is_searched_anew_and_readers_notice_nothing() {
    let kinds = [
        FaultKind::DropBefore,
        FaultKind::DropAfter,
        FaultKind::CutBody { at: None },
        FaultKind::StallBody { ms: None },
        FaultKind::MalformedJson,
        FaultKind::TruncatedRows,
        FaultKind::HtmlError { status: 502 },
        FaultKind::ScrollExpired,
        FaultKind::RepeatPage,
        status(500),
        status(429),
        status(404),
    ];
    for kind in kinds {
        let rig = small(300, |_| {});
        let expected = rig.sandbox.expected_rows(None, None);
        let fault = SimFault::on(SimOperation::Continue, kind.clone());
        rig.sandbox.fault(fault.after(2).times(1));
        let one = get(&rig, &first(40, "")).await.unwrap();
        let (rows, error) = rest(&rig, one, 40).await;
        assert!(error.is_none(), "{kind:?}: {error:?}");
        assert!(rows == expected, "{kind:?}");
        assert_eq!(rig.searches(), 2, "{kind:?}");
        let counts = rig.sandbox.counts();
        assert_eq!(counts.scroll_overlaps, 0, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_search_that_differs_breaks_the_snapshot_and_never_a_page() {
    let rig = small(300, |_| {});
    let one = get(&rig, &first(40, "")).await.unwrap();
    let two = get(&rig, &continued(one.token.as_deref().unwrap(), None))
        .await
        .unwrap();
    // A new case at the head of the list, and the scroll is gone.
    sleep(Duration::from_secs(1)).await;
    rig.sandbox.insert(1, None, None).unwrap();
    rig.sandbox.expire_scrolls();
    let (rows, error) = rest(&rig, two, 40).await;
    assert!(
        matches!(error, Some(ReadError::PageTokenExpired)),
        "{error:?}"
    );
    let before: Vec<_> = rig.sandbox.expected_rows(None, None).split_off(1);
    assert!(rows[..] == before[40..40 + rows.len()]);
    // What was served is served still; new searches get the new list.
    let again = get(&rig, &continued(one.token.as_deref().unwrap(), None))
        .await
        .unwrap();
    assert!(again.rows[..] == before[40..80]);
    let fresh = get(&rig, &first(40, "")).await.unwrap();
    let (rows, error) = rest(&rig, fresh, 33).await;
    assert!(error.is_none() && rows == rig.sandbox.expected_rows(None, None));
}

#[tokio::test(start_paused = true)]
async fn rows_seen_twice_are_kept_once() {
    let rig = small(300, |_| {});
    let expected = rig.sandbox.expected_rows(None, None);
    rig.sandbox.fault(SimFault::on(
        SimOperation::Continue,
        FaultKind::DuplicateRow,
    ));
    let one = get(&rig, &first(33, "")).await.unwrap();
    let (rows, error) = rest(&rig, one, 33).await;
    assert!(error.is_none() && rows == expected);
    assert!(rig.metrics.duplicate_rows.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn short_pages_and_large_pages_are_no_end() {
    for kind in [FaultKind::ShortPage, FaultKind::Oversize] {
        let rig = small(300, |_| {});
        let expected = rig.sandbox.expected_rows(None, None);
        rig.sandbox
            .fault(SimFault::on(SimOperation::Continue, kind));
        let one = get(&rig, &first(33, "")).await.unwrap();
        let (rows, error) = rest(&rig, one, 33).await;
        assert!(error.is_none() && rows == expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_is_the_end_whatever_its_cursor() {
    let good = r#"{"scroll_id":"FGluY2x1ZGVfY29udGV4dA=="}"#;
    let cursors = [
        good,
        "null",
        "{}",
        "[]",
        "\"\"",
        "false",
        "0",
        r#"{"scroll_id":null}"#,
        r#"{"scroll_id":""}"#,
        r#"{"scroll_id":false}"#,
        r#"{"scroll_id":{}}"#,
        r#"{"id":"x"}"#,
    ];
    for cursor in cursors {
        let empty = |operation, after| {
            let body = format!(r#"{{"data":[],"next_page_key":{cursor}}}"#);
            let kind = FaultKind::Status {
                status: 200,
                body: Some(body),
                retry_after: None,
                processed: true,
            };
            SimFault::on(operation, kind).after(after).times(1)
        };
        // As a later page.
        let rig = small(300, |_| {});
        rig.sandbox.fault(empty(SimOperation::Continue, 1));
        let one = get(&rig, &first(40, "")).await.unwrap();
        let (rows, error) = rest(&rig, one, 40).await;
        assert!(error.is_none(), "{cursor}: {error:?}");
        assert!(
            rows == rig.sandbox.expected_rows(None, None)[..100],
            "{cursor}"
        );
        assert_eq!((rig.searches(), rig.continues()), (1, 2), "{cursor}");
        // As the first.
        let rig = small(300, |_| {});
        rig.sandbox.fault(empty(SimOperation::Search, 0));
        let one = get(&rig, &first(40, "")).await.unwrap();
        assert!(one.rows.is_empty() && one.token.is_none(), "{cursor}");
        assert_eq!((rig.searches(), rig.continues()), (1, 0), "{cursor}");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(rig.metrics.vendor_scrolls.get(), 0, "{cursor}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_scroll_is_cut_at_each_bound_and_said() {
    let secs = Duration::from_secs;
    let tweaks: [(&str, Tweak); 4] = [
        ("pagination.walk_rows_max", |s| {
            s.snapshots.walk_rows_max = 200
        }),
        ("pagination.walk_pages_max", |s| {
            s.snapshots.walk_pages_max = 4
        }),
        ("pagination.walk_bytes_max", |s| {
            s.snapshots.walk_bytes_max = 100_000
        }),
        ("pagination.walk_time_max", |s| {
            s.snapshots.walk_time_max = Duration::from_secs(30);
            s.world.latency = Duration::from_secs(8);
        }),
    ];
    for (bound, tweak) in tweaks {
        let rig = small(100, tweak);
        rig.sandbox
            .fault(SimFault::on(SimOperation::Continue, FaultKind::Endless));
        let one = rig
            .page(
                &rig.asker_within(Audience::All, secs(300)),
                None,
                &first(50, ""),
            )
            .await
            .unwrap();
        let (rows, error) = rest(&rig, one, 50).await;
        let Some(ReadError::WalkLimitExceeded { setting }) = error else {
            panic!("{bound}: {error:?}")
        };
        assert_eq!(setting, bound);
        assert!(
            rows.len() >= 100 && rows.len() % 50 == 0,
            "{bound}: {}",
            rows.len()
        );
        let mut once = rows.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), rows.len(), "{bound}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_typed_and_the_token_stays_good() {
    let rig = small(300, |s| s.snapshots.rewalks_max = 2);
    let expected = rig.sandbox.expected_rows(None, None);
    let one = get(&rig, &first(40, "")).await.unwrap();
    let token = one.token.clone().unwrap();
    rig.sandbox.fault(SimFault::on_any(status(500)));
    let next = continued(&token, Some(200));
    let error = get(&rig, &next).await.err();
    assert!(matches!(error, Some(ReadError::Upstream(_))), "{error:?}");
    rig.sandbox.clear_faults();
    sleep(Duration::from_secs(5)).await;
    let page = get(&rig, &next).await.unwrap();
    assert!(page.rows[..] == expected[40..240]);
}

/// Answers that are malformed in the same way each time.
fn malformed() -> [(&'static str, FaultKind); 5] {
    let body = |body: &str| FaultKind::Status {
        status: 200,
        body: Some(body.into()),
        retry_after: None,
        processed: true,
    };
    let nan = r#"{"data":[{"case_id":"1","saved":NaN}],"next_page_key":null}"#;
    [
        ("a comma too many", FaultKind::MalformedJson),
        ("NaN", body(nan)),
        ("a raw control character", body("{\"data\":[\"\u{1}\"]}")),
        ("a login page", FaultKind::HtmlError { status: 200 }),
        (
            "a cursor that is none",
            body(r#"{"data":[1],"next_page_key":7}"#),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_malformed_each_time_costs_few_calls_and_spoils_nothing_else() {
    for (name, kind) in malformed() {
        let rig = small(300, |_| {});
        let expected = rig.sandbox.expected_rows(None, None);
        let one = get(&rig, &first(40, "")).await.unwrap();
        let token = one.token.unwrap();
        rig.sandbox
            .fault(SimFault::on(SimOperation::Continue, kind));
        let (inside, beyond) = (continued(&token, Some(5)), continued(&token, Some(100)));
        let others = 100;
        for n in 0..others {
            let begun = Instant::now();
            let error = get(&rig, &beyond).await.err();
            let Some(ReadError::Upstream(error)) = error else {
                panic!("{name}: {error:?}")
            };
            assert_eq!(
                error.fault,
                msp_gateway::upstream::Fault::Malformed,
                "{name}"
            );
            if n > 0 {
                let wait = error.retry_after.unwrap_or_default();
                assert!(wait <= Duration::from_secs(60), "{name}: {wait:?}");
            }
            assert!(begun.elapsed() < Duration::from_secs(1), "{name}");
            // What was read is served, and other searches feel nothing.
            let page = get(&rig, &inside).await.unwrap();
            assert!(page.rows[..] == expected[40..45], "{name}");
            let other = first(10, &format!(",\"n\":{n}"));
            assert_eq!(get(&rig, &other).await.unwrap().rows.len(), 10, "{name}");
            sleep(Duration::from_secs(3)).await;
        }
        let calls = (rig.searches() - 1 - others, rig.continues());
        println!("{name}: {calls:?} calls in 300 s");
        // Two at once, then after 5, 10, 20, 40, 60, 60 and 60 s.
        assert!((7..=10).contains(&calls.0), "{name}: {calls:?}");
        rig.sandbox.clear_faults();
        sleep(Duration::from_secs(61)).await;
        let (rows, error) = rest(
            &rig,
            Page {
                rows: Vec::new(),
                token: Some(token),
                answer: one.answer,
            },
            100,
        )
        .await;
        assert!(
            error.is_none() && rows == expected[40..],
            "{name}: {error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_page_that_is_malformed_each_time_costs_few_calls_too() {
    for (name, kind) in malformed() {
        let rig = small(300, |_| {});
        rig.sandbox
            .fault(SimFault::on(SimOperation::Search, kind.clone()));
        for _ in 0..300 {
            let error = get(&rig, &first(40, "")).await.err();
            assert!(matches!(error, Some(ReadError::Upstream(_))), "{name}");
            rig.reads.sweep();
            sleep(Duration::from_secs(1)).await;
        }
        let calls = rig.searches();
        assert!((6..=10).contains(&calls), "{name}: {calls}");
        rig.sandbox.clear_faults();
        sleep(Duration::from_secs(61)).await;
        get(&rig, &first(40, "")).await.unwrap();
        // A refresh that is malformed each time: the old answer is served, and the vendor left
        // alone.
        sleep(Duration::from_secs(61)).await;
        let before = rig.searches();
        rig.sandbox.fault(SimFault::on(SimOperation::Search, kind));
        for _ in 0..300 {
            get(&rig, &first(40, "")).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        let calls = rig.searches() - before;
        assert!((6..=10).contains(&calls), "{name}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_content_that_passes_or_moves_is_met_by_another_search() {
    let rig = small(300, |_| {});
    let expected = rig.sandbox.expected_rows(None, None);
    // Behind row 50, then behind row 100, then never again.
    for after in [0, 2] {
        let fault = SimFault::on(SimOperation::Continue, FaultKind::MalformedJson);
        rig.sandbox.fault(fault.after(after).times(1));
    }
    let one = get(&rig, &first(40, "")).await.unwrap();
    let (rows, error) = rest(&rig, one, 200).await;
    assert!(error.is_none() && rows == expected, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_impatient_reader_gets_a_typed_answer_and_changes_nothing() {
    let rig = small(300, |s| s.world.latency = Duration::from_secs(2));
    let hurried = rig.asker_within(Audience::All, Duration::from_millis(500));
    let error = rig.page(&hurried, None, &first(40, "")).await.err();
    assert!(
        matches!(error, Some(ReadError::DeadlinePassed { .. })),
        "{error:?}"
    );
    sleep(Duration::from_secs(2)).await;
    let page = get(&rig, &first(40, "")).await.unwrap();
    assert_eq!(page.answer.note.outcome, CacheOutcome::Hit);
    assert_eq!(rig.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_walk_drains_a_little_then_is_left_and_walked_anew_when_needed() {
    let rig = small(2_000, |_| {});
    let expected = rig.sandbox.expected_rows(None, None);
    let one = get(&rig, &first(40, "")).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    // The first page and ten drained ones; the scroll is left open at the vendor.
    assert_eq!((rig.searches(), rig.continues()), (1, 10));
    let scrolls = (
        rig.metrics.open_scrolls.get(),
        rig.metrics.vendor_scrolls.get(),
    );
    assert_eq!(scrolls, (0, 1));
    let (rows, error) = rest(&rig, one, 400).await;
    assert!(error.is_none(), "{error:?}");
    assert!(rows == expected);
    assert_eq!(rig.searches(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_outlive_cache_pressure_up_to_the_budget_and_are_typed_beyond() {
    let rig = small(300, |s| {
        s.snapshots.snapshot_bytes_max = 600_000;
        s.snapshots.token_heal = false;
    });
    let mut tokens = Vec::new();
    for run in 0..10 {
        let one = get(&rig, &first(40, &format!(",\"run\":{run}")))
            .await
            .unwrap();
        tokens.push(one.token.clone().unwrap());
        let (rows, error) = rest(&rig, one, 100).await;
        assert!(error.is_none() && rows.len() == 300);
        // So that the order of use is clear.
        sleep(Duration::from_secs(1)).await;
    }
    let mut gone = 0;
    for (at, token) in tokens.iter().enumerate() {
        match get(&rig, &continued(token, None)).await {
            Ok(page) => assert_eq!(page.rows.len(), 40),
            Err(ReadError::PageTokenExpired) => gone = at + 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    // The least recently used went first, and only those.
    assert!((1..10).contains(&gone), "{gone} are gone");
    assert!(get(&rig, &continued(&tokens[gone], None)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn searches_without_a_row_fill_the_budget_too() {
    let rig = small(300, |s| s.snapshots.snapshot_bytes_max = 100_000);
    let nothing = |run| {
        let range = r#""date_range":{"start":"1990-01-01","end":"1990-01-02"}"#;
        first(40, &format!(",{range},\"run\":{run}"))
    };
    for run in 0..200 {
        let page = get(&rig, &nothing(run)).await.unwrap();
        assert!(page.rows.is_empty());
        sleep(Duration::from_millis(10)).await;
    }
    rig.reads.sweep();
    let held = rig.reads.cases.snapshots().usage().entries;
    assert!((20..40).contains(&held), "{held} are held");
    // The youngest are held, and answer.
    let calls = rig.searches();
    get(&rig, &nothing(199)).await.unwrap();
    assert_eq!(rig.searches(), calls);
    get(&rig, &nothing(0)).await.unwrap();
    assert_eq!(rig.searches(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_lives_as_long_as_it_is_used_and_no_longer_than_its_snapshot_may() {
    let rig = small(300, |s| {
        s.lifetimes.on_error = Duration::from_secs(60);
        s.snapshots.snapshot_lifetime_max = Duration::from_secs(4 * 3600);
        s.snapshots.token_heal = false;
    });
    let one = get(&rig, &first(40, "")).await.unwrap();
    let token = continued(one.token.as_deref().unwrap(), None);
    for _ in 0..7 {
        sleep(Duration::from_secs(29 * 60)).await;
        rig.reads.sweep();
        get(&rig, &token).await.unwrap();
    }
    sleep(Duration::from_secs(31 * 60)).await;
    rig.reads.sweep();
    let error = get(&rig, &token).await.err();
    assert!(
        matches!(error, Some(ReadError::PageTokenExpired)),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hard_purge_ends_tokens_and_a_soft_one_does_not() {
    let rig = small(300, |s| s.snapshots.token_heal = false);
    let one = get(&rig, &first(40, "")).await.unwrap();
    let token = continued(one.token.as_deref().unwrap(), None);
    assert_eq!(rig.reads.purge(&Purge::All, true), 1);
    get(&rig, &token).await.unwrap();
    let stale = get(&rig, &first(40, "")).await.unwrap();
    assert!(stale.answer.body == one.answer.body);
    assert_eq!(rig.reads.purge(&Purge::All, false), 1);
    let error = get(&rig, &token).await.err();
    assert!(
        matches!(error, Some(ReadError::PageTokenExpired)),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_search_sent_before_a_hard_purge_answers_nobody_after_it() {
    let rig = Arc::new(small(300, |_| {}));
    let one = get(&rig, &first(40, "")).await.unwrap();
    // The scroll is lost, and the next search finds another list: a snapshot of its own.
    rig.sandbox.insert(1, None, None).unwrap();
    rig.sandbox.expire_scrolls();
    rig.sandbox.fault(latency(1_000));
    let (asking, body) = (
        rig.clone(),
        continued(one.token.as_deref().unwrap(), Some(250)),
    );
    let asked = tokio::spawn(async move { get(&asking, &body).await.err() });
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.searches(), 2, "sent, and not answered");
    assert_eq!(rig.reads.purge(&Purge::All, false), 1);
    let error = asked.await.unwrap();
    assert!(
        matches!(error, Some(ReadError::PageTokenExpired)),
        "{error:?}"
    );
    get(&rig, &first(40, "")).await.unwrap();
    assert_eq!(rig.searches(), 3, "one after the purge");
}

#[tokio::test(start_paused = true)]
async fn a_continuation_may_repeat_the_search_but_not_change_it() {
    let rig = small(300, |_| {});
    let range = ",\"date_range\":{\"start\":\"2024-01-01\",\"end\":\"2026-11-20\"},\"x\":1";
    let one = get(&rig, &first(20, range)).await.unwrap();
    let token = one.token.unwrap();
    let with =
        |members: &str| format!("{{\"start_page_key\":{{\"scroll_id\":\"{token}\"}}{members}}}");
    get(&rig, &with(range)).await.unwrap();
    get(&rig, &with(",\"x\":1")).await.unwrap();
    let other = ",\"date_range\":{\"start\":\"2024-01-02\",\"end\":\"2026-11-20\"}";
    for changed in [",\"x\":2", ",\"y\":1", ",\"x\":1.0", other] {
        let error = get(&rig, &with(changed)).await.err();
        assert!(
            matches!(error, Some(ReadError::InvalidPageToken)),
            "{changed}: {error:?}"
        );
    }
    let customer = rig.sandbox.customers()[0].id.clone();
    let error = rig
        .page(&rig.everyone(), Some(&customer), &with(""))
        .await
        .err();
    assert!(
        matches!(error, Some(ReadError::InvalidPageToken)),
        "{error:?}"
    );
}

/// Reads an export to its end; the rows, and whether the end was said.
async fn export(rig: &Rig, query: SearchQuery) -> (String, Option<u64>) {
    let export = &rig.reads.export;
    let asker = rig.everyone();
    let mut stream = export
        .begin(&asker, query, ExportFormat::Ndjson)
        .await
        .unwrap();
    let (mut text, mut end) = (Vec::new(), None);
    while let Some(piece) = stream.pieces.recv().await {
        match piece {
            ExportPiece::Lines(lines) => text.extend_from_slice(&lines),
            ExportPiece::End { rows } => end = Some(rows),
        }
    }
    (String::from_utf8(text).unwrap(), end)
}

#[tokio::test(start_paused = true)]
async fn an_export_is_whole_or_has_no_end() {
    let rig = Arc::new(small(300, |s| s.snapshots.rewalks_max = 1));
    let rows = rig.sandbox.expected_rows(None, None);
    let expected: Vec<_> = rows.iter().map(|row| export_line(row)).collect();
    rig.sandbox.fault(
        SimFault::on(SimOperation::Continue, FaultKind::DropAfter)
            .after(1)
            .times(1),
    );
    let (text, end) = export(&rig, SearchQuery::default()).await;
    assert!(text.lines().eq(expected.iter().map(String::as_str)));
    assert_eq!(end, Some(300));

    let rig = small(300, |s| s.snapshots.rewalks_max = 1);
    rig.sandbox
        .fault(SimFault::on(SimOperation::Continue, status(500)).after(2));
    let (text, end) = export(&rig, SearchQuery::default()).await;
    assert_eq!(end, None);
    assert!(
        text.lines()
            .eq(expected[..text.lines().count()].iter().map(String::as_str))
    );
}
