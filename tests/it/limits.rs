//! Measurements behind the limits towards a vendor: whether its rate is learnt, whether the number
//! of concurrent calls follows its response times, and that the callers share what there is.
//! Figures are printed: `cargo test --test it limits -- --nocapture`.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use msp_gateway::admission::{Lane, Payer, Spend};
use msp_gateway::clock::{Clock, Duration, Instant, sleep, sleep_until};
use msp_gateway::domain::{AccountId, Audience, PageSize, SearchQuery, Vendor};
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox::{self, RateHeaders, SimOperation};
use msp_gateway::secrets::{Secret, VendorKey, VendorKeys};
use msp_gateway::stack::outbound;
use msp_gateway::upstream::connect::InMemory;
use msp_gateway::upstream::{BaseUrl, Source as _, VendorOptions};
use msp_gateway::vendors::Wiv;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::kit::{Rig, Setup, first};
use crate::whole::{SETTINGS, Whole, caller, get, post, secrets, world};

const SECOND: Duration = Duration::from_secs(1);

/// What twenty minutes of questions without end gave.
#[derive(Debug)]
struct Tally {
    served: u32,
    /// Questions that were told no.
    told_no: u32,
    /// Calls that reached the vendor and were refused there.
    refused: u64,
    /// Longest time without an answer.
    silence: Duration,
}

