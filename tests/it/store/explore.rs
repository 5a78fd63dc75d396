//! Every interleaving of one gateway, its store, a vendor whose list changes, and a caller who
//! pages.
//!
//! The protocol's decisions are the real ones: [`Model`] appends, [`KeptRows`] chains, [`repeats`]
//! compares a new search with what was served, [`IdChain`] marks places, [`Sealer`] makes tokens.
//! What is written here is only the order in which they may meet. Each step of [`World`] is one of
//! them, and the explorer tries all orders, each state once.
//!
//! A decision that is switched off must be found out: an explorer that finds nothing proves
//! nothing.
//!
//! One list of four rows, vendor pages of two, callers' pages of one. `explore_fleet.rs` has two
//! gateways over one store.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use msp_gateway::clock::{Clock, Stamp};
use msp_gateway::domain::{Audience, PageSize};
use msp_gateway::secrets::{SealingKey, Secret};
use msp_gateway::snapshot::compare::{Repeats, repeats};
use msp_gateway::snapshot::marks::IdChain;
use msp_gateway::snapshot::rows::Rows;
use msp_gateway::snapshot::{Claims, Marks, Sealer, SnapshotId};
use msp_gateway::store::{
    Chain, KeptEnd, KeptRows, KeptStanding, Model, RecordName, StoreOp, StoreReply,
};
use msp_gateway::upstream::RawRows;

/// Rows of a vendor page.
pub const VENDOR_PAGE: usize = 2;
/// The one search.
pub const LINE: RecordName = RecordName([1; 16]);

/// The decisions that can be switched off, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Decisions {
    /// 2: rows are kept, and then told.
    kept_before_told: bool,
    /// 4: a token shows the rows before its place, or answers 410.
    marks: bool,
}

const ALL_ON: Decisions = Decisions {
    kept_before_told: true,
    marks: true,
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
}

/// A vendor that gives scrolls over its list as it was when they began.
#[derive(Clone, Debug, Default)]
struct Vendor {
    /// Its list at every moment so far; the last one is now.
    lists: Vec<Vec<u8>>,
    scrolls: Vec<(Vec<u8>, usize)>,
    /// Continuations: the scroll and the position. None is ever sent twice.
    sent: BTreeSet<(usize, usize)>,
}

/// A vendor page.
#[derive(Clone, Debug, PartialEq, Eq)]
struct VendorPage {
    rows: Vec<u8>,
    ended: bool,
}

impl Vendor {
    fn search(&mut self) -> usize {
        let list = self.lists.last().cloned().unwrap_or_default();
        self.scrolls.push((list, 0));
        self.scrolls.len() - 1
    }

    fn next(&mut self, scroll: usize) -> VendorPage {
        let (list, at) = &mut self.scrolls[scroll];
        assert!(self.sent.insert((scroll, *at)), "a continuation twice");
        let upto = (*at + VENDOR_PAGE).min(list.len());
        let rows = list[*at..upto].to_vec();
        *at = upto;
        let ended = upto == list.len();
        VendorPage { rows, ended }
    }
}

/// A snapshot in a replica's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copy {
    rows: Vec<u8>,
    /// The number of rows that readers see.
    told: usize,
    published: usize,
    promised: usize,
    /// Readers hear of it with the last rows.
    end: Option<KeptEnd>,
    ending: Option<KeptEnd>,
    kept: usize,
    chunks: u32,
    chain: Chain,
    begun: bool,
    /// Its rows go on in this memory alone.
    detached: bool,
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
}

/// What an exploration came to.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    finished: usize,
    expired: usize,
    /// A list that the vendor never had, and how it came about.
    mixed: Option<(Vec<u8>, Vec<Event>)>,
}

fn text(ids: &[u8]) -> (Bytes, Vec<u32>) {
    let (mut text, mut ends) = (String::new(), Vec::new());
    for id in ids {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&format!("{{\"case_id\":\"{id}\",\"customer_id\":\"c\"}}"));
        ends.push(u32::try_from(text.len()).unwrap());
    }
    (text.into(), ends)
}

pub fn kept_rows(ids: &[u8]) -> KeptRows {
    let (text, ends) = text(ids);
    KeptRows { text, ends }
}

pub fn rows(ids: &[u8]) -> Rows {
    let (text, ends) = text(ids);
    let places = Vec::new();
    let mut rows = Rows::default();
    rows.append(RawRows { text, ends, places }, |_| true);
    rows
}

pub fn marks(ids: &[u8], place: usize) -> Marks {
    let rows = rows(ids);
    IdChain::default().marks(place, |range, each| rows.for_each_id(range, each))
}

