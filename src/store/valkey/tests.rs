//! Compares the scripts with the model on a real Valkey and a real Redis, and breaks connections in
//! every way.

mod set_back;

use proptest::prelude::*;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpListener;

use super::test_server::{ServerKind, TestServer};
use super::*;
use crate::clock::{Stamp, timeout};
use crate::metrics::Metrics;
use crate::secrets::Secret;
use crate::store::bell::Ring;
use crate::store::engine::StoreReply;
use crate::store::fleet::{ClaimId, FleetReply, LEASE, LineWant};
use crate::store::histories::{OpRange, grown, histories, name, runtime};
use crate::store::scrolls::SlotOf;
use crate::store::usage::UseBatch;
use crate::store::{PurseTake, PurseWord, RecordName, SharedModel, SlotWish};

const BOTH: [ServerKind; 2] = [ServerKind::Valkey, ServerKind::Redis];
/// The longest wait on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Never reached by the histories.
const ROOMY: u64 = 1 << 40;

fn access(port: u16) -> ValkeyAccess {
    ValkeyAccess {
        addresses: vec![address(port)],
        tls: None,
        username: None,
        password: None,
    }
}

fn address(port: u16) -> ValkeyAddress {
    ValkeyAddress {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

fn options(access: ValkeyAccess) -> ValkeyOptions {
    ValkeyOptions {
        access,
        prefix: "test".to_owned(),
        timeout: PATIENCE,
        lease: LEASE,
        lives: ValkeyLives {
            answers: Duration::from_secs(3_600),
            snapshots: Duration::from_secs(3_600),
        },
        replicas_min: 1,
        when_away: WhenAway::Open,
    }
}

fn engine_over(options: ValkeyOptions, scripts: Scripts) -> Valkey {
    let metrics = Metrics::new().unwrap().store.resolve();
    Valkey::over(options, scripts, Clock::system(), metrics)
}

fn engine(access: ValkeyAccess) -> Valkey {
    engine_over(options(access), Scripts::new())
}

async fn until(engine: &Valkey, state: EngineState) {
    engine.begin();
    let mut phase = engine.shared.phase.subscribe();
    let reached = phase.wait_for(|phase| *phase == state);
    timeout(PATIENCE, reached).await.expect("in time").unwrap();
}

/// Runs a command of ours on the server, past the engine.
async fn tell(port: u16, command: &[&str]) -> Value {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    cmd.query_async(&mut connection).await.unwrap()
}

/// The rings that arrived, in their order.
#[derive(Default)]
struct Heard(Mutex<Vec<Ring>>);

impl Heard {
    fn hook(self: &Arc<Self>) -> RingHook {
        let heard = self.clone();
        Box::new(move |ring| heard.0.lock().push(ring))
    }

    /// Waits until the engine hears, and returns the rings so far.
    async fn so_far(&self, engine: &Valkey, port: u16) -> Vec<Ring> {
        let channel = engine.shared.wire.channel();
        let last = [&b"an"[..], &[0xEE; 16]].concat();
        let last = (last, Ring::Answer(name(0xEE)));
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let begun = Instant::now();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(&last.0);
        while publish.query_async::<u32>(&mut connection).await.unwrap() == 0 {
            assert!(begun.elapsed() < PATIENCE, "nobody listens");
            tokio::task::yield_now().await;
        }
        while self.0.lock().last() != Some(&last.1) {
            assert!(begun.elapsed() < PATIENCE, "nothing arrives");
            tokio::task::yield_now().await;
        }
        let rings = std::mem::take(&mut *self.0.lock());
        rings.into_iter().filter(|ring| *ring != last.1).collect()
    }
}

/// Empties a server, except for the id of its contents.
const EMPTY: &str = "redis.call('FLUSHALL'); redis.call('HSET', 'test:{f}:id', 'id', ARGV[1])";

/// One step of a random history, over few names so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Store(StoreOp),
    /// Appends to a snapshot where it really stands.
    Grow(u8, u8),
    Fleet(FleetOp),
    /// Time passes.
    Pass(u64),
}

fn fleet_op(stamp: Stamp) -> impl Strategy<Value = FleetOp> {
    let names = || (0..3_u8).prop_map(name);
    let claims = || (0..3_u8).prop_map(|n| ClaimId([n; 16]));
    let bytes = || any::<u8>().prop_map(|fill| Bytes::from(vec![fill; 40]));
    let at = (0..400_u64).prop_map(move |ms| stamp.earlier(Duration::from_millis(ms)));
    let number = 0..4_u64;
    let lease = || (1..900_u64).prop_map(Duration::from_millis);
    let want = (0..4_u32, 0..4_u32, 0..3_u8, 0..900_u64, any::<bool>()).prop_map(
        |(rows, furthest, lane, left, turn)| LineWant {
            rows,
            furthest,
            lane,
            left: Duration::from_millis(left),
            turn,
        },
    );
    prop_oneof![
        (names(), claims(), lease()).prop_map(|(line, claim, lease)| FleetOp::Claim {
            line,
            claim,
            lease,
        }),
        (names(), claims(), lease()).prop_map(|(line, claim, lease)| FleetOp::Renew {
            line,
            claim,
            lease,
        }),
        (names(), claims()).prop_map(|(line, claim)| FleetOp::Release { line, claim }),
        (names(), want).prop_map(|(line, want)| FleetOp::Want { line, want }),
        (names(), bytes()).prop_map(|(name, record)| FleetOp::Settle { name, record }),
        Just(FleetOp::Purges),
        (number.clone(), number.clone(), bytes()).prop_map(|(was, number, record)| {
            FleetOp::Purge {
                was: was << 60,
                number: number << 60,
                record,
            }
        }),
        names().prop_map(|name| FleetOp::Look { name }),
        (
            names(),
            claims(),
            1..500_u64,
            proptest::option::of(at.clone())
        )
            .prop_map(|(name, claim, lease, have)| FleetOp::Board {
                name,
                claim,
                lease: Duration::from_millis(lease),
                have,
            }),
        (names(), claims(), bytes(), any::<bool>(), at).prop_map(
            |(name, claim, record, negative, born)| FleetOp::Land {
                name,
                claim,
                record,
                negative,
                born,
            }
        ),
        (names(), claims(), bytes(), 1..900_u64).prop_map(|(name, claim, record, hold)| {
            FleetOp::Fail {
                name,
                claim,
                record,
                hold: Duration::from_millis(hold),
            }
        }),
        (names(), claims()).prop_map(|(name, claim)| FleetOp::GiveUp { name, claim }),
        (names(), claims(), 1..400_u64, 0..4_u64, 0..4_u32, 0..3_u64).prop_map(
            |(account, call, cost, burst, places, owed)| FleetOp::Take {
                account,
                call,
                wish: PurseTake {
                    cost_us: cost * 1_000 + 7,
                    burst_us: (cost * 1_000 + 7) * burst,
                    needed_us: (cost * 1_000 + 7) * burst.min(2),
                    places,
                    place_len: Duration::from_millis(cost * 9),
                    owed_us: owed * 50_001,
                },
            }
        ),
        (names(), claims(), 1..900_u64).prop_map(|(account, call, len)| FleetOp::KeepCall {
            account,
            call,
            place_len: Duration::from_millis(len),
        }),
        (names(), claims(), 0..2_u64).prop_map(|(account, call, back)| FleetOp::EndCall {
            account,
            call,
            back_us: back * 100_003,
        }),
        (names(), word()).prop_map(|(account, word)| FleetOp::Word { account, word }),
        (
            0..3_u8,
            0..4_u64,
            proptest::collection::vec((names(), 0..3_u32), 0..3),
        )
            .prop_map(|(replica, number, callers)| FleetOp::Use {
                replica: [replica; 16],
                batch: UseBatch { number, callers },
            }),
        slot_op(),
        (0..3_u8, number).prop_map(|(replica, applied)| FleetOp::Beat {
            replica: [replica; 16],
            applied: applied << 60,
        }),
    ]
}

fn slot_op() -> impl Strategy<Value = FleetOp> {
    let slots = (0..6_u8, 0..3_u8).prop_map(|(claim, payer)| SlotOf {
        claim: ClaimId([claim; 16]),
        payer: name(payer),
    });
    let wishes = (0..5_u32, 0..2_u32, any::<bool>(), 1..3_000_u64);
    let lefts = (1..3_000_u64).prop_map(Duration::from_millis);
    prop_oneof![
        4 => (slots.clone(), wishes).prop_map(|(slot, (max, kept, background, expiry))| {
            let wish = SlotWish {
                max,
                kept,
                background,
                expiry: Duration::from_millis(expiry),
            };
            FleetOp::Slot { account: name(1), slot, wish }
        }),
        1 => (slots.clone(), lefts).prop_map(|(slot, left)| FleetOp::SlotUsed {
            account: name(1),
            slot,
            left,
        }),
        1 => slots.prop_map(|slot| FleetOp::SlotEnded { account: name(1), slot }),
    ]
}

fn word() -> impl Strategy<Value = PurseWord> {
    (
        1..400_u64,
        proptest::option::of(1..2_000_u64),
        any::<[bool; 4]>(),
        proptest::option::of(0..900_000_u64),
    )
        .prop_map(
            |(cost, stop, [refuses, strike, answered, resume], most)| PurseWord {
                cost_us: cost * 1_000,
                burst_us: cost * 5_000,
                stop: stop.map(Duration::from_millis),
                refuses,
                strike,
                answered,
                credit_max_us: most,
                resume,
            },
        )
}

/// The origin of all stamps in a history. It lies after the machine's start, so that older stamps
/// exist.
fn epoch() -> Stamp {
    Clock::system().stamp().later(Duration::from_secs(3_600))
}

fn step(stamp: Stamp) -> impl Strategy<Value = Step> {
    let range = OpRange {
        names: 3,
        bytes_max: 3_000,
        stamp,
        ms_before: 49,
        fenced: true,
    };
    prop_oneof![
        10 => range.op().prop_map(Step::Store),
        4 => (0..3_u8, any::<u8>()).prop_map(|(snapshot, fill)| Step::Grow(snapshot, fill)),
        10 => fleet_op(stamp).prop_map(Step::Fleet),
        3 => (0..900_u64).prop_map(Step::Pass),
        1 => (0..70_000_u64).prop_map(Step::Pass),
    ]
}

async fn call_at(engine: &Valkey, op: &StoreOp, now: Stamp) -> Result<StoreReply, StoreFault> {
    let wire = &engine.shared.wire;
    let sent = engine.send(wire.store_command(op, now), 0, PATIENCE)?;
    wire.store_reply(op, sent.await.unwrap()?, now)
}

async fn ask_at(engine: &Valkey, op: &FleetOp, now: Stamp) -> Result<FleetReply, StoreFault> {
    let wire = &engine.shared.wire;
    let sent = engine.send(wire.fleet_command(op, now), 0, PATIENCE)?;
    wire.fleet_reply(op, sent.await.unwrap()?, now)
}

#[test]
fn scripts_reply_what_the_model_replies() {
    let runtime = runtime();
    for kind in BOTH {
        let server = TestServer::start(kind, &[]);
        let begun = epoch();
        let steps = proptest::collection::vec(step(begun), 1..80);
        let engine = engine_over(options(access(server.port)), Scripts::with_given_time());
        runtime.block_on(until(&engine, EngineState::Ok));
        let id = engine.shared.id.lock().clone().unwrap();
        let id = String::from_utf8(id.to_vec()).unwrap();
        let heard = Arc::new(Heard::default());
        engine.on_ring(heard.hook());
        runtime.block_on(heard.so_far(&engine, server.port));
        let outcome = proptest::test_runner::TestRunner::new(histories(100)).run(&steps, |steps| {
            runtime.block_on(async {
                tell(server.port, &["EVAL", EMPTY, "0", &id]).await;
                let model = SharedModel::new(ROOMY, Clock::system());
                let expected = Arc::new(Heard::default());
                model.on_ring(expected.hook());
                let mut now = begun;
                for step in steps {
                    let step = match step {
                        Step::Grow(snapshot, fill) => {
                            Step::Store(grown(|op| model.apply(op), snapshot, fill, now))
                        }
                        step => step,
                    };
                    match step {
                        Step::Pass(ms) => now = now.later(Duration::from_millis(ms)),
                        Step::Store(op) => {
                            let reply = call_at(&engine, &op, now).await;
                            assert_eq!(reply, model.apply_at(&op, now), "{kind:?} {op:?}");
                        }
                        Step::Fleet(op) => {
                            let reply = ask_at(&engine, &op, now).await;
                            assert_eq!(
                                reply,
                                Ok(model.agree_at(op.clone(), now)),
                                "{kind:?} {op:?}"
                            );
                        }
                        Step::Grow(..) => {}
                    }
                }
                let rings = heard.so_far(&engine, server.port).await;
                assert_eq!(rings, *expected.0.lock(), "{kind:?}");
            });
            Ok(())
        });
        outcome.unwrap();
    }
}

#[tokio::test]
async fn no_reply_reaches_an_operation_that_did_not_ask_for_it() {
    let server = TestServer::start(ServerKind::Valkey, &[]);
    let engine = engine(access(server.port));
    until(&engine, EngineState::Ok).await;
    let note = |n: u32| StoreOp::Note {
        name: RecordName(u128::from(n).to_le_bytes()),
        record: Bytes::copy_from_slice(&n.to_le_bytes()),
        safe: false,
    };
    for n in 0..200 {
        assert_eq!(engine.call(note(n)).await, Ok(StoreReply::Kept));
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut dropped = 0;
    let rounds = histories(100).cases * 20;
    let mut waiting = Vec::new();
    for _ in 0..rounds {
        let n = random.u32(..200);
        let name = RecordName(u128::from(n).to_le_bytes());
        let mut call = engine.call(StoreOp::Recall { name });
        match random.u8(..3) {
            // The future is dropped before its first poll, or while it waits.
            0 => dropped += 1,
            1 => {
                dropped += 1;
                assert!((&mut call).now_or_never().is_none());
            }
            _ => waiting.push((n, call)),
        }
        if waiting.len() == 20 {
            for (n, call) in waiting.drain(..) {
                let value = Bytes::copy_from_slice(&n.to_le_bytes());
                assert_eq!(call.await, Ok(StoreReply::Value(Some(value))));
            }
        }
    }
    assert!(dropped > rounds / 2);
    drop(waiting);
    // Dropped operations are answered and no longer counted.
    let name = RecordName([0; 16]);
    engine.call(StoreOp::Recall { name }).await.unwrap();
    assert_eq!(*engine.shared.pending.jobs.lock(), 0);
    assert_eq!(engine.shared.pending.bytes.load(Ordering::Relaxed), 0);
}

/// Returns the reason why the engine cannot be used.
async fn refusal(access: ValkeyAccess) -> String {
    let engine = engine(access);
    match connect(&engine.shared.access, &engine.shared.wire).await {
        Ok(_) => "it can".to_owned(),
        Err(why) => why,
    }
}

/// Returns the reason why the bell is not heard.
async fn bell_of(access: ValkeyAccess) -> String {
    let engine = engine(access);
    let address = engine.shared.access.addresses[0].clone();
    match listen::subscribe(&engine.shared, &address).await {
        Ok(_) => "it is heard".to_owned(),
        Err(why) => why,
    }
}

#[tokio::test]
async fn each_thing_that_is_wrong_with_a_server_is_one_line() {
    let secret = |text: &str| Some(Secret::parse(text).unwrap());
    for kind in BOTH {
        let server = TestServer::start(kind, &["--requirepass", "good-password"]);
        let port = server.port;
        let with = |username: Option<&str>, password: &str| ValkeyAccess {
            username: username.map(str::to_owned),
            password: secret(password),
            ..access(port)
        };
        assert_eq!(refusal(with(None, "good-password")).await, "it can");
        let bad = refusal(with(None, "bad-password")).await;
        let expected = "rejected the user name or the password of store.valkey";
        assert_eq!(bad, format!("127.0.0.1:{port} {expected}"), "{kind:?}");
        assert_eq!(refusal(with(Some("nobody"), "good-password")).await, bad);
        let none = refusal(access(port)).await;
        assert!(
            none.contains("requires a password: set store"),
            "{kind:?} {none}"
        );

        let server = TestServer::start(kind, &[]);
        let port = server.port;
        let user = |rule: &str| {
            let rule =
                format!("ACL SETUSER gateway on >good-password resetkeys resetchannels {rule}");
            rule.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let with = || ValkeyAccess {
            username: Some("gateway".to_owned()),
            password: secret("good-password"),
            ..access(port)
        };
        // Redis does not name the command.
        let narrow = [
            ("~test:* ~test1:* -@all +info", "script"),
            ("~test:* ~test1:* +@all -hset", ""),
            ("~test:* +@all", ""),
            ("~test1:* +@all", ""),
        ];
        for (rule, what) in narrow {
            let rule = user(rule);
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            tell(port, &rule).await;
            let told = refusal(with()).await;
            assert!(
                told.contains("denies the user of store.valkey") && told.contains(what),
                "{kind:?} {rule:?}: {told}"
            );
        }
        let minimal = format!("~test:* ~test1:* &test:n -@all {ACL_COMMANDS}");
        let rule = user(&minimal);
        let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
        tell(port, &rule).await;
        assert_eq!(refusal(with()).await, "it can", "{kind:?}");
        assert_eq!(bell_of(with()).await, "it is heard", "{kind:?}");
        // Without the bell the store works, and one line says what is missing.
        for missing in ["-publish", "-subscribe", "resetchannels"] {
            let rule = user(&format!("{minimal} {missing}"));
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            tell(port, &rule).await;
            assert_eq!(refusal(with()).await, "it can", "{kind:?}");
            let told = bell_of(with()).await;
            let words = "denies the user of store.valkey a command, key or channel";
            assert!(told.contains(words), "{kind:?} {missing}: {told}");
            let engine = engine(with());
            until(&engine, EngineState::Ok).await;
            let purge = FleetOp::Purge {
                was: 0,
                number: 0,
                record: Bytes::new(),
            };
            assert_eq!(engine.ask(purge).await, Ok(FleetReply::Kept), "{missing}");
        }
        // The file that operators are given has the same rights.
        let given = include_str!("../../../deploy/valkey.acl").trim_end();
        let rights = format!("~msp:* ~msp1:* &msp:n -@all {ACL_COMMANDS}");
        assert!(given.ends_with(&rights), "deploy/valkey.acl needs {rights}");

        let master = port.to_string();
        let replica = TestServer::start(kind, &["--replicaof", "127.0.0.1", &master]);
        let told = refusal(access(replica.port)).await;
        assert!(told.ends_with("is a replica: store.valkey.addresses must name the primary"));
        // The primary is found behind it.
        let both = ValkeyAccess {
            addresses: vec![address(replica.port), address(port)],
            ..access(port)
        };
        assert_eq!(refusal(both).await, "it can");

        let stranger = TestServer::start(kind, &[]);
        tell(stranger.port, &["LPUSH", "test:{f}:id", "x"]).await;
        let told = refusal(access(stranger.port)).await;
        assert!(
            told.contains("keys of another program under store.valkey.prefix"),
            "{told}"
        );
    }
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nowhere.local_addr().unwrap().port();
    drop(nowhere);
    let told = refusal(access(port)).await;
    assert!(
        told.starts_with(&format!("127.0.0.1:{port} cannot be reached: ")),
        "{told}"
    );
}

#[tokio::test]
async fn memory_policies_that_lose_purges_are_told_of() {
    let server = TestServer::start(ServerKind::Valkey, &[]);
    let engine = engine(access(server.port));
    for (bytes, policy, told) in [
        ("0", "noeviction", Some("it has no maxmemory")),
        (
            "100mb",
            "noeviction",
            Some("noeviction, so a full server keeps nothing new"),
        ),
        (
            "100mb",
            "allkeys-lru",
            Some("allkeys-lru, which may evict records that must stay"),
        ),
        ("100mb", "volatile-ttl", None),
    ] {
        tell(server.port, &["CONFIG", "SET", "maxmemory", bytes]).await;
        tell(server.port, &["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let live = connect(&engine.shared.access, &engine.shared.wire)
            .await
            .unwrap();
        let advice = live.advice.clone().unwrap_or_default();
        assert_eq!(told.is_some(), !advice.is_empty(), "{policy}: {advice}");
        assert!(
            advice.contains(told.unwrap_or_default()),
            "{policy}: {advice}"
        );
    }
}

/// Presents a certificate of another name.
async fn tls_of_another_name() -> (u16, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["valkey.internal".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // The client leaves.
            let _ = acceptor.accept(socket).await;
        }
    });
    (port, Arc::new(client))
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let (port, tls) = tls_of_another_name().await;
    let access = ValkeyAccess {
        tls: Some(tls),
        ..access(port)
    };
    let told = refusal(access).await;
    assert!(told.contains("could not set up TLS: "), "{told}");
    assert!(told.contains("not valid for"), "{told}");
}

#[tokio::test]
async fn a_full_server_keeps_nothing_more_and_coordinates_on() {
    let server = TestServer::start(ServerKind::Valkey, &[]);
    let engine = engine(access(server.port));
    until(&engine, EngineState::Ok).await;
    let begin = |snapshot| StoreOp::Begin {
        line: name(1),
        snapshot,
        head: Bytes::from_static(b"head"),
        was: None,
        fence: None,
    };
    assert_eq!(engine.call(begin(name(2))).await, Ok(StoreReply::Kept));
    tell(server.port, &["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(engine.call(begin(name(3))).await, Err(StoreFault::Full));
    let land = FleetOp::Land {
        name: name(4),
        claim: ClaimId([0; 16]),
        record: Bytes::from_static(b"record"),
        negative: false,
        born: Clock::system().stamp(),
    };
    assert_eq!(engine.ask(land).await, Err(StoreFault::Full));
    let purge = FleetOp::Purge {
        was: 0,
        number: 1,
        record: Bytes::from_static(b"purges"),
    };
    assert_eq!(engine.ask(purge).await, Ok(FleetReply::Kept));
    let board = FleetOp::Board {
        name: name(4),
        claim: ClaimId([0; 16]),
        lease: Duration::from_secs(1),
        have: None,
    };
    assert_eq!(engine.ask(board).await, Ok(FleetReply::Lead));
    let head = engine.call(StoreOp::Head { snapshot: name(2) }).await;
    assert!(matches!(head, Ok(StoreReply::Head(Some(_)))));
    // A gateway that starts finds the server full, and reads.
    let second = super::tests::engine(access(server.port));
    until(&second, EngineState::Ok).await;
}

#[tokio::test]
async fn a_server_that_dies_or_hangs_is_away_and_then_back() {
    let mut server = TestServer::start(ServerKind::Valkey, &[]);
    let fast = ValkeyOptions {
        timeout: Duration::from_millis(50),
        ..options(access(server.port))
    };
    let engine = engine_over(fast, Scripts::new());
    until(&engine, EngineState::Ok).await;
    let recall = || engine.call(StoreOp::Recall { name: name(1) });
    let emptied = || engine.shared.metrics.resets.get();
    assert_eq!(recall().await, Ok(StoreReply::Value(None)));

    // While the server is stopped, three operations wait and later ones do not.
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    for _ in 0..LATE_MAX {
        assert_eq!(recall().await, Err(StoreFault::Away));
    }
    until(&engine, EngineState::Away).await;
    assert_eq!(recall().now_or_never(), Some(Err(StoreFault::Away)));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    until(&engine, EngineState::Ok).await;
    assert_eq!(
        (recall().await, emptied()),
        (Ok(StoreReply::Value(None)), 0)
    );

    // The server dies and comes back empty.
    server.kill();
    until(&engine, EngineState::Away).await;
    assert_eq!(recall().now_or_never(), Some(Err(StoreFault::Away)));
    server.restart(&[]);
    until(&engine, EngineState::Ok).await;
    assert_eq!(
        (recall().await, emptied()),
        (Ok(StoreReply::Value(None)), 1)
    );

    // The server is emptied while the gateway is connected.
    tell(server.port, &["FLUSHALL"]).await;
    until(&engine, EngineState::Away).await;
    until(&engine, EngineState::Ok).await;
    assert_eq!(emptied(), 2);

    // The server loses its scripts, so they are sent again.
    tell(server.port, &["SCRIPT", "FLUSH"]).await;
    let touch = engine.call(StoreOp::Touch { snapshot: name(9) });
    assert_eq!(touch.await, Ok(StoreReply::Gone));
}

#[tokio::test]
async fn a_lost_subscription_is_made_again_and_costs_the_store_nothing() {
    for kind in BOTH {
        let server = TestServer::start(kind, &[]);
        let engine = engine(access(server.port));
        let heard = Arc::new(Heard::default());
        engine.on_ring(heard.hook());
        until(&engine, EngineState::Ok).await;
        assert_eq!(heard.so_far(&engine, server.port).await, []);
        let mut number = 0;
        for _ in 0..2 {
            let killed = tell(server.port, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            assert_eq!(killed, Value::Int(1), "{kind:?}");
            let mut purge = async || {
                let (was, record) = (number, Bytes::new());
                number += 1;
                let purge = FleetOp::Purge {
                    was,
                    number,
                    record,
                };
                assert_eq!(engine.ask(purge).await, Ok(FleetReply::Kept), "{kind:?}");
            };
            // It is in force, whether it is heard or not.
            purge().await;
            heard.so_far(&engine, server.port).await;
            purge().await;
            let rings = heard.so_far(&engine, server.port).await;
            assert_eq!(rings, [Ring::Purges], "{kind:?}");
        }
        assert_eq!(
            engine.resets(),
            1,
            "the store's connection is the first one"
        );
    }
}

#[test]
fn a_reason_is_logged_at_once_and_another_one_after_a_while() {
    let mut logged = LoggedReason::default();
    let begun = Instant::now();
    let at = |ms| begun + Duration::from_millis(ms);
    assert!(logged.is_news("reset", at(0)));
    assert!(!logged.is_news("broken pipe", at(300)));
    assert!(!logged.is_news("reset", at(20_000)));
    assert!(logged.is_news("broken pipe", at(20_001)));
    assert!(!logged.is_news("refused", at(20_002)));
}
