//! N-able's calls.

use bytes::Bytes;
use http::Method;

use super::wire::{grade, has_billing, has_invoices};
use crate::admission::Spend;
use crate::domain::json::Members;
use crate::domain::{AccountId, ContractId, Month, Operation};
use crate::upstream::body;
use crate::upstream::call::escaped;
use crate::upstream::{Fault, Over, UpstreamError, VendorCall, VendorOptions, VendorService};

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
    /// Creates a client that calls through `service`. The account is the options' credential.
    pub fn new(service: VendorService, options: &VendorOptions) -> Self {
        Self {
            service: Some(service),
            account: options.credential.clone(),
        }
    }

    /// Creates a client whose calls all fail with [`Fault::Disabled`].
    pub fn disabled() -> Self {
        Self {
            service: None,
            account: AccountId::of_disabled(),
        }
    }

    /// Returns the account that is asked about: a part of every identity.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// Fetches the billable services of a contract in a month.
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

    /// Fetches the invoices and contracts of a month.
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
        let Some(service) = &self.service else {
            return Err(UpstreamError::new(
                operation,
                Fault::Disabled,
                "N-able is not configured",
            ));
        };
        let answer = service
            .call(VendorCall {
                operation,
                method: Method::POST,
                path_and_query,
                body: Bytes::from_static(b"{}"),
                spend,
                over: Over::Any,
                resends: 0,
                span: None,
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
