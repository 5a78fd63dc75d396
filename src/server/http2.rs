//! One connection over HTTP/2: the limits of the protocol, and the same time limits as over
//! HTTP/1.1.

mod frames;
mod streams;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frames::Frames;
use self::streams::{OpenStream, ReaderWatch, StreamTasks, Streams, this_reader};
use super::connection::{Answering, Connections, Ending, IDLE_WHILE_CLOSING, LINGER_IDLE, linger};
use super::date::DATES;
use super::drain::DrainPhase;
use super::pulse::{Pulse, PulseVerdict, PulsedIo};
use super::transport::ServerTransport;
use crate::cache::FiledBodies;
use crate::clock::{self, Clock, Duration, Instant};
use crate::exchange::{AnswerBody, Answered, Arrival, BodyCut, Boxed, PeerIdentity};

/// Maximum concurrent requests on one connection. Browsers and clients use this number by default.
const STREAMS_MAX: u32 = 100;
/// Maximum size of a request's headers, each with the 32 bytes that HTTP/2 adds. The check of
/// framing refuses smaller heads with a proper answer. Beyond this limit, the h2 crate answers a
/// bare 431.
const HEADER_LIST_BYTES_MAX: u32 = 24 * 1024;
/// Maximum unread bytes of one request's body. No body may be larger.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Maximum unread bytes of all bodies of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Maximum size of an accepted frame. It is the smallest limit that the protocol allows.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Maximum bytes of one answer that wait for the socket.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Maximum number of requests that were reset before they were handled (rapid reset,
/// CVE-2023-44487).
const RESET_UNSEEN_MAX: usize = 20;
/// Maximum number of streams that a peer has made us reset (CVE-2025-8671).
const RESET_BY_US_MAX: usize = 100;
/// A connection that is silent for this long gets a PING.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A connection that does not answer a PING within this time is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum piece of an answer. hyper waits for the reader's window before each piece and not within
/// it. So this is what an answer can leave unread beyond the window.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Serves one connection to its end.
pub async fn serve<I>(on: Connections, io: I, peer: PeerIdentity) -> Ending
where
    I: AsyncRead + AsyncWrite + ServerTransport + Unpin + Send,
{
    // It only records whether the socket accepts what we write.
    let pulse = Pulse::new(on.clock.clone());
    let _busy = pulse.busy();
    let mut felt = PulsedIo {
        io,
        pulse: pulse.clone(),
        // The frames are smaller than what is worth a file.
        files: FiledBodies::default(),
    };
    let drain = on.drain.clone();
    let end = converse(on, &mut felt, &pulse, peer).await;
    if end == Ending::Done {
        linger(felt.io, LINGER_IDLE, &drain).await;
    }
    end
}

/// Serves requests until everything is done or a time limit is exceeded.
async fn converse<I>(
    on: Connections,
    io: &mut PulsedIo<I>,
    pulse: &Arc<Pulse>,
    peer: PeerIdentity,
) -> Ending
where
    I: AsyncRead + AsyncWrite + ServerTransport + Unpin + Send,
{
    let clock = on.clock.clone();
    let mut patience = on.patience;
    let streams = Streams::new(clock.clone());
    let io = TokioIo::new(Counted {
        io,
        streams: streams.clone(),
        frames: Frames::new(clock.clone()),
        unfinished: Some(0),
    });
    let mut builder = http2::Builder::new(StreamTasks {
        write_stall: patience.write_stall,
    });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_UNSEEN_MAX)
        .max_local_error_reset_streams(RESET_BY_US_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection(
        io,
        PerConnection {
            answering: on.answering,
            clock: clock.clone(),
            streams: streams.clone(),
            peer: Arc::new(peer),
        },
    ));
    let mut closing = std::pin::pin!(on.drain.reached(DrainPhase::Closing));
    let mut cut = std::pin::pin!(on.drain.reached(DrainPhase::Cut));
    let mut leaving = false;
    // The deadline for the peer to confirm the GOAWAY. Set once it was sent.
    let mut until: Option<Instant> = None;
    let first_look = clock.now() + patience.header.min(patience.write_stall);
    let mut look = std::pin::pin!(clock::sleep_until(first_look));
    loop {
        tokio::select! {
            biased;
            done = connection.as_mut() => {
                if let Err(why) = done {
                    tracing::debug!(%why, "connection ended");
                }
                return Ending::Done;
            }
            () = &mut look => {}
            () = &mut closing, if !leaving => {
                leaving = true;
                patience.idle = patience.idle.min(IDLE_WHILE_CLOSING);
                // Requests that were sent before the peer read this are still accepted.
                connection.as_mut().graceful_shutdown();
                until = Some(clock.now() + IDLE_WHILE_CLOSING);
            }
            () = &mut cut => return Ending::Cut,
        }
        let now = clock.now();
        let next = match (streams.verdict(&patience), pulse.verdict(&patience)) {
            (PulseVerdict::Slow, _) | (_, PulseVerdict::Slow) => return Ending::Slow,
            (PulseVerdict::LookAt(one), PulseVerdict::LookAt(other)) => one.min(other),
            (_, _) => match until {
                None => {
                    connection.as_mut().graceful_shutdown();
                    let then = now + patience.header;
                    until = Some(then);
                    then
                }
                Some(then) if now < then => then,
                Some(_) => return Ending::Slow,
            },
        };
        look.as_mut().reset(next);
    }
}

