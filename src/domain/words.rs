//! Closed sets of words that are the same in code, metric labels, logs, headers and documents.

/// Declares the routes, each with its word and its path. A path names its parameters in braces.
macro_rules! routes {
    ($($(#[$doc:meta])* $route:ident = $word:literal at $path:literal,)*) => {
        /// A question a caller can ask. The label `route` of the metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Route {
            $($(#[$doc])* $route,)*
            /// A path that is not a route of the gateway.
            Other,
        }

        impl Route {
            /// Every route.
            pub const ALL: [Self; [$($word,)* "other"].len()] = [$(Self::$route,)* Self::Other];

            /// Returns the word used in labels and logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$route => $word,)*
                    Self::Other => "other",
                }
            }

            /// Returns the route's path with its parameters by name, or `None` for
            /// [`Self::Other`].
            pub const fn template(self) -> Option<&'static str> {
                match self {
                    $(Self::$route => Some($path),)*
                    Self::Other => None,
                }
            }

            /// Returns the path of a route without parameters.
            pub const fn fixed_path(self) -> Option<&'static str> {
                match self {
                    $(Self::$route => const { without_parameters($path) },)*
                    Self::Other => None,
                }
            }
        }
    };
}

routes! {
    /// `GET /msp/customers`
    Customers = "customers" at "/msp/customers",
    /// `POST` and `QUERY /v2/cases/msp/search`
    CaseSearch = "case_search" at "/v2/cases/msp/search",
    /// `GET /v1/cases/export`
    CaseExport = "case_export" at "/v1/cases/export",
    /// `GET /v1/cases/changes`
    CaseChanges = "case_changes" at "/v1/cases/changes",
    /// `GET /v1/events`
    Events = "events" at "/v1/events",
    /// `GET /v1/billing/{YYYYMM}/{contract}`
    Billing = "billing" at "/v1/billing/{timeframe}/{contract}",
    /// `GET /v1/billing/{YYYYMM}`
    BillingMonth = "billing_month" at "/v1/billing/{timeframe}",
    /// `POST /ws/rest/V1/PSA_API/PSABillableServices/…`
    NableBilling = "nable_billing"
        at "/ws/rest/V1/PSA_API/PSABillableServices/{account}/{timeframe}/{contract}",
    /// `POST /ws/rest/V1/PSA_API/InvoicesReady/…`
    NableInvoices = "nable_invoices"
        at "/ws/rest/V1/PSA_API/InvoicesReady/{account}/{timeframe}",
    /// `GET /v1/overview`
    Overview = "overview" at "/v1/overview",
    /// `GET /openapi.json`
    OpenApi = "openapi" at "/openapi.json",
    /// `GET /docs`
    Docs = "docs" at "/docs",
    /// `GET /healthz`, and a load balancer's `OPTIONS /`
    Health = "health" at "/healthz",
}

impl Route {
    /// Returns whether its answers may last much longer than a request's time limit.
    pub const fn lasts(self) -> bool {
        matches!(self, Self::CaseExport | Self::CaseChanges | Self::Events)
    }

    /// Returns whether it is answered without a caller key, because the answer says nothing about a
    /// customer or a vendor.
    pub const fn is_keyless(self) -> bool {
        matches!(self, Self::OpenApi | Self::Docs | Self::Health)
    }
}

/// Returns a path that has no parameters, or `None`.
const fn without_parameters(path: &'static str) -> Option<&'static str> {
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'{' {
            return None;
        }
        rest = after;
    }
    Some(path)
}

/// Declares the kinds, each with its word.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal,)*) => {
        /// A kind of remembered answer. The label `kind` of the metrics and the word of a purge.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$kind),*];

            /// Returns the word used in labels, logs and purges.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                }
            }
        }
    };
}

// A new kind goes last: stored purges name kinds by their place.
kinds! {
    /// The customer list.
    Customers = "customers",
    /// Case searches: snapshots and their pages.
    Cases = "cases",
    /// Billable services and invoices.
    Billing = "billing",
}

