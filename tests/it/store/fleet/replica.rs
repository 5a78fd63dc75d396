//! What one gateway does: it answers, walks or follows, and stores rows. The order of the steps is
//! that of `src/snapshot`.

use std::collections::BTreeMap;

use msp_gateway::snapshot::End;
use msp_gateway::snapshot::Marks;
use msp_gateway::snapshot::compare::{Repeats, repeats};
use msp_gateway::snapshot::page::{PageReach, reach};
use msp_gateway::store::claims::{ClaimTerm, Clearance};
use msp_gateway::store::fleet::{ClaimId, FleetOp, FleetReply};
use msp_gateway::store::{Chain, Fence, KeptEnd, KeptStanding, StoreOp, Watermarks, load_after};

use super::super::list::{LINE, VendorPage, chain_after, marks, name, rows};
use super::world::{LEASE, Token, World, instant};
use super::{Found, Reply};

/// A snapshot in a gateway's memory.
#[derive(Clone, Debug)]
pub struct Copy {
    pub rows: Vec<u8>,
    /// Where each of its chunks ends.
    pub ends: Vec<usize>,
    pub told: usize,
    pub published: usize,
    pub promised: usize,
    /// Rows up to here are in the store as far as is known, so others may have read them.
    pub firm: usize,
    pub end: End,
    /// Readers hear of it with the last rows.
    pub ending: Option<End>,
    /// Its chunks in the store, and the chain over them. `None` before the first ones.
    pub place: Option<(u32, Chain)>,
    /// Rows in these chunks.
    pub stored: usize,
    pub unsure: bool,
    pub off: bool,
    /// The store lost it.
    pub lost: bool,
    /// The number of the purges before its scroll began.
    pub begun: Option<u64>,
    /// A purge ended it.
    pub ended: bool,
}

impl Default for Copy {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            ends: Vec::new(),
            told: 0,
            published: 0,
            promised: 0,
            firm: 0,
            end: End::Growing,
            ending: None,
            place: None,
            stored: 0,
            unsure: false,
            off: false,
            lost: false,
            begun: None,
            ended: false,
        }
    }
}

impl Copy {
    fn append(&mut self, rows: &[u8]) {
        if !rows.is_empty() {
            self.rows.extend_from_slice(rows);
            self.ends.push(self.rows.len());
        }
    }

    fn truncate(&mut self, len: usize) {
        if len < self.rows.len() {
            self.rows.truncate(len);
            self.ends.retain(|end| *end < len);
            self.ends.extend((len > 0).then_some(len));
        }
    }

    /// Takes another list's rows from its row `first` on.
    fn take_from(&mut self, other: &Self, first: usize) {
        let mut from = first;
        for end in other.ends.iter().filter(|end| **end > first) {
            self.append(&other.rows[from..*end]);
            from = *end;
        }
    }

    /// Returns the chain after each chunk, and the rows up to there.
    pub fn chunks(&self) -> Vec<(Chain, usize)> {
        let (mut chain, mut from) = (Chain::default(), 0);
        let each = self.ends.iter().map(|end| {
            chain = chain_after(&self.rows[from..*end], &chain);
            from = *end;
            (chain, from)
        });
        each.collect()
    }

    pub fn chains(&self) -> Vec<Chain> {
        self.chunks().iter().map(|(chain, _)| *chain).collect()
    }

    pub fn forget_place(&mut self) {
        (self.place, self.stored, self.lost) = (None, 0, true);
    }
}

/// What a walk still has to do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Todo {
    Take,
    Keep,
    Tell,
}

#[derive(Clone, Debug)]
pub struct Walk {
    target: u8,
    scroll: usize,
    /// The purges before the scroll began: their number here, and the events.
    begun: (u64, u8),
    /// Rows of the scroll, while they are compared.
    shadow: Option<Copy>,
    page: Option<VendorPage>,
    /// Each entry is one step.
    todo: Vec<&'static [Todo]>,
}

