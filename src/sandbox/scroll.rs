//! wiv's scrolls, which behave like Elasticsearch's: one id for the whole scroll, the position on
//! the server, a limit of open contexts, expiry, and wrong pages for two continuations at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base64::Engine;
use parking_lot::Mutex;
use serde::Serialize;

use super::dice::{Dice, Domain};
use super::options::{EndOfScroll, Options};
use super::world::{Case, Selection};
use crate::clock::{Duration, Instant};

/// Maximum number of ended scrolls that are kept because they still answer (see
/// [`EndOfScroll::EmptyCursor`]).
const ENDED_MAX: usize = 1_000;
/// Maximum number of open scrolls, whatever the options say. Each needs about two kilobytes.
const OPEN_MAX: usize = 100_000;
/// Number of shards that an id names. It determines the id's length: 36 bytes and 42 for each, in
/// base64.
const SHARDS: usize = 17;

/// Counts of scrolls since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SimScrollCounts {
    /// Scrolls open now.
    pub open: u64,
    /// Maximum of scrolls open at the same time.
    pub peak_open: u64,
    /// Scrolls ever opened.
    pub opened: u64,
    /// Scrolls read to their end.
    pub ended: u64,
    /// Scrolls expired before their end, by time or by command.
    pub expired: u64,
}

/// Faults of a single page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Twists {
    /// No rows, but an id. The position does not move.
    pub(super) empty: bool,
    /// The page before, again. The position does not move.
    pub(super) repeat: bool,
    /// From now on this scroll never ends: rows are invented.
    pub(super) endless: bool,
    /// One row twice. No row is lost, because the position moves by one less.
    pub(super) duplicate: bool,
    /// Half of the requested rows. No row is lost.
    pub(super) short: bool,
    /// Twice the requested rows.
    pub(super) oversize: bool,
}

/// One page. It holds its scroll.
#[derive(Debug)]
pub(super) struct Page {
    rows: Vec<Arc<Case>>,
    /// Number of rows of the whole search.
    pub(super) total: usize,
    /// The id to continue with. `None` at the end.
    pub(super) cursor: Option<String>,
    claim: Claim,
}

impl Page {
    /// Returns the rows of the answer. Call this when the answer is due: if another continuation
    /// arrived meanwhile, the rows of both are mixed up.
    pub(super) fn rows(&self) -> Vec<Arc<Case>> {
        let mut rows = self.rows.clone();
        if self.claim.mixed() {
            // Every second row is lost, and its neighbour is repeated.
            let kept: Vec<Arc<Case>> = rows.iter().step_by(2).cloned().collect();
            rows = kept
                .iter()
                .flat_map(|row| [Arc::clone(row), Arc::clone(row)])
                .take(rows.len())
                .collect();
        }
        rows
    }

    /// Returns the hold on the scroll. Keep it until the answer's last byte.
    pub(super) fn into_claim(self) -> Claim {
        self.claim
    }
}

/// Continuations of one scroll that are being answered.
#[derive(Debug, Default)]
struct Flights {
    active: AtomicUsize,
    overlaps: AtomicU64,
}

/// One continuation that is being answered. It is over when this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    flights: Arc<Flights>,
    overlaps_before: u64,
}

impl Claim {
    fn new(flights: &Arc<Flights>) -> Self {
        flights.active.fetch_add(1, Ordering::SeqCst);
        Self {
            flights: Arc::clone(flights),
            overlaps_before: flights.overlaps.load(Ordering::SeqCst),
        }
    }