impl Kind {
    /// Returns the words of all kinds as a list, with `joint` before the last one.
    pub fn listed(joint: &str) -> String {
        let words = Self::ALL.map(Self::as_str);
        match words.split_last() {
            Some((last, before)) => format!("{} {joint} {last}", before.join(", ")),
            None => String::new(),
        }
    }

    /// Returns whether its answers may mention customers of wiv, so that a purge of one customer
    /// covers them.
    pub const fn mentions_customers(self) -> bool {
        matches!(self, Self::Customers | Self::Cases)
    }
}

/// How a lookup ended. The label `outcome` of `cache_lookups_total` and `cache` of the durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CacheOutcome {
    /// Answered from memory, fresh.
    Hit,
    /// Answered from memory, past its freshness.
    Stale,
    /// This request made the vendor call.
    Miss,
    /// Waited for a vendor call that another request had begun.
    Collapsed,
    /// A view over an answer to a wider question.
    Derived,
    /// Cut from a fuller answer in memory.
    Projected,
    /// A remembered refusal of the vendor.
    Negative,
    /// No answer.
    Error,
}

impl CacheOutcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::Miss,
        Self::Collapsed,
        Self::Derived,
        Self::Projected,
        Self::Negative,
        Self::Error,
    ];

    /// Returns the word used in labels, logs and `Cache-Status` details.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Derived => "derived",
            Self::Projected => "projected",
            Self::Negative => "negative",
            Self::Error => "error",
        }
    }
}

/// Why a request cost no vendor call. The label `reason` of `vendor_calls_saved_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Saved {
    /// A fresh answer was in memory.
    Hit,
    /// A stale answer was good enough.
    Stale,
    /// Another request's call was shared.
    Collapsed,
    /// A field set was cut from the full list.
    Projected,
    /// One customer was answered from all customers.
    Derived,
    /// Another page or page size of a snapshot in memory.
    Repaged,
}

impl Saved {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Hit,
        Self::Stale,
        Self::Collapsed,
        Self::Projected,
        Self::Derived,
        Self::Repaged,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Projected => "projected",
            Self::Derived => "derived",
            Self::Repaged => "repaged",
        }
    }
}

/// The resource that the gateway itself lacks to answer a request now. The label `what` of
/// `requests_shed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// As many requests are in flight as `limits.requests_in_flight_max` allows.
    RequestsInFlight,
    /// The caller has its share of them.
    CallerRequests,
    /// As many exports run as `limits.exports_max` allows.
    Exports,
    /// The caller has its share of them.
    CallerExports,
    /// As many questions for changes and streams of events are held as `changes.followers_max`
    /// allows.
    Followers,
    /// The caller has its share of them.
    CallerFollowers,
    /// The caller follows the maximum number of searches for changes.
    CallerSearches,
    /// The vendor asked for a wait.
    VendorHoldDown,
    /// The vendor's `requests_per_minute`.
    VendorBudget,
    /// The vendor's `concurrency`.
    VendorPlaces,
    /// Too many calls wait for the vendor.
    VendorWaiters,
    /// The deadline had passed before the vendor could be called.
    Time,
    /// As many walks run as `pagination.open_scrolls_max` allows.
    OpenScrolls,
    /// As many scrolls may be open at the vendor as `pagination.vendor_scrolls_max` allows.
    VendorScrolls,
    /// Too many searches wait for a slot.
    WaitingSearches,
    /// Snapshots in use fill `pagination.snapshot_bytes_max`.
    SnapshotBytes,
    /// Too many different searches are remembered.
    Searches,
    /// Too many requests wait for one answer of a vendor.
    Waiters,
    /// The caller has another page token that is being healed by a walk.
    HealingWalks,
    /// The month has more contracts than one overview asks for.
    Contracts,
    /// A state of the search would not fit `changes.bytes_max`.
    ChangesBytes,
    /// The store is away, and `store.valkey.when_away` forbids the call without it.
    Store,
}

