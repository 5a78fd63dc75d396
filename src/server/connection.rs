//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::date::DATES;
use super::drain::{Drain, DrainPhase};
use super::pulse::{Busy, Patience, Pulse, PulseVerdict, PulsedIo};
use super::transport::ServerTransport;
use crate::cache::FiledBodies;
use crate::clock::{self, Clock, Duration};
use crate::exchange::{AnswerBody, Answered, Arrival, BodyCut, Boxed, PeerIdentity};

/// The service that answers requests: a stack, or a choice among several.
pub type Answering = Arc<dyn Fn(Arrival) -> Boxed<Result<Answered, Infallible>> + Send + Sync>;

/// Maximum bytes of a request that hyper buffers. It is also the maximum of its body that stays
/// unread.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Maximum size of request line and headers. The check of framing refuses smaller heads with a
/// proper answer. Beyond this limit nothing is parsed.
const HEAD_BYTES_MAX: usize = 24 * 1024;

/// How much is still read after our last byte, so that a caller that is still sending gets our
/// answer and not a reset. A caller that sends more than this in spite of a refusal is cut.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long reading goes on after an answer: until a caller on a slow line has sent what it had
/// begun.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// How long reading continues if there was no request, so that nothing is being sent.
pub(super) const LINGER_IDLE: Duration = Duration::from_secs(1);

/// While the gateway leaves, a connection without a request is closed after this time, but not
/// before all connections had it. A caller that sends a request within it, or within `drain_delay`
/// before it, gets an answer that tells it to reconnect elsewhere. A request is lost only if the
/// connection is closed just as the caller sends it.
pub(super) const IDLE_WHILE_CLOSING: Duration = Duration::from_secs(1);

/// If bytes arrived that the runtime has not noticed yet, it notices them within this time.
const BEFORE_ANOTHER_LOOK: Duration = Duration::from_millis(20);

/// Serves the connections of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    /// Answers the requests.
    pub answering: Answering,
    /// The time limits of a connection.
    pub patience: Patience,
    /// The clock.
    pub clock: Clock,
    /// The drain, which says when to leave.
    pub drain: Drain,
    /// Bodies that can be sent without copying them.
    pub files: FiledBodies,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connection ended normally: everything was written.
    Done,
    /// The peer was too slow.
    Slow,
    /// The grace of the drain was over.
    Cut,
}

impl Connections {
    /// Serves one connection without TLS to its end. `io` can be anything that reads and writes, so
    /// tests need no socket.
    pub async fn serve<I>(self, io: I, address: Option<SocketAddr>) -> Ending
    where
        I: AsyncRead + AsyncWrite + ServerTransport + Unpin + Send,
    {
        let peer = PeerIdentity {
            address,
            ..PeerIdentity::default()
        };
        self.http1(io, peer).await
    }

