//! Page tokens whose snapshot is gone: where the same rows stand before their place, they go on.

use std::collections::HashSet;
use std::sync::Arc;

use msp_gateway::admission::Payer;
use msp_gateway::clock::{Duration, Instant, sleep};
use msp_gateway::domain::{Audience, CustomerId, PageSize, Shortage};
use msp_gateway::reads::{Purge, ReadError};
use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};
use msp_gateway::secrets::{SealingKey, Secret};
use msp_gateway::snapshot::Sealer;
use msp_gateway::upstream;
use tokio::task::JoinSet;

use crate::kit::{Page, Rig, Setup, continued, first};

fn setup() -> Setup {
    Setup::default()
}

/// Vendor pages of 50 rows.
fn small() -> Setup {
    let mut setup = Setup::default();
    setup.world.cases = 300;
    setup.snapshots.vendor_page_size = PageSize::new(50).unwrap();
    setup
}

fn only(customers: &[&str]) -> Audience {
    Audience::only(customers.iter().map(|id| CustomerId::parse(id).unwrap()))
}

/// Reads pages of these sizes; the rows, and the token of the next page.
async fn read(
    rig: &Rig,
    audience: &Audience,
    customer: Option<&str>,
    members: &str,
    sizes: &[usize],
) -> (Vec<String>, String) {
    let (mut rows, mut token): (Vec<String>, Option<String>) = Default::default();
    for size in sizes {
        let body = match &token {
            None => first(*size, members),
            Some(token) => continued(token, Some(*size)),
        };
        let page = rig
            .page(&rig.asker(audience.clone()), customer, &body)
            .await;
        let page = page.unwrap();
        rows.extend(page.rows);
        token = page.token;
    }
    (rows, token.unwrap())
}

async fn next(rig: &Rig, audience: &Audience, token: &str, size: usize) -> Result<Page, ReadError> {
    let asker = rig.asker(audience.clone());
    rig.page(&asker, None, &continued(token, Some(size))).await
}

/// All rows from a token on.
async fn rest(rig: &Rig, audience: &Audience, token: String) -> Vec<String> {
    let (mut rows, mut token) = (Vec::new(), Some(token));
    while let Some(open) = token {
        let page = next(rig, audience, &open, 170).await.unwrap();
        rows.extend(page.rows);
        token = page.token;
    }
    rows
}

