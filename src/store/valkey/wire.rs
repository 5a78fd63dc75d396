//! Operations as commands.

use bytes::Bytes;
use redis::Cmd;

use super::replies::AGE_UNKNOWN;
use super::scripts::{ScriptName, Scripts};
use crate::clock::{Clock, Duration, Stamp};
use crate::store::engine::{CHUNKS_MAX, Chain, Fence, StoreOp};
use crate::store::fleet::{ClaimId, FleetOp, LineWant, REPLICA_GONE, SAME_AGE};
use crate::store::purse::{PLACE_MAX, PROBE_EVERY, PurseTake};
use crate::store::record::RecordName;
use crate::store::scrolls::{SLOT_WAIT, SlotOf, SlotWish, TIMES_FREE};
use crate::store::usage::UseBatch;

/// How long the sums of callers are kept: a minute, and the minute before.
const USE_KEPT: Duration = Duration::from_secs(120);

/// How long records live in the engine after their last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValkeyLives {
    /// Answers, counted from when they were stored.
    pub answers: Duration,
    /// Snapshots.
    pub snapshots: Duration,
}

/// Builds commands and reads replies.
pub(super) struct ValkeyWire {
    pub prefix: String,
    pub lives: ValkeyLives,
    pub scripts: Scripts,
    pub clock: Clock,
}

/// A command, and its script for a server that does not know the script yet.
pub(super) struct Command {
    pub command: Cmd,
    pub script: Option<ScriptName>,
}

/// An argument.
#[derive(Clone)]
enum Arg<'a> {
    Bytes(&'a [u8]),
    Text(String),
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Arg<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Bytes> for Arg<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Text(number.to_string())
    }
}

impl From<Duration> for Arg<'_> {
    fn from(time: Duration) -> Self {
        Self::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Arg<'_> {
    fn from(yes: bool) -> Self {
        Self::from(u64::from(yes))
    }
}

impl From<String> for Arg<'_> {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(Arg::from($arg)),*] };
}

/// Returns the arguments that fence a change: the claim and its lease. The claim is empty if
/// nothing fences it.
fn fenced(fence: Option<&Fence>) -> [Arg<'_>; 2] {
    match fence {
        Some(fence) => [Arg::from(&fence.claim.0), Arg::from(fence.lease)],
        None => [Arg::Bytes(&[]), Arg::from(0)],
    }
}

/// Returns the age of `stamp` at `now`.
fn since(stamp: &Stamp, now: Stamp) -> Duration {
    stamp.age(&now).unwrap_or(AGE_UNKNOWN)
}

