//! What comes before a search that waits for a slot, so that it can be told at once where that takes
//! longer than somebody wants its answer.
//!
//! Who waits, in which order turns are taken, and when left scrolls expire is known. Two things are
//! guessed: how many pages must be read until a scroll has ended, from those of late; and how many go to
//! payers who come now and then and need not wait. Nothing is guessed from too few, or from what was long
//! ago: then only what is known counts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::slots::{NoSlot, Running, SlotId, SlotState, TIMES_FREE, Waiting};
use crate::admission::{Governor, Lane};
use crate::clock::{Duration, Instant};
use crate::domain::Shortage;

/// Slots given last by which is guessed: a few times the slots there usually are, so that most of their
/// scrolls have ended.
const GIVEN: usize = 128;
/// What was read longer ago says nothing: who asks changes what is asked.
const LATELY: Duration = Duration::from_secs(60);
/// Scrolls that must have been read so far to say how many go on from there. If half of all do, so many in
/// a row do in one of 256 cases.
const READ_MIN: usize = 8;
/// Slots that must have been given while others wait, to say how many go to payers who need not.
const AMID_MIN: usize = 32;
/// A guess errs: with each, one call of so many is added. In an overload everyone who is let in would come
/// just in time by the guess, and half of them too late.
const ERRS_BY: usize = 16;

/// A slot that was given, and what became of its scroll.
struct Given {
    id: SlotId,
    payer: Arc<str>,
    /// When it was given, or read of last.
    heard: Instant,
    /// Vendor pages read.
    pages: usize,
    /// There are no more.
    ended: bool,
}

/// The slots that were given of late, in the order of their giving.
#[derive(Default)]
pub(super) struct Lately {
    given: VecDeque<Given>,
    /// How many of them, the last ones, since somebody waits.
    amid: usize,
}

impl Lately {
    /// A slot is given to a search of `payer`.
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

    /// Nobody waits.
    pub fn calm(&mut self) {
        self.amid = 0;
    }

    /// What became of the scroll so far.
    pub fn read(&mut self, id: SlotId, pages: usize, ended: bool, now: Instant) {
        if let Some(given) = self.given.iter_mut().rev().find(|given| given.id == id) {
            given.pages = pages;
            given.ended = ended;
            given.heard = now;
        }
    }

    /// How many pages a scroll of these payers has on average: so many at least, where more are under way
    /// still or few have come so far. 1 where nothing is known.
    fn pages_of(&self, payers: &HashSet<&Arc<str>>, now: Instant) -> f64 {
        let counts = |given: &&Given| !given.is_old(now) && payers.contains(&given.payer);
        let known = self.given.iter().filter(counts);
        mean_pages(known.map(|given| (given.pages, given.ended)).collect())
    }

    /// `calls` for searches of these payers, and those that go to others meanwhile.
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

/// How many pages scrolls have on average, of which so many were read so far and which have ended or not.
/// Of those that have been read so far, ended or not, a part goes on: so the deep ones, which are under way
/// longest, count for no more than they are.
fn mean_pages(mut known: Vec<(usize, bool)>) -> f64 {
    known.sort_unstable();
    // Fewer than enough were read further.
    let enough = known.len().checked_sub(READ_MIN);
    let Some((upto, _)) = enough.and_then(|at| known.get(at)).copied() else {
        return 1.0;
    };
    // What goes on changes only behind a page with which some ended.
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
    /// Whether the one of `id`, who waits, gets its slot after its deadline, or the budget for its search
    /// after those who want it have left.
    pub fn too_late(&self, id: SlotId, budget: Option<&Governor>, now: Instant) -> Option<NoSlot> {
        let Waiting {
            spend, deadline, ..
        } = self.waiting.get(&id)?;
        if let Some(wait) = self.next_expiry(now, id) {
            // Until the first one nothing moves, which would put the deadline off.
            let first = self.left.front().map_or(now, |left| left.expiry);
            if first >= *deadline || now + wait >= (*deadline).max(spend.wanted_until) {
                return Some(NoSlot::Short(Shortage::VendorScrolls, Some(wait)));
            }
        }
        // Work in the background has time.
        let urgent = spend.lane == Lane::Interactive && now < spend.wanted_until;
        let budget = budget.filter(|_| urgent)?;
        let others = self.calls_before(id, spend.wanted_until, now);
        budget.too_long(spend, others).map(NoSlot::Budget)
    }

    /// Returns how long it takes at least until scrolls that were left have expired in such a
    /// number that the one of `id`, who waits, may have a slot. `None` where another scroll may end
    /// before.
    pub fn next_expiry(&self, now: Instant, id: SlotId) -> Option<Duration> {
        if !self.running.is_empty() {
            return None;
        }
        let waiting = self.waiting.get(&id)?;
        let max = self.limits.standing;
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

    /// How many searches at least get a slot before the one of `id`, who waits: its payer's own, and as
    /// many of each other payer, but those by which that one holds more already.
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

    /// How many calls go before the search of the one of `id`, who waits and wants it until then: one for
    /// each search before it, the pages that end a scroll for each of them and for itself, and those of
    /// payers who come now and then and need not wait. And in which lane the last of them goes.
    pub fn calls_before(&self, id: SlotId, until: Instant, now: Instant) -> (usize, Lane) {
        let before = self.ahead_of(id);
        let payers: HashSet<&Arc<str>> = self.waiting.values().map(Waiting::payer).collect();
        // Scrolls that were left expire by themselves, which lets no further walk run.
        let left = self.left.iter().filter(|left| left.counts());
        let expiring = match self.free_running() {
            0 => 0,
            _ => left.take_while(|left| left.expiry < until).count(),
        };
        let ends = (before + 1).saturating_sub(expiring);
        // Where most wait for their first page, slots are short for another reason than open scrolls.
        let open = self.running.values().filter(|one| one.pages > 0).count();
        let pages = match open * 2 >= self.running.len() {
            true => self.lately.pages_of(&payers, now),
            false => 1.0,
        };
        // The scrolls under way end first, those with least to read before the others.
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
        let all = self.lately.with_others(own, &payers);
        let calls = errs(all, all > own);
        let last = match to_end {
            0 => Lane::Interactive,
            // See [`Self::drain_lane`].
            _ => Lane::Refresh,
        };
        (calls, last)
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