/// One gateway.
#[derive(Clone, Debug)]
pub struct Replica {
    pub memory: BTreeMap<u8, Copy>,
    pub current: Option<u8>,
    walk: Option<Walk>,
    pub term: Option<ClaimTerm>,
    /// Milliseconds on its clock.
    pub now: u64,
    /// Counts its lives together with those of the other.
    life: u8,
    pub away: bool,
    pub purges: Watermarks,
    /// The purge events that it has applied.
    pub purged: u8,
}

impl Replica {
    pub fn born(life: u8) -> Self {
        Self {
            memory: BTreeMap::new(),
            current: None,
            walk: None,
            term: None,
            now: 0,
            life,
            away: false,
            purges: Watermarks::default(),
            purged: 0,
        }
    }

    pub fn is_busy(&self) -> bool {
        let walk = self.walk.as_ref();
        walk.is_some_and(|walk| !walk.todo.is_empty())
    }

    /// Returns whether its walk could read a page that nobody here waits for.
    pub fn may_read_on(&self) -> bool {
        let walk = self.walk.as_ref();
        walk.is_some_and(|walk| walk.todo.is_empty() && self.holds(walk.target))
    }

    pub fn claim(&self) -> ClaimId {
        ClaimId([self.life; 16])
    }

    pub fn copy(&mut self, snapshot: u8) -> &mut Copy {
        self.memory.get_mut(&snapshot).expect("held")
    }

    /// Returns whether requests find a snapshot.
    fn holds(&self, snapshot: u8) -> bool {
        self.memory.get(&snapshot).is_some_and(|copy| !copy.ended)
    }

    /// Ends all snapshots, as a hard purge does. A walk keeps its target until it is over.
    pub fn end_all(&mut self) {
        self.memory.values_mut().for_each(|copy| copy.ended = true);
        let target = self.walk.as_ref().map(|walk| walk.target);
        self.memory.retain(|snapshot, _| Some(*snapshot) == target);
        self.current = None;
    }
}

/// The answer to a request.
pub enum Answer {
    /// A row, the next token, and the snapshot they are of.
    Page(Option<u8>, Option<Token>, u8),
    /// No such rows, and none will come.
    Gone,
    /// 410.
    Expired,
}

impl World {
    /// Reads a snapshot back that memory does not hold.
    fn recall(&mut self, by: usize, snapshot: u8) {
        let Ok(Some((standing, begun))) = self.look(by, snapshot) else {
            return;
        };
        if self.is_purged(by, begun) {
            let snapshot = name(snapshot);
            self.store(by, &[StoreOp::Forget { snapshot }], Reply::Comes);
            return;
        }
        if standing.ages.is_some() {
            let mut copy = Copy {
                place: Some((0, Chain::default())),
                begun: Some(begun),
                ..Copy::default()
            };
            self.load(&mut copy, snapshot, &standing, (0, Chain::default()));
            self.replicas[by].memory.insert(snapshot, copy);
        }
    }

    /// Adds the rows in the store after a place.
    fn load(&self, copy: &mut Copy, of: u8, standing: &KeptStanding, after: (u32, Chain)) {
        let (mut number, mut chain) = after;
        while number < standing.chunks {
            let chunk = self.chunk(of, number);
            let (before, rows) = chunk.split_at(16);
            if before != chain {
                copy.off = true;
                return;
            }
            chain = chain_after(rows, &chain);
            number += 1;
            copy.append(rows);
            copy.place = Some((number, chain));
            copy.stored = copy.rows.len();
            (copy.told, copy.firm) = (copy.rows.len(), copy.rows.len());
        }
        if chain != standing.chain || copy.rows.len() as u64 != standing.rows {
            copy.off = true;
            return;
        }
        copy.end = match standing.end {
            KeptEnd::Open => copy.end,
            KeptEnd::Complete => End::Complete,
            KeptEnd::Cut => End::Cut("walk"),
            KeptEnd::Broken => End::Broken,
        };
    }

