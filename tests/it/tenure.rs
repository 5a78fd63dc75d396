//! Answers that last end with what let their caller in: its key, its rights, its time.

use msp_gateway::access::CallerKeyHash;
use msp_gateway::clock::{Duration, Instant, sleep, timeout_at};
use msp_gateway::sandbox::{FaultKind, SimFault, SimOperation};
use tokio::io::AsyncReadExt as _;

use crate::whole::{ALL, Peer, SETTINGS, Whole, caller, get, secrets, settings, world};

const KEY: &str = "x-api-key: k-1\r\n";

fn hash(key: &str) -> String {
    CallerKeyHash::of(key.as_bytes()).to_string()
}

/// The caller under test, as it is at first.
fn tenant() -> String {
    let (one, two) = (hash("k-1"), hash("k-2"));
    format!(
        "[[callers]]\nname = \"tenant\"\nkey_hash = [\"{one}\", \"{two}\"]\n\
         customers = [\"org_1\", \"org_2\"]\nbilling = true\n"
    )
}

fn text(tenant: &str) -> String {
    format!(
        "{SETTINGS}{}{}{tenant}",
        caller("all", "role = \"operator\""),
        caller("other", "")
    )
}

fn reload(whole: &Whole, text: &str) {
    whole.app.apply(&settings(text), &secrets()).unwrap();
}

/// An answer that goes on for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lasting {
    Events,
    Wait,
    Export,
    CodedExport,
}

impl Lasting {
    const ALL: [Self; 4] = [Self::Events, Self::Wait, Self::Export, Self::CodedExport];

    async fn begin(self, whole: &Whole) -> Peer {
        let mut peer = whole.connect();
        let asked = match self {
            Self::Events => get("/v1/events", KEY),
            Self::Wait => {
                let changes = "/v1/cases/changes";
                let reply = whole.ask(get(changes, KEY)).await;
                let text = String::from_utf8(reply.body).unwrap();
                let (_, token) = text.split_once("\"since\":\"").unwrap();
                let (token, _) = token.split_once('"').unwrap();
                get(&format!("{changes}?since={token}&wait=60s"), KEY)
            }
            Self::Export | Self::CodedExport => {
                // Each vendor page takes its time.
                let slow = SimFault::on(SimOperation::Continue, FaultKind::Latency { ms: 5_000 });
                whole.sandbox.fault(slow);
                let coding = match self {
                    Self::CodedExport => "accept-encoding: gzip\r\n",
                    _ => "",
                };
                let days = "start=2025-01-01&end=2026-11-20";
                get(
                    &format!("/v1/cases/export?{days}"),
                    &format!("{KEY}{coding}"),
                )
            }
        };
        peer.send(asked).await;
        assert_eq!(peer.reply_head().await.unwrap().0, 200, "{self:?}");
        peer
    }

    fn is_whole(self, came: &[u8]) -> bool {
        let whole = came.ends_with(b"0\r\n\r\n");
        // A stream of events has no end that it could miss.
        assert_eq!(whole, self == Self::Events, "{self:?}");
        whole
    }
}

