//! `walk ADDRESS CALLER_KEY PAGE_SIZE PROCESS`: pages through all cases over one connection. Prints
//! one line of JSON: pages, bytes, and the cost of a page at several depths: the median time that
//! the caller waits, and the mean processor time of the server's process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A tool.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use msp_gateway::clock::Instant;

/// Number of pages around a depth that are timed together. It is 500, because a page takes some
/// hundred microseconds, and other work of the machine takes milliseconds.
const WINDOW: usize = 500;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, key, size, process] = words.as_slice() else {
        panic!("ADDRESS CALLER_KEY PAGE_SIZE PROCESS");
    };
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut from = BufReader::with_capacity(1 << 20, stream.try_clone().unwrap());
    let mut to = stream;
    let (mut token, mut micros, mut bytes) = (None::<String>, Vec::new(), 0);
    let mut used = vec![processor_micros(process)];
    loop {
        let start = match &token {
            None => String::new(),
            Some(token) => format!(",\"start_page_key\":{{\"scroll_id\":\"{token}\"}}"),
        };
        let body = format!("{{\"max_returned_items\":{size}{start}}}");
        let request = format!(
            "POST /v2/cases/msp/search HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = Instant::now();
        to.write_all(request.as_bytes()).unwrap();
        let page = answer(&mut from);
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
        used.push(processor_micros(process));
        bytes += page.len();
        let text = std::str::from_utf8(&page).unwrap();
        token = text.rsplit_once("\"scroll_id\":\"").map(|(_, rest)| {
            let (token, _) = rest.split_once('"').unwrap();
            token.to_owned()
        });
        if token.is_none() {
            break;
        }
    }
    let pages = micros.len();
    let median = |from: usize| {
        let mut some: Vec<f64> = micros[from.min(pages)..(from + WINDOW).min(pages)].to_vec();
        some.sort_by(f64::total_cmp);
        some.get(some.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let mean = |from: usize| {
        let (from, to) = (from.min(pages), (from + WINDOW).min(pages));
        (used[to] - used[from]) / (to - from) as f64
    };
    let thousandth = 1000 - WINDOW / 2;
    let last = pages.saturating_sub(WINDOW);
    println!(
        "{{\"pages\":{pages},\"bytes\":{bytes},\"page_1_us\":{:.2},\"page_1000_us\":{:.2},\"last_us\":{:.2},\
         \"page_1_server_us\":{:.2},\"page_1000_server_us\":{:.2},\"last_server_us\":{:.2}}}",
        median(0),
        median(thousandth),
        median(last),
        mean(0),
        mean(thousandth),
        mean(last),
    );
}

/// Returns the processor time of all threads of a process, in microseconds.
fn processor_micros(process: &str) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let nanos = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    nanos.sum::<u64>() as f64 / 1e3
}

fn answer(from: &mut BufReader<TcpStream>) -> Vec<u8> {
    let (mut line, mut len) = (String::new(), 0);
    from.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    loop {
        line.clear();
        from.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body).unwrap();
    body
}
