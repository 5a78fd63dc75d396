//! `GET /docs`: a page for people, made from `/openapi.json`.
//!
//! It is one HTML file of our own, 20 KB with its style and script inside, and loads nothing from
//! elsewhere. A crate with Swagger UI would add some 1.6 MB of script that nobody here reviews, and
//! needs a policy that allows inline styles. The page reads the API description from the same
//! gateway, so it contains no route itself. It sends requests with the key that a person types into
//! it. It keeps the key in the page's memory only.
//!
//! The policy allows exactly this script and this style, by their hashes, and requests to this
//! gateway alone. No other page may frame it, because people type a key here.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;

use super::fixed::Fixed;
use super::openapi::{Described, FIXED_TEXT};
use crate::problem::Code;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Placeholders for the style and the script in the page.
const STYLE_HERE: &str = "/* page.css */";
const SCRIPT_HERE: &str = "/* page.js */";

/// The description in `/openapi.json`.
pub(super) const DESCRIBED: Described = Described {
    operation: include_str!("docs.json"),
    problems: &[FIXED_TEXT, &[Code::NotFound]],
};

pub(super) static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let page = PAGE.replace(STYLE_HERE, STYLE).replace(SCRIPT_HERE, SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    let head = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Fixed::new(page, &head).with(header::CONTENT_SECURITY_POLICY, &policy)
});

/// Returns the name of an inline script or style in a policy.
fn hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text between two marks.
    fn between<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
        let (_, rest) = text.split_once(open).unwrap();
        rest.split_once(close).unwrap().0
    }

    #[test]
    fn the_policy_allows_what_the_page_holds_and_nothing_else() {
        let page = FIXED.text();
        let policy = FIXED.header("content-security-policy");
        for (open, close) in [("<script>", "</script>"), ("<style>", "</style>")] {
            assert_eq!(page.matches(open).count(), 1);
            assert!(policy.contains(&hash(between(page, open, close))));
        }
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(!policy.contains("unsafe"));
        // Nothing is loaded from elsewhere: no absolute URL, no inline handler, no style attribute.
        for bad in ["http:", "https:", "src=\"//", " onclick=", " style="] {
            assert!(!page.contains(bad), "{bad}");
        }
        for placeholder in [STYLE_HERE, SCRIPT_HERE] {
            assert!(!page.contains(placeholder));
        }
    }
}
