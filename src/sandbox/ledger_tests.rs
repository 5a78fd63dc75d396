//! Tests of contracts and months.

use jiff::civil::date;
use serde_json::Value;

use super::*;

fn ledger() -> SimLedger {
    SimLedger::new(&Options::default(), 60)
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
    let months: Vec<String> = SimLedger::new(&early, 60)
        .months()
        .iter()
        .map(|month| month.text())
        .collect();
    assert_eq!(months, ["202512", "202601", "202602"]);
    for wrong in ["202613", "202600", "20261", "2026-1", "+20261", "２０２６"] {
        assert_eq!(SimMonth::read(wrong), None, "{wrong}");
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
                    .billable(SimMonth::read("202609").unwrap(), &contract.id)
                    .unwrap(),
            )
        })
        .collect();
    let both = |test: &dyn Fn(&Value) -> bool| bills.iter().any(test) && !bills.iter().all(test);
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
            bill.get("Clients").is_some() || bill["Billable Services"][0].get("Clients").is_some()
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
    let month = SimMonth::read("202609").unwrap();
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
        SimMonth::read("202609").unwrap(),
        SimMonth::read("201901").unwrap(),
    );
    let id = &ledger.contracts()[3].id;
    assert!(ledger.billable(unknown, id).is_none());
    assert!(ledger.billable(known, "8000").is_none());
    assert!(ledger.invoices(unknown).is_none());
    assert!(ledger.usage(unknown).is_none());
    assert_eq!(
        ledger.billable(known, id),
        super::SimLedger::new(&Options::default(), 60).billable(known, id)
    );
    assert_ne!(
        ledger.billable(known, id),
        ledger.billable(SimMonth::read("202608").unwrap(), id)
    );
    let soft = json(&SimLedger::soft_failure());
    assert!(soft.get("Clients").is_none() && soft.get("Billable Services").is_none());
    assert_eq!(soft["SfdcAccountId"], "SANDBOX");
}
