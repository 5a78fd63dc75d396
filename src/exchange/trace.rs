//! Continues the caller's `traceparent` towards the vendor.

use http::{HeaderMap, HeaderName, HeaderValue};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `00-` trace id `-` parent id `-` flags.
const TRACEPARENT_BYTES: usize = 55;

/// Returns the header for our own span of the caller's trace: same trace id and flags, a new span
/// id. `None` if the caller sent none, several, or anything but W3C's version 00. A bad header is
/// ignored, as W3C asks.
pub fn continued(headers: &HeaderMap) -> Option<HeaderValue> {
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
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2);
    if !good {
        return None;
    }
    // A span id of zeros is invalid.
    let span = fastrand::u64(1..);
    HeaderValue::try_from(format!("00-{trace}-{span:016x}-{flags}")).ok()
}

fn is_hex(text: &str, len: usize) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == len && text.bytes().all(hex)
}

fn is_id(text: &str, len: usize) -> bool {
    is_hex(text, len) && text.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", HeaderValue::from_str(value).unwrap());
        }
        continued(&headers).map(|v| v.to_str().unwrap().to_owned())
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
