//! The mirror of `config.toml`: every key, its form, its bounds and its default.
//!
//! This is the declaration. `config.toml` in the repository says what each key is for; a test holds
//! the two to each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use figment::value::Dict;
use http::HeaderName;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::form::{
    AuthMode, Level, Setting, StoreKind, Visit, below, fields, no_more, place, tables, taken,
};
use super::lists::{Host, List, VisibleCustomers};
use super::measure::{Count, DAY, GIB, HOUR, KIB, MIB, MINUTE, SECOND, Share, Size, Time, ms};
use super::names::{
    BilledId, CallerName, CredentialName, DirectoryName, FileName, KeyPrefix, Text, UserName,
};
use super::report::Report;
use super::sources::SecretName;
use crate::access::{CallerKeyHash, ClientSan, Role};
use crate::cache::{Lifetimes, VariantOptions};
use crate::domain::{AccountId, CustomerId, PageSize, Vendor};
use crate::exchange::site::Origin;
use crate::reads::ListLifetimes;
use crate::server::ClientAuth;
use crate::snapshot::SnapshotOptions;
use crate::store::{ValkeyAddress, WhenAway};
use crate::traces::CollectorUrl;
use crate::upstream::{BaseUrl, ProxyUrl, VendorOptions};
use crate::vendors::ROWS;

/// How long something may take that a caller waits for.
pub type Wait = Time<100, { 10 * MINUTE }>;
/// How long something is kept open or counted.
pub type Span = Time<SECOND, { 7 * DAY }>;
/// How long an answer is fresh: never for nothing, and never for ever.
pub type Fresh = Time<SECOND, { 30 * DAY }>;
/// How long an answer outlives its freshness.
pub type Beyond = Time<0, { 90 * DAY }>;
/// Memory. A million rows of a kilobyte fit in the largest.
pub type Memory = Size<MIB, { 1024 * GIB }>;

/// The most callers, and the most links; each caller is a value of a metric label.
pub const CALLERS_MAX: usize = 1_000;
/// Links are looked up in a map; the limit only keeps the file sensible.
pub const LINKS_MAX: usize = 10_000;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `stale` is twice `fresh`, so a caller that asks about as often as answers change never waits.
/// `on_error` covers a night, a day or a week-end without the vendor, and more for slower data.
const fn lives(fresh_ms: u64, on_error_ms: u64) -> Lifetimes {
    Lifetimes {
        fresh: ms(fresh_ms),
        stale: ms(2 * fresh_ms),
        on_error: ms(on_error_ms),
    }
}

fields! {
    Lifetimes => Lifetimes {
        fresh: Fresh,
        stale: Beyond,
        on_error: Beyond,
    }

    VariantOptions => VariantOptions {
        enabled: bool,
        bytes_min: Size<256, { 1024 * MIB }, usize>,
    }
}

tables! {
    /// The whole file.
    File {
        listen: Listen = Listen::default(),
        auth: Auth = Auth::default(),
        callers: Vec<Caller> = Vec::new(),
        cors: Cors = Cors::default(),
        limits: Limits = Limits::default(),
        wiv: Wiv = VendorTable::of(Vendor::Wiv, AccountId::parse("wiv").ok()),
        nable: Nable = VendorTable::of(Vendor::Nable, None),
        customers: Lifetimes = lives(5 * MINUTE, 24 * HOUR),
        cases: Cases = Cases::default(),
        billing: Billing = Billing::default(),
        links: Vec<Link> = Vec::new(),
        pagination: Pagination = Pagination::default(),
        cache: CacheSettings = CacheSettings::default(),
        changes: ChangesSettings = ChangesSettings::default(),
        store: StoreSettings = StoreSettings::default(),
        compression: VariantOptions = VariantOptions::default(),
        log: LogSettings = LogSettings::default(),
        console: ConsoleSettings = ConsoleSettings::default(),
        traces: TraceSettings = TraceSettings::default(),
    }

    /// Where the gateway is reached.
    Listen {
        public: SocketAddr = loopback(8080),
        admin: SocketAddr = loopback(9180),
        admin_hosts: List<Host, 0, 100> = Vec::new(),
        docs: bool = true,
        public_tls: ListenTls = ListenTls::default(),
        admin_tls: ListenTls = ListenTls::default(),
    }

    /// TLS on one listener.
    ListenTls {
        certificate_file: FileName = None,
        private_key_file: FileName = None,
        client_ca_file: FileName = None,
        client_auth: ClientAuth = ClientAuth::None,
    }

    /// Which callers are accepted.
    Auth {
        mode: AuthMode = AuthMode::Keys,
    }

    /// One caller. No default accepts a caller.
    Caller {
        name: Option<CallerName> = None,
        key_hash: Option<List<CallerKeyHash, 1, 16, true>> = None,
        client_san: Option<List<ClientSan, 1, 16>> = None,
        role: Option<Role> = None,
        customers: Option<VisibleCustomers> = None,
        billing: Option<bool> = None,
        requests_per_minute: Option<Count<1, 10_000_000, u32>> = None,
        expires: Option<Timestamp> = None,
    }

    /// Web pages of other origins.
    Cors {
        origins: List<Origin, 0, 100> = Vec::new(),
        // How long browsers may cache a preflight. No browser does for more than two hours.
        max_age: Time<0, DAY> = ms(10 * MINUTE),
    }

    /// Bounds of the public listener.
    Limits {
        header_timeout: Wait = ms(10 * SECOND),
        body_timeout: Wait = ms(15 * SECOND),
        request_timeout: Wait = ms(30 * SECOND),
        idle_timeout: Wait = ms(60 * SECOND),
        write_stall_timeout: Wait = ms(15 * SECOND),
        connections_max: Count<1, 1_000_000, usize> = 4096,
        connections_per_peer_max: Count<1, 1_000_000, usize> = 2048,
        requests_in_flight_max: Count<1, 1_000_000, usize> = 1024,
        exports_max: Count<1, 1_000_000, usize> = 32,
        hold_down_max: Time<SECOND, DAY> = ms(10 * MINUTE),
        forced_refreshes_per_minute: Count<0, 1_000_000, u32> = 6,
        drain_delay: Time<0, { 5 * MINUTE }> = ms(2 * SECOND),
        drain_grace: Time<0, HOUR> = ms(30 * SECOND),
    }
}

