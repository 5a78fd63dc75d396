//! Sets the gauges that are read when metrics are scraped.

use super::App;
use super::vendor::Side;
use crate::domain::Vendor;
use crate::metrics::VendorStanding;

impl App {
    /// Sets every gauge of a state to what is true now.
    pub(super) fn measure(&self) {
        let state = &self.metrics.state;
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let in_flight = [
            (&state.requests_in_flight, self.in_flight.now()),
            (&state.requests_in_flight_max, self.in_flight.limit()),
            (&state.exports_running, self.exports.now()),
            (&state.exports_max, self.exports.limit()),
            (&state.followers, self.followers.now()),
            (&state.followers_max, self.followers.limit()),
            // Also drops scrolls that have expired at the vendor, and sets their gauges.
            (
                &state.searches_waiting,
                self.snapshots.slots.usage().waiting,
            ),
        ];
        for (gauge, value) in in_flight {
            gauge.set(count(value));
        }
        for (store, usage) in self.reads.usages() {
            state.set_store(store, usage);
        }
        for side in self.sides.present() {
            self.measure_vendor(side.vendor(), side);
        }
    }

    fn measure_vendor(&self, vendor: Vendor, side: &Side) {
        let gates = side.gates();
        // Also sets the gauges of the vendor's pace.
        let pace = gates.governor.snapshot();
        let standing = VendorStanding {
            hold_down: pace.hold_down.unwrap_or_default(),
            key_refused: gates.credential.is_rejected(),
            fallback_in_use: gates.credential.uses_fallback(),
            in_flight: pace.in_flight,
        };
        let queued = pace.queued.iter();
        let queued = queued.map(|(lane, calls)| (lane.as_str(), *calls));
        self.metrics.state.set_vendor(vendor, standing, queued);
    }

    /// Counts a reload, and notes how it ended: with what needs a restart and was not taken, or
    /// with the reason why the settings in the files are not the ones in force.
    pub fn note_reload(&self, ended: &Result<Vec<String>, String>) {
        let now = self.clock.wall();
        self.metrics.config_reload(ended.is_ok(), now.as_second());
        self.in_force.reloaded(now, ended);
    }
}