/// A vendor of `quota` requests a minute, of which the gateway believes `guess`; two new questions
/// a second.
async fn twenty_minutes(quota: u32, guess: u32, learns: bool, headers: RateHeaders) -> Tally {
    let rig = Arc::new(Rig::new(Setup {
        world: sandbox::Options {
            // Few, for what is counted is questions.
            cases: 10,
            wiv_requests_per_minute: Some(quota),
            nable_requests_per_minute: None,
            rate_headers: headers,
            ..sandbox::Options::default()
        },
        wiv: Box::new(move |wiv| {
            wiv.requests_per_minute = guess;
            wiv.concurrency = 8;
            wiv.learn_down_to = learns.then_some(6);
        }),
        ..Setup::default()
    }));
    let last = Arc::new(Mutex::new((Instant::now(), Duration::ZERO)));
    let mut tasks = JoinSet::new();
    let until = Instant::now() + SECOND * 1_200;
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let (rig, last) = (rig.clone(), last.clone());
        tasks.spawn(async move {
            let asker = rig.asker_within(Audience::All, SECOND * 5);
            let body = first(25, &format!(",\"number\":{number}"));
            let page = rig.page(&asker, None, &body).await;
            if page.is_ok() {
                let mut last = last.lock();
                last.1 = last.1.max(last.0.elapsed());
                last.0 = Instant::now();
            }
            page.is_ok()
        });
        sleep(Duration::from_millis(500)).await;
    }
    let answers = tasks.join_all().await;
    let served = answers.iter().filter(|ok| **ok).count() as u32;
    let silence = last.lock().1;
    Tally {
        served,
        told_no: number - served,
        refused: rig.sandbox.counts().operations[SimOperation::Search.as_str()]
            .by_status
            .get(&429)
            .copied()
            .unwrap_or(0),
        silence,
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_is_learnt_is_refused_less_and_finds_what_a_low_guess_leaves() {
    let none = RateHeaders::None;
    let told = RateHeaders::Structured;
    println!("twenty minutes, 120 questions and the vendor takes 60 a minute:");
    let mut seen = Vec::new();
    for (guess, learns, headers) in [
        (120, false, none),
        (120, true, none),
        (600, false, none),
        (600, true, none),
        (30, false, none),
        (120, false, told),
        (120, true, told),
    ] {
        let tally = twenty_minutes(60, guess, learns, headers).await;
        println!("configured {guess:>3}, learns {learns:<5}, headers {headers:?}: {tally:?}");
        assert_eq!(tally.served + tally.told_no, 2_400);
        seen.push(tally);
    }
    let [high, high_learnt, wild, wild_learnt, low, told, told_learnt] = &seen[..] else {
        panic!("seven");
    };
    // A fraction of the refusals, fewer the nearer the ceiling is to the truth, and little less
    // served.
    for (plain, learnt, share) in [(high, high_learnt, 3), (wild, wild_learnt, 7)] {
        assert!(
            learnt.refused * 10 <= plain.refused * share,
            "{plain:?} {learnt:?}"
        );
        assert!(
            learnt.served * 10 >= plain.served * 7,
            "{plain:?} {learnt:?}"
        );
    }
    // A ceiling that is twice the truth serves more than a guess of half of it.
    assert!(high_learnt.served * 10 >= low.served * 13);
    // Where the vendor tells, nobody is refused either way; spread, nobody waits for the next
    // minute.
    assert_eq!((told.refused, told_learnt.refused), (0, 0));
    assert!(
        told_learnt.silence * 3 <= told.silence,
        "{told:?} {told_learnt:?}"
    );
}

/// A vendor that works at two things at once, in the order of their coming, and at what nobody
/// waits for any more too.
struct Slow {
    busy_until: Mutex<[Instant; 2]>,
    takes: Mutex<Duration>,
}

impl Slow {
    /// When a request that comes now is answered.
    fn due(&self) -> Instant {
        let mut busy = self.busy_until.lock();
        let next = busy.iter_mut().min().unwrap();
        *next = (*next).max(Instant::now()) + *self.takes.lock();
        *next
    }
}

/// Searches without an end at one a second: healthy for two minutes, slow for ten, healthy for two.
/// Returns how many of the slow ten minutes' and of the last two's were answered.
async fn brown_out(adaptive: bool) -> (u32, u32) {
    let clock = Clock::anchored(crate::kit::NOW.parse().unwrap());
    let metrics = Metrics::new().unwrap();
    let slow = Arc::new(Slow {
        busy_until: Mutex::new([Instant::now(); 2]),
        takes: Mutex::new(SECOND / 2),
    });
    let vendor = slow.clone();
    let connector = InMemory::new(move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let vendor = vendor.clone();
        tokio::spawn(async move {
            let answer = service_fn(|_| {
                let due = vendor.due();
                async move {
                    sleep_until(due).await;
                    let page = Bytes::from_static(br#"{"data":[],"next_page_key":null}"#);
                    Ok::<_, Infallible>(http::Response::new(Full::new(page)))
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(far), answer).await;
        });
        near
    });
    let url = BaseUrl::parse("http://127.0.0.1:7070").unwrap();
    let mut options = VendorOptions::new(Vendor::Wiv, url, AccountId::parse("wiv").unwrap());
    options.requests_per_minute = 600;
    options.concurrency_adaptive = adaptive;
    let ring = Arc::new(ArcSwap::from_pointee(VendorKeys {
        primary: VendorKey::new(Secret::parse("a-key-of-some-length").unwrap()),
        fallback: None,
    }));
    let gates = options.gates(ring, &clock, &metrics);
    let service = outbound(&options, &gates, &clock, &metrics, connector);
    let wiv = Arc::new(Wiv::new(service, &options));

    let mut tasks = JoinSet::new();
    for second in 0..14 * 60 {
        let phase = match second / 60 {
            0..2 => 0,
            2..12 => 1,
            _ => 2,
        };
        *slow.takes.lock() = if phase == 1 { SECOND * 4 } else { SECOND / 2 };
        let (wiv, clock) = (wiv.clone(), clock.clone());
        tasks.spawn(async move {
            let spend = Spend {
                lane: Lane::Interactive,
                deadline: clock.now() + SECOND * 30,
                wanted_until: clock.now() + SECOND * 30,
                payer: Payer::caller("a".into(), None),
                within: None,
            };
            let query = SearchQuery::default();
            (phase, wiv.first(&query, PageSize::MAX, spend).await.is_ok())
        });
        sleep(SECOND).await;
    }
    let mut answered = [0; 3];
    for (phase, ok) in tasks.join_all().await {
        answered[phase] += u32::from(ok);
    }
    assert_eq!(answered[0], 120, "healthy");
    (answered[1], answered[2])
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_is_late_gets_as_much_as_it_bears() {
    let (fixed, adaptive) = (brown_out(false).await, brown_out(true).await);
    println!(
        "a vendor that could answer 300 in ten slow minutes, and 120 after: \
         8 at once {fixed:?}, adaptive {adaptive:?}"
    );
    assert!(adaptive.0 >= 225, "{adaptive:?}");
    assert!(adaptive.0 * 10 >= fixed.0 * 15, "{fixed:?} {adaptive:?}");
    assert!(adaptive.1 >= 110, "{adaptive:?}");
}

fn key(caller: &str) -> String {
    format!("x-api-key: k-{caller}\r\n")
}

/// One caller asks a hundred times as much as five others together may, all of it new to the
/// vendor; the others ask a little, new and remembered. What reaches the vendor stays within its
/// budget.
#[tokio::test(start_paused = true)]
async fn one_caller_at_a_hundred_times_takes_nothing_from_the_others() {
    let mut text = SETTINGS.replacen(
        "requests_per_minute = 60000\nconcurrency = 64",
        "requests_per_minute = 240\nconcurrency = 8",
        1,
    );
    text += "[limits]\nrequests_in_flight_max = 256\n";
    text += &caller("greedy", "");
    for name in ["b", "c", "d", "e", "f"] {
        text += &caller(name, "");
    }
    let whole = Arc::new(Whole::with(&text, &secrets(), world()));
    let search = |caller: &str, number: u32| {
        let body = format!("{{\"max_returned_items\":25,\"number\":{number}}}");
        post("/v2/cases/msp/search", &key(caller), &body)
    };
    let began = Instant::now();
    let (mut greedy, mut others) = (JoinSet::new(), JoinSet::new());
    for tick in 0..6_000u32 {
        // A hundred new searches a second against one question a second of the others.
        let ask = search("greedy", 1_000_000 + tick);
        let of = whole.clone();
        greedy.spawn(async move { of.ask(ask).await.status });
        if tick % 100 == 50 {
            let name = ["b", "c", "d", "e", "f"][(tick / 100 % 5) as usize];
            let ask = match tick / 100 % 3 {
                0 => search(name, tick),
                1 => search(name, 1),
                _ => get("/msp/customers", &key(name)),
            };
            let of = whole.clone();
            others.spawn(async move { of.ask(ask).await.status });
        }
        sleep(Duration::from_millis(10)).await;
    }
    let others = others.join_all().await;
    let good = others.iter().filter(|status| **status == 200).count();
    let greedy = greedy.join_all().await;
    let shed = greedy.iter().filter(|status| **status == 503).count();
    println!(
        "others {good} of {}, greedy {} of {} ({shed} shed)",
        others.len(),
        greedy.iter().filter(|status| **status == 200).count(),
        greedy.len()
    );
    assert!(good * 100 >= others.len() * 99, "{others:?}");
    // A burst of forty, then four a second.
    let allowed = 40 + 4 * began.elapsed().as_secs() + 1;
    let calls = whole.sandbox.counts().requests(SimOperation::Search)
        + whole.sandbox.counts().requests(SimOperation::Continue)
        + whole.sandbox.counts().requests(SimOperation::Customers);
    assert!(calls <= allowed, "{calls} calls, {allowed} allowed");
}

/// Each request with an answer caused a vendor call or saved one, and the ledgers of callers and of
/// the gateway's own work add up to what reached the vendors.
#[tokio::test(start_paused = true)]
async fn every_request_is_a_call_or_saved_and_the_ledger_adds_up() {
    let text = SETTINGS.to_owned() + &caller("a", "") + &caller("b", "");
    let whole = Arc::new(Whole::with(&text, &secrets(), world()));
    let contract = whole.sandbox.contracts()[0].id.clone();
    let mut rng = fastrand::Rng::with_seed(4);
    let mut answered = 0;
    for round in 0..120 {
        if round == 60 {
            for vendor in [sandbox::SimVendor::Wiv, sandbox::SimVendor::Nable] {
                whole.sandbox.set_down(vendor, true);
            }
        }
        if round == 90 {
            whole.sandbox.clear_faults();
        }
        let mut tasks = JoinSet::new();
        for _ in 0..rng.usize(1..6) {
            let key = &key(["a", "b"][rng.usize(..2)]);
            let customer = format!("?customer_id={}", whole.sandbox.customers()[0].id);
            let number = rng.u32(..8);
            let search = format!("{{\"max_returned_items\":25,\"number\":{number}}}");
            let ask = match rng.u32(..6) {
                0 => get("/msp/customers", key),
                1 => get("/msp/customers?fields=id", key),
                2 => get(&format!("/v1/billing/202609/{contract}"), key),
                3 => post(
                    &format!("/v2/cases/msp/search{}", ["", &customer][rng.usize(..2)]),
                    key,
                    "{}",
                ),
                _ => post("/v2/cases/msp/search", key, &search),
            };
            let of = whole.clone();
            tasks.spawn(async move { of.ask(ask).await });
        }
        for reply in tasks.join_all().await {
            answered += u64::from(reply.status == 200);
            assert!(matches!(reply.status, 200 | 502..=504), "{}", reply.status);
        }
        sleep(SECOND * rng.u32(0..40)).await;
    }
    sleep(SECOND * 60).await;
    let lines = whole.log.lines();
    let called = lines.iter().filter(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["status"] == 200 && line["vendor_calls"].as_u64().unwrap() > 0
    });
    let called = called.count() as u64;
    let text = whole.metrics_text().await;
    let sum = |name: &str, with: &str| {
        let lines = text.lines().filter(|line| {
            line.starts_with(&format!("msp_gateway_{name}{{")) && line.contains(with)
        });
        let values = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
        values.sum::<f64>() as u64
    };
    let saved = sum("vendor_calls_saved_total", "");
    println!("{answered} answered: {called} made calls, {saved} saved one");
    assert_eq!(called + saved, answered);
    assert!(called > 20 && saved > 100);
    assert_eq!(sum("caller_vendor_calls_saved_total", ""), saved);
    let (callers, own) = (
        sum("caller_vendor_calls_total", "caller=\"a\"")
            + sum("caller_vendor_calls_total", "caller=\"b\""),
        sum("caller_vendor_calls_total", "caller=\"gateway\""),
    );
    assert!(own > 0);
    assert_eq!(callers + own, sum("vendor_requests_total", ""));
    let status = whole.ask_admin(get("/admin/status", "")).await.json();
    let of = |value: &serde_json::Value| value.as_u64().unwrap();
    let ledgers = status["callers"].as_array().unwrap().iter();
    let (calls, savings) = ledgers.fold((0, 0), |(calls, saved), caller| {
        (
            calls + of(&caller["vendor_calls"]),
            saved + of(&caller["vendor_calls_saved"]),
        )
    });
    assert_eq!((calls, savings), (callers, saved));
    assert_eq!(of(&status["background"]["vendor_calls"]), own);
}

#[tokio::test(start_paused = true)]
async fn who_asks_first_pays_and_the_others_share() {
    let rig = Arc::new(Rig::new(Setup {
        world: sandbox::Options {
            cases: 100,
            latency: SECOND,
            ..sandbox::Options::default()
        },
        ..Setup::default()
    }));
    let mut payers = Vec::new();
    let mut tasks = JoinSet::new();
    for name in ["first", "second", "third"] {
        let mut asker = rig.everyone();
        asker.payer = Payer::caller(name.into(), None);
        payers.push(asker.payer.clone());
        let rig = rig.clone();
        tasks.spawn(async move {
            let page = rig.page(&asker, None, "{}").await;
            page.unwrap().answer.note.outcome.as_str()
        });
        tokio::task::yield_now().await;
    }
    let mut words = tasks.join_all().await;
    words.sort_unstable();
    assert_eq!(words, ["collapsed", "collapsed", "miss"]);
    let calls: Vec<_> = payers.iter().map(|payer| payer.calls()).collect();
    assert_eq!(calls, [1, 0, 0]);
}

/// Readers who take nothing of their exports fill the places of exports, at most seven of eight for
/// one caller, and nobody else's; after `write_stall_timeout` all of them are gone.
#[tokio::test(start_paused = true)]
async fn stalled_exports_hold_only_the_places_of_exports() {
    let mut text = SETTINGS.to_owned();
    text += "[limits]\nexports_max = 8\nwrite_stall_timeout = \"15s\"\n";
    text += &caller("slow", "");
    text += &caller("good", "");
    text += &caller("op", "role = \"operator\"");
    let large = sandbox::Options {
        cases: 2_000,
        ..world()
    };
    let whole = Whole::with(&text, &secrets(), large);
    let ask = |caller: &str| get("/v1/cases/export", &key(caller));
    let running = async || {
        let status = whole.ask_admin(get("/admin/status", &key("op"))).await;
        status.json()["exports_running"].as_u64().unwrap()
    };
    let export = whole.ask(ask("good")).await;
    assert_eq!(export.status, 200);
    assert!(export.body.len() > 1_000_000, "{}", export.body.len());
    assert_eq!(running().await, 0, "a place comes back with the last row");

    let mut stalled = Vec::new();
    for number in 0..40 {
        let mut peer = whole.connect();
        peer.send(ask("slow")).await;
        if number < 7 {
            stalled.push(peer);
            continue;
        }
        let refused = peer.reply().await.unwrap();
        assert_eq!((refused.status, &*refused.code()), (503, "overloaded"));
        assert_eq!(refused.header("retry-after"), "5");
    }
    assert_eq!(running().await, 7);
    // Another caller's export, and everyone's other questions.
    assert_eq!(whole.ask(ask("good")).await.status, 200);
    for name in ["slow", "good"] {
        let search = post("/v2/cases/msp/search", &key(name), "{}");
        assert_eq!(whole.ask(search).await.status, 200);
    }
    // A stalled export is cut, visibly, and its place is free.
    sleep(16 * SECOND).await;
    assert_eq!(running().await, 0);
    for mut peer in stalled {
        let got = peer.rest().await;
        assert!(got.len() < export.body.len() && !got.ends_with("0\r\n\r\n"));
    }
    assert_eq!(whole.ask(ask("slow")).await.status, 200);
    // One that leaves gives its place back at once.
    let mut peer = whole.connect();
    peer.send(ask("slow")).await;
    while running().await == 0 {}
    drop(peer);
    sleep(SECOND).await;
    assert_eq!(running().await, 0);
}
