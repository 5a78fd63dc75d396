//! The two stacks a request passes: every layer with its reason, read from top to bottom.

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::admission::Gates;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::middleware::outbound::count::CountLayer;
use crate::middleware::outbound::observe::ObserveLayer;
use crate::middleware::outbound::pace::PaceLayer;
use crate::middleware::outbound::refuse::RefuseLayer;
use crate::middleware::outbound::retry::RetryLayer;
use crate::middleware::outbound::sign::SignLayer;
use crate::middleware::outbound::time_attempt::TimeAttemptLayer;
use crate::middleware::outbound::trip::TripLayer;
use crate::upstream::connect::VendorConnector;
use crate::upstream::wire::Wire;
use crate::upstream::{VendorOptions, VendorService, step};

/// The way of every call to one vendor. `gates` outlive the stack: a reload builds a new stack
/// around the same ones, and no budget, circuit or refused key is forgotten.
pub fn outbound<C: VendorConnector>(
    options: &VendorOptions,
    gates: &Gates,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    connector: C,
) -> VendorService {
    let clock = || clock.clone();
    let wire = Wire::new(options, Arc::clone(&gates.governor), clock(), connector);
    let stack = ServiceBuilder::new()
        // Sees every call once, however often it was tried: one log line.
        .layer(ObserveLayer::new(clock()))
        // Above all that decides about an attempt, so that each attempt is decided about anew.
        .layer(RetryLayer::new(options.retry, gates, clock()))
        // Nobody queues for a vendor that is known to fail.
        .layer(RefuseLayer::new(gates))
        // Budget, place and turn. Holds the place until everything below has ended, the answer's
        // body among it.
        .layer(PaceLayer::new(gates))
        // Below the queue: the vendor may have failed while this call waited, and the circuit hears
        // of calls only that were really made.
        .layer(TripLayer::new(gates, options.timeout, clock()))
        // From here on a request goes out, so here it is counted and paid for.
        .layer(CountLayer::new(Arc::clone(metrics), clock()))
        // The vendor's time only: waiting for a turn is not its fault.
        .layer(TimeAttemptLayer::new(options.timeout, clock()))
        // The key comes last, so that nothing above ever holds it.
        .layer(SignLayer::new(options, gates))
        .service(wire);
    step::boxed(stack)
}

#[cfg(test)]
mod outbound_tests;
#[cfg(test)]
mod test_vendor;
#[cfg(test)]
mod tls_tests;