    /// Loads what the store has of a walk's target beyond the copy here. `mine`: no other gateway
    /// has the claim. Returns the target, which may be another gateway's snapshot from now on.
    fn pull(&mut self, by: usize, target: u8, mine: bool) -> u8 {
        let mut copy = self.replicas[by].copy(target).clone();
        if copy.off {
            return target;
        }
        let Some(place) = copy.place else {
            return self.adopt(by, target);
        };
        let standing = match self.look(by, target) {
            Ok(Some((standing, _))) => standing,
            Ok(None) if mine => {
                self.replicas[by].copy(target).forget_place();
                return target;
            }
            Ok(None) | Err(()) => return target,
        };
        let is_level = copy.rows.len() == copy.stored;
        match load_after(place, is_level, || copy.chains(), standing.chunks) {
            Some(after) => self.load(&mut copy, target, &standing, after),
            None => copy.unsure = true,
        }
        self.replicas[by].memory.insert(target, copy);
        target
    }

    /// Makes a snapshot without a row the copy of the current one in the store.
    fn adopt(&mut self, by: usize, target: u8) -> u8 {
        let Some(found) = self.line_current(by).filter(|found| *found != target) else {
            return target;
        };
        let copy = self.replicas[by].copy(target);
        if copy.told > 0 || !copy.rows.is_empty() || copy.ended {
            return target;
        }
        if !self.replicas[by].memory.contains_key(&found) {
            self.recall(by, found);
        }
        if !self.replicas[by].holds(found) || self.replicas[by].copy(found).end == End::Broken {
            return target;
        }
        self.replicas[by].memory.remove(&target);
        self.replicas[by].current = Some(found);
        found
    }

    /// Returns the snapshot that first pages are cut from.
    fn current(&mut self, by: usize) -> u8 {
        if let Some(current) = self.replicas[by].current {
            return current;
        }
        if let Some(found) = self.line_current(by) {
            if !self.replicas[by].memory.contains_key(&found) {
                self.recall(by, found);
            }
            if self.replicas[by].holds(found) {
                self.replicas[by].current = Some(found);
                return found;
            }
        }
        self.begin(by, Copy::default(), self.purges)
    }

    fn begin(&mut self, by: usize, copy: Copy, since: u8) -> u8 {
        let snapshot = self.begun;
        self.begun += 1;
        self.replicas[by].memory.insert(snapshot, copy);
        self.replicas[by].current = Some(snapshot);
        self.since.insert(snapshot, since);
        snapshot
    }

    /// Answers the caller. `Err`: more rows of this snapshot must come first.
    pub fn answer(&mut self, by: usize) -> Result<Answer, u8> {
        let Some(token) = self.caller.token else {
            let current = self.current(by);
            return self.page(by, current, 0, None);
        };
        let (named, place) = (token.snapshot, token.place);
        let wanted = self.decisions.marks.then_some(token.marks);
        if !self.replicas[by].memory.contains_key(&named) {
            self.recall(by, named);
        }
        if self.replicas[by].holds(named) {
            match self.page(by, named, place, wanted)? {
                Answer::Gone => {}
                answer => return Ok(answer),
            }
        }
        // Healing.
        if wanted.is_none() {
            return Ok(Answer::Expired);
        }
        let current = self.current(by);
        match self.page(by, current, place, wanted)? {
            Answer::Gone => Ok(Answer::Expired),
            answer => Ok(answer),
        }
    }

    fn page(
        &mut self,
        by: usize,
        snapshot: u8,
        place: usize,
        wanted: Option<Marks>,
    ) -> Result<Answer, u8> {
        let copy = self.replicas[by].copy(snapshot);
        let known = copy.told;
        if let Some(wanted) = wanted
            && known >= place
            && marks(&copy.rows, place) != wanted
        {
            return Ok(Answer::Expired);
        }
        let (last, more) = match reach(copy.end, known, place, 1) {
            PageReach::Rows { last, more } => (last, more),
            PageReach::NeedMore => return Err(snapshot),
            PageReach::Gone | PageReach::Limit(_) => return Ok(Answer::Gone),
        };
        let row = copy.rows[..last].get(place).copied();
        copy.published = copy.published.max(last);
        copy.promised = copy.promised.max(copy.published + usize::from(more));
        let token = more.then(|| Token {
            snapshot,
            place: last,
            marks: marks(&copy.rows, last),
        });
        Ok(Answer::Page(row, token, snapshot))
    }

