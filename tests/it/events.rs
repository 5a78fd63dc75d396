//! Streams of events: a caller is told which of its own answers changed, and nothing of others'.

use std::sync::Arc;

use msp_gateway::cache::{CacheNote, Etag};
use msp_gateway::clock::{Duration, Instant, sleep, timeout_at};
use msp_gateway::domain::{FieldSet, Kind};
use msp_gateway::reads::Answer;
use msp_gateway::reads::events::{AskedAt, EventsRequest, FellBehind, Lookup};
use msp_gateway::sandbox;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::kit::{Rig, Setup};
use crate::whole::{ALL, Peer, SETTINGS, Whole, caller, get, search, secrets, world};

const TENANT: &str = "x-api-key: k-tenant\r\n";
const BILLED: &str = "x-api-key: k-billed\r\n";
const EVENTS: &str = "/v1/events";

fn gateway(more: &str) -> Whole {
    let tenant = caller("tenant", "customers = [\"org_1\", \"org_2\"]\n");
    let billed = caller("billed", "billing = true\n");
    let all = caller("all", "role = \"operator\"");
    let text = format!("{SETTINGS}{more}{all}{tenant}{billed}");
    let world = sandbox::Options {
        cases: 150,
        ..world()
    };
    Whole::with(&text, &secrets(), world)
}

async fn open(whole: &Whole, target: &str, headers: &str) -> Peer {
    let mut peer = whole.connect();
    peer.send(get(target, headers)).await;
    let (status, head) = peer.reply_head().await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(head["content-type"], "text/event-stream");
    peer
}

/// What comes within so many seconds.
async fn heard(peer: &mut Peer, seconds: u64) -> String {
    let until = Instant::now() + Duration::from_secs(seconds);
    while let Ok(Ok(1..)) = timeout_at(until, peer.io.read_buf(&mut peer.buffer)).await {}
    String::from_utf8(std::mem::take(&mut peer.buffer)).unwrap()
}

