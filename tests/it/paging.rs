//! Pages are cut from one snapshot: nothing lost, repeated or reordered.

use msp_gateway::clock::{Duration, sleep};
use msp_gateway::domain::{Audience, CacheOutcome, CustomerId};
use msp_gateway::reads::ReadError;

use crate::kit::{Rig, Setup, continued, first};

async fn read_all(rig: &Rig, audience: Audience, sizes: impl Fn(usize) -> usize) -> Vec<String> {
    let mut rows = Vec::new();
    let mut body = first(sizes(0), "");
    for at in 1.. {
        let asker = rig.asker(audience.clone());
        let page = rig.page(&asker, None, &body).await.unwrap();
        rows.extend(page.rows);
        match page.token {
            None => break,
            Some(token) => body = continued(&token, Some(sizes(at))),
        }
    }
    rows
}

#[tokio::test(start_paused = true)]
async fn fifty_callers_at_any_page_size_cost_one_walk() {
    let rig = std::sync::Arc::new(Rig::new(Setup::default()));
    let expected = rig.sandbox.expected_rows(None, None);
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..50 {
        let rig = rig.clone();
        let size = [1, 7, 25, 100, 249, 250, 251, 499, 500][caller % 9];
        // Single rows would make two thousand pages; mix them in.
        let sizes = move |at: usize| if size == 1 && at > 5 { 300 } else { size };
        tasks.spawn(async move { read_all(&rig, Audience::All, sizes).await });
    }
    for rows in tasks.join_all().await {
        assert_eq!(rows.len(), expected.len());
        assert!(rows == expected);
    }
    let calls = rig.searches() + rig.continues();
    let pages = expected.len().div_ceil(500) as u64;
    assert_eq!(rig.searches(), 1);
    assert!(calls <= pages + 1, "{calls} calls for {pages} pages");
    assert_eq!(rig.sandbox.counts().scroll_overlaps, 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_page_has_the_same_bytes_and_a_page_is_a_hit() {
    let rig = Rig::new(Setup::default());
    let one = rig
        .page(&rig.everyone(), None, &first(25, ""))
        .await
        .unwrap();
    assert_eq!(one.answer.note.outcome, CacheOutcome::Miss);
    sleep(Duration::from_secs(10)).await;
    let two = rig
        .page(&rig.everyone(), None, "{ \"max_returned_items\" : 25 }")
        .await
        .unwrap();
    assert_eq!(two.answer.note.outcome, CacheOutcome::Hit);
    assert_eq!(one.answer.body, two.answer.body);
    assert_eq!(one.answer.etag, two.answer.etag);
    assert_eq!(two.answer.age.as_secs(), 10);
    let next = continued(one.token.as_deref().unwrap(), None);
    let a = rig.page(&rig.everyone(), None, &next).await.unwrap();
    let b = rig.page(&rig.everyone(), None, &next).await.unwrap();
    assert_eq!((a.rows.len(), &a.answer.body), (25, &b.answer.body));
    assert_eq!(rig.searches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dashboard_at_page_one_costs_one_call_per_refresh() {
    let rig = Rig::new(Setup::default());
    let one = rig
        .page(&rig.everyone(), None, &first(25, ""))
        .await
        .unwrap();
    // The first walk drains when idle; let it.
    sleep(Duration::from_secs(50)).await;
    let before = rig.searches() + rig.continues();
    for minute in 1..=5 {
        sleep(Duration::from_secs(61)).await;
        let page = rig
            .page(&rig.everyone(), None, &first(25, ""))
            .await
            .unwrap();
        assert_eq!(page.answer.note.outcome, CacheOutcome::Stale);
        sleep(Duration::from_secs(1)).await;
        let page = rig
            .page(&rig.everyone(), None, &first(25, ""))
            .await
            .unwrap();
        assert_eq!(
            page.answer.note.outcome,
            CacheOutcome::Hit,
            "minute {minute}"
        );
        assert_eq!(page.answer.etag, one.answer.etag);
    }
    assert_eq!(rig.searches() + rig.continues() - before, 5);
}

#[tokio::test(start_paused = true)]
async fn changed_rows_make_a_new_snapshot_and_old_tokens_go_on() {
    let rig = Rig::new(Setup::default());
    let expected = rig.sandbox.expected_rows(None, None);
    let one = rig
        .page(&rig.everyone(), None, &first(100, ""))
        .await
        .unwrap();
    rig.sandbox.insert(5, None, None).unwrap();
    let changed = rig.sandbox.expected_rows(None, None);
    sleep(Duration::from_secs(61)).await;
    let stale = rig
        .page(&rig.everyone(), None, &first(100, ""))
        .await
        .unwrap();
    assert!(stale.rows == one.rows);
    sleep(Duration::from_secs(1)).await;
    assert!(read_all(&rig, Audience::All, |_| 100).await == changed);
    // The old list goes on, to its own end.
    let mut rows = one.rows;
    let mut token = one.token;
    while let Some(open) = token {
        let page = rig
            .page(&rig.everyone(), None, &continued(&open, None))
            .await
            .unwrap();
        rows.extend(page.rows);
        token = page.token;
    }
    assert!(rows == expected);
}

#[tokio::test(start_paused = true)]
async fn audiences_are_views_and_tokens_stay_within_them() {
    let rig = Rig::new(Setup::default());
    let customers = rig.sandbox.customers();
    let ids: Vec<_> = customers
        .iter()
        .take(2)
        .map(|c| CustomerId::parse(&c.id).unwrap())
        .collect();
    let scoped = Audience::only(ids.clone());
    let mine = |row: &String| {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        ids.iter().any(|id| row["customer_id"] == id.as_str())
    };
    let all = rig.sandbox.expected_rows(None, None);
    let expected: Vec<_> = all.iter().filter(|row| mine(row)).cloned().collect();
    assert!(expected.len() > 30);
    assert!(read_all(&rig, scoped.clone(), |_| 7).await == expected);
    assert_eq!(rig.searches(), 1);
    // Another audience's token is as good as a forged one.
    let page = rig
        .page(&rig.asker(scoped.clone()), None, &first(5, ""))
        .await
        .unwrap();
    let token = page.token.unwrap();
    let foreign = rig
        .page(&rig.everyone(), None, &continued(&token, None))
        .await;
    assert!(matches!(foreign, Err(ReadError::InvalidPageToken)));
    // A customer outside the audience: refused before any cache.
    let other = customers.last().unwrap();
    let refused = rig.page(&rig.asker(scoped), Some(&other.id), "{}").await;
    assert!(matches!(refused, Err(ReadError::CustomerNotAllowed)));
}

#[tokio::test(start_paused = true)]
async fn one_customer_is_derived_from_a_complete_snapshot() {
    let rig = Rig::new(Setup::default());
    let id = rig.sandbox.customers()[0].id.clone();
    read_all(&rig, Audience::All, |_| 500).await;
    let calls = rig.searches() + rig.continues();
    let expected = rig.sandbox.expected_rows(Some(&id), None);
    let page = rig
        .page(&rig.everyone(), Some(&id), &first(50, ""))
        .await
        .unwrap();
    assert_eq!(page.answer.note.outcome, CacheOutcome::Derived);
    assert!(page.rows[..] == expected[..50]);
    let next = continued(page.token.as_deref().unwrap(), None);
    let page = rig.page(&rig.everyone(), Some(&id), &next).await.unwrap();
    assert!(page.rows[..] == expected[50..100]);
    assert_eq!(rig.searches() + rig.continues(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_first_page_read_all_the_time_is_refreshed_in_time() {
    let rig = Rig::new(Setup::default());
    for second in 0..600 {
        let page = rig
            .page(&rig.everyone(), None, &first(25, ""))
            .await
            .unwrap();
        // Fresh for a minute; and a walk that is still idle is joined a little longer.
        let age_s = page.answer.age.as_secs();
        assert!(age_s <= 75, "second {second}: {age_s} s old");
        sleep(Duration::from_secs(1)).await;
    }
    assert!(rig.searches() >= 8);
}

#[tokio::test(start_paused = true)]
async fn views_of_a_stale_snapshot_of_all_are_refreshed_by_one_walk() {
    let rig = Rig::new(Setup::default());
    let customers = rig.sandbox.customers();
    let all = first(
        100,
        r#","date_range":{"start":"2026-08-01","end":"2026-11-20"}"#,
    );
    rig.page(&rig.everyone(), None, &all).await.unwrap();
    // The walk ends, and its rows grow stale.
    sleep(Duration::from_secs(70)).await;
    let before = rig.searches() + rig.continues();
    for customer in &customers[..20] {
        let page = rig.page(&rig.everyone(), Some(&customer.id), &all).await;
        let note = page.unwrap().answer.note;
        assert_eq!(note.outcome, CacheOutcome::Stale);
        assert_eq!(note.detail, Some(msp_gateway::cache::Detail::Derived));
    }
    sleep(Duration::from_secs(1)).await;
    for customer in &customers[..20] {
        let page = rig.page(&rig.everyone(), Some(&customer.id), &all).await;
        assert_eq!(page.unwrap().answer.note.outcome, CacheOutcome::Derived);
    }
    assert_eq!(rig.searches() + rig.continues() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_customers_are_cut_from_is_refreshed_whole() {
    let rig = Rig::new(Setup::default());
    let customers = rig.sandbox.customers();
    // Of two vendor pages.
    let all = first(
        500,
        r#","date_range":{"start":"2025-10-01","end":"2026-11-20"}"#,
    );
    let rows = rig
        .sandbox
        .expected_rows(None, range("2025-10-01", "2026-11-20"));
    assert!((501..=1_000).contains(&rows.len()), "{} rows", rows.len());
    let page = rig.page(&rig.everyone(), None, &all).await.unwrap();
    let next = continued(page.token.as_deref().unwrap(), None);
    rig.page(&rig.everyone(), None, &next).await.unwrap();
    for round in 0..5 {
        let view = rig
            .page(&rig.everyone(), Some(&customers[0].id), &all)
            .await
            .unwrap();
        assert_eq!(view.answer.note.outcome, CacheOutcome::Derived);
        sleep(Duration::from_secs(70)).await;
        let before = rig.searches() + rig.continues();
        // A new case, so that the first rows differ; and somebody looks at them first.
        rig.sandbox.insert(1, Some(&customers[1].id), None).unwrap();
        rig.page(&rig.everyone(), None, &all).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        for customer in &customers[..20] {
            let page = rig.page(&rig.everyone(), Some(&customer.id), &all).await;
            let page = page.unwrap();
            assert_eq!(
                page.answer.note.outcome,
                CacheOutcome::Derived,
                "round {round}"
            );
            let theirs = rig
                .sandbox
                .expected_rows(Some(&customer.id), range("2025-10-01", "2026-11-20"));
            assert!(page.rows[..] == theirs[..theirs.len().min(500)]);
        }
        assert_eq!(
            rig.searches() + rig.continues() - before,
            2,
            "round {round}"
        );
    }
}

fn range(start: &str, end: &str) -> Option<(jiff::civil::Date, jiff::civil::Date)> {
    Some((start.parse().unwrap(), end.parse().unwrap()))
}
