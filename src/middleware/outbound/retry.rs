//! Retries a failed call, if that is safe and the retry budget allows it.
//!
//! A call that failed on a stale connection is sent once more over a new one, outside the retry
//! budget, because the vendor has not failed. Continuations are never sent again, whatever
//! happened.

use std::sync::Arc;

use parking_lot::Mutex;

use super::layer;
use crate::admission::retry::{BACKOFF_MAX, backoff};
use crate::admission::{Credential, Gates, Lane, RetryBudget, RetrySettings, Spend, StoryStage};
use crate::clock::{Clock, Duration, sleep};
use crate::upstream::step::Step;
use crate::upstream::{Fault, Over, UpstreamError, VendorAnswer, VendorCall};

layer!(RetryLayer => Retry {
    settings: RetrySettings,
    budget: Arc<Mutex<RetryBudget>>,
    credential: Arc<Credential>,
    clock: Clock,
});

impl RetryLayer {
    /// Creates the layer around the vendor's retry budget.
    pub fn new(settings: RetrySettings, gates: &Gates, clock: Clock) -> Self {
        Self {
            settings,
            budget: Arc::clone(&gates.retries),
            credential: Arc::clone(&gates.credential),
            clock,
        }
    }
}

impl<S: Step> Step for Retry<S> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        if !call.operation.may_repeat() {
            let result = self.inner.send(call).await;
            self.count_first(&result);
            return result;
        }
        let mut attempt = 1;
        let mut call = call;
        let mut counted = false;
        let mut other_key_tried = false;
        let mut said = None;
        loop {
            let result = self.inner.send(call.clone()).await;
            if !counted {
                counted = true;
                self.count_first(&result);
            }
            let error = match result {
                Ok(answer) => return Ok(answer),
                // The vendor's answer to an earlier attempt says more than the refusal of a further
                // one.
                Err(error) if error.was_refused_here() => return Err(said.unwrap_or(error)),
                Err(error) => error,
            };
            if error.fault == Fault::StaleConnection && call.over == Over::Any {
                // The vendor did no work, so this retry costs no budget.
                call.over = Over::New;
                call.resends += 1;
                continue;
            }
            if attempt >= self.settings.attempts {
                return Err(error);
            }
            if error.fault == Fault::CredentialRejected {
                // The vendor rejected the key without doing any work, so this retry costs no
                // budget.
                if other_key_tried || !self.credential.has_another() {
                    return Err(error);
                }
                other_key_tried = true;
            } else {
                match self.pause(attempt, &call.spend, &error) {
                    Some(pause) => {
                        call.spend.note(StoryStage::Pause, self.clock.now(), pause);
                        sleep(pause).await;
                    }
                    None => return Err(error),
                }
            }
            attempt += 1;
            call.resends += 1;
            said = Some(error);
        }
    }
}

impl<S> Retry<S> {
    /// Returns the pause before the next attempt, or `None` if there must be none.
    fn pause(&self, attempt: u32, spend: &Spend, error: &UpstreamError) -> Option<Duration> {
        // Background work is not retried: the next request that needs it starts it again.
        let urgent = spend.lane.is_interactive() || spend.lane == Lane::Refresh;
        if !urgent || !error.fault.is_passing() {
            return None;
        }
        let asked = error.retry_after.unwrap_or_default();
        if asked > BACKOFF_MAX {
            return None;
        }
        let pause = backoff(attempt, fastrand::f64()).max(asked);
        let now = self.clock.now();
        let in_time = now + pause < spend.deadline;
        (in_time && self.budget.lock().retry(now)).then_some(pause)
    }

    fn count_first(&self, result: &Result<VendorAnswer, UpstreamError>) {
        if !result.as_ref().is_err_and(UpstreamError::was_refused_here) {
            self.budget.lock().first_try(self.clock.now());
        }
    }
}
