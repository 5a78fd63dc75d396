//! The waits and vendor calls of one request, with their times.
//!
//! A request answered from memory allocates nothing here: the first stage is recorded with the
//! first wait or call.

use parking_lot::Mutex;

use super::spend::Lane;
use crate::clock::{Duration, Instant};
use crate::domain::Operation;
use crate::traces::{SpanDraft, SpanKind};

/// Maximum stages kept of one request. A walk makes a call for every 25 to 500 rows, so a whole
/// export can make thousands. The first ones show why it was slow; the others are counted.
pub const STAGES_MAX: usize = 16;
/// Shorter waits are not recorded, because a millisecond explains nothing.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// A wait or a call on behalf of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoryStage {
    /// Wait for a slot among the open scrolls.
    Slot,
    /// Wait for budget, and for a place at the vendor.
    Budget(Lane),
    /// Pause before a retry.
    Pause,
    /// One attempt at the vendor.
    Call {
        /// The operation.
        operation: Operation,
        /// The call's lane.
        lane: Lane,
        /// `ok`, or the word of the fault.
        outcome: &'static str,
        /// The vendor's status, if it answered with one.
        status: Option<u16>,
    },
    /// A call that the gateway refused to make: nothing was sent.
    Refused {
        /// The operation that was refused.
        operation: Operation,
        /// The call's lane.
        lane: Lane,
        /// The word of the fault.
        outcome: &'static str,
    },
}

impl StoryStage {
    /// Returns the stage as a span. `None` for a call, whose span is made where the vendor's
    /// address is known.
    pub(super) fn span(self, begun: Instant, took: Duration) -> Option<SpanDraft> {
        let of = |name| SpanDraft::new(name, SpanKind::Internal, begun, took);
        match self {
            Self::Slot => Some(of("wait for a scroll")),
            Self::Budget(lane) => {
                Some(of("wait for the vendor's budget").with("msp_gateway.lane", lane.as_str()))
            }
            Self::Pause => Some(of("pause before a retry")),
            Self::Refused {
                operation,
                lane,
                outcome,
            } => Some(
                of("vendor call not made")
                    .with("msp_gateway.vendor", operation.vendor().as_str())
                    .with("msp_gateway.operation", operation.as_str())
                    .with("msp_gateway.lane", lane.as_str())
                    .failed(outcome),
            ),
            Self::Call { .. } => None,
        }
    }
}

/// A stage with its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTimes {
    /// The stage.
    pub stage: StoryStage,
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
    /// Number of further stages.
    pub more: u32,
}

/// Collects the stages of one request.
#[derive(Debug, Default)]
pub struct Story(Mutex<Option<Box<StoryTold>>>);

impl Story {
    /// Records a stage. Returns false for a wait that is too short to record.
    pub fn note(&self, stage: StoryStage, begun: Instant, took: Duration) -> bool {
        let is_wait = matches!(
            stage,
            StoryStage::Slot | StoryStage::Budget(_) | StoryStage::Pause
        );
        if is_wait && took < WAIT_MIN {
            return false;
        }
        let mut told = self.0.lock();
        let told = told.get_or_insert_default();
        if told.stages.len() < STAGES_MAX {
            told.stages.push(StageTimes { stage, begun, took });
        } else {
            told.more = told.more.saturating_add(1);
        }
        true
    }

    /// Returns how the request's time was spent, as [`StoryTold::spent`] does. `None` if it caused
    /// no wait and no vendor call.
    pub fn spent(&self, arrived: Instant, took: Duration) -> Option<TimeSpent> {
        let told = self.0.lock();
        told.as_deref().map(|told| told.spent(arrived, took))
    }

    /// Returns the stages recorded so far.
    pub fn told(&self) -> StoryTold {
        self.0.lock().as_deref().cloned().unwrap_or_default()
    }
}

/// How a request's time was spent. The parts add up to the whole. If two overlap, as the calls to
/// both vendors for one overview do, the time counts for the one named last in: pause, slot,
/// budget, vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSpent {
    /// Waiting for a slot among the open scrolls.
    pub slot: Duration,
    /// Waiting for budget, and for a place at the vendor.
    pub budget: Duration,
    /// Pausing before a retry.
    pub pause: Duration,
    /// Calling a vendor.
    pub vendor: Duration,
    /// Everything else.
    pub own: Duration,
}

impl StoryTold {
    /// Splits the time of a request that arrived at `arrived` and took `took`. Stages after its end
    /// do not count.
    pub fn spent(&self, arrived: Instant, took: Duration) -> TimeSpent {
        let end = arrived + took;
        let mut edges: Vec<Instant> = vec![arrived, end];
        let within = |at: Instant| at.clamp(arrived, end);
        let pieces: Vec<(usize, Instant, Instant)> = self
            .stages
            .iter()
            .filter_map(|noted| {
                let rank = match noted.stage {
                    StoryStage::Pause => 0,
                    StoryStage::Slot => 1,
                    StoryStage::Budget(_) => 2,
                    StoryStage::Call { .. } => 3,
                    StoryStage::Refused { .. } => return None,
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

    fn call(outcome: &'static str) -> StoryStage {
        StoryStage::Call {
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
        story.note(StoryStage::Pause, at + 5 * MS, 15 * MS);
        story.note(StoryStage::Slot, at + 10 * MS, 20 * MS);
        story.note(StoryStage::Budget(Lane::Interactive), at + 20 * MS, 20 * MS);
        story.note(call("ok"), at + 35 * MS, 30 * MS);
        story.note(call("timeout"), at + 60 * MS, 15 * MS);
        // A page that is read ahead continues after the answer.
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
        story.note(StoryStage::Slot, at, Duration::from_micros(999));
        assert_eq!(story.told(), StoryTold::default());
        for _ in 0..STAGES_MAX + 7 {
            story.note(call("ok"), at, MS);
        }
        let told = story.told();
        assert_eq!((told.stages.len(), told.more), (STAGES_MAX, 7));
    }
}
