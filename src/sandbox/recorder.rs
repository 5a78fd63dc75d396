//! Records the last requests as they arrived.

use std::collections::VecDeque;

use bytes::Bytes;
use http::request::Parts;
use parking_lot::Mutex;
use serde::Serialize;

use super::options::SimOperation;

/// Number of requests kept.
const KEPT: usize = 1_000;
/// Bytes kept of a body, a target or a header value.
const TEXT_MAX: usize = 2 * 1024;
/// Number of headers kept of a request.
const HEADERS_MAX: usize = 100;
/// A run of this many characters that may occur in a scroll id is taken for one. All other words of
/// the vendors are shorter.
const SCROLL_ID_MIN: usize = 64;
/// The header that carries the key, at both vendors.
pub(super) const KEY_HEADER: &str = "x-api-key";

/// One request as it arrived. Neither a key nor a scroll id can be read from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// The operation's word.
    pub operation: &'static str,
    /// Milliseconds since the sandbox was created.
    pub at_ms: u64,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `correct` (one key header with the right key), `wrong` or `absent`.
    pub key: &'static str,
    /// Names in lower case and values, in the order of arrival. The value of a key is `correct` or
    /// `wrong`.
    pub headers: Vec<(String, String)>,
    /// The first 2 KiB of the body. A scroll id is replaced by `scroll:` and eight hexadecimal
    /// digits.
    pub body: String,
    /// The body's length in bytes.
    pub body_bytes: usize,
}

/// The last requests.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    last: Mutex<VecDeque<Recorded>>,
}

/// Returns whether the request has one key header with the right key.
pub(super) fn key_state(parts: &Parts, key: &str) -> &'static str {
    let mut values = parts.headers.get_all(KEY_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => "absent",
        (Some(value), None) if value.as_bytes() == key.as_bytes() => "correct",
        _ => "wrong",
    }
}

impl Recorder {
    /// Records a request. `key` is the key that its vendor accepts.
    pub(super) fn note(
        &self,
        operation: SimOperation,
        at_ms: u64,
        parts: &Parts,
        key: &str,
        body: &Bytes,
    ) {
        let headers = parts
            .headers
            .iter()
            .take(HEADERS_MAX)
            .map(|(name, value)| {
                let shown = match name.as_str() {
                    KEY_HEADER if value.as_bytes() == key.as_bytes() => "correct".to_owned(),
                    KEY_HEADER => "wrong".to_owned(),
                    _ => shown(value.as_bytes()),
                };
                (name.as_str().to_owned(), shown)
            })
            .collect();
        let target = parts
            .uri
            .path_and_query()
            .map_or("", |target| target.as_str());
        let recorded = Recorded {
            operation: operation.as_str(),
            at_ms,
            method: parts.method.as_str().to_owned(),
            target: shown(target.as_bytes()),
            key: key_state(parts, key),
            headers,
            body: shown(body),
            body_bytes: body.len(),
        };
        let mut last = self.last.lock();
        if last.len() >= KEPT {
            last.pop_front();
        }
        last.push_back(recorded);
    }

    /// Returns the requests, oldest first.
    pub(super) fn read(&self) -> Vec<Recorded> {
        self.last.lock().iter().cloned().collect()
    }

    /// Removes all requests.
    pub(super) fn reset(&self) {
        self.last.lock().clear();
    }
}

/// Returns the text with every scroll id replaced by a short hash, cut to the length kept.
fn shown(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len().min(TEXT_MAX));
    let in_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_+/=".contains(byte);
    let mut rest = bytes;
    // Ids are replaced before the text is cut, because half an id is still one.
    while !rest.is_empty() && out.len() < TEXT_MAX {
        let run = rest
            .iter()
            .position(|byte| !in_id(byte))
            .unwrap_or(rest.len());
        let (id, after) = rest.split_at(run);
        if run >= SCROLL_ID_MIN {
            let hash = blake3::hash(id).to_hex();
            out.extend_from_slice(b"scroll:");
            out.extend_from_slice(hash.as_bytes().get(..8).unwrap_or_default());
        } else {
            out.extend_from_slice(id);
        }
        let between = after.iter().position(in_id).unwrap_or(after.len());
        let (other, next) = after.split_at(between);
        out.extend_from_slice(other);
        rest = next;
    }
    out.truncate(TEXT_MAX);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(builder: http::request::Builder) -> Parts {
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn keys_and_scroll_ids_are_not_kept() {
        let recorder = Recorder::default();
        let id = "FGluY2x1ZGVfY29u".repeat(60);
        let body = Bytes::from(format!(
            r#"{{"max_returned_items":5,"start_page_key":{{"scroll_id":"{id}"}}}}"#
        ));
        let request = Request::post("/v2/cases/msp/search?customer_id=org_1")
            .header("X-API-Key", "secret")
            .header("user-agent", "mine/1");
        recorder.note(SimOperation::Continue, 7, &parts(request), "secret", &body);
        let seen = recorder.read().pop().unwrap();
        assert_eq!(
            (seen.key, seen.at_ms, seen.body_bytes),
            ("correct", 7, body.len())
        );
        assert_eq!(seen.target, "/v2/cases/msp/search?customer_id=org_1");
        assert!(
            seen.headers
                .contains(&("x-api-key".to_owned(), "correct".to_owned()))
        );
        assert!(
            seen.headers
                .contains(&("user-agent".to_owned(), "mine/1".to_owned()))
        );
        let hash = &blake3::hash(id.as_bytes()).to_hex()[..8];
        assert_eq!(
            seen.body,
            format!(
                r#"{{"max_returned_items":5,"start_page_key":{{"scroll_id":"scroll:{hash}"}}}}"#
            )
        );
        assert!(!format!("{seen:?}").contains("secret"));
    }

    #[test]
    fn wrong_and_repeated_keys_are_told_apart_from_none() {
        let state = |keys: &[&str]| {
            let request = keys.iter().fold(Request::get("/"), |request, key| {
                request.header("x-api-key", *key)
            });
            key_state(&parts(request), "right")
        };
        assert_eq!(state(&[]), "absent");
        assert_eq!(state(&["right"]), "correct");
        assert_eq!(state(&["Right"]), "wrong");
        assert_eq!(state(&["right", "right"]), "wrong");
    }

    #[test]
    fn memory_is_bounded() {
        let recorder = Recorder::default();
        let body = Bytes::from("é, ".repeat(10_000));
        for at in 0..1_200 {
            recorder.note(
                SimOperation::Search,
                at,
                &parts(Request::get("/")),
                "k",
                &body,
            );
        }
        let seen = recorder.read();
        assert_eq!((seen.len(), seen[0].at_ms), (1_000, 200));
        assert!(seen[0].body.len() <= TEXT_MAX + 3);
        assert_eq!(seen[0].body_bytes, body.len());
        recorder.reset();
        assert!(recorder.read().is_empty());
    }
}
