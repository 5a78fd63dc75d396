//! All that there is: the vendor, the store, two gateways and a caller; and what may happen next.

use std::collections::BTreeMap;

use msp_gateway::clock::{Clock, Duration, Instant, Stamp};
use msp_gateway::domain::Kind;
use msp_gateway::snapshot::Marks;
use msp_gateway::store::fleet::{FleetOp, FleetReply, LineWant};
use msp_gateway::store::{
    KeptStanding, PurgeDepth, PurgeScope, PurgeSubject, RecordName, SharedModel, StoreOp,
    StoreReply, Watermarks,
};

use super::super::list::{LINE, Vendor, name, number};
use super::super::order::Explored;
use super::replica::{Answer, Replica};
use super::{Decisions, Event, Faults, Found, Reply};

pub const LEASE: Duration = Duration::from_secs(6);
/// The one search, as purges see it.
const SUBJECT: PurgeSubject = PurgeSubject::Kind(Kind::Cases);

thread_local! {
    static EPOCH: (Stamp, Instant) = (
        Clock::system().stamp().later(Duration::from_secs(3_600)),
        Clock::system().now(),
    );
}

/// Returns a moment of the engine's time.
pub fn stamp(ms: u64) -> Stamp {
    EPOCH.with(|(stamp, _)| stamp.later(Duration::from_millis(ms)))
}

/// Returns a moment on a gateway's clock.
pub fn instant(ms: u64) -> Instant {
    EPOCH.with(|(_, instant)| *instant + Duration::from_millis(ms))
}

/// The engine, and the number of the purge events whose purges are in it.
#[derive(Clone)]
struct Shared {
    engine: SharedModel,
    purged: u8,
}

/// What a page token says. `explore.rs` seals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub snapshot: u8,
    pub place: usize,
    pub marks: Marks,
}

/// A caller that reads a list from its start to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    rows: Vec<u8>,
    pub token: Option<Token>,
    /// The gateway that was asked.
    asking: Option<usize>,
    over: bool,
}

pub struct World {
    pub decisions: Decisions,
    faults: Faults,
    pub vendor: Vendor,
    shared: Shared,
    /// As it was before the last write.
    lagging: Option<Shared>,
    /// Milliseconds of the engine's time.
    now: u64,
    pub replicas: [Replica; 2],
    pub caller: Caller,
    /// Snapshots begun so far.
    pub begun: u8,
    lives: u8,
    /// Purge events so far.
    pub purges: u8,
    /// For each snapshot: the purge events before the scroll of its first rows began.
    pub since: BTreeMap<u8, u8>,
    /// With decision 1 off: the scroll of a snapshot, for everybody.
    pub shared_scrolls: BTreeMap<u8, usize>,
    wrong: Option<String>,
}

impl Explored for World {
    type Event = Event;

    fn copy(&self) -> Self {
        Self {
            vendor: self.vendor.clone(),
            shared: self.shared.clone(),
            lagging: self.lagging.clone(),
            replicas: self.replicas.clone(),
            caller: self.caller.clone(),
            since: self.since.clone(),
            shared_scrolls: self.shared_scrolls.clone(),
            wrong: self.wrong.clone(),
            ..*self
        }
    }

    fn state(&self) -> [u8; 32] {
        let seen = |shared: &Shared| {
            let kept: Vec<_> = (0..self.begun).map(|n| head(&shared.engine, n)).collect();
            let line = line(&shared.engine, stamp(self.now));
            format!(
                "{kept:?} {line:?} {:?} {}",
                purges(&shared.engine),
                shared.purged
            )
        };
        let lagging = self.lagging.as_ref().filter(|_| self.faults.failovers > 0);
        let whole = format!(
            "{:?} {:?} {:?} {:?} {} {} {:?} {} {} {:?} {:?}",
            self.faults,
            self.vendor,
            self.replicas,
            self.caller,
            self.begun,
            seen(&self.shared),
            lagging.map(seen),
            self.lives,
            self.purges,
            self.since,
            self.shared_scrolls,
        );
        *blake3::hash(whole.as_bytes()).as_bytes()
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.caller.over {
            return events;
        }
        if self.faults.changes > 0 {
            let now = self.vendor.lists.last().map_or(0, Vec::len);
            // At the start, and in the middle.
            events.extend([0, now / 2].map(Event::Change));
        }
        let (_, left) = line(&self.shared.engine, stamp(self.now));
        if self.faults.leases > 0 && !left.is_zero() {
            events.push(Event::LeaseEnds);
        }
        if self.faults.failovers > 0 && self.lagging.is_some() {
            events.push(Event::Failover);
        }
        let ready = self.caller.asking.map(|by| self.copy().answer(by).is_ok());
        let mut works = Vec::new();
        for by in [0, 1] {
            let replica = &self.replicas[by];
            let asked = self.caller.asking == Some(by) && ready == Some(false);
            if self.faults.crashes > 0 && (replica.is_busy() || !replica.memory.is_empty()) {
                events.push(Event::Crash(by));
            }
            if self.faults.stalls > 0 && replica.term.is_some() {
                events.push(Event::Stall(by));
            }
            if self.faults.purges > 0 && self.begun > 0 {
                events.push(Event::Purge(by));
            }
            match replica.away {
                true => events.push(Event::Back(by)),
                false if self.faults.away > 0 => events.push(Event::Away(by)),
                false => {}
            }
            if !replica.away && replica.purges != purges(&self.shared.engine) {
                events.push(Event::Hear(by));
            }
            if replica.is_busy() || asked || replica.may_read_on() {
                if self.faults.replies > 0 {
                    works.push(Event::Work(by, Reply::Lost));
                }
                works.push(Event::Work(by, Reply::Comes));
            }
        }
        match ready {
            // The two are alike before one of them was asked.
            None if self.begun == 0 => works.push(Event::Ask(0)),
            None => works.extend([Event::Ask(0), Event::Ask(1)]),
            Some(true) => works.push(Event::Answer),
            Some(false) => {}
        }
        events.extend(works);
        events
    }
}