fn expired(found: Result<Page, ReadError>) {
    let error = found.err();
    assert!(
        matches!(error, Some(ReadError::PageTokenExpired)),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_token_goes_on_with_the_exact_list() {
    let range = ",\"date_range\":{\"start\":\"2026-01-01\",\"end\":\"2026-11-01\"}";
    let dates = (
        jiff::civil::date(2026, 1, 1),
        jiff::civil::date(2026, 11, 1),
    );
    let two = only(&["org_1", "org_2"]);
    for (name, audience, customer, members) in [
        ("everything", Audience::All, None, ""),
        ("a range", Audience::All, None, range),
        (
            "another member",
            Audience::All,
            None,
            ",\"unknown\":\"To Do\"",
        ),
        ("an audience", two.clone(), None, ""),
        ("a customer", two, Some("org_1"), ""),
    ] {
        let before = Rig::new(setup());
        let dates = members.contains("date_range").then_some(dates);
        let mut expected = before.sandbox.expected_rows(customer, dates);
        if !audience.is_all() {
            let of = |id| before.sandbox.expected_rows(Some(id), None);
            let seen: HashSet<String> = of("org_1").into_iter().chain(of("org_2")).collect();
            expected.retain(|row| seen.contains(row));
        }
        let (mut rows, token) = read(&before, &audience, customer, members, &[7, 11, 3, 20]).await;
        let rig = before.restarted(setup());
        let searched = rig.searches();
        rows.extend(rest(&rig, &audience, token.clone()).await);
        assert!(
            rows == expected,
            "{name}: {} of {}",
            rows.len(),
            expected.len()
        );
        assert_eq!(rig.searches() - searched, 1, "{name}: one walk");
        let asked = rig.sandbox.requests();
        let last = asked.iter().rfind(|one| one.operation == "search");
        let named = last.unwrap().target.contains("org_1");
        assert_eq!(
            named,
            customer.is_some(),
            "{name}: walks what was searched, not more"
        );
        // The healed page is remembered like any other, and the token still works.
        let (searches, continues) = (rig.searches(), rig.continues());
        let again = next(&rig, &audience, &token, 170).await.unwrap();
        assert!(again.rows[..] == rows[41..41 + again.rows.len()], "{name}");
        assert_eq!(
            (rig.searches(), rig.continues()),
            (searches, continues),
            "{name}"
        );
        let text = rig.metrics.render().unwrap();
        let healed = "msp_gateway_token_heals_total{outcome=\"healed\"} 2\n";
        assert!(text.contains(healed), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_changed_before_the_place_is_refused_and_after_one_vendor_page_at_its_head() {
    // (the day of a new case, whether the token heals, continuations of the walk that finds out)
    for (day, heals, continues) in [
        (Some(jiff::civil::date(2026, 11, 20)), false, 0),
        (None, true, 2),
        (Some(jiff::civil::date(2025, 1, 1)), true, 2),
    ] {
        let before = Rig::new(setup());
        let (rows, token) = read(&before, &Audience::All, None, "", &[500, 500, 1]).await;
        let old = before.sandbox.expected_rows(None, None);
        if let Some(day) = day {
            before.sandbox.insert(1, None, Some(day)).unwrap();
        }
        let new = before.sandbox.expected_rows(None, None);
        // Until the old walk has read ahead.
        sleep(Duration::from_secs(1)).await;
        let rig = before.restarted(setup());
        let (searched, continued) = (rig.searches(), rig.continues());
        let found = next(&rig, &Audience::All, &token, 100).await;
        let changed = old[..1001] != new[..1001];
        assert_eq!(changed, !heals, "{day:?}");
        match heals {
            true => assert!(found.unwrap().rows[..] == new[1001..1101], "{day:?}"),
            false => expired(found),
        }
        let calls = (rig.searches() - searched, rig.continues() - continued);
        assert_eq!(calls, (1, continues), "{day:?}");
        drop(rows);
        if !heals {
            // Asked again while that snapshot is current, it costs nothing.
            for _ in 0..3 {
                expired(next(&rig, &Audience::All, &token, 100).await);
            }
            assert_eq!(rig.searches() - searched, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failures_keep_their_codes_and_the_token_stays_good() {
    let before = Rig::new(setup());
    let expected = before.sandbox.expected_rows(None, None);
    let (_, token) = read(&before, &Audience::All, None, "", &[40]).await;
    let rig = before.restarted(setup());
    let unavailable = FaultKind::Status {
        status: 503,
        body: None,
        retry_after: None,
        processed: false,
    };
    rig.sandbox
        .fault(SimFault::on(SimOperation::Search, unavailable));
    let error = next(&rig, &Audience::All, &token, 40).await.err();
    let Some(ReadError::Upstream(error)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.fault, upstream::Fault::ServerError);
    rig.sandbox.clear_faults();
    sleep(Duration::from_secs(5)).await;
    // Nothing is cached, and the vendor may not be asked.
    let mut careful = rig.everyone();
    careful.directives.only_if_cached = true;
    let asked = rig.page(&careful, None, &continued(&token, Some(40))).await;
    assert!(matches!(asked.err(), Some(ReadError::NotCached)));
    // A deadline that is too short.
    rig.sandbox
        .fault(SimFault::on_any(FaultKind::Latency { ms: 2_000 }));
    let hurried = rig.asker_within(Audience::All, Duration::from_secs(1));
    let asked = rig.page(&hurried, None, &continued(&token, Some(40))).await;
    let error = asked.err();
    assert!(
        matches!(error, Some(ReadError::DeadlinePassed { .. })),
        "{error:?}"
    );
    rig.sandbox.clear_faults();
    sleep(Duration::from_secs(5)).await;
    let page = next(&rig, &Audience::All, &token, 40).await.unwrap();
    assert!(page.rows[..] == expected[40..80]);
    // Now it is cached.
    let asked = rig.page(&careful, None, &continued(&token, Some(40))).await;
    assert!(asked.unwrap().rows[..] == expected[40..80]);
}

#[tokio::test(start_paused = true)]
async fn fifty_callers_with_old_tokens_of_twenty_searches_cost_one_walk_each_search() {
    let before = Rig::new(setup());
    let mut tokens = Vec::new();
    for n in 0..20 {
        let members = format!(",\"n\":{n}");
        tokens.push(
            read(&before, &Audience::All, None, &members, &[100, 400])
                .await
                .1,
        );
    }
    let rig = Arc::new(before.restarted(setup()));
    let searched = rig.searches();
    let mut callers = JoinSet::new();
    for n in 0..50 {
        let (rig, tokens) = (rig.clone(), tokens.clone());
        callers.spawn(async move {
            for at in 0..20 {
                let mut asker = rig.asker_within(Audience::All, Duration::from_secs(600));
                asker.payer = Payer::caller(format!("caller {n}").into(), None);
                let body = continued(&tokens[(n + at) % 20], Some(100));
                rig.page(&asker, None, &body).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    assert_eq!(rig.searches() - searched, 20);
}

#[tokio::test(start_paused = true)]
async fn a_caller_heals_one_token_at_a_time() {
    let before = Rig::new(setup());
    let mut tokens = Vec::new();
    for n in 0..3 {
        let members = format!(",\"n\":{n}");
        tokens.push(read(&before, &Audience::All, None, &members, &[40]).await.1);
    }
    let rig = Arc::new(before.restarted(setup()));
    rig.sandbox
        .fault(SimFault::on_any(FaultKind::Latency { ms: 3_000 }));
    let (begun, mut asked) = (Instant::now(), JoinSet::new());
    for (token, patience) in tokens.iter().zip([10, 2, 10]) {
        let (rig, body) = (rig.clone(), continued(token, Some(40)));
        let asker = rig.asker_within(Audience::All, Duration::from_secs(patience));
        asked.spawn(async move {
            let page = rig.page(&asker, None, &body).await;
            (begun.elapsed().as_secs(), page.map(|page| page.rows.len()))
        });
        tokio::task::yield_now().await;
    }
    let mut ends = asked.join_all().await;
    ends.sort_by_key(|(after, _)| *after);
    let [(_, refused), (3, Ok(40)), (6, Ok(40))] = &ends[..] else {
        panic!("{ends:?}")
    };
    let Err(ReadError::Overloaded { shortage, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(*shortage, Shortage::HealingWalks);
}

#[tokio::test(start_paused = true)]
async fn a_long_search_heals_where_it_is_repeated() {
    let long = format!(",\"note\":\"{}\"", "x".repeat(300));
    let before = Rig::new(setup());
    let expected = before.sandbox.expected_rows(None, None);
    let (_, token) = read(&before, &Audience::All, None, &long, &[40]).await;
    assert!(token.len() < 1024);
    let rig = before.restarted(setup());
    expired(next(&rig, &Audience::All, &token, 40).await);
    let repeated = format!(
        "{}{long}}}",
        continued(&token, Some(40)).trim_end_matches('}').to_owned() + "}"
    );
    let page = rig.page(&rig.everyone(), None, &repeated).await.unwrap();
    assert!(page.rows[..] == expected[40..80]);
    // What is repeated must be the search.
    let other = repeated.replace("xxx", "yyy");
    let page = rig.page(&rig.everyone(), None, &other).await;
    assert!(matches!(
        page.err(),
        Some(ReadError::PageTokenExpired | ReadError::InvalidPageToken)
    ));
    let short = read(&before, &Audience::All, None, ",\"a\":1", &[40])
        .await
        .1;
    let other = continued(&short, None).replace("{\"start", "{\"a\":2,\"start");
    let page = rig.page(&rig.everyone(), None, &other).await;
    assert!(matches!(page.err(), Some(ReadError::InvalidPageToken)));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_the_version_before_open_and_have_expired() {
    let rig = Rig::new(setup());
    let (_, token) = read(&rig, &Audience::All, None, "", &[40]).await;
    let key = SealingKey::derive("test", &Secret::parse("sealing").unwrap());
    let sealer = Sealer::new(&key, None).unwrap();
    let mut claims = sealer.open(&token).unwrap();
    assert_eq!(claims.extra.as_deref(), Some("{}"));
    claims.marks = None;
    let old = sealer.seal(&claims).unwrap();
    assert_ne!(old, token);
    expired(next(&rig, &Audience::All, &old, 40).await);
    // Another audience's is as a forged one.
    let foreign = next(&rig, &only(&["org_1"]), &old, 40).await;
    assert!(matches!(foreign.err(), Some(ReadError::InvalidPageToken)));
}

#[tokio::test(start_paused = true)]
async fn a_hard_purge_ends_rows_and_tokens_heal_from_what_is_fetched_after_it() {
    let rig = Rig::new(setup());
    let expected = rig.sandbox.expected_rows(None, None);
    let (_, token) = read(&rig, &Audience::All, None, "", &[40]).await;
    assert_eq!(rig.reads.purge(&Purge::All, false), 1);
    let searched = rig.searches();
    let page = next(&rig, &Audience::All, &token, 40).await.unwrap();
    assert!(page.rows[..] == expected[40..80]);
    assert_eq!(rig.searches() - searched, 1);
}

#[tokio::test(start_paused = true)]
async fn beyond_a_broken_snapshot_a_token_heals_if_the_change_lies_behind_its_place() {
    let rig = Rig::new(small());
    let old = rig.sandbox.expected_rows(None, None);
    let early = read(&rig, &Audience::All, None, "", &[20, 10]).await.1;
    let late = read(&rig, &Audience::All, None, "", &[30, 100]).await.1;
    // A case of the day of row 60, and the scroll is gone.
    let day = old[60].split("\"created_at\":\"").nth(1);
    let day = day
        .and_then(|text| text.get(..10))
        .and_then(|text| text.parse().ok());
    let day = day.expect("a case has a day");
    rig.sandbox.insert(1, None, Some(day)).unwrap();
    let new = rig.sandbox.expected_rows(None, None);
    let at = (0..old.len()).find(|row| old[*row] != new[*row]).unwrap();
    assert!((30..130).contains(&at), "{at}");
    rig.sandbox.expire_scrolls();
    expired(next(&rig, &Audience::All, &late, 150).await);
    // Within what was served it is the old list, beyond it the new one.
    let page = next(&rig, &Audience::All, &early, 50).await.unwrap();
    assert!(page.rows[..] == old[30..80]);
    let page = next(&rig, &Audience::All, &early, 200).await.unwrap();
    assert!(page.rows[..] == new[30..230]);
}

#[tokio::test(start_paused = true)]
async fn first_pages_go_before_healing_ones() {
    let before = Rig::new(setup());
    let mut tokens = Vec::new();
    for n in 0..6 {
        let members = format!(",\"n\":{n}");
        tokens.push(read(&before, &Audience::All, None, &members, &[40]).await.1);
    }
    let mut setup = setup();
    setup.wiv = Box::new(|wiv| {
        wiv.requests_per_minute = 60;
        wiv.concurrency = 1;
    });
    let rig = Arc::new(before.restarted(setup));
    let mut asked = JoinSet::new();
    let begun = Instant::now();
    let mut ask = |n: usize, body: String, what: &'static str| {
        let rig = rig.clone();
        asked.spawn(async move {
            let mut asker = rig.asker_within(Audience::All, Duration::from_secs(120));
            asker.payer = Payer::caller(format!("{what} {n}").into(), None);
            rig.page(&asker, None, &body).await.unwrap();
            (what, begun.elapsed())
        });
    };
    for (n, token) in tokens.iter().enumerate() {
        ask(n, continued(token, Some(40)), "healed");
    }
    for n in 0..20 {
        ask(n, first(25, &format!(",\"new\":{n}")), "first");
    }
    let ends = asked.join_all().await;
    let of = |kind| {
        ends.iter()
            .filter(move |(what, _)| *what == kind)
            .map(|(_, at)| *at)
    };
    let (last_first, last_healed) = (of("first").max(), of("healed").max());
    println!("first pages until {last_first:?}, healed until {last_healed:?}");
    assert!(last_first < last_healed);
}
