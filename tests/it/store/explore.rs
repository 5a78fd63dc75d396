//! Every interleaving of one gateway, its store, a vendor whose list changes, and a caller who
//! pages.
//!
//! The protocol's decisions are the real ones: [`Model`] appends, [`repeats`]
//! compares a new search with what was served, [`reach`] cuts pages,
//! [`Watermarks`] judge what was purged, [`Sealer`] makes tokens.
//! What is written here is only the order in which they may meet. Each step of [`World`] is one of
//! them, and the explorer tries all orders, each state once.
//!
//! A decision that is switched off must be found out: an explorer that finds nothing proves
//! nothing.
//!
//! One list of four rows, vendor pages of two, callers' pages of one. `fleet` has two gateways
//! over one store.

use std::collections::BTreeMap;

use bytes::Bytes;
use msp_gateway::clock::{Clock, Stamp};
use msp_gateway::domain::{Audience, Kind, PageSize};
use msp_gateway::secrets::{SealingKey, Secret};
use msp_gateway::snapshot::compare::{Repeats, repeats};
use msp_gateway::snapshot::page::{PageReach, reach};
use msp_gateway::snapshot::{Claims, End, Marks, Sealer, SnapshotId};
use msp_gateway::store::{
    Chain, KeptEnd, KeptStanding, Model, PurgeDepth, PurgeScope, PurgeSubject, StoreOp, StoreReply,
    Watermarks,
};

use super::list::{LINE, Vendor, VendorPage, chain_after, marks, name, number, rows};
use super::order::{Explored, every_order};

/// The one search, as purges see it.
const SUBJECT: PurgeSubject = PurgeSubject::Kind(Kind::Cases);

/// The decisions that can be switched off, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Decisions {
    /// 2: rows are kept, and then told.
    kept_before_told: bool,
    /// 4: a token shows the rows before its place, or answers 410.
    marks: bool,
    /// 6: what was read before a purge is judged by the purge's number.
    watermarks: bool,
}

const ALL_ON: Decisions = Decisions {
    kept_before_told: true,
    marks: true,
    watermarks: true,
};

/// How often what may happen. `Copy`, so that a history uses it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Faults {
    /// A case is added to the vendor's list.
    changes: u8,
    /// The process dies, with all that is in its memory.
    crashes: u8,
    /// The vendor forgets a scroll.
    lost: u8,
    /// The store is away for a while.
    away: u8,
    /// Everything is purged.
    purges: u8,
    /// The caller starts over after a 410.
    restarts: u8,
}

/// A snapshot in a replica's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    rows: Vec<u8>,
    /// The number of rows that readers see.
    told: usize,
    published: usize,
    promised: usize,
    /// Readers see it with the last rows.
    end: End,
    ending: Option<End>,
    kept: usize,
    chunks: u32,
    chain: Chain,
    begun: bool,
    /// Its rows go on in this memory alone.
    detached: bool,
    /// A purge ended it.
    ended: bool,
}

impl Default for Copy {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            told: 0,
            published: 0,
            promised: 0,
            end: End::Growing,
            ending: None,
            kept: 0,
            chunks: 0,
            chain: Chain::default(),
            begun: false,
            detached: false,
            ended: false,
        }
    }
}

/// What a walk still has to do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Todo {
    Take,
    Keep,
    Tell,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Walk {
    target: u8,
    scroll: usize,
    /// The purges before the scroll began: their number, and the events.
    begun: (u64, u8),
    /// Rows of the scroll, while they are compared.
    shadow: Option<Vec<u8>>,
    page: Option<VendorPage>,
    todo: Vec<Todo>,
}

/// One gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Replica {
    memory: BTreeMap<u8, Copy>,
    current: Option<u8>,
    walk: Option<Walk>,
    purges: Watermarks,
}

impl Replica {
    /// Returns whether requests find a snapshot.
    fn holds(&self, snapshot: u8) -> bool {
        self.memory.get(&snapshot).is_some_and(|copy| !copy.ended)
    }
}

