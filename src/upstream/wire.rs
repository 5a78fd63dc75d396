//! Sends one signed request and reads the whole answer: where faults are born.

use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body;
use super::connect::{Timed, VendorConnector};
use super::step::Transport;
use super::{Fault, UpstreamError, VendorAnswer, VendorOptions};
use crate::admission::{Governor, limits};
use crate::clock::{Clock, Duration};
use crate::domain::{Operation, Vendor};

/// Largest body of a refusal that is kept for the caller.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Memory set aside before the first byte of a body; it grows with what really arrives.
const BODY_BYTES_FIRST: usize = 256 << 10;
/// HTTP/2: largest block of answer headers.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// HTTP/2: bytes a vendor may send before we read them, per answer and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// HTTP/2: how often a silent connection with requests under way is checked, and how long its
/// answer may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(10);

/// What hyper-util calls a request that was handed back whole, because its idle connection closed
/// just before anything was written. It has no method that says so.
const HANDED_BACK: &str = "client error (Canceled)";

/// Connections to one vendor.
pub struct Wire<C> {
    sender: Client<Timed<C>, Full<Bytes>>,
    body_bytes_max: usize,
    governor: Arc<Governor>,
    clock: Clock,
}

impl<C: VendorConnector> Wire<C> {
    /// No connection is made yet. Redirects are not followed, nothing is sent twice.
    pub fn new(
        options: &VendorOptions,
        governor: Arc<Governor>,
        clock: Clock,
        connector: C,
    ) -> Self {
        let sender = Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.concurrency)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_WAIT)
            .build(Timed::new(connector, options.connect_timeout));
        Self {
            sender,
            body_bytes_max: options.body_bytes_max,
            governor,
            clock,
        }
    }
}

