//! Sends one signed request and reads the whole answer. Every fault of a vendor call gets its name
//! here.

use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Builder, Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{Timed, VendorConnector};
use super::step::Transport;
use super::tally::Tally;
use super::{
    ConnectCause, Fault, Over, UpstreamError, VendorAnswer, VendorOptions, VendorRow, body, decode,
    said,
};
use crate::admission::{Governor, limits};
use crate::clock::{Clock, Duration, timeout};
use crate::domain::Operation;

/// The maximum size of a refusal's body.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// The longest wait for the body of a refusal. The message is not worth a longer wait.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);
/// Memory reserved before the first byte of a body. It grows with the bytes that arrive.
const BODY_BYTES_FIRST: usize = 256 << 10;
/// The most headers of an answer over HTTP/1. Vendors behind several proxies send about 50, and
/// hyper's own limit of 100 has been reached in practice.
const HEADERS_MAX: usize = 512;
/// HTTP/2: the maximum size of an answer's headers.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// HTTP/2: bytes a vendor may send before we read them, per answer and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// HTTP/2: how often a silent connection with requests in progress is checked, and how long its
/// answer may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(10);

/// hyper-util's text for a request that it returns unsent, because its connection closed before
/// anything was written. It has no method for this.
const HANDED_BACK: &str = "client error (Canceled)";

type VendorClient<C> = Client<Timed<C>, Full<Bytes>>;

/// Connections to one vendor.
pub struct Wire<C> {
    /// Keeps connections. If one of them proves stale, the whole pool is replaced: the others were
    /// idle as long, and each would cost another request to find out.
    pool: ArcSwap<VendorClient<C>>,
    /// Opens a connection for each request.
    single: VendorClient<C>,
    builder: Builder,
    connector: Timed<C>,
    body_bytes_max: usize,
    row: &'static VendorRow,
    governor: Arc<Governor>,
    clock: Clock,
}

impl<C: VendorConnector> Wire<C> {
    /// Creates a client without connections. It follows no redirect and sends nothing twice.
    pub fn new(
        options: &VendorOptions,
        governor: Arc<Governor>,
        clock: Clock,
        connector: C,
    ) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .retry_canceled_requests(false)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.concurrency)
            .http1_max_headers(HEADERS_MAX)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_WAIT);
        let connector = Timed::new(connector, options.connect_timeout);
        Self {
            pool: ArcSwap::from_pointee(builder.build(connector.clone())),
            single: builder
                .clone()
                .pool_max_idle_per_host(0)
                .build(connector.clone()),
            builder,
            connector,
            body_bytes_max: options.body_bytes_max,
            row: options.row,
            governor,
            clock,
        }
    }
}

/// The connection that carries a request.
struct Carrier {
    /// Whether it carried another request before.
    reused: bool,
    /// Whether requests share the connection (HTTP/2), so that bytes read from it say nothing about
    /// this request.
    shared: bool,
    tally: Tally,
    read_before: u64,
}

impl Carrier {
    fn new(connection: &CaptureConnection) -> Option<Self> {
        let metadata = connection.connection_metadata();
        let connected = metadata.as_ref()?;
        let tally = Tally::of(connected)?;
        Some(Self {
            reused: tally.begin() > 0,
            shared: connected.is_negotiated_h2(),
            read_before: tally.bytes_read(),
            tally,
        })
    }

    /// Returns whether a request without an answer used a connection that had already ended.
    fn was_stale(&self) -> bool {
        self.reused && (self.shared || self.tally.bytes_read() == self.read_before)
    }
}

/// The head of an answer, or why there is none, and the connection of the request.
struct Sent {
    result: Result<Response<Incoming>, ClientError>,
    carrier: Option<Carrier>,
}

impl<C: VendorConnector> Transport for Wire<C> {
    async fn exchange(
        &self,
        operation: Operation,
        request: Request<Full<Bytes>>,
        over: Over,
    ) -> Result<VendorAnswer, UpstreamError> {
        let response = self.head(operation, request, over).await?;
        let hold = self.governor.hear(response.status(), response.headers());
        if let Some((fault, detail)) = refusal(response.status()) {
            // Boxed, because refusals are rare and every call would carry the room for one.
            let refused = self.refused(operation, response, fault, detail, hold);
            return Err(Box::pin(refused).await);
        }
        let (head, body) = response.into_parts();
        let status = head.status;
        let of_body = |(fault, detail): body::BodyFault| {
            UpstreamError::new(operation, fault, detail).with_status(status)
        };
        let body = collect(body, &head.headers, self.body_bytes_max)
            .await
            .map_err(of_body)?;
        let body = decode::decoded(&head.headers, body, self.body_bytes_max)
            .await
            .map_err(of_body)?;
        let body = body::without_mark(body);
        if let Some(status) = said::status_in(self.row, &body)
            && let Some((fault, _)) = refusal(status)
        {
            let hold = match fault {
                Fault::RateLimited => self.governor.hear(status, &head.headers),
                _ => None,
            };
            let detail = format!("status 200 with an error of status {}", status.as_u16());
            let mut error = UpstreamError::new(operation, fault, detail).with_status(status);
            error.retry_after = hold;
            self.keep_words(&mut error, body);
            return Err(error);
        }
        Ok(VendorAnswer {
            status,
            headers: head.headers,
            body,
        })
    }
}

