//! The mirror of `config.toml`: every key, its form, its bounds and its default.
//!
//! This is the declaration. `config.toml` in the repository says what each key is for; a test holds
//! the two to each other.

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::form::{AuthMode, Count, Level, Of, StoreKind, WhenAway};
use super::lists::{Host, List, Visible};
use super::measure::{DAY, GIB, HOUR, KIB, MIB, MINUTE, SECOND, Size, Time};
use super::names::{
    BilledId, CallerName, CredentialSetting, DirectoryName, FileName, KeyPrefix, Text, VariableName,
};
use super::traces::{Collector, Share};
use crate::access::{CallerKeyHash, ClientSan, Role};
use crate::domain::{AccountId, CustomerId};
use crate::exchange::site::Origin;
use crate::server::ClientAuth;
use crate::store::ValkeyAddress;
use crate::upstream::{BaseUrl, ProxyUrl, VendorRow};
use crate::vendors::ROWS;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::net::{Ipv4Addr, SocketAddr};

/// Declares a table of the file: its keys, their forms and defaults.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $form:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields, expecting = "a table")]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $form,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

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

const fn loopback(port: u16) -> Of<SocketAddr> {
    Of(SocketAddr::new(
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        port,
    ))
}

fn base_url(row: &VendorRow) -> Of<BaseUrl> {
    Of(BaseUrl::fixed(row.base.0, row.base.1))
}

table! {
    /// The whole file.
    File {
        listen: Listen = Listen::default(),
        auth: Auth = Auth::default(),
        callers: Vec<Caller> = Vec::new(),
        cors: Cors = Cors::default(),
        limits: Limits = Limits::default(),
        wiv: Wiv = Wiv::default(),
        nable: Nable = Nable::default(),
        customers: CustomersLives = CustomersLives::default(),
        cases: Cases = Cases::default(),
        billing: Billing = Billing::default(),
        links: Vec<Link> = Vec::new(),
        pagination: Pagination = Pagination::default(),
        cache: Cache = Cache::default(),
        changes: Changes = Changes::default(),
        store: Store = Store::default(),
        compression: Compression = Compression::default(),
        log: Log = Log::default(),
        console: Console = Console::default(),
        traces: Traces = Traces::default(),
    }
}

table! {
    /// Where the gateway is reached.
    Listen {
        public: Of<SocketAddr> = loopback(8080),
        admin: Of<SocketAddr> = loopback(9180),
        admin_hosts: List<Host> = List::default(),
        docs: bool = true,
        public_tls: ListenTls = ListenTls::default(),
        admin_tls: ListenTls = ListenTls::default(),
    }
}

table! {
    /// TLS on one listener.
    ListenTls {
        certificate_file: FileName = FileName::default(),
        private_key_file: FileName = FileName::default(),
        client_ca_file: FileName = FileName::default(),
        client_auth: Of<ClientAuth> = Of(ClientAuth::None),
    }
}

table! {
    /// Who is let in.
    Auth {
        mode: AuthMode = AuthMode::Keys,
    }
}

table! {
    /// One caller. Nothing here has a default that could let anyone in.
    Caller {
        name: Option<CallerName> = None,
        key_hash: Option<List<CallerKeyHash>> = None,
        client_san: Option<List<ClientSan>> = None,
        role: Option<Of<Role>> = None,
        customers: Option<List<Visible>> = None,
        billing: Option<bool> = None,
        requests_per_minute: Option<Count<1, 10_000_000>> = None,
        expires: Option<Of<Timestamp>> = None,
    }
}

table! {
    /// Web pages of other origins.
    Cors {
        origins: List<Origin> = List::default(),
        // How long browsers may remember that. Two hours are the most that any of them does.
        max_age: Time<0, DAY> = Time::ms(10 * MINUTE),
    }
}