    /// Serves one connection over HTTP/1.1 to its end, with or without TLS.
    pub(super) async fn http1<I>(self, io: I, peer: PeerIdentity) -> Ending
    where
        I: AsyncRead + AsyncWrite + ServerTransport + Unpin + Send,
    {
        let pulse = Pulse::new(self.clock.clone());
        let mut patience = self.patience;
        let io = TokioIo::new(PulsedIo {
            io,
            pulse: pulse.clone(),
            files: self.files,
        });
        let mut builder = http1::Builder::new();
        builder
            // A peer that has ended its side may still read, so a complete request is answered. If
            // the peer is gone, writing the answer fails.
            .half_close(true)
            // [`Pulse`] does this, and the idle timeout too.
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(READ_BUFFER_BYTES_MAX);
        let mut connection = builder.serve_connection(
            io,
            PerConnection {
                answering: self.answering,
                drain: self.drain.clone(),
                pulse: pulse.clone(),
                peer: Arc::new(peer),
            },
        );
        // Waits for one step of the drain at a time, because every request polls it.
        let mut step = self.drain.reached_quietly(DrainPhase::Closing);
        let mut told = false;
        let mut linger_for = LINGER;
        let mut idle_until = self.clock.now();
        let first_look = self.clock.now() + patience.header.min(patience.write_stall);
        let mut look = std::pin::pin!(clock::sleep_until(first_look));
        let end = loop {
            tokio::select! {
                biased;
                done = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                    if let Err(why) = done {
                        tracing::debug!(%why, "connection ended");
                    }
                    break Ending::Done;
                }
                () = &mut look => {}
                () = &mut step => {
                    if told {
                        break Ending::Cut;
                    }
                    told = true;
                    step = self.drain.reached_quietly(DrainPhase::Cut);
                    patience.idle = patience.idle.min(IDLE_WHILE_CLOSING);
                    idle_until = self.clock.now() + patience.idle;
                }
            }
            match pulse.verdict(&patience) {
                PulseVerdict::LookAt(then) => look.as_mut().reset(then),
                PulseVerdict::Idle if self.clock.now() < idle_until => {
                    look.as_mut().reset(idle_until)
                }
                PulseVerdict::Idle => {
                    pulse.begin_last_look();
                    let polled = std::future::poll_fn(|cx| {
                        Poll::Ready(connection.poll_without_shutdown(cx))
                    });
                    if polled.await.is_ready() {
                        break Ending::Done;
                    }
                    if pulse.end_last_look() {
                        look.as_mut().reset(self.clock.now() + BEFORE_ANOTHER_LOOK);
                        continue;
                    }
                    Pin::new(&mut connection).graceful_shutdown();
                    linger_for = LINGER_IDLE;
                    look.as_mut().reset(self.clock.now() + patience.header);
                }
                PulseVerdict::Slow => break Ending::Slow,
            }
        };
        if end == Ending::Done {
            let io = connection.into_parts().io.into_inner().io;
            linger(io, linger_for, &self.drain).await;
        }
        end
    }
}

/// Ends our side and reads on for a short time, which is shorter while the gateway leaves.
pub(super) async fn linger<I: AsyncRead + AsyncWrite + Unpin>(
    mut io: I,
    limit: Duration,
    drain: &Drain,
) {
    let reading = async {
        if io.shutdown().await.is_err() {
            return;
        }
        // Allocated here, because every connection would carry it inside the future for its whole
        // life.
        let mut ignored = vec![0; 4096];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(bytes) = io.read(&mut ignored).await {
            left = left.saturating_sub(bytes);
            if bytes == 0 || left == 0 {
                return;
            }
        }
    };
    let leaving = async {
        drain.reached(DrainPhase::Closing).await;
        clock::sleep(LINGER_IDLE).await;
    };
    // Whether the time was enough or not, the connection ends now.
    tokio::select! {
        _ = clock::timeout(limit, reading) => {}
        () = leaving => {}
    }
}

/// The service that hyper calls for each request.
struct PerConnection {
    answering: Answering,
    drain: Drain,
    pulse: Arc<Pulse>,
    peer: Arc<PeerIdentity>,
}

impl Service<Request<Incoming>> for PerConnection {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = Tracked;

    fn call(&self, request: Request<Incoming>) -> Tracked {
        let busy = self.pulse.busy();
        let is_1_0 = request.version() < Version::HTTP_11;
        Tracked {
            is_1_0,
            inner: (self.answering)(Arrival {
                request,
                peer: self.peer.clone(),
            }),
            busy: Some(busy),
            drain: self.drain.clone(),
        }
    }
}

/// The future of an answer. The connection counts as busy.
struct Tracked {
    inner: Boxed<Result<Answered, Infallible>>,
    busy: Option<Busy>,
    drain: Drain,
    is_1_0: bool,
}

impl Future for Tracked {
    type Output = Result<Response<TrackedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Ok(mut answer) = ready!(this.inner.as_mut().poll(cx));
        if this.drain.is_draining() {
            // Makes keep-alive callers reconnect elsewhere before their connection is closed.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        if this.is_1_0 && answer.headers().contains_key(header::CONNECTION) {
            // hyper would treat an answer of HTTP/1.1 to this caller as one that may be kept alive,
            // and add "keep-alive" beside "close".
            *answer.version_mut() = Version::HTTP_10;
        }
        let busy = this.busy.take();
        if let Some(busy) = &busy {
            DATES.correct(answer.headers_mut(), busy.clock());
        }
        Poll::Ready(Ok(answer.map(|inner| TrackedBody { inner, _busy: busy })))
    }
}

/// The body of an answer. The connection counts as busy until its end.
struct TrackedBody {
    inner: AnswerBody,
    _busy: Option<Busy>,
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
