//! The stages of a walk, and the transitions between them that do not depend on rows. Those that
//! the rows decide are in `compare.rs`.

use super::{Walk, wanted_lane};
use crate::cache::Wanted;
use crate::snapshot::frozen::{Grower, State};
use crate::snapshot::lineage::RefreshTurn;
use crate::snapshot::rows::Rows;

/// What a walk does with the rows that come.
pub enum Stage {
    /// Compares them with the published rows of the target, which they must repeat.
    Comparing {
        /// Lets the target grow while the walk runs.
        grower: Grower,
        /// The scroll's rows so far.
        shadow: Shadow,
    },
    /// Adds them to the target.
    Growing {
        /// Lets the target grow while the walk runs.
        grower: Grower,
    },
    /// Compares them with those of the target, to see whether the vendor still gives the same rows.
    Checking {
        /// The lineage waits for the end of this refresh.
        turn: RefreshTurn,
        /// The scroll's rows so far.
        shadow: Shadow,
        /// Whether callers wait. If they do, the first vendor page decides.
        wanted: Wanted,
        /// Compares every row, not only those that were served.
        whole: bool,
    },
    /// The refresh found the same rows. Compares further ones, in case a reader wants them.
    Renewed {
        /// Present while the target may grow.
        grower: Option<Grower>,
        /// The scroll's rows so far.
        shadow: Shadow,
    },
    /// The walk has ended.
    Over,
}

/// Rows of a scroll that are compared and not yet served.
#[derive(Default)]
pub struct Shadow {
    pub rows: Rows,
    /// Rows that are known to equal the target's.
    pub compared: usize,
}

impl Walk {
    /// Prepares for the rows of a new search, after the scroll before was lost.
    pub fn begin_comparing(&mut self) {
        let shadow = Shadow::default();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Comparing { grower, .. }
            | Stage::Growing { grower }
            | Stage::Renewed {
                grower: Some(grower),
                ..
            } => Stage::Comparing { grower, shadow },
            stage @ Stage::Checking { .. } => stage,
            Stage::Renewed { grower: None, .. } | Stage::Over => Stage::Over,
        };
    }

    /// Stops growing the target, unless a reader waits. The two are decided under one lock, so that
    /// no reader is missed. Returns whether the walk has nothing to do any more.
    pub fn leave_if_unwanted(&mut self) -> bool {
        let target = self.target.clone();
        let mut state = target.lock();
        match &self.stage {
            Stage::Checking { .. } => return false,
            Stage::Renewed { grower: None, .. } | Stage::Over => return true,
            Stage::Comparing { .. } | Stage::Growing { .. } | Stage::Renewed { .. } => {}
        }
        if wanted_lane(&state).is_some() {
            return false;
        }
        self.leave(&mut state);
        true
    }

    /// Stops growing the target, whose state is locked.
    pub fn leave(&mut self, state: &mut State) {
        if let Some(grower) = self.take_grower() {
            grower.leave(state);
        }
    }

    fn take_grower(&mut self) -> Option<Grower> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Comparing { grower, .. } | Stage::Growing { grower } => Some(grower),
            Stage::Renewed { grower, .. } => grower,
            // Unchanged, because its turn must be ended with an outcome.
            stage @ Stage::Checking { .. } => {
                self.stage = stage;
                None
            }
            Stage::Over => None,
        }
    }

    /// Ends the walk. Returns its refresh, which must be ended with an outcome, if it is undecided.
    pub(super) fn take_turn(&mut self) -> Option<RefreshTurn> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Checking { turn, .. } => Some(turn),
            Stage::Comparing { .. }
            | Stage::Growing { .. }
            | Stage::Renewed { .. }
            | Stage::Over => None,
        }
    }
}
