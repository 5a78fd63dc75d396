//! The text of N-able's answers. The vendor's documents contradict themselves about types and
//! places. Each contract follows one side of each contradiction.

use super::json::{Style, array, object, plain, quote};
use super::ledger::{Contract, SimBilledClient, SimLedger, SimMonth};
use super::options::NABLE_ACCOUNT;

/// Number of contracts on one invoice.
const PER_INVOICE: usize = 4;

/// Name, feature, SKU and unit.
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

impl SimLedger {
    /// Returns the members of every answer about the account.
    fn account() -> Vec<(&'static str, String)> {
        vec![
            ("AccountName", plain("Best MSP Ünited")),
            ("BpAccountId", "123467".to_owned()),
            ("SfdcAccountId", plain(NABLE_ACCOUNT)),
        ]
    }

    /// Returns the soft failure: the account's data and nothing else.
    pub(super) fn soft_failure() -> String {
        object(&Self::account(), Style::default())
    }

    /// Returns the billable services of a contract in a month. `None` if either is unknown.
    pub(super) fn billable(&self, month: SimMonth, contract: &str) -> Option<String> {
        let contract = self.contract(contract)?;
        if !self.months().contains(&month) {
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
        // Clients are at the top, under each service, or in both places.
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
            // It was written again long after the month: no month is final.
            ("Updated", quote("2026-11-18T01:25:30", style)),
            ("Billable Services", array(&services)),
        ]);
        if at_top {
            members.push(("Clients", billed));
        }
        self.dice(SimMonth { year: 0, month: 1 }, index)
            .shuffle(&mut members);
        Some(object(&members, style))
    }

    /// Returns the invoices of a month. `None` if it is unknown.
    pub(super) fn invoices(&self, month: SimMonth) -> Option<String> {
        let style = Style::default();
        if !self.months().contains(&month) {
            return None;
        }
        let closed = self.months().last() != Some(&month);
        let invoices: Vec<String> = self
            .contracts()
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

    /// Returns the devices of all contracts in a month. `None` if it is unknown.
    pub(super) fn usage(&self, month: SimMonth) -> Option<String> {
        if !self.months().contains(&month) {
            return None;
        }
        let rows: Vec<String> = self
            .contracts()
            .iter()
            .flat_map(|contract| self.devices(month, contract))
            .collect();
        Some(format!("{{\"UsageDetailDevices\":{}}}", array(&rows)))
    }

    /// Returns the devices of one contract on one invoice. `None` if any of the three is unknown.
    pub(super) fn usage_details(
        &self,
        month: SimMonth,
        contract: &str,
        invoice: &str,
    ) -> Option<String> {
        let contract = self.contract(contract)?;
        if !self.months().contains(&month)
            || invoice_id(month, contract.index / PER_INVOICE) != invoice
        {
            return None;
        }
        let mut members = Self::account();
        members.push(("ContractID", plain(&contract.id)));
        members.push(("UsageDetailDevices", array(&self.devices(month, contract))));
        Some(object(&members, Style::default()))
    }

    fn devices(&self, month: SimMonth, contract: &Contract) -> Vec<String> {
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
}

impl SimBilledClient {
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

fn invoice_id(month: SimMonth, group: usize) -> String {
    format!("INV-{}-{:03}", month.text(), group + 1)
}
