//! The mirror of `config.toml`: every key, its form, its bounds and its default.
//!
//! This is the declaration; `config.toml` in the repository is held to it by a test.

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::form::{Address, AuthMode, Count, Level, Of, StoreKind};
use super::lists::{ClientSans, Customers, KeyHashes};
use super::measure::{DAY, GIB, HOUR, KIB, MIB, MINUTE, SECOND, Size, Time};
use super::names::{
    BilledId, CallerName, Credential, DirectoryName, Expiry, FileName, Text, VariableName, Zone,
};
use super::traces::{Collector, Share};
use super::web::{Hosts, Origins};
use crate::access::Role;
use crate::domain::{AccountId, CustomerId};
use crate::server::ClientAuth;
use crate::upstream::{BaseUrl, ProxyUrl, VendorRow};
use crate::vendors::ROWS;
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

const fn loopback(port: u16) -> Address {
    Address(SocketAddr::new(
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
        /// `[listen]`
        listen: Listen = Listen::default(),
        /// `[auth]`
        auth: Auth = Auth::default(),
        /// `[[callers]]`
        callers: Vec<Caller> = Vec::new(),
        /// `[cors]`
        cors: Cors = Cors::default(),
        /// `[limits]`
        limits: Limits = Limits::default(),
        /// `[wiv]`
        wiv: Wiv = Wiv::default(),
        /// `[nable]`
        nable: Nable = Nable::default(),
        /// `[customers]`
        customers: CustomersLives = CustomersLives::default(),
        /// `[cases]`
        cases: Cases = Cases::default(),
        /// `[billing]`
        billing: Billing = Billing::default(),
        /// `[[links]]`
        links: Vec<Link> = Vec::new(),
        /// `[pagination]`
        pagination: Pagination = Pagination::default(),
        /// `[cache]`
        cache: Cache = Cache::default(),
        /// `[changes]`
        changes: Changes = Changes::default(),
        /// `[store]`
        store: Store = Store::default(),
        /// `[compression]`
        compression: Compression = Compression::default(),
        /// `[log]`
        log: Log = Log::default(),
        /// `[console]`
        console: Console = Console::default(),
        /// `[traces]`
        traces: Traces = Traces::default(),
    }
}

table! {
    /// Where the gateway is reached.
    Listen {
        /// Callers connect here.
        public: Address = loopback(8080),
        /// Operators and Prometheus connect here.
        admin: Address = loopback(9180),
        /// More names that the admin listener is asked by.
        admin_hosts: Hosts = Hosts::default(),
        /// Whether the public listener has a page for people at `/docs`.
        docs: bool = true,
        /// `[listen.public_tls]`
        public_tls: ListenTls = ListenTls::default(),
        /// `[listen.admin_tls]`
        admin_tls: ListenTls = ListenTls::default(),
    }
}

table! {
    /// TLS on one listener.
    ListenTls {
        /// The certificate and those behind it.
        certificate_file: FileName = FileName::default(),
        /// Its key.
        private_key_file: FileName = FileName::default(),
        /// Who vouches for callers' certificates.
        client_ca_file: FileName = FileName::default(),
        /// Whether callers are asked for one.
        client_auth: Of<ClientAuth> = Of(ClientAuth::None),
    }
}

table! {
    /// Who is let in.
    Auth {
        /// By key, or everyone.
        mode: AuthMode = AuthMode::Keys,
    }
}

table! {
    /// One caller. Nothing here has a default that could let anyone in.
    Caller {
        /// In logs and metrics.
        name: Option<CallerName> = None,
        /// Of its keys.
        key_hash: Option<KeyHashes> = None,
        /// In its certificates.
        client_san: Option<ClientSans> = None,
        /// Reader unless said otherwise.
        role: Option<Of<Role>> = None,
        /// Whose data it may see.
        customers: Option<Customers> = None,
        /// Absent: only for `["*"]`.
        billing: Option<bool> = None,
        /// Absent: unlimited.
        requests_per_minute: Option<Count<1, 10_000_000>> = None,
        /// Absent: never.
        expires: Option<Expiry> = None,
    }
}

table! {
    /// Web pages of other origins.
    Cors {
        /// Whose pages may read answers.
        origins: Origins = Origins::default(),
        /// How long browsers may remember that. Two hours are the most that any of them does.
        max_age: Time<0, DAY> = Time::ms(10 * MINUTE),
    }
}

table! {
    /// Bounds of the public listener.
    Limits {
        /// For a request's head.
        header_timeout: Wait = Wait::ms(10 * SECOND),
        /// For a request's body.
        body_timeout: Wait = Wait::ms(15 * SECOND),
        /// For the answer.
        request_timeout: Wait = Wait::ms(30 * SECOND),
        /// For a connection without a request.
        idle_timeout: Wait = Wait::ms(60 * SECOND),
        /// For a reader that takes nothing.
        write_stall_timeout: Wait = Wait::ms(15 * SECOND),
        /// Connections at once.
        connections_max: Count<1, 1_000_000> = Count(4096),
        /// Connections of one peer at once.
        connections_per_peer_max: Count<1, 1_000_000> = Count(2048),
        /// Requests at once.
        requests_in_flight_max: Count<1, 1_000_000> = Count(1024),
        /// Exports at once.
        exports_max: Count<1, 1_000_000> = Count(32),
        /// The longest wait that a vendor's headers can ask for.
        hold_down_max: Time<SECOND, DAY> = Time::ms(10 * MINUTE),
        /// Vendor calls that one caller's `Cache-Control` may force per minute.
        forced_refreshes_per_minute: Count<0, 1_000_000> = Count(6),
        /// Between failing readiness and refusing connections.
        drain_delay: Time<0, { 5 * MINUTE }> = Time::ms(2 * SECOND),
        /// For requests in flight at the end.
        drain_grace: Time<0, HOUR> = Time::ms(30 * SECOND),
    }
}

/// Declares the table of a vendor: what every vendor has, and what only this one has.
macro_rules! vendor_table {
    ($(#[$doc:meta])* $name:ident = $word:ident { $($account:tt)* }) => {
        table! {
            $(#[$doc])*
            $name {
                /// Where it is.
                base_url: Of<BaseUrl> = base_url(&ROWS.$word),
                /// Asked for a tunnel to it.
                proxy_url: Option<Of<ProxyUrl>> = None,
                /// Carries the key.
                api_key_header: Of<HeaderName> = Of(HeaderName::from_static(ROWS.$word.key_header)),
                /// Holds the key.
                api_key_env: VariableName = VariableName::default(),
                /// Or this does.
                api_key_file: FileName = FileName::default(),
                /// Holds the key to fall back on.
                api_key_fallback_env: VariableName = VariableName::default(),
                /// Or this does.
                api_key_fallback_file: FileName = FileName::default(),
                /// Disabled where its key is not there, instead of refused.
                optional: bool = false,
                $($account)*
                /// The vendor's budget.
                requests_per_minute: Count<1, 1_000_000> =
                    Count(ROWS.$word.requests_per_minute.into()),
                /// Whether its limit is learnt from what it refuses.
                learn_rate: bool = false,
                /// The least that is learnt.
                requests_per_minute_min: Count<1, 1_000_000> = Count(6),
                /// Calls at once.
                concurrency: Count<1, 1024> = Count(ROWS.$word.concurrency.into()),
                /// Fewer while it is late.
                concurrency_adaptive: bool = false,
                /// For one attempt.
                timeout: Wait = Wait::of(ROWS.$word.timeout),
                /// For its connection.
                connect_timeout: Wait = Wait::ms(2 * SECOND),
            }
        }
    };
}

vendor_table! {
    /// wiv.
    Wiv = wiv {
        /// Names the account behind the keys; part of every cache key.
        credential: Credential = Credential("wiv".to_owned()),
    }
}

vendor_table! {
    /// N-able.
    Nable = nable {
        /// The account.
        account_id: Option<Of<AccountId>> = None,
        /// Or the variable that holds it.
        account_id_env: VariableName = VariableName::default(),
        /// Or the file that does.
        account_id_file: FileName = FileName::default(),
    }
}

/// Declares a table of lifetimes.
macro_rules! lives {
    ($(#[$doc:meta])* $name:ident, $fresh:expr, $stale:expr, $on_error:expr) => {
        table! {
            $(#[$doc])*
            $name {
                /// Served without further ado.
                fresh: Fresh = Fresh::ms($fresh),
                /// Then: served while one refresh runs.
                stale: Beyond = Beyond::ms($stale),
                /// Then: served where the vendor gives nothing better.
                on_error: Beyond = Beyond::ms($on_error),
            }
        }
    };
}

// `stale` is twice `fresh`: whoever asks about as often as answers change never waits. `on_error`
// covers a night, a day or a week-end of the vendor, longer where data moves slower.
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
    /// Of the month the vendor still fills.
    BillingCurrentLives, 6 * HOUR, 12 * HOUR, 3 * DAY
);
lives!(
    /// Of months before.
    BillingClosedLives, 24 * HOUR, 2 * DAY, 7 * DAY
);

table! {
    /// Case searches.
    Cases {
        /// Days after which a closed range is settled.
        recent_days: Count<0, 366> = Count(7),
        /// In which days begin.
        time_zone: Zone = Zone(TimeZone::UTC),
        /// One customer from a snapshot of all.
        derive_customer: bool = true,
        /// Members that look like a documented one are refused.
        strict_members: bool = false,
        /// `[cases.open]`
        open: OpenLives = OpenLives::default(),
        /// `[cases.recent]`
        recent: RecentLives = RecentLives::default(),
        /// `[cases.closed]`
        closed: ClosedLives = ClosedLives::default(),
    }
}

table! {
    /// Billing.
    Billing {
        /// For soft failures.
        negative: Time<SECOND, DAY> = Time::ms(2 * MINUTE),
        /// `[billing.current]`
        current: BillingCurrentLives = BillingCurrentLives::default(),
        /// `[billing.closed]`
        closed: BillingClosedLives = BillingClosedLives::default(),
    }
}

table! {
    /// A customer and a billed client that are the same company.
    Link {
        /// wiv's.
        customer_id: Option<Of<CustomerId>> = None,
        /// N-able's, by id.
        client_id: Option<BilledId> = None,
        /// N-able's, by name.
        client_name: Option<Text> = None,
    }
}

table! {
    /// Walks, snapshots and page tokens.
    Pagination {
        /// Rows asked of the vendor at once.
        vendor_page_size: Count<1, 500> = Count(500),
        /// Beyond the furthest reader.
        read_ahead_pages: Count<0, 100> = Count(1),
        /// Then an idle walk ends.
        scroll_idle_max: Span = Span::ms(45 * SECOND),
        /// An abandoned or lost scroll counts against `vendor_scrolls_max` for so long.
        scroll_expiry: Span = Span::ms(5 * MINUTE),
        /// Walks that run at once.
        open_scrolls_max: Count<1, 400> = Count(32),
        /// The vendor fails every search past about 500, so some stay free for its other users.
        vendor_scrolls_max: Count<1, 450> = Count(200),
        /// For a free scroll.
        slot_wait_max: Wait = Wait::ms(10 * SECOND),
        /// To end an idle walk.
        drain_pages_max: Count<0, 1_000> = Count(10),
        /// Of one walk.
        walk_rows_max: Count<1, 10_000_000> = Count(200_000),
        /// Of one walk.
        walk_pages_max: Count<1, 1_000_000> = Count(2_000),
        /// Of one walk.
        walk_bytes_max: Memory = Memory::bytes(200 * MIB),
        /// Of one walk.
        walk_time_max: Time<SECOND, DAY> = Time::ms(30 * MINUTE),
        /// In a row.
        rewalks_max: Count<0, 1_000> = Count(10),
        /// After the last use.
        token_lifetime: Span = Span::ms(30 * MINUTE),
        /// Whether tokens outlive their snapshot.
        token_heal: bool = true,
        /// After birth.
        snapshot_lifetime_max: Span = Span::ms(24 * HOUR),
        /// All together.
        snapshot_bytes_max: Memory = Memory::bytes(256 * MIB),
        /// Seals page tokens.
        token_key_env: VariableName = VariableName::default(),
        /// Or this does.
        token_key_file: FileName = FileName::default(),
        /// Sealed them before.
        token_key_previous_env: VariableName = VariableName::default(),
        /// Or this did.
        token_key_previous_file: FileName = FileName::default(),
    }
}

table! {
    /// Answers in memory.
    Cache {
        /// All together.
        bytes_max: Size<{ 64 * KIB }, { 1024 * GIB }> = Size::bytes(256 * MIB),
        /// Hot answers are refreshed before they are stale.
        refresh_ahead: bool = false,
    }
}

table! {
    /// What outlives the process.
    Store {
        /// What it is made of.
        kind: StoreKind = StoreKind::Disk,
        /// Where its file is.
        directory: DirectoryName = DirectoryName::default(),
        /// Sealed bytes in it.
        bytes_max: Size<MIB, { 1024 * GIB }> = Size::bytes(GIB),
    }
}

table! {
    /// Callers that keep searches in step.
    Changes {
        /// Their states and ids together.
        bytes_max: Size<{ 64 * KIB }, { 1024 * GIB }> = Size::bytes(64 * MIB),
        /// Of them at once.
        followers_max: Count<1, 1_000_000> = Count(2048),
    }
}

table! {
    /// Answers in content codings.
    Compression {
        /// Whether answers in memory are coded.
        enabled: bool = true,
        /// Smaller ones are left as they are.
        bytes_min: Size<256, { 1024 * MIB }> = Size::bytes(KIB),
    }
}

table! {
    /// What is logged.
    Log {
        /// From here up.
        level: Level = Level::Info,
        /// One line a request.
        access: bool = true,
    }
}

table! {
    /// What the admin listener's console remembers.
    Console {
        /// Samples and requests together.
        history_bytes_max: Size<0, { 256 * MIB }> = Size::bytes(4 * MIB),
    }
}

table! {
    /// Spans of requests.
    Traces {
        /// Takes them; empty: nobody does.
        otlp_endpoint: Collector = Collector::default(),
        /// Of requests without a `traceparent`.
        sample_ratio: Share = Share(0.01),
        /// Holds headers that the collector asks for.
        headers_file: FileName = FileName::default(),
    }
}