/// Reads until the answer ends or `until`; whether it ended.
async fn ends_by(peer: &mut Peer, until: Instant) -> bool {
    loop {
        if peer.buffer.ends_with(b"0\r\n\r\n") {
            return true;
        }
        match timeout_at(until, peer.io.read_buf(&mut peer.buffer)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

fn gateway(tenant: &str) -> Whole {
    Whole::with(&text(tenant), &secrets(), world())
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_within_a_second_of_the_reload_that_ends_its_callers_right() {
    let (one, two) = (hash("k-1"), hash("k-2"));
    let rotated = tenant().replace(&format!("\"{one}\", "), "");
    let fewer = tenant().replace(", \"org_2\"", "");
    let unbilled = tenant().replace("billing = true", "billing = false");
    let operator = format!("{}role = \"operator\"\n", tenant());
    let renamed = tenant().replace("\"tenant\"", "\"another\"");
    for lasting in Lasting::ALL {
        for (after, why) in [
            ("", "removed"),
            (&*rotated, "rotated away"),
            (&*fewer, "sees less"),
            (&*unbilled, "without billing"),
            (&*operator, "another role"),
            (&*renamed, "another name"),
        ] {
            let whole = gateway(&tenant());
            let mut peer = lasting.begin(&whole).await;
            assert!(!ends_by(&mut peer, Instant::now() + Duration::from_secs(3)).await);
            reload(&whole, &text(after));
            let soon = Instant::now() + Duration::from_secs(1);
            assert!(ends_by(&mut peer, soon).await, "{lasting:?}, {why}");
            lasting.is_whole(&peer.buffer);
            // Nothing was told on the way out that a whole answer would have told.
            let text = String::from_utf8_lossy(&peer.buffer);
            assert!(!text.contains("\"op\":\"sync\""), "{lasting:?}, {why}");
        }
        // What does not concern this key ends nothing.
        let kept = tenant().replace(&format!(", \"{two}\""), "");
        let limited = format!("{}requests_per_minute = 600\n", tenant());
        for after in [&*tenant(), &*kept, &*limited] {
            let whole = gateway(&tenant());
            let mut peer = lasting.begin(&whole).await;
            reload(&whole, &text(after).replace(&caller("other", ""), ""));
            reload(&whole, &text(after));
            let later = Instant::now() + Duration::from_secs(3);
            assert!(!ends_by(&mut peer, later).await, "{lasting:?}: {after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_when_its_callers_time_is_over() {
    let expires = |at: &str| format!("{}expires = {at}\n", tenant());
    for lasting in Lasting::ALL {
        // The tests' clock begins at noon.
        let whole = gateway(&expires("2026-11-20T12:00:20Z"));
        let mut peer = lasting.begin(&whole).await;
        let begun = Instant::now();
        assert!(
            !ends_by(&mut peer, begun + Duration::from_secs(13)).await,
            "{lasting:?}"
        );
        assert!(
            ends_by(&mut peer, begun + Duration::from_secs(21)).await,
            "{lasting:?}"
        );
        lasting.is_whole(&peer.buffer);
        // A reload may bring the end forward, too.
        let whole = gateway(&tenant());
        let mut peer = lasting.begin(&whole).await;
        reload(&whole, &text(&expires("2026-11-20T12:00:12Z")));
        let until = Instant::now() + Duration::from_secs(14);
        assert!(ends_by(&mut peer, until).await, "{lasting:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_during_the_first_rows_counts_too() {
    let whole = gateway(&tenant());
    let slow = SimFault::on(SimOperation::Search, FaultKind::Latency { ms: 4_000 });
    whole.sandbox.fault(slow);
    let mut peer = whole.connect();
    peer.send(get("/v1/cases/changes", KEY)).await;
    sleep(Duration::from_secs(1)).await;
    reload(&whole, &text(""));
    let until = Instant::now() + Duration::from_secs(5);
    assert!(ends_by(&mut peer, until).await);
    let text = String::from_utf8_lossy(&peer.buffer);
    assert!(!text.contains("\"op\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_operators_live_view_ends_with_the_operators_key() {
    let open =
        |tenant: &str| text(tenant).replacen("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:0\"", 1);
    let operator = format!("{}role = \"operator\"\n", tenant());
    let whole = Whole::with(&open(&operator), &secrets(), world());
    let mut peer = whole.connect_admin();
    peer.send(get("/admin/live", KEY)).await;
    assert_eq!(peer.reply_head().await.unwrap().0, 200);
    let mut other = whole.connect_admin();
    other.send(get("/admin/live", ALL)).await;
    assert_eq!(other.reply_head().await.unwrap().0, 200);
    assert!(!ends_by(&mut peer, Instant::now() + Duration::from_secs(3)).await);
    reload(&whole, &open(&tenant()));
    let soon = Instant::now() + Duration::from_secs(1);
    assert!(ends_by(&mut peer, soon).await);
    assert!(!ends_by(&mut other, soon + Duration::from_secs(3)).await);
}

#[tokio::test(start_paused = true)]
async fn places_come_back_with_the_end_of_a_tenure() {
    let bounds = "[changes]\nfollowers_max = 1\n[limits]\nexports_max = 1\n";
    for lasting in Lasting::ALL {
        let with = |tenant: &str| text(tenant).replacen("[wiv]", &format!("{bounds}[wiv]"), 1);
        let whole = Whole::with(&with(&tenant()), &secrets(), world());
        let mut peer = lasting.begin(&whole).await;
        let target = match lasting {
            Lasting::Events | Lasting::Wait => "/v1/events",
            Lasting::Export | Lasting::CodedExport => "/v1/cases/export",
        };
        assert_eq!(whole.ask(get(target, ALL)).await.code(), "overloaded");
        reload(&whole, &with(""));
        assert!(ends_by(&mut peer, Instant::now() + Duration::from_secs(1)).await);
        let mut next = whole.connect();
        next.send(get(target, ALL)).await;
        assert_eq!(next.reply_head().await.unwrap().0, 200, "{lasting:?}");
    }
}