impl World {
    pub fn new(decisions: Decisions, faults: Faults, rows: u8) -> Self {
        Self {
            decisions,
            faults,
            vendor: Vendor::with(rows),
            shared: Shared {
                engine: SharedModel::new(1 << 20, Clock::system()),
                purged: 0,
            },
            lagging: None,
            now: 0,
            replicas: [Replica::born(0), Replica::born(1)],
            caller: Caller::default(),
            begun: 0,
            lives: 2,
            purges: 0,
            since: BTreeMap::new(),
            shared_scrolls: BTreeMap::new(),
            wrong: None,
        }
    }

    /// Returns what has gone wrong, if something has.
    pub fn wrong(&self) -> Option<String> {
        if self.vendor.has_scroll_of_two() {
            return Some("a scroll of two".to_owned());
        }
        self.wrong.clone()
    }

    /// Runs operations of a gateway. Empty if there are no replies.
    pub fn store(&mut self, by: usize, ops: &[StoreOp], reply: Reply) -> Vec<StoreReply> {
        if self.replicas[by].away {
            return Vec::new();
        }
        self.note_write();
        let at = stamp(self.now);
        let run = |op| self.shared.engine.apply_at(op, at).unwrap();
        let replies: Vec<_> = ops.iter().map(run).collect();
        match reply {
            Reply::Comes => replies,
            Reply::Lost => Vec::new(),
        }
    }

    pub fn agree(&mut self, by: usize, op: FleetOp, reply: Reply) -> Option<FleetReply> {
        if self.replicas[by].away {
            return None;
        }
        self.note_write();
        let outcome = self.shared.engine.agree_at(op, stamp(self.now));
        (reply == Reply::Comes).then_some(outcome)
    }

    fn note_write(&mut self) {
        if self.faults.failovers > 0 {
            self.lagging = Some(self.shared.clone());
        }
    }

    /// Returns the state of a snapshot in the store, and the number of the purges before its scroll
    /// began. `Err` if the store is away.
    pub fn look(&self, by: usize, snapshot: u8) -> Result<Option<(KeptStanding, u64)>, ()> {
        match self.replicas[by].away {
            true => Err(()),
            false => Ok(head(&self.shared.engine, snapshot)),
        }
    }

    pub fn chunk(&self, snapshot: u8, number: u32) -> Vec<u8> {
        let snapshot = name(snapshot);
        let read = StoreOp::Chunk { snapshot, number };
        match self.shared.engine.apply(&read) {
            Ok(StoreReply::Value(Some(chunk))) => chunk.to_vec(),
            other => panic!("a chunk is missing: {other:?}"),
        }
    }

    /// Returns the current snapshot of the line, as the store has it.
    pub fn line_current(&self, by: usize) -> Option<u8> {
        let (current, _) = line(&self.shared.engine, stamp(self.now));
        let current = current.filter(|_| !self.replicas[by].away);
        current.map(number)
    }

    /// Returns whether a purge that this gateway knows covers what began after `begun` purges.
    pub fn is_purged(&self, by: usize, begun: u64) -> bool {
        let covers = self.replicas[by].purges.covers(SUBJECT, begun);
        self.decisions.watermarks && covers == Some(PurgeDepth::Hard)
    }

