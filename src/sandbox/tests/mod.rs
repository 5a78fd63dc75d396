//! Tests of the sandbox over connections: a plain HTTP reader at the other end of a pipe in memory.

mod control;
mod faults;
mod nable;
mod pages;
mod wire;
mod wiv;

use std::sync::Arc;

use ::http::{HeaderMap, Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use jiff::civil::date;
use serde_json::Value;

use super::*;

/// Returns a small world with unlimited quota, so that only the tests of quotas meet it.
pub(super) fn small() -> Options {
    Options {
        customers: 20,
        cases: 600,
        wiv_requests_per_minute: None,
        nable_requests_per_minute: None,
        ..Options::default()
    }
}

pub(super) struct Kit {
    pub(super) sandbox: Arc<Sandbox>,
}

/// An answer, as far as it arrived.
#[derive(Debug)]
pub(super) struct SimReply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether the body ended properly.
    pub(super) whole: bool,
}

impl SimReply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the raw texts of the rows of a page.
    pub(super) fn rows(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            data: Vec<&'a serde_json::value::RawValue>,
        }
        let page: Page<'_> = serde_json::from_slice(&self.body).unwrap();
        page.data.iter().map(|row| row.get().to_owned()).collect()
    }

    pub(super) fn cursor(&self) -> Option<String> {
        self.json()["next_page_key"]["scroll_id"]
            .as_str()
            .map(str::to_owned)
    }
}

pub(super) fn kit(options: Options) -> Kit {
    let at = jiff::Timestamp::from_second(1_795_000_000).unwrap();
    Kit {
        sandbox: Sandbox::new(options, Clock::anchored(at)),
    }
}

impl Kit {
    pub(super) async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(Arc::clone(&self.sandbox).serve_io(far));
        let (sender, connection) = handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends a request over a connection of its own. `None` if the connection was closed without an
    /// answer.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Option<SimReply> {
        let mut sender = self.connect().await;
        let response = sender.send_request(request).await.ok()?;
        let (parts, mut body) = response.into_parts();
        let (mut bytes, mut whole) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => whole = false,
            }
        }
        Some(SimReply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: bytes.into(),
            whole,
        })
    }

    pub(super) async fn customers(&self, query: &str) -> Option<SimReply> {
        self.send(wiv_request(
            Method::GET,
            &format!("/msp/customers{query}"),
            "",
        ))
        .await
    }

    pub(super) async fn search(&self, query: &str, body: &str) -> Option<SimReply> {
        self.send(wiv_request(
            Method::POST,
            &format!("/v2/cases/msp/search{query}"),
            body,
        ))
        .await
    }

    pub(super) async fn next(&self, id: &str) -> Option<SimReply> {
        self.search("", &continuation(id)).await
    }

    /// Opens a scroll and returns its id.
    pub(super) async fn open(&self, size: usize) -> String {
        let body = format!("{{\"max_returned_items\":{size}}}");
        self.search("", &body).await.unwrap().cursor().unwrap()
    }

    pub(super) async fn nable(&self, path: &str) -> Option<SimReply> {
        self.send(
            nable_request(Method::POST, path)
                .body(Full::default())
                .unwrap(),
        )
        .await
    }

    pub(super) async fn bill(&self) -> Option<SimReply> {
        let id = self.sandbox.contracts()[0].id.clone();
        self.nable(&format!("/PSABillableServices/SANDBOX/202609/{id}"))
            .await
    }

    pub(super) async fn control(&self, method: Method, path: &str, body: &str) -> SimReply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sandbox");
        self.send(request.body(Full::from(body.to_owned())).unwrap())
            .await
            .unwrap()
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.sandbox.expected_rows(None, None)
    }
}

pub(super) fn wiv_request(method: Method, target: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "sandbox")
        .header("x-api-key", WIV_KEY)
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

pub(super) fn continuation(id: &str) -> String {
    format!("{{\"max_returned_items\":50,\"start_page_key\":{{\"scroll_id\":\"{id}\"}}}}")
}

pub(super) fn nable_request(method: Method, path: &str) -> ::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("/ws/rest/V1/PSA_API{path}"))
        .header("host", "sandbox")
        .header("user-agent", "test/1")
        .header("x-api-key", NABLE_KEY)
}

#[tokio::test(start_paused = true)]
async fn what_it_knows_is_told() {
    let kit = kit(Options::default());
    let customers = kit.sandbox.customers();
    assert_eq!((customers.len(), customers[0].id.as_str()), (60, "org_1"));
    assert_eq!(
        customers
            .iter()
            .map(|customer| customer.cases)
            .sum::<usize>(),
        20_000
    );
    let first = kit.sandbox.expected_rows(Some("org_1"), None);
    assert_eq!(first.len(), customers[0].cases);
    let range = Some((date(2026, 1, 1), date(2026, 1, 31)));
    let january = kit.sandbox.expected_rows(Some("org_1"), range);
    assert!(!january.is_empty() && january.len() < first.len());
    assert_eq!(kit.sandbox.contracts().len(), 12);
    assert_eq!(kit.sandbox.months().len(), 18);
    assert_eq!(kit.sandbox.options().seed, 1);
}
