//! The task that sends spans to the collector.
//!
//! It gathers spans for [`GATHER`] and sends at most [`BATCH_SPANS_MAX`] of them at once. A batch
//! is sent up to [`ATTEMPTS_MAX`] times if the collector's answer allows a retry. While a batch is
//! being sent, the queue fills. The queue drops and counts spans that do not fit.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::rt::{Read, Write};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{mpsc, watch};
use tower::Service;

use super::span::FinishedSpan;
use super::wire::{self, Exported, Resource};
use super::{CollectorUrl, TraceOptions};
use crate::clock::{Clock, Duration, Instant, sleep, sleep_until, timeout, timeout_at};
use crate::metrics::{SpanDrop, TraceMetrics};

/// Spans in one export; some 300 KiB.
pub(super) const BATCH_SPANS_MAX: usize = 512;
/// How long spans gather before they are sent, counted from the first.
pub(super) const GATHER: Duration = Duration::from_secs(2);
/// Time limit of one attempt, from connecting to the end of the answer.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Attempts for one batch.
pub(super) const ATTEMPTS_MAX: u32 = 3;
/// Pause before the second attempt. It is twice as long before the third.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a collector's `Retry-After` can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Maximum bytes of a collector's answer, which contains only the number of rejected spans.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long an idle connection is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("msp-gateway/", env!("CARGO_PKG_VERSION")));

/// Makes connections to a collector.
pub trait CollectorConnector:
    Service<
        Uri,
        Response: Read + Write + Connection + Unpin + Send + 'static,
        Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        Future: Send + Unpin + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<C> CollectorConnector for C where
    C: Service<
            Uri,
            Response: Read + Write + Connection + Unpin + Send + 'static,
            Error: Into<Box<dyn std::error::Error + Send + Sync>>,
            Future: Send + Unpin + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Returns the connector over the network. Certificates are checked against the system's roots, or
/// Mozilla's where the system has none.
///
/// # Errors
/// If TLS cannot be set up at all.
pub fn collector_connector(
    collector: &CollectorUrl,
) -> Result<HttpsConnector<HttpConnector>, rustls::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match collector.is_https() {
        // Reading the roots takes a while, so it is done only where a certificate is checked.
        true => match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            Err(_) => builder.with_webpki_roots(),
        },
        false => builder.with_root_certificates(RootCertStore::empty()),
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(builder.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(connector)
}

pub(super) struct Exporter<C> {
    client: Client<C, Full<Bytes>>,
    target: Uri,
    headers: HeaderMap,
    resource: Resource,
    clock: Clock,
    metrics: Arc<TraceMetrics>,
}

/// How one attempt failed.
struct Failure {
    why: SpanDrop,
    status: Option<StatusCode>,
    /// Whether the same batch may be sent again.
    passing: bool,
    /// The pause that the collector asked for.
    after: Option<Duration>,
}

impl Failure {
    fn passing(why: SpanDrop) -> Self {
        Self {
            why,
            status: None,
            passing: true,
            after: None,
        }
    }
}

/// Waits until the exporter must end. Returns its deadline.
async fn told_to_end(closing: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match closing.wait_for(Option::is_some).await.map(|until| *until) {
        Ok(Some(until)) => until,
        // The last handle was dropped, and the last sender of spans with it. The end of the queue
        // shows that.
        Ok(None) | Err(_) => pending().await,
    }
}

