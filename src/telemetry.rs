//! Logs: events through `tracing`, and one access log line a request, written by a thread of its own.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, Uri};
use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};

use crate::clock::{Clock, Duration, Instant};
use crate::domain::{CacheOutcome, Route};
use crate::metrics::Metrics;

/// Lines that may wait for the writer; about 3 MiB. More are dropped and counted: a log that cannot
/// keep up must not slow answers down.
const LINES_WAITING_MAX: usize = 16 * 1024;

/// How long the writer lets lines gather, so that a busy gateway wakes it a hundred times a second
/// and not once a request.
const GATHER: Duration = Duration::from_millis(10);

/// Longest path in a line, in characters.
const PATH_CHARS_MAX: usize = 256;
/// Longest caller's name in a line, in characters.
const CALLER_CHARS_MAX: usize = 128;
/// Longest method in a line, in characters.
const METHOD_CHARS_MAX: usize = 24;

/// One answered request.
#[derive(Clone, Debug)]
pub struct AccessEntry {
    /// Hex.
    pub request_id: [u8; 32],
    /// Who was connected.
    pub peer: Option<SocketAddr>,
    /// The caller's configured name; `None` before authentication.
    pub caller: Option<Arc<str>>,
    /// Which route.
    pub route: Route,
    /// As sent.
    pub method: Method,
    /// Path as sent, or as [`logged_path`] has cut it. A query may hold anything, so it is not here.
    /// Never the request's own text: that would keep the connection's whole read buffer from being
    /// used again for as long as the line waits.
    pub path: Cow<'static, str>,
    /// As answered; 499 when the caller left first.
    pub status: u16,
    /// The problem's code.
    pub code: Option<&'static str>,
    /// How the cache answered.
    pub cache: Option<CacheOutcome>,
    /// Until the answer's head.
    pub took: Duration,
    /// Vendor requests made for it.
    pub vendor_calls: u32,
    /// Bytes of the answer's body that were sent.
    pub sent_bytes: u64,
    /// Whether the body was sent to its end.
    pub whole: bool,
}

/// The path of a request as an [`AccessEntry`] holds it.
pub fn logged_path(target: &Uri) -> String {
    let path = target.path();
    let cut = path.char_indices().nth(PATH_CHARS_MAX);
    cut.and_then(|(end, _)| path.get(..end))
        .unwrap_or(path)
        .into()
}

impl AccessEntry {
    /// Appends the line, with its line-end.
    pub fn write_line(&self, at: Timestamp, out: &mut String) {
        self.write_timed(&format!("{at:.3}"), out);
    }

    // Piece by piece and never through `fmt`: on one core a line takes its time from the answers, and
    // formatting took a tenth of a hit.
    fn write_timed(&self, at: &str, out: &mut String) {
        out.push_str("{\"time\":\"");
        out.push_str(at);
        out.push_str("\",\"log\":\"access\",\"request_id\":\"");
        out.push_str(std::str::from_utf8(&self.request_id).unwrap_or(""));
        if let Some(peer) = self.peer {
            out.push_str("\",\"peer\":\"");
            push_address(out, peer.ip());
        }
        out.push('"');
        let caller = self.caller.as_deref().unwrap_or("anonymous");
        text_member(out, "caller", caller, CALLER_CHARS_MAX);
        out.push_str(",\"route\":\"");
        out.push_str(self.route.as_str());
        out.push('"');
        text_member(out, "method", self.method.as_str(), METHOD_CHARS_MAX);
        match &self.path {
            // One of our own.
            Cow::Borrowed(fixed) => {
                out.push_str(",\"path\":\"");
                out.push_str(fixed);
                out.push('"');
            }
            Cow::Owned(sent) => text_member(out, "path", sent, PATH_CHARS_MAX),
        }
        out.push_str(",\"status\":");
        push_number(out, self.status);
        if let Some(code) = self.code {
            out.push_str(",\"code\":\"");
            out.push_str(code);
            out.push('"');
        }
        out.push_str(",\"cache\":\"");
        out.push_str(self.cache.map_or("none", CacheOutcome::as_str));
        out.push_str("\",\"duration_ms\":");
        let seconds_us = self.took.as_secs().saturating_mul(1_000_000);
        let micros = seconds_us.saturating_add(u64::from(self.took.subsec_nanos() + 500) / 1000);
        push_number(out, micros / 1000);
        out.push('.');
        // Always four digits, of which the 1 is left out.
        let mut digits = itoa::Buffer::new();
        let thousandths = digits.format(1000 + micros % 1000).get(1..);
        out.push_str(thousandths.unwrap_or("000"));
        out.push_str(",\"vendor_calls\":");
        push_number(out, self.vendor_calls);
        out.push_str(",\"bytes\":");
        push_number(out, self.sent_bytes);
        out.push_str(match self.whole {
            true => ",\"whole\":true}\n",
            false => ",\"whole\":false}\n",
        });
    }
}

fn push_number(out: &mut String, number: impl itoa::Integer) {
    out.push_str(itoa::Buffer::new().format(number));
}