fn hex(name: RecordName) -> String {
    name.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ValkeyWire {
    /// Returns a key whose layout never changes.
    fn control(&self, what: &str) -> String {
        format!("{}:{{f}}:{what}", self.prefix)
    }

    /// Returns the channel of the bell.
    pub fn channel(&self) -> String {
        format!("{}:n", self.prefix)
    }

    /// The keys of an account's purse: what it holds, and the places in it.
    fn purse(&self, account: RecordName) -> [String; 2] {
        let hex = hex(account);
        ["pace", "calls"].map(|what| format!("{}:{{v.{hex}}}:{what}", self.prefix))
    }

    /// The keys of an account's slots: the scrolls that may be open, and the payers that wait.
    fn scrolls(&self, account: RecordName) -> [String; 2] {
        let hex = hex(account);
        ["scrolls", "waiting"].map(|what| format!("{}:{{v.{hex}}}:{what}", self.prefix))
    }

    /// Returns a key of records, whose layout has a version.
    fn data(&self, name: RecordName, what: &str) -> String {
        format!("{}1:{{{}}}:{what}", self.prefix, hex(name))
    }

    fn script(&self, name: ScriptName, keys: &[String], args: &[Arg<'_>], now: Stamp) -> Command {
        let mut command = redis::cmd("EVALSHA");
        if let Some(script) = self.scripts.get(name) {
            command.arg(&script.hash);
        }
        command.arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        for arg in args {
            match arg {
                Arg::Bytes(bytes) => command.arg(*bytes),
                Arg::Text(text) => command.arg(text),
            };
        }
        if self.scripts.get(name).is_some_and(|script| script.rings) {
            command.arg(self.channel());
        }
        if self.scripts.time_is_given {
            command.arg(now.since_boot_ms());
        }
        Command {
            command,
            script: Some(name),
        }
    }

    fn plain(&self, command: &str, key: String, field: &[u8]) -> Command {
        let mut made = redis::cmd(command);
        made.arg(key).arg(field);
        Command {
            command: made,
            script: None,
        }
    }

    /// Returns the command of an operation that is sent at `now`.
    pub fn store_command(&self, op: &StoreOp, now: Stamp) -> Command {
        use ScriptName as S;
        let script = |name, keys: &[String], args: &[Arg<'_>]| self.script(name, keys, args, now);
        let (answers, snapshots) = (self.lives.answers, self.lives.snapshots);
        let snapshot_key = |name: RecordName| [self.data(name, "s")];
        let changed = |name: RecordName, fence: &Option<Fence>| {
            let line = fence.map(|fence| self.data(fence.line, "line"));
            [Some(self.data(name, "s")), line]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        match op {
            StoreOp::Find { name } => self.plain("HGET", self.data(*name, "k"), b"rec"),
            StoreOp::Land {
                name,
                record,
                negative,
            } => {
                let args = args![record, *negative, answers];
                script(S::KeepAnswer, &[self.data(*name, "k")], args)
            }
            StoreOp::Line { line } => self.plain("HGET", self.data(*line, "line"), b"cur"),
            StoreOp::Begin {
                line,
                snapshot,
                head,
                was,
                fence,
            } => {
                let was: &[u8] = was.as_ref().map_or(&[], |was| &was.0);
                let zero = Chain::default();
                let [claim, lease] = fenced(fence.as_ref());
                let args = args![
                    &line.0,
                    &snapshot.0,
                    head,
                    was,
                    &zero,
                    snapshots,
                    claim,
                    lease
                ];
                let keys = [self.data(*line, "line"), self.data(*snapshot, "s")];
                script(S::Begin, &keys, args)
            }
            StoreOp::PutBack {
                line,
                snapshot,
                head,
                fence,
            } => {
                let zero = Chain::default();
                let [claim, lease] = fenced(fence.as_ref());
                let args = args![&line.0, head, &zero, snapshots, claim, lease];
                let keys = [self.data(*line, "line"), self.data(*snapshot, "s")];
                script(S::PutBack, &keys, args)
            }
            StoreOp::Append {
                snapshot,
                number,
                chain,
                next,
                rows,
                chunk,
                at,
                fence,
            } => {
                let [claim, lease] = fenced(fence.as_ref());
                let args = args![
                    u64::from(*number),
                    chain,
                    next,
                    u64::from(*rows),
                    chunk,
                    since(at, now),
                    u64::from(CHUNKS_MAX),
                    snapshots,
                    claim,
                    lease,
                ];
                script(S::Append, &changed(*snapshot, fence), args)
            }
            StoreOp::Renewed { snapshot, ages } => {
                let args = args![since(&ages.head, now), since(&ages.whole, now), snapshots];
                script(S::Renewed, &snapshot_key(*snapshot), args)
            }
            StoreOp::End {
                snapshot,
                end,
                of,
                fence,
            } => {
                let chunks = of.map_or(String::new(), |(chunks, _)| chunks.to_string());
                let chain = of.map_or(Chain::default(), |(_, chain)| chain);
                let [claim, lease] = fenced(fence.as_ref());
                let end = u64::from(*end as u8);
                let args = args![end, snapshots, chunks, &chain, claim, lease];
                script(S::End, &changed(*snapshot, fence), args)
            }
            StoreOp::Head { snapshot } => script(S::Head, &snapshot_key(*snapshot), &[]),
            StoreOp::Chunk { snapshot, number } => {
                let field = format!("c{number}");
                self.plain("HGET", self.data(*snapshot, "s"), field.as_bytes())
            }
            StoreOp::Touch { snapshot } => {
                script(S::Touch, &snapshot_key(*snapshot), args![snapshots])
            }
            StoreOp::Forget { snapshot } => {
                let before = format!("{}1:{{", self.prefix);
                let args = args![&snapshot.0, before, "}:line".to_owned()];
                script(S::Forget, &snapshot_key(*snapshot), args)
            }
            StoreOp::Note { name, record, .. } => {
                let mut made = self.plain("HSET", self.control("notes"), &name.0);
                made.command.arg(record.as_ref());
                made
            }
            StoreOp::Recall { name } => self.plain("HGET", self.control("notes"), &name.0),
        }
    }

    /// Returns the command of an operation that is sent at `now`.
    pub fn fleet_command(&self, op: &FleetOp, now: Stamp) -> Command {
        use ScriptName as S;
        let script = |name, keys: &[String], args: &[Arg<'_>]| self.script(name, keys, args, now);
        let answer_key = |name: RecordName| [self.data(name, "a")];
        let line_key = |line: RecordName| [self.data(line, "line")];
        let lines = self.lives.snapshots;
        match op {
            FleetOp::Claim { line, claim, lease } => {
                script(S::Claim, &line_key(*line), args![&claim.0, *lease, lines])
            }
            FleetOp::Renew { line, claim, lease } => {
                script(S::Renew, &line_key(*line), args![&claim.0, *lease, lines])
            }
            FleetOp::Release { line, claim } => {
                script(S::Release, &line_key(*line), args![&claim.0, &line.0])
            }
            FleetOp::Want { line, want } => {
                let LineWant {
                    rows,
                    furthest,
                    lane,
                    left,
                    turn,
                } = *want;
                let [rows, furthest, lane] = [rows, furthest, lane.into()].map(u64::from);
                let args = args![rows, furthest, lane, left, turn, lines, &line.0];
                script(S::Want, &line_key(*line), args)
            }
            FleetOp::Settle { name, record } => {
                let args = args![&name.0, record];
                script(S::Settle, &[self.control("notes")], args)
            }
            FleetOp::Purges => script(S::Purges, &[self.control("purges")], &[]),
            FleetOp::Purge {
                was,
                number,
                record,
            } => {
                let args = args![*was, *number, record];
                script(S::Purge, &[self.control("purges")], args)
            }
            FleetOp::Look { name } => script(S::Look, &answer_key(*name), &[]),
            FleetOp::Board {
                name,
                claim,
                lease,
                have,
            } => {
                let since = match have {
                    None => Arg::Text("-1".to_owned()),
                    Some(have) => Arg::from(since(have, now)),
                };
                let args = &[
                    Arg::from(&claim.0),
                    Arg::from(*lease),
                    since,
                    Arg::from(SAME_AGE),
                    Arg::from(self.lives.answers),
                ];
                script(S::Board, &answer_key(*name), args)
            }
            FleetOp::Land {
                name,
                claim,
                record,
                negative,
                born,
            } => {
                let args = args![
                    &claim.0,
                    record,
                    *negative,
                    since(born, now),
                    SAME_AGE,
                    self.lives.answers,
                    &name.0,
                ];
                script(S::Land, &answer_key(*name), args)
            }
            FleetOp::Fail {
                name,
                claim,
                record,
                hold,
            } => script(
                S::Fail,
                &answer_key(*name),
                args![&claim.0, record, *hold, self.lives.answers, &name.0],
            ),
            FleetOp::GiveUp { name, claim } => {
                script(S::GiveUp, &answer_key(*name), args![&claim.0, &name.0])
            }
            FleetOp::Take {
                account,
                call,
                wish,
            } => {
                let args = args![
                    &call.0,
                    wish.cost_us,
                    wish.burst_us,
                    wish.needed_us,
                    u64::from(wish.places),
                    wish.place_len,
                    wish.owed_us,
                    PROBE_EVERY,
                    PLACE_MAX,
                ];
                script(S::Take, &self.purse(*account), args)
            }
            FleetOp::KeepCall {
                account,
                call,
                place_len,
            } => script(
                S::KeepCall,
                &self.purse(*account),
                args![&call.0, *place_len],
            ),
            FleetOp::EndCall {
                account,
                call,
                back_us,
            } => script(S::EndCall, &self.purse(*account), args![&call.0, *back_us]),
            FleetOp::Word { account, word } => {
                let [pace, _] = self.purse(*account);
                let none = || Arg::Text("-1".to_owned());
                let args = &[
                    Arg::from(word.cost_us),
                    Arg::from(word.burst_us),
                    word.stop.map_or_else(none, Arg::from),
                    Arg::from(word.refuses),
                    Arg::from(word.strike),
                    Arg::from(word.answered),
                    word.credit_max_us.map_or_else(none, Arg::from),
                    Arg::from(word.resume),
                    Arg::from(PROBE_EVERY),
                ];
                script(S::Word, &[pace], args)
            }
            FleetOp::Use { replica, batch } => {
                let head = args![replica, batch.number, USE_KEPT, batch.callers.len() as u64];
                let callers = batch.callers.iter();
                let callers = callers.flat_map(|(caller, count)| {
                    [Arg::from(&caller.0), Arg::from(u64::from(*count))]
                });
                let args: Vec<Arg<'_>> = head.iter().cloned().chain(callers).collect();
                let used = format!("{}:{{c}}:used", self.prefix);
                script(S::Use, &[used], &args)
            }
            FleetOp::Slot {
                account,
                slot,
                wish,
            } => {
                let member = slot.member();
                let args = args![
                    &member,
                    u64::from(wish.max),
                    u64::from(wish.kept),
                    wish.background,
                    wish.expiry,
                    SLOT_WAIT,
                    u64::from(TIMES_FREE),
                ];
                script(S::Slot, &self.scrolls(*account), args)
            }
            FleetOp::SlotUsed {
                account,
                slot,
                left,
            } => {
                let ([scrolls, _], member) = (self.scrolls(*account), slot.member());
                script(S::SlotUsed, &[scrolls], args![&member, *left])
            }
            FleetOp::SlotEnded { account, slot } => {
                let ([scrolls, _], member) = (self.scrolls(*account), slot.member());
                script(S::SlotEnded, &[scrolls], args![&member])
            }
            FleetOp::Beat { replica, applied } => self.beat(replica, *applied, now),
        }
    }

    pub fn beat(&self, replica: &[u8], applied: u64, now: Stamp) -> Command {
        let keys = ["id", "replicas", "purges"].map(|what| self.control(what));
        let id = format!("{:032x}", fastrand::u128(..));
        let args = args![replica, applied, id, REPLICA_GONE];
        self.script(ScriptName::Beat, &keys, args, now)
    }

    fn forget_purse(&self, account: RecordName) -> Command {
        let mut command = redis::cmd("UNLINK");
        command
            .arg(&self.purse(account))
            .arg(&self.scrolls(account));
        Command {
            command,
            script: None,
        }
    }

    /// Returns the command that reads the id of the contents.
    pub fn look_at_id(&self) -> Command {
        self.plain("HGET", self.control("id"), b"id")
    }

    /// Returns commands without lasting effect. Together they use every command and every kind of
    /// key that the gateway needs.
    pub fn probes(&self) -> Vec<Command> {
        let random = || RecordName(fastrand::u128(..).to_le_bytes());
        let (line, snapshot, name, claim) = (random(), random(), random(), ClaimId::random());
        let (now, zero) = (self.clock.stamp(), Chain::default());
        let begin = StoreOp::Begin {
            line,
            snapshot,
            head: Bytes::new(),
            was: None,
            fence: None,
        };
        let append = StoreOp::Append {
            snapshot,
            number: 0,
            chain: zero,
            next: zero,
            rows: 0,
            chunk: Bytes::new(),
            at: now,
            fence: None,
        };
        let wish = PurseTake {
            cost_us: 0,
            burst_us: 0,
            needed_us: 0,
            places: 1,
            place_len: Duration::from_millis(1),
            owed_us: 0,
        };
        let take = FleetOp::Take {
            account: name,
            call: claim,
            wish,
        };
        let end = FleetOp::EndCall {
            account: name,
            call: claim,
            back_us: 1,
        };
        // Nobody's: it leaves nothing that counts.
        let (replica, batch) = ([0; 16], UseBatch::default());
        let usage = FleetOp::Use { replica, batch };
        let slot = SlotOf { claim, payer: name };
        let slot = FleetOp::Slot {
            account: name,
            slot,
            wish: SlotWish {
                max: 1,
                kept: 0,
                background: false,
                expiry: Duration::from_millis(1),
            },
        };
        let lease = REPLICA_GONE;
        let claims = FleetOp::Claim { line, claim, lease };
        let have = None;
        let board = FleetOp::Board {
            name,
            claim,
            lease,
            have,
        };
        vec![
            self.store_command(&begin, now),
            self.fleet_command(&claims, now),
            self.fleet_command(&FleetOp::Release { line, claim }, now),
            self.store_command(&append, now),
            self.store_command(&StoreOp::Head { snapshot }, now),
            self.store_command(&StoreOp::Forget { snapshot }, now),
            self.store_command(&StoreOp::Recall { name }, now),
            self.fleet_command(&board, now),
            self.fleet_command(&FleetOp::GiveUp { name, claim }, now),
            self.fleet_command(&take, now),
            self.fleet_command(&end, now),
            self.fleet_command(&slot, now),
            self.forget_purse(name),
            self.fleet_command(&usage, now),
            self.fleet_command(&FleetOp::Purges, now),
            self.look_at_id(),
        ]
    }
}
