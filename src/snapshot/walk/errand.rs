//! Why a walk reads its next vendor page, when, and on whose account.

use super::{Origin, ScrollEnd, Stage, Walk};
use crate::admission::{Lane, Payer, Spend};
use crate::cache::Wanted;
use crate::clock::{Duration, Instant, sleep_until};
use crate::metrics::WalkOutcome;
use crate::snapshot::follow::Elsewhere;
use crate::snapshot::frozen::{End, State};
use crate::snapshot::lost::WalkFailure;
use crate::snapshot::slots::SlotLease;
use crate::upstream::UpstreamError;

/// Minimum time that a vendor call may wait for budget and answer, even if its callers leave
/// earlier. It is enough for one attempt and a short queue.
const CALL_WAIT: Duration = Duration::from_secs(20);
/// Minimum pause after no budget was found for a scroll that must end because searches wait for
/// slots.
const PRESS_PAUSE: Duration = Duration::from_millis(500);

/// Why the next vendor page is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// A refresh is not decided yet.
    Check(Lane),
    /// A reader waits for rows.
    Reader(Lane),
    /// The walk stays some pages ahead of its furthest reader.
    ReadAhead,
    /// The idle walk may reach its end within a few pages.
    Drain,
    /// The gateway shuts down. Pages that it stores now cost no call after the restart.
    ReadOn,
    /// Searches wait for a slot, so the scroll must end.
    Press(Lane),
}

impl Errand {
    pub(super) fn lane(self) -> Lane {
        match self {
            Self::Check(lane) | Self::Reader(lane) | Self::Press(lane) => lane,
            Self::ReadAhead => Lane::ReadAhead,
            Self::Drain => Lane::Export,
            Self::ReadOn => Lane::Refresh,
        }
    }
}

pub(super) enum Next {
    Fetch(Errand),
    Abandon,
}

impl Walk {
    /// Waits until there is something to do, and returns it.
    pub(super) async fn next(&mut self, slot: &SlotLease) -> Next {
        let store = self.store.clone();
        let lineage = self.lineage.clone();
        loop {
            let target = self.target.clone();
            let demand = target.demand.notified();
            let short = store.slots.pressed.notified();
            let pressed = lineage.pressed.notified();
            let (mut short, mut pressed) = (std::pin::pin!(short), std::pin::pin!(pressed));
            short.as_mut().enable();
            pressed.as_mut().enable();
            let idle_at = match self.decide(slot) {
                Ok(next) => return next,
                Err(idle_at) => idle_at,
            };
            tokio::select! {
                () = demand => {}
                () = short => {}
                () = pressed => {}
                () = self.right.changed() => {}
                () = sleep_until(idle_at) => {}
            }
        }
    }

    /// Returns what to do now, or `Err` with the time until which there is nothing to do.
    fn decide(&mut self, slot: &SlotLease) -> Result<Next, Instant> {
        if let Stage::Checking { wanted, .. } = self.stage {
            return Ok(Next::Fetch(Errand::Check(wanted.lane())));
        }
        let options = self.store.options.load();
        let now = self.store.clock.now();
        let target = self.target.clone();
        let mut state = target.lock();
        let wanted_elsewhere = self.hear(&mut state);
        if let Some(lane) = wanted_lane(&state) {
            self.drained = 0;
            self.read_ahead_paused = false;
            slot.busy();
            return Ok(Next::Fetch(Errand::Reader(lane)));
        }
        // Every first page joins the walk. A reader that requests only first pages wants no more
        // rows, so it must not keep the walk from ending.
        let idle_since = self.target.last_paged().max(self.last_fetch_of_reader());
        let over_at = self.began + options.walk_time_max;
        let idle_at = (idle_since + options.scroll_idle_max).min(over_at);
        if self.lineage.is_pressed() || wanted_elsewhere == Elsewhere::Turn {
            self.leave(&mut state);
            return Ok(Next::Abandon);
        }
        // Only the end of a scroll frees it at the vendor, so this goes before read-ahead.
        if let Some(lane) = slot.idle() {
            if now >= self.pressing_from {
                return Ok(Next::Fetch(Errand::Press(lane)));
            }
            return Err(self.pressing_from);
        }
        if self.reads_on_to_leave(&state, now) {
            self.drained += 1;
            return Ok(Next::Fetch(Errand::ReadOn));
        }
        let ahead = options.read_ahead_pages * options.vendor_page_size.get();
        let reads_on = state.end == End::Growing && state.furthest > 0;
        if reads_on && !self.read_ahead_paused && state.rows.len() < state.furthest + ahead {
            return Ok(Next::Fetch(Errand::ReadAhead));
        }
        if now < idle_at {
            return Err(idle_at);
        }
        let drains = self.origin == Origin::Readers || self.store.slots.is_half_used();
        if now < over_at && drains && self.drained < options.drain_pages_max {
            self.drained += 1;
            return Ok(Next::Fetch(Errand::Drain));
        }
        self.leave(&mut state);
        Ok(Next::Abandon)
    }

