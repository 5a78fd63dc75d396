//! Simulates both vendors over real HTTP/1.1: wiv at `/`, N-able at `/ws/rest/V1/PSA_API`.
//!
//! It is written from the vendors' documents alone. It shares no type with the code that calls
//! vendors, and is no easier than they are: scrolls move even if an answer is lost, contexts
//! expire, scrolls end in four ways, and a month of bills may contain nothing but the account's
//! name.
//!
//! ```text
//! bytes ─▶ http.rs ─▶ wiv.rs   ─▶ scroll.rs, world.rs ─▶ rows.rs  ┐
//!             │    └▶ nable.rs ─▶ ledger.rs, bills.rs              ├▶ answer.rs ─▶ bytes
//!             └ quota.rs, recorder.rs, counts.rs      faults.rs ───┘  spoils it on purpose
//! ```
//!
//! [`Options`] chooses among the behaviours that the documents leave open. Faults are switched on
//! while it runs, from Rust ([`Sandbox::fault`]) or over HTTP (`control.rs`). One seed gives one
//! world, and one sequence of requests gives one sequence of answers. Keys are `sandbox-wiv-key`
//! and `sandbox-nable-key`, and the account is `SANDBOX`.
//!
//! What must never happen here:
//! - A behaviour is changed to make a test pass. A test that needs another one switches on a fault.
//! - A key or a scroll id can be read from what the sandbox records.

mod answer;
mod bills;
mod control;
mod counts;
mod dice;
mod fault_json;
mod faults;
mod http;
mod json;
mod ledger;
mod nable;
mod options;
mod quota;
mod recorder;
mod rows;
mod scroll;
mod wiv;
mod world;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::civil::Date;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use counts::{Counts, OperationCounts, VendorCounts};
pub use faults::{FaultKind, SimFault, Target};
pub use options::{
    CaseIds, CustomersEnvelope, EndOfScroll, ExpiredAnswer, NABLE_ACCOUNT, NABLE_KEY, Options,
    PageCap, RateHeaders, RetryAfter, SimOperation, SimVendor, WIV_KEY, Wrapping,
};
pub use recorder::Recorded;
pub use scroll::SimScrollCounts;

use crate::clock::{Clock, Duration, Instant, sleep};

/// Maximum connections served at once. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a connection may take to send a request's head, or be idle before one. Load balancers
/// usually wait this long.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// Pause after a failed accept, which most likely means that no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A customer of the simulated wiv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerInfo {
    /// `customer_id`
    pub id: String,
    /// `customer_name`
    pub name: String,
    /// Number of its cases now.
    pub cases: usize,
}

/// A contract of the simulated N-able account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractInfo {
    /// `ContractID`, as it appears in paths.
    pub id: String,
    /// `ContractNumber`
    pub number: String,
    /// `Name`
    pub name: String,
}

/// Both simulated vendors.
pub struct Sandbox {
    options: Options,
    clock: Clock,
    since: Instant,
    world: Arc<world::World>,
    ledger: ledger::SimLedger,
    scrolls: scroll::Scrolls,
    faults: faults::Faults,
    tally: Arc<counts::SimTally>,
    recorder: recorder::Recorder,
    wiv_quota: quota::Quota,
    nable_quota: quota::Quota,
    /// Vendors that are down.
    down: watch::Sender<Vec<SimVendor>>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Creates the vendors of `options`. `clock` times scrolls, quotas and dates. The world itself
    /// ends on [`Options::today`], whatever the clock says.
    pub fn new(options: Options, clock: Clock) -> Arc<Self> {
        let world = world::World::new(&options);
        Arc::new(Self {
            since: clock.now(),
            ledger: ledger::SimLedger::new(&options, world.customers().len()),
            world: Arc::new(world),
            scrolls: scroll::Scrolls::new(&options),
            faults: faults::Faults::new(options.seed),
            tally: counts::SimTally::new(),
            recorder: recorder::Recorder::default(),
            wiv_quota: quota::Quota::new(options.wiv_requests_per_minute),
            nable_quota: quota::Quota::new(options.nable_requests_per_minute),
            down: watch::Sender::default(),
            options,
            clock,
        })
    }

