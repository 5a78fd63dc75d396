//! The bell: short messages by which the gateways that share an engine wake each other.
//!
//! ```text
//! append in the engine ─▶ Ring::Line ─▶ every gateway ─▶ BellListener::rung_within ─▶ it looks
//! ```
//!
//! - A [`Ring`] says what changed, by name. It carries no content, so a forged ring only makes a
//!   gateway look at the store.
//! - A [`BellListener`] waits for rings about one thing. It also wakes after the interval at which
//!   the gateway would look anyway, so a lost ring costs that interval and nothing else.
//! - There is no queue of rings. The engine's connection marks who has to look and wakes them, and
//!   ten rings before one look count once.
//!
//! What must never happen here: a decision by the content of a ring; a wait that is longer with the
//! bell than without it; a lock that is held while something waits.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::handle::{Store, StoreInner, answer_name};
use super::record::RecordName;
use crate::clock::{Duration, Instant, sleep_until, timeout};

/// Shortest time between two looks that rings cause. A look takes about a millisecond and a vendor
/// page at least fifty, so no row waits long, and a storm of rings about one thing costs fifty
/// looks a second at most.
pub const RING_REST: Duration = Duration::from_millis(20);

/// What has changed in a shared engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ring {
    /// The rows or the claim of a line.
    Line(RecordName),
    /// What first pages of a line are cut from: its first rows, their age, or its end. Those who
    /// listen to the line hear it too.
    Head(RecordName),
    /// What gateways want of a line.
    Want(RecordName),
    /// An answer, its failure, or the claim on it.
    Answer(RecordName),
    /// The purges of all gateways.
    Purges,
}

impl Ring {
    const LINE: &[u8] = b"ln";
    const HEAD: &[u8] = b"hd";
    const WANT: &[u8] = b"wt";
    const ANSWER: &[u8] = b"an";
    const PURGES: &[u8] = b"pg";

    /// Reads a message: two bytes of kind, then the name. `None` for anything else.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, name) = bytes.split_at_checked(2)?;
        if kind == Self::PURGES {
            return name.is_empty().then_some(Self::Purges);
        }
        let name = RecordName(name.try_into().ok()?);
        match kind {
            Self::LINE => Some(Self::Line(name)),
            Self::HEAD => Some(Self::Head(name)),
            Self::WANT => Some(Self::Want(name)),
            Self::ANSWER => Some(Self::Answer(name)),
            _ => None,
        }
    }
}

/// Called for every ring, in the task that reads the engine's connection. It must not wait.
pub type RingHook = Box<dyn Fn(Ring) + Send + Sync>;

/// Called with the line of a search whose first pages may be newer in the store. It must not wait.
pub type HeadHook = Arc<dyn Fn(RecordName) + Send + Sync>;

/// Those in this process that wait for rings.
#[derive(Default)]
pub(super) struct Bell {
    listeners: Mutex<HashMap<Ring, watch::Sender<()>, RandomState>>,
    on_head: Mutex<Option<HeadHook>>,
}

impl Bell {
    /// Wakes those that wait for this ring.
    fn ring(&self, ring: Ring) {
        if let Some(listeners) = self.listeners.lock().get(&ring) {
            listeners.send_replace(());
        }
    }

    /// Begins to listen. Rings from now on count.
    pub(super) fn listen(self: &Arc<Self>, ring: Ring, now: Instant) -> BellListener {
        let mut listeners = self.listeners.lock();
        let rings = listeners.entry(ring).or_default().subscribe();
        BellListener {
            heard: Some((self.clone(), ring, rings)),
            looked: now,
        }
    }
}

/// Waits for rings about one thing.
pub struct BellListener {
    /// `None` if nothing ever rings.
    heard: Option<(Arc<Bell>, Ring, watch::Receiver<()>)>,
    looked: Instant,
}

impl BellListener {
    /// Returns a listener for which nothing ever rings.
    fn deaf(now: Instant) -> Self {
        Self {
            heard: None,
            looked: now,
        }
    }

    /// Records that the store is looked at now. Call it before the look, so that a ring during the
    /// look leads to another one.
    pub fn looks(&mut self, now: Instant) {
        self.looked = now;
        if let Some((_, _, rings)) = &mut self.heard {
            rings.mark_unchanged();
        }
    }

    /// Waits for a ring since the last look, and until [`RING_REST`] has passed since that look.
    /// Returns after `limit` in any case.
    pub async fn rung_within(&mut self, limit: Duration) {
        let looked = self.looked;
        let rung = async {
            if let Some((_, _, rings)) = &mut self.heard
                && rings.changed().await.is_ok()
            {
                sleep_until(looked + RING_REST).await;
            } else {
                std::future::pending().await
            }
        };
        // Both ends mean the same: it is time to look.
        let _ = timeout(limit, rung).await;
    }
}

impl Drop for BellListener {
    fn drop(&mut self) {
        if let Some((bell, ring, rings)) = self.heard.take() {
            let mut listeners = bell.listeners.lock();
            drop(rings);
            let is_last = |sender: &watch::Sender<()>| sender.receiver_count() == 0;
            if listeners.get(&ring).is_some_and(is_last) {
                listeners.remove(&ring);
            }
        }
    }
}

impl Store {
    /// Listens for changes of the answer of this identity. Waits for names of the store until
    /// `since` and the store's own time limit have passed.
    pub async fn listen_to_answer(&self, identity: &[u8; 32], since: Instant) -> BellListener {
        let Some(inner) = self.inner.as_ref().filter(|inner| inner.is_shared()) else {
            return BellListener::deaf(since);
        };
        let names = inner.names(since + inner.engine.wait_max()).await;
        let now = inner.clock.now();
        match names {
            Some(names) => {
                let name = answer_name(&names.0, identity);
                inner.bell.listen(Ring::Answer(name), now)
            }
            None => BellListener::deaf(now),
        }
    }