impl File {
    /// Returns the settings of one vendor.
    pub fn vendor(&self, vendor: Vendor) -> &VendorTable {
        match vendor {
            Vendor::Wiv => &self.wiv,
            Vendor::Nable => &self.nable,
        }
    }

    /// Returns the lifetimes of the lists.
    pub fn lists(&self) -> ListLifetimes {
        ListLifetimes {
            customers: self.customers,
        }
    }
}

/// One vendor: what every vendor has, and the account, which each has in its own way.
#[derive(Clone, Debug)]
pub struct VendorTable {
    pub options: VendorOptions,
    pub api_key: SecretName,
    pub api_key_fallback: SecretName,
    pub optional: bool,
    pub learn_rate: bool,
    pub requests_per_minute_min: u32,
    pub account_id: Option<AccountId>,
    pub account: SecretName,
}

impl VendorTable {
    fn of(vendor: Vendor, account_id: Option<AccountId>) -> Self {
        let (host, path) = ROWS.get(vendor).base;
        let base = BaseUrl::fixed(host, path);
        Self {
            options: VendorOptions::new(vendor, base, AccountId::of_disabled()),
            api_key: SecretName::default(),
            api_key_fallback: SecretName::default(),
            optional: false,
            learn_rate: false,
            requests_per_minute_min: 6,
            account_id,
            account: SecretName::default(),
        }
    }
}

