//! The part of a store for several gateways (*replicas*) that share its engine: it agrees on names,
//! applies the purges of other replicas, and counts replicas.
//!
//! A **purge** takes effect in this replica at once. Then it is written beside the purges of the
//! others, under the next number of the fleet. Each replica reads that number at the bell and twice
//! a second, and reads the purges if the number has changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::bell::Ring;
use super::fleet::{FleetOp, FleetReply};
use super::handle::{PurgeHook, ReturnHook, Store, StoreInner, state_place};
use super::names::Names;
use super::record::RecordName;
use super::watermarks::Watermarks;
use crate::clock::{Duration, Instant, sleep};

/// How often a replica reports itself and looks for purges, unless the bell rings before. With this
/// interval, a purge reaches all replicas within a second even if the bell fails.
const BEAT_EVERY: Duration = Duration::from_millis(500);
/// The pause before a purge checks again whether all replicas have applied it. It doubles each
/// time. The bell takes a few milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(5);
/// The longest such pause.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// How long a purge waits until all replicas have applied it.
const EVERYWHERE_WAIT: Duration = Duration::from_secs(1);
/// How often a purge is tried again while other replicas write purges at the same time.
const PURGE_TRIES: usize = 16;

/// The name under which the purges of a fleet are sealed.
const PURGES_PLACE: RecordName = RecordName(*b"purges of fleet ");

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeReach {
    /// Replicas that have applied it.
    pub applied: u32,
    /// Replicas that are running.
    pub of: u32,
}

impl Store {
    /// Returns whether other replicas use the same engine.
    pub fn is_shared(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.is_shared())
    }

    /// Returns how many replicas use the same engine, as last heard.
    pub fn replicas(&self) -> u64 {
        let inner = self.inner.as_ref();
        let count = inner.map_or(0, |inner| inner.metrics.replicas.get());
        u64::try_from(count).unwrap_or(0)
    }

    /// Returns how many snapshots only this replica can continue, as last counted.
    pub fn detached(&self) -> u64 {
        let inner = self.inner.as_ref();
        let count = inner.map_or(0, |inner| inner.metrics.detached.get());
        u64::try_from(count).unwrap_or(0)
    }

    /// Notes how many snapshots only this replica can continue.
    pub fn note_detached(&self, count: usize) {
        if let Some(inner) = &self.inner {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            inner.metrics.detached.set(count);
        }
    }

    /// Sets the hook that applies the purges of other replicas to memory. Only the first hook
    /// counts.
    pub fn on_purge(&self, hook: PurgeHook) {
        if let Some(inner) = &self.inner {
            // A second hook would belong to the same reads.
            let _ = inner.on_purge.set(hook);
        }
    }

    /// Sets the hook that puts records back after each new connection to a shared store. It runs in
    /// the task that noticed, and must not wait. The last hook counts.
    pub fn on_return(&self, hook: ReturnHook) {
        if let Some(inner) = &self.inner {
            *inner.on_return.lock() = Some(hook);
        }
    }

    /// Takes part in the fleet while the future is polled. Ends at once without a fleet.
    pub async fn attend(&self) {
        let Some(inner) = self.inner.clone().filter(|inner| inner.is_shared()) else {
            return;
        };
        let beats = async {
            let mut purges = inner.bell.listen(Ring::Purges, inner.clock.now());
            loop {
                purges.looks(inner.clock.now());
                if inner.beat(inner.patience()).await.is_some() {
                    inner.beats.fetch_add(1, Ordering::Relaxed);
                }
                purges.rung_within(BEAT_EVERY).await;
            }
        };
        tokio::join!(beats, inner.report_uses(), inner.renew_claims());
    }

    /// Waits until all replicas have applied the purges so far, a second at most. `None` if the
    /// store is not shared or does not answer.
    pub async fn purge_reach(&self) -> Option<PurgeReach> {
        let inner = self.inner.clone().filter(|inner| inner.is_shared())?;
        let (until, mut pause) = (inner.clock.now() + EVERYWHERE_WAIT, LOOK_FIRST);
        loop {
            let reach = inner.beat(inner.patience()).await?;
            if reach.applied >= reach.of || inner.clock.now() + pause > until {
                return Some(reach);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}

impl StoreInner {
    pub(super) fn is_shared(&self) -> bool {
        self.engine.fleet().is_some()
    }

    /// Returns the names that the fleet uses. They are ours if no replica was faster.
    pub(super) async fn share_names(
        &self,
        name: RecordName,
        ours: &Names,
        until: Instant,
    ) -> Option<Names> {
        let record = self.records.seal(state_place(name), ours.bytes())?;
        let settled = self.ask(FleetOp::Settle { name, record }, until).await;
        let Ok(FleetReply::Value(record)) = settled else {
            return None;
        };
        let opened = self.records.open(state_place(name), &record);
        let bytes = opened.map_err(|why| self.metrics.reject(why)).ok()?;
        Names::of_bytes(&bytes)
    }

    /// Applies the purges of other replicas and writes ours beside them. `None` if the store does
    /// not answer in time.
    pub(super) async fn share_purges(&self, until: Instant) -> Option<()> {
        for _ in 0..PURGE_TRIES {
            let Ok(FleetReply::Purges { number, record }) = self.ask(FleetOp::Purges, until).await
            else {
                return None;
            };
            let theirs = self.read_purges(number, record);
            let mine = self.purges.hold().clone();
            let Some(all) = mine.beside(&theirs) else {
                self.take_purges(&theirs);
                return Some(());
            };
            let record = self
                .records
                .seal(state_place(PURGES_PLACE), &all.to_bytes())?;
            let purge = FleetOp::Purge {
                was: number,
                number: all.number(),
                record,
            };
            match self.ask(purge, until).await {
                Ok(FleetReply::Kept) => {
                    self.take_purges(&all);
                    return Some(());
                }
                // Another purge was written in between.
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Reads the purges of the fleet. Purges that cannot be read count as a purge of everything.
    fn read_purges(&self, number: u64, record: Option<Bytes>) -> Watermarks {
        let Some(record) = record else {
            return Watermarks::default();
        };
        let opened = self.records.open(state_place(PURGES_PLACE), &record);
        let read = opened.map_err(|why| self.metrics.reject(why)).ok();
        match read.and_then(Watermarks::of_bytes) {
            Some(purges) if purges.number() == number => purges,
            Some(_) | None => Watermarks::of_everything(number),
        }
    }

    fn take_purges(&self, theirs: &Watermarks) {
        if let Some(before) = self.purges.merge(theirs)
            && let Some(hook) = self.on_purge.get()
        {
            hook(before);
        }
    }

    /// Reports this replica and returns the state of the fleet. New purges are applied first.
    async fn beat(self: &Arc<Self>, until: Instant) -> Option<PurgeReach> {
        // After each new connection, names and purges are read again.
        self.names(until).await?;
        loop {
            let known = self.purges.hold().number_of_fleet();
            let beat = FleetOp::Beat {
                replica: self.replica,
                applied: known,
            };
            let Ok(FleetReply::Beat {
                number,
                replicas,
                applied,
            }) = self.ask(beat, until).await
            else {
                return None;
            };
            self.metrics.replicas.set(i64::from(replicas));
            let has_own = self.purges.number() != known;
            if number == known && !has_own {
                self.note_heard();
                return Some(PurgeReach {
                    applied,
                    of: replicas,
                });
            }
            self.share_purges(until).await?;
        }
    }
}