/// A caller who reads a list from its start to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Caller {
    rows: Vec<u8>,
    token: Option<String>,
    asking: bool,
    /// Where its answer is waited for: the snapshot that a first page or a healed one is cut from.
    over: bool,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Ask,
    Answer,
    Fetch,
    Step,
    Change(usize),
    Crash,
    Lost,
    Away,
    Back,
    Purge,
}

struct World {
    decisions: Decisions,
    faults: Faults,
    vendor: Vendor,
    store: Model,
    away: bool,
    replica: Replica,
    caller: Caller,
    /// Snapshots begun so far, over all lives of the replica.
    begun: u8,
    /// The purges in the store.
    kept_purges: Watermarks,
    /// Purge events so far.
    purged: u8,
    /// For each snapshot: the purge events before the scroll of its first rows began.
    since: BTreeMap<u8, u8>,
    wrong: Option<Vec<u8>>,
}

/// What an exploration came to.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    finished: usize,
    expired: usize,
    /// A list that the vendor never had, or with a row from before a purge, and how it came about.
    mixed: Option<(Vec<u8>, Vec<Event>)>,
}

/// A token of a place in a snapshot.
fn sealed(snapshot: u8, place: usize, marks: Marks) -> String {
    let claims = Claims {
        snapshot: SnapshotId(u128::from(snapshot)),
        offset: u32::try_from(place).unwrap(),
        size: PageSize::new(1).unwrap(),
        audience: Audience::All.fingerprint(),
        identity: [0; 16],
        customer: None,
        derived: false,
        range: None,
        extra: None,
        marks: Some(marks),
    };
    SEALER.with(|sealer| sealer.seal(&claims)).unwrap()
}

/// What a token of ours says.
fn opened(token: &str) -> Claims {
    SEALER
        .with(|sealer| sealer.open(token))
        .expect("a token of ours")
}

thread_local! {
    static SEALER: Sealer = {
        let key = SealingKey::derive("explorer", &Secret::parse("secret").unwrap());
        Sealer::new(&key, None).unwrap()
    };
    static AT: Stamp = Clock::system().stamp();
}

impl Explored for World {
    type Event = Event;

    fn copy(&self) -> Self {
        Self {
            store: self.store.clone(),
            vendor: self.vendor.clone(),
            replica: self.replica.clone(),
            caller: self.caller.clone(),
            kept_purges: self.kept_purges.clone(),
            since: self.since.clone(),
            wrong: self.wrong.clone(),
            ..*self
        }
    }

    fn state(&self) -> [u8; 32] {
        let kept: Vec<_> = (0..self.begun).map(|n| self.standing(n)).collect();
        let line = self.store.apply(&StoreOp::Line { line: LINE });
        let whole = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {kept:?} {line:?} {:?} {} {:?}",
            self.faults,
            self.vendor,
            self.away,
            self.replica,
            self.caller,
            self.begun,
            self.kept_purges,
            self.purged,
            self.since
        );
        *blake3::hash(whole.as_bytes()).as_bytes()
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let walk = self.replica.walk.as_ref();
        let busy = walk.is_some_and(|walk| !walk.todo.is_empty());
        if self.caller.over {
            return events;
        }
        match self.caller.asking {
            false => events.push(Event::Ask),
            true if self.peek().is_ok() => events.push(Event::Answer),
            true if !busy => events.push(Event::Fetch),
            true => {}
        }
        if busy {
            events.push(Event::Step);
        }
        if self.faults.changes > 0 {
            let now = self.vendor.lists.last().map_or(0, Vec::len);
            events.extend((0..now).map(Event::Change));
        }
        if self.faults.purges > 0 && self.begun > 0 && !self.away {
            events.push(Event::Purge);
        }
        if self.faults.crashes > 0 {
            events.push(Event::Crash);
        }
        if self.faults.lost > 0 && walk.is_some() && !busy {
            events.push(Event::Lost);
        }
        match self.away {
            true => events.push(Event::Back),
            false if self.faults.away > 0 => events.push(Event::Away),
            false => {}
        }
        events
    }
}

