//! One writer for each output of the program: standard output and standard error.
//!
//! ```text
//! requests, events ──▶ queue (lines, bytes) ──▶ one thread ──▶ file descriptor
//!                        │ full, or the output cannot be written
//!                        └──▶ the line is dropped and counted
//! ```
//!
//! A line is queued, and no caller waits for it. If the reader of the output stops reading or
//! leaves, or a disk is full, then requests, the admin listener and the end of the process go on.
//! Every line is either written as a whole or counted in `log_lines_dropped_total`.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};

use super::access::AccessEntry;
use super::{Format, TEXT_CHARS_MAX, text_member};
use crate::clock::{Clock, Duration, Instant};
use crate::metrics::Metrics;

/// Maximum lines that wait for the writer, about 4 MiB of access log entries. Further lines are
/// dropped, because a log that cannot keep up must not slow answers down.
pub(super) const LINES_WAITING_MAX: usize = 16 * 1024;
/// Maximum bytes of text that wait. Access log entries are not yet text, and are limited by their
/// number.
const TEXT_WAITING_BYTES_MAX: usize = 4 << 20;
/// How long the writer lets lines collect, so that a busy gateway wakes it a hundred times a second
/// and not once for each request. It is also the pause before the next attempt at a pipe that
/// accepts nothing.
const GATHER: Duration = Duration::from_millis(10);
/// Minimum time between two events that report dropped lines.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Queues lines for one output. A thread writes them. Cheap to clone.
#[derive(Clone)]
pub struct Output(Arc<Queue>);

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({})", self.0.name)
    }
}

struct Queue {
    /// The output's name, in events and as the name of its thread.
    name: &'static str,
    format: Format,
    /// Whether failures of this output are reported as events. Not for the output that has the
    /// events.
    reports: bool,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    metrics: Arc<Metrics>,
    clock: Clock,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Line>,
    text_bytes: usize,
    /// The writer waits without a limit, so it must be woken.
    asleep: bool,
    /// The writer is writing lines.
    writing: bool,
    /// The failure of the last attempt to write, if it failed.
    failure: Option<io::ErrorKind>,
    closed: bool,
}

enum Line {
    /// Formatted by the writer. Formatting it before the answer would cost a tenth of a hit.
    Access(Instant, AccessEntry),
    /// Ends with a line end. May contain several lines.
    Text(String),
}

/// The state that the writer keeps between two batches.
#[derive(Default)]
struct Progress {
    /// Whether the last line was written only in part.
    torn: bool,
    /// Number of lines dropped since the last report.
    unreported: u64,
    reported: Option<Instant>,
}

impl Output {
    /// Starts the thread that writes to `to`. Log lines are written in `format`. `carries_events`
    /// says that events are written here, so that a failure to write cannot be reported as an
    /// event.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(
        name: &'static str,
        mut to: Box<dyn Write + Send>,
        format: Format,
        carries_events: bool,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            name,
            format,
            reports: !carries_events,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            metrics,
            clock,
        });
        let theirs = queue.clone();
        std::thread::Builder::new()
            .name(format!("write-{name}"))
            .spawn(move || theirs.write_until_closed(&mut *to))?;
        Ok(Self(queue))
    }

    /// Returns the form of log lines here.
    pub fn format(&self) -> Format {
        self.0.format
    }

    /// Queues a text of one or more lines, without its last line end. Never waits.
    pub fn print(&self, text: impl Into<String>) {
        let mut text = text.into();
        text.push('\n');
        self.0.push(Line::Text(text));
    }

    /// Queues a text as the message of a JSON line, in the form of an event. Never waits.
    pub fn print_json(&self, level: &'static str, message: &str) {
        let at = self.0.clock.wall();
        let mut line = format!("{{\"time\":\"{at:.3}\",\"level\":\"{level}\"");
        text_member(&mut line, "message", message, TEXT_CHARS_MAX);
        line.push('}');
        self.print(line);
    }

    /// Queues the entry of a request that ended at `at`. Never waits.
    pub(super) fn access(&self, at: Option<Instant>, entry: AccessEntry) {
        let at = at.unwrap_or_else(|| self.0.clock.now());
        self.0.push(Line::Access(at, entry));
    }

    /// Waits at most `limit` until everything queued so far is written or dropped. Blocks the
    /// thread. Returns the failure of the last attempt to write. `Ok` includes the case that lines
    /// still wait for a reader.
    ///
    /// # Errors
    /// Returns the kind of the failure.
    pub fn settled(&self, limit: Duration) -> Result<(), io::ErrorKind> {
        let mut waiting = self.0.waiting.lock();
        self.0.wait_for_writer(&mut waiting, limit);
        waiting.failure.map_or(Ok(()), Err)
    }

    /// Waits at most `limit` until everything taken so far is written, and ends the thread. Lines
    /// that come later are dropped and counted. For the end of the process: blocks the thread.
    pub fn close(&self, limit: Duration) {
        let mut waiting = self.0.waiting.lock();
        waiting.closed = true;
        self.0.changed.notify_all();
        self.0.wait_for_writer(&mut waiting, limit);
    }
}