    fn mixed(&self) -> bool {
        self.flights.overlaps.load(Ordering::SeqCst) != self.overlaps_before
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.flights.active.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Scroll {
    selection: Selection,
    position: usize,
    size: usize,
    before: (usize, usize),
    born: Instant,
    used: Instant,
    /// The vendor keeps working on an answer whose reader has left. The scroll is busy until then.
    busy_until: Instant,
    ended: bool,
    endless: bool,
    flights: Arc<Flights>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<String, Scroll>,
    counts: SimScrollCounts,
    overlaps: u64,
    /// Never reset, so that no id is ever repeated.
    sequence: u64,
}

/// All scrolls of wiv.
#[derive(Debug)]
pub(super) struct Scrolls {
    seed: u64,
    end: EndOfScroll,
    idle: Duration,
    lifetime: Duration,
    open_max: usize,
    table: Mutex<Table>,
}

impl Scrolls {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            seed: options.seed,
            end: options.end_of_scroll,
            idle: options.scroll_idle,
            lifetime: options.scroll_lifetime,
            open_max: options.open_scrolls_max.min(OPEN_MAX),
            table: Mutex::default(),
        }
    }

    /// Opens a scroll and returns its first page. `None` if too many are open.
    pub(super) fn open(
        &self,
        selection: Selection,
        size: usize,
        now: Instant,
        twists: Twists,
    ) -> Option<Page> {
        let mut table = self.table.lock();
        self.expire(&mut table, now);
        if table.counts.open >= self.open_max as u64 {
            return None;
        }
        table.sequence += 1;
        let id = scroll_id(self.seed, table.sequence);
        table.counts.opened += 1;
        table.counts.open += 1;
        table.counts.peak_open = table.counts.peak_open.max(table.counts.open);
        let mut scroll = Scroll {
            selection,
            position: 0,
            size,
            before: (0, 0),
            born: now,
            used: now,
            busy_until: now,
            ended: false,
            endless: false,
            flights: Arc::default(),
        };
        let page = self.page(&mut table, &id, &mut scroll, twists, false);
        if page.cursor.is_some() {
            table.by_id.insert(id, scroll);
        }
        Some(page)
    }