impl<C: VendorConnector> Transport for Wire<C> {
    async fn exchange(
        &self,
        operation: Operation,
        request: Request<Full<Bytes>>,
    ) -> Result<VendorAnswer, UpstreamError> {
        let response = self.send(operation, request).await?;
        let hold = self.governor.hear(response.status(), response.headers());
        if let Some((fault, detail)) = refusal(response.status()) {
            return Err(self.refused(operation, response, fault, detail, hold).await);
        }
        let (head, body) = response.into_parts();
        if !is_identity(&head.headers) {
            let detail = "the body is encoded although no encoding was accepted";
            return Err(
                UpstreamError::new(operation, Fault::Malformed, detail).with_status(head.status)
            );
        }
        let body = collect(body, &head.headers, self.body_bytes_max)
            .await
            .map_err(|(fault, detail)| {
                UpstreamError::new(operation, fault, detail).with_status(head.status)
            })?;
        Ok(VendorAnswer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

impl<C: VendorConnector> Wire<C> {
    /// Sends a request and waits for the head of its answer.
    ///
    /// Getting a connection takes time, because one must be made or another call must end. Whoever
    /// gets one only after the vendor said stop is refused like those who ask now.
    async fn send(
        &self,
        operation: Operation,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let connection = capture_connection(&mut request);
        let mut sending = pin!(self.sender.request(request));
        poll_fn(|cx| {
            // The client writes to a connection in the same poll that notes it here.
            if connection.connection_metadata().is_none()
                && let Err(refusal) = self.governor.may_still_send()
            {
                let stopped = UpstreamError::new(operation, Fault::BudgetExhausted, refusal.why);
                return Poll::Ready(Err(stopped.with_retry_after(refusal.retry_after)));
            }
            let sent = sending.as_mut().poll(cx);
            sent.map_err(|error| unanswered(operation, &error))
        })
        .await
    }
}

impl<C> Wire<C> {
    /// Bodies of refusals are dropped unread, because they may echo a key; N-able's 400 and 404 are
    /// kept, because they say which variable was wrong.
    async fn refused(
        &self,
        operation: Operation,
        response: Response<Incoming>,
        fault: Fault,
        detail: &'static str,
        hold: Option<Duration>,
    ) -> UpstreamError {
        let (head, body) = response.into_parts();
        let mut error = UpstreamError::new(operation, fault, detail).with_status(head.status);
        error.retry_after = match fault {
            Fault::RateLimited => hold,
            Fault::ServerError => limits::retry_after(&head.headers, self.clock.wall()),
            _ => None,
        };
        let kept = matches!(fault, Fault::Rejected | Fault::NotFound)
            && operation.vendor() == Vendor::Nable
            && is_identity(&head.headers);
        if kept {
            error.vendor_body = collect(body, &head.headers, REFUSAL_BYTES_MAX)
                .await
                .ok()
                .filter(|bytes| body::json_text(bytes).is_ok());
        }
        error
    }
}

/// What a status other than success means.
fn refusal(status: StatusCode) -> Option<(Fault, &'static str)> {
    Some(match status.as_u16() {
        // Without a Range request a part is no answer.
        206 => (Fault::UnexpectedStatus, "a part of an answer"),
        200..=299 => return None,
        300..=399 => (Fault::Redirected, "a redirect, which is never followed"),
        400 => (Fault::Rejected, "status 400"),
        401 => (Fault::CredentialRejected, "status 401"),
        403 => (Fault::CredentialRejected, "status 403"),
        404 => (Fault::NotFound, "status 404"),
        429 => (Fault::RateLimited, "status 429"),
        500..=599 => (Fault::ServerError, "a 5xx status"),
        _ => (Fault::UnexpectedStatus, "an undocumented status"),
    })
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Reads a body to its end, counting.
async fn collect(
    mut body: Incoming,
    headers: &HeaderMap,
    bytes_max: usize,
) -> Result<Bytes, (Fault, &'static str)> {
    const TOO_LARGE: (Fault, &str) = (Fault::TooLarge, "the body is larger than the limit");
    const CUT: (Fault, &str) = (Fault::BodyCut, "the connection ended within the body");
    let declared = declared_length(headers)?;
    if declared.is_some_and(|n| n > bytes_max as u64) || body.size_hint().lower() > bytes_max as u64
    {
        return Err(TOO_LARGE);
    }
    let first = declared.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let mut out = BytesMut::with_capacity(first.min(BODY_BYTES_FIRST));
    while let Some(frame) = body.frame().await {
        // Trailers are no part of the body.
        let Ok(data) = frame.map_err(|_| CUT)?.into_data() else {
            continue;
        };
        if data.len() > bytes_max - out.len() {
            return Err(TOO_LARGE);
        }
        out.extend_from_slice(&data);
    }
    if declared.is_some_and(|n| n != out.len() as u64) {
        return Err(CUT);
    }
    Ok(out.freeze())
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, (Fault, &'static str)> {
    const BAD: (Fault, &str) = (Fault::Malformed, "a Content-Length that is no number");
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| BAD)?;
    text.trim().parse().map(Some).map_err(|_| BAD)
}

/// What it means that no head of an answer came.
fn unanswered(operation: Operation, error: &hyper_util::client::legacy::Error) -> UpstreamError {
    if error.is_connect() {
        return UpstreamError::new(operation, Fault::Connect, connect_detail(error));
    }
    if error.to_string() == HANDED_BACK {
        let detail = "the idle connection closed before anything was sent";
        return UpstreamError::new(operation, Fault::Connect, detail);
    }
    let hyper = error
        .source()
        .and_then(|e| e.downcast_ref::<hyper::Error>());
    let (fault, detail) = match hyper {
        Some(e) if e.is_parse_too_large() => (Fault::TooLarge, "the head is too large"),
        Some(e) if e.is_parse() => (Fault::Malformed, "the head is not HTTP"),
        Some(e) if e.is_incomplete_message() => {
            (Fault::Reset, "the connection closed before an answer")
        }
        _ => (Fault::Reset, "the connection ended before an answer"),
    };
    UpstreamError::new(operation, fault, detail)
}

/// Why no connection was made, in words of our own: certificates may hold any text.
fn connect_detail(error: &hyper_util::client::legacy::Error) -> String {
    let mut detail = "no connection".to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_detail(tls).into();
        }
        source = match cause.downcast_ref::<io::Error>() {
            // TLS errors travel inside I/O errors, which do not name them as their source.
            Some(io) => {
                detail = io.kind().to_string();
                io.get_ref()
                    .map(|inner| inner as &(dyn std::error::Error + 'static))
            }
            None => cause.source(),
        };
    }
    detail
}

fn tls_detail(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(problem) => match problem {
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "the certificate has expired"
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "the certificate is not valid yet"
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "the certificate is for another host"
            }
            Certificate::UnknownIssuer => "the certificate's issuer is unknown",
            Certificate::Revoked => "the certificate was revoked",
            _ => "the certificate is not valid",
        },
        Error::AlertReceived(_) => "the vendor ended the TLS handshake",
        _ => "the TLS handshake failed",
    }
}
