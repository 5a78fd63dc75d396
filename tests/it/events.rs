//! Streams of events: a caller learns which of its own answers changed, and nothing about others'.

use std::sync::Arc;

use msp_gateway::access::{CallerBook, CallerKeyHash, CallerSpec, Role};
use msp_gateway::cache::{CacheNote, Etag};
use msp_gateway::clock::{Duration, Instant, sleep, timeout_at};
use msp_gateway::domain::{Audience, FieldSet, Kind};
use msp_gateway::reads::Lookup;
use msp_gateway::reads::events::{AskedAt, EventsRequest, FellBehind};
use msp_gateway::reads::{Answer, Asker};
use msp_gateway::sandbox::{self, SimFault, SimOperation};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::kit::{Rig, Setup};
use crate::whole::{ALL, Peer, SETTINGS, Whole, caller, get, post, search, secrets, world};

const TENANT: &str = "x-api-key: k-tenant\r\n";
const BILLED: &str = "x-api-key: k-billed\r\n";
const EVENTS: &str = "/v1/events";

fn gateway(more: &str) -> Whole {
    let tenant = caller("tenant", "customers = [\"org_1\", \"org_2\"]\n");
    let billed = caller("billed", "billing = true\n");
    let all = caller("all", "role = \"operator\"");
    let text = format!("{SETTINGS}{more}{all}{tenant}{billed}");
    Whole::with(&text, &secrets(), small())
}

fn small() -> sandbox::Options {
    sandbox::Options {
        cases: 150,
        ..world()
    }
}

async fn open(whole: &Whole, target: &str, headers: &str) -> Peer {
    let mut peer = whole.connect();
    peer.send(get(target, headers)).await;
    let (status, head) = peer.reply_head().await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(head["content-type"], "text/event-stream");
    peer
}

/// Returns what arrives within `seconds`.
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

/// Has the search refreshed, as another caller's request does.
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
    assert_eq!(opening.matches(": still here\nid: ").count(), 2);

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
    // A caller that asked nothing gets no events.
    assert_eq!(data(&heard(&mut others, 1).await), Vec::<Value>::new());
}

/// The vendor answers one operation with its own body, in which `from` is `to` now.
fn vendor_says(whole: &Whole, operation: SimOperation, body: &str, from: &str, to: &str) {
    assert!(body.contains(from), "{from}: {body}");
    let said = sandbox::FaultKind::Status {
        status: 200,
        body: Some(body.replacen(from, to, 1)),
        retry_after: None,
        processed: false,
    };
    whole.sandbox.clear_faults();
    whole.sandbox.fault(SimFault::on(operation, said));
}

