//! Every interleaving of two gateways over one store, a vendor whose list changes, and a caller
//! that requests its pages now from one gateway and now from the other.
//!
//! The decisions are the real ones: [`SharedModel`] claims, fences and appends,
//! [`ClaimTerm`](msp_gateway::store::claims::ClaimTerm) says whether a continuation may be sent,
//! [`align`](msp_gateway::store::align) and [`load_after`](msp_gateway::store::load_after) compare
//! a copy with the store, [`repeats`](msp_gateway::snapshot::compare::repeats) compares a new
//! search with what was served, [`reach`](msp_gateway::snapshot::page::reach) cuts pages,
//! [`Watermarks`](msp_gateway::store::Watermarks) judge what was purged.
//!
//! Leases end at any moment, whatever the clocks of the gateways say. Replies get lost, gateways
//! crash, the store fails over to a copy that lacks the last write, and purges reach one gateway
//! before the other.
//!
//! The explorer must find out each decision that is switched off. If all are on, it tries every
//! order and must find nothing.
//!
//! [`SharedModel`]: msp_gateway::store::SharedModel

mod keep;
mod replica;
mod world;

use msp_gateway::clock::Instant;
use world::World;

use super::order::every_order;

/// The decisions that can be switched off, by their numbers in decision 029.
#[derive(Clone, Copy, Debug)]
struct Decisions {
    /// 1: a scroll stays with the gateway that began it.
    own_scrolls: bool,
    /// 2: rows are stored before readers see them.
    kept_before_told: bool,
    /// 3: an append names the claim and the chain.
    fence: bool,
    /// 4: a token shows the rows before its place, or the answer is 410.
    marks: bool,
    /// 6: what was read before a purge is judged by the purge's number.
    watermarks: bool,
}

const ALL_ON: Decisions = Decisions {
    own_scrolls: true,
    kept_before_told: true,
    fence: true,
    marks: true,
    watermarks: true,
};

/// How often what may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Faults {
    /// A case is added to the vendor's list.
    changes: u8,
    /// The lease of the claim ends. The gateways' clocks do not show it.
    leases: u8,
    /// A gateway stands still for longer than a lease. Its clock shows it.
    stalls: u8,
    /// A gateway dies, with all that is in its memory.
    crashes: u8,
    /// Operations take effect, and their replies are lost.
    replies: u8,
    /// The store is away for a gateway, for a while.
    away: u8,
    /// The store loses its last write.
    failovers: u8,
    /// An operator purges everything at one gateway.
    purges: u8,
    /// The caller starts over after a 410.
    restarts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The caller requests its next page from a gateway.
    Ask(usize),
    /// The gateway answers.
    Answer,
    /// The next step of the gateway's walk, or the first towards one.
    Work(usize, Reply),
    Change(usize),
    LeaseEnds,
    Stall(usize),
    Crash(usize),
    Away(usize),
    Back(usize),
    Failover,
    Purge(usize),
    /// A gateway learns of purges that are in the store, or stores its own.
    Hear(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Comes,
    Lost,
}

/// What an exploration came to.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    finished: usize,
    expired: usize,
    taken_over: usize,
    wrong: Option<(String, Vec<Event>)>,
}

/// Tries every order of events until something wrong is found.
fn explore(decisions: Decisions, faults: Faults, rows: u8) -> Found {
    let mut found = Found::default();
    let tried = every_order(World::new(decisions, faults, rows), |world, event| {
        world.happen(event, &mut found);
        world.wrong()
    });
    Found {
        states: tried.states,
        wrong: tried.wrong,
        ..found
    }
}

/// A row of the table: its name, the decisions, the faults, and what must be found.
type Trial = (&'static str, Decisions, Faults, Option<&'static str>);

