//! All bills of a month: the contracts that its invoices name, and the billable services of each.
//!
//! A month may have more contracts than the vendor's budget allows calls before the caller's
//! deadline. Then the answer has the bills that are there, and the number of contracts that are
//! missing. A separate task fetches the rest in the refresh lane, so that a later answer is
//! complete.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::answer::{Account, Asker};
use super::billing::{Billing, BillingBody};
use super::overview::{MissingPieces, Part, is_stale};
use super::{Ingredients, ReadError};
use crate::cache::{FetchError as _, Found};
use crate::clock::{Clock, Duration, sleep};
use crate::domain::{CacheOutcome, ContractId, Kind, Month, Operation, Shortage, Vendor};
use crate::metrics::Metrics;
use crate::upstream::{Fault, UpstreamError};
use crate::vendors::nable::{Billed, InvoicedContract, InvoicedContracts, invoiced_contracts};

/// Maximum number of contracts in one answer. An MSP has a handful. Further ones count as missing.
const CONTRACTS_MAX: usize = 500;
/// Maximum number of months whose missing contracts are fetched at once. Dashboards show one or
/// two.
const FILLS_MAX: usize = 4;
/// Concurrent calls of one such task, so that a slow vendor does not slow it down too much.
const FILL_CALLS: usize = 2;
/// Maximum duration of such a task: 500 contracts at 60 calls a minute take 9 minutes.
const FILL_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Limits of the pause after a refusal for lack of budget.
const FILL_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Number of contracts in a row that fail for another reason. Then the vendor is failing, and the
/// task ends.
const FILL_FAILURES_MAX: u32 = 5;

/// A contract with its bill.
pub(super) struct BilledContract {
    pub id: ContractId,
    pub number: Option<String>,
    pub billed: Billed,
}