/// A connection whose frames are counted.
struct Counted<'a, I> {
    io: &'a mut PulsedIo<I>,
    streams: Arc<Streams>,
    frames: Frames,
    /// The frame that was incomplete at the last check.
    unfinished: Option<u64>,
}

impl<I: AsyncRead + ServerTransport + Unpin> AsyncRead for Counted<'_, I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        if this.frames.came(came).is_err() {
            let why = "the peer sent too many frames without content";
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let unfinished = this.frames.unfinished();
        if unfinished != this.unfinished {
            this.unfinished = unfinished;
            match unfinished {
                Some(_) => this.streams.frame_begins(),
                None => this.streams.frame_ends(),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I> Counted<'_, I> {
    fn note(&mut self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.frames.sent(*bytes);
        }
    }
}

impl<I: AsyncWrite + ServerTransport + Unpin> AsyncWrite for Counted<'_, I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.note(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// The service that hyper calls for each request.
struct PerConnection {
    answering: Answering,
    clock: Clock,
    streams: Arc<Streams>,
    peer: Arc<PeerIdentity>,
}

impl Service<Request<Incoming>> for PerConnection {
    type Response = Response<StreamBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let open = self.streams.open();
        let is_head = request.method() == Method::HEAD;
        Answer {
            inner: (self.answering)(Arrival {
                request,
                peer: self.peer.clone(),
            }),
            clock: self.clock.clone(),
            open: Some(open),
            is_head,
        }
    }
}

/// The future of an answer.
struct Answer {
    inner: Boxed<Result<Answered, Infallible>>,
    clock: Clock,
    open: Option<OpenStream>,
    is_head: bool,
}

impl Future for Answer {
    type Output = Result<Response<StreamBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Ok(mut answer) = ready!(this.inner.as_mut().poll(cx));
        // The stream ends with its answer. The connection does not, whatever the request was.
        answer.headers_mut().remove(header::CONNECTION);
        DATES.correct(answer.headers_mut(), &this.clock);
        if this.is_head
            && let Some(bytes) = answer.body().size_hint().exact()
        {
            // hyper omits the body of an answer to HEAD over HTTP/1.1 only.
            let headers = answer.headers_mut();
            if bytes > 0 && !headers.contains_key(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, bytes.into());
            }
        }
        let open = this.open.take();
        Poll::Ready(Ok(answer.map(|inner| StreamBody {
            inner,
            head_only: this.is_head,
            rest: Bytes::new(),
            reader: this_reader(),
            clock: this.clock.clone(),
            _open: open,
        })))
    }
}

/// The body of an answer, in pieces. Its stream counts as open until its end.
struct StreamBody {
    inner: AnswerBody,
    head_only: bool,
    rest: Bytes,
    reader: Option<Arc<ReaderWatch>>,
    clock: Clock,
    _open: Option<OpenStream>,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            if let Some(reader) = &this.reader {
                reader.taken();
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        if let Some(reader) = &this.reader {
            reader.waits(this.clock.now());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.head_only || (self.rest.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner.size_hint().exact() {
            Some(bytes) => SizeHint::with_exact(bytes + self.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}