    /// Listens for changes of the line of a search, by its identity. `now` is the time.
    pub async fn listen_to_line(&self, identity: &[u8; 32], now: Instant) -> BellListener {
        let Some(inner) = self.inner.as_ref().filter(|inner| inner.is_shared()) else {
            return BellListener::deaf(now);
        };
        match inner.line_of(identity, inner.patience()).await {
            Some((line, _)) => inner.bell.listen(Ring::Line(line), inner.clock.now()),
            None => BellListener::deaf(now),
        }
    }
}

impl Store {
    /// Returns the name of the line of a search, by its identity. `None` without a shared store,
    /// and before the names are known.
    pub fn line_name(&self, identity: &[u8; 32]) -> Option<RecordName> {
        let inner = self.inner.as_ref().filter(|inner| inner.is_shared())?;
        Some(inner.known_names()?.0.of_line(identity))
    }

    /// Sets the hook for newer first pages. The last hook counts.
    pub fn on_head(&self, hook: HeadHook) {
        if let Some(inner) = &self.inner {
            *inner.bell.on_head.lock() = Some(hook);
        }
    }
}

impl StoreInner {
    /// Hears the rings of a shared engine.
    pub(super) fn hear_rings(self: &Arc<Self>) {
        let Some(fleet) = self.engine.fleet() else {
            return;
        };
        // The engine belongs to the store, and ends with it.
        let inner: Weak<Self> = Arc::downgrade(self);
        fleet.on_ring(Box::new(move |ring| {
            if let Some(inner) = inner.upgrade() {
                match ring {
                    Ring::Want(line) => inner.hear_want(line),
                    Ring::Head(line) => {
                        inner.bell.ring(Ring::Line(line));
                        let hook = inner.bell.on_head.lock().clone();
                        if let Some(hook) = hook {
                            hook(line);
                        }
                    }
                    Ring::Line(_) | Ring::Answer(_) | Ring::Purges => inner.bell.ring(ring),
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: RecordName = RecordName(*b"0123456789abcdef");

    fn at(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn a_message_is_a_kind_and_a_name_and_nothing_else() {
        let line = Some(Ring::Line(NAME));
        for (message, expected) in [
            ("ln0123456789abcdef", line),
            ("hd0123456789abcdef", Some(Ring::Head(NAME))),
            ("wt0123456789abcdef", Some(Ring::Want(NAME))),
            ("an0123456789abcdef", Some(Ring::Answer(NAME))),
            ("pg", Some(Ring::Purges)),
            ("pg0123456789abcdef", None),
            ("ln0123456789abcde", None),
            ("ln0123456789abcdefg", None),
            ("xx0123456789abcdef", None),
            ("ln", None),
            ("p", None),
            ("", None),
        ] {
            assert_eq!(Ring::of_bytes(message.as_bytes()), expected, "{message:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_wakes_at_a_ring_and_without_one_at_its_limit() {
        let (bell, begun) = (Arc::<Bell>::default(), Instant::now());
        let limit = Duration::from_millis(250);
        let mut listener = bell.listen(Ring::Line(NAME), begun);
        listener.looks(begun);
        // About other things.
        bell.ring(Ring::Want(NAME));
        bell.ring(Ring::Line(RecordName([0; 16])));
        listener.rung_within(limit).await;
        assert_eq!(Instant::now(), at(begun, 250));
        // During a look, before the wait begins: it is looked again, after a rest.
        listener.looks(Instant::now());
        bell.ring(Ring::Line(NAME));
        listener.rung_within(limit).await;
        assert_eq!(Instant::now(), at(begun, 250) + RING_REST);
        // During the wait, after the rest: at once.
        listener.looks(Instant::now());
        let ring = async {
            crate::clock::sleep(Duration::from_millis(100)).await;
            bell.ring(Ring::Line(NAME));
        };
        tokio::join!(listener.rung_within(limit), ring);
        assert_eq!(Instant::now(), at(begun, 350) + RING_REST);
        // The limit holds where it is shorter than the rest.
        listener.looks(Instant::now());
        bell.ring(Ring::Line(NAME));
        listener.rung_within(Duration::from_millis(10)).await;
        assert_eq!(Instant::now(), at(begun, 360) + RING_REST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_rings_is_few_looks() {
        let (bell, begun) = (Arc::<Bell>::default(), Instant::now());
        let mut listener = bell.listen(Ring::Line(NAME), begun);
        let storm = async {
            loop {
                bell.ring(Ring::Line(NAME));
                crate::clock::sleep(Duration::from_millis(1)).await;
            }
        };
        let looks = async {
            let mut looks = 0;
            while Instant::now() < at(begun, 1_000) {
                listener.looks(Instant::now());
                looks += 1;
                listener.rung_within(Duration::from_millis(250)).await;
            }
            looks
        };
        let looks = tokio::select! {
            () = storm => 0,
            looks = looks => looks,
        };
        assert_eq!(looks, 50);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_leave_are_forgotten() {
        let (bell, now) = (Arc::<Bell>::default(), Instant::now());
        let ring = Ring::Line(NAME);
        let (one, mut two) = (bell.listen(ring, now), bell.listen(ring, now));
        drop(one);
        bell.ring(ring);
        two.rung_within(Duration::from_secs(60)).await;
        assert!(now.elapsed() <= RING_REST);
        drop(two);
        assert!(bell.listeners.lock().is_empty());
    }
}
