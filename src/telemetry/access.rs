//! The line of the access log, one for each answered request.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{Method, Uri};
use jiff::Timestamp;

use super::{Format, push_text, text_member};
use crate::clock::Duration;
use crate::domain::{CacheOutcome, Route};

/// Maximum length of a path in a line, in characters.
const PATH_CHARS_MAX: usize = 256;
/// Maximum length of a caller's name in a line, in characters.
const CALLER_CHARS_MAX: usize = 128;
/// Maximum length of a trace id in a line, in characters.
const TRACE_CHARS_MAX: usize = 32;
/// Maximum length of a method in a line, in characters.
const METHOD_CHARS_MAX: usize = 24;

/// One answered request.
#[derive(Clone, Debug)]
pub struct AccessEntry {
    /// The request id, in hex.
    pub request_id: [u8; 32],
    /// The address of the peer.
    pub peer: Option<SocketAddr>,
    /// The caller's configured name; `None` before authentication.
    pub caller: Option<Arc<str>>,
    /// The route.
    pub route: Route,
    /// The method, as sent.
    pub method: Method,
    /// The path as sent, or as [`logged_path`] has cut it. The query is left out, because it may
    /// contain anything. This is never a slice of the request itself: that would keep the
    /// connection's whole read buffer allocated for as long as the line waits.
    pub path: Cow<'static, str>,
    /// The status. 499 if the caller left first.
    pub status: u16,
    /// The problem's code.
    pub code: Option<&'static str>,
    /// How the cache answered.
    pub cache: Option<CacheOutcome>,
    /// Time until the answer's head.
    pub took: Duration,
    /// How that time was spent. `None`: all of it on the gateway's own work.
    pub spent: Option<Box<AccessTimes>>,
    /// The id of the caller's trace, if it sent one.
    pub trace_id: Option<Box<str>>,
    /// Number of vendor requests made for it.
    pub vendor_calls: u32,
    /// Bytes of the answer's body that were sent.
    pub sent_bytes: u64,
    /// Whether the body was sent to its end.
    pub whole: bool,
}

/// How the time of a request was spent. The parts add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessTimes {
    /// Waiting for a free scroll, for budget or for a place at the vendor.
    pub waited: Duration,
    /// Calling a vendor.
    pub vendor: Duration,
    /// Everything else, such as waiting for a call that another request caused.
    pub own: Duration,
}

/// Returns the path of a request as an [`AccessEntry`] holds it.
pub fn logged_path(target: &Uri) -> String {
    let path = target.path();
    let cut = path.char_indices().nth(PATH_CHARS_MAX);
    cut.and_then(|(end, _)| path.get(..end))
        .unwrap_or(path)
        .into()
}

impl AccessEntry {
    /// Appends the line with its line end.
    pub fn write_line(&self, format: Format, at: Timestamp, out: &mut String) {
        self.write_timed(format, &format!("{at:.3}"), out);
    }

    pub(super) fn write_timed(&self, format: Format, at: &str, out: &mut String) {
        match format {
            Format::Json => self.write_json(at, out),
            Format::Text => self.write_text(at, out),
        }
    }

    /// Appends the line for a person: first the request and its outcome, then the rest by name.
    fn write_text(&self, at: &str, out: &mut String) {
        use fmt::Write as _;
        let _ = write!(out, "{at} {} ", self.status);
        push_text(out, self.method.as_str(), METHOD_CHARS_MAX);
        out.push(' ');
        push_text(out, &self.path, PATH_CHARS_MAX);
        out.push_str(" caller=");
        push_text(out, self.caller_name(), CALLER_CHARS_MAX);
        if let Some(code) = self.code {
            let _ = write!(out, " code={code}");
        }
        let _ = write!(out, " cache={} ms=", self.cache_word());
        push_ms(out, self.took);
        if let Some(spent) = &self.spent {
            for (name, part) in [
                (" wait_ms=", spent.waited),
                (" vendor_ms=", spent.vendor),
                (" own_ms=", spent.own),
            ] {
                out.push_str(name);
                push_ms(out, part);
            }
        }
        let _ = write!(
            out,
            " vendor_calls={} bytes={}",
            self.vendor_calls, self.sent_bytes
        );
        if !self.whole {
            out.push_str(" cut");
        }
        if let Some(peer) = self.peer {
            let _ = write!(out, " peer={}", peer.ip());
        }
        if let Some(trace) = &self.trace_id {
            out.push_str(" trace_id=");
            push_text(out, trace, TRACE_CHARS_MAX);
        }
        let id = std::str::from_utf8(&self.request_id).unwrap_or("");
        // Writing to a String cannot fail.
        let _ = writeln!(out, " request_id={id}");
    }

    fn caller_name(&self) -> &str {
        self.caller.as_deref().unwrap_or("anonymous")
    }

    fn cache_word(&self) -> &'static str {
        self.cache.map_or("none", CacheOutcome::as_str)
    }

    // Written piece by piece and never through `fmt`. On one core, a line takes its time from the
    // answers, and formatting took a tenth of a hit.
    fn write_json(&self, at: &str, out: &mut String) {
        out.push_str("{\"time\":\"");
        out.push_str(at);
        out.push_str("\",\"log\":\"access\",\"request_id\":\"");
        out.push_str(std::str::from_utf8(&self.request_id).unwrap_or(""));
        if let Some(peer) = self.peer {
            out.push_str("\",\"peer\":\"");
            push_address(out, peer.ip());
        }
        out.push('"');
        text_member(out, "caller", self.caller_name(), CALLER_CHARS_MAX);
        out.push_str(",\"route\":\"");
        out.push_str(self.route.as_str());
        out.push('"');
        text_member(out, "method", self.method.as_str(), METHOD_CHARS_MAX);
        match &self.path {
            // A fixed path is one of ours and needs no escaping.
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
        out.push_str(self.cache_word());
        out.push_str("\",\"duration_ms\":");
        push_ms(out, self.took);
        match &self.spent {
            // A hit: no time is formatted twice.
            None => {
                out.push_str(",\"wait_ms\":0,\"vendor_ms\":0,\"own_ms\":");
                push_ms(out, self.took);
            }
            Some(spent) => {
                out.push_str(",\"wait_ms\":");
                push_ms(out, spent.waited);
                out.push_str(",\"vendor_ms\":");
                push_ms(out, spent.vendor);
                out.push_str(",\"own_ms\":");
                push_ms(out, spent.own);
            }
        }
        if let Some(trace) = &self.trace_id {
            text_member(out, "trace_id", trace, TRACE_CHARS_MAX);
        }
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

/// Appends milliseconds with three decimals.
fn push_ms(out: &mut String, took: Duration) {
    let seconds_us = took.as_secs().saturating_mul(1_000_000);
    let micros = seconds_us.saturating_add(u64::from(took.subsec_nanos() + 500) / 1000);
    push_number(out, micros / 1000);
    out.push('.');
    // Always four digits. The leading 1 is cut off.
    let mut digits = itoa::Buffer::new();
    let thousandths = digits.format(1000 + micros % 1000).get(1..);
    out.push_str(thousandths.unwrap_or("000"));
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
