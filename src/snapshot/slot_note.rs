//! The note in a store of one gateway about the scrolls that are open at the vendor if the process
//! ends.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::clock::{Clock, Duration};
use crate::store::pack::{PackReader, PackWriter};

/// Name of the note about open scrolls in the store.
pub(super) const SCROLLS: &str = "scrolls";
/// The payer of scrolls that an earlier process left open.
pub(super) static BEFORE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("before the restart"));

pub(super) fn write_scrolls(left: &[Duration], clock: &Clock) -> Vec<u8> {
    let mut out = PackWriter::default();
    out.stamp(clock.stamp());
    for left in left {
        out.u64(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    }
    out.done()
}

/// Decodes how long each scroll stays open. If the age of the note is unknown, returns the full
/// times.
pub(super) fn read_scrolls(bytes: Bytes, clock: &Clock) -> Option<Vec<Duration>> {
    let mut reader = PackReader::new(bytes);
    let age = reader.stamp()?.age(&clock.stamp()).unwrap_or_default();
    let mut all = Vec::new();
    while !reader.is_over() {
        let left = Duration::from_millis(reader.u64()?).saturating_sub(age);
        if !left.is_zero() {
            all.push(left.min(SCROLL_EXPIRY_MAX));
        }
    }
    Some(all)
}

/// Maximum time that a scroll counts across a restart: the largest `scroll_expiry`.
const SCROLL_EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