impl<C: CollectorConnector> Exporter<C> {
    pub(super) fn new(
        options: &TraceOptions,
        connector: C,
        clock: Clock,
        metrics: Arc<TraceMetrics>,
    ) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(1)
            .build(connector);
        let mut headers = options.headers.to_map();
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        headers.insert(header::ACCEPT, PROTOBUF);
        headers.insert(header::USER_AGENT, USER_AGENT);
        let instance = format!("{:032x}", fastrand::u128(1..));
        Self {
            client,
            target: options.collector.target().clone(),
            headers,
            resource: wire::resource(&instance),
            clock,
            metrics,
        }
    }

    /// Exports until the end is requested or every sender of spans is dropped.
    pub(super) async fn run(
        self,
        mut waiting: mpsc::Receiver<FinishedSpan>,
        mut closing: watch::Receiver<Option<Instant>>,
    ) {
        let mut batch = Vec::with_capacity(BATCH_SPANS_MAX);
        let end = loop {
            let mut end = None;
            let came = tokio::select! {
                came = waiting.recv_many(&mut batch, BATCH_SPANS_MAX) => came,
                until = told_to_end(&mut closing) => break until,
            };
            if came == 0 {
                return;
            }
            let until = self.clock.now() + GATHER;
            while batch.len() < BATCH_SPANS_MAX && end.is_none() {
                let room = BATCH_SPANS_MAX - batch.len();
                tokio::select! {
                    more = timeout_at(until, waiting.recv_many(&mut batch, room)) => match more {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    },
                    until = told_to_end(&mut closing) => end = Some(until),
                }
            }
            if end.is_none() {
                // An export in progress continues until the time for the end is over.
                let limit = async {
                    let until = told_to_end(&mut closing).await;
                    sleep_until(until).await;
                };
                let sent = tokio::select! {
                    () = self.deliver(&batch) => true,
                    () = limit => false,
                };
                if !sent {
                    self.metrics.dropped(SpanDrop::Closed, batch.len());
                }
                batch.clear();
                continue;
            }
            if let Some(until) = end {
                break until;
            }
        };
        self.finish(waiting, batch, end).await;
    }

    /// Sends the remaining spans until `end`, each batch once.
    async fn finish(
        &self,
        mut waiting: mpsc::Receiver<FinishedSpan>,
        mut batch: Vec<FinishedSpan>,
        end: Instant,
    ) {
        waiting.close();
        loop {
            while batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = waiting.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let left = end.saturating_duration_since(self.clock.now());
            match timeout(left, self.send(&batch)).await {
                Ok(Ok(rejected)) => self.count(batch.len(), rejected),
                Ok(Err(failure)) => self.metrics.dropped(failure.why, batch.len()),
                Err(_) => self.metrics.dropped(SpanDrop::Closed, batch.len()),
            }
            batch.clear();
        }
    }

    /// Sends a batch. Retries if that may help, and drops the batch otherwise.
    async fn deliver(&self, batch: &[FinishedSpan]) {
        let mut attempt = 1;
        loop {
            let failure = match self.send(batch).await {
                Ok(rejected) => {
                    self.count(batch.len(), rejected);
                    return;
                }
                Err(failure) => failure,
            };
            if self.metrics.up.get() != 0 {
                self.metrics.up.set(0);
                let status = failure.status.map(|status| status.as_u16());
                tracing::warn!(
                    why = failure.why.as_str(),
                    status,
                    "spans cannot be exported; they are dropped and counted until the collector accepts them"
                );
            }
            if !failure.passing || attempt >= ATTEMPTS_MAX {
                self.metrics.dropped(failure.why, batch.len());
                return;
            }
            let pause = PAUSE.saturating_mul(1 << (attempt - 1));
            let pause = pause.max(failure.after.unwrap_or_default()).min(PAUSE_MAX);
            attempt += 1;
            sleep(pause).await;
        }
    }

    fn count(&self, spans: usize, rejected: usize) {
        let rejected = rejected.min(spans);
        self.metrics.dropped(SpanDrop::Rejected, rejected);
        self.metrics.exported(spans - rejected);
        if self.metrics.up.get() != 1 {
            self.metrics.up.set(1);
            tracing::info!("spans are exported");
        }
    }

    /// Sends a batch once. Returns how many of its spans the collector rejected.
    async fn send(&self, batch: &[FinishedSpan]) -> Result<usize, Failure> {
        let wall_ns = self.clock.wall().as_nanosecond();
        let body = wire::export(&self.resource, batch, self.clock.now(), wall_ns);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        match timeout(ATTEMPT_LIMIT, self.answered(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Failure::passing(SpanDrop::Timeout)),
        }
    }

    async fn answered(&self, request: Request<Full<Bytes>>) -> Result<usize, Failure> {
        let unreachable = |_: ClientError| Failure::passing(SpanDrop::Unreachable);
        let response = self.client.request(request).await.map_err(unreachable)?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(Failure {
                why: SpanDrop::Refused,
                status: Some(head.status),
                // The statuses that OTLP declares as retryable.
                passing: matches!(head.status.as_u16(), 429 | 502 | 503 | 504),
                after: retry_after(&head.headers),
            });
        }
        // The spans have arrived, even if the answer cannot be read.
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let told = body
            .ok()
            .and_then(|body| Exported::decode(body.to_bytes()).ok());
        let rejected = told.and_then(|told| told.partial_success);
        Ok(rejected.map_or(0, |part| usize::try_from(part.rejected_spans).unwrap_or(0)))
    }
}

/// Reads `Retry-After` in seconds. The form with a date is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