fn push_address(out: &mut String, address: IpAddr) {
    use fmt::Write as _;
    match address {
        IpAddr::V4(four) => {
            let [first, rest @ ..] = four.octets();
            push_number(out, first);
            for octet in rest {
                out.push('.');
                push_number(out, octet);
            }
        }
        // Writing to a String cannot fail.
        IpAddr::V6(_) => drop(write!(out, "{address}")),
    }
}

/// Appends `,"name":"text"`, cut to `chars_max`, with everything escaped that could end the line or
/// drive a terminal.
fn text_member(out: &mut String, name: &str, text: &str, chars_max: usize) {
    use fmt::Write as _;
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":\"");
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    if text.len() <= chars_max && text.bytes().all(plain) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for c in text.chars().take(chars_max) {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}') =>
            {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Where access log lines go. Cheap to clone.
#[derive(Clone)]
pub struct LogSink(Arc<Sink>);

enum Sink {
    Off,
    Kept {
        lines: Mutex<Vec<String>>,
        clock: Clock,
    },
    Queue(Queue),
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    metrics: Arc<Metrics>,
    clock: Clock,
}

#[derive(Default)]
struct Waiting {
    entries: Vec<(Instant, AccessEntry)>,
    /// The writer waits without an end, so it must be woken.
    asleep: bool,
    /// The writer has lines in hand.
    writing: bool,
    closed: bool,
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Sink::Off => "LogSink::Off",
            Sink::Kept { .. } => "LogSink::Kept",
            Sink::Queue(_) => "LogSink::Queue",
        })
    }
}

impl LogSink {
    /// Writes nothing.
    pub fn off() -> Self {
        Self(Arc::new(Sink::Off))
    }

    /// Keeps every line in memory: for tests, which read them with [`Self::lines`].
    pub fn kept(clock: Clock) -> Self {
        Self(Arc::new(Sink::Kept {
            lines: Mutex::default(),
            clock,
        }))
    }

    /// Hands lines to a thread that writes them to `to`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn thread(
        mut to: Box<dyn Write + Send>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let sink = Arc::new(Sink::Queue(Queue {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            metrics,
            clock,
        }));
        let theirs = sink.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                if let Sink::Queue(queue) = &*theirs {
                    queue.write_all(&mut *to);
                }
            })?;
        Ok(Self(sink))
    }

    /// Takes an entry of a request that ended then, or just now. Never waits.
    pub fn write(&self, ended: Option<Instant>, entry: impl FnOnce() -> AccessEntry) {
        match &*self.0 {
            Sink::Off => {}
            Sink::Kept { lines, clock } => {
                let mut line = String::new();
                entry().write_line(clock.wall(), &mut line);
                lines.lock().push(line);
            }
            Sink::Queue(queue) => queue.push(ended, entry()),
        }
    }

    /// The lines kept so far.
    pub fn lines(&self) -> Vec<String> {
        match &*self.0 {
            Sink::Kept { lines, .. } => lines.lock().clone(),
            Sink::Off | Sink::Queue(_) => Vec::new(),
        }
    }

    /// Waits until everything taken so far is written, at most `limit`, and ends the thread. For the
    /// very end of the process; blocks.
    pub fn close(&self, limit: Duration) {
        let Sink::Queue(queue) = &*self.0 else {
            return;
        };
        let mut waiting = queue.waiting.lock();
        waiting.closed = true;
        queue.changed.notify_all();
        queue
            .changed
            .wait_while_for(&mut waiting, |w| w.writing || !w.entries.is_empty(), limit);
    }
}

impl Queue {
    fn push(&self, ended: Option<Instant>, entry: AccessEntry) {
        let at = ended.unwrap_or_else(|| self.clock.now());
        let mut waiting = self.waiting.lock();
        if waiting.closed || waiting.entries.len() >= LINES_WAITING_MAX {
            drop(waiting);
            self.metrics.log_lines_dropped.inc();
            return;
        }
        waiting.entries.push((at, entry));
        let wake = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.changed.notify_all();
        }
    }

    fn write_all(&self, to: &mut dyn Write) {
        let mut batch = Vec::new();
        let mut text = String::new();
        let (mut written_ms, mut time) = (i64::MIN, String::new());
        loop {
            let mut waiting = self.waiting.lock();
            waiting.writing = false;
            if waiting.entries.is_empty() {
                self.changed.notify_all();
                if waiting.closed {
                    return;
                }
                waiting.asleep = true;
                self.changed
                    .wait_while(&mut waiting, |w| w.entries.is_empty() && !w.closed);
                waiting.asleep = false;
            }
            // Also after a sleep: on a busy core the first line wakes the writer before the second
            // comes, and it would be woken again for each.
            if !waiting.closed {
                self.changed
                    .wait_while_for(&mut waiting, |w| !w.closed, GATHER);
            }
            waiting.writing = true;
            std::mem::swap(&mut waiting.entries, &mut batch);
            drop(waiting);
            let (wall_us, now) = (self.clock.wall().as_microsecond(), self.clock.now());
            for (at, entry) in batch.drain(..) {
                let ago = now.saturating_duration_since(at).as_micros();
                let us = wall_us.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX));
                // Many lines share a millisecond, and a time is the dearest part of a line.
                let ms = us.div_euclid(1000);
                if ms != written_ms {
                    written_ms = ms;
                    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MIN);
                    time = format!("{at:.3}");
                }
                entry.write_timed(&time, &mut text);
            }
            // A log that cannot be written has nowhere to say so; the lines are lost.
            if !text.is_empty() && to.write_all(text.as_bytes()).is_err() {
                self.metrics.log_lines_dropped.inc();
            }
            let _ = to.flush();
            text.clear();
        }
    }
}