    /// Brings the purges of a gateway and those in the store together.
    fn share_purges(&mut self, by: usize) {
        if self.replicas[by].away {
            return;
        }
        let theirs = purges(&self.shared.engine);
        let all = self.replicas[by].purges.beside(&theirs);
        let purged = self.shared.purged.max(self.replicas[by].purged);
        if let Some(all) = &all {
            self.note_write();
            let write = FleetOp::Purge {
                was: theirs.number(),
                number: all.number(),
                record: all.to_bytes().into(),
            };
            let outcome = self.shared.engine.agree_at(write, stamp(self.now));
            assert_eq!(outcome, FleetReply::Kept);
            self.shared.purged = purged;
        }
        let replica = &mut self.replicas[by];
        let before = replica.purges.clone();
        replica.purges.merge(&all.unwrap_or(theirs));
        replica.purged = purged;
        let covers = replica.purges.covers(SUBJECT, before.number());
        if covers == Some(PurgeDepth::Hard) {
            replica.end_all();
        }
    }

    pub fn caller_asks(&self, by: usize) -> bool {
        self.caller.asking == Some(by)
    }

    pub fn happen(&mut self, event: Event, found: &mut Found) {
        let lease = u64::try_from(LEASE.as_millis()).unwrap();
        match event {
            Event::Ask(by) => self.caller.asking = Some(by),
            Event::Answer => self.give_answer(found),
            Event::Work(by, reply) => {
                if reply == Reply::Lost {
                    self.faults.replies -= 1;
                }
                self.work(by, reply, found);
            }
            Event::Change(at) => {
                self.faults.changes -= 1;
                self.vendor.change(at);
            }
            Event::LeaseEnds => {
                self.faults.leases -= 1;
                self.now += lease;
            }
            Event::Stall(by) => {
                self.faults.stalls -= 1;
                self.now += lease;
                self.replicas[by].now += lease;
            }
            Event::Crash(by) => {
                self.faults.crashes -= 1;
                self.replicas[by] = Replica::born(self.lives);
                self.lives += 1;
                // Before anything is read from the store.
                self.share_purges(by);
            }
            Event::Away(by) => {
                self.faults.away -= 1;
                self.replicas[by].away = true;
            }
            Event::Back(by) => {
                self.replicas[by].away = false;
                self.share_purges(by);
            }
            Event::Failover => {
                self.faults.failovers -= 1;
                self.shared = self.lagging.take().expect("a copy");
            }
            Event::Purge(by) => {
                self.faults.purges -= 1;
                self.purges += 1;
                let replica = &mut self.replicas[by];
                replica.purges.purge(PurgeScope::All, PurgeDepth::Hard);
                replica.purged = self.purges;
                replica.end_all();
                self.share_purges(by);
            }
            Event::Hear(by) => self.share_purges(by),
        }
    }

    fn give_answer(&mut self, found: &mut Found) {
        let by = self.caller.asking.take().expect("asked");
        match self.answer(by) {
            Ok(Answer::Page(row, token, of)) => {
                if self.since[&of] < self.replicas[by].purged {
                    self.wrong = Some(format!("a purged row: {row:?} of {of}"));
                }
                self.caller.rows.extend(row);
                self.caller.over = token.is_none();
                self.caller.token = token;
                if self.caller.over {
                    found.finished += 1;
                    if !self.vendor.lists.contains(&self.caller.rows) {
                        self.wrong = Some(format!("a mixed list: {:?}", self.caller.rows));
                    }
                }
            }
            Ok(Answer::Expired | Answer::Gone) => {
                found.expired += 1;
                self.caller.over = self.faults.restarts == 0;
                self.faults.restarts = self.faults.restarts.saturating_sub(1);
                self.caller.rows.clear();
                self.caller.token = None;
            }
            Err(_) => panic!("it was ready"),
        }
    }
}

fn head(engine: &SharedModel, snapshot: u8) -> Option<(KeptStanding, u64)> {
    let snapshot = name(snapshot);
    match engine.apply(&StoreOp::Head { snapshot }) {
        Ok(StoreReply::Head(found)) => found.map(|(standing, head)| {
            let begun = head[..].try_into().map(u64::from_le_bytes);
            (standing, begun.expect("eight bytes"))
        }),
        other => panic!("{other:?}"),
    }
}

/// Returns the current snapshot, and how long the claim lasts.
fn line(engine: &SharedModel, now: Stamp) -> (Option<RecordName>, Duration) {
    let want = LineWant::default();
    match engine.agree_at(FleetOp::Want { line: LINE, want }, now) {
        FleetReply::Line { current, left } => (current, left),
        other => panic!("{other:?}"),
    }
}

fn purges(engine: &SharedModel) -> Watermarks {
    match engine.agree(FleetOp::Purges) {
        FleetReply::Purges { record, .. } => record
            .map(|record| Watermarks::of_bytes(record).expect("watermarks"))
            .unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}