impl Shortage {
    /// Every one.
    pub const ALL: [Self; 22] = [
        Self::RequestsInFlight,
        Self::CallerRequests,
        Self::Exports,
        Self::CallerExports,
        Self::Followers,
        Self::CallerFollowers,
        Self::CallerSearches,
        Self::VendorHoldDown,
        Self::VendorBudget,
        Self::VendorPlaces,
        Self::VendorWaiters,
        Self::Time,
        Self::OpenScrolls,
        Self::VendorScrolls,
        Self::WaitingSearches,
        Self::SnapshotBytes,
        Self::Searches,
        Self::Waiters,
        Self::HealingWalks,
        Self::Contracts,
        Self::ChangesBytes,
        Self::Store,
    ];

    /// Returns the word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsInFlight => "requests_in_flight",
            Self::CallerRequests => "caller_requests",
            Self::Exports => "exports",
            Self::CallerExports => "caller_exports",
            Self::Followers => "followers",
            Self::CallerFollowers => "caller_followers",
            Self::CallerSearches => "caller_searches",
            Self::VendorHoldDown => "vendor_hold_down",
            Self::VendorBudget => "vendor_budget",
            Self::VendorPlaces => "vendor_places",
            Self::VendorWaiters => "vendor_waiters",
            Self::Time => "time",
            Self::OpenScrolls => "open_scrolls",
            Self::VendorScrolls => "vendor_scrolls",
            Self::WaitingSearches => "waiting_searches",
            Self::SnapshotBytes => "snapshot_bytes",
            Self::Searches => "searches",
            Self::Waiters => "waiters",
            Self::HealingWalks => "healing_walks",
            Self::Contracts => "contracts",
            Self::ChangesBytes => "changes_bytes",
            Self::Store => "store",
        }
    }

    /// Returns one sentence for the caller: what is short and why.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::RequestsInFlight => {
                "The gateway is handling as many requests as limits.requests_in_flight_max allows."
            }
            Self::CallerRequests => {
                "This caller already uses its share of limits.requests_in_flight_max."
            }
            Self::Exports => "The gateway is sending as many exports as limits.exports_max allows.",
            Self::CallerExports => "This caller already uses its share of limits.exports_max.",
            Self::Followers => {
                "The gateway is serving as many change requests and event streams as changes.followers_max allows."
            }
            Self::CallerFollowers => "This caller already uses its share of changes.followers_max.",
            Self::CallerSearches => {
                "This caller already follows the changes of 256 searches. A search that it leaves alone for ten minutes frees its place."
            }
            Self::VendorHoldDown => "The vendor asked the gateway to wait.",
            Self::VendorBudget => {
                "The budget of requests_per_minute is used up until after the request's deadline."
            }
            Self::VendorPlaces => {
                "The gateway is making as many calls as the vendor's concurrency allows."
            }
            Self::VendorWaiters => "Too many calls are already waiting for the vendor.",
            Self::Time => "The request's deadline had passed.",
            Self::OpenScrolls => {
                "The gateway is reading as many searches from wiv as pagination.open_scrolls_max allows."
            }
            Self::VendorScrolls => {
                "As many scrolls may be open at wiv as pagination.vendor_scrolls_max allows. They expire by themselves."
            }
            Self::WaitingSearches => "Too many searches are already waiting for a scroll at wiv.",
            Self::SnapshotBytes => "Searches in progress fill pagination.snapshot_bytes_max.",
            Self::Searches => "The gateway already holds as many different searches as it can.",
            Self::Waiters => "Too many requests are already waiting for the same vendor answer.",
            Self::ChangesBytes => {
                "The search has more rows than changes.bytes_max allows for change requests. Narrow the search."
            }
            Self::Store => {
                "The store that the gateways share is away, and store.valkey.when_away forbids to go on without it."
            }
            Self::HealingWalks => {
                "The gateway is already looking up another page token of this caller at wiv, one at a time."
            }
            Self::Contracts => "The month has more contracts than one answer can cover.",
        }
    }
}
