//! The traits that the layers of the outbound stack implement.
//!
//! A [`Step`] is a tower `Service` without `poll_ready` and without boxed futures. tower's `Layer`
//! and `ServiceBuilder` compose steps as they compose services. The finished stack becomes one
//! boxed `Service`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::Full;
use tower::Service;

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

/// Returns a finished stack as one boxed tower service.
pub fn boxed<S: Step>(stack: S) -> VendorService {
    VendorService::new(Finished(Arc::new(stack)))
}

/// The finished stack. It is shared, because it is cloned several times for every call.
struct Finished<S>(Arc<S>);

impl<S> Clone for Finished<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Step> Service<VendorCall> for Finished<S> {
    type Response = VendorAnswer;
    type Error = UpstreamError;
    type Future = BoxFuture<'static, Result<VendorAnswer, UpstreamError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: VendorCall) -> Self::Future {
        let stack = Arc::clone(&self.0);
        let future: Pin<Box<_>> = Box::pin(async move { stack.send(call).await });
        future
    }
}
