//! Two gateways over a real server: shared answers and pages, nothing secret in it or on its
//! channel, and its death.

use futures_util::StreamExt as _;
use msp_gateway::clock::{Clock, Duration, Instant};
use msp_gateway::domain::{FieldSet, ProblemCode};
use msp_gateway::metrics::Metrics;
use msp_gateway::reads::Purge;
use msp_gateway::sandbox;
use msp_gateway::store::fleet::LEASE;
use msp_gateway::store::{
    PurgeReach, Ring, Store, StoreBar, Valkey, ValkeyAccess, ValkeyAddress, ValkeyLives,
    ValkeyOptions, WhenAway,
};

use crate::fleet::{Replica, customers, replica_of, sealed, vendor_calls};
use crate::fleet_budget;
use crate::kit::{NOW, Setup, continued, first};
use crate::test_server::{ServerKind, TestServer};
use crate::whole::Events;

fn over_server(port: u16, clock: Clock) -> Replica {
    over_server_with(port, clock, Setup::default(), WhenAway::Open)
}

fn over_server_with(port: u16, clock: Clock, setup: Setup, when_away: WhenAway) -> Replica {
    let store = store_at(port, &clock, LEASE, when_away);
    replica_of(store, clock, setup)
}

/// A gateway's store at a server on loopback.
pub fn store_at(port: u16, clock: &Clock, lease: Duration, when_away: WhenAway) -> Store {
    let options = ValkeyOptions {
        access: ValkeyAccess {
            addresses: vec![ValkeyAddress::parse(&format!("127.0.0.1:{port}")).unwrap()],
            tls: None,
            username: None,
            password: None,
        },
        prefix: "msp".to_owned(),
        // Nobody is late on a machine however busy.
        timeout: Duration::from_secs(60),
        lease,
        lives: ValkeyLives {
            answers: Duration::from_secs(3_600),
            snapshots: Duration::from_secs(3_600),
        },
        replicas_min: 1,
        when_away,
    };
    let metrics = Metrics::new().unwrap();
    let engine = Valkey::new(options, clock.clone(), metrics.store.resolve());
    Store::over(engine, sealed(), clock.clone(), &metrics)
}

/// Everything in a server, as one text of bytes: names of keys, fields, values.
async fn dump(port: u16) -> Vec<u8> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut all = Vec::new();
    for key in keys {
        let parts: Vec<Vec<u8>> = redis::cmd("HGETALL")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        all.extend_from_slice(&key);
        all.push(b'\n');
        all.extend(parts.concat());
    }
    all
}

#[tokio::test]
async fn a_real_server_is_shared_and_holds_nothing_that_is_secret() {
    for kind in [ServerKind::Valkey, ServerKind::Redis] {
        let server = TestServer::start(kind, &[]);
        let clock = Clock::anchored(NOW.parse().unwrap());
        let [one, two] = [0, 1].map(|_| over_server(server.port, clock.clone()));
        one.store.warm().await;
        two.store.warm().await;
        let list = customers(&one.rig).await;
        let asker = one.rig.everyone();
        let mut page = one.rig.page(&asker, None, &first(500, "")).await.unwrap();
        let head = page.token.clone().unwrap();
        while let Some(token) = page.token {
            page = one
                .rig
                .page(&asker, None, &continued(&token, None))
                .await
                .unwrap();
        }
        // An answer is kept by a task of its own.
        let holds = |all: &[u8], needle: &[u8]| memchr::memmem::find(all, needle).is_some();
        while !holds(&dump(server.port).await, b"}:a\n") {
            tokio::task::yield_now().await;
        }
        let (asker, body) = (two.rig.everyone(), continued(&head, None));
        let shared = two.rig.page(&asker, None, &body).await.unwrap();
        assert_eq!(shared.rows.len(), 500, "{kind:?}");
        assert_eq!(vendor_calls(&two.rig), 0, "{kind:?}");

        let all = dump(server.port).await;
        let found = |needle: &[u8]| holds(&all, needle);
        assert!(
            found(b"msp:{f}:notes") && found(b"}:s\n"),
            "{kind:?}: keys of ours"
        );
        let ids: Vec<String> = one
            .rig
            .sandbox
            .customers()
            .iter()
            .map(|c| c.id.to_string())
            .collect();
        let body = String::from_utf8(list.body.to_vec()).unwrap();
        let names = body.split('"').filter(|text| text.len() > 5);
        let secrets = [
            sandbox::WIV_KEY,
            sandbox::NABLE_KEY,
            "secret",
            "scroll",
            "include_con",
        ];
        let tokens = [head.as_str()];
        for needle in ids
            .iter()
            .map(String::as_str)
            .chain(names)
            .chain(secrets)
            .chain(tokens)
        {
            assert!(!found(needle.as_bytes()), "{kind:?}: {needle}");
        }
    }
}

