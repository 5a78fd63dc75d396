//! N-able: billable services and invoices, as raw JSON objects.

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;
use tower::ServiceExt as _;

use super::body::{self, BodyFault, malformed};
use super::call::escaped;
use super::{Fault, Over, UpstreamError, VendorCall, VendorOptions, VendorService};
use crate::admission::Spend;
use crate::domain::json::Members;
use crate::domain::{AccountId, ContractId, Month, Operation};

/// An answer with status 200: the vendor's body untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NableAnswer {
    /// It holds what was asked for.
    Good(Bytes),
    /// It lacks the arrays that were asked for: the contract or the month may be invalid.
    SoftFailed(Bytes),
}

/// N-able, through the outbound stack.
#[derive(Clone)]
pub struct Nable {
    service: Option<VendorService>,
    account: AccountId,
}

impl Nable {
    /// Calls go through `service`; the account is the options' credential.
    pub fn new(service: VendorService, options: &VendorOptions) -> Self {
        Self {
            service: Some(service),
            account: options.credential.clone(),
        }
    }

    /// Every call fails with [`Fault::Disabled`].
    pub fn disabled() -> Self {
        Self {
            service: None,
            account: AccountId::of_disabled(),
        }
    }

    /// Whether there is a vendor to call.
    pub fn is_enabled(&self) -> bool {
        self.service.is_some()
    }

    /// The account that is asked about: a part of every identity.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// Billable services of a contract in a month.
    ///
    /// # Errors
    /// Any fault of the call; [`Fault::Malformed`] if the answer is not a JSON object.
    pub async fn billable_services(
        &self,
        month: &Month,
        contract: &ContractId,
        spend: Spend,
    ) -> Result<NableAnswer, UpstreamError> {
        let path = format!(
            "/PSABillableServices/{}/{month}/{}",
            escaped(self.account.as_str()),
            escaped(contract.as_str())
        );
        self.ask(Operation::Billing, path, has_billing, spend).await
    }

    /// Invoices and contracts of a month.
    ///
    /// # Errors
    /// As for [`Self::billable_services`].
    pub async fn invoices(
        &self,
        month: &Month,
        spend: Spend,
    ) -> Result<NableAnswer, UpstreamError> {
        let path = format!("/InvoicesReady/{}/{month}", escaped(self.account.as_str()));
        self.ask(Operation::Invoices, path, has_invoices, spend)
            .await
    }

    async fn ask(
        &self,
        operation: Operation,
        path_and_query: String,
        is_good: fn(&Members<'_>) -> bool,
        spend: Spend,
    ) -> Result<NableAnswer, UpstreamError> {
        let Some(service) = self.service.clone() else {
            return Err(UpstreamError::new(
                operation,
                Fault::Disabled,
                "N-able is not configured",
            ));
        };
        let answer = service
            .oneshot(VendorCall {
                operation,
                method: Method::POST,
                path_and_query,
                body: Bytes::from_static(b"{}"),
                spend,
                over: Over::Any,
            })
            .await?;
        let good = body::text(&answer.body)
            .and_then(|text| body::bounded(text).and_then(|()| grade(text, is_good)))
            .map_err(|fault| {
                let (fault, detail) = body::explained(fault, &answer.headers);
                UpstreamError::new(operation, fault, detail).with_status(answer.status)
            })?;
        Ok(if good {
            NableAnswer::Good(answer.body)
        } else {
            NableAnswer::SoftFailed(answer.body)
        })
    }
}

fn grade(text: &str, is_good: fn(&Members<'_>) -> bool) -> Result<bool, BodyFault> {
    let members =
        serde_json::from_str(text).map_err(|_| malformed("the body is not a JSON object"))?;
    Ok(is_good(&members))
}

/// A services or clients array, at the top or in the wrapper. Empty arrays are good: nothing was
/// billable.
fn has_billing(members: &Members<'_>) -> bool {
    let direct = |members: &Members<'_>| {
        members.0.iter().any(|(name, raw)| {
            (is_named(name, SERVICES) || is_named(name, CLIENTS)) && is_array(raw)
        })
    };
    direct(members)
        || members.0.iter().any(|(name, raw)| {
            is_named(name, SERVICES)
                && serde_json::from_str(raw.get()).is_ok_and(|inner| direct(&inner))
        })
}

fn has_invoices(members: &Members<'_>) -> bool {
    members
        .0
        .iter()
        .any(|(name, raw)| is_named(name, INVOICES) && is_array(raw))
}

/// The list of a contract's billable services, and the object around the whole bill.
pub const SERVICES: &str = "billableservices";
/// The list of billed clients.
pub const CLIENTS: &str = "clients";
/// The list of a month's invoices.
pub const INVOICES: &str = "invoicesready";

/// Returns whether a member has this name, given in small letters alone.
///
/// The vendor's pages write the same name with spaces and without, in several cases, and with `PSA`
/// before it or not: "Billable Services", "BillableServices", "PSA Billable services".
pub fn is_named(name: &str, plain: &str) -> bool {
    let letters = || {
        let kept = name.chars().filter(char::is_ascii_alphanumeric);
        kept.map(|c| c.to_ascii_lowercase())
    };
    let skipped = match letters().take(3).eq("psa".chars()) {
        true => 3,
        false => 0,
    };
    letters().eq(plain.chars()) || letters().skip(skipped).eq(plain.chars())
}

fn is_array(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_failures_lack_both_arrays() {
        for (text, good) in [
            (r#"{"Billable Services":[],"AccountName":"x"}"#, true),
            (r#"{"BillableServices":[{}]}"#, true),
            (r#"{"billable services":[{}]}"#, true),
            (r#"{"PSA Billable services":[]}"#, true),
            (r#"{"PSABillableServices":[]}"#, true),
            (
                r#"{"PSA_Billable-Services":{"billable services":[]}}"#,
                true,
            ),
            (r#"{"Clients":[]}"#, true),
            (r#"{"PSABillableServices":{"Clients":[]}}"#, true),
            (r#"{"PSABillableServices":{"Billable Services":[]}}"#, true),
            (r#"{"AccountName":"Best MSP","Cid":"1"}"#, false),
            (r#"{"Billable Services":null,"Clients":{}}"#, false),
            (r#"{"Billable Services":""}"#, false),
            (r#"{"PSABillableServices":{"Cid":1}}"#, false),
            (r#"{"PSABillableServices":"x"}"#, false),
            (r#"{"PSA":[]}"#, false),
            (r#"{"Other":{"Clients":[]}}"#, false),
            ("{}", false),
        ] {
            assert_eq!(grade(text, has_billing), Ok(good), "{text}");
        }
        for bad in ["", "[]", "null", "\"x\"", "{", "<a/>"] {
            assert!(grade(bad, has_billing).is_err(), "{bad}");
        }
        assert_eq!(grade(r#"{"InvoicesReady":[]}"#, has_invoices), Ok(true));
        assert_eq!(grade(r#"{"InvoicesReady":{}}"#, has_invoices), Ok(false));
        assert_eq!(grade(r#"{"Clients":[]}"#, has_invoices), Ok(false));
    }
}
