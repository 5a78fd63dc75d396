//! Turns errors into responses. No other room does.
//!
//! A [`Problem`] has a [`Code`], which is a word of the contract, and two texts: one for the caller
//! and one for the log. [`Problem::respond`] renders it as `application/problem+json` with the
//! vendors' own `error` member:
//!
//! ```text
//! ReadError ──From──▶ Problem { code, detail, log, retry_after, … } ──respond──▶ 503 + JSON
//! a layer's refusal ─▶ Problem::malformed(…), Problem::short_of(…), …
//! ```
//!
//! Add a code in `domain::problem_code`, its words for the API description in
//! `api::openapi::problems`, and a line to the tests here, which render every problem in the form
//! that callers see.
//!
//! What must never happen here:
//! - A text for the caller contains a key, a scroll id or a page token.
//! - A vendor's words reach a caller, except about a search that it rejected, cut and cleaned.
//! - Two codes share a word, or the status of a code depends on anything but the code.

mod from_read;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::value::RawValue;

use crate::access::Allowance;
use crate::clock::Duration;
use crate::domain::json::write_text;
use crate::domain::query::BodyProblem;
use crate::domain::{Route, Shortage, Vendor};
use crate::exchange::record::X_REQUEST_ID;
use crate::exchange::{AnswerBody, Answered, Record, RequestId};
use crate::store::STORE_RETRY;

pub use crate::domain::ProblemCode as Code;

/// Maximum size of a vendor body that is repeated inside a problem. N-able's account data is under
/// 1 KiB.
const VENDOR_BODY_BYTES_MAX: usize = 64 * 1024;

/// `Retry-After` of a request that was shed. The overload is usually over in milliseconds.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// `Retry-After` while exports fill their places. Exports take seconds.
const EXPORT_RETRY: Duration = Duration::from_secs(5);

/// Names of the policies in the `RateLimit` headers: for a minute, and for a burst.
const LIMIT_NAME: &str = "caller";
const BURST_NAME: &str = "burst";

/// A refusal or failure that is ready to be answered.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    // Rare members are behind one pointer, so that results which hold a problem stay small.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default)]
struct More {
    log: Option<Arc<str>>,
    error: Option<&'static str>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    vendor_body: Option<Bytes>,
    allowance: Option<Allowance>,
    shortage: Option<Shortage>,
    close: bool,
}

