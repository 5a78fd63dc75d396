//! The simulated N-able: the PSA billing API.

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Sandbox;
use super::answer::SimAnswer;
use super::ledger::{SimLedger, SimMonth};
use super::options::{NABLE_ACCOUNT, NABLE_KEY, SimOperation, SimVendor, Wrapping};
use super::recorder::key_state;

/// Path prefix of the API.
pub(super) const PREFIX: &str = "/ws/rest/V1/PSA_API";

/// Default User-Agents of programs and libraries, which the vendor refuses.
const REFUSED_AGENTS: [&str; 17] = [
    "curl",
    "wget",
    "python",
    "aiohttp",
    "httpx",
    "hyper",
    "reqwest",
    "go-http-client",
    "java",
    "okhttp",
    "apache-httpclient",
    "axios",
    "node",
    "undici",
    "libwww-perl",
    "postmanruntime",
    "powershell",
];

/// The resource that a path names.
#[derive(Debug)]
enum Resource {
    /// Month and contract.
    Billing(String, String),
    Invoices(String),
    Usage(String),
    /// Month, contract and invoice.
    UsageDetails(String, String, String),
}

/// A request as N-able parses it.
#[derive(Debug)]
pub(super) struct NableCall {
    /// The account and the resource in the path. `None` if it is not a path of this API.
    asked: Option<(String, Resource)>,
    post: bool,
    body_ok: bool,
}

impl NableCall {
    /// Parses a request.
    pub(super) fn read(parts: &Parts, body: &Bytes) -> Self {
        let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or("");
        Self {
            asked: resource(path),
            post: parts.method == Method::POST,
            body_ok: body_ok(body),
        }
    }

    /// Returns the operation.
    pub(super) fn operation(&self) -> SimOperation {
        match &self.asked {
            None => SimOperation::Other,
            Some((_, Resource::Billing(..))) => SimOperation::Billing,
            Some((_, Resource::Invoices(_))) => SimOperation::Invoices,
            Some((_, Resource::Usage(_) | Resource::UsageDetails(..))) => SimOperation::Usage,
        }
    }

    /// Returns the refusal of a request, if it is refused. The agent is checked first, as by a
    /// firewall in front of the vendor.
    pub(super) fn refusal(&self, parts: &Parts) -> Option<SimAnswer> {
        let agent = parts
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|value| value.to_str().ok());
        if agent_refused(agent.unwrap_or("")) {
            Some(SimAnswer::html(403, "Forbidden"))
        } else if self.asked.is_none() {
            Some(error(404, "Not Found"))
        } else if !self.post {
            Some(error(405, "Method Not Allowed").with("allow", "POST"))
        } else if key_state(parts, NABLE_KEY) != "correct" {
            Some(error(401, "Unauthorized"))
        } else {
            None
        }
    }

    /// Processes a request.
    pub(super) fn process(self, sandbox: &Sandbox) -> SimAnswer {
        let Some((account, resource)) = self.asked else {
            return error(404, "Not Found");
        };
        if account != NABLE_ACCOUNT {
            let status = sandbox.options.wrong_account_status;
            return error(status, &format!("No account found for MSPID {account}"));
        }
        if !self.body_ok {
            return error(400, "Bad Request");
        }
        let (Resource::Billing(month, _)
        | Resource::Invoices(month)
        | Resource::Usage(month)
        | Resource::UsageDetails(month, ..)) = &resource;
        let Some(month) = SimMonth::read(month) else {
            return error(400, "Invalid time frame");
        };
        let ledger = &sandbox.ledger;
        let text = match &resource {
            Resource::Billing(_, contract) => {
                let text = ledger
                    .billable(month, contract)
                    .unwrap_or_else(SimLedger::soft_failure);
                match sandbox.options.billing_wrapping {
                    Wrapping::Bare => text,
                    Wrapping::Wrapped => format!("{{\"PSABillableServices\":{text}}}"),
                }
            }
            Resource::Invoices(_) => ledger
                .invoices(month)
                .unwrap_or_else(SimLedger::soft_failure),
            Resource::Usage(_) => ledger.usage(month).unwrap_or_else(SimLedger::soft_failure),
            Resource::UsageDetails(_, contract, invoice) => ledger
                .usage_details(month, contract, invoice)
                .unwrap_or_else(SimLedger::soft_failure),
        };
        SimAnswer::json(200, text)
    }
}

