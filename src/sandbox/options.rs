//! What the sandbox simulates, and in which of the shapes the vendors' documents leave open.

use jiff::civil::Date;

use crate::clock::Duration;

/// The key that wiv accepts.
pub const WIV_KEY: &str = "sandbox-wiv-key";
/// The key that N-able accepts.
pub const NABLE_KEY: &str = "sandbox-nable-key";
/// The account segment that N-able accepts.
pub const NABLE_ACCOUNT: &str = "SANDBOX";

/// Everything about a sandbox that a test may choose. One set of options gives one world and, for
/// one sequence of requests, one sequence of answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the world, the scroll ids and the faults that have a probability.
    pub seed: u64,
    /// The day the world ends on, in UTC.
    pub today: Date,
    /// Customers of wiv, 1..=100,000; their ids are `org_1`, `org_2`, … and the first has the most
    /// cases. The last tenth has none.
    pub customers: usize,
    /// Cases over the three years that end `today`, at most 1,000,000.
    pub cases: usize,
    /// N-able contracts, at most 1,000.
    pub contracts: usize,
    /// Billed months, ending with the month of `today`, at most 240.
    pub months: usize,
    /// Whether two customers may have cases of the same id.
    pub case_ids: CaseIds,
    /// Every how many cases one has no `case_id`; 0: none.
    pub without_case_id_every: usize,
    /// Every how many cases one has no `customer_id`; 0: none.
    pub without_customer_id_every: usize,
    /// The envelope of the customer list.
    pub customers_envelope: CustomersEnvelope,
    /// How a scroll says that it is over.
    pub end_of_scroll: EndOfScroll,
    /// What an expired or unknown scroll id answers.
    pub expired_answer: ExpiredAnswer,
    /// What a page size above 500 does.
    pub page_cap: PageCap,
    /// How long an unused scroll lives; each continuation starts it anew.
    pub scroll_idle: Duration,
    /// How long a scroll lives at most.
    pub scroll_lifetime: Duration,
    /// How many scrolls may be open, at most 100,000; past it every new search answers 500.
    pub open_scrolls_max: usize,
    /// Whether a page of cases carries the extra member `total`.
    pub envelope_total: bool,
    /// Whether billable services come bare or wrapped in `{"PSABillableServices":…}`.
    pub billing_wrapping: Wrapping,
    /// The day of the month from which the current month has bills; before it, it is unknown.
    pub current_month_from_day: i8,
    /// What N-able answers to another account in the path: 400 or 404.
    pub wrong_account_status: u16,
    /// wiv's quota; none: unlimited.
    pub wiv_requests_per_minute: Option<u32>,
    /// N-able's quota; none: unlimited.
    pub nable_requests_per_minute: Option<u32>,
    /// The form of `Retry-After` in a 429 of the quota.
    pub retry_after: RetryAfter,
    /// The headers that tell the remaining quota.
    pub rate_headers: RateHeaders,
    /// How long every vendor answer takes, before any fault.
    pub latency: Duration,
}

impl Default for Options {
    /// The documented world, on a fixed day: tests choose nothing and get the same rows for ever.
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

/// Whether case ids are unique across customers, which the vendor does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseIds {
    /// One numbering for all customers.
    Global,
    /// Each customer's cases are numbered from 1, so that ids repeat across customers.
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

/// How a scroll says that it is over: the four shapes the vendor's document allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfScroll {
    /// A page with fewer rows than asked for carries `null`. When the rows end with a full page, it
    /// carries an id, and the next page is empty with `null`.
    Short,
    /// The last page with rows carries `null`, full or not.
    Full,
    /// The last page with rows carries an id; an empty page with `null` follows.
    EmptyNull,
    /// The last page with rows carries an id; empty pages that carry an id too follow.
    EmptyCursor,
}

/// What an expired or unknown scroll id answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredAnswer {
    /// 404.
    NotFound,
    /// 500 `{"error":"Internal server error"}`.
    InternalError,
}

/// What a page size above 500 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageCap {
    /// It is taken as 500.
    Clamp,
    /// It is answered with 400.
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

/// The headers that tell the remaining quota, on every answer of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateHeaders {
    /// None at all.
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
pub enum Vendor {
    /// wiv, at `/`.
    Wiv,
    /// N-able, at `/ws/rest/V1/PSA_API`.
    Nable,
}

impl Vendor {
    /// Its word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wiv => "wiv",
            Self::Nable => "nable",
        }
    }
}

/// What a request asks of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
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
    /// Whatever no vendor knows.
    Other,
}

impl Operation {
    /// All of them, in the order of the control answers.
    pub const ALL: [Self; 7] = [
        Self::Customers,
        Self::Search,
        Self::Continue,
        Self::Billing,
        Self::Invoices,
        Self::Usage,
        Self::Other,
    ];

    /// Its word in JSON.
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
