//! wiv's calls.

use std::sync::Arc;

use bytes::Bytes;

use super::scroll::ScrollId;
use super::wire::{CustomerList, continuation, customer_list, first_body, search_page};
use super::{CUSTOMERS_PATH, SEARCH_PATH, target};
use crate::admission::{Gates, Spend};
use crate::domain::{AccountId, CustomerId, Operation, PageSize, SearchQuery};
use crate::upstream::body::{self, BodyFault};
use crate::upstream::call::escaped;
use crate::upstream::{
    Cursor, Fault, Over, Source, SourceCall, SourcePage, UpstreamError, VendorAnswer, VendorCall,
    VendorOptions, VendorService, WalkedVendor,
};

/// wiv, through the outbound stack.
#[derive(Clone)]
pub struct Wiv {
    service: Option<VendorService>,
    credential: AccountId,
}

impl Wiv {
    /// Creates a client that calls through `service`.
    pub fn new(service: VendorService, options: &VendorOptions) -> Self {
        Self {
            service: Some(service),
            credential: options.credential.clone(),
        }
    }

    /// Creates a client whose calls all fail with [`Fault::Disabled`].
    pub fn disabled() -> Self {
        Self {
            service: None,
            credential: AccountId::of_disabled(),
        }
    }

    /// Returns the credential whose keys are used. It is part of every cache key.
    pub fn credential(&self) -> &AccountId {
        &self.credential
    }

    /// Returns the vendor for walks. `gates` are those that its calls pass, if it is configured.
    pub fn walked(self: &Arc<Self>, gates: Option<&Gates>) -> WalkedVendor {
        WalkedVendor {
            source: self.clone(),
            account: self.credential.clone(),
            first: Operation::Search,
            next: Operation::Continue,
            gates: gates.cloned(),
        }
    }

    /// Fetches all customers with all fields.
    ///
    /// # Errors
    /// Any fault of the call; [`Fault::Malformed`] if the answer is neither an array nor an object
    /// with a `data` array.
    pub async fn customers(&self, spend: Spend) -> Result<CustomerList, UpstreamError> {
        let operation = Operation::Customers;
        let answer = self
            .call(operation, CUSTOMERS_PATH.into(), Bytes::new(), spend)
            .await?;
        read(operation, &answer, |text| customer_list(text, &answer.body))
    }

    async fn page(
        &self,
        operation: Operation,
        query: &SearchQuery,
        body: String,
        spend: Spend,
    ) -> Result<SourcePage, UpstreamError> {
        let path = search_path(query.customer.as_ref());
        let answer = self
            .call(operation, path, body.into(), spend)
            .await
            .map_err(|mut error| {
                error.unknown_members = !query.extra.is_empty();
                error
            })?;
        read(operation, &answer, |text| search_page(text, &answer.body))
    }

    async fn call(
        &self,
        operation: Operation,
        path_and_query: String,
        body: Bytes,
        spend: Spend,
    ) -> Result<VendorAnswer, UpstreamError> {
        let Some(service) = &self.service else {
            return Err(UpstreamError::new(
                operation,
                Fault::Disabled,
                "wiv is not configured",
            ));
        };
        let (method, _) = target(operation);
        service
            .call(VendorCall {
                operation,
                method,
                path_and_query,
                body,
                spend,
                over: Over::Any,
                resends: 0,
                span: None,
            })
            .await
    }
}

impl Source for Wiv {
    /// Opens a scroll at the vendor.
    fn first<'a>(
        &'a self,
        query: &'a SearchQuery,
        page_size: PageSize,
        spend: Spend,
    ) -> SourceCall<'a> {
        let body = first_body(query, page_size);
        Box::pin(self.page(Operation::Search, query, body, spend))
    }

    /// Continues a scroll. After a failure its position may be unknown.
    fn next<'a>(
        &'a self,
        cursor: &'a Cursor,
        query: &'a SearchQuery,
        page_size: PageSize,
        spend: Spend,
    ) -> SourceCall<'a> {
        let operation = Operation::Continue;
        let Some(scroll) = cursor.read::<ScrollId>() else {
            let error =
                UpstreamError::new(operation, Fault::Internal, "a cursor of another source");
            return Box::pin(std::future::ready(Err(error)));
        };
        let body = continuation(scroll, page_size);
        Box::pin(self.page(operation, query, body, spend))
    }
}

fn search_path(customer: Option<&CustomerId>) -> String {
    match customer {
        None => SEARCH_PATH.into(),
        Some(id) => format!("{SEARCH_PATH}?customer_id={}", escaped(id.as_str())),
    }
}

/// Checks an answer and reads it; a fault of form becomes this operation's error.
fn read<T>(
    operation: Operation,
    answer: &VendorAnswer,
    form: impl FnOnce(&str) -> Result<T, BodyFault>,
) -> Result<T, UpstreamError> {
    body::text(&answer.body).and_then(form).map_err(|fault| {
        let (fault, detail) = body::explained(fault, &answer.headers);
        UpstreamError::new(operation, fault, detail).with_status(answer.status)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_are_escaped_into_the_query() {
        let id = CustomerId::parse("org|1@a:b").unwrap();
        assert_eq!(
            search_path(Some(&id)),
            "/v2/cases/msp/search?customer_id=org%7C1%40a%3Ab"
        );
        assert_eq!(search_path(None), "/v2/cases/msp/search");
    }
}
