//! The shared budget of one vendor account. All gateways (*replicas*) over one store take their
//! calls from it.
//!
//! ```text
//! take ─▶ Taken     paid, and a place is held until end_call
//!         Probe     the same, to find out whether a hold-down is over
//!         Held      the vendor asked for a wait
//!         NoPlace   the maximum number of concurrent calls is in progress
//!         NoCredit  the rate does not allow the call yet
//! ```
//!
//! A purse holds *credit*, in microseconds. It grows by one microsecond per microsecond, and a call
//! costs `60 s / requests_per_minute`. A purse also holds the hold-down after a 429, so that all
//! replicas obey it. A place expires unless its replica keeps it (`keep_call`). So a replica that
//! dies does not hold it for long.
//!
//! `SharedPurse` is the model of the scripts in Valkey: tests compare their replies number for
//! number. It is pure, and all numbers are integers, so that both round in the same way.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::engine::StoreFault;
use super::fleet::{ClaimId, FleetOp, FleetReply};
use super::handle::{Store, StoreInner};
use super::names::NameUse;
use super::record::RecordName;
use crate::clock::Duration;

/// Time between two probes in a long hold-down.
pub const PROBE_EVERY: Duration = Duration::from_secs(60);
/// Time after which a place expires, unless the call's gateway keeps it. It is shorter than the
/// usual lease of a walk, so that the gateway which takes over the walks of a dead one finds free
/// places.
pub const PLACE_LEASE: Duration = Duration::from_secs(5);
/// Maximum life of a place. A place with a later end was written before a clock jumped back, and is
/// removed.
pub const PLACE_MAX: Duration = Duration::from_secs(600);

/// A request to take one call from the purse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurseTake {
    /// The cost of a call, in microseconds of credit.
    pub cost_us: u64,
    /// Maximum credit, in microseconds.
    pub burst_us: u64,
    /// The credit that the call needs, in microseconds. It is more than the cost for lanes that
    /// leave a share to more urgent ones.
    pub needed_us: u64,
    /// Maximum number of concurrent calls, this one included.
    pub places: u32,
    /// Time after which the place expires.
    pub place_len: Duration,
    /// Credit that this replica spent while the store was away, in microseconds.
    pub owed_us: u64,
}

/// News about an account: what a vendor's answer said about its limits, or an operator's command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurseWord {
    /// The cost of a call, in microseconds of credit.
    pub cost_us: u64,
    /// Maximum credit, in microseconds.
    pub burst_us: u64,
    /// Starts a hold-down of this length.
    pub stop: Option<Duration>,
    /// Whether calls are refused during the hold-down. Otherwise they may wait.
    pub refuses: bool,
    /// Whether the answer was a 429. The 429 answers of concurrent calls count as one.
    pub strike: bool,
    /// Whether the answer was another one. It resets the number of 429 answers, unless a hold-down
    /// is running.
    pub answered: bool,
    /// Reduces the credit to at most this, unless a hold-down is running.
    pub credit_max_us: Option<u64>,
    /// Whether the hold-down ends now.
    pub resume: bool,
}

/// The decision about one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurseVerdict {
    /// The call is paid and holds a place.
    Taken,
    /// The call is paid and holds a place. It is a probe, because a hold-down is running.
    Probe {
        /// The rest of the hold-down.
        left: Duration,
        /// Whether calls are refused during the hold-down.
        refuses: bool,
    },
    /// A hold-down is running.
    Held {
        /// The rest of the hold-down.
        left: Duration,
        /// Whether calls are refused during the hold-down.
        refuses: bool,
    },
    /// The maximum number of concurrent calls is in progress.
    NoPlace,
    /// There is too little credit.
    NoCredit {
        /// There is enough after this time, unless another replica takes it.
        wait: Duration,
    },
}

impl PurseVerdict {
    /// Returns whether the call may go.
    pub fn goes(self) -> bool {
        matches!(self, Self::Taken | Self::Probe { .. })
    }
}

/// The decision about one call, and the state of the purse after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurseReply {
    /// The decision.
    pub verdict: PurseVerdict,
    /// Credit in microseconds. It is negative while credit that was spent without the store is paid
    /// back.
    pub credit_us: i64,
    /// Number of calls in progress.
    pub busy: u32,
    /// Number of 429 answers in a row.
    pub strikes: u32,
}

/// A purse. Pure; the time is in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedPurse {
    credit: i64,
    /// Time up to which credit was counted. It is in the future during a hold-down.
    at: Option<i64>,
    /// The end of the last hold-down, and its length.
    hold: Option<(i64, i64)>,
    refuses: bool,
    strikes: u32,
    probe: i64,
    /// The end of each place.
    calls: BTreeMap<[u8; 16], i64>,
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX / 4)
}

