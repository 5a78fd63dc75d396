//! Builds the vendor's request from typed values and adds the key. Besides `secrets.rs`, this is
//! the only file that touches the bytes of a key.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;

use super::layer;
use crate::admission::credential::{Chosen, KeyVerdict};
use crate::admission::{Credential, Gates};
use crate::domain::json;
use crate::upstream::step::{Step, Transport};
use crate::upstream::{
    BaseUrl, Fault, UpstreamError, VendorAnswer, VendorCall, VendorOptions, said,
};

/// N-able refuses the default names of HTTP libraries with 403.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("msp-gateway/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Asks for plain answers: decoding costs time and saves none on the way to most vendors. Coded
/// answers are still decoded, because some networks send them anyway.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

layer!(SignLayer => Sign {
    base_url: Arc<BaseUrl>,
    key_header: HeaderName,
    account: Option<(HeaderName, HeaderValue)>,
    credential: Arc<Credential>,
});

impl SignLayer {
    /// Creates the layer. It signs with the vendor's current key.
    pub fn new(options: &VendorOptions, gates: &Gates) -> Self {
        Self {
            base_url: Arc::new(options.base_url.clone()),
            key_header: options.key_header.clone(),
            account: options.row.account_header.and_then(|name| {
                let account = HeaderValue::from_str(options.credential.as_str()).ok()?;
                Some((HeaderName::from_static(name), account))
            }),
            credential: Arc::clone(&gates.credential),
        }
    }
}

impl<T: Transport> Step for Sign<T> {
    async fn send(&self, call: VendorCall) -> Result<VendorAnswer, UpstreamError> {
        let operation = call.operation;
        let chosen = self.credential.choose();
        let over = call.over;
        let (request, key) = self.sign(call, &chosen).ok_or_else(|| {
            UpstreamError::new(operation, Fault::Internal, "the request could not be built")
        })?;
        let result = self.inner.exchange(operation, request, over).await;
        if let Some(verdict) = verdict(&result) {
            self.credential.heard(&chosen, verdict);
        }
        match result {
            Err(mut error) => {
                drop_echo(&mut error, &key);
                Err(error)
            }
            // Good answers are passed on byte for byte, which would pass on our key too.
            Ok(answer) if json::repeats(&answer.body, key.as_bytes()) => {
                let what = "the answer contains the gateway's key";
                Err(UpstreamError::new(operation, Fault::Malformed, what)
                    .with_status(answer.status))
            }
            Ok(answer) => Ok(answer),
        }
    }
}

impl<T> Sign<T> {
    fn sign(
        &self,
        call: VendorCall,
        chosen: &Chosen,
    ) -> Option<(Request<Full<Bytes>>, HeaderValue)> {
        let uri = self.base_url.join(&call.path_and_query).ok()?;
        let key = chosen.key().header_value()?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(self.key_header.clone(), key.clone());
        if let Some((name, account)) = &self.account {
            headers.insert(name.clone(), account.clone());
        }
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::ACCEPT, JSON);
        headers.insert(header::ACCEPT_ENCODING, IDENTITY);
        if call.method == Method::POST {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        if let Some(trace) = call.spend.payer.traceparent(call.span) {
            headers.insert(TRACEPARENT, trace);
        }
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some((request, key))
    }
}

fn verdict(result: &Result<VendorAnswer, UpstreamError>) -> Option<KeyVerdict> {
    let status = match result {
        Ok(_) => return Some(KeyVerdict::Accepted),
        Err(error) => error.status?,
    };
    match status {
        StatusCode::UNAUTHORIZED => Some(KeyVerdict::Unauthorized),
        StatusCode::FORBIDDEN => Some(KeyVerdict::Forbidden),
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Some(KeyVerdict::Accepted),
        // Other refusals may come before the vendor looked at the key.
        _ => None,
    }
}

/// Drops a vendor's explanation that repeats our key, and words that contain a part of it.
fn drop_echo(error: &mut UpstreamError, key: &HeaderValue) {
    if let Some(said) = &error.said
        && said::holds_part_of(said, key.as_bytes())
    {
        error.said = None;
    }
    if error
        .vendor_body
        .as_ref()
        .is_some_and(|body| json::repeats(body, key.as_bytes()))
    {
        error.vendor_body = None;
    }
}
