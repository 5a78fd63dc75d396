//! `hit gateway|bare get_4k|post_12k|post_119k COUNT`: asks one question COUNT times over one
//! connection, everything in one thread, for counting instructions. The difference between two
//! counts is the cost of a hit, the caller's own few reads and writes included on both sides.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A tool.

mod shelf;

use std::collections::HashMap;
use std::net::SocketAddr;

use msp_gateway::access::CallerKeyHash;
use msp_gateway::app::App;
use msp_gateway::clock::Clock;
use msp_gateway::config::{self, Secrets, VendorSecrets};
use msp_gateway::domain::AccountId;
use msp_gateway::metrics::Metrics;
use msp_gateway::sandbox::{NABLE_ACCOUNT, NABLE_KEY, Options, Sandbox, WIV_KEY};
use msp_gateway::secrets::{Secret, VendorKey, VendorKeys};
use msp_gateway::server::{Inherited, Listeners};
use msp_gateway::telemetry::LogSink;
use shelf::Shelf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CALLER_KEY: &str = "bench-0123456789abcdef0123456789abcdef0123456789";
/// Readings before anything is counted: a page is kept from its second on.
const WARM_UP: usize = 200;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [who, what, count] = words.as_slice() else {
        panic!("gateway|bare get_4k|post_12k|post_119k COUNT");
    };
    let count: usize = count.parse().expect("a number");
    let (method, target, body) = match what.as_str() {
        "get_4k" => ("GET", "/msp/customers?fields=id,name", String::new()),
        "post_12k" => ("POST", "/v2/cases/msp/search", search(25)),
        "post_119k" => ("POST", "/v2/cases/msp/search", search(250)),
        _ => panic!("{what}"),
    };
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {CALLER_KEY}\r\n"
    );
    if !body.is_empty() {
        let len = body.len();
        request +=
            &format!("content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}");
    } else {
        request += "\r\n";
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let address = match who.as_str() {
            "gateway" => gateway().await,
            "bare" => bare(what).await,
            _ => panic!("{who}"),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        ask(stream, request.as_bytes(), WARM_UP + count).await;
    });
}

fn search(size: usize) -> String {
    format!(
        "{{\"max_returned_items\":{size},\"date_range\":{{\"start\":\"2026-01-01\",\"end\":\"2026-06-30\"}}}}"
    )
}

/// The whole product over simulated vendors.
async fn gateway() -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).await.unwrap();
    let vendors = listener.local_addr().unwrap();
    let clock = Clock::system();
    let sandbox = Sandbox::new(Options::default(), clock.clone());
    tokio::spawn(sandbox.serve(listener, std::future::pending()));
    let hash = CallerKeyHash::of(CALLER_KEY.as_bytes());
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
[nable]
base_url = "http://{vendors}/ws/rest/V1/PSA_API"
account_id = "{NABLE_ACCOUNT}"
api_key_env = "UNUSED"
"#
    );
    let vendor = |key: &str, account: &str| {
        Some(VendorSecrets {
            keys: VendorKeys {
                primary: VendorKey::new(Secret::parse(key).unwrap()),
                fallback: None,
            },
            account: AccountId::parse(account).unwrap(),
        })
    };
    let secrets = Secrets {
        wiv: vendor(WIV_KEY, "wiv"),
        nable: vendor(NABLE_KEY, NABLE_ACCOUNT),
        token_key: None,
        token_key_previous: None,
        certificates: msp_gateway::config::Certificates::default(),
        warnings: Vec::new(),
    };
    let settings = config::from_text("bench", &text, []).expect("good settings");
    let metrics = Metrics::new().unwrap();
    let app = App::build(&settings, &secrets, LogSink::off(), clock, metrics).unwrap();
    let listeners = Listeners::bind(&settings.server, Inherited::default())
        .await
        .unwrap();
    let address = listeners.public_address();
    tokio::spawn(async move { app.run(listeners).await });
    address
}

/// The reference: as many bytes, with nothing around them.
async fn bare(what: &str) -> SocketAddr {
    let bytes = match what {
        "get_4k" => 4 << 10,
        "post_12k" => 12 << 10,
        _ => 119 << 10,
    };
    let paths = ["/msp/customers", "/v2/cases/msp/search"];
    let bodies: HashMap<_, _> = paths
        .map(|path| (path.to_owned(), vec![b'x'; bytes].into()))
        .into();
    let shelf = Shelf::new(bodies, true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(shelf.clone().serve(stream));
        }
    });
    address
}

async fn ask(mut stream: TcpStream, request: &[u8], count: usize) {
    let mut buffer = vec![0; 256 << 10];
    for _ in 0..count {
        stream.write_all(request).await.unwrap();
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

/// Bytes of an answer, once its head is complete.
fn whole_length(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (_, rest) = head.split_once("content-length: ").expect("a length");
    let (length, _) = rest.split_once('\r')?;
    Some(end + length.parse::<usize>().unwrap())
}
