//! The contracts of the one N-able account, and the text of its bills. The vendor's documents
//! contradict themselves about types; here each contract takes one side of each contradiction.

use jiff::ToSpan;
use jiff::civil::Date;

use super::dice::{Dice, Domain};
use super::json::{Style, array, object, plain, quote};
use super::options::{NABLE_ACCOUNT, Options};
use super::rows::customer_name;

/// Contracts at most.
const CONTRACTS_MAX: usize = 1_000;
/// Months at most: twenty years.
const MONTHS_MAX: usize = 240;
/// Contracts on one invoice.
const PER_INVOICE: usize = 4;

const SERVICES: [(&str, &str, &str, &str); 7] = [
    (
        "Cove Data Protection | Additional Capacity",
        "0100_ADDITIONAL_CAPACITY",
        "MSPUK-BU-AC",
        "GB",
    ),
    (
        "Cove Data Protection | Servers",
        "0200_SERVERS",
        "MSPUK-BU-SRV",
        "Each",
    ),
    (
        "N-sight RMM | Arbeitsplätze",
        "1100_WORKSTATIONS",
        "MSPDE-RMM-WS",
        "Each",
    ),
    ("Mail Assure", "3000_MAILBOXES", "MSPUK-MA-MB", "Mailbox"),
    (
        "EDR \"Control\" / Complete",
        "4100_EDR",
        "MSPUS-EDR-C",
        "Agent",
    ),
    ("Passportal", "5000_SEATS", "MSPUS-PP-ST", "Seat"),
    (
        "N-central | Professional",
        "6000_NODES",
        "MSPUS-NC-P",
        "Node",
    ),
];

/// A month of bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// Reads `YYYYMM`.
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

    /// It as `YYYYMM`.
    pub(super) fn text(self) -> String {
        format!("{:04}{:02}", self.year, self.month)
    }
}

/// An entry of a bill's `Clients`.
#[derive(Debug)]
struct Billed {
    /// JSON text: a number, a string, or the empty string.
    id: String,
    name: String,
}

/// One contract.
#[derive(Debug)]
pub(super) struct Contract {
    index: usize,
    /// `ContractID`: what stands in a path.
    pub(super) id: String,
    /// `ContractNumber`.
    pub(super) number: String,
    /// `Name`.
    pub(super) name: String,
    billed: Vec<Billed>,
}

/// All that N-able knows of the account.
#[derive(Debug)]
pub(super) struct Ledger {
    seed: u64,
    contracts: Vec<Contract>,
    /// Oldest first.
    months: Vec<Month>,
}

