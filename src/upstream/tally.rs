//! Records whether a kept connection was used before, and whether a byte of an answer arrived on
//! it.
//!
//! A vendor may close a kept connection at the moment the next request is written. This says
//! nothing about the vendor's health. Two facts identify such an end, and the HTTP client reports
//! neither: the connection carried a request before, and no byte was read since.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    bytes_read: AtomicU64,
}

/// Counts what one connection has carried so far. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Arc<Counts>);

impl Tally {
    /// Returns the tally of the connection that `connected` describes, if it is one of ours.
    pub(super) fn of(connected: &Connected) -> Option<Self> {
        let mut extras = http::Extensions::new();
        connected.get_extras(&mut extras);
        extras.remove()
    }

    /// Records a request. Returns how many the connection carried before.
    pub(super) fn begin(&self) -> u64 {
        self.0.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the bytes read so far, without TLS and its handshake.
    pub(super) fn bytes_read(&self) -> u64 {
        self.0.bytes_read.load(Ordering::Relaxed)
    }
}

/// A connection with a tally.
pub(crate) struct Tallied<S> {
    inner: TokioIo<S>,
    tally: Tally,
}

impl<S> Tallied<S> {
    pub(super) fn new(inner: S) -> TokioIo<Self> {
        TokioIo::new(Self {
            inner: TokioIo::new(inner),
            tally: Tally::default(),
        })
    }
}

impl<S: Connection> Connection for Tallied<S> {
    fn connected(&self) -> Connected {
        self.inner.connected().extra(self.tally.clone())
    }
}

impl<S: Read + Unpin> AsyncRead for Tallied<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        let counts = &self.tally.0;
        counts.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: Write + Unpin> AsyncWrite for Tallied<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
