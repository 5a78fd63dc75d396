//! `GET /console/`: the operators' console, a page of our own in the binary.
//!
//! It is plain HTML, one style sheet and ES modules, exactly as the files in this folder, and one
//! module with the words of the gateway. There is no build step, and nothing is loaded from
//! elsewhere. The page itself contains no data and needs
//! no key. It reads its data from `/admin/…` with the key that an operator types into it, and keeps
//! that key for its tab alone.
//!
//! The policy allows scripts, styles and requests of this listener only. No page may frame it,
//! because it has a button that purges.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, json};

use crate::api::fixed::Fixed;
use crate::domain::{CacheOutcome, Kind, Route, Vendor};
use crate::exchange::{AnswerBody, Answered};
use crate::problem::Problem;

/// The path of the page.
const HOME: &str = "/console/";
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Defines every file by its name in the path. The page itself has an empty name.
macro_rules! files {
    ($($name:literal: $media:ident = $file:literal,)*) => {
        const FILES: &[(&str, &str, &str)] = &[$(($name, $media, include_str!($file)),)*];
    };
}

files! {
    "": HTML = "index.html",
    "console.css": STYLE = "console.css",
    "icon.svg": IMAGE = "icon.svg",
    "ask.js": SCRIPT = "ask.js",
    "callers.js": SCRIPT = "callers.js",
    "chart.js": SCRIPT = "chart.js",
    "console.js": SCRIPT = "console.js",
    "dom.js": SCRIPT = "dom.js",
    "every.js": SCRIPT = "every.js",
    "explain.js": SCRIPT = "explain.js",
    "link.js": SCRIPT = "link.js",
    "now.js": SCRIPT = "now.js",
    "purge.js": SCRIPT = "purge.js",
    "requests.js": SCRIPT = "requests.js",
    "settings.js": SCRIPT = "settings.js",
    "snapshots.js": SCRIPT = "snapshots.js",
}

/// The module with the words of the gateway, so that no script repeats them.
const WORDS: &str = "words.js";

/// Returns the module [`WORDS`].
fn words() -> String {
    let vendors: Map<_, _> = Vendor::ALL
        .into_iter()
        .map(|vendor| (vendor.as_str().to_owned(), json!(vendor.title())))
        .collect();
    let outcomes = CacheOutcome::ALL.map(CacheOutcome::as_str);
    let lists = [
        ("VENDORS", json!(vendors)),
        ("ROUTES", json!(Route::ALL.map(Route::as_str))),
        ("KINDS", json!(Kind::ALL.map(Kind::as_str))),
        ("OUTCOMES", json!(outcomes)),
    ];
    lists
        .map(|(name, words)| format!("export const {name} = {words};\n"))
        .concat()
}

static FIXED: LazyLock<Vec<(&str, Fixed)>> = LazyLock::new(|| {
    let one = |name, media, text: String| {
        let head = [
            (header::CONTENT_TYPE, media),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        (name, Fixed::new(text, &head))
    };
    let files = FILES.iter();
    files
        .map(|(name, media, text)| one(*name, *media, (*text).to_owned()))
        .chain([one(WORDS, SCRIPT, words())])
        .collect()
});

/// Returns the file of this name below `/console/`.
pub(super) fn file(name: &str, headers: &HeaderMap) -> Result<Answered, Problem> {
    let mut files = FIXED.iter();
    let found = files.find(|(one, _)| *one == name);
    let (_, fixed) = found.ok_or_else(Problem::not_found)?;
    fixed.answer(headers)
}

/// Redirects a browser to the page.
pub(super) fn to_the_page() -> Answered {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let place = HeaderValue::from_static(HOME);
    response.headers_mut().insert(header::LOCATION, place);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_nothing_from_elsewhere_is_named() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/admin/console");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let listed = match &*name {
                "mod.rs" => continue,
                "index.html" => "",
                other => other,
            };
            assert!(
                FILES.iter().any(|(one, ..)| *one == listed),
                "{name} is not served"
            );
        }
        for (name, media, text) in FILES {
            // The icon contains the namespace of its own format.
            let text = match *media {
                IMAGE => text.replace("http://www.w3.org/2000/svg", ""),
                _ => (*text).to_owned(),
            };
            for bad in [
                "http:",
                "https:",
                "src=\"//",
                "@import",
                "url(",
                " onclick=",
                " style=",
                "innerHTML",
                "eval(",
                "unsafe",
            ] {
                assert!(!text.contains(bad), "{name}: {bad}");
            }
        }
        assert!(POLICY.starts_with("default-src 'self';"));
    }

    #[test]
    fn the_words_are_those_of_the_gateway() {
        let words = words();
        for start in [
            "VENDORS = {\"",
            "ROUTES = [\"",
            "KINDS = [\"",
            "OUTCOMES = [\"",
        ] {
            assert!(words.contains(&format!("export const {start}")), "{words}");
        }
        assert!(words.contains("\"nable\":\"N-able\""), "{words}");
        let routes = Route::ALL.map(Route::as_str).into_iter();
        for word in routes.chain(Kind::ALL.map(Kind::as_str)) {
            assert!(words.contains(&format!("\"{word}\"")), "{word}");
        }
    }

    #[test]
    fn modules_import_files_that_are_there() {
        for (name, _, text) in FILES.iter().filter(|(_, media, _)| *media == SCRIPT) {
            let imported = text.lines().filter(|line| line.starts_with("import "));
            for line in imported {
                let from = line
                    .split("\"./")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                let there = from.is_some_and(|from| FIXED.iter().any(|(one, _)| *one == from));
                assert!(there, "{name}: {line}");
            }
        }
    }
}
