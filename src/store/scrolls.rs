//! The scrolls that may be open at one vendor account, counted over all gateways (*replicas*).
//!
//! ```text
//! take_slot ─▶ granted   counted until it expires; each page renews it, the end removes it
//!           ─▶ refused   the payer counts as waiting for a moment, and the gateway asks again
//! ```
//!
//! A replica that dies leaves what the vendor has: scrolls that are open until they expire. Payers
//! share the slots over all replicas, by the rules of `snapshot::slots`: a payer may hold a
//! multiple of what is free, background work leaves some free, and a slot that frees up goes to the
//! waiting payer with the fewest. In the store, a payer is a keyed hash.
//!
//! `SharedScrolls` is pure. It is the model of the scripts in Valkey: tests compare their replies
//! number for number.

use std::collections::BTreeMap;

use super::engine::StoreFault;
use super::fleet::{ClaimId, FleetOp, FleetReply};
use super::handle::{Store, StoreInner};
use super::names::NameUse;
use super::record::RecordName;
use crate::clock::Duration;

/// A payer may hold at most this many times the number of free slots.
pub const TIMES_FREE: u32 = 7;
/// How long a refused payer counts as waiting. Its gateway asks again within half of it.
pub const SLOT_WAIT: Duration = Duration::from_millis(500);

/// A scroll, and who pays for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOf {
    /// Identifies the scroll.
    pub claim: ClaimId,
    /// The name of the payer.
    pub payer: RecordName,
}

impl SlotOf {
    /// Returns the bytes that stand for it in the store.
    pub(super) fn member(&self) -> [u8; 32] {
        let mut member = [0; 32];
        let both = self.claim.0.iter().chain(&self.payer.0);
        member
            .iter_mut()
            .zip(both)
            .for_each(|(to, from)| *to = *from);
        member
    }
}

/// A wish for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWish {
    /// Maximum number of scrolls at once, over all replicas. With 0, the reply only says how the
    /// slots stand.
    pub max: u32,
    /// Slots that stay free for more urgent searches.
    pub kept: u32,
    /// Whether it is background work, which lets all others go first.
    pub background: bool,
    /// When the scroll has expired at the vendor, if nothing more is read.
    pub expiry: Duration,
}

/// The reply to a wish, and how the slots stand after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotReply {
    /// Whether the scroll may be opened.
    pub granted: bool,
    /// Scrolls that may be open at the vendor.
    pub standing: u32,
    /// Those of this payer.
    pub held: u32,
    /// Payers that wait, without this one.
    pub waiting: u32,
}

/// The scrolls of one account. Pure; the time is in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedScrolls {
    /// When each scroll expires.
    scrolls: BTreeMap<[u8; 32], i64>,
    /// Until when each payer counts as waiting, for background work apart.
    waiting: BTreeMap<([u8; 16], bool), i64>,
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl SharedScrolls {
    pub fn take(&mut self, now: i64, slot: &SlotOf, wish: &SlotWish) -> SlotReply {
        let (latest, latest_wait) = (now + ms(wish.expiry), now + ms(SLOT_WAIT));
        self.scrolls.retain(|_, expiry| *expiry > now);
        // An end that is further ahead than its length is cut to that length: a clock was set back.
        for expiry in self.scrolls.values_mut() {
            *expiry = (*expiry).min(latest);
        }
        self.waiting
            .retain(|_, until| *until > now && *until <= latest_wait);
        let (member, own) = (slot.member(), (slot.payer.0, wish.background));
        let held_by = |payer: &[u8]| {
            let of_it = |scroll: &&[u8; 32]| scroll.ends_with(payer);
            count(self.scrolls.keys().filter(of_it).count())
        };
        let held = held_by(&slot.payer.0);
        let others = self.waiting.keys().filter(|other| **other != own);
        let waiting = count(others.clone().count());
        let first = others.filter(|(payer, background)| {
            *payer != slot.payer.0 && *background <= wish.background && held_by(payer) < held
        });
        let first = count(first.count());
        let standing = count(self.scrolls.len());
        let (free, known) = (
            wish.max.saturating_sub(standing),
            self.scrolls.contains_key(&member),
        );
        let fits = free > wish.kept.saturating_add(first) && held < free.saturating_mul(TIMES_FREE);
        let granted = wish.max > 0 && (known || fits);
        if granted {
            self.scrolls.insert(member, latest);
            self.waiting.remove(&own);
        } else if wish.max > 0 {
            self.waiting.insert(own, latest_wait);
        }
        let more = u32::from(granted && !known);
        SlotReply {
            granted,
            standing: standing + more,
            held: held + more,
            waiting,
        }
    }

    pub fn note(&mut self, now: i64, slot: &SlotOf, left: Duration) {
        self.scrolls.insert(slot.member(), now + ms(left));
    }

    pub fn end(&mut self, slot: &SlotOf) {
        self.scrolls.remove(&slot.member());
    }
}

impl Store {
    /// Asks for a slot of an account.
    ///
    /// # Errors
    /// If the store gives no reply in time. The slot may have been granted all the same:
    /// [`Self::end_slot`] gives it back.
    pub async fn take_slot(
        &self,
        account: &str,
        claim: ClaimId,
        payer: &str,
        wish: SlotWish,
    ) -> Result<SlotReply, StoreFault> {
        let inner = self.inner.as_ref().ok_or(StoreFault::Away)?;
        let until = inner.patience();
        let names = inner.names(until).await.ok_or(StoreFault::Away)?;
        let take = FleetOp::Slot {
            account: names.0.of(NameUse::Account, account.as_bytes()),
            slot: SlotOf {
                claim,
                payer: names.0.of(NameUse::Payer, payer.as_bytes()),
            },
            wish,
        };
        match inner.ask(take, until).await? {
            FleetReply::Slot(reply) => Ok(reply),
            _ => Err(StoreFault::Failed),
        }
    }