impl World {
    fn new(decisions: Decisions, faults: Faults) -> Self {
        Self {
            decisions,
            faults,
            vendor: Vendor::with(4),
            store: Model::new(1 << 20),
            away: false,
            replica: Replica::default(),
            caller: Caller::default(),
            begun: 0,
            kept_purges: Watermarks::default(),
            purged: 0,
            since: BTreeMap::new(),
            wrong: None,
        }
    }

    fn ask_store(&self, op: StoreOp) -> Option<StoreReply> {
        match self.away {
            true => None,
            false => Some(self.store.apply(&op).unwrap()),
        }
    }

    /// Returns the state of a snapshot in the store, and the purges before its scroll began.
    fn standing(&self, snapshot: u8) -> Option<(KeptStanding, u64)> {
        let snapshot = name(snapshot);
        match self.store.apply(&StoreOp::Head { snapshot }) {
            Ok(StoreReply::Head(found)) => found.map(|(standing, head)| {
                let begun = head[..].try_into().map(u64::from_le_bytes);
                (standing, begun.expect("eight bytes"))
            }),
            other => panic!("{other:?}"),
        }
    }

    /// Returns whether a purge covers what began after `begun` purges.
    fn is_purged(&self, begun: u64) -> bool {
        let covers = self.replica.purges.covers(SUBJECT, begun);
        self.decisions.watermarks && covers == Some(PurgeDepth::Hard)
    }

    fn purge(&mut self) {
        self.purged += 1;
        let replica = &mut self.replica;
        replica.purges.purge(PurgeScope::All, PurgeDepth::Hard);
        self.kept_purges = replica.purges.clone();
        for (snapshot, copy) in &mut replica.memory {
            copy.ended = true;
            if copy.begun {
                let snapshot = name(*snapshot);
                self.store.apply(&StoreOp::Forget { snapshot }).unwrap();
            }
        }
        let target = replica.walk.as_ref().map(|walk| walk.target);
        let is_target = |snapshot: &u8, _: &mut Copy| Some(*snapshot) == target;
        replica.memory.retain(is_target);
        replica.current = None;
    }

    /// Reads a snapshot back, with all that is kept of it.
    fn recall(&mut self, snapshot: u8) {
        if self.away || self.replica.memory.contains_key(&snapshot) {
            return;
        }
        let Some((standing, begun)) = self.standing(snapshot) else {
            return;
        };
        if self.is_purged(begun) {
            return;
        }
        let (mut ids, mut chain) = (Vec::new(), Chain::default());
        for number in 0..standing.chunks {
            let chunk = StoreOp::Chunk {
                snapshot: name(snapshot),
                number,
            };
            let Some(StoreReply::Value(Some(chunk))) = self.ask_store(chunk) else {
                panic!("a chunk is missing");
            };
            chain = chain_after(&chunk, &chain);
            ids.extend_from_slice(&chunk);
        }
        assert_eq!(chain, standing.chain);
        let len = ids.len();
        let copy = Copy {
            rows: ids,
            told: len,
            published: len,
            promised: len,
            end: match standing.end {
                KeptEnd::Open => End::Growing,
                KeptEnd::Complete => End::Complete,
                KeptEnd::Cut => End::Cut("walk"),
                KeptEnd::Broken => End::Broken,
            },
            ending: None,
            kept: len,
            chunks: standing.chunks,
            chain,
            begun: true,
            detached: false,
            ended: false,
        };
        self.replica.memory.insert(snapshot, copy);
    }

    /// The snapshot that first pages are cut from: in memory, in the store, or begun.
    fn current(&mut self) -> u8 {
        if let Some(current) = self.replica.current {
            return current;
        }
        let line = self.ask_store(StoreOp::Line { line: LINE });
        if let Some(StoreReply::Current(Some(found))) = line {
            let found = number(found);
            self.recall(found);
            if self.replica.holds(found) {
                self.replica.current = Some(found);
                return found;
            }
        }
        self.begin(Copy::default(), self.purged)
    }

    fn begin(&mut self, copy: Copy, since: u8) -> u8 {
        let snapshot = self.begun;
        self.since.insert(snapshot, since);
        self.begun += 1;
        self.replica.memory.insert(snapshot, copy);
        self.replica.current = Some(snapshot);
        snapshot
    }

