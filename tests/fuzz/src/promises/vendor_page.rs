//! A vendor's body: taken only if it is what the vendor documents, and then to the last digit.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, StatusCode};
use msp_gateway::admission::{Lane, Payer, Spend};
use msp_gateway::clock::{Duration, Instant};
use msp_gateway::domain::{AccountId, ContractId, Month, PageSize, SearchQuery, Vendor};
use msp_gateway::snapshot::CutPage;
use msp_gateway::snapshot::page::render;
use msp_gateway::snapshot::rows::{By, Rows};
use msp_gateway::upstream::step::{Step, boxed};
use msp_gateway::upstream::{
    BaseUrl, EnvelopeMember, Source as _, SourcePage, UpstreamError, VendorAnswer, VendorCall,
    VendorOptions,
};
use msp_gateway::vendors::nable::NableAnswer;
use msp_gateway::vendors::{Nable, Wiv};
use serde_json::Value;

/// A scroll id of fewer bytes may stand in an answer by chance.
const TELLING_BYTES_MIN: usize = 16;

/// A vendor that answers every call with one body.
#[derive(Clone)]
struct Canned(Bytes);

impl Step for Canned {
    async fn send(&self, _: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        Ok(VendorAnswer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: self.0.clone(),
        })
    }
}

fn options(vendor: Vendor) -> VendorOptions {
    let url = BaseUrl::parse("http://127.0.0.1:7070").unwrap();
    VendorOptions::new(vendor, url, AccountId::parse("a").unwrap())
}

pub fn spend() -> Spend {
    let deadline = Instant::now() + Duration::from_secs(30);
    Spend {
        lane: Lane::Interactive,
        deadline,
        wanted_until: deadline,
        payer: Payer::gateway(),
        within: None,
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

pub fn hold(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    // Numbers beyond f64 are JSON, but not to this reader.
    let value: Option<Value> = serde_json::from_slice(bytes).ok();
    let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok();

    let wiv = Wiv::new(boxed(Canned(body.clone())), &options(Vendor::Wiv));
    let query = SearchQuery::default();
    if let Ok(page) = now(wiv.first(&query, PageSize::MAX, spend())) {
        assert!(is_json);
        if let Some(value) = &value {
            same_page(&page, value);
        }
        same_rows(&page);
    }
    if let Ok(list) = now(wiv.customers(spend())) {
        assert!(is_json);
        assert_eq!(list.body, body);
        if let Some(value) = &value {
            let rows = value.get("data").unwrap_or(value);
            let ours: Vec<Value> = list.rows.iter().map(parsed).collect();
            assert_eq!(rows, &Value::Array(ours));
        }
    }

    let nable = Nable::new(boxed(Canned(body.clone())), &options(Vendor::Nable));
    let (month, contract) = (
        Month::parse("202609").unwrap(),
        ContractId::parse("c").unwrap(),
    );
    let billing = now(nable.billable_services(&month, &contract, spend()));
    let invoices = now(nable.invoices(&month, spend()));
    for answer in [billing, invoices].into_iter().flatten() {
        assert!(is_json);
        let (NableAnswer::Good(kept) | NableAnswer::SoftFailed(kept)) = answer;
        assert_eq!(kept, body);
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("a row is JSON")
}

/// The page is what a plain reader of the same text sees.
fn same_page(page: &SourcePage, value: &Value) {
    let rows = value["data"].as_array().expect("a data array");
    assert_eq!(rows.len(), page.rows.len());
    for (ours, theirs) in page.rows.iter().zip(rows) {
        assert_eq!(&parsed(ours), theirs);
    }
    let scroll = value["next_page_key"]["scroll_id"].as_str();
    // A page without rows is the end, so its cursor may have any form.
    if !rows.is_empty() || page.next.is_some() {
        assert_eq!(page.next.is_some(), scroll.is_some());
    }

    let cut = CutPage {
        pieces: vec![page.rows.text.clone()]
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect(),
        rows: page.rows.len(),
        next: None,
        envelope: page.envelope.clone().into(),
    };
    for token in [None, Some("a-page_token")] {
        let rendered: Value = serde_json::from_slice(&render(&cut, token)).expect("JSON again");
        assert_eq!(rendered["data"], value["data"]);
        assert_eq!(rendered["next_page_key"]["scroll_id"].as_str(), token);
    }
    // The scroll id stands nowhere else in what is kept for callers, in no spelling.
    if let Some(scroll) = scroll.filter(|id| id.len() >= TELLING_BYTES_MIN && id.is_ascii()) {
        for member in &page.envelope {
            if let EnvelopeMember::Other(_, raw) = member {
                assert!(!says(&parsed(raw), scroll), "a scroll id is kept");
            }
        }
    }
}

fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::String(said) => said.contains(text),
        Value::Array(items) => items.iter().any(|item| says(item, text)),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains(text) || says(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Rows that are taken in, cut, taken apart and put together again are the same rows.
fn same_rows(page: &SourcePage) {
    let texts: Vec<&str> = page.rows.iter().collect();
    let mut rows = Rows::default();
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    let mut at = 0;
    let left_out = rows.append(page.rows.clone(), |id| {
        let new = seen.insert(id);
        if new {
            kept.push(texts[at]);
        }
        at += 1;
        new
    });
    assert_eq!((rows.len(), at), (kept.len(), texts.len()));
    assert_eq!(left_out, texts.len() - kept.len());
    let whole = |rows: &Rows| -> Vec<Bytes> { (0..rows.len()).map(|row| rows.text(row)).collect() };
    assert_eq!(whole(&rows), kept);
    let joined = rows.cut(0..rows.len()).concat();
    assert_eq!(joined, kept.join(",").as_bytes());

    let half = rows.len() / 2;
    let mut first = rows.clone();
    first.truncate(half);
    assert_eq!(whole(&first), kept[..half]);
    assert_eq!(first.first_difference(&rows, 0..half, By::Text), None);
    assert_eq!(
        first.first_difference(&rows, 0..rows.len(), By::Ids),
        (half < rows.len()).then_some(half)
    );
    first.take_from(rows.clone(), half);
    assert_eq!(whole(&first), kept);
    // A chunk that was cut in two has lost the comma between them.
    assert!(rows.bytes() - first.bytes() <= 1);
    first.share_last(&rows);
    assert_eq!(first.first_difference(&rows, 0..rows.len(), By::Text), None);
    let mut words = Vec::new();
    rows.for_each_from(0, |row, customer, _| {
        words.push((row, rows.customers.text(customer).map(Arc::<str>::from)));
    });
    let mut moved = Vec::new();
    first.for_each_from(0, |row, customer, _| {
        moved.push((row, first.customers.text(customer).map(Arc::<str>::from)));
    });
    assert_eq!(words, moved);
}