pub fn name(snapshot: u8) -> RecordName {
    RecordName([100 + snapshot; 16])
}

/// A token of a place in a snapshot.
pub fn sealed(snapshot: u8, place: usize, marks: Marks) -> String {
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
pub fn opened(token: &str) -> Claims {
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

impl World {
    fn new(decisions: Decisions, faults: Faults) -> Self {
        Self {
            decisions,
            faults,
            vendor: Vendor {
                lists: vec![vec![1, 2, 3, 4]],
                ..Vendor::default()
            },
            store: Model::new(1 << 20),
            away: false,
            replica: Replica::default(),
            caller: Caller::default(),
            begun: 0,
        }
    }

    fn copy(&self) -> Self {
        Self {
            store: self.store.clone(),
            vendor: self.vendor.clone(),
            replica: self.replica.clone(),
            caller: self.caller.clone(),
            ..*self
        }
    }

    /// Everything that decides what can happen from here on.
    fn state(&self) -> [u8; 32] {
        let kept: Vec<_> = (0..self.begun).map(|n| self.standing(n)).collect();
        let line = self.store.apply(&StoreOp::Line { line: LINE });
        let whole = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {kept:?} {line:?}",
            self.faults, self.vendor, self.away, self.replica, self.caller, self.begun
        );
        *blake3::hash(whole.as_bytes()).as_bytes()
    }

    fn ask_store(&self, op: StoreOp) -> Option<StoreReply> {
        match self.away {
            true => None,
            false => Some(self.store.apply(&op).unwrap()),
        }
    }

    fn standing(&self, snapshot: u8) -> Option<KeptStanding> {
        let snapshot = name(snapshot);
        match self.store.apply(&StoreOp::Head { snapshot }) {
            Ok(StoreReply::Head(found)) => found.map(|(standing, _)| standing),
            other => panic!("{other:?}"),
        }
    }

    /// Reads a snapshot back, with all that is kept of it.
    fn recall(&mut self, snapshot: u8) {
        if self.away || self.replica.memory.contains_key(&snapshot) {
            return;
        }
        let Some(standing) = self.standing(snapshot) else {
            return;
        };
        let (mut ids, mut chain) = (Vec::new(), Chain::default());
        for number in 0..standing.chunks {
            let chunk = StoreOp::Chunk {
                snapshot: name(snapshot),
                number,
            };
            let Some(StoreReply::Value(Some(chunk))) = self.ask_store(chunk) else {
                panic!("a chunk is missing");
            };
            chain = kept_rows(&chunk).chain(&chain);
            ids.extend_from_slice(&chunk);
        }
        assert_eq!(chain, standing.chain);
        let len = ids.len();
        let copy = Copy {
            rows: ids,
            told: len,
            published: len,
            promised: len,
            end: Some(standing.end).filter(|end| *end != KeptEnd::Open),
            ending: None,
            kept: len,
            chunks: standing.chunks,
            chain,
            begun: true,
            detached: false,
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
            let found = found.0[0] - 100;
            self.recall(found);
            self.replica.current = Some(found);
            return found;
        }
        self.begin(Copy::default())
    }

    fn begin(&mut self, copy: Copy) -> u8 {
        let snapshot = self.begun;
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
        if self.replica.memory.contains_key(&named) {
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
        let whole = known > place;
        let next = match copy.end {
            _ if known > place + 1 => true,
            None => return Err(snapshot),
            Some(KeptEnd::Complete) if whole || place == 0 => false,
            Some(KeptEnd::Broken) if whole => true,
            Some(_) => return Ok(Reply::Gone),
        };
        let row = copy.rows.get(place).copied();
        copy.published = copy.published.max(place + usize::from(row.is_some()));
        copy.promised = copy.promised.max(copy.published + usize::from(next));
        let token = next.then(|| sealed(snapshot, place + 1, marks(&copy.rows, place + 1)));
        Ok(Reply::Page(row, token))
    }

    /// Looks without changing anything.
    fn peek(&self) -> Result<Reply, u8> {
        self.copy().answer()
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

    /// Returns the finished list, if the caller has one now.
    fn happen(&mut self, event: Event, found: &mut Found) -> Option<Vec<u8>> {
        match event {
            Event::Ask => self.caller.asking = true,
            Event::Answer => {
                let reply = self.answer().expect("it was ready");
                self.caller.asking = false;
                match reply {
                    Reply::Page(row, token) => {
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
                        self.caller.over = true;
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
                        shadow: Some(Vec::new()),
                        page: None,
                        todo: Vec::new(),
                    },
                };
                walk.page = Some(self.vendor.next(walk.scroll));
                walk.todo = match self.decisions.kept_before_told {
                    true => vec![Todo::Take, Todo::Keep, Todo::Tell],
                    false => vec![Todo::Take, Todo::Tell, Todo::Keep],
                };
                self.replica.walk = Some(walk);
            }
            Event::Step => {
                if let Some(mut walk) = self.replica.walk.take() {
                    match walk.todo.remove(0) {
                        Todo::Take => self.take(&mut walk),
                        Todo::Keep => self.keep(walk.target),
                        Todo::Tell => self.tell(walk.target),
                    }
                    let target = &self.replica.memory[&walk.target];
                    let ended = target.end.is_some() && walk.todo.is_empty();
                    self.replica.walk = (!ended).then_some(walk);
                }
            }
            Event::Change(at) => {
                self.faults.changes -= 1;
                let mut list = self.vendor.lists.last().cloned().unwrap_or_default();
                list.insert(at, 9 + u8::try_from(self.vendor.lists.len()).unwrap());
                self.vendor.lists.push(list);
            }
            Event::Crash => {
                self.faults.crashes -= 1;
                self.replica = Replica::default();
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
        }
        None
    }

    /// Takes a vendor page into the target, or finds that it must become another snapshot.
    fn take(&mut self, walk: &mut Walk) {
        let page = walk.page.take().expect("a page");
        let end = page.ended.then_some(KeptEnd::Complete);
        let target = self.replica.memory.get_mut(&walk.target).expect("held");
        let Some(shadow) = &mut walk.shadow else {
            target.rows.extend(page.rows);
            target.ending = end;
            return;
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
            }
            Repeats::Differs => {
                target.rows.truncate(target.published);
                target.told = target.published;
                target.end = Some(KeptEnd::Broken);
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
                walk.target = self.begin(next);
                walk.shadow = None;
            }
        }
    }

    fn keep(&mut self, target: u8) {
        let (away, snapshot) = (self.away, name(target));
        let copy = self.replica.memory.get_mut(&target).expect("held");
        if away {
            copy.detached = true;
        }
        if copy.detached {
            return;
        }
        if !copy.begun {
            let was = match self.store.apply(&StoreOp::Line { line: LINE }) {
                Ok(StoreReply::Current(was)) => was,
                other => panic!("{other:?}"),
            };
            let begin = StoreOp::Begin {
                line: LINE,
                snapshot,
                head: Bytes::from_static(b"head"),
                was,
                fence: None,
            };
            copy.begun = self.store.apply(&begin) == Ok(StoreReply::Kept);
        }
        if copy.rows.len() > copy.kept {
            let new = &copy.rows[copy.kept..];
            let next = kept_rows(new).chain(&copy.chain);
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
        if let Some(end) = copy.ending.filter(|_| !copy.detached) {
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
    }

    fn tell(&mut self, target: u8) {
        let copy = self.replica.memory.get_mut(&target).expect("held");
        copy.told = copy.rows.len();
        copy.end = copy.ending.take().or(copy.end);
    }
}

/// What a caller is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Page(Option<u8>, Option<String>),
    /// No such rows, and none will come.
    Gone,
    /// 410.
    Expired,
}

/// Tries every order of events, each state once, until a mixed list is found.
fn explore(decisions: Decisions, faults: Faults) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    let mut open = vec![(World::new(decisions, faults), Vec::new())];
    while let Some((world, history)) = open.pop() {
        if !seen.insert(world.state()) {
            continue;
        }
        for event in world.events() {
            let mut next = world.copy();
            let finished = next.happen(event, &mut found);
            let mut history: Vec<Event> = history.clone();
            history.push(event);
            if let Some(list) = finished
                && !next.vendor.lists.contains(&list)
            {
                found.mixed = Some((list, history));
                found.states = seen.len();
                return found;
            }
            open.push((next, history));
        }
    }
    found.states = seen.len();
    found
}

#[test]
fn decisions_that_are_switched_off_are_found_out_and_with_all_on_no_list_is_mixed() {
    let off = Faults {
        changes: 0,
        crashes: 0,
        lost: 0,
        away: 0,
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
        ("2 off", two, all, false),
        ("all on", ALL_ON, all, false),
        ("all on, nothing happens", ALL_ON, off, false),
    ] {
        let found = explore(decisions, faults);
        println!("{what}: {found:?}");
        assert_eq!(found.mixed.is_some(), mixed, "{what}: {found:?}");
        assert!(found.finished > 0, "{what}: {found:?}");
        // Only a list that changed ends a token.
        assert!(
            mixed || (found.expired > 0) == (faults != off),
            "{what}: {found:?}"
        );
    }
}
