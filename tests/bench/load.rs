//! `load ADDRESS CALLER_KEY …`: kinds of load that wrk cannot make.
//!
//! - `rate PER_SECOND SECONDS CONNECTIONS METHOD TARGET [BODY]` sends by a timetable drawn before
//!   the first request (random gaps, fixed seed), independent of the answers. A latency counts from
//!   the time in the table. So a server that pauses is charged for every request that was due
//!   meanwhile. `sent_*` counts from the moment of sending, as a closed loop would.
//! - `fill COUNT CONNECTIONS TARGET` requests COUNT targets once, with their number in place of
//!   `@`.
//! - `hold COUNT METHOD TARGET [BODY]` opens COUNT connections, sends one request on each, and
//!   holds them until its input ends.
//!
//! Each prints one line of JSON. There is one thread, which polls its sockets all the time, so that
//! no timer and no other thread delays a request.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A tool.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use msp_gateway::clock::{Duration, Instant};

/// Time limit for answers after the timetable's end, and for each answer of `fill` and `hold`.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often `fill` repeats a request if the server says that it is overloaded.
const ATTEMPTS_MAX: u32 = 200;
/// Size of the buffer for an answer. Longer answers are counted and not kept.
const BUFFER_BYTES: usize = 64 << 10;

/// One connection, with at most one request in progress.
struct Line {
    stream: TcpStream,
    /// When the request in progress was due, and when it was sent.
    asked: Option<(Instant, Instant)>,
    head: Vec<u8>,
    status: u16,
    /// Bytes of the body still to come, once the head is complete.
    left: Option<usize>,
}

impl Line {
    fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            asked: None,
            head: Vec::with_capacity(1024),
            status: 0,
            left: None,
        })
    }

    fn ask(&mut self, request: &[u8], due: Instant) {
        let mut rest = request;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(why) if why.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(why) => panic!("cannot send: {why}"),
            }
        }
        self.asked = Some((due, Instant::now()));
    }

    /// Returns (due, sent, status) of the request once its answer is complete.
    fn poll(&mut self, buffer: &mut [u8]) -> Option<(Instant, Instant, u16)> {
        let asked = self.asked?;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => panic!("the server ended a connection"),
                Ok(read) => read,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return None,
                Err(why) => panic!("cannot read: {why}"),
            };
            if self.take(&buffer[..read]) {
                self.asked = None;
                self.left = None;
                self.head.clear();
                return Some((asked.0, asked.1, self.status));
            }
        }
    }

    /// Returns whether the answer is complete with these bytes.
    fn take(&mut self, bytes: &[u8]) -> bool {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes.len()).expect("no more than asked");
            return *left == 0;
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let head = std::str::from_utf8(&self.head[..end]).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        self.status = status.and_then(|word| word.parse().ok()).expect("a status");
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().expect("a length"))
        });
        let body = self.head.len() - end - 4;
        let left = length.expect("a content-length").checked_sub(body);
        self.left = Some(left.expect("no more than asked"));
        self.left == Some(0)
    }

    /// Waits for the answer and returns its status.
    fn wait(&mut self, buffer: &mut [u8]) -> u16 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some((_, _, status)) = self.poll(buffer) {
                return status;
            }
            assert!(Instant::now() < until, "no answer in {PATIENCE:?}");
            std::thread::yield_now();
        }
    }
}

fn request(key: &str, method: &str, target: &str, body: &str) -> Vec<u8> {
    let mut text =
        format!("{method} {target} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n");
    if !body.is_empty() {
        let length = body.len();
        text += &format!("content-type: application/json\r\ncontent-length: {length}\r\n");
    }
    text += "\r\n";
    text += body;
    text.into_bytes()
}

/// Returns the time from the start at which each request is due. The gaps are random, as those of
/// independent callers are, and the same in every run.
fn timetable(per_second: f64, seconds: f64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut at = 0.0;
    std::iter::from_fn(|| {
        at -= (1.0 - random.f64()).ln() / per_second;
        (at < seconds).then(|| Duration::from_secs_f64(at))
    })
    .collect()
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}

