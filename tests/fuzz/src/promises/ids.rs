//! Ids, days, months, hashes and keys: what is taken is written back as it came, and fits into a
//! URL without changing it.

use std::sync::Arc;

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};
use msp_gateway::access::CallerKeyHash;
use msp_gateway::domain::period::parse_day;
use msp_gateway::domain::{
    AccountId, ContractId, CustomerId, Month, PageSize, SearchQuery, Vendor,
};
use msp_gateway::exchange::credentials::{Presented, presented};
use msp_gateway::upstream::step::{Step, boxed};
use msp_gateway::upstream::{
    BaseUrl, Fault, Source as _, UpstreamError, VendorAnswer, VendorCall, VendorOptions,
};
use msp_gateway::vendors::{Nable, Wiv};
use parking_lot::Mutex;

use super::unescaped;
use super::vendor_page::spend;

/// A vendor that only notes what it was asked.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<String>>>);

impl Step for Noting {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        self.0.lock().push(call.path_and_query);
        Err(UpstreamError::new(
            call.operation,
            Fault::Disabled,
            "only noted",
        ))
    }
}

fn options(vendor: Vendor, account: &AccountId) -> VendorOptions {
    let url = BaseUrl::parse("http://127.0.0.1:7070").unwrap();
    VendorOptions::new(vendor, url, account.clone())
}

/// The id between these two, unescaped; nothing in it could be read as something else.
fn between(url: &str, before: &str, after: &str) -> Option<String> {
    let id = url.strip_prefix(before)?.strip_suffix(after)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
    assert!(id.bytes().all(plain), "{url}");
    unescaped(id, true)
}

pub fn hold(bytes: &[u8]) {
    credentials(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(month) = Month::parse(text) {
        assert_eq!(month.to_string(), text);
        assert!(month.previous() < month);
    }
    if let Some(day) = parse_day(text) {
        assert_eq!(day.to_string(), text);
    }
    if let Some(hash) = CallerKeyHash::parse(text) {
        assert_eq!(hash.to_string(), text.to_ascii_lowercase());
    }
    if let Some(url) = BaseUrl::parse(text) {
        let shown = url.to_string();
        assert_eq!(BaseUrl::parse(&shown), Some(url));
    }
    let Ok(customer) = CustomerId::parse(text) else {
        return;
    };
    let (account, contract) = (AccountId::parse(text), ContractId::parse(text));
    let (account, contract) = (account.unwrap(), contract.unwrap());
    let asked = Noting::default();
    let wiv = Wiv::new(boxed(asked.clone()), &options(Vendor::Wiv, &account));
    let nable = Nable::new(boxed(asked.clone()), &options(Vendor::Nable, &account));
    let query = SearchQuery {
        customer: Some(customer),
        ..SearchQuery::default()
    };
    let month = Month::parse("202609").unwrap();
    let _ = wiv.first(&query, PageSize::MAX, spend()).now_or_never();
    let _ = nable.invoices(&month, spend()).now_or_never();
    let _ = nable
        .billable_services(&month, &contract, spend())
        .now_or_never();
    let asked = asked.0.lock();
    assert!(asked.iter().all(|url| url.parse::<http::Uri>().is_ok()));
    let text = Some(text.to_owned());
    assert_eq!(
        between(&asked[0], "/v2/cases/msp/search?customer_id=", ""),
        text
    );
    assert_eq!(between(&asked[1], "/InvoicesReady/", "/202609"), text);
    let both = asked[2].strip_prefix("/PSABillableServices/").unwrap();
    let (account, contract) = both.split_once("/202609/").unwrap();
    assert_eq!(between(account, "", ""), text);
    assert_eq!(between(contract, "", ""), text);
}

/// A caller key is taken as it stands, in either header, and only if nothing contradicts it.
fn credentials(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", value);
    let plain = match presented(&headers) {
        Presented::CallerKey(key) => {
            assert_eq!(key, bytes);
            true
        }
        Presented::Nothing => panic!("a header is something"),
        Presented::Unclear => false,
    };
    let bearer = [b"Bearer ", bytes].concat();
    headers.insert(
        header::AUTHORIZATION,
        HeaderValue::from_bytes(&bearer).unwrap(),
    );
    let both = matches!(presented(&headers), Presented::CallerKey(_));
    assert_eq!(both, plain && bytes.trim_ascii_start() == bytes);
    headers.insert("x-api-key", HeaderValue::from_static("another"));
    let other = presented(&headers);
    assert!(bytes.trim_ascii_start() == b"another" || !matches!(other, Presented::CallerKey(_)));
}
