//! The decisions that depend on a vendor's row.
//!
//! `upstream` knows no vendor by name, so its functions that need a row are here.

use http::HeaderName;

use super::ROWS;
use crate::admission::{CircuitSettings, HOLD_DOWN_MAX, RetrySettings};
use crate::clock::Duration;
use crate::domain::{AccountId, ProblemCode, Vendor};
use crate::upstream::options::BODY_BYTES_MAX;
use crate::upstream::{BaseUrl, Fault, RefusalStatus, UpstreamError, VendorOptions, Whose};

impl VendorOptions {
    /// Returns the vendor's defaults.
    pub fn new(vendor: Vendor, base_url: BaseUrl, credential: AccountId) -> Self {
        let row = ROWS.get(vendor);
        Self {
            row,
            base_url,
            proxy: None,
            credential,
            // Header names compare without case; HTTP/1 sends them lower-case.
            key_header: HeaderName::from_static(row.key_header),
            requests_per_minute: row.requests_per_minute,
            learn_down_to: None,
            concurrency: row.concurrency as usize,
            concurrency_adaptive: false,
            hold_down_max: HOLD_DOWN_MAX,
            timeout: row.timeout,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(30),
            body_bytes_max: BODY_BYTES_MAX,
            retry: RetrySettings::default(),
            circuit: CircuitSettings::default(),
            credential_probe: Duration::from_secs(30),
        }
    }
}

impl UpstreamError {
    /// Returns what a refusal by the vendor means; `None` if the vendor refused nothing.
    fn refusal(&self) -> Option<(Whose, ProblemCode)> {
        let status = match self.fault {
            Fault::Rejected => RefusalStatus::BadRequest,
            Fault::NotFound => RefusalStatus::NotFound,
            _ => return None,
        };
        Some((ROWS.get(self.vendor).refusal)(self.operation, status))
    }

    /// Returns whose fault the failure was.
    pub fn whose(&self) -> Whose {
        self.refusal()
            .map_or_else(|| self.fault.whose(), |(whose, _)| whose)
    }

    /// Returns the problem code that a caller reads of the failure.
    pub fn code(&self) -> ProblemCode {
        self.refusal()
            .map_or_else(|| self.fault.code(), |(_, code)| code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::said::status_in;

    #[test]
    fn bodies_that_say_they_are_errors_are_errors() {
        let nable = |text: &str| status_in(&ROWS.nable, text.as_bytes()).map(|s| s.as_u16());
        let wiv = |text: &str| status_in(&ROWS.wiv, text.as_bytes()).map(|s| s.as_u16());
        for (text, status) in [
            (
                r#"{"message":"Unauthorized","http_status_code":401}"#,
                Some(401),
            ),
            (r#"{"message":"x","http_status_code":"404"}"#, Some(404)),
            (r#"{"http_status_code":429}"#, Some(429)),
            (r#"{"http_status_code":200,"Cid":1}"#, None),
            (r#"{"http_status_code":401,"Clients":[]}"#, None),
            (r#"{"http_status_code":99999}"#, None),
            (r#"{"http_status_code":null}"#, None),
            (r#"{"Cid":"1"}"#, None),
            ("[]", None),
        ] {
            assert_eq!(nable(text), status, "{text}");
        }
        for (text, status) in [
            (r#"{"error":"Authentication required"}"#, Some(401)),
            (r#"{"error":"Internal server error"}"#, Some(500)),
            (
                r#"{"error":"Request body must be a dictionary"}"#,
                Some(400),
            ),
            (r#"{"error":"Invalid fields requested"}"#, Some(400)),
            (r#"{"error":"else"}"#, None),
            (r#"{"data":[],"error":"Internal server error"}"#, None),
            (r#"{"http_status_code":401}"#, None),
        ] {
            assert_eq!(wiv(text), status, "{text}");
        }
    }

    #[test]
    fn every_row_stands_in_its_own_place() {
        for (vendor, row) in ROWS.iter() {
            assert_eq!(row.vendor, vendor);
            let url = BaseUrl::fixed(row.base.0, row.base.1);
            assert_eq!(BaseUrl::parse(&url.to_string()), Some(url));
            assert!(row.key_header.parse::<HeaderName>().is_ok());
        }
    }
}