/// Sends `tracing` events to stderr, one JSON object a line. `filter` as in `RUST_LOG`, for example
/// `info` or `msp_gateway=debug`.
///
/// # Errors
/// If the filter cannot be read, or events already go somewhere.
pub fn events_to_stderr(filter: &str) -> Result<(), String> {
    use tracing_subscriber::prelude::*;
    // What the h2 crate tells when asked for details may hold targets and headers as peers sent them.
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{filter},h2=error"))
        .map_err(|why| format!("log filter: {why}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|why| why.to_string())
}

/// Has every panic told as one event that names the place, and never the payload: that may hold
/// anything a caller or a vendor sent.
pub fn panics_to_events() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(
            place = place.as_deref().unwrap_or("unknown"),
            thread = thread.name().unwrap_or("unnamed"),
            "panic"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> AccessEntry {
        AccessEntry {
            request_id: [b'a'; 32],
            peer: Some("127.0.0.1:1".parse().unwrap()),
            caller: None,
            route: Route::Other,
            method: Method::from_bytes(b"X-ODD").unwrap(),
            path: Cow::Owned(logged_path(&path.parse().unwrap())),
            status: 404,
            code: Some("not_found"),
            cache: None,
            took: Duration::from_micros(1500),
            vendor_calls: 0,
            sent_bytes: 7,
            whole: true,
        }
    }

    #[test]
    fn a_line_is_one_json_object_without_the_query() {
        let mut out = String::new();
        entry("/a%0d%0a\"?secret=1").write_line(Timestamp::UNIX_EPOCH, &mut out);
        assert_eq!(out.matches('\n').count(), 1);
        assert!(!out.contains("secret"));
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["path"], "/a%0d%0a\"");
        assert_eq!(line["duration_ms"], 1.5);
        assert_eq!(line["caller"], "anonymous");
        assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn numbers_and_addresses_stand_as_everywhere() {
        for took_ns in [0, 1, 499, 500, 999_499, 999_500, 1_000_000, 30_000_000_499] {
            for peer in ["192.0.2.255:1", "0.10.0.1:1", "[2001:db8::1]:1"] {
                let mut entry = entry("/");
                entry.took = Duration::from_nanos(took_ns);
                entry.peer = Some(peer.parse().unwrap());
                entry.sent_bytes = u64::MAX;
                let mut out = String::new();
                entry.write_line(Timestamp::UNIX_EPOCH, &mut out);
                let line: serde_json::Value = serde_json::from_str(&out).unwrap();
                let micros = took_ns.div_euclid(1000) + u64::from(took_ns % 1000 >= 500);
                let duration = format!("\"duration_ms\":{}.{:03},", micros / 1000, micros % 1000);
                assert!(out.contains(&duration), "{out}");
                assert_eq!(line["peer"], entry.peer.unwrap().ip().to_string());
                assert_eq!(line["bytes"], u64::MAX);
            }
        }
    }

    #[test]
    fn hostile_texts_are_escaped_and_cut() {
        let mut out = String::from("{\"a\":1");
        let hostile = "\r\n\u{1b}[31m\u{2028}\u{7f}\u{85}\\\"".to_owned() + &"x".repeat(70_000);
        text_member(&mut out, "t", &hostile, 100);
        out.push('}');
        assert!(out.len() < 300);
        assert!(out.chars().all(|c| !c.is_control() && c != '\u{2028}'));
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(line["t"].as_str().unwrap().starts_with("\r\n\u{1b}[31m"));
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_thread_writes_every_line_before_it_closes() {
        let metrics = Metrics::new().unwrap();
        let to = Shared::default();
        let sink = LogSink::thread(Box::new(to.clone()), metrics.clone(), Clock::system()).unwrap();
        for _ in 0..1000 {
            sink.write(None, || entry("/x"));
        }
        sink.close(Duration::from_secs(10));
        let text = String::from_utf8(to.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1000);
        sink.write(None, || entry("/late"));
        assert_eq!(metrics.log_lines_dropped.get(), 1);
    }

    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_writer_drops_lines_and_never_blocks() {
        let metrics = Metrics::new().unwrap();
        let (release, held) = std::sync::mpsc::channel();
        let sink =
            LogSink::thread(Box::new(Stuck(held)), metrics.clone(), Clock::system()).unwrap();
        let total = 3 * LINES_WAITING_MAX as u64;
        for _ in 0..total {
            sink.write(None, || entry("/x"));
        }
        assert!(metrics.log_lines_dropped.get() >= total - 2 * LINES_WAITING_MAX as u64);
        drop(release);
        sink.close(Duration::from_secs(10));
    }
}
