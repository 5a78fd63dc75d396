//! One vendor request and its whole answer, as they pass the outbound stack.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tower::util::BoxCloneSyncService;

use super::UpstreamError;
use crate::admission::Spend;
use crate::domain::Operation;

/// A request to a vendor, built from typed values alone: no byte of it was copied from a caller's
/// request.
#[derive(Clone, Debug)]
pub struct VendorCall {
    /// What is asked.
    pub operation: Operation,
    /// GET or POST.
    pub method: Method,
    /// Appended to the vendor's base URL; begins with `/`.
    pub path_and_query: String,
    /// JSON, or empty.
    pub body: Bytes,
    /// Urgency, deadline and payer.
    pub spend: Spend,
}

/// A vendor's complete answer with a 2xx status: the body was read to its end, within the size limit.
#[derive(Clone, Debug)]
pub struct VendorAnswer {
    /// The vendor's status.
    pub status: StatusCode,
    /// The vendor's headers, for the layers that learn limits from them. Never shown to callers.
    pub headers: HeaderMap,
    /// The decoded body.
    pub body: Bytes,
}

/// The outbound stack of one vendor, boxed at this one seam.
pub type VendorService = BoxCloneSyncService<VendorCall, VendorAnswer, UpstreamError>;