impl<C: VendorConnector> Wire<C> {
    /// Sends a request until the vendor may have seen it, and waits for the head of its answer.
    async fn head(
        &self,
        operation: Operation,
        request: Request<Full<Bytes>>,
        over: Over,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let pool = self.pool.load_full();
        let client = match over {
            Over::Any => &*pool,
            Over::New => &self.single,
        };
        let mut sent = self.send(operation, client, request.clone()).await?;
        let handed_back = |sent: &Sent| {
            let error = sent.result.as_ref().err();
            error.is_some_and(|error| error.to_string() == HANDED_BACK)
        };
        let mut over = over;
        if over == Over::Any && handed_back(&sent) {
            // The kept connection closed before a byte was written, so the next attempt is the
            // first.
            over = Over::New;
            sent = self.send(operation, &self.single, request).await?;
        }
        let carrier = sent.carrier.as_ref();
        let was_stale = over == Over::Any && carrier.is_some_and(Carrier::was_stale);
        match sent.result {
            Ok(response) if was_late_farewell(&response, over, carrier) => {
                self.renew(&pool);
                let detail = "status 408 on a kept connection: it had timed out";
                Err(
                    UpstreamError::new(operation, Fault::StaleConnection, detail)
                        .with_status(response.status()),
                )
            }
            Ok(response) => Ok(response),
            Err(error) if over == Over::Any && was_not_handled(&error) => {
                let detail = "the vendor said that it had not processed the request";
                Err(UpstreamError::new(
                    operation,
                    Fault::StaleConnection,
                    detail,
                ))
            }
            Err(error) if was_stale && !error.is_connect() && !was_reset(&error) => {
                self.renew(&pool);
                let detail = "the kept connection ended before an answer";
                Err(UpstreamError::new(
                    operation,
                    Fault::StaleConnection,
                    detail,
                ))
            }
            Err(error) => Err(unanswered(operation, &error)),
        }
    }

    /// Sends a request once.
    ///
    /// Opening a connection may take a while. If the vendor asks for a wait meanwhile, the call is
    /// refused like new ones.
    async fn send(
        &self,
        operation: Operation,
        client: &VendorClient<C>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Sent, UpstreamError> {
        let connection = capture_connection(&mut request);
        let mut sending = pin!(client.request(request));
        let mut carrier = None;
        let result = poll_fn(|cx| {
            // The client writes to a connection in the same poll in which it is reported here.
            if carrier.is_none()
                && let Err(refusal) = self.governor.may_still_send()
            {
                return Poll::Ready(Err(UpstreamError::short_of(operation, refusal)));
            }
            let sent = sending.as_mut().poll(cx);
            if carrier.is_none() {
                carrier = Carrier::new(&connection);
            }
            sent.map(Ok)
        })
        .await?;
        Ok(Sent { result, carrier })
    }

    /// Replaces the pool if it is still `stale`, which drops its kept connections. Requests in
    /// progress continue.
    fn renew(&self, stale: &Arc<VendorClient<C>>) {
        let fresh = Arc::new(self.builder.build(self.connector.clone()));
        self.pool.compare_and_swap(stale, fresh);
    }
}

impl<C> Wire<C> {
    /// Returns the error of a refusal with the vendor's cleaned message. N-able's body of a 400 and
    /// a 404 is kept too, because it says which variable was wrong.
    async fn refused(
        &self,
        operation: Operation,
        response: Response<Incoming>,
        fault: Fault,
        detail: &'static str,
        hold: Option<Duration>,
    ) -> UpstreamError {
        let (head, body) = response.into_parts();
        let detail = match detail {
            "" => format!("status {}", head.status.as_u16()),
            detail => format!("status {}: {detail}", head.status.as_u16()),
        };
        let mut error = UpstreamError::new(operation, fault, detail).with_status(head.status);
        error.retry_after = match fault {
            Fault::RateLimited => hold,
            Fault::ServerError => limits::retry_after(&head.headers, self.clock.wall())
                .map(|wait| wait.min(self.governor.hold_down_max())),
            _ => None,
        };
        let reading = async {
            let body = collect(body, &head.headers, REFUSAL_BYTES_MAX).await?;
            decode::decoded(&head.headers, body, REFUSAL_BYTES_MAX).await
        };
        if let Ok(Ok(body)) = timeout(REFUSAL_WAIT, reading).await {
            self.keep_words(&mut error, body::without_mark(body));
        }
        error
    }

