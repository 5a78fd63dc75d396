//! Requests of callers, summed over all gateways that share an engine.
//!
//! Each gateway counts the requests that it admits, and reports them four times a second as a
//! [`UseBatch`]. The engine adds them up by caller and minute, and replies with the sums. A request
//! is reported within a quarter of a second, and the other gateways read it within another. So a
//! gateway knows what the others admitted up to half a second ago.
//!
//! ```text
//! requests ─▶ FleetUse::take ─▶ UseBatch ─▶ engine: caller, minute ─▶ sums
//!                                                                      │
//! throttle ◀──────────────────── FleetUse::heard ◀─────────────────────┘
//! ```
//!
//! This module knows names and numbers, and no caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fleet::{FleetOp, FleetReply};
use super::handle::{Store, StoreInner};
use super::names::NameUse;
use super::record::RecordName;
use crate::clock::{Duration, sleep};

/// Maximum number of callers in one report. If there are more, those with new requests go first,
/// and the others follow in turn.
pub const CALLERS_MAX: usize = 128;
/// How often a gateway reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// Number of reports in a row without a reply after which a gateway counts alone. One late reply is
/// not enough.
const MISSED_MAX: u32 = 3;

/// Requests that one gateway admitted, to be added to the sums of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UseBatch {
    /// The number of the batch. A batch with the number of the previous one is a repetition, and is
    /// not added.
    pub number: u64,
    /// Callers, and their requests since the previous batch.
    pub callers: Vec<(RecordName, u32)>,
}

/// Requests of one caller at all gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerUse {
    /// The current minute, by the engine's time.
    pub minute: u64,
    /// Requests in it.
    pub count: u64,
    /// Requests in the minute before.
    pub before: u64,
}

/// Counts the requests of callers at this gateway, and learns of those at others.
pub trait FleetUse: Send + Sync {
    /// Returns at most `most` callers, each with its requests since it was returned last.
    fn take(&self, most: usize) -> Vec<(Arc<str>, u32)>;

    /// Takes the sums of the callers that [`Self::take`] returned last, in the same order. Each sum
    /// includes what was returned.
    fn heard(&self, sums: &[CallerUse]);

    /// From now on, each of `of` gateways counts alone, because the store is away.
    fn alone(&self, of: u32);
}

/// The sums of a fleet. Pure.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedUse {
    callers: BTreeMap<RecordName, CallerUse>,
    /// The last batch of each gateway, and its minute.
    batches: BTreeMap<[u8; 16], (u64, u64)>,
}

impl SharedUse {
    /// Adds a batch of a gateway at `now`, in milliseconds. Returns the sums.
    pub fn add(&mut self, now: u64, replica: [u8; 16], batch: &UseBatch) -> Vec<CallerUse> {
        let minute = now / 60_000;
        let lives = |of: u64| of == minute || of + 1 == minute;
        self.callers.retain(|_, sum| lives(sum.minute));
        self.batches.retain(|_, (_, of)| lives(*of));
        let before = self.batches.insert(replica, (batch.number, minute));
        let adds = before.is_none_or(|(number, _)| number != batch.number);
        let sums = batch.callers.iter().map(|(caller, count)| {
            let known = self.callers.get(caller).copied().unwrap_or_default();
            let mut sum = match known.minute == minute {
                true => known,
                false => CallerUse {
                    minute,
                    count: 0,
                    before: known.count,
                },
            };
            if adds && *count > 0 {
                sum.count += u64::from(*count);
                self.callers.insert(*caller, sum);
            }
            sum
        });
        sums.collect()
    }
}

/// A batch that is reported until a reply comes.
#[derive(Default)]
struct Reporting {
    number: u64,
    batch: Option<Vec<(Arc<str>, u32)>>,
    missed: u32,
}

impl Store {
    /// Sets what counts the requests of callers. Only the first one counts.
    pub fn on_use(&self, usage: Box<dyn FleetUse>) {
        if let Some(inner) = &self.inner {
            // A second one would belong to the same callers.
            let _ = inner.usage.set(usage);
        }
    }
}

impl StoreInner {
    /// Reports the requests of callers for as long as it is polled.
    pub(super) async fn report_uses(&self) {
        let mut reporting = Reporting::default();
        loop {
            self.report_use(&mut reporting).await;
            sleep(REPORT_EVERY).await;
        }
    }

    /// Reports the requests of callers once, and passes on the sums of the fleet.
    async fn report_use(&self, reporting: &mut Reporting) {
        let Some(usage) = self.usage.get() else {
            return;
        };
        let Reporting {
            number,
            batch,
            missed,
        } = reporting;
        if batch.is_none() {
            *number += 1;
            *batch = Some(usage.take(CALLERS_MAX));
        }
        let callers = batch.as_deref().unwrap_or_default();
        match self.share_use(*number, callers).await {
            Some(sums) => {
                usage.heard(&sums);
                (*batch, *missed) = (None, 0);
            }
            None => {
                *missed = missed.saturating_add(1);
                if *missed >= MISSED_MAX {
                    let replicas = u32::try_from(self.metrics.replicas.get()).unwrap_or(1);
                    usage.alone(replicas.max(self.engine.replicas_min()));
                }
            }
        }
    }

    async fn share_use(&self, number: u64, callers: &[(Arc<str>, u32)]) -> Option<Vec<CallerUse>> {
        if callers.is_empty() {
            return Some(Vec::new());
        }
        let until = self.patience();
        let names = self.names(until).await?;
        let named = callers.iter().map(|(caller, count)| {
            let name = names.0.of(NameUse::Caller, caller.as_bytes());
            (name, *count)
        });
        let usage = FleetOp::Use {
            replica: self.replica,
            batch: UseBatch {
                number,
                callers: named.collect(),
            },
        };
        match self.ask(usage, until).await {
            Ok(FleetReply::Used(sums)) if sums.len() == callers.len() => Some(sums),
            Ok(_) | Err(_) => None,
        }
    }
}
