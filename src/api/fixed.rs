//! Answers that are the same for every caller for as long as the program runs.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::answer::{accepted_of, check_match};
use super::cache_control::none_match;
use crate::cache::{Coding, Etag};
use crate::exchange::{AnswerBody, Answered};
use crate::problem::Problem;

/// The one coding in which a fixed answer is kept. Every browser and HTTP library accepts it.
const CODING: Coding = Coding::Gzip;

/// A text, its coded form, and the headers of both.
pub(super) struct Fixed {
    plain: Bytes,
    /// `None` if coding failed. Then every caller gets the plain text.
    coded: Option<Bytes>,
    tag: Etag,
    head: HeaderMap,
}

impl Fixed {
    /// Codes `text` and computes its tag. This takes some milliseconds, so call it once.
    pub(super) fn new(text: String, head: &[(HeaderName, &'static str)]) -> Self {
        let plain = Bytes::from(text);
        let mut all = HeaderMap::new();
        for (name, value) in head {
            all.insert(name, HeaderValue::from_static(value));
        }
        all.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        all.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        Self {
            coded: CODING.encode(&plain).ok(),
            tag: Etag::of(&plain),
            plain,
            head: all,
        }
    }

    /// Adds a header whose value is known only at run time.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.head.insert(name, value);
        }
        self
    }

    /// Returns the plain text.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.plain).unwrap()
    }

    /// Returns a header's value.
    #[cfg(test)]
    pub(super) fn header(&self, name: &str) -> &str {
        self.head[name].to_str().unwrap()
    }

    /// Returns the answer: 304 if the caller has either form, otherwise the form that it prefers.
    ///
    /// # Errors
    /// Like other answers with a tag: 406 if the caller accepts no form, 412 if `If-Match` names
    /// another text.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Result<Answered, Problem> {
        let form = CODING.as_str();
        let accepted = accepted_of(headers)?;
        check_match(headers, Some(&self.tag))?;
        let coded = match accepted.codings().iter().any(|coding| coding == CODING) {
            true => self.coded.as_ref(),
            false => None,
        };
        let tag = match coded {
            Some(_) => self.tag.of_form(form),
            None => self.tag.value().clone(),
        };
        let held = none_match(headers, |one| {
            one == self.tag.value().as_bytes() || self.tag.names_form(one, form) || one == b"*"
        });
        let body = match held {
            true => AnswerBody::empty(),
            false => AnswerBody::full(coded.unwrap_or(&self.plain).clone()),
        };
        let mut response = Response::new(body);
        let head = response.headers_mut();
        *head = self.head.clone();
        head.insert(header::ETAG, tag);
        if held {
            head.remove(header::CONTENT_TYPE);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if coded.is_some() {
            head.insert(header::CONTENT_ENCODING, CODING.header_value());
        }
        Ok(response)
    }
}
