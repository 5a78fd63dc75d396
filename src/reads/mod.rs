//! One file per question: how each is answered from memory, snapshots and vendors.

pub mod answer;
pub mod billed;
pub mod billing;
pub mod cases;
pub mod changes;
mod contracts;
pub mod csv;
pub mod customers;
pub mod error;
pub mod events;
pub mod explain;
pub mod export;
mod heal;
pub mod overview;
pub mod policy;
pub mod purge;
pub mod states;

pub use answer::{Answer, Asker, Etag};
pub use error::ReadError;
pub use explain::Explanation;
pub use policy::{GradedLifetimes, Link, LinkTo, Policy};
pub use purge::Purge;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cache::{FiledBodies, VariantOptions, Variants};
use crate::clock::Clock;
use crate::metrics::{Metrics, StoreUsage};
use crate::snapshot::{Sealer, Snapshots};
use crate::store::Store;
use crate::upstream::{Nable, Wiv};

/// Share of `cache.bytes_max` for the vendors' answers: customer lists and billing bodies. The rest
/// holds rendered pages.
const ANSWERS_SHARE: u64 = 4;
/// Share for customer lists cut to fields and audiences.
const CUTS_SHARE: u64 = 8;
/// Share for bodies in content codings, which are a fifth of their plain size.
const VARIANTS_SHARE: u64 = 8;

/// What all reads are made of.
pub struct Ingredients {
    /// wiv.
    pub wiv: Arc<Wiv>,
    /// N-able.
    pub nable: Arc<Nable>,
    /// Case searches in memory.
    pub snapshots: Arc<Snapshots>,
    /// Seals page tokens; swapped by a reload.
    pub sealer: Arc<ArcSwap<Sealer>>,
    /// How to judge and join; swapped by a reload.
    pub policy: Arc<ArcSwap<Policy>>,
    /// `cache.bytes_max`.
    pub cache_bytes_max: u64,
    /// `changes.bytes_max`.
    pub changes_bytes_max: u64,
    /// What outlives the process.
    pub store: Store,
    /// Large bodies that are read again and again.
    pub files: FiledBodies,
    /// `[compression]`
    pub compression: VariantOptions,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Every question the gateway can answer.
#[derive(Clone)]
pub struct Reads {
    /// The customer list.
    pub customers: Arc<customers::Customers>,
    /// Case searches.
    pub cases: Arc<cases::Cases>,
    /// Whole searches as a stream.
    pub export: Arc<export::Export>,
    /// What changed in a search.
    pub changes: Arc<changes::Changes>,
    /// Which answers changed.
    pub events: Arc<events::Events>,
    /// Billable services and invoices.
    pub billing: Arc<billing::Billing>,
    /// Both vendors in one answer.
    pub overview: Arc<overview::Overview>,
    /// Their answers in content codings.
    pub variants: Arc<Variants>,
    store: Store,
}

impl Reads {
    /// Reads that remember nothing yet.
    pub fn new(of: Ingredients) -> Self {
        let answers = of.cache_bytes_max / ANSWERS_SHARE / 2;
        let cuts = of.cache_bytes_max / CUTS_SHARE;
        let coded = of.cache_bytes_max / VARIANTS_SHARE;
        let pages = of.cache_bytes_max - 2 * answers - cuts - coded;
        let customers = Arc::new(customers::Customers::new(&of, answers, cuts));
        let cases = Arc::new(cases::Cases::new(&of, pages));
        let billing = Arc::new(billing::Billing::new(&of, answers));
        let changes = Arc::new(changes::Changes::new(&of, cases.clone()));
        Self {
            store: of.store.clone(),
            variants: Variants::new(coded, of.compression, of.metrics.clone()),
            export: Arc::new(export::Export::new(&of, cases.clone())),
            events: Arc::new(events::Events::new(
                &of,
                customers.clone(),
                cases.clone(),
                billing.clone(),
                changes.clone(),
            )),
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
        }
    }

    /// Lets go of what is over. To be called every few seconds.
    pub fn sweep(&self) {
        self.cases.sweep();
    }

    /// Returns how full each store is. The words are the label `store` of the metrics.
    pub fn usages(&self) -> [(&'static str, StoreUsage); 5] {
        [
            ("answers", self.customers.usage() + self.billing.usage()),
            (
                "pages",
                self.customers.cuts_usage() + self.cases.pages_usage(),
            ),
            ("variants", self.variants.usage()),
            ("snapshots", self.cases.snapshots().usage()),
            ("changes", self.changes.usage()),
        ]
    }
}