    /// Adds the message in the body of a refusal.
    fn keep_words(&self, error: &mut UpstreamError, body: Bytes) {
        error.said = said::words(&body).map(Into::into);
        let kept = matches!(error.fault, Fault::Rejected | Fault::NotFound)
            && self.row.keeps_refusals
            && body::json_text(&body).is_ok();
        error.vendor_body = kept.then_some(body);
    }
}

/// Returns the fault of a status other than success, with a text if the number alone is not clear.
fn refusal(status: StatusCode) -> Option<(Fault, &'static str)> {
    Some(match status.as_u16() {
        // A partial answer is useless, because no Range was requested.
        206 => (Fault::UnexpectedStatus, "a part of an answer"),
        200..=299 => return None,
        300..=399 => (Fault::Redirected, "a redirect, which is never followed"),
        400 => (Fault::Rejected, ""),
        401 | 403 => (Fault::CredentialRejected, ""),
        404 => (Fault::NotFound, ""),
        429 => (Fault::RateLimited, ""),
        500..=599 => (Fault::ServerError, ""),
        _ => (Fault::UnexpectedStatus, "not a documented status"),
    })
}

/// Reads a body to its end, within the size limit.
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
    let whole = declared.and_then(|n| usize::try_from(n).ok());
    let mut out: Vec<u8> = Vec::with_capacity(whole.unwrap_or(0).min(BODY_BYTES_FIRST));
    while let Some(frame) = body.frame().await {
        // Trailers do not belong to the body.
        let Ok(data) = frame.map_err(|_| CUT)?.into_data() else {
            continue;
        };
        if data.len() > bytes_max - out.len() {
            return Err(TOO_LARGE);
        }
        if data.len() > out.capacity() - out.len() {
            // Doubles, but makes no room past the declared length.
            let left = whole.map_or(usize::MAX, |whole| whole.saturating_sub(out.len()));
            out.reserve_exact(left.min(out.len()).max(data.len()));
        }
        out.extend_from_slice(&data);
    }
    if declared.is_some_and(|n| n != out.len() as u64) {
        return Err(CUT);
    }
    // Snapshots keep rows within the body, so nothing unused may hang on it.
    out.shrink_to_fit();
    Ok(out.into())
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, (Fault, &'static str)> {
    const BAD: (Fault, &str) = (Fault::Malformed, "a Content-Length that is not a number");
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| BAD)?;
    text.trim().parse().map(Some).map_err(|_| BAD)
}

/// Returns whether a 408 is about the idle time of a kept connection, and not about this request.
fn was_late_farewell(response: &Response<Incoming>, over: Over, carrier: Option<&Carrier>) -> bool {
    let closes = response
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    over == Over::Any
        && response.status() == StatusCode::REQUEST_TIMEOUT
        && closes
        && carrier.is_some_and(|carrier| carrier.reused)
}

/// Returns whether the vendor guarantees over HTTP/2 that it did not process the request (RFC 9113,
/// section 8.7).
fn was_not_handled(error: &ClientError) -> bool {
    of_http2(error).is_some_and(|http2| {
        let refused = http2.reason() == Some(h2::Reason::REFUSED_STREAM);
        http2.is_remote() && (http2.is_go_away() || (http2.is_reset() && refused))
    })
}

/// Returns whether the vendor ended only this request, on a connection that continues.
fn was_reset(error: &ClientError) -> bool {
    of_http2(error).is_some_and(h2::Error::is_reset)
}

fn of_http2(error: &ClientError) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(http2) = cause.downcast_ref() {
            return Some(http2);
        }
        source = cause.source();
    }
    None
}

/// Returns the error for a request without the head of an answer.
fn unanswered(operation: Operation, error: &ClientError) -> UpstreamError {
    if error.is_connect() {
        let cause = ConnectCause::of(error);
        let mut error = UpstreamError::new(operation, Fault::Connect, cause.text());
        error.cause = Some(cause);
        return error;
    }
    if error.to_string() == HANDED_BACK {
        let detail = "the connection closed before anything was sent";
        let mut error = UpstreamError::new(operation, Fault::Connect, detail);
        error.cause = Some(ConnectCause::Closed);
        return error;
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