    /// The page that the caller asks for, if it can be answered now: `Ok(None)` while rows must
    /// come first, of the snapshot in `Err`.
    fn answer(&mut self) -> Result<Reply, u8> {
        let claims = self.caller.token.clone().map(|token| opened(&token));
        let Some(claims) = claims else {
            let current = self.current();
            return self.page(current, 0, None);
        };
        let named = u8::try_from(claims.snapshot.0).unwrap();
        let wanted = claims.marks.filter(|_| self.decisions.marks);
        let place = claims.offset as usize;
        self.recall(named);
        if self.replica.holds(named) {
            match self.page(named, place, wanted)? {
                Reply::Gone => {}
                reply => return Ok(reply),
            }
        }
        // Healing.
        if wanted.is_none() {
            return Ok(Reply::Expired);
        }
        let current = self.current();
        match self.page(current, place, wanted)? {
            Reply::Gone => Ok(Reply::Expired),
            reply => Ok(reply),
        }
    }

    fn page(&mut self, snapshot: u8, place: usize, wanted: Option<Marks>) -> Result<Reply, u8> {
        let Some(copy) = self.replica.memory.get_mut(&snapshot) else {
            return Err(snapshot);
        };
        let known = copy.told;
        if let Some(wanted) = wanted
            && known >= place
            && marks(&copy.rows, place) != wanted
        {
            return Ok(Reply::Expired);
        }
        let (last, next) = match reach(copy.end, known, place, 1) {
            PageReach::Rows { last, more } => (last, more),
            PageReach::NeedMore => return Err(snapshot),
            PageReach::Gone | PageReach::Limit(_) => return Ok(Reply::Gone),
        };
        let row = copy.rows[..last].get(place).copied();
        copy.published = copy.published.max(place + usize::from(row.is_some()));
        copy.promised = copy.promised.max(copy.published + usize::from(next));
        let token = next.then(|| sealed(snapshot, place + 1, marks(&copy.rows, place + 1)));
        Ok(Reply::Page(row, token, snapshot))
    }

    /// Looks without changing anything.
    fn peek(&self) -> Result<Reply, u8> {
        self.copy().answer()
    }

    /// Returns the finished list, if the caller has one now.
    fn happen(&mut self, event: Event, found: &mut Found) -> Option<Vec<u8>> {
        match event {
            Event::Ask => self.caller.asking = true,
            Event::Answer => {
                let reply = self.answer().expect("it was ready");
                self.caller.asking = false;
                match reply {
                    Reply::Page(row, token, of) => {
                        let is_old = self.since[&of] < self.purged;
                        self.wrong = row.filter(|_| is_old).map(|row| vec![row]);
                        self.caller.rows.extend(row);
                        self.caller.over = token.is_none();
                        self.caller.token = token;
                        if self.caller.over {
                            found.finished += 1;
                            return Some(self.caller.rows.clone());
                        }
                    }
                    Reply::Expired | Reply::Gone => {
                        found.expired += 1;
                        self.caller.over = self.faults.restarts == 0;
                        self.faults.restarts = self.faults.restarts.saturating_sub(1);
                        self.caller.rows.clear();
                        self.caller.token = None;
                    }
                }
            }
            Event::Fetch => {
                let target = self.answer().expect_err("it was not ready");
                let walk = self.replica.walk.take();
                let mut walk = match walk.filter(|walk| walk.target == target) {
                    Some(walk) => walk,
                    None => Walk {
                        target,
                        scroll: self.vendor.search(),
                        begun: (self.replica.purges.number(), self.purged),
                        shadow: Some(Vec::new()),
                        page: None,
                        todo: Vec::new(),
                    },
                };
                walk.page = Some(self.vendor.next(walk.scroll, 0));
                walk.todo = match self.decisions.kept_before_told {
                    true => vec![Todo::Take, Todo::Keep, Todo::Tell],
                    false => vec![Todo::Take, Todo::Tell, Todo::Keep],
                };
                self.replica.walk = Some(walk);
            }
            Event::Step => {
                if let Some(mut walk) = self.replica.walk.take() {
                    let goes_on = match walk.todo.remove(0) {
                        Todo::Take => self.take(&mut walk),
                        Todo::Keep => self.keep(walk.target, walk.begun.0),
                        Todo::Tell => self.tell(walk.target),
                    };
                    let target = &self.replica.memory[&walk.target];
                    let ended = target.end != End::Growing && walk.todo.is_empty();
                    self.replica.walk = (goes_on && !ended).then_some(walk);
                }
            }
            Event::Change(at) => {
                self.faults.changes -= 1;
                self.vendor.change(at);
            }
            Event::Crash => {
                self.faults.crashes -= 1;
                self.replica = Replica::default();
                self.replica.purges = self.kept_purges.clone();
            }
            Event::Lost => {
                self.faults.lost -= 1;
                self.replica.walk = None;
            }
            Event::Away => {
                self.faults.away -= 1;
                self.away = true;
            }
            Event::Back => self.away = false,
            Event::Purge => {
                self.faults.purges -= 1;
                self.purge();
            }
        }
        None
    }

