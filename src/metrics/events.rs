//! Counters of the streams of events.

use prometheus::IntCounter;

use super::declare::Declare;

/// What happened in callers' streams of events.
#[derive(Clone)]
pub struct EventsMeter {
    changed: IntCounter,
    reset: IntCounter,
    cut: IntCounter,
}

impl EventsMeter {
    pub(super) fn new(declare: &Declare<'_>) -> Result<Self, prometheus::Error> {
        let all = declare.counters(
            "events_total",
            "Changes recorded for event streams, and streams that were reset or cut.",
            &["what"],
        )?;
        let of = |what| all.with_label_values(&[what]);
        Ok(Self {
            changed: of("changed"),
            reset: of("reset"),
            cut: of("cut"),
        })
    }

    /// Counts an answer of a caller that has changed.
    pub fn changed(&self) {
        self.changed.inc();
    }

    /// Counts a reader that resumed before the start of the kept history.
    pub fn reset(&self) {
        self.reset.inc();
    }

    /// Counts a reader that fell behind and was cut.
    pub fn cut(&self) {
        self.cut.inc();
    }
}
