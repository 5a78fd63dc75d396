//! Compares the rows of a new scroll with those that were served. The snapshot then grows on, is
//! renewed, or is replaced by another one.

use std::sync::Arc;

use super::frozen::{Ages, End, Grower, State};
use super::lineage::RefreshTurn;
use super::rows::{By, Rows};
use super::walk::{Scroll, Shadow, Stage, Walk, WalkStep};
use crate::cache::Wanted;
use crate::metrics::WalkOutcome;

/// How the rows of a new search compare with those that were served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// It has other rows there, or fewer.
    Differs,
    /// It repeats them as far as it was read.
    NotYet,
    /// It repeats all of them.
    Covered,
}

/// Compares the rows `found` by a new search, `ended` or not, with those of a snapshot of which
/// `published` were served and at least `promised` were said to exist. The first `compared` are
/// known to be equal.
pub fn repeats(
    snapshot: &Rows,
    found: &Rows,
    compared: usize,
    (published, promised): (usize, usize),
    ended: bool,
) -> Repeats {
    let upto = found.len().min(published);
    let range = compared.min(upto)..upto;
    let covers = found.len() >= published && (!ended || found.len() >= promised);
    match snapshot.first_difference(found, range, By::Ids) {
        Some(_) => Repeats::Differs,
        None if covers => Repeats::Covered,
        None if ended => Repeats::Differs,
        None => Repeats::NotYet,
    }
}

/// A refresh that is not decided.
struct Check {
    turn: RefreshTurn,
    wanted: Wanted,
    whole: bool,
}

