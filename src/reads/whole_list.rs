//! All rows of a search, for an export or for changes. Finds their snapshot and waits for rows that
//! are still being read.

use std::sync::Arc;

use tokio::sync::watch;

use super::ReadError;
use super::answer::{Account, Asker};
use super::cases::Cases;
use super::export::ExportStream;
use crate::cache::{CacheNote, Standing};
use crate::clock::{Duration, Instant};
use crate::domain::{Kind, SearchQuery, Vendor};
use crate::metrics::Metrics;
use crate::snapshot::{Growth, PageFailure, Snapshot, View, Want};

/// A list is given up if no new row arrives within this time, for instance because the vendor's
/// budget is used up.
pub(super) const STALL_MAX: Duration = Duration::from_secs(5 * 60);

/// All rows of a search.
pub(super) struct WholeList {
    cases: Arc<Cases>,
    /// The snapshot with the rows. It may hold other rows too.
    pub snapshot: Arc<Snapshot>,
    /// The view that selects the rows.
    pub view: View,
    /// How the snapshot was found.
    pub note: CacheNote,
}

impl WholeList {
    /// Finds the snapshot that answers a search now, or starts one.
    pub async fn open(
        cases: &Arc<Cases>,
        asker: &Asker,
        query: &Arc<SearchQuery>,
    ) -> Result<Self, ReadError> {
        cases.recall_views(asker, query).await;
        let (snapshot, view, note) = match cases.derived(asker, query, &[Standing::Fresh]) {
            Some(derived) => {
                let note = cases.derived_note(&derived.snapshot, derived.detail);
                (derived.snapshot, derived.view, note)
            }
            None => {
                let opened = cases.open(asker, query, true).await?;
                let view = View::new(None, asker.audience().clone());
                (opened.snapshot, view, opened.note)
            }
        };
        Ok(Self {
            cases: cases.clone(),
            snapshot,
            view,
            note,
        })
    }

    /// Waits until the snapshot's first rows are known. They are enough for an answer to begin,
    /// because a view may contain none of them. Until then it may still be a typed error.
    pub async fn until_begun(&self, asker: &Asker) -> Result<(), PageFailure> {
        let mut changes = self.snapshot.changes();
        while {
            changes.borrow_and_update();
            self.snapshot.ages().is_none()
        } {
            self.wait(asker, asker.deadline, &mut changes).await?;
        }
        Ok(())
    }

    /// Waits until the snapshot changes after `changes` was last marked as seen.
    pub async fn wait(
        &self,
        asker: &Asker,
        deadline: Instant,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), PageFailure> {
        let seen_failures = self.snapshot.failures();
        let ask = Growth {
            want: Want::Export,
            seen_failures,
            payer: &asker.payer,
            deadline,
        };
        let snapshots = self.cases.snapshots();
        snapshots
            .wait_for_growth(&self.snapshot, ask, changes)
            .await?;
        match self.snapshot.failure_since(seen_failures) {
            Some(failure) => Err(PageFailure::Walk(failure)),
            None => Ok(()),
        }
    }
}

/// Counts the start of a stream on the caller's account.
pub(super) fn accounted(
    metrics: &Metrics,
    asker: &Asker,
    begun: Result<ExportStream, ReadError>,
) -> Result<ExportStream, ReadError> {
    let account = Account {
        metrics,
        vendor: Vendor::Wiv,
        kind: Kind::Cases,
    };
    match &begun {
        Ok(stream) => account.answered(asker, &stream.note, None),
        Err(error) => account.refused(error),
    }
    begun
}
