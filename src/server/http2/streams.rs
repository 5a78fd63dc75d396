//! The streams of one connection: whether any is open, and whether a reader takes nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use crate::clock::{self, Clock, Duration, Instant};
use crate::server::pulse::{Patience, PulseVerdict};

/// The state of a connection's streams.
#[derive(Debug)]
pub struct Streams {
    clock: Clock,
    opened: Instant,
    open: AtomicUsize,
    /// When the last stream ended.
    idle_ms: AtomicU64,
    /// When the incomplete frame began, in milliseconds plus one. 0 between frames.
    unfinished_ms: AtomicU64,
}

impl Streams {
    /// Creates the state of a connection that was just opened. Its preface is still arriving.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            opened: clock.now(),
            clock,
            open: AtomicUsize::new(0),
            idle_ms: AtomicU64::new(0),
            unfinished_ms: AtomicU64::new(1),
        })
    }

    fn now_ms(&self) -> u64 {
        let elapsed = self.clock.now().saturating_duration_since(self.opened);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a stream as open until the guard is dropped.
    pub fn open(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    /// Records that a frame has begun that must be complete in time.
    pub fn frame_begins(&self) {
        self.unfinished_ms
            .store(self.now_ms() + 1, Ordering::Relaxed);
    }

    /// Records that the frame is complete.
    pub fn frame_ends(&self) {
        self.unfinished_ms.store(0, Ordering::Relaxed);
    }

    /// Returns what to do now. Frames that arrive while no stream is open do not reset the idle
    /// time. Otherwise a ping now and then would keep a connection open for ever.
    pub fn verdict(&self, patience: &Patience) -> PulseVerdict {
        let now = self.now_ms();
        let left = |since: u64, limit: Duration| {
            let waited = Duration::from_millis(now.saturating_sub(since));
            limit.checked_sub(waited).filter(|left| !left.is_zero())
        };
        let mut next = patience.header.min(patience.idle);
        let unfinished = self.unfinished_ms.load(Ordering::Relaxed);
        if unfinished != 0 {
            match left(unfinished - 1, patience.header) {
                None => return PulseVerdict::Slow,
                Some(left) => next = next.min(left),
            }
        }
        if self.open.load(Ordering::Acquire) == 0 {
            match left(self.idle_ms.load(Ordering::Relaxed), patience.idle) {
                None => return PulseVerdict::Idle,
                Some(left) => next = next.min(left),
            }
        }
        PulseVerdict::LookAt(self.clock.now() + next)
    }
}

/// Held while a request is being answered.
#[derive(Debug)]
pub struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        // The time is stored before the count, so that no reader sees an old time without a stream.
        self.0.idle_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

/// When a piece of an answer began to wait for its reader's window.
#[derive(Debug, Default)]
pub struct ReaderWatch(Mutex<Option<Instant>>);

impl ReaderWatch {
    /// Records that a piece was handed over, and waits until the next one is requested.
    pub fn waits(&self, since: Instant) {
        *self.0.lock() = Some(since);
    }

    /// Records that the reader has taken everything so far.
    pub fn taken(&self) {
        *self.0.lock() = None;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock()
    }
}

tokio::task_local! {
    /// The watch of the stream whose task is running.
    static WATCH: Arc<ReaderWatch>;
}

/// Returns the watch of this task's stream.
pub fn this_reader() -> Option<Arc<ReaderWatch>> {
    WATCH.try_with(Arc::clone).ok()
}

/// Runs each stream as a task. Ends those whose reader takes nothing for too long. hyper polls
/// neither the request nor the answer of a stream that waits for its window, so this wraps both.
#[derive(Clone, Debug)]
pub struct StreamTasks {
    /// How long a reader may take nothing.
    pub write_stall: Duration,
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let watch = Arc::new(ReaderWatch::default());
        tokio::spawn(Watched {
            stream: WATCH.scope(watch.clone(), stream),
            watch,
            write_stall: self.write_stall,
            timer: None,
            waits_since: None,
        });
    }
}

pin_project! {
    struct Watched<F> {
        #[pin]
        stream: tokio::task::futures::TaskLocalFuture<Arc<ReaderWatch>, F>,
        watch: Arc<ReaderWatch>,
        write_stall: Duration,
        waits_since: Option<Instant>,
        #[pin]
        timer: Option<clock::Sleep>,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let since = this.watch.since();
        if *this.waits_since != since {
            *this.waits_since = since;
            this.timer
                .set(since.map(|since| clock::sleep_until(since + *this.write_stall)));
        }
        match this.timer.as_pin_mut() {
            // Dropping the stream resets it.
            Some(timer) => timer.poll(cx),
            None => Poll::Pending,
        }
    }
}