    /// The next step of a gateway: of its walk, or towards one.
    pub fn work(&mut self, by: usize, reply: Reply, found: &mut Found) {
        if let Some(walk) = self.replicas[by].walk.take_if(|walk| !walk.todo.is_empty()) {
            self.step(by, walk, reply);
            return;
        }
        let asked = self.caller_asks(by);
        let Some(target) = asked.then(|| self.answer(by).err()).flatten() else {
            // For readers of the other gateway, or ahead of its own.
            if let Some(walk) = self.replicas[by].walk.take() {
                self.go_on(by, walk, reply);
            }
            return;
        };
        let walk = self.replicas[by].walk.take();
        match walk {
            Some(walk) if walk.target == target => self.go_on(by, walk, reply),
            // A walk of another snapshot gives its turn away.
            Some(walk) => {
                self.drop_ended(by, walk.target);
                self.claim(by, target, reply, found);
            }
            None => self.claim(by, target, reply, found),
        }
    }

    fn step(&mut self, by: usize, mut walk: Walk, reply: Reply) {
        for todo in walk.todo.remove(0) {
            match todo {
                Todo::Take => {
                    if !self.take(by, &mut walk) {
                        self.release(by);
                        self.drop_ended(by, walk.target);
                        return;
                    }
                    if walk.todo.is_empty() && walk.shadow.is_some() {
                        break;
                    }
                }
                Todo::Keep => {
                    if !self.keep(by, walk.target, walk.begun.0, reply) {
                        self.step_down(by, walk.target);
                        return;
                    }
                }
                Todo::Tell => self.tell(by, walk.target),
            }
        }
        let ended = self.replicas[by].copy(walk.target).end != End::Growing;
        if ended && walk.todo.is_empty() {
            self.release(by);
            self.drop_ended(by, walk.target);
        } else {
            self.replicas[by].walk = Some(walk);
        }
    }

    fn drop_ended(&mut self, by: usize, target: u8) {
        if !self.replicas[by].holds(target) {
            self.replicas[by].memory.remove(&target);
        }
    }

    /// Claims the line, or follows. A gateway without the store continues alone.
    fn claim(&mut self, by: usize, target: u8, reply: Reply, found: &mut Found) {
        let claim = FleetOp::Claim {
            line: LINE,
            claim: self.replicas[by].claim(),
            lease: LEASE,
        };
        let mut target = target;
        match self.agree(by, claim, reply) {
            Some(FleetReply::Lead) => {
                let now = instant(self.replicas[by].now);
                self.replicas[by].term = Some(ClaimTerm::new(LEASE, now));
                target = self.pull(by, target, true);
                if self.answer(by).is_ok() {
                    self.release(by);
                    return;
                }
            }
            Some(_) => {
                self.pull(by, target, false);
                return;
            }
            None => self.replicas[by].term = None,
        }
        let copy = self.replicas[by].copy(target);
        found.taken_over += usize::from(copy.place.is_some());
        let known = self.shared_scrolls.get(&target).copied();
        let shared = known.filter(|_| !self.decisions.own_scrolls);
        let scroll = shared.unwrap_or_else(|| self.vendor.search());
        self.shared_scrolls.insert(target, scroll);
        let walk = Walk {
            target,
            scroll,
            begun: (self.replicas[by].purges.number(), self.purges),
            // The scroll of another gateway goes on where the rows in the store end.
            shadow: shared.is_none().then(Copy::default),
            page: None,
            todo: Vec::new(),
        };
        self.fetch(by, walk);
    }