    /// Serves `listener` until `shutdown` is done. Then every connection is closed at once, as if
    /// the vendor's process died.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let has_room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => {
                        // Answers are written as a whole. Waiting for more bytes would only delay
                        // them.
                        let _ = stream.set_nodelay(true);
                        connections.spawn(Arc::clone(&self).serve_io(stream));
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
            }
        }
    }

    /// Serves one connection until either side closes it. Works in paused time.
    pub async fn serve_io<I>(self: Arc<Self>, io: I)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(move |request| http::answer(Arc::clone(&self), request));
        // Errors are faults at work, or a peer that left. Neither is worth a log line.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(io), service)
            .await;
    }

    /// Switches a fault on. Ignores it if 1,000 are active.
    pub fn fault(&self, fault: SimFault) {
        let _ = self.faults.add(vec![fault]);
    }

    /// Removes all faults and brings both vendors up.
    pub fn clear_faults(&self) {
        self.faults.clear();
        self.down.send_modify(Vec::clear);
    }

    /// Takes a vendor down or brings it up. While it is down, it closes every connection without an
    /// answer, those with a request in progress included.
    pub fn set_down(&self, vendor: SimVendor, down: bool) {
        self.down.send_modify(|vendors| {
            vendors.retain(|other| *other != vendor);
            if down {
                vendors.push(vendor);
            }
        });
    }

    /// Returns the counts since the start or the last reset.
    pub fn counts(&self) -> Counts {
        let mut counts = self.tally.read();
        (counts.scrolls, counts.scroll_overlaps) = self.scrolls.counts(self.clock.now());
        counts
    }

    /// Returns the last 1,000 requests, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.recorder.read()
    }

    /// Adds `count` new cases. Returns how many there was room for, of a million cases in all, or
    /// `None` if the customer is unknown. Without a customer they are spread over the customers
    /// like the others. Without a date they are of [`Options::today`]. Open scrolls do not contain
    /// them.
    pub fn insert(
        &self,
        count: usize,
        customer_id: Option<&str>,
        date: Option<Date>,
    ) -> Option<usize> {
        self.world.insert(count, customer_id, date)
    }

    /// Changes, removes and moves this many cases, chosen at random. A changed case has another
    /// status, a moved one another place in the vendor's order. Open scrolls are not affected.
    pub fn alter(&self, changed: usize, removed: usize, moved: usize) {
        self.world.alter(changed, removed, moved);
    }

    /// Expires all open scrolls and returns their number.
    pub fn expire_scrolls(&self) -> u64 {
        self.scrolls.expire_all(self.clock.now())
    }

    /// Resets counts, requests, faults, scrolls, inserted cases and used quota.
    pub fn reset(&self) {
        self.clear_faults();
        self.scrolls.reset();
        self.world.reset();
        self.tally.reset();
        self.recorder.reset();
        self.wiv_quota.reset();
        self.nable_quota.reset();
    }

    /// Returns the exact texts of the rows that a search finds now, in the vendor's order. `range`
    /// includes both its days.
    pub fn expected_rows(
        &self,
        customer_id: Option<&str>,
        range: Option<(Date, Date)>,
    ) -> Vec<String> {
        let filter = world::Filter {
            customer_id: customer_id.map(str::to_owned),
            range,
            ..world::Filter::default()
        };
        let selection = self.world.select(&filter);
        selection
            .rows(0, selection.len())
            .iter()
            .map(|row| self.world.text(row).to_owned())
            .collect()
    }

    /// Returns all customers, in the vendor's order.
    pub fn customers(&self) -> Vec<CustomerInfo> {
        let info = |(index, customer): (usize, &world::Customer)| CustomerInfo {
            id: customer.id.clone(),
            name: customer.name.clone(),
            cases: self.world.case_count(index),
        };
        self.world
            .customers()
            .iter()
            .enumerate()
            .map(info)
            .collect()
    }

    /// Returns all contracts, in the order of the invoices.
    pub fn contracts(&self) -> Vec<ContractInfo> {
        let info = |contract: &ledger::Contract| ContractInfo {
            id: contract.id.clone(),
            number: contract.number.clone(),
            name: contract.name.clone(),
        };
        self.ledger.contracts().iter().map(info).collect()
    }

    /// Returns the months that have bills, `YYYYMM`, oldest first.
    pub fn months(&self) -> Vec<String> {
        self.ledger
            .months()
            .iter()
            .map(|month| month.text())
            .collect()
    }

    /// Returns the options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the HTTP date `in_s` seconds from now.
    fn http_date(&self, in_s: u64) -> String {
        let ahead = jiff::SignedDuration::from_secs(i64::try_from(in_s).unwrap_or(0));
        let at = self
            .clock
            .wall()
            .saturating_add(ahead)
            .unwrap_or(jiff::Timestamp::MAX);
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}
