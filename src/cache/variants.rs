//! Bodies in content codings. Each is encoded once, off the threads that answer, and then shared.
//!
//! A variant is keyed by the tag of its plain body. A caller that may have the plain body may have
//! it in another coding. No caller can reach another caller's variant, because it would need that
//! body's tag. So variants know nothing of callers, and equal bytes cut for two audiences are
//! encoded once.
//!
//! No caller waits for a variant: until it is ready, the plain body is sent.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::HeaderValue;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::coding::Coding;
use super::etag::{BodyName, Etag};
use super::local::ENTRY_OVERHEAD_BYTES;
use super::near::count_evictions;
use crate::metrics::{Metrics, StoreUsage, VariantOutcome};

/// Most bodies that wait to be encoded, because they are held in memory meanwhile. A body beyond
/// this is queued at its next reading.
const QUEUE_MAX: usize = 64;
/// Largest body that is encoded. A search page of 10,000 rows has about 5 MB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Which bodies are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariantOptions {
    /// Whether any body is encoded.
    pub enabled: bool,
    /// Smallest body that is encoded. Below this size, a coding saves one packet at most.
    pub bytes_min: usize,
}

impl Default for VariantOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes_min: 1024,
        }
    }
}

/// A body in a content coding.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The coding.
    pub coding: Coding,
    /// The coded bytes.
    pub body: Bytes,
    /// The tag of the coded bytes.
    pub etag: HeaderValue,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Name {
    body: BodyName,
    coding: Coding,
}

/// The state of a variant.
enum Slot {
    /// A caller asked for it. `queued` once it is to be made.
    Wanted { queued: AtomicBool },
    /// It is ready.
    Made(Variant),
    /// It would not be smaller, or could not be made.
    Useless,
}

impl Slot {
    fn weight(&self) -> u32 {
        match self {
            Self::Wanted { .. } | Self::Useless => ENTRY_OVERHEAD_BYTES / 2,
            Self::Made(variant) => u32::try_from(variant.body.len())
                .unwrap_or(u32::MAX)
                .saturating_add(ENTRY_OVERHEAD_BYTES),
        }
    }
}

struct Job {
    name: Name,
    body: Bytes,
    etag: Etag,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    at_work: bool,
}