fn switched_off() -> Vec<Trial> {
    let lease = Faults {
        changes: 1,
        leases: 1,
        ..Faults::default()
    };
    let crash = Faults {
        crashes: 1,
        ..lease
    };
    let failover = Faults {
        failovers: 1,
        ..lease
    };
    let purge = Faults {
        purges: 1,
        ..Faults::default()
    };
    let away = Faults { away: 1, ..crash };
    let one = Decisions {
        own_scrolls: false,
        ..ALL_ON
    };
    let two_and_four = Decisions {
        kept_before_told: false,
        marks: false,
        ..ALL_ON
    };
    let three = Decisions {
        fence: false,
        ..ALL_ON
    };
    let four = Decisions {
        marks: false,
        ..ALL_ON
    };
    let six = Decisions {
        watermarks: false,
        ..ALL_ON
    };
    let mixed = Some("a mixed list");
    vec![
        ("1 off, a lease ends", one, lease, Some("a scroll of two")),
        ("2 and 4 off, a crash", two_and_four, crash, mixed),
        ("3 off, a failover", three, failover, mixed),
        ("3 off, a crash", three, crash, mixed),
        ("4 off, detached, a crash", four, away, mixed),
        ("4 off, a failover", four, failover, mixed),
        ("6 off, a purge", six, purge, Some("a purged row")),
    ]
}

fn switched_on() -> Vec<Trial> {
    let lease = Faults {
        changes: 1,
        leases: 1,
        ..Faults::default()
    };
    let two = Decisions {
        kept_before_told: false,
        ..ALL_ON
    };
    let with = |what, faults| (what, ALL_ON, faults, None);
    let crash = Faults {
        crashes: 1,
        ..lease
    };
    let purge = Faults { purges: 1, ..lease };
    vec![
        ("2 off", two, lease, None),
        with("nothing happens", Faults::default()),
        with("a crash", crash),
        with("a stall", Faults { stalls: 1, ..lease }),
        with(
            "a lost reply",
            Faults {
                replies: 1,
                ..lease
            },
        ),
        with("detached", Faults { away: 1, ..lease }),
        with(
            "a failover",
            Faults {
                failovers: 1,
                ..lease
            },
        ),
        with("a purge", purge),
        with(
            "a purge while the store is away",
            Faults {
                changes: 0,
                leases: 0,
                away: 1,
                ..purge
            },
        ),
        with(
            "a purge and a crash",
            Faults {
                changes: 0,
                crashes: 1,
                ..purge
            },
        ),
    ]
}

fn try_all(trials: Vec<Trial>, rows: u8) {
    let mut failures = Vec::new();
    for (what, decisions, faults, expected) in trials {
        let began = Instant::now();
        let found = explore(decisions, faults, rows);
        println!(
            "{what}, {} states in {:?}: {found:?}",
            found.states,
            began.elapsed()
        );
        let wrong = found.wrong.as_ref().map(|(wrong, _)| wrong.as_str());
        let right = match expected {
            Some(expected) => wrong.is_some_and(|wrong| wrong.starts_with(expected)),
            // Only a list that changed ends a token.
            None => {
                let may_expire = faults.changes > 0;
                wrong.is_none() && found.finished > 0 && (may_expire || found.expired == 0)
            }
        };
        if !right {
            failures.push(format!("{what}: {found:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn decisions_of_a_fleet_that_are_switched_off_are_found_out() {
    try_all(switched_off(), 4);
}

/// A list of three rows, because a fourth makes it minutes. `STORE_HISTORIES` requests four, and
/// pairs of faults.
#[test]
fn with_all_decisions_on_a_fleet_never_mixes_a_list() {
    let mut trials = switched_on();
    if std::env::var("STORE_HISTORIES").is_ok() {
        try_all(trials, 4);
        trials = pairs();
    }
    try_all(trials, 3);
}

/// Two faults of different kinds beside a change and the end of a lease.
fn pairs() -> Vec<Trial> {
    let lease = Faults {
        changes: 1,
        leases: 1,
        ..Faults::default()
    };
    let with = |what, faults| (what, ALL_ON, faults, None);
    vec![
        with(
            "a crash, a lost reply",
            Faults {
                crashes: 1,
                replies: 1,
                ..lease
            },
        ),
        with(
            "a crash, detached",
            Faults {
                crashes: 1,
                away: 1,
                ..lease
            },
        ),
        with(
            "a crash, a failover",
            Faults {
                crashes: 1,
                failovers: 1,
                ..lease
            },
        ),
        with(
            "detached, a failover",
            Faults {
                away: 1,
                failovers: 1,
                ..lease
            },
        ),
        with(
            "a purge, a failover",
            Faults {
                purges: 1,
                failovers: 1,
                ..lease
            },
        ),
        with(
            "a stall, a crash",
            Faults {
                stalls: 1,
                crashes: 1,
                ..lease
            },
        ),
    ]
}
