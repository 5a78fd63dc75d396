//! The only place where errors become responses.
//!
//! What goes outside and what goes to the log are two texts. The first never holds a key or a scroll
//! id, and of a vendor's words only those about a search that it rejected, cut and cleaned.

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

pub use crate::domain::ProblemCode as Code;

/// Largest vendor body that is repeated inside a problem. N-able's account data is under 1 KiB.
const VENDOR_BODY_BYTES_MAX: usize = 64 * 1024;

/// When to come back after being shed: one second, since what sheds is over in milliseconds.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// When to come back where exports fill their places: they take seconds.
const EXPORT_RETRY: Duration = Duration::from_secs(5);

/// The policies' names in `RateLimit` headers: of a minute, and of what may come at once.
const LIMIT_NAME: &str = "caller";
const BURST_NAME: &str = "burst";

/// A refusal or failure, ready to be told.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    // Rare members behind one pointer: results that hold a problem stay small.
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
    /// A problem and what a caller should know of it.
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

    /// The request's framing cannot be trusted: nothing more is read from the connection.
    pub fn malformed(detail: &'static str) -> Self {
        Self::new(Code::MalformedRequest, detail).closing()
    }

    /// A query or path parameter, which the detail names.
    pub fn invalid_query(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidQuery, detail)
    }

    /// A body that is not what the route takes.
    pub fn invalid_body(problem: &BodyProblem) -> Self {
        let mut this = Self::new(Code::InvalidBody, problem.to_string());
        if problem.is_not_a_dictionary() {
            this.more().error = Some("Request body must be a dictionary");
        }
        this
    }

    /// No caller key and no client certificate that names a caller, or not a known one: one text for
    /// all. With a certificate it also says what that must be.
    pub fn authentication_required(with_certificate: bool) -> Self {
        Self::new(
            Code::AuthenticationRequired,
            if with_certificate {
                "Send a caller key as \"Authorization: Bearer …\" or \"X-API-Key: …\", or come with a client certificate that names one caller; if both, of the same caller."
            } else {
                "Send a caller key as \"Authorization: Bearer …\" or \"X-API-Key: …\"."
            },
        )
    }

    /// A browser asks on behalf of a page of another site, or under a name that is not ours.
    pub fn cross_site_refused() -> Self {
        Self::new(
            Code::CrossSiteRefused,
            "Web pages of other sites may not ask this, nor anybody under a host name that is not this listener's.",
        )
    }

    /// No such path.
    pub fn not_found() -> Self {
        Self::new(
            Code::NotFound,
            "There is no such path here; /openapi.json lists all.",
        )
    }

    /// The path, but not with this method.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut this = Self::new(
            Code::MethodNotAllowed,
            format!("This path answers {allow}."),
        );
        this.more().allow = Some(allow);
        this
    }

    /// The caller's own rate limit.
    pub fn caller_rate_limited(allowance: Allowance) -> Self {
        let mut this = Self::new(
            Code::CallerRateLimited,
            format!(
                "This caller may send {} requests a minute, and {} of them at once.",
                allowance.per_minute, allowance.burst
            ),
        );
        this.more().retry_after = Some(Duration::from_secs(allowance.reset_s));
        this.more().allowance = Some(allowance);
        this
    }

    /// The gateway itself has too little of something; nothing was asked of a vendor.
    pub fn short_of(shortage: Shortage) -> Self {
        let after = match shortage {
            Shortage::Exports
            | Shortage::CallerExports
            | Shortage::Followers
            | Shortage::CallerFollowers => EXPORT_RETRY,
            _ => SHED_RETRY,
        };
        let mut this = Self::new(Code::Overloaded, shortage.sentence())
            .logging(shortage.as_str())
            .retry_after(after);
        this.more().shortage = Some(shortage);
        this
    }

    /// The answer was not ready in time; who is waited for, if that is known.
    pub fn timed_out(vendor: Option<Vendor>) -> Self {
        let detail = match vendor {
            Some(vendor) => format!(
                "{} did not answer in time; its answer is still awaited, so ask again.",
                vendor.as_str()
            )
            .into(),
            None => Cow::Borrowed("The answer was not ready in time; ask again."),
        };
        Self::new(Code::VendorTimeout, detail).retry_after(from_read::TIMEOUT_RETRY)
    }

    /// A contained panic.
    pub fn internal(log: impl Into<Arc<str>>) -> Self {
        Self::new(
            Code::InternalError,
            "The gateway failed at this request; the log tells more under the request id.",
        )
        .logging(log)
    }

    /// The same with a text for the log only.
    pub fn logging(mut self, log: impl Into<Arc<str>>) -> Self {
        self.more().log = Some(log.into());
        self
    }

    /// The same with a time to come back.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.more().retry_after = Some(after);
        self
    }

    /// The same with a time to come back, where one is known.
    pub fn maybe_retry_after(self, after: Option<Duration>) -> Self {
        match after {
            Some(after) => self.retry_after(after),
            None => self,
        }
    }

    /// The same, and the connection ends with it.
    pub fn closing(mut self) -> Self {
        self.more().close = true;
        self
    }

    /// The same with the vendor's own answer, if it is JSON of a sensible size.
    fn with_vendor_body(mut self, body: Option<Bytes>) -> Self {
        let json = |body: &Bytes| {
            body.len() <= VENDOR_BODY_BYTES_MAX && serde_json::from_slice::<&RawValue>(body).is_ok()
        };
        if let Some(body) = body.filter(json) {
            self.more().vendor_body = Some(body);
        }
        self
    }

    /// What kind of problem.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What the caller is told beyond the title.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the answer to `record`'s request.
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

    /// Returns the whole answer over HTTP/1.1, for somebody whose request was not read. The
    /// connection ends with it.
    pub fn unasked(&self) -> String {
        let id = RequestId::fresh();
        let body = self.body(&id, Route::Other);
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nx-request-id: {}\r\nconnection: close\r\n\r\n{body}",
            self.code.status(),
            // The space before the words is part of a status line, whatever the words are.
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
            // N-able's own clients look for these two.
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

/// Adds `RateLimit` and `RateLimit-Policy`. Two policies are in force: so many at once, and so many a
/// minute. The first is what a caller meets first, so what is left is told of it.
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
