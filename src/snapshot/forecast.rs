//! Estimates how many vendor calls are made before a search that waits for a slot gets its turn. A
//! search whose turn would come too late for its caller is refused at once.
//!
//! Known exactly: the waiting searches, the order of turns, and when abandoned scrolls expire. Two
//! things are estimated. One is how many pages are read until a scroll ends, from the scrolls of
//! the last minute. The other is how many slots go to payers that come now and then and need not
//! wait. An estimate needs enough recent scrolls. Without them, only what is known counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::slot_state::{Running, SlotId, SlotState, TIMES_FREE, Waiting};
use super::slots::NoSlot;
use crate::admission::{Governor, Lane};
use crate::clock::{Duration, Instant};
use crate::domain::Shortage;

/// Number of recent slots used for estimates. It is a few times the usual number of slots, so that
/// most of their scrolls have ended.
const GIVEN: usize = 128;
/// Older reads are ignored, because callers change their searches.
const LATELY: Duration = Duration::from_secs(60);
/// Minimum number of scrolls read up to a page for an estimate of how many go on from there. If
/// half of all scrolls go on, eight in a row do so in one of 256 cases.
const READ_MIN: usize = 8;
/// Minimum number of slots given while searches wait for an estimate of how many go to other
/// payers.
const AMID_MIN: usize = 32;
/// Estimates are padded by 1/16, once for each estimate. In an overload, every admitted search
/// comes just in time by the estimate, so without padding half of them would be too late.
const ERRS_BY: usize = 16;

/// A slot that was given, and the progress of its scroll.
struct Given {
    id: SlotId,
    payer: Arc<str>,
    /// When it was given, or last read from.
    heard: Instant,
    /// Number of vendor pages read.
    pages: usize,
    /// Whether the scroll has ended.
    ended: bool,
}

/// The slots that were given recently, oldest first.
#[derive(Default)]
pub(super) struct RecentSlots {
    given: VecDeque<Given>,
    /// How many of the newest were given while searches wait.
    amid: usize,
}

impl RecentSlots {
    /// Records that a slot was given to a search of `payer`.
    pub fn give(&mut self, id: SlotId, payer: &Arc<str>, now: Instant) {
        while self.given.len() >= GIVEN || self.given.front().is_some_and(|one| one.is_old(now)) {
            self.given.pop_front();
        }
        self.given.push_back(Given {
            id,
            payer: Arc::clone(payer),
            heard: now,
            pages: 0,
            ended: false,
        });
        self.amid = (self.amid + 1).min(self.given.len());
    }

    /// Records that no search waits any more.
    pub fn calm(&mut self) {
        self.amid = 0;
    }

    /// Records the progress of a scroll.
    pub fn read(&mut self, id: SlotId, pages: usize, ended: bool, now: Instant) {
        if let Some(given) = self.given.iter_mut().rev().find(|given| given.id == id) {
            given.pages = pages;
            given.ended = ended;
            given.heard = now;
        }
    }

    /// Returns the average number of pages of a scroll of these payers. It is a lower bound if many
    /// scrolls are still running or few have been read that far. Returns 1 if nothing is known.
    fn pages_of(&self, payers: &HashSet<&Arc<str>>, now: Instant) -> f64 {
        let counts = |given: &&Given| !given.is_old(now) && payers.contains(&given.payer);
        let known = self.given.iter().filter(counts);
        mean_pages(known.map(|given| (given.pages, given.ended)).collect())
    }

    /// Returns the number of slots given in total until searches of these payers have got `calls`
    /// of them.
    fn with_others(&self, calls: usize, payers: &HashSet<&Arc<str>>) -> usize {
        let amid = self.given.iter().rev().take(self.amid);
        let of_these = amid.filter(|given| payers.contains(&given.payer)).count();
        match of_these {
            0 => calls,
            _ if self.amid < AMID_MIN => calls,
            _ => calls.saturating_mul(self.amid) / of_these,
        }
    }
}

/// Returns the average number of pages of scrolls, from (pages read, ended) of each. At each page,
/// the share of scrolls that go on is taken from all that were read up to it, ended or not. So deep
/// scrolls, which run longest, do not count for more than their share.
fn mean_pages(mut known: Vec<(usize, bool)>) -> f64 {
    known.sort_unstable();
    // Fewer than the minimum were read further than this.
    let enough = known.len().checked_sub(READ_MIN);
    let Some((upto, _)) = enough.and_then(|at| known.get(at)).copied() else {
        return 1.0;
    };
    // The share that goes on changes only after a page at which some scrolls ended.
    let (mut mean, mut go_on, mut page, mut reached) = (1.0, 1.0, 0, known.len());
    for alike in known.chunk_by(|one, other| one.0 == other.0) {
        let last = alike.first().map_or(0, |(pages, _)| *pages);
        let ended = alike.iter().filter(|(_, ended)| *ended).count();
        if last > upto {
            break;
        }
        if last > 0 && ended > 0 {
            mean += go_on * (last - 1 - page) as f64;
            go_on *= (reached - ended) as f64 / reached as f64;
            mean += go_on;
            page = last;
        }
        reached -= alike.len();
    }
    mean + go_on * (upto - page) as f64
}