impl Ledger {
    /// The account of `options`, with `customers` of wiv for its bills to mention.
    pub(super) fn new(options: &Options, customers: usize) -> Self {
        let count = options.contracts.min(CONTRACTS_MAX);
        let contracts = (0..count)
            .map(|index| contract(options.seed, index, count, customers))
            .collect();
        let first = options.today.first_of_month();
        let months = (0..options.months.min(MONTHS_MAX))
            .rev()
            // The current month has no bills before its tenth day.
            .filter(|back| *back > 0 || options.today.day() >= options.current_month_from_day)
            .map(|back| Month::of(first.saturating_sub(i64::try_from(back).unwrap_or(0).months())))
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

    pub(super) fn months(&self) -> &[Month] {
        &self.months
    }

    fn contract(&self, id: &str) -> Option<&Contract> {
        self.contracts.iter().find(|contract| contract.id == id)
    }

    /// Members that stand in every answer about the account.
    fn account() -> Vec<(&'static str, String)> {
        vec![
            ("AccountName", plain("Best MSP Ünited")),
            ("BpAccountId", "123467".to_owned()),
            ("SfdcAccountId", plain(NABLE_ACCOUNT)),
        ]
    }

    /// The soft failure: account data and nothing else.
    pub(super) fn soft_failure() -> String {
        object(&Self::account(), Style::default())
    }

    /// The billable services of a contract in a month; none when either is unknown.
    pub(super) fn billable(&self, month: Month, contract: &str) -> Option<String> {
        let contract = self.contract(contract)?;
        if !self.months.contains(&month) {
            return None;
        }
        let index = contract.index;
        let mut dice = self.dice(month, index);
        let style = Style {
            spaced: index % 2 == 1,
            ascii: index % 3 == 1,
            slashes: false,
        };
        let billed = array(
            &contract
                .billed
                .iter()
                .map(|billed| billed.text(style))
                .collect::<Vec<_>>(),
        );
        // Clients stand at the top, under each service, or at both places.
        let (at_top, at_service) = (index % 3 != 1, index % 3 != 0);
        let services: Vec<String> = (0..2 + index % 3)
            .filter_map(|nth| SERVICES.get((index + nth) % SERVICES.len()))
            .map(|(name, feature, sku, uom)| {
                let mut members = vec![
                    ("BillingServiceName", quote(name, style)),
                    ("ProductFeatureName", quote(feature, style)),
                    ("Sku", quote(sku, style)),
                    ("Uom", quote(uom, style)),
                    (
                        "Quantity",
                        format!("{}.{:02}0", dice.below(5_000), dice.below(100)),
                    ),
                ];
                if at_service {
                    members.push(("Clients", billed.clone()));
                }
                object(&members, style)
            })
            .collect();
        let (year_month, cid) = (month.text(), 789_000 + index);
        let mut members = Self::account();
        members.extend([
            (
                "Cid",
                if index.is_multiple_of(2) {
                    quote(&cid.to_string(), style)
                } else {
                    cid.to_string()
                },
            ),
            ("ContractNumber", quote(&contract.number, style)),
            (
                "ContractStatus",
                quote(
                    if index % 5 == 4 {
                        "SUSPENDED"
                    } else {
                        "ACTIVE"
                    },
                    style,
                ),
            ),
            ("Created", quote("2024-02-09T15:04:06", style)),
            (
                "TimeFrame",
                if index % 4 < 2 {
                    year_month.clone()
                } else {
                    quote(&year_month, style)
                },
            ),
            // Written again long after the month: no month is final.
            ("Updated", quote("2026-11-18T01:25:30", style)),
            ("Billable Services", array(&services)),
        ]);
        if at_top {
            members.push(("Clients", billed));
        }
        self.dice(Month { year: 0, month: 1 }, index)
            .shuffle(&mut members);
        Some(object(&members, style))
    }

    /// The invoices of a month; none when it is unknown.
    pub(super) fn invoices(&self, month: Month) -> Option<String> {
        let style = Style::default();
        if !self.months.contains(&month) {
            return None;
        }
        let closed = self.months.last() != Some(&month);
        let invoices: Vec<String> = self
            .contracts
            .chunks(PER_INVOICE)
            .enumerate()
            .map(|(group, contracts)| {
                let contracts: Vec<String> = contracts
                    .iter()
                    .map(|contract| {
                        let members = [
                            ("ContractID", plain(&contract.id)),
                            ("ContractNumber", plain(&contract.number)),
                            ("AccountName", plain("Best MSP Ünited")),
                            ("Name", plain(&contract.name)),
                        ];
                        object(&members, style)
                    })
                    .collect();
                let id = invoice_id(month, group);
                let members = [
                    ("InvoiceID", plain(&id)),
                    ("AccountID", plain(NABLE_ACCOUNT)),
                    ("Status", plain(if closed { "Posted" } else { "Draft" })),
                    (
                        "InvoiceDate",
                        plain(&format!("{:04}-{:02}-28", month.year, month.month)),
                    ),
                    ("Name", plain(&format!("Invoice {id}"))),
                    ("Contracts", array(&contracts)),
                ];
                object(&members, style)
            })
            .collect();
        Some(format!("{{\"InvoicesReady\":{}}}", array(&invoices)))
    }

    /// The devices of all contracts in a month; none when it is unknown.
    pub(super) fn usage(&self, month: Month) -> Option<String> {
        if !self.months.contains(&month) {
            return None;
        }
        let rows: Vec<String> = self
            .contracts
            .iter()
            .flat_map(|contract| self.devices(month, contract))
            .collect();
        Some(format!("{{\"UsageDetailDevices\":{}}}", array(&rows)))
    }

    /// The devices of one contract on one invoice; none when any of the three is unknown.
    pub(super) fn usage_details(
        &self,
        month: Month,
        contract: &str,
        invoice: &str,
    ) -> Option<String> {
        let contract = self.contract(contract)?;
        if !self.months.contains(&month)
            || invoice_id(month, contract.index / PER_INVOICE) != invoice
        {
            return None;
        }
        let mut members = Self::account();
        members.push(("ContractID", plain(&contract.id)));
        members.push(("UsageDetailDevices", array(&self.devices(month, contract))));
        Some(object(&members, Style::default()))
    }

    fn devices(&self, month: Month, contract: &Contract) -> Vec<String> {
        let mut dice = self.dice(month, contract.index);
        let mut rows = Vec::new();
        for billed in &contract.billed {
            for nth in 0..=dice.below(2) {
                let members = [
                    ("ContractID", plain(&contract.id)),
                    ("ClientId", billed.id.clone()),
                    ("ClientName", plain(&billed.name)),
                    ("DeviceName", plain(&format!("SRV-{nth}"))),
                    ("Usage", format!("{}.50", dice.below(900))),
                ];
                rows.push(object(&members, Style::default()));
            }
        }
        rows
    }

    fn dice(&self, month: Month, contract: usize) -> Dice {
        let month =
            u64::from(month.year.unsigned_abs()) * 12 + u64::from(month.month.unsigned_abs());
        Dice::new(
            self.seed,
            Domain::Billing,
            month * CONTRACTS_MAX as u64 + contract as u64,
        )
    }
}

impl Billed {
    fn text(&self, style: Style) -> String {
        object(
            &[
                ("ClientId", self.id.clone()),
                ("Name", quote(&self.name, style)),
            ],
            style,
        )
    }
}

fn invoice_id(month: Month, group: usize) -> String {
    format!("INV-{}-{:03}", month.text(), group + 1)
}

fn contract(seed: u64, index: usize, count: usize, customers: usize) -> Contract {
    let mut dice = Dice::new(seed, Domain::Billing, index as u64);
    let suffix: String = (0..7)
        .map(|_| char::from(b'A' + u8::try_from(dice.below(26)).unwrap_or(0)))
        .collect();
    // Each customer is billed under one contract, two of three under exactly their name.
    let mut names: Vec<String> = (index..customers)
        .step_by(count)
        .map(|customer| match customer % 3 {
            2 => format!("{} (formerly)", customer_name(customer)),
            _ => customer_name(customer),
        })
        .collect();
    names.push(format!("Walk-in {}", index + 1));
    let mut billed: Vec<Billed> = names
        .into_iter()
        .enumerate()
        .map(|(nth, name)| {
            let id = 100_000 + index * 1_000 + nth;
            // Numbers, texts, nothing, or all of them mixed.
            let id = match (index % 4, nth % 3) {
                (0, _) | (3, 0) => id.to_string(),
                (1, _) | (3, 1) => plain(&id.to_string()),
                _ => plain(""),
            };
            Billed { id, name }
        })
        .collect();
    // The documented sample has such an entry.
    billed.push(Billed {
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
mod tests {
    use jiff::civil::date;
    use serde_json::Value;

    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(&Options::default(), 60)
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn months_end_with_the_current_one_once_it_has_bills() {
        let months: Vec<String> = ledger().months().iter().map(|month| month.text()).collect();
        assert_eq!(months.len(), 18);
        assert_eq!(
            (months[0].as_str(), months[17].as_str()),
            ("202506", "202611")
        );
        let early = Options {
            today: date(2026, 3, 9),
            months: 4,
            ..Options::default()
        };
        let months: Vec<String> = Ledger::new(&early, 60)
            .months()
            .iter()
            .map(|month| month.text())
            .collect();
        assert_eq!(months, ["202512", "202601", "202602"]);
        for wrong in ["202613", "202600", "20261", "2026-1", "+20261", "２０２６"] {
            assert_eq!(Month::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn contracts_take_all_sides_of_the_contradictions() {
        let ledger = ledger();
        assert_eq!(ledger.contracts().len(), 12);
        let bills: Vec<Value> = ledger
            .contracts()
            .iter()
            .map(|contract| {
                json(
                    &ledger
                        .billable(Month::read("202609").unwrap(), &contract.id)
                        .unwrap(),
                )
            })
            .collect();
        let both =
            |test: &dyn Fn(&Value) -> bool| bills.iter().any(test) && !bills.iter().all(test);
        assert!(both(&|bill| bill["TimeFrame"].is_number()));
        assert!(both(&|bill| bill["Cid"].is_number()));
        assert!(both(&|bill| bill.get("Clients").is_some()));
        assert!(both(&|bill| bill["Billable Services"][0]
            .get("Clients")
            .is_some()));
        for bill in &bills {
            assert!(bill["TimeFrame"] == 202_609 || bill["TimeFrame"] == "202609");
            assert!(bill["Billable Services"].as_array().unwrap().len() >= 2);
            assert!(
                bill.get("Clients").is_some()
                    || bill["Billable Services"][0].get("Clients").is_some()
            );
        }
        let ids: Vec<Value> = bills
            .iter()
            .filter_map(|bill| bill["Clients"].as_array())
            .flatten()
            .map(|billed| billed["ClientId"].clone())
            .collect();
        assert!(ids.iter().any(Value::is_number));
        assert!(ids.iter().any(|id| id == ""));
        assert!(
            ids.iter()
                .any(|id| id.as_str().is_some_and(|id| !id.is_empty()))
        );
    }

    #[test]
    fn two_of_three_customers_are_billed_under_their_name() {
        let ledger = ledger();
        let names: Vec<&str> = ledger
            .contracts()
            .iter()
            .flat_map(|contract| &contract.billed)
            .map(|billed| billed.name.as_str())
            .collect();
        let exact = (0..60)
            .filter(|index| names.contains(&customer_name(*index).as_str()))
            .count();
        assert_eq!(exact, 40);
        assert!(names.len() > 60);
    }

    #[test]
    fn invoices_lead_to_contracts_and_to_their_usage() {
        let ledger = ledger();
        let month = Month::read("202609").unwrap();
        let invoices = json(&ledger.invoices(month).unwrap());
        let mut contracts = 0;
        for invoice in invoices["InvoicesReady"].as_array().unwrap() {
            for contract in invoice["Contracts"].as_array().unwrap() {
                let id = contract["ContractID"].as_str().unwrap();
                assert!(ledger.billable(month, id).is_some());
                let invoice = invoice["InvoiceID"].as_str().unwrap();
                let usage = json(&ledger.usage_details(month, id, invoice).unwrap());
                assert!(!usage["UsageDetailDevices"].as_array().unwrap().is_empty());
                assert!(ledger.usage_details(month, id, "INV-0").is_none());
                contracts += 1;
            }
        }
        assert_eq!(contracts, 12);
        assert!(
            json(&ledger.usage(month).unwrap())["UsageDetailDevices"]
                .as_array()
                .unwrap()
                .len()
                > 60
        );
    }

    #[test]
    fn what_is_unknown_has_no_bill_and_what_is_known_always_the_same() {
        let ledger = ledger();
        let (known, unknown) = (
            Month::read("202609").unwrap(),
            Month::read("201901").unwrap(),
        );
        let id = &ledger.contracts()[3].id;
        assert!(ledger.billable(unknown, id).is_none());
        assert!(ledger.billable(known, "8000").is_none());
        assert!(ledger.invoices(unknown).is_none());
        assert!(ledger.usage(unknown).is_none());
        assert_eq!(
            ledger.billable(known, id),
            super::Ledger::new(&Options::default(), 60).billable(known, id)
        );
        assert_ne!(
            ledger.billable(known, id),
            ledger.billable(Month::read("202608").unwrap(), id)
        );
        let soft = json(&Ledger::soft_failure());
        assert!(soft.get("Clients").is_none() && soft.get("Billable Services").is_none());
        assert_eq!(soft["SfdcAccountId"], "SANDBOX");
    }
}
