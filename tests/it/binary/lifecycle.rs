//! Leaving in order, and new settings while it runs.

use std::sync::Arc;

use msp_gateway::clock::{Duration, Instant};
use msp_gateway::sandbox::WIV_KEY;
use rustix::process::Signal;

use crate::process::{Answer, Ended, PATIENCE, World, everyone, key, raw, write_key};

const SLOW: &str = "{\"operation\":\"customers\",\"kind\":\"latency\",\"ms\":1500}";
const STUCK: &str = "{\"operation\":\"customers\",\"kind\":\"latency\",\"ms\":3600000}";
const RELOADED: &str = "\"settings reloaded\"";
const REFUSED: &str = "the new settings were rejected; the old ones stay in force";

/// Starts a request that the vendor takes its time for, and waits until it has arrived there.
async fn in_flight(world: &Arc<World>, fault: &str) -> tokio::task::JoinHandle<Option<u16>> {
    world.vendors.tell("faults", fault).await;
    let task = tokio::spawn({
        let url = format!("{}/msp/customers", world.public);
        let bearer = format!("Bearer {}", key("alice"));
        let web = world.web.clone();
        async move { web.status("GET", &url, &[("authorization", &bearer)]).await }
    });
    world
        .until_vendors(|counts| counts["vendors"]["wiv"]["in_flight"] == 1)
        .await;
    task
}

