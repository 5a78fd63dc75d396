//! The closed set of problem codes, each with its status and words.

use http::StatusCode;

/// What kind of problem. The word stands in the body's `code` and `type`, in the log and in the
/// documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Framing that could be read in two ways, or that we do not speak.
    MalformedRequest,
    /// `fields` names something that is no field.
    InvalidFields,
    /// The body is not what the route takes.
    InvalidBody,
    /// A query or path parameter is not what the route takes.
    InvalidQuery,
    /// A page token that does not open, or not for this caller and search.
    InvalidPageToken,
    /// The vendor refused a search whose form we accept.
    VendorRejectedRequest,
    /// No caller key, or not a known one.
    AuthenticationRequired,
    /// A customer outside the caller's audience.
    CustomerNotAllowed,
    /// The caller may not see billing.
    BillingNotAllowed,
    /// Only operators may do this.
    OperatorRequired,
    /// A browser asks on behalf of a page of another site.
    CrossSiteRefused,
    /// No such path.
    NotFound,
    /// N-able has no such month or contract.
    BillingNotFound,
    /// Another account than the configured one.
    AccountNotFound,
    /// The path does not answer this method.
    MethodNotAllowed,
    /// The caller takes the answer in no form that there is.
    NotAcceptable,
    /// The request's body was not complete in time.
    RequestTimeout,
    /// The page token's snapshot is gone.
    PageTokenExpired,
    /// `If-Match` names another answer than the one of now.
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
    /// The vendor answered badly.
    VendorError,
    /// The vendor answered something that is not what it documents.
    VendorProtocolError,
    /// The vendor did not accept our key.
    VendorCredentialRejected,
    /// The result is larger than a walk may be.
    WalkLimitExceeded,
    /// The vendor cannot be reached, failed lately, or is not configured.
    VendorUnavailable,
    /// No vendor budget is left.
    VendorBudgetExhausted,
    /// Shed.
    Overloaded,
    /// The vendor did not answer in time.
    VendorTimeout,
    /// `only-if-cached` and nothing usable.
    NotCached,
}

impl Code {
    /// Every code, by status.
    pub const ALL: [Self; 34] = [
        Self::MalformedRequest,
        Self::InvalidFields,
        Self::InvalidBody,
        Self::InvalidQuery,
        Self::InvalidPageToken,
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
        Self::Overloaded,
        Self::VendorTimeout,
        Self::NotCached,
    ];

    /// Status, word, and title: the table that everything else reads.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        type S = StatusCode;
        match self {
            Self::MalformedRequest => (S::BAD_REQUEST, "malformed_request", "Malformed request"),
            Self::InvalidFields => (S::BAD_REQUEST, "invalid_fields", "Invalid fields requested"),
            Self::InvalidBody => (S::BAD_REQUEST, "invalid_body", "Invalid request body"),
            Self::InvalidQuery => (S::BAD_REQUEST, "invalid_query", "Invalid parameter"),
            Self::InvalidPageToken => (S::BAD_REQUEST, "invalid_page_token", "Invalid page token"),
            Self::VendorRejectedRequest => (
                S::BAD_REQUEST,
                "vendor_rejected_request",
                "The vendor rejected the request",
            ),
            Self::AuthenticationRequired => (
                S::UNAUTHORIZED,
                "authentication_required",
                "Authentication required",
            ),
            Self::CustomerNotAllowed => {
                (S::FORBIDDEN, "customer_not_allowed", "Customer not allowed")
            }
            Self::BillingNotAllowed => (S::FORBIDDEN, "billing_not_allowed", "Billing not allowed"),
            Self::OperatorRequired => (S::FORBIDDEN, "operator_required", "Operator required"),
            Self::CrossSiteRefused => (
                S::FORBIDDEN,
                "cross_site_refused",
                "Cross-site request refused",
            ),
            Self::NotFound => (S::NOT_FOUND, "not_found", "Not found"),
            Self::BillingNotFound => (S::NOT_FOUND, "billing_not_found", "Billing not found"),
            Self::AccountNotFound => (S::NOT_FOUND, "account_not_found", "Account not found"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
            ),
            Self::NotAcceptable => (S::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable"),
            Self::PreconditionFailed => (
                S::PRECONDITION_FAILED,
                "precondition_failed",
                "Precondition failed",
            ),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "Request timeout"),
            Self::PageTokenExpired => (S::GONE, "page_token_expired", "Page token expired"),
            Self::BodyTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "Request body too large",
            ),
            Self::UriTooLong => (S::URI_TOO_LONG, "uri_too_long", "Request target too long"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
            ),
            Self::CallerRateLimited => (
                S::TOO_MANY_REQUESTS,
                "caller_rate_limited",
                "Too many requests",
            ),
            Self::HeadersTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_large",
                "Request headers too large",
            ),
            Self::InternalError => (
                S::INTERNAL_SERVER_ERROR,
                "internal_error",
                "Internal server error",
            ),
            Self::VendorError => (S::BAD_GATEWAY, "vendor_error", "Vendor error"),
            Self::VendorProtocolError => (
                S::BAD_GATEWAY,
                "vendor_protocol_error",
                "Unexpected vendor answer",
            ),
            Self::VendorCredentialRejected => (
                S::BAD_GATEWAY,
                "vendor_credential_rejected",
                "The vendor rejected the gateway's key",
            ),
            Self::WalkLimitExceeded => (
                S::BAD_GATEWAY,
                "walk_limit_exceeded",
                "The result is too large",
            ),
            Self::VendorUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "vendor_unavailable",
                "Vendor unavailable",
            ),
            Self::VendorBudgetExhausted => (
                S::SERVICE_UNAVAILABLE,
                "vendor_budget_exhausted",
                "Vendor budget exhausted",
            ),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::VendorTimeout => (S::GATEWAY_TIMEOUT, "vendor_timeout", "Vendor timeout"),
            Self::NotCached => (S::GATEWAY_TIMEOUT, "not_cached", "Not in the cache"),
        }
    }

    /// The status it is answered with.
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// A short text that is the same for every problem of this code.
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// What the vendor's own API says in `error` for the same thing, where it says anything.
    pub const fn vendor_text(self) -> Option<&'static str> {
        match self {
            Self::InvalidFields => Some("Invalid fields requested"),
            Self::AuthenticationRequired => Some("Authentication required"),
            Self::InternalError => Some("Internal server error"),
            _ => None,
        }
    }
}
