//! `hit gateway|stored|bare get_4k|post_12k|post_119k|cold COUNT [ROUNDS]`: sends one request COUNT
//! times over one connection, with everything in one thread, so that instructions can be counted.
//! The difference between two counts is the cost of a hit. It includes the caller's few reads and
//! writes, on both sides. ROUNDS of an empty loop make each hit dearer, to see whether the guard
//! notices. `stored` is the gateway with a store in a directory of its own.
//!
//! `cold` sends a new search each time, to a vendor that answers each with one page of 25 rows. The
//! vendor is in the same thread too. `bare` calls it directly, so the difference is the gateway's
//! cost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A tool.

mod shelf;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use msp_gateway::access::CallerKeyHash;
use msp_gateway::app::App;
use msp_gateway::clock::Clock;
use msp_gateway::config::{self, Secrets};
use msp_gateway::domain::Vendor;
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};
use msp_gateway::server::{Inherited, Listeners};
use msp_gateway::telemetry::{Format, LogSink, Output};
use shelf::Shelf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CALLER_KEY: &str = "bench-0123456789abcdef0123456789abcdef0123456789";
/// Number of requests before anything is counted. A page is cached from its second request on.
const WARM_UP: usize = 200;
/// Number of cases of the simulated vendor: more than one page of 250 in half a year.
const CASES: usize = 3_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ([who, what, count] | [who, what, count, _]) = words.as_slice() else {
        panic!("gateway|stored|bare get_4k|post_12k|post_119k|cold COUNT [ROUNDS]");
    };
    let count: usize = count.parse().expect("a number");
    let rounds: u64 = words.get(3).map_or(0, |text| text.parse().expect("rounds"));
    let (method, target, body) = match what.as_str() {
        "get_4k" => ("GET", "/msp/customers?fields=id,name", String::new()),
        "post_12k" => ("POST", "/v2/cases/msp/search", search(25)),
        "post_119k" => ("POST", "/v2/cases/msp/search", search(250)),
        "cold" => ("POST", "/v2/cases/msp/search", new_search(0)),
        _ => panic!("{what}"),
    };
    let request = |body: &str| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {CALLER_KEY}\r\n"
        );
        match body.len() {
            0 => head + "\r\n",
            len => format!(
                "{head}content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
            ),
        }
    };
    let asked = request(&body);
    let asked = |number| match what.as_str() {
        "cold" => Cow::Owned(request(&new_search(number))),
        _ => Cow::Borrowed(&asked),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = (who == "stored").then(|| directory.path());
        let address = match who.as_str() {
            "gateway" | "stored" if what == "cold" => gateway(Some(bare(what).await), store).await,
            "gateway" | "stored" => gateway(None, store).await,
            "bare" => bare(what).await,
            _ => panic!("{who}"),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        ask(stream, asked, WARM_UP + count, rounds).await;
    });
}

fn search(size: usize) -> String {
    format!(
        "{{\"max_returned_items\":{size},\"date_range\":{{\"start\":\"2026-01-01\",\"end\":\"2026-06-30\"}}}}"
    )
}

/// Returns a search for each number. All have the same length.
fn new_search(number: usize) -> String {
    format!("{{\"max_returned_items\":25,\"n\":{}}}", 1_000_000 + number)
}