fn ended(world: Arc<World>) -> Ended {
    let world = Arc::into_inner(world).unwrap();
    world.gateway.ended()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_requests_end_while_readiness_fails() {
    let delay = [("MSP_GATEWAY__LIMITS__DRAIN_DELAY", "200ms")];
    let world = Arc::new(World::start(600, &everyone("alice"), &delay));
    world
        .until_admin("/readyz", |answer| answer.status == 200)
        .await;
    let slow = in_flight(&world, SLOW).await;
    world.gateway.signal(Signal::TERM);
    let unready = world
        .until_admin("/readyz", |answer| answer.status == 503)
        .await;
    assert_eq!(unready.json()["ready"], false);
    let alive = world.web.get(&format!("{}/healthz", world.admin)).await;
    assert_eq!(alive.status, 200);
    assert!(!slow.is_finished(), "the request was to be in flight still");
    assert_eq!(slow.await.unwrap(), Some(200));
    let ended = ended(world);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Its line is written before the program is gone.
    assert!(
        ended.stdout.contains("\"route\":\"customers\""),
        "{}",
        ended.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_samples_end_whole_when_it_leaves() {
    let delay = [("MSP_GATEWAY__LIMITS__DRAIN_DELAY", "0s")];
    let world = Arc::new(World::start(600, &everyone("alice"), &delay));
    let admin = world.admin.clone();
    let watching = tokio::task::spawn_blocking(move || {
        raw(
            &admin,
            "GET /admin/live HTTP/1.1\r\nhost: localhost\r\n\r\n",
        )
    });
    // A sample a second: the third one is there long after the stream has begun.
    let samples = |answer: &Answer| answer.json()["samples"].as_array().map_or(0, Vec::len);
    world
        .until_admin("/admin/history?window=10m", |answer| samples(answer) >= 3)
        .await;
    let begun = Instant::now();
    world.gateway.signal(Signal::TERM);
    let heard = String::from_utf8(watching.await.unwrap()).unwrap();
    assert!(heard.contains("event: sample\ndata: {\"time\":"), "{heard}");
    assert!(heard.ends_with("\r\n0\r\n\r\n"), "cut: {heard}");
    let ended = ended(world);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let world = Arc::new(World::start(
        600,
        &everyone("alice"),
        &[
            ("MSP_GATEWAY__LIMITS__DRAIN_GRACE", "10m"),
            ("MSP_GATEWAY__LIMITS__REQUEST_TIMEOUT", "10m"),
            ("MSP_GATEWAY__WIV__TIMEOUT", "5m"),
        ],
    ));
    let stuck = in_flight(&world, STUCK).await;
    world.gateway.signal(Signal::TERM);
    world
        .until_admin("/readyz", |answer| answer.status == 503)
        .await;
    assert!(!stuck.is_finished());
    let told = Instant::now();
    world.gateway.signal(Signal::INT);
    assert_eq!(stuck.await.unwrap(), None, "cut");
    let ended = ended(world);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        told.elapsed() < Duration::from_secs(10),
        "{:?}",
        told.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_reloaded_whole_or_not_at_all() {
    let (alice, bob) = (everyone("alice"), everyone("bob"));
    let world = World::start(600, &alice, &[]);
    let customers = "/msp/customers?fields=id";
    assert_eq!(world.get("bob", customers).await.status, 401);
    let applied = "config_reloads_total{outcome=\"applied\"}";
    let refused = "config_reloads_total{outcome=\"refused\"}";
    assert_eq!(
        (world.metric(applied).await, world.metric(refused).await),
        (0.0, 0.0)
    );

    // A caller is added.
    world.configure(&format!("{alice}{bob}"));
    world.gateway.signal(Signal::HUP);
    world.gateway.until_stderr(RELOADED, 1);
    assert_eq!(world.get("bob", customers).await.status, 200);
    assert_eq!(world.get("alice", customers).await.status, 200);

    // A bad file changes nothing, and is counted.
    let bad = ["[wiv", "colour = \"red\"\n", "[[callers]]\nname = \"x\"\n"];
    for (at, bad) in bad.iter().enumerate() {
        std::fs::write(world.config(), bad).unwrap();
        world.gateway.signal(Signal::HUP);
        // The file may be looked at by itself before the signal is: then it is refused twice.
        world.gateway.until_stderr(REFUSED, at + 1);
    }
    assert!(world.metric(refused).await >= 3.0);
    assert_eq!(world.metric(applied).await, 1.0);
    assert_eq!(world.get("bob", customers).await.status, 200);

    // A caller is removed: from then on its key is unknown, whatever is in the cache.
    world.configure(&bob);
    world.gateway.signal(Signal::HUP);
    world.gateway.until_stderr(RELOADED, 2);
    let gone = world.get("alice", customers).await;
    assert_eq!(gone.outcome(), (401, "authentication_required".to_owned()));
    assert_eq!(world.get("bob", customers).await.status, 200);
    assert_eq!(world.metric(applied).await, 2.0);
    world.hold_to_openapi("bob").await;
    world.hold().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_file_reaches_the_vendor_without_a_restart() {
    const OLD: &str = "canary-of-the-old-wiv-key";
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("wiv.key");
    write_key(&path, OLD);
    let world = World::start(
        600,
        &everyone("alice"),
        &[
            ("MSP_GATEWAY__WIV__API_KEY_ENV", ""),
            ("MSP_GATEWAY__WIV__API_KEY_FILE", path.to_str().unwrap()),
        ],
    );
    world.secrets.lock().unwrap().push(OLD.to_owned());
    let target = "/msp/customers?fields=id";
    let answer = world.get("alice", target).await;
    assert_eq!(
        answer.outcome(),
        (502, "vendor_credential_rejected".to_owned())
    );
    let seen = world.vendors.ask("requests").await.json();
    let keys = |seen: &serde_json::Value| -> Vec<String> {
        let rows = seen.as_array().unwrap().iter();
        rows.map(|row| row["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(keys(&seen).iter().all(|key| key == "wrong"), "{seen}");

    // No signal: the file is looked at by itself.
    write_key(&path, WIV_KEY);
    world.gateway.until_stderr(RELOADED, 1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = world.get("alice", target).await;
        if answer.status == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "{}", answer.text());
    }
    let seen = world.vendors.ask("requests").await.json();
    assert_eq!(keys(&seen).last().unwrap(), "correct");
    world.hold_to_openapi("alice").await;
    world.hold().await;
}
