//! What an overview reads of N-able's answers, whichever of their documented forms they have.
//!
//! The vendor's documentation contradicts itself: the object may be bare or wrapped, clients stand at
//! the top or under each service, ids are numbers or texts. Everything is read as raw JSON.

use serde_json::value::RawValue;

use crate::domain::ContractId;
use crate::domain::json::Members;
use crate::domain::record::text_of;

/// An entry of N-able's `Clients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilledClient {
    /// `ClientId` as the vendor wrote it: a number, a text, or `""`.
    pub id_raw: String,
    /// The same as text.
    pub id: String,
    /// `Name`.
    pub name: String,
}

/// A contract's billable services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    /// `ContractNumber`, raw.
    pub contract_number: Option<String>,
    /// The services, raw.
    pub services: Vec<String>,
    /// The billed clients, without repetitions.
    pub clients: Vec<BilledClient>,
}

/// A contract of a month's invoices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoicedContract {
    /// `ContractID`.
    pub id: ContractId,
    /// `ContractNumber`, raw.
    pub number: Option<String>,
}

/// Member names compare by letters and digits alone: "Billable Services" is "BillableServices".
fn same_name(name: &str, wanted: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect()
    };
    letters(name) == letters(wanted)
}

fn member<'a>(object: &'a RawValue, wanted: &str) -> Option<&'a RawValue> {
    let Members(members) = serde_json::from_str(object.get()).ok()?;
    members
        .into_iter()
        .find(|(name, _)| same_name(name, wanted))
        .map(|(_, value)| value)
}

fn items<'a>(object: &'a RawValue, wanted: &str) -> Vec<&'a RawValue> {
    member(object, wanted)
        .and_then(|list| serde_json::from_str(list.get()).ok())
        .unwrap_or_default()
}

fn text(object: &RawValue, wanted: &str) -> Option<String> {
    text_of(member(object, wanted)?.get()).map(|text| text.into_owned())
}

impl Billed {
    /// Reads an answer of `PSABillableServices`.
    pub fn read(body: &[u8]) -> Self {
        let Ok(object) = serde_json::from_slice::<&RawValue>(body) else {
            return Self::default();
        };
        let object = member(object, "PSABillableServices").unwrap_or(object);
        let services = items(object, "Billable Services");
        let mut this = Self {
            contract_number: member(object, "ContractNumber").map(|raw| raw.get().to_owned()),
            services: services.iter().map(|raw| raw.get().to_owned()).collect(),
            clients: Vec::new(),
        };
        let of_services = services
            .iter()
            .flat_map(|service| items(service, "Clients"));
        for entry in items(object, "Clients").into_iter().chain(of_services) {
            let id_raw = member(entry, "ClientId").map_or("\"\"", |raw| raw.get());
            let client = BilledClient {
                id_raw: id_raw.to_owned(),
                id: text_of(id_raw).unwrap_or_default().into_owned(),
                name: text(entry, "Name").unwrap_or_default(),
            };
            let named = !client.id.is_empty() || !client.name.is_empty();
            if named && !this.clients.contains(&client) {
                this.clients.push(client);
            }
        }
        this
    }
}

/// Reads the contracts of an answer of `InvoicesReady`, each once.
pub fn invoiced_contracts(body: &[u8]) -> Vec<InvoicedContract> {
    let Ok(object) = serde_json::from_slice::<&RawValue>(body) else {
        return Vec::new();
    };
    let mut contracts: Vec<InvoicedContract> = Vec::new();
    for invoice in items(object, "InvoicesReady") {
        for contract in items(invoice, "Contracts") {
            let id = text(contract, "ContractID").and_then(|id| ContractId::parse(&id).ok());
            let Some(id) = id else { continue };
            if contracts.iter().all(|known| known.id != id) {
                let number = member(contract, "ContractNumber");
                contracts.push(InvoicedContract {
                    id,
                    number: number.map(|raw| raw.get().to_owned()),
                });
            }
        }
    }
    contracts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_reads_alike() {
        let bare = br#"{"ContractNumber":"7-USD","Billable Services":[{"Sku":"A"}],"Clients":[{"ClientId":5,"Name":"Acme"}]}"#;
        let nested = br#"{"PSABillableServices":{"ContractNumber":"7-USD","BillableServices":[{"Sku":"A","Clients":[{"ClientId":"5","Name":"Acme"},{"ClientId":"","Name":""}]}]}}"#;
        let (bare, nested) = (Billed::read(bare), Billed::read(nested));
        assert_eq!(bare.services, [r#"{"Sku":"A"}"#]);
        assert_eq!(bare.contract_number.as_deref(), Some("\"7-USD\""));
        assert_eq!(
            (&*bare.clients[0].id, &*bare.clients[0].name),
            ("5", "Acme")
        );
        assert_eq!((&*nested.clients[0].id, nested.clients.len()), ("5", 1));
        assert_eq!(Billed::read(b"[]"), Billed::default());
    }

    #[test]
    fn contracts_come_once() {
        let body = br#"{"InvoicesReady":[{"Contracts":[{"ContractID":"c1","ContractNumber":"n"}]},{"Contracts":[{"ContractID":"c1"},{"ContractID":2},{"ContractID":"../x"}]}]}"#;
        let ids: Vec<_> = invoiced_contracts(body)
            .into_iter()
            .map(|c| c.id.to_string())
            .collect();
        assert_eq!(ids, ["c1", "2"]);
    }
}