table! {
    /// Bounds of the public listener.
    Limits {
        header_timeout: Wait = Wait::ms(10 * SECOND),
        body_timeout: Wait = Wait::ms(15 * SECOND),
        request_timeout: Wait = Wait::ms(30 * SECOND),
        idle_timeout: Wait = Wait::ms(60 * SECOND),
        write_stall_timeout: Wait = Wait::ms(15 * SECOND),
        connections_max: Count<1, 1_000_000> = Count(4096),
        connections_per_peer_max: Count<1, 1_000_000> = Count(2048),
        requests_in_flight_max: Count<1, 1_000_000> = Count(1024),
        exports_max: Count<1, 1_000_000> = Count(32),
        hold_down_max: Time<SECOND, DAY> = Time::ms(10 * MINUTE),
        forced_refreshes_per_minute: Count<0, 1_000_000> = Count(6),
        drain_delay: Time<0, { 5 * MINUTE }> = Time::ms(2 * SECOND),
        drain_grace: Time<0, HOUR> = Time::ms(30 * SECOND),
    }
}

/// Declares the table of a vendor: what every vendor has, and what only this one has.
macro_rules! vendor_table {
    ($(#[$doc:meta])* $name:ident = $word:ident { $($account:tt)* }) => {
        table! {
            $(#[$doc])*
            $name {
                base_url: Of<BaseUrl> = base_url(&ROWS.$word),
                proxy_url: Option<Of<ProxyUrl>> = None,
                api_key_header: Of<HeaderName> = Of(HeaderName::from_static(ROWS.$word.key_header)),
                api_key_env: VariableName = VariableName::default(),
                api_key_file: FileName = FileName::default(),
                api_key_fallback_env: VariableName = VariableName::default(),
                api_key_fallback_file: FileName = FileName::default(),
                optional: bool = false,
                $($account)*
                requests_per_minute: Count<1, 1_000_000> =
                    Count(ROWS.$word.requests_per_minute.into()),
                learn_rate: bool = false,
                requests_per_minute_min: Count<1, 1_000_000> = Count(6),
                concurrency: Count<1, 1024> = Count(ROWS.$word.concurrency.into()),
                concurrency_adaptive: bool = false,
                timeout: Wait = Wait::of(ROWS.$word.timeout),
                connect_timeout: Wait = Wait::ms(2 * SECOND),
            }
        }
    };
}

vendor_table! {
    /// wiv.
    Wiv = wiv {
        credential: CredentialSetting = CredentialSetting("wiv".to_owned()),
    }
}

vendor_table! {
    /// N-able.
    Nable = nable {
        account_id: Option<Of<AccountId>> = None,
        account_id_env: VariableName = VariableName::default(),
        account_id_file: FileName = FileName::default(),
    }
}

/// Declares a table of lifetimes.
macro_rules! lives {
    ($(#[$doc:meta])* $name:ident, $fresh:expr, $stale:expr, $on_error:expr) => {
        table! {
            $(#[$doc])*
            $name {
                fresh: Fresh = Fresh::ms($fresh),
                stale: Beyond = Beyond::ms($stale),
                on_error: Beyond = Beyond::ms($on_error),
            }
        }
    };
}

// `stale` is twice `fresh`, so a caller that asks about as often as answers change never waits.
// `on_error` covers a night, a day or a week-end without the vendor, and more for slower data.
lives!(
    /// Of the customer list.
    CustomersLives, 5 * MINUTE, 10 * MINUTE, 24 * HOUR
);
lives!(
    /// Of searches whose range is open.
    OpenLives, MINUTE, 2 * MINUTE, 6 * HOUR
);
lives!(
    /// Of searches whose range closed a few days ago.
    RecentLives, 10 * MINUTE, 20 * MINUTE, 24 * HOUR
);
lives!(
    /// Of searches whose range closed before that.
    ClosedLives, 6 * HOUR, 12 * HOUR, 3 * DAY
);
lives!(
    /// Of the month that the vendor still fills.
    BillingCurrentLives, 6 * HOUR, 12 * HOUR, 3 * DAY
);
lives!(
    /// Of earlier months.
    BillingClosedLives, 24 * HOUR, 2 * DAY, 7 * DAY
);

table! {
    /// Case searches.
    Cases {
        recent_days: Count<0, 366> = Count(7),
        time_zone: Of<TimeZone> = Of(TimeZone::UTC),
        derive_customer: bool = true,
        strict_members: bool = false,
        open: OpenLives = OpenLives::default(),
        recent: RecentLives = RecentLives::default(),
        closed: ClosedLives = ClosedLives::default(),
    }
}

table! {
    /// Billing.
    Billing {
        // For soft failures.
        negative: Time<SECOND, DAY> = Time::ms(2 * MINUTE),
        current: BillingCurrentLives = BillingCurrentLives::default(),
        closed: BillingClosedLives = BillingClosedLives::default(),
    }
}

table! {
    /// A customer and a billed client that are the same company.
    Link {
        customer_id: Option<Of<CustomerId>> = None,
        client_id: Option<BilledId> = None,
        client_name: Option<Text> = None,
    }
}

table! {
    /// Walks, snapshots and page tokens.
    Pagination {
        vendor_page_size: Count<1, 500> = Count(500),
        // Beyond the furthest reader.
        read_ahead_pages: Count<0, 100> = Count(1),
        scroll_idle_max: Span = Span::ms(45 * SECOND),
        // An abandoned or lost scroll counts against `vendor_scrolls_max` for this long.
        scroll_expiry: Span = Span::ms(5 * MINUTE),
        open_scrolls_max: Count<1, 400> = Count(32),
        // The vendor fails every search past about 500, so some stay free for its other users.
        vendor_scrolls_max: Count<1, 450> = Count(200),
        slot_wait_max: Wait = Wait::ms(10 * SECOND),
        drain_pages_max: Count<0, 1_000> = Count(10),
        walk_rows_max: Count<1, 10_000_000> = Count(200_000),
        walk_pages_max: Count<1, 1_000_000> = Count(2_000),
        walk_bytes_max: Memory = Memory::bytes(200 * MIB),
        walk_time_max: Time<SECOND, DAY> = Time::ms(30 * MINUTE),
        rewalks_max: Count<0, 1_000> = Count(10),
        token_lifetime: Span = Span::ms(30 * MINUTE),
        token_heal: bool = true,
        snapshot_lifetime_max: Span = Span::ms(24 * HOUR),
        snapshot_bytes_max: Memory = Memory::bytes(256 * MIB),
        token_key_env: VariableName = VariableName::default(),
        token_key_file: FileName = FileName::default(),
        token_key_previous_env: VariableName = VariableName::default(),
        token_key_previous_file: FileName = FileName::default(),
    }
}

table! {
    /// Answers in memory.
    Cache {
        bytes_max: Size<{ 64 * KIB }, { 1024 * GIB }> = Size::bytes(256 * MIB),
        refresh_ahead: bool = false,
    }
}

table! {
    /// What outlives the process.
    Store {
        kind: StoreKind = StoreKind::Disk,
        directory: DirectoryName = DirectoryName::default(),
        bytes_max: Size<MIB, { 1024 * GIB }> = Size::bytes(GIB),
        valkey: StoreValkey = StoreValkey::default(),
    }
}

table! {
    /// The Valkey or Redis of `kind = "valkey"`.
    StoreValkey {
        addresses: List<ValkeyAddress> = List::default(),
        tls: Option<bool> = None,
        ca_file: FileName = FileName::default(),
        username: KeyPrefix = KeyPrefix::default(),
        password_env: VariableName = VariableName::default(),
        password_file: FileName = FileName::default(),
        prefix: KeyPrefix = KeyPrefix("msp".to_owned()),
        when_away: WhenAway = WhenAway::Open,
        timeout: Time<5, { 10 * SECOND }> = Time::ms(50),
        lease: Time<{ 2 * SECOND }, { 60 * SECOND }> = Time::ms(6_000),
        replicas_min: Count<1, 1_000> = Count(2),
    }
}

table! {
    /// Callers that keep searches in step.
    Changes {
        bytes_max: Size<{ 64 * KIB }, { 1024 * GIB }> = Size::bytes(64 * MIB),
        followers_max: Count<1, 1_000_000> = Count(2048),
    }
}

table! {
    /// Answers in content codings.
    Compression {
        enabled: bool = true,
        bytes_min: Size<256, { 1024 * MIB }> = Size::bytes(KIB),
    }
}

table! {
    /// What is logged.
    Log {
        level: Level = Level::Info,
        access: bool = true,
    }
}

table! {
    /// What the admin listener's console remembers.
    Console {
        history_bytes_max: Size<0, { 256 * MIB }> = Size::bytes(4 * MIB),
    }
}

table! {
    /// Spans of requests.
    Traces {
        otlp_endpoint: Collector = Collector::default(),
        sample_ratio: Share = Share(0.01),
        headers_file: FileName = FileName::default(),
    }
}
