//! The traits that the layers of the outbound stack implement.
//!
//! A [`Step`] is a tower `Service` without `poll_ready` and without boxed futures. tower's `Layer`
//! and `ServiceBuilder` compose steps as they compose services. The finished stack becomes one
//! [`VendorService`], which boxes the future of each call once.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::{Over, UpstreamError, VendorAnswer, VendorCall, VendorService};
use crate::domain::Operation;

/// Turns a call into an answer.
pub trait Step: Send + Sync + 'static {
    /// Makes the call.
    fn send(
        &self,
        call: VendorCall,
    ) -> impl Future<Output = Result<VendorAnswer, UpstreamError>> + Send;
}

/// Sends a signed request over the network.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request and reads the whole answer.
    fn exchange(
        &self,
        operation: Operation,
        request: Request<Full<Bytes>>,
        over: Over,
    ) -> impl Future<Output = Result<VendorAnswer, UpstreamError>> + Send;
}

/// Returns a finished stack as one boxed service.
pub fn boxed<S: Step>(stack: S) -> VendorService {
    let stack = Arc::new(stack);
    VendorService::new(move |call| {
        let stack = Arc::clone(&stack);
        Box::pin(async move { stack.send(call).await })
    })
}