/// The variants of all bodies, within a bound of their own.
pub struct Variants {
    slots: Cache<Name, Arc<Slot>, RandomState>,
    queue: Mutex<Queue>,
    /// Size below which bodies are not encoded. It is the maximum if no body is.
    bytes_min: AtomicUsize,
    /// How many bytes all may take.
    bytes_max: u64,
    /// How many had to go for want of room.
    evicted: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Variants {
    /// Makes an empty store of `bytes_max` bytes.
    pub fn new(bytes_max: u64, options: VariantOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        let evicted = Arc::<AtomicU64>::default();
        let this = Self {
            slots: Cache::builder()
                .max_capacity(bytes_max)
                .weigher(|_: &Name, slot: &Arc<Slot>| slot.weight())
                .eviction_listener(count_evictions(&evicted))
                .build_with_hasher(RandomState::default()),
            queue: Mutex::default(),
            bytes_min: AtomicUsize::new(0),
            bytes_max,
            evicted,
            metrics,
        };
        this.configure(options);
        for coding in Coding::ALL {
            this.metrics.declare_variant(coding.as_str());
        }
        Arc::new(this)
    }

    /// Uses other options from now on. Existing variants stay.
    pub fn configure(&self, options: VariantOptions) {
        let bytes_min = if options.enabled {
            options.bytes_min
        } else {
            usize::MAX
        };
        self.bytes_min.store(bytes_min, Ordering::Relaxed);
    }

    /// Returns the body in the first of `codings` that is ready. The first of them is the caller's
    /// preference: it is encoded once two callers have preferred it.
    pub fn find(
        self: &Arc<Self>,
        mut codings: impl Iterator<Item = Coding>,
        body: &Bytes,
        etag: &Etag,
    ) -> Option<Variant> {
        let first = codings.next()?;
        if body.len() < self.bytes_min.load(Ordering::Relaxed) || body.len() > BODY_BYTES_MAX {
            return None;
        }
        let name = |coding| Name {
            body: etag.body_name(),
            coding,
        };
        if let Some(slot) = self.slots.get(&name(first)) {
            match &*slot {
                Slot::Made(variant) => return Some(variant.clone()),
                Slot::Useless => return None,
                Slot::Wanted { queued } => {
                    if !queued.swap(true, Ordering::Relaxed) {
                        let job = Job {
                            name: name(first),
                            body: body.clone(),
                            etag: etag.clone(),
                        };
                        let taken = self.enqueue(job);
                        queued.store(taken, Ordering::Relaxed);
                    }
                }
            }
        } else {
            // Most bodies are read once, and encoding them would be wasted.
            let queued = AtomicBool::new(false);
            self.put(name(first), Slot::Wanted { queued });
        }
        codings.find_map(|other| {
            let slot = self.slots.get(&name(other))?;
            match &*slot {
                Slot::Made(variant) => Some(variant.clone()),
                Slot::Useless | Slot::Wanted { .. } => None,
            }
        })
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.queue.lock().jobs.clear();
        self.slots.invalidate_all();
    }

    /// Returns (entries, bytes) in memory now.
    pub fn size(&self) -> (u64, u64) {
        self.slots.run_pending_tasks();
        (self.slots.entry_count(), self.slots.weighted_size())
    }

    /// Returns how full it is.
    pub fn usage(&self) -> StoreUsage {
        let (entries, bytes) = self.size();
        StoreUsage {
            entries,
            bytes,
            bytes_max: self.bytes_max,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    fn put(&self, name: Name, slot: Slot) {
        self.slots.insert(name, Arc::new(slot));
    }

    /// Queues a body. Returns whether the queue had room for it.
    fn enqueue(self: &Arc<Self>, job: Job) -> bool {
        let mut queue = self.queue.lock();
        if queue.jobs.len() >= QUEUE_MAX {
            drop(queue);
            self.metrics
                .variant(job.name.coding.as_str(), VariantOutcome::Crowded);
            return false;
        }
        queue.jobs.push_back(job);
        if !std::mem::replace(&mut queue.at_work, true) {
            drop(queue);
            let this = Arc::downgrade(self);
            // One thread at a time, so that encoding never takes more than one core from answering.
            tokio::task::spawn_blocking(move || work(&this));
        }
        true
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        let job = queue.jobs.pop_front();
        queue.at_work = job.is_some();
        job
    }

    fn make(&self, job: &Job) {
        let coding = job.name.coding;
        // A panic in an encoder must not stop the encoding of other bodies.
        let coded = catch_unwind(AssertUnwindSafe(|| coding.encode(&job.body)));
        let (slot, outcome) = match coded {
            Ok(Ok(coded)) if coded.len() < job.body.len() => {
                let variant = Variant {
                    coding,
                    body: coded,
                    etag: job.etag.of_form(coding.as_str()),
                };
                (Slot::Made(variant), VariantOutcome::Made)
            }
            Ok(Ok(_)) => (Slot::Useless, VariantOutcome::NotSmaller),
            Ok(Err(why)) => {
                tracing::warn!(%why, coding = coding.as_str(), "a body could not be coded");
                (Slot::Useless, VariantOutcome::Failed)
            }
            Err(_) => {
                self.metrics.panics.inc();
                (Slot::Useless, VariantOutcome::Failed)
            }
        };
        // moka weighs an entry when it is inserted, so the grown entry is inserted again.
        self.put(job.name, slot);
        self.metrics.variant(coding.as_str(), outcome);
    }
}

/// Encodes queued bodies until the queue is empty or the store is dropped.
fn work(variants: &Weak<Variants>) {
    while let Some(this) = variants.upgrade() {
        match this.next() {
            Some(job) => this.make(&job),
            None => return,
        }
    }
}

#[cfg(test)]
#[path = "variants_tests.rs"]
mod tests;
