//! Continues the caller's `traceparent` towards the vendor.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::traces::{Continued, SpanId, TraceId};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `00-` trace id `-` parent id `-` flags.
const TRACEPARENT_BYTES: usize = 55;

/// Flag of a trace that the caller records.
const SAMPLED: u8 = 1;

/// Returns the caller's trace with a new span of our own: same trace id and flags. `None` if the
/// caller sent none, several, or anything but W3C's version 00. A bad header is ignored, as W3C
/// asks.
pub fn continued(headers: &HeaderMap) -> Option<Continued> {
    let mut values = headers.get_all(&TRACEPARENT).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let text = value.to_str().ok()?;
    if text.len() != TRACEPARENT_BYTES {
        return None;
    }
    let mut parts = text.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let good = version == "00"
        && parts.next().is_none()
        && [trace, parent].into_iter().all(is_hex)
        && is_hex(flags);
    if !good {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & SAMPLED != 0;
    let span = SpanId::fresh();
    Some(Continued {
        header: HeaderValue::try_from(format!("00-{trace}-{span}-{flags}")).ok()?,
        trace: TraceId::of_hex(trace.as_bytes().try_into().ok()?)?,
        parent: SpanId::of_hex(parent)?,
        span,
        sampled,
    })
}

/// Lower case only, as W3C asks. The caller of this checks the lengths.
fn is_hex(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.bytes().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", HeaderValue::from_str(value).unwrap());
        }
        continued(&headers).map(|trace| trace.header.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_trace_goes_on_under_a_fresh_span() {
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ours = of(&[sent]).unwrap();
        assert_eq!(ours.len(), sent.len());
        assert!(ours.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(ours.ends_with("-01") && ours != sent);
    }

    #[test]
    fn anything_else_is_ignored() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for bad in [
            "",
            "x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[good, good]), None);
        assert_eq!(of(&[]), None);
    }
}
