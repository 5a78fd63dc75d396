//! The closed set of problem codes, with the status and the words of each. Reads, parts of an
//! answer, problem documents and descriptions all use this one table.

/// The kind of a problem. The word appears in the body's `code` and `type`, in the log and in the
/// documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// Framing that could be read in two ways, or that the gateway does not support.
    MalformedRequest,
    /// `fields` names an unknown field.
    InvalidFields,
    /// The body does not have the form that the route requires.
    InvalidBody,
    /// A query or path parameter does not have the form that the route requires.
    InvalidQuery,
    /// A page token that cannot be opened, or is not valid for this caller and search.
    InvalidPageToken,
    /// A sync token that cannot be opened, or is not valid for this caller and search.
    InvalidSyncToken,
    /// The vendor rejected a search whose form the gateway accepts.
    VendorRejectedRequest,
    /// No caller key, or an unknown one.
    AuthenticationRequired,
    /// A customer outside the caller's audience.
    CustomerNotAllowed,
    /// The caller may not see billing.
    BillingNotAllowed,
    /// Only operators may do this.
    OperatorRequired,
    /// A browser sent the request for a page of another site.
    CrossSiteRefused,
    /// No such path.
    NotFound,
    /// N-able has no such month or contract.
    BillingNotFound,
    /// The request names another account than the configured one.
    AccountNotFound,
    /// The path does not support this method.
    MethodNotAllowed,
    /// The caller accepts none of the forms in which the answer exists.
    NotAcceptable,
    /// The request body did not arrive completely in time.
    RequestTimeout,
    /// The page token's snapshot is gone.
    PageTokenExpired,
    /// The state that a sync token names is gone.
    SyncTokenExpired,
    /// `If-Match` names another answer than the current one.
    PreconditionFailed,
    /// The request's body is too large.
    BodyTooLarge,
    /// The request's target is too long.
    UriTooLong,
    /// A body in another format or coding.
    UnsupportedMediaType,
    /// The caller's own rate limit.
    CallerRateLimited,
    /// Too many or too large headers.
    HeadersTooLarge,
    /// A contained panic.
    InternalError,
    /// The vendor answered with an error.
    VendorError,
    /// The vendor's answer does not have the form that it documents.
    VendorProtocolError,
    /// The vendor did not accept our key.
    VendorCredentialRejected,
    /// The result is larger than a walk may be.
    WalkLimitExceeded,
    /// The vendor cannot be reached, failed recently, or is not configured.
    VendorUnavailable,
    /// No vendor budget is left.
    VendorBudgetExhausted,
    /// The store that gateways share is away, and the settings forbid calls without it.
    StoreUnavailable,
    /// The gateway itself is overloaded.
    Overloaded,
    /// The vendor did not answer in time.
    VendorTimeout,
    /// `only-if-cached` and nothing usable.
    NotCached,
}

impl ProblemCode {
    /// Every code, by status.
    pub const ALL: [Self; 37] = [
        Self::MalformedRequest,
        Self::InvalidFields,
        Self::InvalidBody,
        Self::InvalidQuery,
        Self::InvalidPageToken,
        Self::InvalidSyncToken,
        Self::VendorRejectedRequest,
        Self::AuthenticationRequired,
        Self::CustomerNotAllowed,
        Self::BillingNotAllowed,
        Self::OperatorRequired,
        Self::CrossSiteRefused,
        Self::NotFound,
        Self::BillingNotFound,
        Self::AccountNotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::PageTokenExpired,
        Self::SyncTokenExpired,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::CallerRateLimited,
        Self::HeadersTooLarge,
        Self::InternalError,
        Self::VendorError,
        Self::VendorProtocolError,
        Self::VendorCredentialRejected,
        Self::WalkLimitExceeded,
        Self::VendorUnavailable,
        Self::VendorBudgetExhausted,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::VendorTimeout,
        Self::NotCached,
    ];

    /// Returns status, word and title. Everything else reads them here.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MalformedRequest => (400, "malformed_request", "Malformed request"),
            Self::InvalidFields => (400, "invalid_fields", "Invalid fields requested"),
            Self::InvalidBody => (400, "invalid_body", "Invalid request body"),
            Self::InvalidQuery => (400, "invalid_query", "Invalid parameter"),
            Self::InvalidPageToken => (400, "invalid_page_token", "Invalid page token"),
            Self::InvalidSyncToken => (400, "invalid_sync_token", "Invalid sync token"),
            Self::SyncTokenExpired => (410, "sync_token_expired", "Sync token expired"),
            Self::VendorRejectedRequest => (
                400,
                "vendor_rejected_request",
                "The vendor rejected the request",
            ),
            Self::AuthenticationRequired => {
                (401, "authentication_required", "Authentication required")
            }
            Self::CustomerNotAllowed => (403, "customer_not_allowed", "Customer not allowed"),
            Self::BillingNotAllowed => (403, "billing_not_allowed", "Billing not allowed"),
            Self::OperatorRequired => (403, "operator_required", "Operator required"),
            Self::CrossSiteRefused => (403, "cross_site_refused", "Cross-site request refused"),
            Self::NotFound => (404, "not_found", "Not found"),
            Self::BillingNotFound => (404, "billing_not_found", "Billing not found"),
            Self::AccountNotFound => (404, "account_not_found", "Account not found"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::NotAcceptable => (406, "not_acceptable", "Not acceptable"),
            Self::PreconditionFailed => (412, "precondition_failed", "Precondition failed"),
            Self::RequestTimeout => (408, "request_timeout", "Request timeout"),
            Self::PageTokenExpired => (410, "page_token_expired", "Page token expired"),
            Self::BodyTooLarge => (413, "body_too_large", "Request body too large"),
            Self::UriTooLong => (414, "uri_too_long", "Request target too long"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "Unsupported media type"),
            Self::CallerRateLimited => (429, "caller_rate_limited", "Too many requests"),
            Self::HeadersTooLarge => (431, "headers_too_large", "Request headers too large"),
            Self::InternalError => (500, "internal_error", "Internal server error"),
            Self::VendorError => (502, "vendor_error", "Vendor error"),
            Self::VendorProtocolError => (502, "vendor_protocol_error", "Unexpected vendor answer"),
            Self::VendorCredentialRejected => (
                502,
                "vendor_credential_rejected",
                "The vendor rejected the gateway's key",
            ),
            Self::WalkLimitExceeded => (502, "walk_limit_exceeded", "The result is too large"),
            Self::VendorUnavailable => (503, "vendor_unavailable", "Vendor unavailable"),
            Self::VendorBudgetExhausted => {
                (503, "vendor_budget_exhausted", "Vendor budget exhausted")
            }
            Self::StoreUnavailable => (503, "store_unavailable", "Store unavailable"),
            Self::Overloaded => (503, "overloaded", "Overloaded"),
            Self::VendorTimeout => (504, "vendor_timeout", "Vendor timeout"),
            Self::NotCached => (504, "not_cached", "Not in the cache"),
        }
    }

    /// Returns the HTTP status of answers with this code.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// Returns the word.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Returns a short text that is the same for every problem of this code.
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// Returns the text that the vendor's own API has in `error` for the same problem, if it has
    /// one.
    pub const fn vendor_text(self) -> Option<&'static str> {
        match self {
            Self::InvalidFields => Some("Invalid fields requested"),
            Self::AuthenticationRequired => Some("Authentication required"),
            Self::InternalError => Some("Internal server error"),
            _ => None,
        }
    }
}
