//! What a caller says about caching: read the same in any case and order, and never as less strict
//! than what it says. The first line is `Cache-Control`, the second `If-None-Match`.

use http::{HeaderMap, HeaderValue, header};
use msp_gateway::api::cache_control::{directives, none_match};
use msp_gateway::cache::Directives;
use msp_gateway::clock::Duration;

fn of(lines: &[&[u8]]) -> Option<Directives> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(header::CACHE_CONTROL, HeaderValue::from_bytes(line).ok()?);
    }
    Some(directives(&headers))
}

pub fn hold(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |b| *b == b'\n');
    let (control, tags) = (lines.next().unwrap_or_default(), lines.next());
    if let Some(read) = of(&[control]) {
        let upper = control.to_ascii_uppercase();
        assert_eq!(of(&[&upper]), Some(read));
        // Said in two headers it is said once.
        let twice = of(&[control, control]).unwrap();
        assert_eq!(twice, read);
        // What is stricter wins, wherever it stands.
        let strict: &[u8] = b"no-cache, max-age=0, only-if-cached";
        for lines in [[control, strict], [strict, control]] {
            let both = of(&lines).unwrap();
            assert!(both.no_cache && both.only_if_cached);
            assert_eq!(both.max_age, Some(Duration::ZERO));
            assert_eq!(both.max_stale, read.max_stale);
        }
        // Unreadable bytes and unknown words say nothing.
        assert_eq!(of(&[control, b"\xff, no-cache"]), Some(read));
        assert_eq!(of(&[control, b"no-cached, max-age=1.5, =, ,"]), Some(read));
    }
    if let Some(value) = tags.and_then(|tags| HeaderValue::from_bytes(tags).ok()) {
        let ours = HeaderValue::from_static("\"b3-ours\"");
        let is_ours = |one: &[u8]| one == ours.as_bytes() || one == b"*";
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, value.clone());
        if none_match(&headers, is_ours) {
            let text = value.as_bytes();
            let named = text.windows(9).any(|part| part == b"\"b3-ours\"");
            assert!(named || text.trim_ascii() == b"*");
        }
        // In a header of its own it is always found.
        headers.append(header::IF_NONE_MATCH, ours.clone());
        assert!(none_match(&headers, is_ours));
    }
}
