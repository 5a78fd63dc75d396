//! The one N-able account: its contracts, their billed clients, and the months with bills.

use jiff::ToSpan;
use jiff::civil::Date;

use super::dice::{Dice, Domain};
use super::json::plain;
use super::options::Options;
use super::rows::customer_name;

/// Maximum number of contracts.
const CONTRACTS_MAX: usize = 1_000;
/// Maximum number of months: twenty years.
const MONTHS_MAX: usize = 240;

/// A month with bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SimMonth {
    pub(super) year: i16,
    pub(super) month: i8,
}

impl SimMonth {
    /// Parses `YYYYMM`.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (year, month) = text.split_at(4);
        let month = Self {
            year: year.parse().ok()?,
            month: month.parse().ok()?,
        };
        (1..=12).contains(&month.month).then_some(month)
    }

    fn of(date: Date) -> Self {
        Self {
            year: date.year(),
            month: date.month(),
        }
    }

    /// Returns `YYYYMM`.
    pub(super) fn text(self) -> String {
        format!("{:04}{:02}", self.year, self.month)
    }
}

/// An entry of a bill's `Clients`.
#[derive(Debug)]
pub(super) struct SimBilledClient {
    /// The id as JSON text: a number, a string, or the empty string.
    pub(super) id: String,
    pub(super) name: String,
}

/// One contract.
#[derive(Debug)]
pub(super) struct Contract {
    pub(super) index: usize,
    /// `ContractID`, as it appears in paths.
    pub(super) id: String,
    /// `ContractNumber`.
    pub(super) number: String,
    /// `Name`.
    pub(super) name: String,
    pub(super) billed: Vec<SimBilledClient>,
}

/// Everything that N-able knows about the account.
#[derive(Debug)]
pub(super) struct SimLedger {
    seed: u64,
    contracts: Vec<Contract>,
    /// The months, oldest first.
    months: Vec<SimMonth>,
}

impl SimLedger {
    /// Creates the account of `options`. Its bills mention `customers` of wiv.
    pub(super) fn new(options: &Options, customers: usize) -> Self {
        let count = options.contracts.min(CONTRACTS_MAX);
        let contracts = (0..count)
            .map(|index| contract(options.seed, index, count, customers))
            .collect();
        let first = options.today.first_of_month();
        let months = (0..options.months.min(MONTHS_MAX))
            .rev()
            // The current month has no bills before this day of the month.
            .filter(|back| *back > 0 || options.today.day() >= options.current_month_from_day)
            .map(|back| {
                SimMonth::of(first.saturating_sub(i64::try_from(back).unwrap_or(0).months()))
            })
            .collect();
        Self {
            seed: options.seed,
            contracts,
            months,
        }
    }

    pub(super) fn contracts(&self) -> &[Contract] {
        &self.contracts
    }

    pub(super) fn months(&self) -> &[SimMonth] {
        &self.months
    }

    pub(super) fn contract(&self, id: &str) -> Option<&Contract> {
        self.contracts.iter().find(|contract| contract.id == id)
    }

    pub(super) fn dice(&self, month: SimMonth, contract: usize) -> Dice {
        let month =
            u64::from(month.year.unsigned_abs()) * 12 + u64::from(month.month.unsigned_abs());
        Dice::new(
            self.seed,
            Domain::Billing,
            month * CONTRACTS_MAX as u64 + contract as u64,
        )
    }
}

fn contract(seed: u64, index: usize, count: usize, customers: usize) -> Contract {
    let mut dice = Dice::new(seed, Domain::Billing, index as u64);
    let suffix: String = (0..7)
        .map(|_| char::from(b'A' + u8::try_from(dice.below(26)).unwrap_or(0)))
        .collect();
    // Each customer is billed under one contract, two of three with exactly their name.
    let mut names: Vec<String> = (index..customers)
        .step_by(count)
        .map(|customer| match (customer / count + customer) % 3 {
            2 => format!("{} (formerly)", customer_name(customer)),
            _ => customer_name(customer),
        })
        .collect();
    names.push(format!("Walk-in {}", index + 1));
    let mut billed: Vec<SimBilledClient> = names
        .into_iter()
        .enumerate()
        .map(|(nth, name)| {
            let id = 100_000 + index * 1_000 + nth;
            // Ids are numbers, texts, empty, or all of these mixed.
            let id = match (index % 4, nth % 3) {
                (0, _) | (3, 0) => id.to_string(),
                (1, _) | (3, 1) => plain(&id.to_string()),
                _ => plain(""),
            };
            SimBilledClient { id, name }
        })
        .collect();
    // The documented sample has such an entry.
    billed.push(SimBilledClient {
        id: plain(""),
        name: String::new(),
    });
    Contract {
        index,
        id: format!("800{:05}{suffix}", index + 1),
        number: format!(
            "{}-{}-{:02}",
            123_678 + index,
            dice.word(&["USD", "EUR", "GBP"]),
            1 + index % 3
        ),
        name: format!(
            "Contract {} – {}",
            index + 1,
            dice.word(&["Cove", "N-sight", "N-central"])
        ),
        billed,
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
