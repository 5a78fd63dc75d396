//! A new scroll's rows beside what was served already: may the snapshot go on, is it renewed, or does
//! another take its place?

use super::frozen::{Ages, End, State};
use super::rows::By;
use super::walk::{Purpose, Scroll, Step, Walk};
use crate::cache::Wanted;
use crate::metrics::WalkOutcome;

impl Walk {
    /// Compares what has come so far; `end` says that nothing more will.
    pub(super) fn compare(&mut self, scroll: &Scroll, end: Option<End>) -> Step {
        match self.purpose {
            Purpose::Grow => self.compare_to_grow(scroll, end),
            Purpose::Refresh { wanted, whole } => {
                self.compare_to_refresh(scroll, end, wanted, whole)
            }
        }
    }

    /// A new search after a lost or abandoned scroll: its rows must repeat what was served.
    fn compare_to_grow(&mut self, scroll: &Scroll, end: Option<End>) -> Step {
        let Some(shadow) = &mut self.shadow else {
            return Step::GoOn;
        };
        let mut state = self.target.lock();
        shadow.share_last(&state.rows);
        let upto = shadow.len().min(state.published);
        let differs = state
            .rows
            .first_difference(shadow, self.compared..upto, By::Ids);
        self.compared = upto.max(self.compared);
        let covers =
            shadow.len() >= state.published && (end.is_none() || shadow.len() >= state.promised);
        if differs.is_some() || (end.is_some() && !covers) {
            // Nobody may get a page that mixes two orders.
            let published = state.published;
            state.truncate(published);
            state.end = End::Broken;
            drop(state);
            self.store.metrics.walk(WalkOutcome::Broken);
            return self.replace_target(scroll, end);
        }
        if !covers {
            return Step::GoOn;
        }
        let published = state.published;
        state.truncate(published);
        state.rows.take_from(std::mem::take(shadow), published);
        if published == 0 {
            state.envelope = scroll.envelope.clone();
        }
        state.ages.get_or_insert(Ages {
            head: scroll.first_page,
            whole: scroll.first_page,
        });
        if scroll.purges != self.store.purges() {
            state.purged = true;
        }
        drop(state);
        self.shadow = None;
        self.finish_page(end)
    }

    /// A refresh: is the target still what the vendor answers?
    fn compare_to_refresh(
        &mut self,
        scroll: &Scroll,
        end: Option<End>,
        wanted: Wanted,
        whole: bool,
    ) -> Step {
        let Some(shadow) = &mut self.shadow else {
            return Step::GoOn;
        };
        let mut state = self.target.lock();
        shadow.share_last(&state.rows);
        let served = state.published.max(state.promised);
        let cover = if whole { usize::MAX } else { served };
        let decided =
            self.settled || wanted != Wanted::Later || end.is_some() || shadow.len() >= cover;
        if !decided {
            return Step::GoOn;
        }
        let both = shadow.len().min(state.rows.len());
        let differs = state
            .rows
            .first_difference(shadow, self.compared.min(both)..both, By::Text);
        self.compared = both;
        let lifetimes = self.lifetimes;
        let ages = |state: &mut State, whole: bool| {
            state.lifetimes = lifetimes;
            state.hits = 0;
            if let Some(ages) = &mut state.ages {
                ages.head = scroll.first_page;
                if whole {
                    ages.whole = scroll.first_page;
                }
            }
            if scroll.purges == self.store.purges() {
                state.purged = false;
            }
        };
        let unseen_only = differs.is_some_and(|row| row >= served) && shadow.len() >= served;
        let grown = differs.is_none()
            && state.end == End::Growing
            && shadow.len() >= state.rows.len()
            && (shadow.len() > state.rows.len() || end.is_some());
        if unseen_only || grown {
            // Rows that nobody saw are simply replaced; the snapshot goes on with this scroll.
            let keep = if grown { state.rows.len() } else { served };
            state.truncate(keep);
            state.rows.take_from(std::mem::take(shadow), keep);
            state.end = End::Growing;
            ages(&mut state, true);
            if !self.grows {
                state.growers += 1;
                self.grows = true;
            }
            drop(state);
            self.shadow = None;
            self.settled = true;
            return self.finish_page(end);
        }
        let ended_alike =
            end.is_some() && end == Some(state.end) && shadow.len() == state.rows.len();
        if differs.is_none() && (ended_alike || (end.is_none() && shadow.len() <= state.rows.len()))
        {
            // The same rows: only the ages are renewed.
            ages(&mut state, ended_alike);
            self.settled = true;
            if state.end == End::Growing && !self.grows && end.is_none() {
                state.growers += 1;
                self.grows = true;
            }
            drop(state);
            self.target.announce();
            self.end_refresh(None);
            return match end {
                None => Step::GoOn,
                Some(_) => Step::Over(WalkOutcome::Complete),
            };
        }
        drop(state);
        self.replace_target(scroll, end)
    }

    /// The rows of this scroll become a snapshot of their own, and the current one.
    fn replace_target(&mut self, scroll: &Scroll, end: Option<End>) -> Step {
        let Some(shadow) = self.shadow.take() else {
            return Step::GoOn;
        };
        let before = self.target.clone();
        let next = self.store.new_snapshot(&self.lineage, self.lifetimes);
        {
            let mut state = next.lock();
            state.rows = shadow;
            state.envelope = scroll.envelope.clone();
            state.growers = 1;
            state.purged = scroll.purges != self.store.purges();
            state.ages = Some(Ages {
                head: scroll.first_page,
                whole: scroll.first_page,
            });
        }
        next.touch(0);
        self.lineage.replace(next.clone());
        if self.grows {
            let mut state = before.lock();
            state.growers = state.growers.saturating_sub(1);
        }
        self.grows = true;
        self.settled = true;
        self.target = next;
        before.announce();
        self.finish_page(end)
    }
}