/// Starts the whole product over simulated vendors, or over one that gives every search the same
/// answer.
async fn gateway(wiv: Option<SocketAddr>, store: Option<&Path>) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).await.unwrap();
    let vendors = listener.local_addr().unwrap();
    let clock = Clock::system();
    // A small world, because making a large one costs more than everything that is counted.
    let options = Options {
        cases: CASES,
        ..Options::default()
    };
    let sandbox = Sandbox::new(options, clock.clone());
    tokio::spawn(sandbox.serve(listener, std::future::pending()));
    let hash = CallerKeyHash::of(CALLER_KEY.as_bytes());
    let wiv = wiv.unwrap_or(vendors);
    let store = match store {
        Some(directory) => format!("directory = \"{}\"", directory.display()),
        None => "kind = \"none\"".to_owned(),
    };
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
base_url = "http://{wiv}"
api_key_env = "UNUSED"
requests_per_minute = 1000000
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
account_id = "{NABLE_ACCOUNT}"
api_key_env = "UNUSED"
[store]
{store}
"#
    );
    let secrets = Secrets::of_keys(&[
        (Vendor::Wiv, "wiv", WIV_KEY),
        (Vendor::Nable, NABLE_ACCOUNT, NABLE_KEY),
    ]);
    let secrets = secrets.unwrap();
    let settings = config::from_text("bench", &text, []).expect("good settings");
    let metrics = Metrics::new().unwrap();
    // The log lines are made but written nowhere, because a hit costs its line too.
    let sink = Box::new(std::io::sink());
    let (counted, json) = (metrics.clone(), Format::Json);
    let log = LogSink::to(Output::start("log", sink, json, false, counted, clock.clone()).unwrap());
    let app = App::build(&settings, &secrets, log, clock, metrics).unwrap();
    let listeners = Listeners::bind(&settings.server, Inherited::default())
        .await
        .unwrap();
    let address = listeners.public_address();
    let admin = listeners.admin_address();
    tokio::spawn(async move { app.run(listeners).await });
    // Opening the store is not part of a hit.
    while ready(admin).await.contains("\"store\":\"opening") {
        tokio::task::yield_now().await;
    }
    address
}

/// Returns the answer of `/readyz`. It contains `opening` while the store is not open yet.
async fn ready(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

/// Starts the reference: a server that sends as many bytes and does nothing else.
async fn bare(what: &str) -> SocketAddr {
    let bytes = match what {
        "get_4k" => 4 << 10,
        "post_12k" => 12 << 10,
        _ => 119 << 10,
    };
    let paths = ["/msp/customers", "/v2/cases/msp/search"];
    let cold = what == "cold";
    let body = match cold {
        true => one_page().into_bytes(),
        false => vec![b'x'; bytes],
    };
    let bodies: HashMap<_, _> = paths
        .map(|path| (path.to_owned(), body.clone().into()))
        .into();
    let shelf = Shelf::new(bodies, !cold);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(shelf.clone().serve(stream));
        }
    });
    address
}

/// Returns the answer of the vendor in `cold`.
fn one_page() -> String {
    let row = |n: usize| {
        let customer = n % 9;
        let text = "x".repeat(400);
        format!(
            "{{\"case_id\":\"c{n:04}\",\"customer_id\":\"org_{customer}\",\"case_type\":\"finding\",\"text\":\"{text}\"}}"
        )
    };
    let rows: Vec<_> = (0..25).map(row).collect();
    format!("{{\"data\":[{}],\"next_page_key\":null}}", rows.join(","))
}

async fn ask<'a>(
    mut stream: TcpStream,
    asked: impl Fn(usize) -> Cow<'a, String>,
    count: usize,
    rounds: u64,
) {
    let mut buffer = vec![0; 256 << 10];
    for number in 0..count {
        if number == WARM_UP {
            count_from_here();
        }
        for round in 0..rounds {
            std::hint::black_box(round);
        }
        let request = asked(number);
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut filled, mut expected) = (0, usize::MAX);
        while filled < expected {
            let read = stream.read(&mut buffer[filled..]).await.unwrap();
            assert!(read > 0, "the connection ended");
            filled += read;
            if expected == usize::MAX {
                expected = whole_length(&buffer[..filled]).unwrap_or(usize::MAX);
            }
        }
    }
}

/// The guard lets valgrind begin to count when this is called. The instructions before differ
/// between runs by more than the cost of a hit, because the process gathers entropy until its
/// jitter suffices.
#[inline(never)]
fn count_from_here() {
    std::hint::black_box(WARM_UP);
}

/// Bytes of an answer, once its head is complete.
fn whole_length(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (_, rest) = head.split_once("content-length: ").expect("a length");
    let (length, _) = rest.split_once('\r')?;
    Some(end + length.parse::<usize>().unwrap())
}
