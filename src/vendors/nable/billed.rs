//! Reads N-able's answers, in each of their documented forms.
//!
//! The vendor's documentation contradicts itself. The object may be bare or wrapped, the clients
//! may be at the top or under each service, and ids may be numbers or texts. Everything is read as
//! raw JSON.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::wire::{CLIENTS, INVOICES, SERVICES, is_named};
use crate::domain::ContractId;
use crate::domain::json::Members;
use crate::domain::record::text_of;

/// An entry of N-able's `Clients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilledClient {
    /// `ClientId` as the vendor wrote it: a number, a text, or `""`.
    pub id_raw: String,
    /// `ClientId` as text.
    pub id: String,
    /// `Name`.
    pub name: String,
}

/// The billable services of a contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    /// `ContractNumber`, as raw JSON.
    pub contract_number: Option<String>,
    /// The services, as raw JSON.
    pub services: Vec<String>,
    /// The billed clients, each once.
    pub clients: Vec<BilledClient>,
}

/// A contract of a month's invoices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoicedContract {
    /// `ContractID`.
    pub id: ContractId,
    /// `ContractNumber`, as raw JSON.
    pub number: Option<String>,
}

/// The contracts of a month's invoices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvoicedContracts {
    /// The contracts that can be requested, each once.
    pub contracts: Vec<InvoicedContract>,
    /// Number of contracts that cannot be requested, because they have no id, or one that is not
    /// valid in a path.
    pub nameless: usize,
}

fn member<'a>(object: &'a RawValue, wanted: &str) -> Option<&'a RawValue> {
    all_members(object, wanted).into_iter().next()
}

/// Returns every member of that name. One may be the wrapper and another the list.
fn all_members<'a>(object: &'a RawValue, wanted: &str) -> Vec<&'a RawValue> {
    let Ok(Members(members)) = serde_json::from_str(object.get()) else {
        return Vec::new();
    };
    let named = members
        .into_iter()
        .filter(|(name, _)| is_named(name, wanted));
    named.map(|(_, value)| value).collect()
}

/// Returns the items of the list of that name. A single object counts as a list of one, because
/// converters from XML write it like this.
fn items<'a>(object: &'a RawValue, wanted: &str) -> Vec<&'a RawValue> {
    let lists = all_members(object, wanted).into_iter();
    let list = lists.filter_map(|list| match list.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(list.get()).ok(),
        Some(b'{') => Some(vec![list]),
        _ => None,
    });
    list.into_iter().next().unwrap_or_default()
}

fn text(object: &RawValue, wanted: &str) -> Option<String> {
    text_of(member(object, wanted)?.get()).map(|text| text.into_owned())
}

impl Billed {
    /// Reads an answer of `PSABillableServices`, bare or wrapped.
    pub fn read(body: &[u8]) -> Self {
        let Ok(object) = serde_json::from_slice::<&RawValue>(body) else {
            return Self::default();
        };
        let wrapper = all_members(object, SERVICES)
            .into_iter()
            .find(|value| value.get().starts_with('{'));
        let object = wrapper.unwrap_or(object);
        let services = items(object, SERVICES);
        let mut this = Self {
            contract_number: member(object, "contractnumber").map(|raw| raw.get().to_owned()),
            services: services.iter().map(|raw| raw.get().to_owned()).collect(),
            clients: Vec::new(),
        };
        let of_services = services.iter().flat_map(|service| items(service, CLIENTS));
        for entry in items(object, CLIENTS).into_iter().chain(of_services) {
            let id_raw = member(entry, "clientid").map_or("\"\"", |raw| raw.get());
            let client = BilledClient {
                id_raw: id_raw.to_owned(),
                id: text_of(id_raw).unwrap_or_default().into_owned(),
                name: text(entry, "name").unwrap_or_default(),
            };
            let named = !client.id.is_empty() || !client.name.is_empty();
            if named && !this.clients.contains(&client) {
                this.clients.push(client);
            }
        }
        this
    }
}

/// Reads the contracts from an answer of `InvoicesReady`.
pub fn invoiced_contracts(body: &[u8]) -> InvoicedContracts {
    let mut found = InvoicedContracts::default();
    let Ok(object) = serde_json::from_slice::<&RawValue>(body) else {
        return found;
    };
    let mut known = HashSet::new();
    for invoice in items(object, INVOICES) {
        for contract in items(invoice, "contracts") {
            let text = text(contract, "contractid");
            if let Some(text) = &text
                && !known.insert(text.clone())
            {
                continue;
            }
            match text.and_then(|id| ContractId::parse(&id).ok()) {
                None => found.nameless += 1,
                Some(id) => found.contracts.push(InvoicedContract {
                    id,
                    number: member(contract, "contractnumber").map(|raw| raw.get().to_owned()),
                }),
            }
        }
    }
    found
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
    fn every_name_of_the_list_is_read() {
        for name in [
            "Billable Services",
            "BillableServices",
            "billable_services",
            "PSA Billable services",
            "PSABillableServices",
        ] {
            for wrapped in [false, true] {
                let bill = format!(r#"{{"Cid":1,"{name}":[{{"Sku":"A"}}]}}"#);
                let bill = match wrapped {
                    true => format!(r#"{{"PSABillableServices":{bill}}}"#),
                    false => bill,
                };
                let services = Billed::read(bill.as_bytes()).services;
                assert_eq!(services, [r#"{"Sku":"A"}"#], "{bill}");
            }
        }
    }

    #[test]
    fn every_contract_is_asked_for_or_counted() {
        let of = |contracts: &str| {
            let body = format!(r#"{{"InvoicesReady":[{{"Contracts":{contracts}}}]}}"#);
            let found = invoiced_contracts(body.as_bytes());
            let ids: Vec<_> = found.contracts.iter().map(|c| c.id.to_string()).collect();
            (ids.join(","), found.nameless)
        };
        for (contracts, asked, nameless) in [
            (
                r#"[{"ContractID":"c1"},{"ContractID":"c1"},{"ContractID":2}]"#,
                "c1,2",
                0,
            ),
            (
                r#"[{"ContractID":"A B"},{"ContractID":"C(1)"},{"ContractID":"K+1"}]"#,
                "A B,C(1),K+1",
                0,
            ),
            (
                r#"[{"ContractID":"Münster & Söhne"}]"#,
                "Münster & Söhne",
                0,
            ),
            (
                r#"[{"ContractID":"../x"},{"ContractID":".."},{"ContractID":"a/b"}]"#,
                "",
                3,
            ),
            (r#"[{"ContractID":"../x"},{"ContractID":"../x"}]"#, "", 1),
            (r#"[{"ContractID":""},{"ContractNumber":"7"},{}]"#, "", 3),
            (r#"[{"ContractID":"a\u0000"},{"ContractID":" a"}]"#, "", 2),
            (r#"{"ContractID":"one"}"#, "one", 0),
            ("null", "", 0),
            ("[]", "", 0),
            ("\"\"", "", 0),
        ] {
            assert_eq!(of(contracts), (asked.to_owned(), nameless), "{contracts}");
        }
        assert_eq!(invoiced_contracts(b"[]"), InvoicedContracts::default());
    }
}