#[tokio::test]
async fn a_server_that_dies_costs_nobody_an_error_and_is_in_use_again_when_it_is_back() {
    let mut server = TestServer::start(ServerKind::Valkey, &[]);
    let clock = Clock::anchored(NOW.parse().unwrap());
    let [one, two] = [0, 1].map(|_| over_server(server.port, clock.clone()));
    for replica in [&one, &two] {
        replica.store.warm().await;
    }
    customers(&one.rig).await;
    server.kill();
    // Neither of them has what the other fetches now.
    customers(&one.rig).await;
    customers(&two.rig).await;
    assert_eq!((vendor_calls(&one.rig), vendor_calls(&two.rig)), (1, 1));
    server.restart(&[]);
    // Purges are agreed on as soon as both have found it.
    let both = Some(PurgeReach { applied: 2, of: 2 });
    while !one.rig.reads.keep_purges().await || one.rig.reads.purge_reach().await != both {
        tokio::task::yield_now().await;
    }
    one.rig.reads.purge(&Purge::All, false);
    assert!(one.rig.reads.keep_purges().await);
    assert_eq!(one.rig.reads.purge_reach().await, both);
    customers(&two.rig).await;
    assert_eq!(vendor_calls(&two.rig), 2);
}

#[tokio::test]
async fn a_server_that_dies_stops_vendor_calls_where_the_store_must_grant_them() {
    let mut server = TestServer::start(ServerKind::Valkey, &[]);
    let clock = Clock::anchored(NOW.parse().unwrap());
    let [one, two] = [0, 1].map(|_| {
        let setup = Setup::default();
        over_server_with(server.port, clock.clone(), setup, WhenAway::StaleOnly)
    });
    for replica in [&one, &two] {
        replica.store.warm().await;
    }
    customers(&one.rig).await;
    server.kill();
    // Memory answers. What is not in memory would need a vendor call.
    customers(&one.rig).await;
    let asker = two.rig.everyone();
    let refused = two.rig.reads.customers.list(&asker, FieldSet::ALL).await;
    assert_eq!(refused.unwrap_err().code(), ProblemCode::StoreUnavailable);
    let refused = one
        .rig
        .page(&one.rig.everyone(), None, &first(25, ""))
        .await;
    assert_eq!(
        refused.err().map(|error| error.code()),
        Some(ProblemCode::StoreUnavailable)
    );
    assert_eq!((vendor_calls(&one.rig), vendor_calls(&two.rig)), (1, 0));
    server.restart(&[]);
    while two.store.bar() != StoreBar::Nothing {
        tokio::task::yield_now().await;
    }
    // The failure before answers for some tenths of a second.
    let list = &two.rig.reads.customers;
    while list.list(&asker, FieldSet::ALL).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!((vendor_calls(&one.rig), vendor_calls(&two.rig)), (1, 1));
}

#[tokio::test]
async fn three_gateways_over_a_real_server_make_one_call_for_an_answer() {
    for kind in [ServerKind::Valkey, ServerKind::Redis] {
        let server = TestServer::start(kind, &[]);
        let clock = Clock::anchored(NOW.parse().unwrap());
        let replicas = [0, 1, 2].map(|_| {
            let mut setup = Setup::default();
            // Long enough that all callers are there before the vendor answers.
            setup.world.latency = Duration::from_millis(500);
            over_server_with(server.port, clock.clone(), setup, WhenAway::Open)
        });
        for replica in &replicas {
            replica.store.warm().await;
        }
        let callers = (0..90).map(|n| customers(&replicas[n % 3].rig));
        let answers = futures_util::future::join_all(callers).await;
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));
        let calls = replicas
            .each_ref()
            .map(|replica| vendor_calls(&replica.rig));
        assert_eq!(calls.iter().sum::<u64>(), 1, "{kind:?} {calls:?}");
    }
}

