//! What readers take out of a snapshot: pages, rows for exports, and row numbers of views.
//!
//! Comparing, cutting and publishing are one step under the snapshot's lock. So a row that was
//! served is marked as published before any walk can replace it.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::{End, Snapshot, State};
use crate::domain::record::RowId;
use crate::snapshot::marks::{HEAD_ROWS, Marks};
use crate::snapshot::page::{PageReach, reach};
use crate::snapshot::view::{View, ViewIndex};
use crate::upstream::EnvelopeMember;

/// Maximum number of views whose row numbers a snapshot remembers. The least recently used one is
/// evicted, and computed again at its next use. Each costs four bytes for each row.
pub(super) const VIEWS_MAX: usize = 32;

/// Outcome of cutting a page.
#[derive(Debug)]
pub enum Cut {
    /// The page.
    Ready(CutPage),
    /// More rows must come first.
    NeedMore,
    /// There are no such rows, and none will come.
    Gone,
    /// The rows before the page are not those that the token was made for.
    Changed,
    /// A walk reached one of its own limits before these rows. Its setting is named.
    Limit(&'static str),
}

/// The rows of a page.
#[derive(Debug)]
pub struct CutPage {
    /// Row texts, with commas within each piece but not between pieces.
    pub pieces: Vec<Bytes>,
    /// Number of rows.
    pub rows: usize,
    /// The start of the next page, if there is one, and the marks of that place.
    pub next: Option<(u32, Marks)>,
    /// The envelope of the vendor's first page. For a view that is not whole, nothing but the rows.
    pub envelope: Arc<[EnvelopeMember]>,
}

/// The envelope of a page that is cut for an audience or a customer.
static OF_A_VIEW: LazyLock<Arc<[EnvelopeMember]>> =
    LazyLock::new(|| Arc::new([EnvelopeMember::Data, EnvelopeMember::NextPageKey]));

impl Snapshot {
    /// Cuts the rows `[offset, offset + size)` of a view. A page is ready if one row more is known,
    /// or no more will come. It is never short because time ran out. With `marks`, the rows before
    /// the page must show them. Comparing and serving are one step, so rows that do not match are
    /// never served.
    pub fn cut(&self, view: &View, offset: u32, size: usize, marks: Option<&Marks>) -> Cut {
        self.touch(offset);
        let mut state = self.lock();
        let state = &mut *state;
        let first = offset as usize;
        let known = state.known(view);
        if marks.is_some_and(|marks| state.differs(view, first, known, marks)) {
            return Cut::Changed;
        }
        let (last, more) = match reach(state.end, known, first, size) {
            PageReach::Rows { last, more } => (last, more),
            PageReach::NeedMore => return Cut::NeedMore,
            PageReach::Gone => return Cut::Gone,
            PageReach::Limit(setting) => return Cut::Limit(setting),
        };
        let next = u32::try_from(last).ok().filter(|_| more);
        let page = state.take(view, first, last, next);
        Cut::Ready(page)
    }

    /// Returns whether the rows before `offset` are known and show these marks.
    pub fn shows(&self, view: &View, offset: u32, marks: &Marks) -> bool {
        let mut state = self.lock();
        let known = state.known(view);
        let place = offset as usize;
        known >= place && !state.differs(view, place, known, marks)
    }

    /// Returns whether [`Self::cut`] would answer now, if only with a refusal.
    pub fn is_decided(&self, view: &View, offset: u32, size: usize, marks: &Marks) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        let (first, known) = (offset as usize, state.known(view));
        state.end != End::Growing
            || known > first.saturating_add(size)
            || state.differs(view, first, known, marks)
    }

    /// Returns how many rows of `view` are known now, and whether more may come.
    pub fn known(&self, view: &View) -> (usize, End) {
        let mut state = self.lock();
        (state.known(view), state.end)
    }

    /// Returns the texts of the rows of a view from `first` on that are known now, at most `size`,
    /// for an export. They count as served. `End` is returned with the last row only.
    pub fn rows_known(&self, view: &View, first: usize, size: usize) -> (Vec<Bytes>, End) {
        self.touch(u32::MAX);
        let mut state = self.lock();
        let state = &mut *state;
        let known = state.known(view);
        let last = known.min(first.saturating_add(size));
        let end = if last < known {
            End::Growing
        } else {
            state.end
        };
        if last <= first {
            return (Vec::new(), end);
        }
        let texts = if view.is_whole() {
            state.published = state.published.max(last);
            (first..last).map(|row| state.rows.text(row)).collect()
        } else {
            state.take(view, first, last, None).pieces
        };
        state.furthest = state.furthest.max(state.published);
        (texts, end)
    }