impl Given {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > LATELY
    }
}

impl SlotState {
    /// Returns a refusal if the waiting search `id` would get its slot after its deadline, or the
    /// budget for its call after its callers have left.
    pub fn too_late(&self, id: SlotId, budget: Option<&Governor>, now: Instant) -> Option<NoSlot> {
        let Waiting {
            spend, deadline, ..
        } = self.waiting.get(&id)?;
        if let Some(wait) = self.next_expiry(now, id) {
            // Nothing moves before the first expiry, so the deadline cannot be extended before it.
            let first = self.left.front().map_or(now, |left| left.expiry);
            if first >= *deadline || now + wait >= (*deadline).max(spend.wanted_until) {
                return Some(NoSlot::Short(Shortage::VendorScrolls, Some(wait)));
            }
        }
        // Background work has time.
        let urgent = spend.lane.is_interactive() && now < spend.wanted_until;
        let budget = budget.filter(|_| urgent)?;
        let others = self.calls_before(id, spend.wanted_until, now);
        budget.too_long(spend, others).map(NoSlot::Budget)
    }

    /// Returns the minimum time until enough abandoned scrolls have expired for the waiting search
    /// `id` to get a slot. `None` if another scroll may end before that.
    pub fn next_expiry(&self, now: Instant, id: SlotId) -> Option<Duration> {
        if !self.running.is_empty() || self.others() > 0 {
            return None;
        }
        let waiting = self.waiting.get(&id)?;
        let max = self.standing_max();
        let kept = Self::kept_from(waiting.spend.lane, max);
        let mut held = self.held(waiting.payer()).standing();
        let mut counted = self.counted();
        for left in self.left.iter().filter(|left| left.counts()) {
            counted = counted.saturating_sub(1);
            held = held.saturating_sub(usize::from(left.counts_for(waiting.payer())));
            let free = max.saturating_sub(counted);
            if free > kept && held < free.saturating_mul(TIMES_FREE) {
                return Some(left.expiry.saturating_duration_since(now));
            }
        }
        None
    }

    /// Returns the minimum number of searches that get a slot before the waiting search `id`:
    /// earlier ones of its payer, and as many of each other payer, less the slots that this payer
    /// already holds more than its own.
    fn ahead_of(&self, id: SlotId) -> usize {
        let Some(own) = self.waiting.get(&id) else {
            return 0;
        };
        let mut of: HashMap<&Arc<str>, usize> = HashMap::new();
        for (other, waiting) in &self.waiting {
            let own_later = waiting.payer() == own.payer() && *other >= id;
            if waiting.spend.lane <= own.spend.lane && !own_later {
                *of.entry(waiting.payer()).or_default() += 1;
            }
        }
        let before = of.remove(own.payer()).unwrap_or(0);
        let held = self.held(own.payer()).standing();
        let others = of.into_iter().map(|(payer, count)| {
            let more = self.held(payer).standing().saturating_sub(held);
            count.min(before.saturating_sub(more))
        });
        before + others.sum::<usize>()
    }

    /// Returns how many calls go before the call of the waiting search `id`, which wants it by
    /// `until`. These are: one for each search before it, the pages until enough scrolls have ended
    /// for all of them and for itself, and the calls of payers that come now and then and need not
    /// wait. Also returns the lane of the last of these calls.
    pub fn calls_before(&self, id: SlotId, until: Instant, now: Instant) -> (usize, Lane) {
        let before = self.ahead_of(id);
        let payers: HashSet<&Arc<str>> = self.waiting.values().map(Waiting::payer).collect();
        // Abandoned scrolls expire by themselves. That frees no place for a further running walk.
        let left = self.left.iter().filter(|left| left.counts());
        let expiring = match self.free_running() {
            0 => 0,
            _ => left.take_while(|left| left.expiry < until).count(),
        };
        let ends = (before + 1).saturating_sub(expiring);
        // If most walks wait for their first page, open scrolls are not the reason why slots are
        // short.
        let open = self.running.values().filter(|one| one.pages > 0).count();
        let pages = match open * 2 >= self.running.len() {
            true => self.recent.pages_of(&payers, now),
            false => 1.0,
        };
        // The running scrolls end first, those with the fewest pages left before the others.
        let left = |one: &Running| (pages - one.pages.max(1) as f64).max(0.0);
        let mut first: Vec<f64> = self.running.values().map(left).collect();
        first.sort_unstable_by(f64::total_cmp);
        let then = ends.saturating_sub(first.len()) as f64 * (pages - 1.0);
        let to_end = (first.iter().take(ends).sum::<f64>() + then) as usize;
        let errs = |calls: usize, is_guessed: bool| match is_guessed {
            true => calls + calls / ERRS_BY,
            false => calls,
        };
        let own = errs(before + to_end, to_end > 0);
        let all = self.recent.with_others(own, &payers);
        let calls = errs(all, all > own);
        let last = match to_end {
            0 => Lane::Interactive,
            // [`Self::drain_lane`] says why.
            _ => Lane::Refresh,
        };
        (calls, last)
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
