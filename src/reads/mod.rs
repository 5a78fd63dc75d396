//! Answers each question from memory, snapshots and vendors. One file per question.
//!
//! A handler in `api` calls [`Reads`]. A read checks the audience first, then looks into memory,
//! and calls a vendor only through a flight or a walk that other callers share:
//!
//! ```text
//! Question ─▶ customers, billing ─▶ cache::Shelf ────────▶ one flight ─▶ upstream ┐
//!          └▶ cases, export, changes ─▶ snapshot::Snapshots ─▶ one walk ─▶ upstream ├▶ Answer
//!          └▶ overview ─▶ joins the reads above, part by part                       ┘
//! ```
//!
//! [`Lookup`] is a question that one remembered answer answers. [`Lookups`] has the reads that
//! remember: they answer, explain and purge alike, so a new one is declared there once.
//! [`Asker`] is the caller's side: who it is, until when it waits, and who pays. [`Answer`] is a
//! body with its tag, its age and a note for `Cache-Status`. [`ReadError`] lists every other
//! outcome. [`Policy`] has the settings of the reads; a reload swaps it. `explain` describes what a
//! question would do, with the same functions that answer it.
//!
//! What must never happen here:
//! - A body reaches a caller without being cut to its audience.
//! - A lookup happens before the audience is checked, so that its time or its error reveals a
//!   customer.
//! - A failed vendor call evicts an answer, or a caller that leaves cancels work that others wait
//!   for.

pub mod answer;
pub mod cases;
pub mod changes;
mod contracts;
pub mod csv;
pub mod error;
mod event_log;
pub mod events;
pub mod explain;
pub mod export;
mod heal;
mod kept_states;
pub mod lookup;
pub mod overview;
pub mod policy;
pub mod purge;
mod row_names;
mod state_maker;
pub mod states;
mod view_state;
mod whole_list;

pub use answer::{Answer, Asker, Etag};
pub use error::ReadError;
pub use explain::Explanation;
pub use lookup::{ListLifetimes, Lookup, Lookups, billing, customers};
pub use policy::{GradedLifetimes, Link, LinkTo, Policy};
pub use purge::Purge;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cache::{FiledBodies, VariantOptions, Variants};
use crate::clock::Clock;
use crate::metrics::{Metrics, StoreUsage};
use crate::snapshot::{Sealer, Snapshots};
use crate::store::{Store, StoreBar};
use crate::vendors::Clients;

/// Share of `cache.bytes_max` for the vendors' answers: customer lists and billing bodies. The rest
/// holds rendered pages.
const ANSWERS_SHARE: u64 = 4;
/// Share for customer lists cut to fields and audiences.
const CUTS_SHARE: u64 = 8;
/// Share for bodies in content codings, which are a fifth of their plain size.
const VARIANTS_SHARE: u64 = 8;

/// Everything that the reads are built from.
pub struct Ingredients {
    /// The clients of the vendors.
    pub clients: Clients,
    /// The snapshots of case searches.
    pub snapshots: Arc<Snapshots>,
    /// Seals page tokens. A reload swaps it.
    pub sealer: Arc<ArcSwap<Sealer>>,
    /// The settings of the reads. A reload swaps them.
    pub policy: Arc<ArcSwap<Policy>>,
    /// `cache.bytes_max`.
    pub cache_bytes_max: u64,
    /// `changes.bytes_max`.
    pub changes_bytes_max: u64,
    /// The store, which outlives the process.
    pub store: Store,
    /// Files for large bodies that are read often.
    pub files: FiledBodies,
    /// The settings in `[compression]`.
    pub compression: VariantOptions,
    /// The clock.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

/// Every question that the gateway can answer.
#[derive(Clone)]
pub struct Reads {
    /// The customer list.
    pub customers: Arc<customers::Customers>,
    /// Case searches.
    pub cases: Arc<cases::Cases>,
    /// Whole searches as streams.
    pub export: Arc<export::Export>,
    /// Changes of a search.
    pub changes: Arc<changes::Changes>,
    /// Changed answers, as events.
    pub events: Arc<events::Events>,
    /// Billable services and invoices.
    pub billing: Arc<billing::Billing>,
    /// Both vendors in one answer.
    pub overview: Arc<overview::Overview>,
    /// The reads that remember answers, together.
    pub lookups: Arc<Lookups>,
    /// Bodies in content codings.
    pub variants: Arc<Variants>,
    store: Store,
}

impl Reads {
    /// Creates reads that remember nothing.
    pub fn new(of: Ingredients) -> Self {
        let answers = of.cache_bytes_max / ANSWERS_SHARE;
        let cuts = of.cache_bytes_max / CUTS_SHARE;
        let coded = of.cache_bytes_max / VARIANTS_SHARE;
        let pages = of.cache_bytes_max - answers - cuts - coded;
        let lookups = Lookups::new(&of, answers, cuts, pages);
        let customers = lookups.customers.clone();
        let cases = lookups.cases.clone();
        let billing = lookups.billing.clone();
        let changes = Arc::new(changes::Changes::new(&of, cases.clone()));
        let reads = Self {
            store: of.store.clone(),
            variants: Variants::new(coded, of.compression, of.metrics.clone()),
            export: Arc::new(export::Export::new(&of, cases.clone())),
            events: Arc::new(events::Events::new(&of, lookups.clone(), changes.clone())),
            changes,
            overview: Arc::new(overview::Overview::new(
                &of,
                customers.clone(),
                cases.clone(),
                billing.clone(),
            )),
            customers,
            cases,
            billing,
            lookups,
        };
        reads.follow_purges();
        reads
    }

    /// Drops what is over. Call this every few seconds.
    pub fn sweep(&self) {
        self.cases.sweep();
    }

    /// Returns whether the store is away and no request may be answered without it.
    pub fn are_closed(&self) -> bool {
        self.store.bar() == StoreBar::Everything
    }

    /// Returns how full each store is, with its value of the metrics' label `store`.
    pub fn usages(&self) -> [(&'static str, StoreUsage); 6] {
        [
            ("answers", self.lookups.usage()),
            (
                "pages",
                self.customers.cuts_usage() + self.cases.pages_usage(),
            ),
            ("variants", self.variants.usage()),
            ("snapshots", self.cases.snapshots().usage()),
            ("changes", self.changes.usage()),
            ("events", self.events.usage()),
        ]
    }
}