    /// Sends the next continuation, if the claim allows it.
    fn go_on(&mut self, by: usize, walk: Walk, reply: Reply) {
        let now = instant(self.replicas[by].now);
        if let Some(mut term) = self.replicas[by].term.clone() {
            if term.clearance(now) == Clearance::RenewFirst {
                let renew = FleetOp::Renew {
                    line: LINE,
                    claim: self.replicas[by].claim(),
                    lease: LEASE,
                };
                match self.agree(by, renew, reply) {
                    Some(FleetReply::Renewed(_)) => term.granted(now),
                    Some(_) => term.depose(),
                    None => {}
                }
            }
            let deposed = term.clearance(now) == Clearance::Deposed;
            self.replicas[by].term = Some(term);
            if deposed {
                self.step_down(by, walk.target);
                return;
            }
        }
        self.fetch(by, walk);
    }

    /// The vendor sends a page. What comes of it is the next step.
    fn fetch(&mut self, by: usize, mut walk: Walk) {
        let life = self.replicas[by].life;
        walk.page = Some(self.vendor.next(walk.scroll, life));
        walk.todo = match self.decisions.kept_before_told {
            true => vec![&[Todo::Take, Todo::Keep, Todo::Tell]],
            false => vec![&[Todo::Take, Todo::Tell], &[Todo::Keep]],
        };
        self.replicas[by].walk = Some(walk);
    }

    pub fn release(&mut self, by: usize) {
        if self.replicas[by].term.take().is_some() {
            let claim = self.replicas[by].claim();
            self.agree(by, FleetOp::Release { line: LINE, claim }, Reply::Comes);
        }
    }

    fn step_down(&mut self, by: usize, target: u8) {
        self.replicas[by].term = None;
        let copy = self.replicas[by].copy(target);
        copy.ending = None;
        copy.truncate(copy.told);
        self.drop_ended(by, target);
    }

    /// Takes a page into the target, or finds that it must become another snapshot. Returns whether
    /// the walk goes on.
    fn take(&mut self, by: usize, walk: &mut Walk) -> bool {
        let page = walk.page.take().expect("a page");
        let end = page.ended.then_some(End::Complete);
        let target = self.replicas[by].copy(walk.target);
        let Some(shadow) = &mut walk.shadow else {
            target.append(&page.rows);
            target.ending = end;
            return true;
        };
        shadow.append(&page.rows);
        let firm = target.published.max(target.firm);
        let served = (firm, target.promised);
        match repeats(
            &rows(&target.rows),
            &rows(&shadow.rows),
            0,
            served,
            page.ended,
        ) {
            Repeats::NotYet => walk.todo.clear(),
            Repeats::Covered => {
                target.truncate(firm);
                target.take_from(shadow, firm);
                target.told = target.told.min(firm);
                target.ending = end;
                walk.shadow = None;
                if firm == 0 {
                    self.since.insert(walk.target, walk.begun.1);
                }
            }
            Repeats::Differs => {
                target.truncate(firm);
                (target.told, target.end) = (firm, End::Broken);
                let fence = self.fence(by);
                if fence.is_some() {
                    let broken = StoreOp::End {
                        snapshot: name(walk.target),
                        end: KeptEnd::Broken,
                        of: None,
                        fence,
                    };
                    self.store(by, &[broken], Reply::Comes);
                }
                self.drop_ended(by, walk.target);
                let mut next = walk.shadow.take().unwrap_or_default();
                next.ending = end;
                if self.is_purged(by, walk.begun.0) {
                    return false;
                }
                walk.target = self.begin(by, next, walk.begun.1);
            }
        }
        true
    }

    pub fn fence(&self, by: usize) -> Option<Fence> {
        let replica = &self.replicas[by];
        replica.term.as_ref().map(|_| Fence {
            line: LINE,
            claim: replica.claim(),
            lease: LEASE,
        })
    }

    fn tell(&mut self, by: usize, target: u8) {
        let copy = self.replicas[by].copy(target);
        copy.told = copy.rows.len();
        copy.end = copy.ending.take().unwrap_or(copy.end);
    }
}
