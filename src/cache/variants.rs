//! Bodies in content codings: each made once, off the threads that answer, and then shared.
//!
//! A variant is named by the tag of the plain body it was made of. Whoever may have that body may
//! have it in another coding, and nobody comes to another's variant, because nobody names a body but
//! by having it. So variants know nothing of callers, and the same bytes cut for two audiences are
//! coded once.
//!
//! Nobody waits for a variant: until it is there, the body is sent as it is.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::HeaderValue;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::coding::Coding;
use super::etag::{DIGEST_BYTES, Etag};
use super::local::ENTRY_OVERHEAD_BYTES;
use crate::metrics::{Metrics, VariantOutcome};

/// Bodies that may wait to be coded. They are held meanwhile, and a wish past this is heard the next
/// time.
const QUEUE_MAX: usize = 64;
/// Largest body that is coded: a search page of 10,000 rows is some 5 MB.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Which bodies are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariantOptions {
    /// Whether any is.
    pub enabled: bool,
    /// Bytes from which a body is worth it: below, a packet is saved at most.
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
    /// Which coding.
    pub coding: Coding,
    /// The coded bytes.
    pub body: Bytes,
    /// Their own strong tag.
    pub etag: HeaderValue,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Name {
    body: [u8; DIGEST_BYTES],
    coding: Coding,
}

/// What is known of a variant.
enum Slot {
    /// Asked for; `queued` once it is to be made.
    Wanted { queued: AtomicBool },
    /// Here it is.
    Made(Variant),
    /// It would be no smaller, or could not be made.
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

/// The variants of all bodies, within bytes of their own.
pub struct Variants {
    slots: Cache<Name, Arc<Slot>, RandomState>,
    queue: Mutex<Queue>,
    /// Smaller bodies are left alone; all of them if none is to be coded.
    bytes_min: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Variants {
    /// Holds up to `bytes_max` bytes.
    pub fn new(bytes_max: u64, options: VariantOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        let this = Self {
            slots: Cache::builder()
                .max_capacity(bytes_max)
                .weigher(|_: &Name, slot: &Arc<Slot>| slot.weight())
                .build_with_hasher(RandomState::default()),
            queue: Mutex::default(),
            bytes_min: AtomicUsize::new(0),
            metrics,
        };
        this.configure(options);
        for coding in Coding::ALL {
            this.metrics.declare_variant(coding.as_str());
        }
        Arc::new(this)
    }

    /// Codes by other options from now on. What is made stays.
    pub fn configure(&self, options: VariantOptions) {
        let bytes_min = if options.enabled {
            options.bytes_min
        } else {
            usize::MAX
        };
        self.bytes_min.store(bytes_min, Ordering::Relaxed);
    }

    /// The body in the first of `codings` that is at hand. The first of them is what the caller would
    /// rather have: it is made if this is the second time that somebody would.
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
            body: etag.digest(),
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
            // Most bodies are read once. Coding them would be for nothing.
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

    /// Forgets everything.
    pub fn clear(&self) {
        self.queue.lock().jobs.clear();
        self.slots.invalidate_all();
    }

    /// (entries, bytes) held right now.
    pub fn size(&self) -> (u64, u64) {
        self.slots.run_pending_tasks();
        (self.slots.entry_count(), self.slots.weighted_size())
    }

    fn put(&self, name: Name, slot: Slot) {
        self.slots.insert(name, Arc::new(slot));
    }

    /// Whether there was room for it.
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
            // One thread at a time, so that coding never takes more than one core from answering.
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
        // A panic in a coder must not end the work on others.
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
        // Weighed at its insertion, so the grown slot is inserted anew.
        self.put(job.name, slot);
        self.metrics.variant(coding.as_str(), outcome);
    }
}

/// Makes what is queued, until nothing is or nobody holds the variants any more.
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
