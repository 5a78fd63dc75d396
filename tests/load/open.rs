//! An open loop: callers that send requests at random times, independent of earlier answers.

use std::sync::Arc;

use msp_gateway::clock::{Duration, Instant, sleep};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;

use super::caller::{Caller, Line, Load, Progress, Tally};

/// The results of one second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Second {
    /// Requests sent in it that got a good answer at any time.
    good: u32,
    /// Requests sent in it that got no good answer.
    failed: u32,
    /// Good answers that arrived in it, whenever their requests were sent.
    answered: u32,
}

/// Sends `per_second` requests a second until it is stopped. At most `Load::busy` requests wait at
/// once; a request beyond that is not sent and counts as failed.
pub async fn run(load: &Load, per_second: f64, progress: &Progress) -> (Tally, Vec<Second>) {
    let load = Arc::new(load.clone());
    let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
    let seconds: Arc<Mutex<Vec<Second>>> = Arc::default();
    let begun = Instant::now();
    let mut due = begun;
    let mut callers = JoinSet::new();
    let mut all = Tally::default();
    let mut number = 0;
    while !progress.over() {
        due += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / per_second);
        sleep(due.saturating_duration_since(Instant::now())).await;
        while let Some(ended) = callers.try_join_next() {
            taken(&mut all, ended);
        }
        if callers.len() >= load.busy {
            *all.failed.entry("too many wait".to_owned()).or_default() += 1;
            note(&seconds, begun.elapsed(), |second| second.failed += 1);
            continue;
        }
        number += 1;
        let mut caller = Caller::new(load.clone(), progress.clone(), number, Duration::ZERO);
        let (lines, seconds, asked) = (lines.clone(), seconds.clone(), begun.elapsed());
        callers.spawn(async move {
            let mut line = lines.lock().pop();
            let is_good = caller.ask(&mut line).await;
            lines.lock().extend(line);
            if is_good {
                note(&seconds, begun.elapsed(), |second| second.answered += 1);
            }
            note(&seconds, asked, |second| match is_good {
                true => second.good += 1,
                false => second.failed += 1,
            });
            caller.tally
        });
    }
    while let Some(ended) = callers.join_next().await {
        taken(&mut all, ended);
    }
    let seconds = seconds.lock().clone();
    (all.sorted(), seconds)
}

fn taken(all: &mut Tally, ended: Result<Tally, tokio::task::JoinError>) {
    match ended {
        Ok(tally) => all.add(tally),
        Err(why) => {
            let what = format!("the caller itself failed: {why}");
            *all.failed.entry(what).or_default() += 1;
        }
    }
}

/// Records something for the second that contains `at`.
fn note(seconds: &Mutex<Vec<Second>>, at: Duration, what: impl FnOnce(&mut Second)) {
    let at = usize::try_from(at.as_secs()).unwrap_or(usize::MAX);
    let mut seconds = seconds.lock();
    if seconds.len() <= at {
        seconds.resize(at + 1, Second::default());
    }
    if let Some(second) = seconds.get_mut(at) {
        what(second);
    }
}