    /// Returns the next page of the scroll `id`. `None` if it is unknown or expired. The position
    /// moves at once, whether the answer, due in `latency`, reaches a reader or not.
    pub(super) fn next(
        &self,
        id: &str,
        now: Instant,
        latency: Duration,
        twists: Twists,
    ) -> Option<Page> {
        let mut table = self.table.lock();
        self.expire(&mut table, now);
        let mut scroll = table.by_id.remove(id)?;
        let overlaps = scroll.flights.active.load(Ordering::SeqCst) > 0 || now < scroll.busy_until;
        if overlaps {
            table.overlaps += 1;
            scroll.flights.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        scroll.used = now;
        scroll.busy_until = scroll.busy_until.max(now + latency);
        let page = self.page(&mut table, id, &mut scroll, twists, overlaps);
        if page.cursor.is_some() {
            table.by_id.insert(id.to_owned(), scroll);
        }
        Some(page)
    }

    fn page(
        &self,
        table: &mut Table,
        id: &str,
        scroll: &mut Scroll,
        twists: Twists,
        overlaps: bool,
    ) -> Page {
        scroll.endless |= twists.endless;
        let claim = Claim::new(&scroll.flights);
        let total = scroll.selection.len();
        let page = |rows, cursor| Page {
            rows,
            total,
            cursor,
            claim,
        };
        if twists.repeat && scroll.before.1 > 0 {
            let (from, count) = scroll.before;
            return page(rows(scroll, from, count), Some(id.to_owned()));
        }
        if twists.empty {
            return page(Vec::new(), Some(id.to_owned()));
        }
        let mut answer = if overlaps {
            // Two readers are at one position. Each gets some of the rows there, and the position
            // ends up in the middle. So some rows are skipped and others repeated.
            rows(scroll, scroll.position, scroll.size * 2)
                .into_iter()
                .skip(1)
                .step_by(2)
                .collect()
        } else {
            let count = match twists {
                Twists { oversize: true, .. } => scroll.size * 2,
                Twists { short: true, .. } => (scroll.size / 2).max(1),
                _ => scroll.size,
            };
            rows(scroll, scroll.position, count)
        };
        let mut moved = answer.len();
        if twists.duplicate && answer.len() > 1 {
            let again = answer.first().cloned();
            answer.pop();
            answer.extend(again);
            moved -= 1;
        }
        scroll.before = (scroll.position, moved);
        scroll.position += moved;
        let exhausted = scroll.position >= total && !scroll.endless;
        let over = exhausted
            && match self.end {
                EndOfScroll::Short => answer.len() < scroll.size,
                EndOfScroll::Full => true,
                EndOfScroll::EmptyNull | EndOfScroll::EmptyCursor => answer.is_empty(),
            };
        if over && !scroll.ended {
            scroll.ended = true;
            table.counts.open = table.counts.open.saturating_sub(1);
            table.counts.ended += 1;
        }
        let silent = self.end == EndOfScroll::EmptyCursor;
        page(answer, (!over || silent).then(|| id.to_owned()))
    }

    /// Removes the scrolls that have expired at `now`.
    fn expire(&self, table: &mut Table, now: Instant) {
        let (idle, lifetime) = (self.idle, self.lifetime);
        let Table { by_id, counts, .. } = table;
        by_id.retain(|_, scroll| {
            let lives = now.saturating_duration_since(scroll.used) < idle
                && now.saturating_duration_since(scroll.born) < lifetime;
            if !lives && !scroll.ended {
                counts.open = counts.open.saturating_sub(1);
                counts.expired += 1;
            }
            lives
        });
        if by_id.len() > self.open_max.saturating_add(ENDED_MAX) {
            by_id.retain(|_, scroll| !scroll.ended);
        }
    }

    /// Expires the scroll `id`.
    pub(super) fn expire_one(&self, id: &str) {
        let mut table = self.table.lock();
        if table.by_id.remove(id).is_some_and(|scroll| !scroll.ended) {
            table.counts.open = table.counts.open.saturating_sub(1);
            table.counts.expired += 1;
        }
    }

    /// Expires all scrolls and returns how many were open.
    pub(super) fn expire_all(&self, now: Instant) -> u64 {
        let mut table = self.table.lock();
        self.expire(&mut table, now);
        table.by_id.clear();
        let open = std::mem::take(&mut table.counts.open);
        table.counts.expired += open;
        open
    }

    /// Removes all scrolls and counts.
    pub(super) fn reset(&self) {
        let mut table = self.table.lock();
        table.by_id.clear();
        table.counts = SimScrollCounts::default();
        table.overlaps = 0;
    }

    /// Returns the counts at `now`, and how often two continuations overlapped.
    pub(super) fn counts(&self, now: Instant) -> (SimScrollCounts, u64) {
        let mut table = self.table.lock();
        self.expire(&mut table, now);
        (table.counts, table.overlaps)
    }
}

fn rows(scroll: &Scroll, position: usize, count: usize) -> Vec<Arc<Case>> {
    let mut rows = scroll.selection.rows(position, count);
    if scroll.endless {
        let total = scroll.selection.len();
        for nth in rows.len()..count {
            rows.push(
                scroll
                    .selection
                    .invented((position + nth).saturating_sub(total)),
            );
        }
    }
    rows
}

/// Returns an id as long as the real ones, which all begin with the same sixteen characters.
fn scroll_id(seed: u64, sequence: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut dice = Dice::new(seed, Domain::Scrolls, sequence);
    let mut bytes = Vec::with_capacity(36 + SHARDS * 42);
    bytes.extend_from_slice(b"\x14include_context_uuid\x0equeryThenFetch");
    for _ in 0..SHARDS {
        // A context id of 22 letters after its length, a node id, and a counter.
        bytes.push(0x16);
        for _ in 0..33 {
            let at = usize::try_from(dice.below(64)).unwrap_or(0);
            bytes.push(LETTERS.get(at).copied().unwrap_or(b'A'));
        }
        bytes.extend_from_slice(&dice.next().to_be_bytes());
    }
    base64::engine::general_purpose::URL_SAFE.encode(bytes)
}

#[cfg(test)]
#[path = "scroll_tests.rs"]
mod tests;