fn error(status: u16, text: &str) -> SimAnswer {
    SimAnswer::error(SimVendor::Nable, status, text)
}

fn resource(path: &str) -> Option<(String, Resource)> {
    let segments: Vec<String> = path
        .strip_prefix('/')?
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let mut segments = segments.into_iter();
    let name = segments.next()?;
    let (account, month) = (segments.next()?, segments.next()?);
    let rest = (segments.next(), segments.next(), segments.next());
    let resource = match (name.as_str(), rest) {
        ("PSABillableServices", (Some(contract), None, None)) => Resource::Billing(month, contract),
        ("InvoicesReady", (None, None, None)) => Resource::Invoices(month),
        ("PSAUsageByTimeFrame", (None, None, None)) => Resource::Usage(month),
        ("PSAUsageDetailsDevices", (Some(contract), Some(invoice), None)) => {
            Resource::UsageDetails(month, contract, invoice)
        }
        _ => return None,
    };
    Some((account, resource))
}

/// Returns whether the body is valid: reads are POST with an empty body or an object.
fn body_ok(body: &[u8]) -> bool {
    body.is_empty() || matches!(serde_json::from_slice(body), Ok(Value::Object(_)))
}

fn agent_refused(agent: &str) -> bool {
    let agent = agent.trim().to_ascii_lowercase();
    // The product's name ends at its version or a comment: `javascript-tool/1` is not Java.
    let product = agent.split(['/', ' ']).next().unwrap_or("");
    product.is_empty()
        || REFUSED_AGENTS.iter().any(|refused| {
            product == *refused || {
                product
                    .strip_prefix(refused)
                    .is_some_and(|rest| rest.starts_with('-'))
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_agents_are_refused() {
        for agent in [
            "",
            " ",
            "curl/8.5.0",
            "python-requests/2.31",
            "Python-urllib/3.11",
            "Go-http-client/1.1",
            "Java/17.0.1",
            "hyper/1.0",
            "reqwest/0.12",
            "node",
            "Java-http-client/21",
            "okhttp/4",
        ] {
            assert!(agent_refused(agent), "{agent}");
        }
        for agent in [
            "msp-gateway/0.1.0",
            "javascript-tool/1",
            "Mozilla/5.0 (X11)",
            "curly/1",
        ] {
            assert!(!agent_refused(agent), "{agent}");
        }
    }

    #[test]
    fn paths_are_read_exactly() {
        let operation = |path: &str| {
            NableCall {
                asked: resource(path),
                post: true,
                body_ok: true,
            }
            .operation()
        };
        assert_eq!(
            operation("/PSABillableServices/SANDBOX/202609/800"),
            SimOperation::Billing
        );
        assert_eq!(
            operation("/InvoicesReady/SANDBOX/202609"),
            SimOperation::Invoices
        );
        assert_eq!(
            operation("/PSAUsageByTimeFrame/SANDBOX/202609"),
            SimOperation::Usage
        );
        assert_eq!(
            operation("/PSAUsageDetailsDevices/SANDBOX/202609/800/INV"),
            SimOperation::Usage
        );
        for path in [
            "",
            "/",
            "/PSABillableServices",
            "/PSABillableServices/SANDBOX/202609",
            "/PSABillableServices/SANDBOX/202609/800/more",
            "/InvoicesReady/SANDBOX",
            "/InvoicesReady/SANDBOX/202609/",
            "/psabillableservices/SANDBOX/202609/800",
            "//InvoicesReady/SANDBOX/202609",
        ] {
            assert_eq!(operation(path), SimOperation::Other, "{path}");
        }
    }

    #[test]
    fn bodies_are_empty_or_objects() {
        assert!(body_ok(b"") && body_ok(b"{}") && body_ok(b" { } "));
        assert!(!body_ok(b"[]") && !body_ok(b"x") && !body_ok(b"null"));
    }
}