    /// Returns whether the gateway shuts down and a paging reader will probably continue after the
    /// restart. Pages that are stored by then cost no call.
    fn reads_on_to_leave(&self, state: &State, now: Instant) -> bool {
        let options = self.store.options.load();
        let idle = now.saturating_duration_since(self.target.last_paged());
        self.store.is_leaving()
            && state.end == End::Growing
            && state.furthest > 0
            && idle < options.scroll_idle_max
            && !self.read_ahead_paused
            && self.drained < options.drain_pages_max
    }

    fn last_fetch_of_reader(&self) -> Instant {
        // Draining is no use of the snapshot, so it does not restart the idle time.
        if self.drained > 0 {
            self.target.last_paged()
        } else {
            self.last_fetch
        }
    }

    /// Handles a continuation that was not sent, because there was no budget or no way to the
    /// vendor. Returns how the scroll ends, if it does.
    pub(super) fn not_sent(&mut self, errand: Errand, error: UpstreamError) -> Option<ScrollEnd> {
        match errand {
            Errand::Check(_) => return Some(ScrollEnd::Lost(error, 0)),
            Errand::Press(_) => {
                // An abandoned scroll would count until it expires, so this one waits for budget
                // instead.
                let pause = error.retry_after.unwrap_or_default().max(PRESS_PAUSE);
                self.pressing_from = self.store.clock.now() + pause;
            }
            Errand::ReadAhead | Errand::ReadOn => self.read_ahead_paused = true,
            Errand::Reader(lane) if lane.is_interactive() => {
                self.announce_failure(WalkFailure::Upstream(error));
            }
            Errand::Reader(_) | Errand::Drain => {
                if self.leave_if_unwanted() {
                    return Some(ScrollEnd::Over(WalkOutcome::Abandoned));
                }
                self.announce_failure(WalkFailure::Upstream(error));
            }
        }
        None
    }

    pub(super) fn first_lane(&self) -> Lane {
        if let Stage::Checking { wanted, .. } = self.stage {
            return wanted.lane();
        }
        let state = self.target.lock();
        if state.wanted_pages > 0 {
            Lane::Interactive
        } else if state.wanted_healed > 0 {
            Lane::Healing
        } else if state.wanted_export > 0 {
            Lane::Export
        } else {
            Lane::Interactive
        }
    }

    pub(super) fn spend(&self, lane: Lane) -> Spend {
        // Callers that wait briefly for a refresh pay for it.
        let wanted_soon = matches!(
            self.stage,
            Stage::Checking {
                wanted: Wanted::Soon,
                ..
            }
        );
        let (payer, until) = match lane {
            Lane::Interactive | Lane::Healing | Lane::Export => {
                let state = self.target.lock();
                (state.payer.clone(), state.wanted_until)
            }
            Lane::Refresh if wanted_soon => (self.target.lock().payer.clone(), None),
            // No caller pays for pages that only end an idle scroll.
            Lane::Refresh | Lane::ReadAhead => (None, None),
        };
        let soonest = self.store.clock.now() + CALL_WAIT;
        let deadline = until.map_or(soonest, |until| until.max(soonest));
        Spend {
            lane,
            deadline,
            wanted_until: until.unwrap_or(deadline),
            payer: payer.unwrap_or_else(Payer::gateway),
            within: None,
        }
    }
}

/// Returns the lane of the most urgent reader that waits for rows which the walk has not read.
pub fn wanted_lane(state: &State) -> Option<Lane> {
    if state.end != End::Growing {
        None
    } else if state.wanted_pages > state.rows.len() {
        Some(Lane::Interactive)
    } else if state.wanted_healed > state.rows.len() {
        Some(Lane::Healing)
    } else if state.wanted_export > state.rows.len() {
        Some(Lane::Export)
    } else {
        None
    }
}
