//! What the layers of the outbound stack are made of.
//!
//! A tower `Service` without its two costs: no `poll_ready` to keep state in, and futures that need
//! no box. tower's `Layer` and `ServiceBuilder` compose steps as they compose services; the
//! finished stack becomes one boxed `Service`.

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

/// Takes a call, gives an answer.
pub trait Step: Send + Sync + 'static {
    /// Makes the call.
    fn send(
        &self,
        call: VendorCall,
    ) -> impl Future<Output = Result<VendorAnswer, UpstreamError>> + Send;
}

/// Takes a signed request to the wire.
pub trait Transport: Send + Sync + 'static {
    /// Sends it and reads the whole answer.
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

/// Cloned for every call, and more than once: so it is shared.
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
