//! What a vendor said about its limits, stored across a restart: the rest of a hold-down, the
//! number of 429 answers in a row, the time of the last call, and whether it rejects our keys.
//!
//! A change is stored at once, the time of the last call once a second. Credit is not stored. After
//! a start it grows from zero since the last call. So no minute sees more than the rate and the
//! burst, whenever the earlier process ended.

use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{Clock, Duration, Instant, Stamp};
use crate::domain::{AccountId, Vendor};
use crate::store::Store;
use crate::store::pack::{PackReader, PackWriter};

/// Time between two notes that calls are being made.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// The last call may be later than the stored time: by the pause between two notes, and by the time
/// that the store takes to write one.
const SIGN_MARGIN: Duration = Duration::from_millis(1_250);

/// Stores the notes about one credential. Does nothing until a store is set.
#[derive(Default)]
pub(super) struct Notebook {
    place: OnceLock<(Store, String)>,
    signed: Mutex<Option<Instant>>,
}

impl Notebook {
    /// Sets the store. From now on, notes are stored.
    pub fn open(&self, store: &Store, what: &str, vendor: Vendor, account: &AccountId) {
        let name = format!("{what}/{}/{}", vendor.as_str(), account.as_str());
        // This is set once, when the gateway is built.
        let _ = self.place.set((store.clone(), name));
    }

    /// Stores `content` in place of the earlier note.
    pub fn note(&self, content: &[u8]) {
        if let Some((store, name)) = self.place.get() {
            store.note(name, content);
        }
    }

    /// Returns whether it is time to store again that calls are being made.
    pub fn is_due(&self, now: Instant) -> bool {
        if self.place.get().is_none() {
            return false;
        }
        let mut signed = self.signed.lock();
        let due = signed.is_none_or(|at| now.saturating_duration_since(at) >= SIGN_EVERY);
        if due {
            *signed = Some(now);
        }
        due
    }

    /// Reads the stored note. `Ok(None)` if there is none.
    ///
    /// # Errors
    /// `Err` if the store does not answer.
    pub async fn read(&self) -> Result<Option<Bytes>, ()> {
        match self.place.get() {
            Some((store, name)) => store.recall(name).await.map_err(|_| ()),
            None => Ok(None),
        }
    }
}

/// The part of a pace that outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PaceMemory {
    /// Rest of the hold-down, and whether every call is refused until its end.
    pub stop: Option<(Duration, bool)>,
    /// Number of 429 answers in a row.
    pub strikes: u32,
}

impl PaceMemory {
    /// Encodes it for the store.
    pub fn write(&self, clock: &Clock) -> Vec<u8> {
        let (left, refuses) = self.stop.unwrap_or_default();
        PackWriter::default()
            .stamp(clock.stamp())
            .u64(millis(left))
            .flag(refuses)
            .u32(self.strikes)
            .done()
    }

    /// Decodes a note. Returns it as of now, with the time that has certainly passed since the last
    /// call. A hold-down of unknown age starts over, so it is never longer than it was.
    pub fn read(bytes: Bytes, clock: &Clock) -> Option<(Self, Duration)> {
        let mut reader = PackReader::new(bytes);
        let age = reader.stamp()?.age(&clock.stamp());
        let left = Duration::from_millis(reader.u64()?);
        let refuses = reader.flag()?;
        let strikes = reader.u32()?;
        let left = left.saturating_sub(age.unwrap_or_default());
        let memory = Self {
            stop: (!left.is_zero()).then_some((left, refuses)),
            strikes,
        };
        let idle = age.unwrap_or_default().saturating_sub(SIGN_MARGIN);
        reader.is_over().then_some((memory, idle))
    }
}

/// Encodes the rest of a wait for the store.
pub(super) fn write_wait(left: Option<Duration>, clock: &Clock) -> Vec<u8> {
    PackWriter::default()
        .stamp(clock.stamp())
        .u64(left.map_or(0, millis))
        .done()
}

/// Decodes the rest of a wait, at most `max`.
pub(super) fn read_wait(bytes: Bytes, max: Duration, clock: &Clock) -> Option<Duration> {
    let mut reader = PackReader::new(bytes);
    let stamp: Stamp = reader.stamp()?;
    let left = Duration::from_millis(reader.u64()?);
    let age = stamp.age(&clock.stamp()).unwrap_or_default();
    Some(left.saturating_sub(age).min(max)).filter(|left| !left.is_zero())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
