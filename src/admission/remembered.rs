//! What a vendor said about its limits, kept across a restart: how long nothing may be sent, how often
//! it refused in a row, when a call was last made, and that it refuses our keys.
//!
//! It is noted when it changes; that calls are made, once a second. Credit is not kept: after a start
//! it grows from zero since the last call, so that no minute sees more than the rate and the burst,
//! whenever the process before ended.

use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{Clock, Duration, Instant, Stamp};
use crate::domain::{AccountId, Vendor};
use crate::store::Store;
use crate::store::pack::{PackReader, PackWriter};

/// How often it is noted that calls are made.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// The last call may have come later than was noted: by the pause between two notes, and by the time
/// that the store takes to write one.
const SIGN_MARGIN: Duration = Duration::from_millis(1_250);

/// Where something of one credential is noted. Empty until there is a store.
#[derive(Default)]
pub(super) struct Notebook {
    place: OnceLock<(Store, String)>,
    signed: Mutex<Option<Instant>>,
}

impl Notebook {
    /// From now on notes are kept.
    pub fn open(&self, store: &Store, what: &str, vendor: Vendor, account: &AccountId) {
        let name = format!("{what}/{}/{}", vendor.as_str(), account.as_str());
        // Set once, when the gateway is built.
        let _ = self.place.set((store.clone(), name));
    }

    /// Keeps this in place of what was noted before.
    pub fn note(&self, content: &[u8]) {
        if let Some((store, name)) = self.place.get() {
            store.note(name, content);
        }
    }

    /// Returns whether it is time again to note that calls are made.
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

    /// What was noted. `Ok(None)` where nothing was, `Err` where the store does not say.
    pub async fn read(&self) -> Result<Option<Bytes>, ()> {
        match self.place.get() {
            Some((store, name)) => store.recall(name).await.map_err(|_| ()),
            None => Ok(None),
        }
    }
}

/// What of a pace outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PaceMemory {
    /// Time for which nothing is sent, and whether everyone is refused meanwhile.
    pub stop: Option<(Duration, bool)>,
    /// 429 answers in a row.
    pub strikes: u32,
}

impl PaceMemory {
    /// Returns the bytes to note.
    pub fn write(&self, clock: &Clock) -> Vec<u8> {
        let (left, refuses) = self.stop.unwrap_or_default();
        PackWriter::default()
            .stamp(clock.stamp())
            .u64(millis(left))
            .flag(refuses)
            .u32(self.strikes)
            .done()
    }

    /// What was noted, as it stands by now, and the time since the last call that is certain. A stop
    /// of unknown age begins anew: it is never longer than it was.
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

/// Returns the bytes to note of a time until which something is so.
pub(super) fn write_wait(left: Option<Duration>, clock: &Clock) -> Vec<u8> {
    PackWriter::default()
        .stamp(clock.stamp())
        .u64(left.map_or(0, millis))
        .done()
}

/// What of such a time is left, `max` at most.
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