    /// Records that a scroll may be open for this much longer. Does not wait.
    pub fn note_slot(&self, account: &str, claim: ClaimId, payer: &str, left: Duration) {
        self.tell_of_slot(account, claim, payer, |account, slot| FleetOp::SlotUsed {
            account,
            slot,
            left,
        });
    }

    /// Records that a scroll is no longer open. Does not wait.
    pub fn end_slot(&self, account: &str, claim: ClaimId, payer: &str) {
        self.tell_of_slot(account, claim, payer, |account, slot| FleetOp::SlotEnded {
            account,
            slot,
        });
    }

    fn tell_of_slot(
        &self,
        account: &str,
        claim: ClaimId,
        payer: &str,
        op: impl FnOnce(RecordName, SlotOf) -> FleetOp,
    ) {
        let Some(inner) = self.inner.as_ref() else {
            return;
        };
        // Without names no slot was granted.
        if let Some(names) = inner.known_names() {
            let account = names.0.of(NameUse::Account, account.as_bytes());
            let payer = names.0.of(NameUse::Payer, payer.as_bytes());
            StoreInner::tell_fleet(inner, op(account, SlotOf { claim, payer }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(300);

    fn slot(claim: u8, payer: u8) -> SlotOf {
        SlotOf {
            claim: ClaimId([claim; 16]),
            payer: RecordName([payer; 16]),
        }
    }

    fn wish(max: u32) -> SlotWish {
        SlotWish {
            max,
            kept: 0,
            background: false,
            expiry: EXPIRY,
        }
    }

    #[test]
    fn payers_share_the_slots_and_background_work_leaves_some() {
        let mut scrolls = SharedScrolls::default();
        let taken = |scrolls: &mut SharedScrolls, payer, wish: SlotWish| {
            (0..64)
                .filter(|claim| scrolls.take(0, &slot(*claim, payer), &wish).granted)
                .count()
        };
        let behind = SlotWish {
            kept: 8,
            background: true,
            ..wish(32)
        };
        assert_eq!(taken(&mut scrolls, 1, behind), 24);
        assert_eq!(taken(&mut scrolls, 1, wish(32)), 28);
        assert_eq!(taken(&mut scrolls, 2, wish(32)), 4);
        assert_eq!(taken(&mut scrolls, 3, wish(32)), 0);
        // Those that are in are asked for again as often as they like.
        let again = scrolls.take(0, &slot(0, 1), &wish(32));
        assert_eq!((again.granted, again.standing, again.held), (true, 32, 28));
        assert_eq!(again.waiting, 3, "one of them as background work too");
    }

    #[test]
    fn a_slot_that_frees_up_goes_to_the_waiting_payer_with_fewest() {
        let mut scrolls = SharedScrolls::default();
        for (claim, payer) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)] {
            assert!(scrolls.take(0, &slot(claim, payer), &wish(6)).granted || payer != 1);
            scrolls.note(0, &slot(claim, payer), EXPIRY);
        }
        for payer in [1, 2, 3] {
            assert!(!scrolls.take(0, &slot(9, payer), &wish(6)).granted);
        }
        scrolls.end(&slot(1, 1));
        for (payer, granted) in [(1, false), (2, false), (3, true)] {
            let reply = scrolls.take(100, &slot(9, payer), &wish(6));
            assert_eq!(reply.granted, granted, "{payer}");
        }
        // One that asks no more stands in nobody's way for long.
        scrolls.end(&slot(2, 1));
        assert!(
            !scrolls.take(550, &slot(8, 2), &wish(6)).granted,
            "7 × free"
        );
        scrolls.end(&slot(3, 1));
        assert!(scrolls.take(650, &slot(8, 2), &wish(6)).granted);
    }

    #[test]
    fn a_scroll_counts_until_it_expires_or_ends() {
        let mut scrolls = SharedScrolls::default();
        let look = |scrolls: &mut SharedScrolls, now| {
            let reply = scrolls.take(now, &slot(99, 9), &wish(0));
            assert!(!reply.granted && reply.waiting == 0);
            reply.standing
        };
        let expiry = ms(EXPIRY);
        assert!(scrolls.take(0, &slot(1, 1), &wish(8)).granted);
        assert!(scrolls.take(0, &slot(2, 1), &wish(8)).granted);
        scrolls.note(expiry - 1, &slot(1, 1), EXPIRY);
        assert_eq!(look(&mut scrolls, expiry - 1), 2);
        assert_eq!(look(&mut scrolls, expiry), 1, "nobody read on");
        scrolls.end(&slot(1, 1));
        assert_eq!(look(&mut scrolls, expiry), 0);
        // The clock is set back by hours: what is there expires after its length all the same.
        assert!(scrolls.take(10 * expiry, &slot(3, 1), &wish(8)).granted);
        assert_eq!(look(&mut scrolls, 0), 1);
        assert_eq!(look(&mut scrolls, expiry), 0);
    }
}