impl Walk {
    /// Compares the rows so far. `end` says that no more will come.
    pub(super) fn compare(&mut self, scroll: &Scroll, end: Option<End>) -> WalkStep {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Comparing { grower, shadow } => {
                self.compare_to_grow(scroll, end, grower, shadow)
            }
            Stage::Checking {
                turn,
                shadow,
                wanted,
                whole,
            } => {
                let check = Check {
                    turn,
                    wanted,
                    whole,
                };
                self.compare_to_refresh(scroll, end, shadow, None, Some(check))
            }
            Stage::Renewed { grower, shadow } => {
                self.compare_to_refresh(scroll, end, shadow, grower, None)
            }
            stage @ (Stage::Growing { .. } | Stage::Over) => {
                self.stage = stage;
                WalkStep::GoOn
            }
        }
    }

    /// A search for more rows, the first one or one after a lost scroll. Its rows must repeat what
    /// was served.
    fn compare_to_grow(
        &mut self,
        scroll: &Scroll,
        end: Option<End>,
        grower: Grower,
        mut shadow: Shadow,
    ) -> WalkStep {
        let target = self.target.clone();
        let mut state = target.lock();
        let rows = &mut shadow.rows;
        rows.share_last(&state.rows);
        let published = state.published.max(state.firm);
        let served = (published, state.promised);
        let repeats = repeats(&state.rows, rows, shadow.compared, served, end.is_some());
        shadow.compared = shadow.compared.max(rows.len().min(published));
        if repeats == Repeats::Differs {
            // No page may mix two orders.
            state.truncate(published);
            state.end = End::Broken;
            grower.leave(&mut state);
            drop(state);
            self.store.end_kept(&target, End::Broken, self.fence());
            self.store.metrics.walk(WalkOutcome::Broken);
            return self.replace_target(scroll, end, shadow.rows, None);
        }
        if repeats == Repeats::NotYet {
            drop(state);
            self.stage = Stage::Comparing { grower, shadow };
            return WalkStep::GoOn;
        }
        state.truncate(published);
        state.rows.take_from(shadow.rows, published);
        if published == 0 {
            state.envelope = scroll.envelope.clone();
        }
        state.ages.get_or_insert(Ages {
            head: scroll.first_page,
            whole: scroll.first_page,
        });
        if self.store.purged_since(&self.lineage.key, scroll.purges) {
            state.purged = true;
        }
        drop(state);
        self.stage = Stage::Growing { grower };
        self.finish_page(end)
    }

    /// Decides whether the vendor still gives the rows of the target. `check` is present until
    /// then.
    fn compare_to_refresh(
        &mut self,
        scroll: &Scroll,
        end: Option<End>,
        mut shadow: Shadow,
        grower: Option<Grower>,
        check: Option<Check>,
    ) -> WalkStep {
        let target = self.target.clone();
        let mut state = target.lock();
        let rows = &mut shadow.rows;
        rows.share_last(&state.rows);
        let served = state.published.max(state.promised);
        let decided = check.as_ref().is_none_or(|check| {
            let cover = if check.whole { usize::MAX } else { served };
            check.wanted != Wanted::Later || end.is_some() || rows.len() >= cover
        });
        let turn = match check {
            Some(check) if !decided => {
                drop(state);
                self.stage = Stage::Checking {
                    turn: check.turn,
                    shadow,
                    wanted: check.wanted,
                    whole: check.whole,
                };
                return WalkStep::GoOn;
            }
            check => check.map(|check| check.turn),
        };
        let both = rows.len().min(state.rows.len());
        let differs = state
            .rows
            .first_difference(rows, shadow.compared.min(both)..both, By::Text);
        shadow.compared = both;
        let firm = served.max(state.firm);
        let unseen_only = differs.is_some_and(|row| row >= firm) && rows.len() >= firm;
        let grown = differs.is_none()
            && state.end == End::Growing
            && rows.len() >= state.rows.len()
            && (rows.len() > state.rows.len() || end.is_some());
        let ended_alike = end.is_some() && end == Some(state.end) && rows.len() == state.rows.len();
        let same =
            differs.is_none() && (ended_alike || (end.is_none() && rows.len() <= state.rows.len()));
        let step = if unseen_only || grown {
            // Rows that no reader saw are simply replaced. The snapshot goes on with this scroll.
            let keep = if grown { state.rows.len() } else { firm };
            state.truncate(keep);
            state.rows.take_from(shadow.rows, keep);
            state.end = End::Growing;
            self.renew(&mut state, scroll, true);
            let grower = grower.unwrap_or_else(|| Grower::begin(&target, &mut state));
            drop(state);
            self.stage = Stage::Growing { grower };
            self.finish_page(end)
        } else if same {
            // Only the ages are renewed.
            self.renew(&mut state, scroll, ended_alike);
            let grower = match grower {
                Some(grower) if end.is_some() => {
                    grower.leave(&mut state);
                    None
                }
                None if state.end == End::Growing && end.is_none() => {
                    Some(Grower::begin(&target, &mut state))
                }
                grower => grower,
            };
            drop(state);
            self.stage = Stage::Renewed { grower, shadow };
            self.target.announce();
            match end {
                None => WalkStep::GoOn,
                Some(_) => WalkStep::Over(WalkOutcome::Complete),
            }
        } else {
            drop(state);
            self.replace_target(scroll, end, shadow.rows, grower)
        };
        if let Some(turn) = turn {
            turn.end();
        }
        step
    }

    /// Records that the vendor confirmed the first rows, or all of them.
    fn renew(&self, state: &mut State, scroll: &Scroll, whole: bool) {
        state.lifetimes = self.lifetimes;
        state.hits = 0;
        if let Some(ages) = &mut state.ages {
            ages.head = scroll.first_page;
            if whole {
                ages.whole = scroll.first_page;
            }
        }
        if !self.store.purged_since(&self.lineage.key, scroll.purges) {
            state.purged = false;
        }
    }

    /// Makes the rows of this scroll a new snapshot, which becomes the current one.
    fn replace_target(
        &mut self,
        scroll: &Scroll,
        end: Option<End>,
        rows: Rows,
        grower: Option<Grower>,
    ) -> WalkStep {
        let next = self.store.new_snapshot(&self.lineage, self.lifetimes);
        let next_grower = {
            let mut state = next.lock();
            state.rows = rows;
            state.envelope = scroll.envelope.clone();
            state.purged = self.store.purged_since(&self.lineage.key, scroll.purges);
            state.ages = Some(Ages {
                head: scroll.first_page,
                whole: scroll.first_page,
            });
            Grower::begin(&next, &mut state)
        };
        next.touch(0);
        self.lineage.replace(Arc::clone(&next));
        self.store.end_if_purged(&next, scroll.purges);
        let before = std::mem::replace(&mut self.target, next);
        if let Some(grower) = grower {
            grower.leave(&mut before.lock());
        }
        self.stage = Stage::Growing {
            grower: next_grower,
        };
        before.announce();
        self.finish_page(end)
    }
}