fn rate(address: &str, request: &[u8], per_second: f64, seconds: f64, connections: usize) {
    let table = timetable(per_second, seconds);
    let mut lines: Vec<Line> = (0..connections)
        .map(|_| Line::open(address).expect("a connection"))
        .collect();
    let mut buffer = vec![0; BUFFER_BYTES];
    // One request on each connection first, so that the first latencies do not include accepting
    // it.
    for line in &mut lines {
        line.ask(request, Instant::now());
        line.wait(&mut buffer);
    }
    let mut idle: Vec<usize> = (0..connections).collect();
    let mut busy: Vec<usize> = Vec::new();
    let (mut corrected, mut uncorrected, mut lag) = (Vec::new(), Vec::new(), Vec::new());
    let (mut next, mut errors) = (0, 0);
    let begun = Instant::now();
    let give_up = begun + Duration::from_secs_f64(seconds) + PATIENCE;
    let micros = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e6;
    while next < table.len() || !busy.is_empty() {
        let mut now = Instant::now();
        while next < table.len() && begun + table[next] <= now {
            // If no connection is free, the request waits here, and its latency grows.
            let Some(at) = idle.pop() else { break };
            let due = begun + table[next];
            lines[at].ask(request, due);
            lag.push(micros(due, now));
            busy.push(at);
            next += 1;
            now = Instant::now();
        }
        let mut place = 0;
        while place < busy.len() {
            let at = busy[place];
            let Some((due, sent, status)) = lines[at].poll(&mut buffer) else {
                place += 1;
                continue;
            };
            let now = Instant::now();
            corrected.push(micros(due, now));
            uncorrected.push(micros(sent, now));
            errors += usize::from(status != 200);
            busy.swap_remove(place);
            idle.push(at);
        }
        if Instant::now() > give_up {
            break;
        }
    }
    let unanswered = table.len() - corrected.len();
    // Requests without an answer waited at least until now.
    let now = Instant::now();
    let waiting = busy.iter().filter_map(|at| lines[*at].asked);
    corrected.extend(waiting.map(|(due, _)| micros(due, now)));
    corrected.extend(table[next..].iter().map(|due| micros(begun + *due, now)));
    for list in [&mut corrected, &mut uncorrected, &mut lag] {
        list.sort_by(f64::total_cmp);
    }
    println!(
        "{{\"requests\":{},\"errors\":{},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1},\"sent_p999_us\":{:.1},\"lag_p99_us\":{:.1}}}",
        table.len(),
        errors + unanswered,
        quantile(&corrected, 0.5),
        quantile(&corrected, 0.99),
        quantile(&corrected, 0.999),
        quantile(&corrected, 1.0),
        quantile(&uncorrected, 0.999),
        quantile(&lag, 0.99),
    );
}

fn fill(address: &str, key: &str, count: usize, connections: usize, target: &str) {
    let mut lines: Vec<(Line, usize, u32)> = (0..connections.min(count))
        .map(|at| (Line::open(address).expect("a connection"), at, 0))
        .collect();
    let mut buffer = vec![0; BUFFER_BYTES];
    let ask = |line: &mut Line, number: usize| {
        let target = target.replace('@', &number.to_string());
        line.ask(&request(key, "GET", &target, ""), Instant::now());
    };
    for (line, number, _) in &mut lines {
        ask(line, *number);
    }
    let (mut next, mut done, mut again) = (lines.len(), 0, 0);
    let mut heard = Instant::now();
    while done < count {
        for (line, number, attempts) in &mut lines {
            let Some((_, _, status)) = line.poll(&mut buffer) else {
                continue;
            };
            heard = Instant::now();
            if status == 503 && *attempts < ATTEMPTS_MAX {
                *attempts += 1;
                again += 1;
                ask(line, *number);
                continue;
            }
            assert_eq!(status, 200, "at number {number}");
            done += 1;
            if next < count {
                (*number, *attempts) = (next, 0);
                ask(line, next);
                next += 1;
            }
        }
        assert!(heard.elapsed() < PATIENCE, "no answer in {PATIENCE:?}");
    }
    println!("{{\"filled\":{done},\"asked_again\":{again}}}");
}

fn hold(address: &str, request: &[u8], count: usize) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut line = Line::open(address).expect("a connection");
        line.ask(request, Instant::now());
        assert_eq!(line.wait(&mut buffer), 200);
        // 10,000 large buffers would use much memory, and this program's memory is not measured.
        line.head = Vec::new();
        held.push(line);
    }
    println!("{{\"held\":{}}}", held.len());
    let _ = std::io::stdin().read(&mut [0]);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [
            address,
            key,
            "rate",
            per_second,
            seconds,
            connections,
            method,
            target,
            body @ ..,
        ] => {
            let body = body.first().copied().unwrap_or_default();
            rate(
                address,
                &request(key, method, target, body),
                per_second.parse().expect("a rate"),
                seconds.parse().expect("seconds"),
                connections.parse().expect("a number of connections"),
            );
        }
        [address, key, "fill", count, connections, target] => fill(
            address,
            key,
            count.parse().expect("a count"),
            connections.parse().expect("a number of connections"),
            target,
        ),
        [address, key, "hold", count, method, target, body @ ..] => {
            let body = body.first().copied().unwrap_or_default();
            let request = request(key, method, target, body);
            hold(address, &request, count.parse().expect("a count"));
        }
        _ => panic!("ADDRESS CALLER_KEY rate|fill|hold …"),
    }
}
