//! How the gateway leaves: step by step, so that no request is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::exchange::Boxed;

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainPhase {
    /// Everything is taken.
    Serving,
    /// Readiness fails and answers say `Connection: close`, but everything is still taken.
    Leaving,
    /// No new connections; what is in flight ends.
    Closing,
    /// What is still in flight is cut.
    Cut,
}

/// The one handle of the drain. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    /// A [`DrainPhase`] as a number, which every request looks at.
    phase: AtomicU8,
    /// Wakes those who wait for a step.
    taken: Notify,
}

impl Drain {
    /// Begins to leave: for the first termination signal.
    pub fn begin(&self) {
        self.advance(DrainPhase::Leaving);
    }

    /// Leaves at once: for the second termination signal.
    pub fn cut(&self) {
        self.advance(DrainPhase::Cut);
    }

    /// Returns whether readiness should fail.
    pub fn is_draining(&self) -> bool {
        self.has_reached(DrainPhase::Leaving)
    }

    /// Goes on to a later step; never back.
    pub(super) fn advance(&self, to: DrainPhase) {
        if self.0.phase.fetch_max(to as u8, Ordering::AcqRel) < to as u8 {
            self.0.taken.notify_waiters();
        }
    }

    fn has_reached(&self, phase: DrainPhase) -> bool {
        self.0.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// Waits for a step or a later one.
    pub async fn reached(&self, phase: DrainPhase) {
        loop {
            // Before the look: who takes a step after it wakes this one.
            let taken = self.0.taken.notified();
            if self.has_reached(phase) {
                return;
            }
            taken.await;
        }
    }

    /// The same for who is woken often by other things: between two steps, a poll costs a look at the
    /// number that all share.
    pub(super) fn reached_quietly(&self, phase: DrainPhase) -> Reached {
        let drain = self.clone();
        Reached {
            waiting: Box::pin(async move { drain.reached(phase).await }),
            drain: self.clone(),
            waits_since: None,
        }
    }
}

/// See [`Drain::reached_quietly`].
pub(super) struct Reached {
    waiting: Boxed<()>,
    drain: Drain,
    /// The phase that was looked at before the wait was polled last, and the task that it then knew.
    waits_since: Option<(u8, Waker)>,
}

impl Future for Reached {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Before the wait is polled: a step in between is seen by the wait, or wakes this task and is
        // another phase then.
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
        // From now on nothing but the step itself wakes it, and another task than so far.
        let waiting = tokio::spawn(cut);
        tokio::task::yield_now().await;
        drain.cut();
        let ended = clock::timeout(Duration::from_secs(1), waiting).await;
        assert!(matches!(ended, Ok(Ok(()))));
        let mut late = drain.reached_quietly(DrainPhase::Closing);
        assert!(look(&mut late).await.is_ready());
    }
}
