//! The requests of callers, as the gateways that share a store sum them.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::App;
use crate::access::{Caller, Throttle};
use crate::clock::Clock;
use crate::store::{CallerUse, FleetUse};

/// Reports what callers were admitted here of their limits, and passes on what they were admitted
/// elsewhere. A caller's requests have one limit, and the refreshes that it forces another one.
pub(super) struct FleetCallers {
    app: Weak<App>,
    clock: Clock,
    turn: Mutex<ReportTurn>,
}

#[derive(Default)]
struct ReportTurn {
    /// Where the next report begins among the callers.
    next: usize,
    /// The callers of the last report, and their requests in it.
    reported: Vec<(Arc<Throttle>, u32)>,
}

impl FleetCallers {
    pub(super) fn new(app: Weak<App>, clock: Clock) -> Self {
        Self {
            app,
            clock,
            turn: Mutex::default(),
        }
    }
}

/// Returns the limits of a caller, each with the name under which gateways sum it.
fn limits(caller: &Arc<Caller>) -> impl Iterator<Item = (Arc<str>, &Arc<Throttle>)> {
    let requests = caller.throttle.as_ref();
    let requests = requests.map(|throttle| (caller.name.clone(), throttle));
    // No caller has a name with a space.
    let forced = caller.forced.throttle();
    let forced = forced.map(|throttle| (format!("{} forced", caller.name).into(), throttle));
    requests.into_iter().chain(forced)
}

impl FleetUse for FleetCallers {
    fn take(&self, most: usize) -> Vec<(Arc<str>, u32)> {
        let Some(app) = self.app.upgrade() else {
            return Vec::new();
        };
        let book = app.callers.load();
        let limited: Vec<_> = book.iter().flat_map(limits).collect();
        let mut turn = self.turn.lock();
        let begin = turn.next.checked_rem(limited.len()).unwrap_or(0);
        let in_turn = || limited.iter().cycle().skip(begin).take(limited.len());
        // Callers with new requests first. Of the others, the fleet may know something new too.
        let (new, idle): (Vec<_>, Vec<_>) =
            in_turn().partition(|(_, throttle)| throttle.has_unreported());
        turn.next = begin + most.min(limited.len());
        let chosen = new.into_iter().chain(idle).take(most);
        let (mut reported, mut named) = (Vec::new(), Vec::new());
        for (name, throttle) in chosen {
            let count = throttle.report();
            reported.push((Arc::clone(*throttle), count));
            named.push((name.clone(), count));
        }
        turn.reported = reported;
        named
    }

    fn heard(&self, sums: &[CallerUse]) {
        let now = self.clock.now();
        let turn = self.turn.lock();
        for ((throttle, reported), sum) in turn.reported.iter().zip(sums) {
            throttle.heard(now, *sum, *reported);
        }
    }

    fn alone(&self, of: u32) {
        let Some(app) = self.app.upgrade() else {
            return;
        };
        let now = self.clock.now();
        for (_, throttle) in app.callers.load().iter().flat_map(limits) {
            throttle.alone(now, of);
        }
    }
}
