//! The limits of walks, snapshots and tokens.

use super::slots::SlotLimits;
use crate::clock::Duration;
use crate::domain::PageSize;

/// The `[pagination]` settings.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// Rows requested in every page of the vendor, whatever callers request.
    pub vendor_page_size: PageSize,
    /// Vendor pages read beyond the furthest reader.
    pub read_ahead_pages: usize,
    /// A walk that no caller read for this long is drained a little or abandoned.
    pub scroll_idle_max: Duration,
    /// How long an abandoned or lost scroll counts against `vendor_scrolls_max`: as long as the
    /// vendor keeps it.
    pub scroll_expiry: Duration,
    /// Maximum number of running walks.
    pub open_scrolls_max: usize,
    /// Maximum number of scrolls that may be open at the vendor: those of running walks, and those
    /// that were abandoned, lost or never answered, until `scroll_expiry`. Never less than
    /// `open_scrolls_max`.
    pub vendor_scrolls_max: usize,
    /// How long a search waits for a free slot before it is refused as overloaded.
    pub slot_wait_max: Duration,
    /// Maximum pages that an idle walk reads to reach its end before it is abandoned.
    pub drain_pages_max: usize,
    /// Maximum rows of one walk.
    pub walk_rows_max: usize,
    /// Maximum vendor pages of one walk.
    pub walk_pages_max: usize,
    /// Maximum bytes of one walk's rows.
    pub walk_bytes_max: u64,
    /// Maximum duration of one walk.
    pub walk_time_max: Duration,
    /// Maximum new searches in a row after a lost scroll.
    pub rewalks_max: u32,
    /// Minimum time that a snapshot is kept after its last use.
    pub token_lifetime: Duration,
    /// Whether a token whose snapshot is gone may continue in another one that shows the same rows
    /// before its place.
    pub token_heal: bool,
    /// Maximum time that a snapshot is kept after its birth.
    pub snapshot_lifetime_max: Duration,
    /// Maximum bytes of all snapshots together.
    pub snapshot_bytes_max: u64,
}

impl SnapshotOptions {
    pub(super) fn slot_limits(&self) -> SlotLimits {
        SlotLimits {
            running: self.open_scrolls_max,
            // Each running walk has a scroll, so a smaller number would make the first limit
            // unreachable.
            standing: self.vendor_scrolls_max.max(self.open_scrolls_max),
        }
    }
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            vendor_page_size: PageSize::MAX,
            read_ahead_pages: 1,
            scroll_idle_max: Duration::from_secs(45),
            scroll_expiry: Duration::from_secs(5 * 60),
            open_scrolls_max: 32,
            vendor_scrolls_max: 200,
            slot_wait_max: Duration::from_secs(10),
            drain_pages_max: 10,
            walk_rows_max: 200_000,
            walk_pages_max: 2_000,
            walk_bytes_max: 200 * 1024 * 1024,
            walk_time_max: Duration::from_secs(30 * 60),
            rewalks_max: 10,
            token_lifetime: Duration::from_secs(30 * 60),
            token_heal: true,
            snapshot_lifetime_max: Duration::from_secs(24 * 60 * 60),
            snapshot_bytes_max: 256 * 1024 * 1024,
        }
    }
}
