//! Records what a connection is doing, and limits how long it may do so.
//!
//! hyper's own header timeout starts when hyper starts to wait for the next request. So it cannot
//! tell an idle connection from a slow head, and it makes a timer for every request. Here a request
//! costs two stores, and one timer for each connection checks them now and then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::ServerTransport;
use crate::cache::filed::FILE_BYTES_MIN;
use crate::cache::{FilePart, FiledBodies};
use crate::clock::{Clock, Duration, Instant};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// A head that began during this poll. Most heads arrive complete, so the clock need not be read.
const JUST_NOW: u64 = u64::MAX;

// With the two counts of its `Arc`, it fits into 64 bytes.
const _: () = assert!(size_of::<Pulse>() + 2 * size_of::<usize>() <= 64);

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request's head, from its first byte. For the first head, from the opening of the
    /// connection.
    pub header: Duration,
    /// For the time between requests.
    pub idle: Duration,
    /// For a reader that takes nothing.
    pub write_stall: Duration,
}

/// The state of a connection. With the counts of its `Arc` it fits into one cache line. With many
/// connections, every cache line that a request touches comes from memory.
#[derive(Debug)]
pub struct Pulse {
    clock: Clock,
    opened: Instant,
    state: AtomicU8,
    since_ms: AtomicU64,
    /// When writing stalled, in milliseconds plus one. 0 while writing succeeds.
    stalled_ms: AtomicU64,
    /// Whether a last check is running before an idle connection is closed. `saw_bytes`: whether it
    /// found any.
    last_look: AtomicBool,
    saw_bytes: AtomicBool,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PulseVerdict {
    /// Check it again at this time.
    LookAt(Instant),
    /// It is idle: close it politely.
    Idle,
    /// It is too slow: close it.
    Slow,
}

impl Pulse {
    /// Creates the state of a connection that was just opened.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            opened: clock.now(),
            clock,
            state: AtomicU8::new(HEAD),
            since_ms: AtomicU64::new(0),
            stalled_ms: AtomicU64::new(0),
            last_look: AtomicBool::new(false),
            saw_bytes: AtomicBool::new(false),
        })
    }

    fn now_ms(&self) -> u64 {
        let elapsed = self.clock.now().saturating_duration_since(self.opened);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, state: u8) {
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
    }

    /// Marks the connection as busy with an answer, until the guard is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.state.store(BUSY, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn bytes_came(&self) {
        if self.state.load(Ordering::Relaxed) == IDLE {
            self.since_ms.store(JUST_NOW, Ordering::Relaxed);
            self.state.store(HEAD, Ordering::Relaxed);
        }
    }

    /// Records that there are no more bytes now. If a head has begun, its time counts from here.
    fn read_waits(&self) {
        if self.state.load(Ordering::Relaxed) == HEAD
            && self.since_ms.load(Ordering::Relaxed) == JUST_NOW
        {
            self.enter(HEAD);
        }
    }

    /// From now on, a read that would wait checks the socket itself. A busy runtime notices bytes
    /// late, and a request that has already arrived must not find its connection closed.
    pub fn begin_last_look(&self) {
        self.saw_bytes.store(false, Ordering::Relaxed);
        self.last_look.store(true, Ordering::Relaxed);
    }

    /// Ends the check. Returns whether there were bytes.
    pub fn end_last_look(&self) -> bool {
        self.last_look.store(false, Ordering::Relaxed);
        self.saw_bytes.load(Ordering::Relaxed)
    }

    fn write_waits(&self) {
        if self.stalled_ms.load(Ordering::Relaxed) == 0 {
            self.stalled_ms.store(self.now_ms() + 1, Ordering::Relaxed);
        }
    }

    fn write_goes_on(&self) {
        if self.stalled_ms.load(Ordering::Relaxed) != 0 {
            self.stalled_ms.store(0, Ordering::Relaxed);
        }
    }

    /// Returns what to do now.
    pub fn verdict(&self, patience: &Patience) -> PulseVerdict {
        self.read_waits();
        let now = self.now_ms();
        let left = |since: u64, limit: Duration| {
            let waited = Duration::from_millis(now.saturating_sub(since));
            limit.checked_sub(waited).filter(|left| !left.is_zero())
        };
        // Never plan further ahead than the shortest limit, so that a state that begins meanwhile
        // is checked in time.
        let mut next = patience.header.min(patience.write_stall).min(patience.idle);
        let stalled = self.stalled_ms.load(Ordering::Relaxed);
        if stalled != 0 {
            match left(stalled - 1, patience.write_stall) {
                None => return PulseVerdict::Slow,
                Some(left) => next = next.min(left),
            }
        }
        let since = self.since_ms.load(Ordering::Relaxed);
        match self.state.load(Ordering::Relaxed) {
            HEAD => match left(since, patience.header) {
                None => return PulseVerdict::Slow,
                Some(left) => next = next.min(left),
            },
            IDLE if stalled == 0 => match left(since, patience.idle) {
                None => return PulseVerdict::Idle,
                Some(left) => next = next.min(left),
            },
            _ => {}
        }
        PulseVerdict::LookAt(self.clock.now() + next)
    }
}

/// Held while a request is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Pulse>);

impl Busy {
    /// Returns the connection's clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(IDLE);
    }
}

/// A connection whose reads and writes are recorded in its pulse.
#[derive(Debug)]
pub struct PulsedIo<I> {
    /// The connection.
    pub io: I,
    /// The pulse.
    pub pulse: Arc<Pulse>,
    /// Bodies that the system can send by itself.
    pub files: FiledBodies,
}

impl<I: AsyncRead + ServerTransport + Unpin> AsyncRead for PulsedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.pulse.bytes_came();
            return polled;
        }
        this.pulse.read_waits();
        if this.pulse.last_look.load(Ordering::Relaxed) && this.io.has_arrived() {
            this.pulse.saw_bytes.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<I: Unpin> PulsedIo<I> {
    /// Returns the part to write first that is in a file, and the bytes before it: none, or the
    /// head of an answer.
    fn in_file<'a>(&self, bufs: &'a [io::IoSlice<'_>]) -> Option<(&'a [u8], FilePart)> {
        match bufs {
            [first, ..] if first.len() >= FILE_BYTES_MIN => Some((&[], self.files.part(first)?)),
            [first, second, ..] => Some((first, self.files.part(second)?)),
            _ => None,
        }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => self.pulse.write_waits(),
            Poll::Ready(_) => self.pulse.write_goes_on(),
        }
        polled
    }
}

impl<I: AsyncWrite + ServerTransport + Unpin> AsyncWrite for PulsedIo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.note(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = this
            .in_file(bufs)
            .and_then(|(before, part)| this.io.poll_send_file(cx, before, &part));
        let polled = match sent {
            Some(polled) => polled,
            None => Pin::new(&mut this.io).poll_write_vectored(cx, bufs),
        };
        this.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        // hyper flushes when everything is written. So after a completed flush, nothing waits.
        this.note(polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