#[tokio::test(start_paused = true)]
async fn changes_of_customers_and_bills_are_told_to_those_whose_answer_they_change() {
    let whole = gateway("");
    let list = whole.ask(get("/msp/customers", ALL)).await;
    let list = String::from_utf8(list.body).unwrap();
    let customers = whole.sandbox.customers();
    let name = |id: &str| {
        let it = customers.iter().find(|customer| customer.id == id);
        serde_json::to_string(&it.unwrap().name).unwrap()
    };
    let month = &whole.sandbox.months()[0];
    let contract = &whole.sandbox.contracts()[0].id.to_string();
    let bill = format!("/v1/billing/{month}/{contract}");
    let invoices = format!("/v1/billing/{month}");
    let drop_in = format!("/ws/rest/V1/PSA_API/PSABillableServices/-/{month}/{contract}");
    let ask = async |target: &str, key: &str| {
        let request = match target.starts_with("/ws") {
            true => post(target, key, ""),
            false => get(target, key),
        };
        let reply = whole.ask(request).await;
        assert_eq!(reply.status, 200, "{target}");
        reply
    };
    let bill_text = String::from_utf8(ask(&bill, ALL).await.body).unwrap();
    let invoices_text = String::from_utf8(ask(&invoices, ALL).await.body).unwrap();
    // The caller and its request, what the vendor changes, and whether the caller gets an event.
    let (lists, bills, months) = (
        SimOperation::Customers,
        SimOperation::Billing,
        SimOperation::Invoices,
    );
    let account = ("\"Best MSP", "\"Worst MSP");
    for (key, target, operation, (from, to), is_told) in [
        (
            TENANT,
            "/msp/customers",
            lists,
            (&*name("org_1"), "\"Other\""),
            true,
        ),
        (
            TENANT,
            "/msp/customers",
            lists,
            (&*name("org_3"), "\"Other\""),
            false,
        ),
        (
            TENANT,
            "/msp/customers?fields=id",
            lists,
            (&*name("org_1"), "\"Other\""),
            false,
        ),
        (
            ALL,
            "/msp/customers?fields=id,name",
            lists,
            (&*name("org_3"), "\"Other\""),
            true,
        ),
        (BILLED, &*bill, bills, account, true),
        (BILLED, &*drop_in, bills, account, true),
        (BILLED, &*invoices, months, account, true),
        (BILLED, &*invoices, bills, account, false),
    ] {
        let (text, source) = match operation {
            SimOperation::Customers => (&list, "/msp/customers"),
            SimOperation::Billing => (&bill_text, &*bill),
            _ => (&invoices_text, &*invoices),
        };
        whole.sandbox.clear_faults();
        sleep(Duration::from_secs(3_700)).await;
        ask(target, key).await;
        ask(source, ALL).await;
        let mut stream = open(&whole, EVENTS, key).await;
        heard(&mut stream, 3).await;
        vendor_says(&whole, operation, text, from, to);
        // The answer is stale, so this request starts a refresh.
        sleep(Duration::from_secs(70)).await;
        ask(source, ALL).await;
        sleep(Duration::from_secs(1)).await;
        let calls = whole.vendor_calls();
        let mut events = data(&heard(&mut stream, 3).await);
        // It may be told of what it asked before as well.
        events.retain(|event| event["target"] == target);
        assert_eq!(events.len(), usize::from(is_told), "{target}: {events:?}");
        // The stream itself asked nobody.
        assert_eq!(whole.vendor_calls(), calls, "{target}");
        let now = ask(target, key).await;
        if let Some(event) = events.first() {
            let kind = match operation {
                SimOperation::Customers => "customers",
                _ => "billing",
            };
            assert_eq!(event["kind"], kind);
            assert_eq!(event["etag"], now.header("etag"));
            assert!(event.get("body").is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_asks_no_vendor_whatever_goes_stale() {
    let whole = gateway("");
    let month = &whole.sandbox.months()[0];
    for request in [
        get("/msp/customers?fields=id", BILLED),
        get(&format!("/v1/billing/{month}"), BILLED),
        search(BILLED, "{}"),
        // Of the list of all, which goes stale as well.
        post("/v2/cases/msp/search?customer_id=org_1", BILLED, "{}"),
    ] {
        assert_eq!(whole.ask(request).await.status, 200);
    }
    sleep(Duration::from_secs(20)).await;
    let calls = whole.vendor_calls();
    // Fresh for a minute, stale for another, and on error for an hour.
    for _ in 0..15 {
        let mut stream = open(&whole, EVENTS, BILLED).await;
        let told = heard(&mut stream, 301).await;
        assert_eq!(data(&told), Vec::<Value>::new());
        assert_eq!(told.matches(": still here\n").count(), 19, "{told}");
    }
    assert_eq!(whole.vendor_calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut_and_nothing_is_buffered_for_it() {
    let short = SETTINGS.replace("\"1m\"", "\"5s\"");
    let more = "[limits]\nwrite_stall_timeout = \"10m\"\n";
    let tenant = caller("tenant", "customers = [\"org_1\", \"org_2\"]\n");
    let few = sandbox::Options {
        cases: 20,
        ..world()
    };
    let whole = Whole::with(&format!("{short}{more}{tenant}"), &secrets(), few);
    // Events of some 2 KiB, many at a time.
    let bodies: Vec<String> = (0..12)
        .map(|at| format!("{{\"note\":\"{at}{}\"}}", "x".repeat(1_900)))
        .collect();
    for body in &bodies {
        assert_eq!(whole.ask(search(TENANT, body)).await.status, 200);
    }
    let mut slow = open(&whole, EVENTS, TENANT).await;
    // More than the pipe, hyper and the history hold together, well within the time of a stream.
    for _ in 0..28 {
        whole.sandbox.insert(1, Some("org_1"), None);
        for _ in 0..2 {
            sleep(Duration::from_secs(5)).await;
            for body in &bodies {
                assert_eq!(whole.ask(search(TENANT, body)).await.status, 200);
            }
        }
    }
    assert_eq!(whole.metric("followers").await, 1.0);
    let noted = whole.metric("events_total{what=\"changed\"}").await;
    assert!(noted >= 300.0, "{noted}");
    let bytes = whole.metric("cache_bytes{store=\"events\"}").await;
    assert!((100_000.0..200_000.0).contains(&bytes), "{bytes}");
    let told = slow.rest().await;
    assert!(!told.ends_with("0\r\n\r\n"), "cut, not whole");
    assert!((told.matches("event: changed").count() as f64) < noted);
    assert_eq!(whole.metric("events_total{what=\"cut\"}").await, 1.0);
    // Every event that came, came whole and once, in order.
    let ids: Vec<u64> = told
        .lines()
        .filter_map(|line| line.strip_prefix("id: ")?.split_once('-')?.1.parse().ok())
        .collect();
    assert!(ids.is_sorted(), "{ids:?}");
    let mut back = open(
        &whole,
        EVENTS,
        &format!("{TENANT}last-event-id: {}\r\n", last_id(&told)),
    )
    .await;
    assert!(heard(&mut back, 1).await.contains("event: reset\n"));
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

/// A caller who sees all.
fn asker(rig: &Rig, name: &str) -> Asker {
    let spec = CallerSpec {
        name: name.to_owned(),
        keys: vec![CallerKeyHash::of(b"test")],
        sans: Vec::new(),
        role: Role::Reader,
        audience: Audience::All,
        billing: true,
        requests_per_minute: None,
        forced_refreshes_per_minute: 6,
        expires: None,
    };
    let book = CallerBook::new(&[spec], &rig.metrics, rig.clock.clone());
    Asker {
        caller: book.find(Some(b"test"), None).unwrap(),
        ..rig.everyone()
    }
}

fn note(rig: &Rig, asker: &Asker, target: &str, body: &str, said: String) {
    let answer = Answer {
        etag: Some(Etag::of(said.as_bytes())),
        body: said.into(),
        age: Duration::ZERO,
        note: CacheNote::hit(1),
    };
    let body = body.as_bytes();
    let lookup = || Lookup::Customers(FieldSet::ALL);
    let events = &rig.reads.events;
    events.note(asker, AskedAt { target, body }, &answer, lookup);
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_all_callers_are_bounded_and_the_least_recently_used_goes() {
    let rig = Rig::new(Setup::default());
    let events = rig.reads.events.clone();
    let request = |last_id| EventsRequest {
        kinds: None,
        last_id,
    };
    let first = asker(&rig, "first");
    let mut stream = events.begin(&first, request(None)).unwrap();
    let opening = stream.next().await.unwrap().unwrap();
    let id = last_id(str::from_utf8(&opening).unwrap());
    let target = format!("/msp/customers?{}", "x".repeat(2_000));
    for at in 0..400 {
        sleep(Duration::from_millis(1)).await;
        let one = asker(&rig, &format!("caller-{at}"));
        for of in 0..64 {
            note(&rig, &one, &format!("{target}{of}"), "", "[]".to_owned());
        }
    }
    let usage = events.usage();
    assert!(usage.evicted > 100 && usage.entries < 300, "{usage:?}");
    assert!(usage.bytes <= usage.bytes_max, "{usage:?}");
    assert_eq!(usage.entries + usage.evicted, 401);
    assert_eq!(stream.next().await, Some(Err(FellBehind)));
    let mut stream = events.begin(&first, request(Some(id))).unwrap();
    let opening = stream.next().await.unwrap().unwrap();
    assert!(opening.starts_with(b"event: reset\n"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_few_kinds_does_not_fall_behind_the_others_events() {
    let rig = Rig::new(Setup::default());
    let one = asker(&rig, "one");
    let request = |last_id| EventsRequest {
        kinds: Some(vec![Kind::Cases]),
        last_id,
    };
    let mut stream = rig.reads.events.begin(&one, request(None)).unwrap();
    stream.next().await.unwrap().unwrap();
    for at in 0..400 {
        note(&rig, &one, "/msp/customers", "", format!("[{at}]"));
    }
    // As a reader that keeps up: it gets none of these, and its next comment says how far it is.
    let mut stream = rig.reads.events.begin(&one, request(None)).unwrap();
    stream.next().await.unwrap().unwrap();
    let comment = stream.next().await.unwrap().unwrap();
    let id = last_id(str::from_utf8(&comment).unwrap());
    let mut stream = rig.reads.events.begin(&one, request(Some(id))).unwrap();
    let opening = stream.next().await.unwrap().unwrap();
    assert!(opening.starts_with(b": open\n"));
}