/// Returns the status that a code is answered with.
pub fn status_of(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Problem {
    /// Creates a problem. `detail` is the text for the caller.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            more: None,
        }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Creates the refusal of a request whose framing cannot be trusted. The connection is closed.
    pub fn malformed(detail: &'static str) -> Self {
        Self::new(Code::MalformedRequest, detail).closing()
    }

    /// Creates the refusal of a query or path parameter. `detail` names it.
    pub fn invalid_query(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidQuery, detail)
    }

    /// Creates the refusal of a body that does not fit the route.
    pub fn invalid_body(problem: &BodyProblem) -> Self {
        let mut this = Self::new(Code::InvalidBody, problem.to_string());
        if problem.is_not_a_dictionary() {
            this.more().error = Some("Request body must be a dictionary");
        }
        this
    }

    /// Creates the refusal of a request without a known caller key or client certificate. The text
    /// does not say which of these failed. `with_certificate` adds which certificate is expected.
    pub fn authentication_required(with_certificate: bool) -> Self {
        Self::new(
            Code::AuthenticationRequired,
            if with_certificate {
                "Send a caller key as \"Authorization: Bearer …\" or \"X-API-Key: …\", or present a client certificate that names one caller. If you send both, they must belong to the same caller."
            } else {
                "Send a caller key as \"Authorization: Bearer …\" or \"X-API-Key: …\"."
            },
        )
    }

    /// Creates the refusal of a request from a page of another site, or for a host name that is not
    /// ours.
    pub fn cross_site_refused() -> Self {
        Self::new(
            Code::CrossSiteRefused,
            "Cross-site requests and requests for another host name are refused on this listener.",
        )
    }

    /// Creates the refusal of a path that does not exist.
    pub fn not_found() -> Self {
        Self::new(
            Code::NotFound,
            "This path does not exist. /openapi.json lists all paths.",
        )
    }

    /// Creates the refusal of a method that the path does not have.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut this = Self::new(
            Code::MethodNotAllowed,
            format!("This path does not answer this method. It answers {allow}."),
        );
        this.more().allow = Some(allow);
        this
    }

    /// Creates the refusal of a request above the caller's own rate limit.
    pub fn caller_rate_limited(allowance: Allowance) -> Self {
        let mut this = Self::new(
            Code::CallerRateLimited,
            format!(
                "This caller has reached its limit of {} requests a minute, in bursts of at most {}.",
                allowance.per_minute, allowance.burst
            ),
        );
        this.more().retry_after = Some(Duration::from_secs(allowance.reset_s));
        this.more().allowance = Some(allowance);
        this
    }

    /// Creates the refusal for a shortage in the gateway itself. No vendor was called.
    pub fn short_of(shortage: Shortage) -> Self {
        let after = match shortage {
            Shortage::Exports
            | Shortage::CallerExports
            | Shortage::Followers
            | Shortage::CallerFollowers
            | Shortage::CallerSearches => EXPORT_RETRY,
            _ => SHED_RETRY,
        };
        let mut this = Self::new(Code::Overloaded, shortage.sentence())
            .logging(shortage.as_str())
            .retry_after(after);
        this.more().shortage = Some(shortage);
        this
    }

    /// Creates the refusal of every request while the store is away and the gateway is closed.
    pub fn store_unavailable() -> Self {
        let mut this =
            Self::new(Code::StoreUnavailable, Shortage::Store.sentence()).retry_after(STORE_RETRY);
        this.more().shortage = Some(Shortage::Store);
        this
    }

    /// Creates the failure for an answer that was not ready before the request's deadline. `vendor`
    /// is the one whose answer the request waited for, if that is known. The vendor may not have
    /// been called yet, if its budget or a place was short the whole time.
    pub fn timed_out(vendor: Option<Vendor>) -> Self {
        let detail = match vendor {
            Some(vendor) => format!(
                "No answer from {} arrived before the request's deadline. The gateway keeps waiting for it, so try again.",
                vendor.as_str()
            )
            .into(),
            None => Cow::Borrowed("The answer was not ready before the request's deadline. Try again."),
        };
        Self::new(Code::VendorTimeout, detail).retry_after(from_read::TIMEOUT_RETRY)
    }

    /// Creates the failure after a contained panic.
    pub fn internal(log: impl Into<Arc<str>>) -> Self {
        Self::new(
            Code::InternalError,
            "The gateway failed while it handled this request. Its log has the details under the request id.",
        )
        .logging(log)
    }

    /// Adds a text for the log only.
    pub fn logging(mut self, log: impl Into<Arc<str>>) -> Self {
        self.more().log = Some(log.into());
        self
    }

    /// Adds a `Retry-After`.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.more().retry_after = Some(after);
        self
    }

    /// Adds a `Retry-After`, if there is a time.
    pub fn maybe_retry_after(self, after: Option<Duration>) -> Self {
        match after {
            Some(after) => self.retry_after(after),
            None => self,
        }
    }

    /// Makes the answer close the connection.
    pub fn closing(mut self) -> Self {
        self.more().close = true;
        self
    }

    /// Adds the vendor's own answer, if it is JSON of a sensible size.
    fn with_vendor_body(mut self, body: Option<Bytes>) -> Self {
        let json = |body: &Bytes| {
            body.len() <= VENDOR_BODY_BYTES_MAX && serde_json::from_slice::<&RawValue>(body).is_ok()
        };
        if let Some(body) = body.filter(json) {
            self.more().vendor_body = Some(body);
        }
        self
    }

    /// Returns the code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the text for the caller.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Renders the answer to the request of `record`.
    pub fn respond(&self, record: &Record) -> Answered {
        let code = self.code;
        let more = self.more.as_deref();
        record.set_code(code.as_str());
        if let Some(shortage) = more.and_then(|m| m.shortage) {
            record.set_shortage(shortage);
        }
        if let Some(log) = more.and_then(|m| m.log.as_deref()) {
            tracing::warn!(
                request_id = record.id.as_str(),
                trace_id = record.trace_id(),
                route = record.route().as_str(),
                code = code.as_str(),
                detail = log,
                "request failed"
            );
        }
        let body = self.body(&record.id, record.route());
        let mut answer = http::Response::new(AnswerBody::full(body.into()));
        *answer.status_mut() = status_of(code);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.insert(X_REQUEST_ID.clone(), record.id.header_value());
        if code == Code::AuthenticationRequired {
            headers.insert(header::WWW_AUTHENTICATE, BEARER);
        }
        let Some(more) = more else {
            return answer;
        };
        if let Some(allow) = more.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(after) = more.retry_after {
            let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole.max(1)));
        }
        if let Some(allowance) = &more.allowance {
            tell_allowance(headers, allowance);
        }
        if more.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Renders the whole answer over HTTP/1.1, for a request that was not read. It closes the
    /// connection.
    pub fn unasked(&self) -> String {
        let id = RequestId::fresh();
        let body = self.body(&id, Route::Other);
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nx-request-id: {}\r\nconnection: close\r\n\r\n{body}",
            self.code.status(),
            // The space before the reason phrase belongs to the status line, even if the phrase is
            // empty.
            self.code.title(),
            body.len(),
            id.as_str(),
        )
    }

    fn body(&self, id: &RequestId, route: Route) -> String {
        let code = self.code;
        let more = self.more.as_deref();
        let error = more
            .and_then(|m| m.error)
            .or(code.vendor_text())
            .unwrap_or(code.title());
        let mut out = String::with_capacity(384);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "{{\"type\":\"urn:msp-gateway:{word}\",\"title\":\"{title}\",\"status\":{status},\"detail\":",
            word = code.as_str(),
            title = code.title(),
            status = code.status(),
        );
        write_text(&self.detail, &mut out);
        let _ = write!(
            out,
            ",\"error\":\"{error}\",\"code\":\"{}\",\"request_id\":\"{}\"",
            code.as_str(),
            id.as_str()
        );
        if matches!(route, Route::NableBilling | Route::NableInvoices) {
            // N-able's own clients read these two members.
            let message = match code {
                Code::AuthenticationRequired => "Unauthorized",
                _ => code.title(),
            };
            let _ = write!(
                out,
                ",\"message\":\"{message}\",\"http_status_code\":{}",
                code.status()
            );
        }
        if let Some(body) = more.and_then(|m| m.vendor_body.as_ref())
            && let Ok(text) = std::str::from_utf8(body)
        {
            out.push_str(",\"vendor_body\":");
            out.push_str(text.trim());
        }
        out.push('}');
        out
    }
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// Adds `RateLimit` and `RateLimit-Policy`. Two policies are in force, one for a burst and one for
/// a minute. A caller reaches the burst limit first, so `RateLimit` states what is left of that.
pub fn tell_allowance(headers: &mut http::HeaderMap, allowance: &Allowance) {
    let limit = format!(
        "\"{BURST_NAME}\";r={};t={}",
        allowance.remaining, allowance.reset_s
    );
    let policy = format!(
        "\"{BURST_NAME}\";q={};w={}, \"{LIMIT_NAME}\";q={};w=60",
        allowance.burst, allowance.burst_s, allowance.per_minute
    );
    for (name, text) in [("ratelimit", limit), ("ratelimit-policy", policy)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests;
