//! Hints for callers whose search has a member that looks like a documented one.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

use crate::clock::{Duration, Instant};
use crate::domain::near::NearMember;
use crate::exchange::Call;
use crate::problem::{Code, Problem};

/// A caller's mistake is logged at most once in this time.
const LOGGED_EVERY: Duration = Duration::from_secs(60 * 60);
/// Number of callers remembered for that. Settings name fewer. Beyond it, all are forgotten.
const CALLERS_MAX: usize = 4096;

/// Remembers when each caller's mistake was last logged.
#[derive(Default)]
pub struct Hints {
    logged: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Hints {
    /// Records a mistake. Logs it at most once an hour for each caller.
    ///
    /// # Errors
    /// 400 that names the right member, if the settings are `strict`.
    pub fn note(&self, call: &Call, near: &NearMember, strict: bool) -> Result<(), Problem> {
        let caller = &call.asker.caller.name;
        if self.is_due(caller, call.record.arrived) {
            tracing::warn!(
                request_id = call.record.id.as_str(),
                caller = &**caller,
                member = near.member,
                meant = near.meant,
                refused = strict,
                "a search has an unknown member whose name is close to a documented one"
            );
        }
        match strict {
            false => Ok(()),
            true => Err(Problem::new(
                Code::InvalidBody,
                format!(
                    "\"{}\" is not a member of a search; did you mean \"{}\"?",
                    near.member, near.meant
                ),
            )),
        }
    }

    fn is_due(&self, caller: &Arc<str>, now: Instant) -> bool {
        let mut logged = self.logged.lock();
        let last = logged.get(caller);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < LOGGED_EVERY) {
            return false;
        }
        if logged.len() >= CALLERS_MAX {
            logged.clear();
        }
        logged.insert(caller.clone(), now);
        true
    }
}

/// Adds the hint as a `Warning` header. The answer is otherwise unchanged.
pub fn tell(headers: &mut HeaderMap, near: &NearMember) {
    let text = format!("299 msp-gateway \"{}\"", near.hint());
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(header::WARNING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slip_is_logged_once_a_caller_and_hour() {
        let (hints, start) = (Hints::default(), Instant::now());
        let (one, other) = (Arc::from("one"), Arc::from("other"));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(hints.is_due(&one, at(0)));
        assert!(!hints.is_due(&one, at(3_599)));
        assert!(hints.is_due(&other, at(3_599)));
        assert!(hints.is_due(&one, at(3_600)));
        for number in 0..2 * CALLERS_MAX {
            assert!(hints.is_due(&Arc::from(number.to_string()), at(0)));
            assert!(hints.logged.lock().len() <= CALLERS_MAX);
        }
    }
}
