//! Hears that another gateway has newer first pages of a search that this gateway holds.
//!
//! A refresh by one gateway then counts at all of them: the others take its ages, or its snapshot
//! if the rows have changed, before a reader finds theirs stale. They look in the background, and
//! only for searches that were used recently. Without the bell, a reader gets stale rows once, and
//! its refresh looks at the store before it calls the vendor.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::lineage::Lineage;
use super::store::Snapshots;
use crate::clock::{Duration, Instant, sleep};
use crate::store::fleet::SAME_AGE;
use crate::store::{RING_REST, RecordName};

/// A search that was not used for this long is not looked at: each refresh elsewhere would cost a
/// look, and perhaps a list. An open dashboard asks more often.
const UNUSED_MAX: Duration = Duration::from_secs(300);

/// The searches of this gateway by the names of their lines.
#[derive(Default)]
pub(super) struct HeardLines(Mutex<HashMap<RecordName, HeardLine, RandomState>>);

struct HeardLine {
    lineage: Weak<Lineage>,
    /// Whether a look follows soon. Rings before it are answered by it.
    is_due: bool,
}

impl HeardLines {
    /// Removes searches that are gone.
    pub fn sweep(&self) {
        let is_there = |line: &HeardLine| line.lineage.strong_count() > 0;
        self.0.lock().retain(|_, line| is_there(line));
    }

    /// Returns the search of a line if a look is to follow, which is then due.
    fn begin(
        &self,
        line: RecordName,
        is_useful: impl FnOnce(&Lineage) -> bool,
    ) -> Option<Arc<Lineage>> {
        let mut lines = self.0.lock();
        let heard = lines.get_mut(&line).filter(|heard| !heard.is_due)?;
        let lineage = heard.lineage.upgrade()?;
        heard.is_due = is_useful(&lineage);
        heard.is_due.then_some(lineage)
    }

    fn looks(&self, line: RecordName) {
        if let Some(heard) = self.0.lock().get_mut(&line) {
            heard.is_due = false;
        }
    }
}

impl Snapshots {
    /// Listens to the bell of the store.
    pub(super) fn follow_heads(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        self.kept.on_head(Arc::new(move |line| {
            if let Some(this) = this.upgrade() {
                this.hear_head(line);
            }
        }));
    }

    /// Lets a new search be found by the name of its line.
    pub(super) fn listen_for(&self, lineage: &Arc<Lineage>) {
        if let Some(line) = self.kept.line_name(lineage.key.fingerprint()) {
            let heard = HeardLine {
                lineage: Arc::downgrade(lineage),
                is_due: false,
            };
            self.heard.0.lock().insert(line, heard);
        }
    }

    fn hear_head(self: &Arc<Self>, line: RecordName) {
        // While this gateway has the claim, the change is its own.
        if self.kept.has_claim(line) {
            return;
        }
        let now = self.clock.now();
        let is_useful = |lineage: &Lineage| {
            let current = lineage.current();
            current.is_some_and(|current| {
                let unused = now.saturating_duration_since(current.last_used());
                unused < UNUSED_MAX && !current.is_ended()
            })
        };
        if let Some(lineage) = self.heard.begin(line, is_useful) {
            let this = self.clone();
            tokio::spawn(async move {
                // What changes in a moment is seen in one look.
                sleep(RING_REST).await;
                this.heard.looks(line);
                this.look_at_head(&lineage, this.clock.now()).await;
            });
        }
    }

    async fn look_at_head(self: &Arc<Self>, lineage: &Arc<Lineage>, now: Instant) {
        // A walk of this gateway looks by itself.
        let Some(_turn) = lineage.try_turn() else {
            return;
        };
        let Some(current) = lineage.current().filter(|current| !current.is_ended()) else {
            return;
        };
        let Some(found) = self.kept.find_current(lineage.key.fingerprint()).await else {
            return;
        };
        let own = current.kept.lock().place.map(|place| place.name);
        if own == Some(found.name) {
            self.take_ages(&current, &found);
            return;
        }
        let theirs = self.ages_of(&found, current.lifetimes(), now);
        if let (Some((theirs, true)), Some(own)) = (theirs, current.ages())
            && theirs.head > own.head + SAME_AGE
        {
            self.take_current(&lineage.key, found).await;
        }
    }
}