fn unsigned(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl SharedPurse {
    /// Counts credit up to `now`. Returns the rest of the hold-down, which is 0 or less if none is
    /// running.
    fn count(&mut self, now: i64, burst: i64) -> i64 {
        let left = self.hold.map_or(0, |(end, len)| (end - now).min(len));
        // A hold-down cannot be longer than its length. If it is, a clock was set back.
        self.hold = self.hold.map(|(_, len)| (now + left, len));
        self.probe = self.probe.min(now + ms(PROBE_EVERY));
        let at = self.at.unwrap_or(now).min(now + left.max(0));
        if now > at {
            self.credit += (now - at) * 1_000;
        }
        self.credit = self.credit.min(burst);
        self.at = Some(at.max(now));
        left
    }

    pub fn take(&mut self, now: i64, call: ClaimId, wish: &PurseTake) -> PurseReply {
        let (cost, burst) = (signed(wish.cost_us), signed(wish.burst_us));
        let left = self.count(now, burst);
        self.credit = (self.credit - signed(wish.owed_us)).max(-burst);
        let latest = now + ms(PLACE_MAX);
        self.calls.retain(|_, end| *end > now && *end <= latest);
        let places = if self.strikes > 0 { 1 } else { wish.places };
        let mut busy = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        let needed = signed(wish.needed_us);
        let verdict = if left > 0 && (busy >= places || now < self.probe) {
            PurseVerdict::Held {
                left: unsigned(left),
                refuses: self.refuses,
            }
        } else if busy >= places {
            PurseVerdict::NoPlace
        } else if left <= 0 && self.credit < needed {
            // Rounded up, so that there is enough credit after it.
            let wait = (needed - self.credit + 999) / 1_000;
            PurseVerdict::NoCredit {
                wait: unsigned(wait),
            }
        } else {
            self.credit = (self.credit - cost).max(-burst);
            self.calls.insert(call.0, now + ms(wish.place_len));
            busy += 1;
            match left > 0 {
                true => {
                    self.probe = now + ms(PROBE_EVERY);
                    PurseVerdict::Probe {
                        left: unsigned(left),
                        refuses: self.refuses,
                    }
                }
                false => PurseVerdict::Taken,
            }
        };
        PurseReply {
            verdict,
            credit_us: self.credit,
            busy,
            strikes: self.strikes,
        }
    }

    pub fn keep(&mut self, now: i64, call: ClaimId, place_len: Duration) {
        if let Some(end) = self.calls.get_mut(&call.0) {
            *end = now + ms(place_len);
        }
    }

    pub fn end(&mut self, call: ClaimId, back_us: u64) {
        if self.calls.remove(&call.0).is_some() && self.at.is_some() {
            self.credit += signed(back_us);
        }
    }

    pub fn hear(&mut self, now: i64, word: &PurseWord) {
        let (cost, burst) = (signed(word.cost_us), signed(word.burst_us));
        let mut left = self.count(now, burst);
        if word.resume {
            (self.hold, left) = (None, 0);
            self.at = Some(now);
        }
        if word.strike && !(left > 0 && self.refuses) {
            self.strikes = self.strikes.saturating_add(1);
        }
        if word.answered && left <= 0 {
            self.strikes = 0;
        }
        if let Some(most) = word.credit_max_us
            && left <= 0
        {
            self.credit = self.credit.min(signed(most));
        }
        if let Some(stop) = word.stop {
            if left <= 0 {
                self.probe = now + ms(PROBE_EVERY);
                self.refuses = false;
            }
            let left = left.max(ms(stop));
            let until = now + left;
            let passed = until - self.at.unwrap_or(now);
            self.credit = (self.credit + passed * 1_000).min(cost);
            self.at = Some(until);
            self.hold = Some((until, left));
            self.refuses |= word.refuses;
        }
    }
}

/// The fleet at the last beat that got a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetView {
    /// Number of beats that got a reply.
    pub beats: u64,
    /// Number of replicas, and at least `replicas_min`.
    pub replicas: u32,
}

impl Store {
    /// Takes one call from the purse of an account, if it has one.
    ///
    /// # Errors
    /// If the store gives no reply in time. The call may have been taken all the same:
    /// [`Self::end_call`] gives it back.
    pub async fn take_call(
        &self,
        account: &str,
        call: ClaimId,
        wish: PurseTake,
    ) -> Result<PurseReply, StoreFault> {
        let inner = self.inner.as_ref().ok_or(StoreFault::Away)?;
        let until = inner.patience();
        let names = inner.names(until).await.ok_or(StoreFault::Away)?;
        let account = names.0.of(NameUse::Account, account.as_bytes());
        let take = FleetOp::Take {
            account,
            call,
            wish,
        };
        match inner.ask(take, until).await? {
            FleetReply::Purse(reply) => Ok(reply),
            _ => Err(StoreFault::Failed),
        }
    }

    /// Keeps the place of a call in progress for [`PLACE_LEASE`] more. Does not wait.
    pub fn keep_call(&self, account: &str, call: ClaimId) {
        self.tell_of_account(account, |account| FleetOp::KeepCall {
            account,
            call,
            place_len: PLACE_LEASE,
        });
    }

    /// Ends the place of a call, and gives `back_us` of credit back if it was not sent. Does not
    /// wait.
    pub fn end_call(&self, account: &str, call: ClaimId, back_us: u64) {
        self.tell_of_account(account, |account| FleetOp::EndCall {
            account,
            call,
            back_us,
        });
    }

    /// Shares news about an account. Does not wait.
    pub fn share_word(&self, account: &str, word: PurseWord) {
        self.tell_of_account(account, |account| FleetOp::Word { account, word });
    }

    /// Returns the fleet at the last beat that got a reply.
    pub fn fleet_view(&self) -> FleetView {
        self.inner.as_ref().map_or(
            FleetView {
                beats: 0,
                replicas: 1,
            },
            |inner| FleetView {
                beats: inner.beats.load(Ordering::Relaxed),
                replicas: u32::try_from(inner.metrics.replicas.get())
                    .unwrap_or(1)
                    .max(inner.engine.replicas_min()),
            },
        )
    }

    fn tell_of_account(&self, account: &str, op: impl FnOnce(RecordName) -> FleetOp) {
        let Some(inner) = self.inner.as_ref() else {
            return;
        };
        // Without names no call was taken.
        if let Some(names) = inner.known_names() {
            let account = names.0.of(NameUse::Account, account.as_bytes());
            StoreInner::tell_fleet(inner, op(account));
        }
    }
}