    /// Returns what [`Self::rows_known`] returns, with the id of each row. This does not count as a
    /// use that keeps the snapshot in memory.
    pub fn rows_with_ids(
        &self,
        view: &View,
        first: usize,
        size: usize,
    ) -> (Vec<(RowId, Bytes)>, End) {
        let mut state = self.lock();
        let state = &mut *state;
        let known = state.known(view);
        let last = known.min(first.saturating_add(size));
        let mut found = Vec::with_capacity(last.saturating_sub(first));
        let mut each = |id, text| found.push((id, text));
        let mut served = last;
        if view.is_whole() {
            state.rows.for_each_row(first..last, &mut each);
        } else if let Some((index, _)) = state.views.get(view) {
            let shown = index.rows().get(first..last).unwrap_or_default();
            for row in shown.iter().map(|row| *row as usize) {
                state.rows.for_each_row(row..row + 1, &mut each);
                served = row + 1;
            }
        }
        if last > first {
            state.published = state.published.max(served);
            state.furthest = state.furthest.max(state.published);
        }
        let end = if last < known {
            End::Growing
        } else {
            state.end
        };
        (found, end)
    }

    /// Returns the texts of those of the first `size` rows that `view` shows, for the columns of an
    /// export. Member names of other rows stay hidden.
    pub fn first_rows(&self, view: &View, size: usize) -> Vec<Bytes> {
        let mut state = self.lock();
        let size = state.told.min(size);
        if view.is_whole() {
            return (0..size).map(|row| state.rows.text(row)).collect();
        }
        let shown = state.index(view).rows().iter().map(|row| *row as usize);
        let shown: Vec<_> = shown.take_while(|row| *row < size).collect();
        shown.into_iter().map(|row| state.rows.text(row)).collect()
    }

    /// Calls `each` with (customer, case type) of every row of `view`, which count as served.
    pub fn for_each_row(&self, view: &View, mut each: impl FnMut(Option<&str>, Option<&str>)) {
        self.touch(0);
        let mut state = self.lock();
        let state = &mut *state;
        state.published = state.published.max(state.told);
        state.index(view);
        let Some((index, _)) = state.views.get(view) else {
            return;
        };
        let mut shown = index.rows().iter().copied().peekable();
        let rows = &state.rows;
        rows.for_each_from(0, |row, customer, case_type| {
            if shown.next_if(|next| *next as usize == row).is_some() {
                each(rows.customers.text(customer), rows.types.text(case_type));
            }
        });
    }
}

impl State {
    /// Returns how many rows of `view` are known.
    fn known(&mut self, view: &View) -> usize {
        match view.is_whole() {
            true => self.told,
            false => self.index(view).rows().len(),
        }
    }

    /// Returns the marks of the place after the first `place` rows of a view whose index is up to
    /// date.
    fn marks(&mut self, view: &View, place: usize) -> Marks {
        let rows = &self.rows;
        if !view.is_whole()
            && let Some((index, _)) = self.views.get_mut(view)
        {
            return index.marks(place, rows);
        }
        self.chain
            .marks(place, |range, each| rows.for_each_id(range, each))
    }

    /// Returns whether the known rows before `place`, up to `known`, differ from those that gave
    /// `marks`.
    fn differs(&mut self, view: &View, place: usize, known: usize, marks: &Marks) -> bool {
        let head = place.min(HEAD_ROWS);
        if known >= place {
            self.marks(view, place) != *marks
        } else {
            known >= head && self.marks(view, head).first != marks.first
        }
    }

    fn index(&mut self, view: &View) -> &ViewIndex {
        self.uses += 1;
        if self.views.len() >= VIEWS_MAX && !self.views.contains_key(view) {
            let oldest = self.views.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(view, _)| view.clone()) {
                self.views.remove(&oldest);
            }
        }
        let (index, used) = self.views.entry(view.clone()).or_default();
        index.extend(view, &self.rows, self.told);
        *used = self.uses;
        index
    }

    /// Returns the rows `[first, last)` of a view, marked as served.
    fn take(&mut self, view: &View, first: usize, last: usize, next: Option<u32>) -> CutPage {
        let envelope = match view.is_whole() {
            true => self.envelope.clone(),
            // The vendor's other members describe all rows, such as a total.
            false => OF_A_VIEW.clone(),
        };
        let (pieces, served, told) = if view.is_whole() {
            let told = if next.is_some() { last + 1 } else { last };
            (self.rows.cut(first..last), last, told)
        } else {
            let Some((index, _)) = self.views.get(view) else {
                return CutPage {
                    pieces: Vec::new(),
                    rows: 0,
                    next: None,
                    envelope,
                };
            };
            let numbers = index.rows();
            let shown = numbers.get(first..last).unwrap_or_default();
            let pieces = shown
                .iter()
                .map(|row| self.rows.text(*row as usize))
                .collect();
            // In a filtered view, the row that a page announces is a certain row, so it counts as
            // served. Otherwise another search could make the announcement false.
            let furthest = if next.is_some() {
                numbers.get(last)
            } else {
                None
            };
            let furthest = furthest.or(shown.last());
            let served = furthest.map_or(0, |row| *row as usize + 1);
            (pieces, served, served)
        };
        self.published = self.published.max(served);
        self.promised = self.promised.max(told);
        if first > 0 {
            self.furthest = self.furthest.max(served);
        }
        let next = next.map(|place| (place, self.marks(view, place as usize)));
        CutPage {
            rows: last.saturating_sub(first),
            pieces,
            next,
            envelope,
        }
    }
}
