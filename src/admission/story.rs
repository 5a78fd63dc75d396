//! What was done at the vendors for one request: its waits and its calls, with their times.
//!
//! Nothing is written for a request that memory answers: the first stage is noted with the first
//! wait or call.

use parking_lot::Mutex;

use super::spend::Lane;
use crate::clock::{Duration, Instant};
use crate::domain::Operation;

/// Stages kept of one request. A walk makes a call for every 25 to 500 rows, so a whole export can
/// make thousands: the first ones tell why it was slow, the others are counted.
pub const STAGES_MAX: usize = 16;
/// A wait shorter than this is no stage: nobody looks for a millisecond.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// One thing that was done, or waited for, on behalf of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waited for a place among the open scrolls.
    Slot,
    /// Waited for budget, and for a place at the vendor.
    Budget(Lane),
    /// Paused before a further attempt at what failed.
    Pause,
    /// One attempt at the vendor.
    Call {
        /// What was asked.
        operation: Operation,
        /// How urgently.
        lane: Lane,
        /// `ok`, or a fault's word.
        outcome: &'static str,
        /// The vendor's status, if it answered with one.
        status: Option<u16>,
    },
    /// A call that the gateway refused to make: nothing was sent.
    Refused {
        /// What would have been asked.
        operation: Operation,
        /// How urgently.
        lane: Lane,
        /// The fault's word.
        outcome: &'static str,
    },
}

/// A stage with its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTimes {
    /// What.
    pub stage: Stage,
    /// When it began.
    pub begun: Instant,
    /// How long it took.
    pub took: Duration,
}

/// The stages of one request so far, in the order in which they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoryTold {
    /// The first [`STAGES_MAX`].
    pub stages: Vec<StageTimes>,
    /// How many more there were.
    pub more: u32,
}

/// Where the stages of one request are noted.
#[derive(Debug, Default)]
pub struct Story(Mutex<Option<Box<StoryTold>>>);

impl Story {
    /// Notes a stage.
    pub fn note(&self, stage: Stage, begun: Instant, took: Duration) {
        let is_wait = matches!(stage, Stage::Slot | Stage::Budget(_) | Stage::Pause);
        if is_wait && took < WAIT_MIN {
            return;
        }
        let mut told = self.0.lock();
        let told = told.get_or_insert_default();
        if told.stages.len() < STAGES_MAX {
            told.stages.push(StageTimes { stage, begun, took });
        } else {
            told.more = told.more.saturating_add(1);
        }
    }

    /// Returns how the request's time was spent, as [`StoryTold::spent`] says; `None` where nothing
    /// was waited for and no vendor asked.
    pub fn spent(&self, arrived: Instant, took: Duration) -> Option<TimeSpent> {
        let told = self.0.lock();
        told.as_deref().map(|told| told.spent(arrived, took))
    }

    /// What was noted so far.
    pub fn told(&self) -> StoryTold {
        self.0.lock().as_deref().cloned().unwrap_or_default()
    }
}

/// How a request's time was spent. The parts add up to the whole: where two overlap, as the calls to
/// both vendors for one overview do, the moment counts for the later word of pause, slot, budget, vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpent {
    /// Waiting for a place among the open scrolls.
    pub slot: Duration,
    /// Waiting for budget, and for a place at the vendor.
    pub budget: Duration,
    /// Pausing before a further attempt.
    pub pause: Duration,
    /// While a vendor was asked.
    pub vendor: Duration,
    /// Everything else.
    pub own: Duration,
}

impl StoryTold {
    /// Splits the time of a request from `arrived` on, which took so long. What went on after it
    /// does not count.
    pub fn spent(&self, arrived: Instant, took: Duration) -> TimeSpent {
        let end = arrived + took;
        let mut edges: Vec<Instant> = vec![arrived, end];
        let within = |at: Instant| at.clamp(arrived, end);
        let pieces: Vec<(usize, Instant, Instant)> = self
            .stages
            .iter()
            .filter_map(|noted| {
                let rank = match noted.stage {
                    Stage::Pause => 0,
                    Stage::Slot => 1,
                    Stage::Budget(_) => 2,
                    Stage::Call { .. } => 3,
                    Stage::Refused { .. } => return None,
                };
                Some((rank, within(noted.begun), within(noted.begun + noted.took)))
            })
            .collect();
        edges.extend(pieces.iter().flat_map(|(_, from, to)| [*from, *to]));
        edges.sort();
        let mut spent = TimeSpent::default();
        for pair in edges.windows(2) {
            let [from, to] = pair else { continue };
            let around = pieces.iter().filter(|(_, a, b)| a <= from && to <= b);
            let part = match around.map(|(rank, ..)| *rank).max() {
                Some(0) => &mut spent.pause,
                Some(1) => &mut spent.slot,
                Some(2) => &mut spent.budget,
                Some(_) => &mut spent.vendor,
                None => &mut spent.own,
            };
            *part += to.saturating_duration_since(*from);
        }
        spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn call(outcome: &'static str) -> Stage {
        Stage::Call {
            operation: Operation::Search,
            lane: Lane::Interactive,
            outcome,
            status: Some(200),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parts_add_up_to_the_whole_however_they_overlap() {
        let at = Instant::now();
        let story = Story::default();
        story.note(Stage::Pause, at + 5 * MS, 15 * MS);
        story.note(Stage::Slot, at + 10 * MS, 20 * MS);
        story.note(Stage::Budget(Lane::Interactive), at + 20 * MS, 20 * MS);
        story.note(call("ok"), at + 35 * MS, 30 * MS);
        story.note(call("timeout"), at + 60 * MS, 15 * MS);
        // A page read ahead goes on after the answer.
        story.note(call("ok"), at + 95 * MS, 50 * MS);
        let spent = story.told().spent(at, 100 * MS);
        let parts = [
            spent.pause,
            spent.slot,
            spent.budget,
            spent.vendor,
            spent.own,
        ];
        assert_eq!(parts, [5 * MS, 10 * MS, 15 * MS, 45 * MS, 25 * MS]);
        assert_eq!(parts.iter().sum::<Duration>(), 100 * MS);
        let nothing = Story::default().told().spent(at, 7 * MS);
        assert_eq!((nothing.own, nothing.vendor), (7 * MS, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_stages_are_kept_and_the_others_counted() {
        let at = Instant::now();
        let story = Story::default();
        story.note(Stage::Slot, at, Duration::from_micros(999));
        assert_eq!(story.told(), StoryTold::default());
        for _ in 0..STAGES_MAX + 7 {
            story.note(call("ok"), at, MS);
        }
        let told = story.told();
        assert_eq!((told.stages.len(), told.more), (STAGES_MAX, 7));
    }
}
