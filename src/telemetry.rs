//! Writes the log: events of the program, and one access line for each request.
//!
//! An [`Output`] owns standard output or standard error and writes to it on a thread of its own.
//! Access lines go to standard output through a [`LogSink`], events go to standard error through
//! [`events_to`]. Both kinds have one shape, in one of two [`Format`]s:
//!
//! ```text
//! {"time":"…","log":"access","request_id":"…",…,"status":200,…}       Format::Json, access
//! {"time":"…","level":"WARN","message":"vendor call",…,"target":"…"}  Format::Json, event
//! 2026-05-01T12:00:00.000Z 200 GET /msp/customers caller=dash …       Format::Text, access
//! 2026-05-01T12:00:00.000Z WARN  vendor call vendor=wiv …             Format::Text, event
//! ```
//!
//! `cli` opens the outputs and installs the events; `exchange` writes an [`AccessEntry`] for each
//! request; every other room logs with `tracing`. `access` and `event` render lines, `output`
//! writes them.
//!
//! What must never happen here: a request waits for the reader of an output (a line that cannot be
//! written is dropped and counted), or a line holds a key, a page token, a query or a body.

mod access;
mod event;
mod output;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

pub use access::{AccessEntry, AccessTimes, logged_path};
pub use event::{EventLevel, EventLines, events_to, panics_to_events};
pub use output::Output;

use crate::clock::{Clock, Instant};

/// Maximum length of a text in a line, in characters. The longest texts are refusals of settings,
/// which name up to fifty problems.
const TEXT_CHARS_MAX: usize = 8 * 1024;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Words for a person at a terminal.
    Text,
}

/// The destination of access log lines. Cheap to clone.
#[derive(Clone)]
pub struct LogSink(Arc<Sink>);

enum Sink {
    Off,
    Kept {
        lines: Mutex<Vec<String>>,
        clock: Clock,
    },
    To(Output),
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Sink::Off => "LogSink::Off",
            Sink::Kept { .. } => "LogSink::Kept",
            Sink::To(_) => "LogSink::To",
        })
    }
}

impl LogSink {
    /// Creates a sink that writes nothing.
    pub fn off() -> Self {
        Self(Arc::new(Sink::Off))
    }

    /// Creates a sink that keeps every line in memory. Tests read them with [`Self::lines`].
    pub fn kept(clock: Clock) -> Self {
        Self(Arc::new(Sink::Kept {
            lines: Mutex::default(),
            clock,
        }))
    }

    /// Creates a sink that writes to `output`.
    pub fn to(output: Output) -> Self {
        Self(Arc::new(Sink::To(output)))
    }

    /// Writes the entry of a request that ended at `ended`, or just now if that is `None`. Never
    /// waits.
    pub fn write(&self, ended: Option<Instant>, entry: impl FnOnce() -> AccessEntry) {
        match &*self.0 {
            Sink::Off => {}
            Sink::Kept { lines, clock } => {
                let mut line = String::new();
                entry().write_line(Format::Json, clock.wall(), &mut line);
                lines.lock().push(line);
            }
            Sink::To(output) => output.access(ended, entry()),
        }
    }

    /// Returns the lines kept so far.
    pub fn lines(&self) -> Vec<String> {
        match &*self.0 {
            Sink::Kept { lines, .. } => lines.lock().clone(),
            Sink::Off | Sink::To(_) => Vec::new(),
        }
    }
}

/// Appends `,"name":"text"`, with the text cut to `chars_max`.
fn text_member(out: &mut String, name: &str, text: &str, chars_max: usize) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":\"");
    push_text(out, text, chars_max);
    out.push('"');
}

/// Appends at most `chars_max` characters of a text. Characters that could end the line, close a
/// quote or control a terminal are escaped as in JSON.
fn push_text(out: &mut String, text: &str, chars_max: usize) {
    use fmt::Write as _;
    let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    if text.len() <= chars_max && text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    for c in text.chars().take(chars_max) {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
                || matches!(c, '\u{2066}'..='\u{2069}') =>
            {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
