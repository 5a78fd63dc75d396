//! The budget of one vendor account that all gateways (*replicas*) pay from.
//!
//! ```text
//! take ─▶ Taken     paid, and a place is held until end_call
//!         Probe     the same, to see whether a hold-down is over
//!         Held      the vendor asked for a wait
//!         NoPlace   as many calls are on their way as there may be
//!         NoCredit  the rate does not allow it yet
//! ```
//!
//! A purse holds *credit* in microseconds: time gives a microsecond of it per microsecond, a call
//! costs `60 s / requests_per_minute`. What a vendor says with a 429 is in the purse too, so one
//! replica hears it for all. A place ends by itself, so a replica that dies holds none for long.
//!
//! `SharedPurse` is pure: it says what the scripts in Valkey do, number for number. All numbers
//! are integers for that reason.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::engine::StoreFault;
use super::fleet::{ClaimId, FleetOp, FleetReply};
use super::handle::{Store, StoreInner};
use super::names::NameUse;
use super::record::RecordName;
use crate::clock::Duration;

/// Time between two calls that look whether a hold-down is over.
pub const PROBE_EVERY: Duration = Duration::from_secs(60);
/// No place lasts longer. One that would is of a clock that jumped.
pub const PLACE_MAX: Duration = Duration::from_secs(600);

/// A wish for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurseTake {
    /// What a call costs, in microseconds of credit.
    pub cost_us: u64,
    /// The most credit that there may be.
    pub burst_us: u64,
    /// The credit that must be there.
    pub needed_us: u64,
    /// Calls at once, this one included.
    pub places: u32,
    /// When the place ends by itself.
    pub place_len: Duration,
    /// What this replica spent while the store was away.
    pub owed_us: u64,
}

/// What a vendor said, or an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurseWord {
    /// What a call costs, in microseconds of credit.
    pub cost_us: u64,
    /// The most credit that there may be.
    pub burst_us: u64,
    /// How long no call is sent.
    pub stop: Option<Duration>,
    /// Calls are refused in that time; otherwise they may wait.
    pub refuses: bool,
    /// It was a 429. Those of calls that were on their way together are one.
    pub strike: bool,
    /// It was another answer: the row of 429s ends, if no hold-down is running.
    pub answered: bool,
    /// There is no more credit than this, if no hold-down is running.
    pub credit_max_us: Option<u64>,
    /// The hold-down ends now.
    pub resume: bool,
}

/// The reply to a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurseVerdict {
    /// It is paid, and holds a place.
    Taken,
    /// It is paid, and holds a place, although a hold-down is running.
    Probe {
        /// The rest of the hold-down.
        left: Duration,
        /// Calls are refused in that time.
        refuses: bool,
    },
    /// A hold-down is running.
    Held {
        /// The rest of the hold-down.
        left: Duration,
        /// Calls are refused in that time.
        refuses: bool,
    },
    /// There is no place.
    NoPlace,
    /// There is too little credit.
    NoCredit {
        /// There is enough after this time, if nobody else takes it.
        wait: Duration,
    },
}

impl PurseVerdict {
    /// Returns whether the call may go.
    pub fn goes(self) -> bool {
        matches!(self, Self::Taken | Self::Probe { .. })
    }
}

/// The reply to a wish, and how the purse stands after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurseReply {
    /// The reply.
    pub verdict: PurseVerdict,
    /// Credit in microseconds. Less than zero while what was spent alone is paid back.
    pub credit_us: i64,
    /// Calls on their way.
    pub busy: u32,
    /// 429 answers in a row.
    pub strikes: u32,
}

/// A purse. Pure; the time is in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedPurse {
    credit: i64,
    /// Up to when credit was counted. Later than now while a hold-down is running.
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
    /// Counts credit up to `now`. Returns the rest of the hold-down; none: 0 or less.
    fn count(&mut self, now: i64, burst: i64) -> i64 {
        let left = self.hold.map_or(0, |(end, len)| (end - now).min(len));
        // One that lies further ahead than its length is cut to it: then a clock was set back.
        self.hold = self.hold.map(|(_, len)| (now + left, len));
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
            // Rounded up: there is enough then.
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

/// How a fleet looked when it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetView {
    /// Times it was heard of.
    pub beats: u64,
    /// Replicas, as many as there are at least.
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

    /// Ends the place of a call, and gives back what it cost if it was not sent. Nobody waits for
    /// it.
    pub fn end_call(&self, account: &str, call: ClaimId, back_us: u64) {
        self.tell_of_account(account, |account| FleetOp::EndCall {
            account,
            call,
            back_us,
        });
    }

    /// Shares what a vendor said about an account. Nobody waits for it.
    pub fn share_word(&self, account: &str, word: PurseWord) {
        self.tell_of_account(account, |account| FleetOp::Word { account, word });
    }

    /// Returns how the fleet looked when it was last heard of.
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
        // Without names nothing was taken.
        if let Some(names) = inner.known_names() {
            let account = names.0.of(NameUse::Account, account.as_bytes());
            StoreInner::tell_fleet(inner, op(account));
        }
    }
}