fn data(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn last_id(text: &str) -> String {
    let mut ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().unwrap().to_owned()
}

/// Has the search read anew, as another caller's question does.
async fn refreshed(whole: &Whole) {
    sleep(Duration::from_secs(61)).await;
    assert_eq!(whole.ask(search(ALL, "{}")).await.status, 200);
    // The first was answered stale; this one has the rest of the new list read.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(whole.ask(search(ALL, "{}")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_told_of_its_own_answers_and_of_rows_that_it_may_see() {
    let whole = gateway("");
    let body = "{\"max_returned_items\":20}";
    let before = whole.ask(search(TENANT, body)).await;
    assert!(before.json()["next_page_key"].is_object());
    let mut stream = open(&whole, EVENTS, TENANT).await;
    let mut others = open(&whole, EVENTS, BILLED).await;
    let opening = heard(&mut stream, 40).await;
    assert!(opening.contains(": open\nid: "), "{opening}");
    assert_eq!(opening.matches(": still here\n\n").count(), 2);

    // Nothing changed, but for the page token.
    refreshed(&whole).await;
    assert_eq!(data(&heard(&mut stream, 10).await), Vec::<Value>::new());
    // Another audience's rows.
    whole.sandbox.insert(5, Some("org_3"), None);
    refreshed(&whole).await;
    assert_eq!(data(&heard(&mut stream, 10).await), Vec::<Value>::new());
    // Its own.
    whole.sandbox.insert(3, Some("org_1"), None);
    refreshed(&whole).await;
    let calls = whole.vendor_calls();
    let told = heard(&mut stream, 10).await;
    let events = data(&told);
    assert_eq!(events.len(), 1, "{told}");
    assert!(told.contains("event: changed\nid: "), "{told}");
    assert_eq!(events[0]["kind"], "cases");
    assert_eq!(events[0]["target"], "/v2/cases/msp/search");
    assert_eq!(events[0]["body"], body);
    assert!(events[0]["as_of"].as_str().unwrap().ends_with('Z'));
    // The stream itself asks no vendor, and its tag is that of the answer.
    assert_eq!(whole.vendor_calls(), calls);
    let now = whole.ask(search(TENANT, body)).await;
    assert_eq!(events[0]["etag"], now.header("etag"));
    // Told once.
    assert_eq!(data(&heard(&mut stream, 30).await), Vec::<Value>::new());
    // Who asked nothing is told nothing.
    assert_eq!(data(&heard(&mut others, 1).await), Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_back_gets_what_it_missed_or_is_told_to_begin_anew() {
    let whole = gateway("");
    whole.ask(search(TENANT, "{}")).await;
    let mut stream = open(&whole, EVENTS, TENANT).await;
    let first = last_id(&heard(&mut stream, 1).await);
    drop(stream);
    // Nobody reads while this happens.
    whole.sandbox.insert(3, Some("org_1"), None);
    refreshed(&whole).await;
    sleep(Duration::from_secs(10)).await;
    let with = |id: &str| format!("{TENANT}last-event-id: {id}\r\n");
    let mut stream = open(&whole, EVENTS, &with(&first)).await;
    let told = heard(&mut stream, 3).await;
    assert_eq!(data(&told).len(), 1, "{told}");
    let second = last_id(&told);
    assert_ne!(first, second);
    for (id, events) in [(&first, 1), (&second, 0)] {
        let mut stream = open(&whole, EVENTS, &with(id)).await;
        let told = heard(&mut stream, 3).await;
        assert_eq!(data(&told).len(), events, "{told}");
        assert!(!told.contains("reset"), "{told}");
    }
    // Of another kind only: nothing to be told.
    let mut stream = open(&whole, "/v1/events?kinds=customers", &with(&first)).await;
    assert_eq!(data(&heard(&mut stream, 3).await), Vec::<Value>::new());
    // Another log's, one that is not yet, and no id at all.
    let (epoch, _) = second.split_once('-').unwrap();
    let foreign = second.replace(epoch, "00c0ffee00c0ffee");
    for id in [
        &*foreign,
        &format!("{epoch}-99"),
        &format!("{epoch}-"),
        "",
        "\u{e9}",
    ] {
        let mut stream = open(&whole, EVENTS, &with(id)).await;
        let told = heard(&mut stream, 1).await;
        assert!(told.contains("event: reset\nid: "), "{id}: {told}");
        assert_eq!(last_id(&told), second);
    }
}

#[tokio::test(start_paused = true)]
async fn kinds_are_read_strictly_and_billing_needs_the_right() {
    let whole = gateway("");
    for (key, query, right) in [
        (TENANT, "?kinds=billing", (403, "billing_not_allowed")),
        (TENANT, "?kinds=cases,billing", (403, "billing_not_allowed")),
        (TENANT, "?kinds=", (400, "invalid_query")),
        (TENANT, "?kinds=case", (400, "invalid_query")),
        (TENANT, "?kinds=cases,", (400, "invalid_query")),
        (TENANT, "?kinds=cases&kinds=cases", (400, "invalid_query")),
        (TENANT, "?kind=cases", (400, "invalid_query")),
        ("", "", (401, "authentication_required")),
    ] {
        let reply = whole.ask(get(&format!("{EVENTS}{query}"), key)).await;
        assert_eq!((reply.status, &*reply.code()), right, "{query}");
    }
    open(&whole, "/v1/events?kinds=cases,customers", TENANT).await;
    open(&whole, "/v1/events?kinds=cases,customers,billing", BILLED).await;
}

#[tokio::test(start_paused = true)]
async fn streams_are_so_many_hold_no_other_places_and_give_theirs_back() {
    let whole = gateway("[changes]\nfollowers_max = 8\n");
    let mut streams = Vec::new();
    for _ in 0..7 {
        streams.push(open(&whole, EVENTS, TENANT).await);
    }
    let refused = whole.ask(get(EVENTS, TENANT)).await;
    assert_eq!((refused.status, &*refused.code()), (503, "overloaded"));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("changes.followers_max"), "{detail}");
    open(&whole, EVENTS, BILLED).await;
    let held = whole.metric("msp_gateway_requests_in_flight").await;
    assert!(held <= 1.0, "{held}");
    drop(streams);
    sleep(Duration::from_secs(20)).await;
    open(&whole, EVENTS, TENANT).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_and_the_time_of_a_stream_end_it_whole() {
    let whole = gateway("");
    let mut old = open(&whole, EVENTS, TENANT).await;
    let text = heard(&mut old, 301).await;
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
    let mut stream = open(&whole, EVENTS, TENANT).await;
    heard(&mut stream, 5).await;
    whole.app.drain().begin();
    let text = heard(&mut stream, 2).await;
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_falls_behind_is_cut_and_targets_are_bounded() {
    let rig = Rig::new(Setup::default());
    let asker = rig.everyone();
    let events = &rig.reads.events;
    let note = |target: &str, body: String| {
        let answer = Answer {
            etag: Some(Etag::of(body.as_bytes())),
            body: body.into(),
            age: Duration::ZERO,
            note: CacheNote::hit(1),
        };
        let body = &[];
        let lookup = || Lookup::Customers(FieldSet::ALL);
        events.note(&asker, AskedAt { target, body }, &answer, lookup);
    };
    let request = |last_id: Option<String>| EventsRequest {
        kinds: Some(vec![Kind::Customers]),
        last_id,
    };
    let stream = |id| Arc::clone(events).begin(&asker, request(id)).unwrap();
    let mut slow = stream(None);
    let opening = slow.next().await.unwrap().unwrap();
    let id = last_id(str::from_utf8(&opening).unwrap());
    for at in 0..=256 {
        note("/msp/customers", format!("[{at}]"));
    }
    // As many as are kept can still be told.
    let told = slow.next().await.unwrap().unwrap();
    assert_eq!(data(str::from_utf8(&told).unwrap()).len(), 256);
    for at in 0..257 {
        note("/msp/customers", format!("[{at},{at}]"));
    }
    assert_eq!(slow.next().await, Some(Err(FellBehind)));
    let opening = stream(Some(id)).next().await.unwrap().unwrap();
    assert!(opening.starts_with(b"event: reset\n"));
    // A target that went for others is new when it comes again, and gives no event.
    let mut stream = stream(None);
    stream.next().await.unwrap().unwrap();
    for at in 0..64 {
        note(&format!("/msp/customers?{at}"), "[]".to_owned());
    }
    note("/msp/customers", "[1]".to_owned());
    note("/msp/customers?63", "[2]".to_owned());
    let told = stream.next().await.unwrap().unwrap();
    let told = data(str::from_utf8(&told).unwrap());
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["target"], "/msp/customers?63");
}