impl Queue {
    fn wait_for_writer(&self, waiting: &mut parking_lot::MutexGuard<'_, Waiting>, limit: Duration) {
        let busy = |w: &mut Waiting| w.writing || !w.lines.is_empty();
        self.changed.wait_while_for(waiting, busy, limit);
    }

    fn push(&self, line: Line) {
        let bytes = line.text_bytes();
        let mut waiting = self.waiting.lock();
        let full = waiting.lines.len() >= LINES_WAITING_MAX
            || (bytes > 0 && waiting.text_bytes + bytes > TEXT_WAITING_BYTES_MAX);
        if waiting.closed || full {
            drop(waiting);
            self.metrics.log_lines_dropped.inc_by(line.count());
            return;
        }
        waiting.text_bytes += bytes;
        waiting.lines.push(line);
        let wake = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.changed.notify_all();
        }
    }

    fn write_until_closed(&self, to: &mut dyn Write) {
        let mut batch = Vec::new();
        let mut text = String::new();
        let mut times = Times::default();
        let mut progress = Progress::default();
        while self.next_batch(&mut batch) {
            let (wall_us, now) = (self.clock.wall().as_microsecond(), self.clock.now());
            for line in batch.drain(..) {
                match line {
                    Line::Text(line) => text.push_str(&line),
                    Line::Access(at, entry) => {
                        let ago = now.saturating_duration_since(at).as_micros();
                        let us = wall_us.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX));
                        entry.write_timed(self.format, times.of(us), &mut text);
                    }
                }
            }
            let failure = self.write(to, &text, &mut progress).err();
            self.waiting.lock().failure = failure;
            text.clear();
        }
    }

    /// Waits for lines and swaps them with the empty `batch`. Returns `false` once no more will
    /// come.
    fn next_batch(&self, batch: &mut Vec<Line>) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.writing = false;
        if waiting.lines.is_empty() {
            self.changed.notify_all();
            if waiting.closed {
                return false;
            }
            waiting.asleep = true;
            self.changed
                .wait_while(&mut waiting, |w| w.lines.is_empty() && !w.closed);
            waiting.asleep = false;
        }
        // This pause also follows a sleep. On a busy core the first line wakes the writer before
        // the second one comes, and each line would wake it again.
        if !waiting.closed {
            self.changed
                .wait_while_for(&mut waiting, |w| !w.closed, GATHER);
        }
        waiting.writing = true;
        waiting.text_bytes = 0;
        std::mem::swap(&mut waiting.lines, batch);
        true
    }

    /// Writes whole lines as far as the output accepts them. Counts the others as dropped.
    fn write(
        &self,
        to: &mut dyn Write,
        text: &str,
        progress: &mut Progress,
    ) -> Result<(), io::ErrorKind> {
        let mut result = Ok(());
        // Ends the line that was cut, so that only that one is unreadable.
        if progress.torn {
            result = self.write_bytes(to, b"\n").1;
            progress.torn = result.is_err();
        }
        let mut written = 0;
        if result.is_ok() {
            (written, result) = self.write_bytes(to, text.as_bytes());
        }
        let (done, rest) = text
            .as_bytes()
            .split_at_checked(written)
            .unwrap_or_default();
        progress.torn |= !(done.is_empty() || done.ends_with(b"\n"));
        // A line that lacks only its end is readable, and gets its end with the next batch.
        let whole = !done.is_empty() && progress.torn && rest.starts_with(b"\n");
        let dropped = line_ends(rest) - u64::from(whole);
        if dropped > 0 {
            self.metrics.log_lines_dropped.inc_by(dropped);
            progress.unreported += dropped;
        }
        self.report(&result, progress);
        result
    }

    /// Writes bytes. Returns how many were written, and the failure if not all were.
    fn write_bytes(&self, to: &mut dyn Write, bytes: &[u8]) -> (usize, Result<(), io::ErrorKind>) {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match to.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                // The pipe was made non-blocking by another process, and its reader is slow.
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    self.changed.wait_for(&mut self.waiting.lock(), GATHER);
                }
                Err(why) => return (written, Err(why.kind())),
            }
        }
        (written, to.flush().map_err(|why| why.kind()))
    }

    /// Reports dropped lines as an event, at most once in [`REPORT_EVERY`].
    fn report(&self, result: &Result<(), io::ErrorKind>, progress: &mut Progress) {
        if progress.unreported == 0 || !self.reports {
            return;
        }
        let now = self.clock.now();
        if progress
            .reported
            .is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY)
        {
            return;
        }
        progress.reported = Some(now);
        let lines = std::mem::take(&mut progress.unreported);
        let why = match result {
            Ok(()) => "it can be written again".to_owned(),
            Err(kind) => kind.to_string(),
        };
        tracing::warn!(output = self.name, lines, why, "log lines dropped");
    }
}