    /// Takes a vendor page into the target, or finds that it must become another snapshot. Returns
    /// whether the walk goes on.
    fn take(&mut self, walk: &mut Walk) -> bool {
        let page = walk.page.take().expect("a page");
        let end = page.ended.then_some(End::Complete);
        let target = self.replica.memory.get_mut(&walk.target).expect("held");
        let Some(shadow) = &mut walk.shadow else {
            target.rows.extend(page.rows);
            target.ending = end;
            return true;
        };
        shadow.extend(page.rows);
        let served = (target.published, target.promised);
        match repeats(&rows(&target.rows), &rows(shadow), 0, served, page.ended) {
            Repeats::NotYet => walk.todo.clear(),
            Repeats::Covered => {
                let published = target.published;
                if published < target.kept {
                    // Stored again, from its start.
                    let snapshot = name(walk.target);
                    (target.kept, target.chunks, target.begun) = (0, 0, false);
                    target.chain = Chain::default();
                    if !self.away {
                        self.store.apply(&StoreOp::Forget { snapshot }).unwrap();
                    }
                }
                target.rows.truncate(published);
                target.rows.extend_from_slice(&shadow[published..]);
                target.told = published;
                target.ending = end;
                walk.shadow = None;
                if published == 0 {
                    self.since.insert(walk.target, walk.begun.1);
                }
            }
            Repeats::Differs => {
                target.rows.truncate(target.published);
                target.told = target.published;
                target.end = End::Broken;
                let broken = StoreOp::End {
                    snapshot: name(walk.target),
                    end: KeptEnd::Broken,
                    of: None,
                    fence: None,
                };
                self.ask_store(broken);
                let next = Copy {
                    rows: std::mem::take(shadow),
                    ending: end,
                    ..Copy::default()
                };
                if self.is_purged(walk.begun.0) {
                    return false;
                }
                walk.target = self.begin(next, walk.begun.1);
                walk.shadow = None;
            }
        }
        true
    }

    fn keep(&mut self, target: u8, begun: u64) -> bool {
        let (away, snapshot) = (self.away, name(target));
        let copy = self.replica.memory.get_mut(&target).expect("held");
        if away || copy.ended {
            copy.detached = true;
        }
        if copy.detached {
            return true;
        }
        if !copy.begun {
            let was = match self.store.apply(&StoreOp::Line { line: LINE }) {
                Ok(StoreReply::Current(was)) => was,
                other => panic!("{other:?}"),
            };
            let begin = StoreOp::Begin {
                line: LINE,
                snapshot,
                head: Bytes::copy_from_slice(&begun.to_le_bytes()),
                was,
                fence: None,
            };
            copy.begun = self.store.apply(&begin) == Ok(StoreReply::Kept);
        }
        if copy.rows.len() > copy.kept {
            let new = &copy.rows[copy.kept..];
            let next = chain_after(new, &copy.chain);
            let append = StoreOp::Append {
                snapshot,
                number: copy.chunks,
                chain: copy.chain,
                next,
                rows: u32::try_from(new.len()).unwrap(),
                chunk: Bytes::copy_from_slice(new),
                at: AT.with(|at| *at),
                fence: None,
            };
            match self.store.apply(&append) {
                Ok(StoreReply::Kept) => {
                    copy.kept = copy.rows.len();
                    copy.chunks += 1;
                    copy.chain = next;
                }
                _ => copy.detached = true,
            }
        }
        if copy.ending == Some(End::Complete) && !copy.detached {
            let end = KeptEnd::Complete;
            let of = Some((copy.chunks, copy.chain));
            let fence = None;
            let end = StoreOp::End {
                snapshot,
                end,
                of,
                fence,
            };
            self.store.apply(&end).unwrap();
        }
        true
    }