/// Declares the settings of a vendor: what every vendor has, and what only this one has.
macro_rules! vendor {
    ($(#[$doc:meta])* $name:ident { $($account:tt)* }) => {
        $(#[$doc])*
        pub struct $name;

        fields! {
            $name => VendorTable {
                base_url [options.base_url]: BaseUrl,
                proxy_url [options.proxy]: Option<ProxyUrl>,
                api_key_header [options.key_header]: HeaderName,
                api_key: SecretName,
                api_key_fallback: SecretName,
                optional: bool,
                $($account)*
                requests_per_minute [options.requests_per_minute]: Count<1, 1_000_000, u32>,
                learn_rate: bool,
                requests_per_minute_min: Count<1, 1_000_000, u32>,
                concurrency [options.concurrency]: Count<1, 1024, usize>,
                concurrency_adaptive [options.concurrency_adaptive]: bool,
                timeout [options.timeout]: Wait,
                connect_timeout [options.connect_timeout]: Wait,
            }
        }
    };
}

vendor! {
    /// wiv.
    Wiv {
        // The vendor has no word for its account.
        credential [account_id]: Option<CredentialName>,
    }
}

vendor! {
    /// N-able.
    Nable {
        account_id: Option<AccountId>,
        account_id [account]: SecretName,
    }
}

tables! {
    /// Case searches.
    Cases {
        recent_days: Count<0, 366, u16> = 7,
        time_zone: TimeZone = TimeZone::UTC,
        derive_customer: bool = true,
        strict_members: bool = false,
        // The range ends today or later, or there is none.
        open: Lifetimes = lives(MINUTE, 6 * HOUR),
        recent: Lifetimes = lives(10 * MINUTE, 24 * HOUR),
        closed: Lifetimes = lives(6 * HOUR, 3 * DAY),
    }

    /// Billing.
    Billing {
        // For soft failures.
        negative: Time<SECOND, DAY> = ms(2 * MINUTE),
        current: Lifetimes = lives(6 * HOUR, 3 * DAY),
        closed: Lifetimes = lives(24 * HOUR, 7 * DAY),
    }

    /// A customer and a billed client that are the same company.
    Link {
        customer_id: Option<CustomerId> = None,
        client_id: Option<BilledId> = None,
        client_name: Option<Text> = None,
    }
}

/// Walks, snapshots and page tokens.
#[derive(Clone, Debug, Default)]
pub struct Pagination {
    pub snapshots: SnapshotOptions,
    pub token_key: SecretName,
    pub token_key_previous: SecretName,
}

fields! {
    Pagination => Pagination {
        vendor_page_size [snapshots.vendor_page_size]: Count<1, 500, PageSize>,
        // Beyond the furthest reader.
        read_ahead_pages [snapshots.read_ahead_pages]: Count<0, 100, usize>,
        scroll_idle_max [snapshots.scroll_idle_max]: Span,
        // An abandoned or lost scroll counts against `vendor_scrolls_max` for this long.
        scroll_expiry [snapshots.scroll_expiry]: Span,
        open_scrolls_max [snapshots.open_scrolls_max]: Count<1, 400, usize>,
        // The vendor fails every search past about 500, so some stay free for its other users.
        vendor_scrolls_max [snapshots.vendor_scrolls_max]: Count<1, 450, usize>,
        slot_wait_max [snapshots.slot_wait_max]: Wait,
        drain_pages_max [snapshots.drain_pages_max]: Count<0, 1_000, usize>,
        walk_rows_max [snapshots.walk_rows_max]: Count<1, 10_000_000, usize>,
        walk_pages_max [snapshots.walk_pages_max]: Count<1, 1_000_000, usize>,
        walk_bytes_max [snapshots.walk_bytes_max]: Memory,
        walk_time_max [snapshots.walk_time_max]: Time<SECOND, DAY>,
        rewalks_max [snapshots.rewalks_max]: Count<0, 1_000, u32>,
        token_lifetime [snapshots.token_lifetime]: Span,
        token_heal [snapshots.token_heal]: bool,
        snapshot_lifetime_max [snapshots.snapshot_lifetime_max]: Span,
        snapshot_bytes_max [snapshots.snapshot_bytes_max]: Memory,
        token_key: SecretName,
        token_key_previous: SecretName,
    }
}

tables! {
    /// The `[cache]` settings.
    #[derive(Copy, PartialEq, Eq)]
    CacheSettings {
        /// Maximum bytes of all answers together.
        bytes_max: Size<{ 64 * KIB }, { 1024 * GIB }> = 256 * MIB,
        /// Whether answers in frequent use are refreshed before they are stale.
        refresh_ahead: bool = false,
    }

    /// The `[store]` settings.
    #[derive(PartialEq, Eq)]
    StoreSettings {
        /// The engine that keeps the records.
        kind: StoreKind = StoreKind::Disk,
        /// The directory of the file. `None`: the settings name none, and the service manager gave
        /// none.
        directory: DirectoryName = None,
        /// Maximum sealed bytes.
        bytes_max: Size<MIB, { 1024 * GIB }> = GIB,
        /// The server of `kind = "valkey"`. Its defaults for any other kind.
        valkey: ValkeySettings = ValkeySettings::default(),
    }

    /// The `[store.valkey]` settings.
    #[derive(PartialEq, Eq)]
    ValkeySettings {
        /// The addresses to try. The first primary is used.
        addresses: List<ValkeyAddress, 0, 16> = Vec::new(),
        /// Whether connections are encrypted. `None`: if the server is beyond this machine.
        tls: Option<bool> = None,
        /// The authorities of its certificate. `None`: those that the system trusts.
        ca_file: FileName = None,
        /// The user. `None`: the default user.
        username: UserName = None,
        /// The password of the user, if it has one.
        password: SecretName = SecretName::default(),
        /// The start of every key.
        prefix: KeyPrefix = "msp".to_owned(),
        /// What the gateway does while it is away.
        when_away: WhenAway = WhenAway::Open,
        /// Time limit of one operation.
        timeout: Time<5, { 10 * SECOND }> = ms(50),
        /// Lease of the claim on a search that a gateway walks.
        lease: Time<{ 2 * SECOND }, { 60 * SECOND }> = ms(6_000),
        /// Minimum number of gateways that share it.
        replicas_min: Count<1, 1_000, u32> = 2,
    }

    /// The `[changes]` settings.
    #[derive(Copy, PartialEq, Eq)]
    ChangesSettings {
        /// Maximum bytes of the states that sync tokens name.
        bytes_max: Size<{ 64 * KIB }, { 1024 * GIB }> = 64 * MIB,
        /// Maximum requests for changes and streams of events at once.
        followers_max: Count<1, 1_000_000, usize> = 2048,
    }

    /// The `[log]` settings.
    #[derive(Copy, PartialEq, Eq)]
    LogSettings {
        /// The least severe level that is logged.
        level: Level = Level::Info,
        /// Whether each request is one line.
        access: bool = true,
    }

    /// The `[console]` settings.
    #[derive(Copy, PartialEq, Eq)]
    ConsoleSettings {
        /// Maximum bytes of samples and requests together.
        history_bytes_max: Size<0, { 256 * MIB }> = 4 * MIB,
    }

    /// The `[traces]` settings.
    #[derive(PartialEq)]
    TraceSettings {
        /// Where spans go. `None`: traces are off.
        otlp_endpoint: CollectorUrl = None,
        /// Of how many requests.
        sample_ratio: Share = 0.01,
        /// Holds the headers of an export.
        headers_file: FileName = None,
    }
}
