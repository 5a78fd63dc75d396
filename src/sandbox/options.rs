//! What the sandbox simulates, and which of the behaviours that the vendors' documents leave open.

use jiff::civil::Date;

use crate::clock::Duration;

/// The key that wiv accepts.
pub const WIV_KEY: &str = "sandbox-wiv-key";
/// The key that N-able accepts.
pub const NABLE_KEY: &str = "sandbox-nable-key";
/// The account in paths that N-able accepts.
pub const NABLE_ACCOUNT: &str = "SANDBOX";

/// Everything about a sandbox that a test may choose. One set of options gives one world. With one
/// sequence of requests it gives one sequence of answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the world, the scroll ids and the faults that have a probability.
    pub seed: u64,
    /// The last day of the world, in UTC.
    pub today: Date,
    /// Number of wiv's customers, 1 to 100,000. Their ids are `org_1`, `org_2`, and so on. The
    /// first has the most cases, and the last tenth has none.
    pub customers: usize,
    /// Number of cases in the three years up to `today`, at most 1,000,000.
    pub cases: usize,
    /// Number of N-able contracts, at most 1,000.
    pub contracts: usize,
    /// Number of billed months up to the month of `today`, at most 240.
    pub months: usize,
    /// Whether two customers may have cases with the same id.
    pub case_ids: CaseIds,
    /// One in this many cases has no `case_id`. 0: all have one.
    pub without_case_id_every: usize,
    /// One in this many cases has no `customer_id`. 0: all have one.
    pub without_customer_id_every: usize,
    /// The envelope of the customer list.
    pub customers_envelope: CustomersEnvelope,
    /// How a scroll shows its end.
    pub end_of_scroll: EndOfScroll,
    /// The answer to an expired or unknown scroll id.
    pub expired_answer: ExpiredAnswer,
    /// The effect of a page size above 500.
    pub page_cap: PageCap,
    /// How long an unused scroll lives. Each continuation starts the time again.
    pub scroll_idle: Duration,
    /// Maximum lifetime of a scroll.
    pub scroll_lifetime: Duration,
    /// Maximum number of open scrolls, at most 100,000. Beyond it every new search gets a 500.
    pub open_scrolls_max: usize,
    /// Whether a page of cases has the extra member `total`.
    pub envelope_total: bool,
    /// Whether billable services are bare or wrapped in `{"PSABillableServices":…}`.
    pub billing_wrapping: Wrapping,
    /// The day of the month from which the current month has bills. Before it, the month is
    /// unknown.
    pub current_month_from_day: i8,
    /// Status of N-able's answer to another account in the path: 400 or 404.
    pub wrong_account_status: u16,
    /// wiv's quota. `None`: unlimited.
    pub wiv_requests_per_minute: Option<u32>,
    /// N-able's quota. `None`: unlimited.
    pub nable_requests_per_minute: Option<u32>,
    /// The form of `Retry-After` in a 429 of the quota.
    pub retry_after: RetryAfter,
    /// The headers with the remaining quota.
    pub rate_headers: RateHeaders,
    /// Latency of every answer, before any fault.
    pub latency: Duration,
}

impl Default for Options {
    /// The documented world on a fixed day. Tests that choose nothing always get the same rows.
    fn default() -> Self {
        Self {
            seed: 1,
            today: jiff::civil::date(2026, 11, 20),
            customers: 60,
            cases: 20_000,
            contracts: 12,
            months: 18,
            case_ids: CaseIds::Global,
            without_case_id_every: 0,
            without_customer_id_every: 0,
            customers_envelope: CustomersEnvelope::Bare,
            end_of_scroll: EndOfScroll::Short,
            expired_answer: ExpiredAnswer::NotFound,
            page_cap: PageCap::Clamp,
            scroll_idle: Duration::from_secs(5 * 60),
            scroll_lifetime: Duration::from_secs(24 * 60 * 60),
            open_scrolls_max: 500,
            envelope_total: true,
            billing_wrapping: Wrapping::Bare,
            current_month_from_day: 10,
            wrong_account_status: 400,
            wiv_requests_per_minute: Some(600),
            nable_requests_per_minute: Some(600),
            retry_after: RetryAfter::Seconds,
            rate_headers: RateHeaders::None,
            latency: Duration::ZERO,
        }
    }
}

/// Whether case ids are unique across customers. The vendor does not document it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseIds {
    /// One numbering for all customers.
    Global,
    /// Each customer's cases are numbered from 1, so ids are repeated across customers.
    PerCustomer,
}

/// The envelope of the customer list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomersEnvelope {
    /// `[…]`
    Bare,
    /// `{"data":[…]}`
    Data,
}

/// How a scroll shows its end: the four shapes that the vendor's document allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfScroll {
    /// A page with fewer rows than requested has `null`. If the rows end with a full page, that
    /// page has an id, and the next page is empty with `null`.
    Short,
    /// The last page with rows has `null`, full or not.
    Full,
    /// The last page with rows has an id. An empty page with `null` follows.
    EmptyNull,
    /// The last page with rows has an id. Empty pages that also have an id follow.
    EmptyCursor,
}

/// The answer to an expired or unknown scroll id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredAnswer {
    /// 404.
    NotFound,
    /// 500 `{"error":"Internal server error"}`.
    InternalError,
}

/// The effect of a page size above 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageCap {
    /// It counts as 500.
    Clamp,
    /// It gets a 400.
    Refuse,
}

/// The two envelopes of the billable services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// The object itself.
    Bare,
    /// `{"PSABillableServices":{…}}`
    Wrapped,
}

/// The two forms of `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Seconds from now.
    Seconds,
    /// An HTTP date.
    HttpDate,
}

/// The headers with the remaining quota, on every answer of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateHeaders {
    /// No headers.
    None,
    /// `RateLimit: "default";r=9;t=50` and `RateLimit-Policy: "default";q=10;w=60`.
    Structured,
    /// `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset`.
    Separate,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` (seconds).
    Legacy,
}

/// One of the two vendors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimVendor {
    /// wiv, at `/`.
    Wiv,
    /// N-able, at `/ws/rest/V1/PSA_API`.
    Nable,
}

impl SimVendor {
    /// Returns the word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wiv => "wiv",
            Self::Nable => "nable",
        }
    }
}

/// The operation of a vendor that a request calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SimOperation {
    /// `GET /msp/customers`
    Customers,
    /// A search that opens a scroll.
    Search,
    /// A search that continues a scroll.
    Continue,
    /// `PSABillableServices`
    Billing,
    /// `InvoicesReady`
    Invoices,
    /// `PSAUsageByTimeFrame` and `PSAUsageDetailsDevices`
    Usage,
    /// Any other request.
    Other,
}

impl SimOperation {
    /// Every operation, in the order of the control answers.
    pub const ALL: [Self; 7] = [
        Self::Customers,
        Self::Search,
        Self::Continue,
        Self::Billing,
        Self::Invoices,
        Self::Usage,
        Self::Other,
    ];

    /// Returns the word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Search => "search",
            Self::Continue => "continue",
            Self::Billing => "billing",
            Self::Invoices => "invoices",
            Self::Usage => "usage",
            Self::Other => "other",
        }
    }
}