impl Line {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Access(..) => 0,
            Self::Text(text) => text.len(),
        }
    }

    /// Returns the number of lines in the output.
    fn count(&self) -> u64 {
        match self {
            Self::Access(..) => 1,
            Self::Text(text) => line_ends(text.as_bytes()),
        }
    }
}

fn line_ends(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Caches the text of the last millisecond. Many lines share one, and the time is the most
/// expensive part of a line.
#[derive(Default)]
struct Times {
    ms: Option<i64>,
    text: String,
}

impl Times {
    fn of(&mut self, us: i64) -> &str {
        let ms = us.div_euclid(1000);
        if self.ms != Some(ms) {
            self.ms = Some(ms);
            let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MIN);
            self.text = format!("{at:.3}");
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::EventLines;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn dropped_lines_are_reported_now_and_then_and_never_into_the_same_output() {
        for (reports, expected) in [(true, 1), (false, 0)] {
            let events = Arc::new(Mutex::new(Vec::new()));
            let theirs = events.clone();
            let layer = EventLines::new(Format::Json, Clock::system(), move |line| {
                theirs.lock().push(line);
            });
            let queue = Queue {
                name: "test",
                format: Format::Json,
                reports,
                waiting: Mutex::default(),
                changed: Condvar::new(),
                metrics: Metrics::new().unwrap(),
                clock: Clock::system(),
            };
            let mut progress = Progress::default();
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
                for _ in 0..3 {
                    let failed = queue.write(&mut Full, "{}\n{}\n", &mut progress);
                    assert_eq!(failed, Err(io::ErrorKind::StorageFull));
                }
            });
            let events = events.lock();
            assert_eq!(events.len(), expected, "{events:?}");
            let told = "\"output\":\"test\",\"lines\":2,\"why\":\"no storage space\"";
            assert!(events.iter().all(|line| line.contains(told)), "{events:?}");
            assert_eq!(queue.metrics.log_lines_dropped.get(), 6);
        }
    }
}
