//! `changes [ROWS] [CHANGED]`: measures the cost of following a large search. A list of 100,000
//! cases, of which 100 change at the vendor, is refreshed. Then a follower requests the changes,
//! and another caller requests the first page. Prints one line of JSON: bytes of the full list and
//! of the difference, the times of both answers, and the memory of a state and of the ids that
//! states share.
//!
//! The gateway, the vendor and the caller are in one process, over loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A tool.

use std::net::SocketAddr;
use std::sync::Arc;

use msp_gateway::access::CallerKeyHash;
use msp_gateway::app::App;
use msp_gateway::clock::{Clock, Duration, Instant, sleep};
use msp_gateway::config::{self, Secrets};
use msp_gateway::domain::Vendor;
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};
use msp_gateway::server::{Inherited, Listeners};
use msp_gateway::telemetry::LogSink;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CALLER_KEY: &str = "bench-0123456789abcdef0123456789abcdef0123456789";
/// Freshness. Reading a list of this size takes less time.
const FRESH: Duration = Duration::from_secs(20);
/// Number of differences and first pages that are timed.
const TIMED: usize = 9;

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let rows = numbers.next().unwrap_or(100_000);
    let changed = numbers.next().unwrap_or(100);
    let clock = Clock::system();
    let options = Options {
        cases: rows,
        wiv_requests_per_minute: None,
        nable_requests_per_minute: None,
        ..Options::default()
    };
    let sandbox = Sandbox::new(options, clock.clone());
    let metrics = Metrics::new().unwrap();
    let address = gateway(&sandbox, &clock, &metrics).await;

    let full = ask(address, "GET", "/v1/cases/changes", "").await;
    let mut token = token_of(&full.body);
    let (mut differences, mut pages, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let mut states = vec![state_bytes(&metrics)];
    for _ in 0..TIMED {
        sandbox.alter(changed, 0, 0);
        sleep(FRESH).await;
        // Refreshed as a whole, by another caller.
        while ask(address, "GET", "/v1/cases/export", "").await.age >= FRESH.as_secs() {}
        // The time of a first page of this snapshot, of a size that was not requested before.
        let size = 200 + pages.len();
        let first = format!("{{\"max_returned_items\":{size}}}");
        pages.push(
            ask(address, "POST", "/v2/cases/msp/search", &first)
                .await
                .took,
        );
        let target = format!("/v1/cases/changes?since={token}");
        let told = ask(address, "GET", &target, "").await;
        lines.push((told.body.len(), told.body.lines().count() - 1));
        token = token_of(&told.body);
        differences.push(told.took);
        states.push(state_bytes(&metrics));
    }
    differences.sort_unstable();
    pages.sort_unstable();
    let ms = |times: &[Duration]| times[times.len() / 2].as_secs_f64() * 1e3;
    let bytes = lines.iter().map(|(bytes, _)| *bytes).max().unwrap();
    let of_row = |bytes: u64| bytes as f64 / rows as f64;
    let share = bytes as f64 / full.body.len() as f64 * 100.0;
    let (difference, page) = (ms(&differences), ms(&pages));
    let limit = 1.2 * page + 50.0;
    // The first state added all ids. Each later state added its rows and the changed ids.
    let each = (
        states[1] - states[0],
        states[states.len() - 1] - states[states.len() - 2],
    );
    println!(
        "{{\"rows\":{rows},\"changed\":{changed},\"lines\":{},\"full_bytes\":{},\"difference_bytes\":{bytes},\
         \"share_percent\":{share:.3},\"first_page_ms\":{page:.2},\"difference_ms\":{difference:.2},\
         \"difference_ms_max\":{limit:.2},\"state_bytes_a_row\":{:.1},\"last_state_bytes_a_row\":{:.1},\
         \"shared_ids_bytes_a_row\":{:.1}}}",
        lines[0].1,
        full.body.len(),
        of_row(each.0),
        of_row(each.1),
        of_row(states[0]) - of_row(each.0),
    );
}

async fn gateway(sandbox: &Arc<Sandbox>, clock: &Clock, metrics: &Arc<Metrics>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vendors = listener.local_addr().unwrap();
    tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
    let hash = CallerKeyHash::of(CALLER_KEY.as_bytes());
    let fresh = FRESH.as_secs();
    let text = format!(
        r#"
[listen]
public = "127.0.0.1:0"
admin = "127.0.0.1:0"
[[callers]]
name = "bench"
key_hash = "{hash}"
customers = ["*"]
[wiv]
base_url = "http://{vendors}"
api_key_env = "UNUSED"
requests_per_minute = 1000000
concurrency = 16
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
account_id = "{NABLE_ACCOUNT}"
api_key_env = "UNUSED"
[cases.open]
fresh = "{fresh}s"
stale = "1h"
on_error = "1h"
[pagination]
vendor_page_size = 500
"#
    );
    let secrets = Secrets::of_keys(&[
        (Vendor::Wiv, "wiv", WIV_KEY),
        (Vendor::Nable, NABLE_ACCOUNT, NABLE_KEY),
    ]);
    let secrets = secrets.unwrap();
    let settings = config::from_text("bench", &text, []).expect("good settings");
    let (clock, metrics) = (clock.clone(), metrics.clone());
    let app = App::build(&settings, &secrets, LogSink::off(), clock, metrics).unwrap();
    let listeners = Listeners::bind(&settings.server, Inherited::default());
    let listeners = listeners.await.unwrap();
    let address = listeners.public_address();
    tokio::spawn(async move { app.run(listeners).await });
    address
}

/// Bytes of all states and their ids.
fn state_bytes(metrics: &Metrics) -> u64 {
    let text = metrics.render().unwrap();
    let name = "msp_gateway_cache_bytes{store=\"changes\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.parse().unwrap())
}

struct Told {
    body: String,
    age: u64,
    took: Duration,
}

/// One question on a connection of its own, until the last byte.
async fn ask(address: SocketAddr, method: &str, target: &str, body: &str) -> Told {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let json = match body {
        "" => String::new(),
        body => format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        ),
    };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: bench\r\nx-api-key: {CALLER_KEY}\r\n\
         connection: close\r\n{json}\r\n{body}"
    );
    let begun = Instant::now();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let took = begun.elapsed();
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let age = head.split_once("\r\nage: ").map_or("0", |(_, rest)| rest);
    let age = age.split("\r\n").next().unwrap();
    Told {
        age: age.parse().unwrap(),
        body: match head.contains("transfer-encoding: chunked") {
            true => unchunked(body),
            false => body.to_owned(),
        },
        took,
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    panic!("cut");
}

fn token_of(body: &str) -> String {
    let last = body.lines().last().unwrap();
    let (_, token) = last.split_once("\"op\":\"sync\",\"since\":\"").unwrap();
    token.split_once('"').unwrap().0.to_owned()
}