/// Reads whole months.
pub(super) struct MonthContracts {
    billing: Arc<Billing>,
    /// Months for which a task is fetching the rest.
    filling: Arc<Mutex<HashSet<Month>>>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl MonthContracts {
    pub fn new(of: &Ingredients, billing: Arc<Billing>) -> Self {
        Self {
            billing,
            filling: Arc::default(),
            metrics: of.metrics.clone(),
            clock: of.clock.clone(),
        }
    }

    /// Returns the bills of a month that are there before the asker's deadline.
    pub async fn of_month(&self, asker: &Asker, month: Month) -> Part<Vec<BilledContract>> {
        let account = Account {
            metrics: &self.metrics,
            vendor: Vendor::Nable,
            kind: Kind::Billing,
        };
        let told = |found: Result<Found<_>, ReadError>| {
            match &found {
                Ok(found) => account.answered_part(asker, &found.note),
                Err(error) => account.refused(error),
            }
            found
        };
        let Found { entry, note, at } = match told(self.billing.find_month(asker, month).await) {
            Ok(found) => found,
            Err(error) => return Part::failed(error),
        };
        let (mut age, mut worst) = (entry.age(at), note);
        let InvoicedContracts {
            mut contracts,
            nameless,
        } = match &*entry.value {
            BillingBody::Good(rendered) => invoiced_contracts(&rendered.body),
            BillingBody::SoftFailed(rendered) => {
                return Part::failed(not_found(Some(rendered.body.clone()), note.outcome));
            }
            BillingBody::Refused(vendor_body) => {
                return Part::failed(not_found(vendor_body.clone(), note.outcome));
            }
        };
        let mut missing = Missing::default();
        missing.add(nameless, unaskable);
        if contracts.len() > CONTRACTS_MAX {
            let over = contracts.split_off(CONTRACTS_MAX).len();
            missing.add(over, || ReadError::overloaded(Shortage::Contracts));
        }
        let asked = contracts.iter().map(|contract| async move {
            let found = self.billing.find_services(asker, month, &contract.id);
            (contract, found.await)
        });
        let answers = join_all(asked).await;
        let mut value = Vec::with_capacity(contracts.len());
        let mut later = Vec::new();
        for (contract, found) in answers {
            // All of them are counted, whatever happens to the part.
            let Found { entry, note, at } = match told(found) {
                Ok(found) => found,
                Err(error) => {
                    if comes_later(&error) {
                        later.push(contract.id.clone());
                    }
                    missing.add(1, || error);
                    continue;
                }
            };
            age = age.max(entry.age(at));
            if is_stale(&note) || worst.is_from_memory() {
                worst = note;
            }
            match &*entry.value {
                BillingBody::Good(rendered) => {
                    value.push(billed_contract(contract, &rendered.body));
                }
                // The invoice names the contract, so its bill is missing rather than empty.
                BillingBody::SoftFailed(_) | BillingBody::Refused(_) => {
                    missing.add(1, || not_found(None, note.outcome));
                }
            }
        }
        self.fill(asker, month, later);
        match missing.pieces {
            // There is no bill at all, and the vendor's failure is the reason.
            Some(missing) if value.is_empty() && missing.count > nameless => {
                Part::failed(missing.why)
            }
            pieces => Part {
                value: Ok(value),
                age,
                note: Some(worst),
                missing: pieces,
            },
        }
    }

    /// Fetches contracts in the background, unless a task already does so for this month.
    fn fill(&self, asker: &Asker, month: Month, contracts: Vec<ContractId>) {
        if contracts.is_empty() {
            return;
        }
        {
            let mut filling = self.filling.lock();
            if filling.len() >= FILLS_MAX || !filling.insert(month) {
                return;
            }
        }
        let fill = Fill {
            billing: self.billing.clone(),
            asker: asker.clone(),
            month,
            clock: self.clock.clone(),
            _turn: FillTurn {
                filling: self.filling.clone(),
                month,
            },
        };
        tokio::spawn(async move { fill.run(contracts).await });
    }
}

/// Returns whether a later attempt may find what is missing.
fn comes_later(error: &ReadError) -> bool {
    match error {
        ReadError::DeadlinePassed { .. } => true,
        ReadError::Upstream(error) => error.is_not_now() || error.fault == Fault::Timeout,
        _ => false,
    }
}

fn not_found(vendor_body: Option<bytes::Bytes>, outcome: CacheOutcome) -> ReadError {
    ReadError::BillingNotFound {
        vendor_body,
        outcome,
    }
}

fn unaskable() -> ReadError {
    let detail = "an invoice names a contract that cannot be asked for";
    UpstreamError::new(Operation::Invoices, Fault::Malformed, detail).into()
}

fn billed_contract(contract: &InvoicedContract, body: &[u8]) -> BilledContract {
    let billed = Billed::read(body);
    let number = billed.contract_number.clone();
    BilledContract {
        id: contract.id.clone(),
        number: number.or_else(|| contract.number.clone()),
        billed,
    }
}

#[derive(Default)]
struct Missing {
    pieces: Option<MissingPieces>,
}

impl Missing {
    fn add(&mut self, count: usize, why: impl FnOnce() -> ReadError) {
        match &mut self.pieces {
            _ if count == 0 => {}
            Some(pieces) => pieces.count += count,
            None => self.pieces = Some(MissingPieces { count, why: why() }),
        }
    }
}

/// A month's place among those being fetched. Dropping it frees the place.
struct FillTurn {
    filling: Arc<Mutex<HashSet<Month>>>,
    month: Month,
}

impl Drop for FillTurn {
    fn drop(&mut self) {
        self.filling.lock().remove(&self.month);
    }
}

/// Fetches the rest of a month.
struct Fill {
    billing: Arc<Billing>,
    asker: Asker,
    month: Month,
    clock: Clock,
    _turn: FillTurn,
}

impl Fill {
    async fn run(&self, contracts: Vec<ContractId>) {
        let end = self.clock.now() + FILL_TIME_MAX;
        let failures = std::sync::atomic::AtomicU32::new(0);
        let (ended, failures) = (|| self.clock.now() >= end, &failures);
        futures_util::stream::iter(contracts)
            .for_each_concurrent(FILL_CALLS, |contract| async move {
                use std::sync::atomic::Ordering::Relaxed;
                while !ended() && failures.load(Relaxed) < FILL_FAILURES_MAX {
                    let bring = self.billing.bring(&self.asker, self.month, &contract);
                    match bring.await {
                        Ok(()) => return failures.store(0, Relaxed),
                        Err(ReadError::Upstream(error)) if error.is_not_now() => {
                            let asked = error.retry_after.unwrap_or_default();
                            sleep(asked.clamp(FILL_PAUSE.0, FILL_PAUSE.1)).await;
                        }
                        Err(_) => {
                            failures.fetch_add(1, Relaxed);
                            return;
                        }
                    }
                }
            })
            .await;
    }
}
