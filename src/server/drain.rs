//! How the gateway leaves: step by step, so that no request is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::exchange::Boxed;

/// The steps of leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainPhase {
    /// Everything is accepted.
    Serving,
    /// Readiness fails and answers have `Connection: close`, but everything is still accepted.
    Leaving,
    /// No new connections are accepted. Requests in flight end.
    Closing,
    /// Requests that are still in flight are cut.
    Cut,
}

/// The handle of the drain. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    /// A [`DrainPhase`] as a number, which every request reads.
    phase: AtomicU8,
    /// Wakes the tasks that wait for a step.
    taken: Notify,
}

impl Drain {
    /// Starts to leave, on the first termination signal.
    pub fn begin(&self) {
        self.advance(DrainPhase::Leaving);
    }

    /// Leaves at once, on the second termination signal.
    pub fn cut(&self) {
        self.advance(DrainPhase::Cut);
    }

    /// Returns whether readiness should fail.
    pub fn is_draining(&self) -> bool {
        self.has_reached(DrainPhase::Leaving)
    }

    /// Advances to a later step. Never goes back.
    pub fn advance(&self, to: DrainPhase) {
        if self.0.phase.fetch_max(to as u8, Ordering::AcqRel) < to as u8 {
            self.0.taken.notify_waiters();
        }
    }

    fn has_reached(&self, phase: DrainPhase) -> bool {
        self.0.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// Waits for `phase` or a later one.
    pub async fn reached(&self, phase: DrainPhase) {
        loop {
            // Registered before the check, so that a step taken after the check wakes this task.
            let taken = self.0.taken.notified();
            if self.has_reached(phase) {
                return;
            }
            taken.await;
        }
    }

    /// Waits for `phase` or a later one in a task that other events wake often. Between two steps,
    /// a poll costs one read of a shared number.
    pub(super) fn reached_quietly(&self, phase: DrainPhase) -> Reached {
        let drain = self.clone();
        Reached {
            waiting: Box::pin(async move { drain.reached(phase).await }),
            drain: self.clone(),
            waits_since: None,
        }
    }
}

/// The future of [`Drain::reached_quietly`].
pub(super) struct Reached {
    waiting: Boxed<()>,
    drain: Drain,
    /// The phase before the wait was last polled, and the task that the wait then knew.
    waits_since: Option<(u8, Waker)>,
}

impl Future for Reached {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // The phase is read before the wait is polled. A step in between is either seen by the
        // wait, or wakes this task and then shows as another phase.
        let phase = this.drain.0.phase.load(Ordering::Acquire);
        match &mut this.waits_since {
            Some((since, task)) if task.will_wake(cx.waker()) => {
                if *since == phase {
                    return Poll::Pending;
                }
                *since = phase;
            }
            other => *other = Some((phase, cx.waker().clone())),
        }
        this.waiting.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, Duration};

    async fn look(at: &mut Reached) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *at).poll(cx))).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_wait_misses_no_step_however_often_it_is_polled() {
        let drain = Drain::default();
        let mut cut = drain.reached_quietly(DrainPhase::Cut);
        for phase in [DrainPhase::Leaving, DrainPhase::Closing] {
            // Polled for other reasons before and after each step.
            assert!(look(&mut cut).await.is_pending());
            drain.advance(phase);
            assert!(look(&mut cut).await.is_pending());
            assert!(look(&mut cut).await.is_pending());
        }
        // From now on only the step itself wakes it, in another task than before.
        let waiting = tokio::spawn(cut);
        tokio::task::yield_now().await;
        drain.cut();
        let ended = clock::timeout(Duration::from_secs(1), waiting).await;
        assert!(matches!(ended, Ok(Ok(()))));
        let mut late = drain.reached_quietly(DrainPhase::Closing);
        assert!(look(&mut late).await.is_ready());
    }
}