#[tokio::test]
async fn gateways_over_a_real_server_pay_from_one_purse() {
    let server = TestServer::start(ServerKind::Valkey, &[]);
    let clock = Clock::anchored(NOW.parse().unwrap());
    let replicas = [0, 1, 2].map(|_| {
        let (clock, setup) = (clock.clone(), fleet_budget::setup());
        over_server_with(server.port, clock, setup, WhenAway::Open)
    });
    for replica in &replicas {
        replica.store.warm().await;
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(6);
    let callers = (0..15).map(|n| fleet_budget::ask(&replicas[n % 3].rig, n, 15, until));
    let answered: u32 = futures_util::future::join_all(callers).await.iter().sum();
    let (calls, _) = fleet_budget::counted(&replicas);
    // However long it took: no more than the rate gave in that time, with what the server had
    // counted before.
    let most = began.elapsed().as_secs_f64() / 60.0 * f64::from(fleet_budget::RATE)
        + f64::from(fleet_budget::BURST);
    assert!(calls as f64 <= most, "{calls} calls, {most} at most");
    assert!(answered > 0);
}

#[tokio::test]
async fn a_server_that_was_emptied_has_the_snapshots_again_within_ten_seconds() {
    for kind in [ServerKind::Valkey, ServerKind::Redis] {
        let server = TestServer::start(kind, &[]);
        let clock = Clock::anchored(NOW.parse().unwrap());
        let [one, two] = [0, 1].map(|_| over_server(server.port, clock.clone()));
        for replica in [&one, &two] {
            replica.store.warm().await;
        }
        let page = async |replica: &Replica, body: &str| {
            let asker = replica.rig.everyone();
            replica.rig.page(&asker, None, body).await.unwrap()
        };
        let head = page(&one, &first(500, "")).await;
        let mut next = head.token.clone();
        while let Some(token) = next {
            next = page(&one, &continued(&token, None)).await.token;
        }
        let keys = async || dump(server.port).await;
        let has_rows = |all: &[u8]| memchr::memmem::find(all, b"}:s\n").is_some();
        let before = keys().await;
        assert!(has_rows(&before), "{kind:?}");
        empty(server.port).await;
        assert!(!has_rows(&keys().await), "{kind:?}");
        let began = Instant::now();
        // The whole snapshot is one key, as large as before.
        while keys().await.len() < before.len() * 9 / 10 {
            tokio::task::yield_now().await;
            let took = began.elapsed();
            assert!(took < Duration::from_secs(10), "{kind:?} {took:?}");
        }
        let mut next = head.token;
        let mut rows = head.rows;
        while let Some(token) = next {
            let page = page(&two, &continued(&token, None)).await;
            (rows, next) = ([rows, page.rows].concat(), page.token);
        }
        assert_eq!(rows, one.rig.sandbox.expected_rows(None, None), "{kind:?}");
        assert_eq!(vendor_calls(&two.rig), 0, "{kind:?}");
    }
}

async fn empty(port: u16) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL")
        .exec_async(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_channel_of_a_real_server_has_names_and_nothing_else() {
    for kind in [ServerKind::Valkey, ServerKind::Redis] {
        let server = TestServer::start(kind, &[]);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).unwrap();
        let mut everything = client.get_async_pubsub().await.unwrap();
        // Whatever the channel, so that there is no other.
        everything.psubscribe("*").await.unwrap();
        let clock = Clock::anchored(NOW.parse().unwrap());
        let [one, two] = [0, 1].map(|_| over_server(server.port, clock.clone()));
        for replica in [&one, &two] {
            replica.store.warm().await;
        }
        customers(&one.rig).await;
        customers(&two.rig).await;
        let asker = one.rig.everyone();
        let mut page = one.rig.page(&asker, None, &first(500, "")).await.unwrap();
        while let Some(token) = page.token {
            let body = continued(&token, None);
            page = two
                .rig
                .page(&two.rig.everyone(), None, &body)
                .await
                .unwrap();
        }
        one.rig.reads.purge(&Purge::All, false);
        assert!(one.rig.reads.keep_purges().await);
        // The purge is the last that rings.
        let mut kinds = Vec::new();
        let mut messages = everything.on_message();
        while !kinds.contains(b"pg") {
            let message = messages.next().await.unwrap();
            assert_eq!(message.get_channel_name(), "msp:n", "{kind:?}");
            let text = message.get_payload_bytes();
            if text == b"??" {
                continue;
            }
            assert!(Ring::of_bytes(text).is_some(), "{kind:?} {text:?}");
            kinds.push(*text.first_chunk::<2>().unwrap());
        }
        for kind in [b"ln", b"hd", b"an"] {
            assert!(kinds.contains(kind), "{kinds:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_lost_is_one_line_and_a_bell_that_is_lost_another() {
    let away = "the store is away";
    let unheard = "the store works, but its bell is not heard";
    for kind in [ServerKind::Valkey, ServerKind::Redis] {
        let mut server = TestServer::start(kind, &[]);
        let clock = Clock::anchored(NOW.parse().unwrap());
        let (events, _guard) = Events::listen();
        let gateway = over_server(server.port, clock.clone());
        gateway.store.warm().await;
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut channels = async |rule: &str| {
            let mut acl = redis::cmd("ACL");
            acl.arg(&["SETUSER", "default", rule]);
            acl.exec_async(&mut connection).await.unwrap();
        };
        // The server ends the subscription, and refuses the next one.
        channels("resetchannels").await;
        while !events.text().contains(unheard) {
            tokio::task::yield_now().await;
        }
        let text = events.text();
        assert!(text.contains("denies the user of store.valkey"), "{text}");
        assert!(gateway.rig.reads.keep_purges().await, "{kind:?}");
        channels("allchannels").await;
        while !events
            .text()
            .contains("the bell of the store is heard again")
        {
            tokio::task::yield_now().await;
        }
        assert!(!events.text().contains(away), "{kind:?} {}", events.text());
        events.clear();
        server.kill();
        while !events.text().contains(away) {
            tokio::task::yield_now().await;
        }
        let text = events.text();
        assert!(!text.contains(unheard), "{kind:?} {text}");
    }
}
