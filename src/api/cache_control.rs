//! Reads what a caller's request says about caching.

use http::{HeaderMap, header};

use crate::cache::Directives;
use crate::clock::Duration;

/// Reads `Cache-Control`, or `Pragma: no-cache` if there is none. Ignores unknown directives, as
/// RFC 9111 requires.
pub fn directives(headers: &HeaderMap) -> Directives {
    let mut out = Directives::default();
    let mut said = false;
    for value in headers.get_all(header::CACHE_CONTROL) {
        said = true;
        let Ok(text) = value.to_str() else { continue };
        for directive in text.split(',') {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), Some(argument.trim())),
                None => (directive.trim(), None),
            };
            if name.eq_ignore_ascii_case("no-cache") {
                out.no_cache = true;
            } else if name.eq_ignore_ascii_case("only-if-cached") {
                out.only_if_cached = true;
            } else if name.eq_ignore_ascii_case("max-age") {
                if let Some(age) = argument.and_then(seconds) {
                    // The stricter of two values counts.
                    out.max_age = Some(out.max_age.map_or(age, |other| other.min(age)));
                }
            } else if name.eq_ignore_ascii_case("max-stale") {
                match argument {
                    None => out.max_stale = Some(Duration::MAX),
                    Some(text) => out.max_stale = seconds(text).or(out.max_stale),
                }
            }
        }
    }
    if !said && let Some(pragma) = headers.get(header::PRAGMA) {
        out.no_cache = pragma.as_bytes().eq_ignore_ascii_case(b"no-cache");
    }
    out
}

fn seconds(text: &str) -> Option<Duration> {
    let digits = text
        .strip_prefix('"')
        .and_then(|t| t.strip_suffix('"'))
        .unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // A number too large to represent means "very long", so it must not be ignored.
    Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

/// Returns whether `If-None-Match` contains a tag for which `is_one` returns true. Reads lists and
/// compares weakly. `*` is passed to `is_one` as it is.
pub fn none_match(headers: &HeaderMap, mut is_one: impl FnMut(&[u8]) -> bool) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| list_names(value.as_bytes(), Weak::Counts, &mut is_one))
}

/// Returns whether `If-Match` contains a tag for which `is_one` returns true. Like [`none_match`],
/// but a weak tag never matches.
pub fn match_names(headers: &HeaderMap, mut is_one: impl FnMut(&[u8]) -> bool) -> bool {
    headers
        .get_all(header::IF_MATCH)
        .iter()
        .any(|value| list_names(value.as_bytes(), Weak::IsPassedOver, &mut is_one))
}

/// How a weak tag in a list is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weak {
    /// Like a strong tag.
    Counts,
    /// It never matches.
    IsPassedOver,
}

/// Reads a list tag by tag, because a tag may contain commas.
fn list_names(list: &[u8], weak: Weak, is_one: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return is_one(rest);
    }
    loop {
        while let [b',' | b' ' | b'\t', after @ ..] = rest {
            rest = after;
        }
        let opaque = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(inner) = opaque.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = inner.iter().position(|b| *b == b'"') else {
            return false;
        };
        let Some((one, after)) = opaque.split_at_checked(end + 2) else {
            return false;
        };
        let passed = weak == Weak::IsPassedOver && opaque.len() < rest.len();
        if !passed && is_one(one) {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut out = HeaderMap::new();
        for (name, value) in pairs {
            out.append(*name, HeaderValue::from_static(value));
        }
        out
    }

    fn of(text: &'static str) -> Directives {
        directives(&headers(&[("cache-control", text)]))
    }

    #[test]
    fn directives_are_understood() {
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(of(""), Directives::default());
        assert!(of("No-Cache").no_cache);
        assert_eq!(of("max-age=0").max_age, secs(0));
        assert_eq!(of("max-age=\"5\", max-age=3").max_age, secs(3));
        assert_eq!(of("max-stale").max_stale, Some(Duration::MAX));
        assert_eq!(of("max-stale = 60").max_stale, secs(60));
        assert!(of("foo=bar, only-if-cached").only_if_cached);
        assert_eq!(of("max-age=-1"), Directives::default());
        assert_eq!(of("max-age=x, max-stale=1.5"), Directives::default());
        assert_eq!(of("max-age=99999999999999999999").max_age, secs(u64::MAX));
    }

    #[test]
    fn pragma_counts_only_alone() {
        assert!(directives(&headers(&[("pragma", "no-cache")])).no_cache);
        let both = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]);
        assert!(!directives(&both).no_cache);
    }

    #[test]
    fn weak_tags_never_match_strongly() {
        let names = |text| match_names(&headers(&[("if-match", text)]), |one| one == b"\"abc\"");
        for good in ["\"abc\"", "\"x\", \"abc\"", "W/\"abc\", \"abc\""] {
            assert!(names(good), "{good}");
        }
        for bad in ["", "abc", "W/\"abc\"", "\"x\", W/\"abc\"", "\"ab\""] {
            assert!(!names(bad), "{bad}");
        }
    }

    #[test]
    fn tags_match_weakly_in_lists() {
        let tag = HeaderValue::from_static("\"abc\"");
        let is_tag = |one: &[u8]| one == tag.as_bytes() || one == b"*";
        let names = |text| none_match(&headers(&[("if-none-match", text)]), is_tag);
        for good in [
            "\"abc\"",
            "W/\"abc\"",
            "*",
            "\"x\", \"abc\"",
            "\"a,b\",W/\"abc\"",
        ] {
            assert!(names(good), "{good}");
        }
        for bad in [
            "",
            "abc",
            "\"ab\"",
            "\"abcd\"",
            "\"x",
            "\"x\"abc",
            "w/\"abc\"",
            "\"x,\"abc\"",
        ] {
            assert!(!names(bad), "{bad}");
        }
    }
}