    fn tell(&mut self, target: u8) -> bool {
        let copy = self.replica.memory.get_mut(&target).expect("held");
        copy.told = copy.rows.len();
        copy.end = copy.ending.take().unwrap_or(copy.end);
        true
    }
}

/// What a caller is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    /// A row, the next token, and the snapshot they are of.
    Page(Option<u8>, Option<String>, u8),
    /// No such rows, and none will come.
    Gone,
    /// 410.
    Expired,
}

/// Tries every order of events until a mixed list is found.
fn explore(decisions: Decisions, faults: Faults) -> Found {
    let mut found = Found::default();
    let tried = every_order(World::new(decisions, faults), |world, event| {
        let finished = world.happen(event, &mut found);
        let mixed = finished.filter(|list| !world.vendor.lists.contains(list));
        mixed.or_else(|| world.wrong.clone())
    });
    Found {
        states: tried.states,
        mixed: tried.wrong,
        ..found
    }
}

#[test]
fn decisions_that_are_switched_off_are_found_out_and_with_all_on_no_list_is_mixed() {
    let off = Faults {
        changes: 0,
        crashes: 0,
        lost: 0,
        away: 0,
        purges: 0,
        restarts: 0,
    };
    let crash = Faults {
        changes: 1,
        crashes: 1,
        ..off
    };
    // A second crash makes it a hundred times as many states: minutes.
    let long = std::env::var("STORE_HISTORIES").is_ok();
    let all = Faults {
        changes: 1,
        crashes: if long { 2 } else { 1 },
        lost: 1,
        away: 1,
        ..off
    };
    let purge = Faults {
        purges: 1,
        lost: 1,
        restarts: 1,
        ..off
    };
    let restart = Faults {
        crashes: 1,
        ..purge
    };
    let change = Faults {
        changes: 1,
        ..purge
    };
    let two = Decisions {
        kept_before_told: false,
        ..ALL_ON
    };
    let four = Decisions {
        marks: false,
        ..ALL_ON
    };
    let neither = Decisions {
        kept_before_told: false,
        marks: false,
        ..ALL_ON
    };
    let six = Decisions {
        watermarks: false,
        ..ALL_ON
    };
    for (what, decisions, faults, mixed) in [
        ("2 and 4 off, a crash", neither, crash, true),
        (
            "4 off, detached, a crash",
            four,
            Faults { away: 1, ..crash },
            true,
        ),
        (
            "4 off, a crash and lost scrolls, never detached",
            four,
            Faults { lost: 1, ..crash },
            false,
        ),
        ("6 off, a purge", six, restart, true),
        ("a purge and a crash", ALL_ON, restart, false),
        ("a purge and a change", ALL_ON, change, false),
        ("2 off", two, all, false),
        ("all on", ALL_ON, all, false),
        ("all on, nothing happens", ALL_ON, off, false),
    ] {
        let found = explore(decisions, faults);
        println!("{what}, {} states: {found:?}", found.states);
        assert_eq!(found.mixed.is_some(), mixed, "{what}: {found:?}");
        assert!(found.finished > 0, "{what}: {found:?}");
        // Only a list that changed ends a token.
        assert!(
            mixed || (found.expired > 0) == (faults.changes > 0),
            "{what}: {found:?}"
        );
    }
}
