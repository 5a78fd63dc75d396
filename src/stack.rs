//! The two stacks: what every request passes on its way in, and every vendor call on its way out.

use crate::access::CallerBook;
use crate::admission::Gates;
use crate::api::admin::Admin;
use crate::api::{keyless, routes};
use crate::clock::{Clock, Duration};
use crate::exchange::{Answered, Arrival, Boxed, Call, Ends, InFlight};
use crate::history::History;
use crate::metrics::Metrics;
use crate::middleware::inbound::{
    CrossOrigin, Observer, TARGET_BYTES_MAX, admit, answer_keyless, authenticate, check_framing,
    contain_panic, deadline, match_route, name_request, observe, read_body, render_problem,
    share_answers, throttle,
};
use crate::middleware::outbound::count::CountLayer;
use crate::middleware::outbound::observe::ObserveLayer;
use crate::middleware::outbound::pace::PaceLayer;
use crate::middleware::outbound::refuse::RefuseLayer;
use crate::middleware::outbound::retry::RetryLayer;
use crate::middleware::outbound::sign::SignLayer;
use crate::middleware::outbound::time_attempt::TimeAttemptLayer;
use crate::middleware::outbound::trip::TripLayer;
use crate::problem::Problem;
use crate::telemetry::LogSink;
use crate::upstream::connect::VendorConnector;
use crate::upstream::wire::Wire;
use crate::upstream::{VendorOptions, VendorService, step};
use hyper::service::Service;
use std::convert::Infallible;
use std::sync::Arc;
use tower::ServiceBuilder;
use tower::layer::layer_fn;

/// Longest target on the admin listener: an explanation names a target and a body within its own.
const ADMIN_TARGET_BYTES_MAX: usize = 20 * 1024;

/// What the inbound stack is made of.
#[derive(Clone)]
pub struct InboundParts {
    /// Reads the time.
    pub clock: Clock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Knows the callers.
    pub callers: Arc<CallerBook>,
    /// The access log.
    pub log: LogSink,
    /// The last requests.
    pub history: Arc<History>,
    /// Counts requests in flight; shared by the stacks before and after a reload.
    pub in_flight: Arc<InFlight>,
    /// A request is answered within this time.
    pub request_timeout: Duration,
    /// A request's body must be complete within this time.
    pub body_timeout: Duration,
    /// Whose web pages may read answers.
    pub cross_origin: Option<Arc<CrossOrigin>>,
    /// Whether there is a page for people at `/docs`.
    pub docs: bool,
}

/// A whole stack on its way in, boxed at this one seam. Takes a request, gives an answer, never fails.
pub struct Inbound(DynStack);

impl Inbound {
    /// Begins to answer a request. The future outlives the stack, so a reload may drop it.
    pub fn answer(&self, arrival: Arrival) -> Boxed<Result<Answered, Infallible>> {
        self.0.call(arrival)
    }
}

/// What every request passes, from top to bottom.
pub fn inbound<R>(parts: InboundParts, handlers: R) -> Inbound
where
    R: Service<Call, Response = Answered, Error = Problem> + Clone + Send + Sync + 'static,
    R::Future: Send + 'static,
{
    let InboundParts {
        clock,
        metrics,
        callers,
        log,
        history,
        in_flight,
        request_timeout,
        body_timeout,
        cross_origin,
        docs,
    } = parts;
    let observer = Observer {
        metrics: metrics.clone(),
        callers: callers.clone(),
        ends: Arc::new(Ends {
            log,
            history,
            clock: clock.clone(),
        }),
    };
    let find = match docs {
        true => routes::find,
        false => routes::find_without_docs,
    };
    let stack = ServiceBuilder::new()
        // Over all that answers: a page must be able to read a refusal too.
        .layer(share_answers(cross_origin.clone()))
        // Layers of many types end here.
        .layer(layer_fn(boxed))
        // A request has a name before anything can go wrong with it.
        .layer(name_request(clock.clone(), request_timeout))
        // Sees every outcome, refusals and disconnects too: keep above all that can answer.
        .layer(observe(observer))
        // Above all that has logic, so that a bug costs one request and not the connection's others.
        .layer(contain_panic(metrics))
        // Below this line a refusal is a typed problem, above it an answer.
        .layer(render_problem())
        // Over everything that can wait.
        .layer(deadline())
        // First of the refusals: a request that can be read in two ways is not looked at further.
        .layer(check_framing(TARGET_BYTES_MAX))
        // Before authentication: a path that does not exist needs no key to be told so, and a browser
        // that asks what a page may send has none.
        .layer(match_route(find, cross_origin.clone()))
        // What everyone may read is in memory and needs no key, so no caller pays for it.
        .layer(answer_keyless(keyless::answer))
        // Before any cache is asked: a revoked key must not get what is remembered.
        .layer(authenticate(callers, cross_origin))
        // After authentication: the bucket belongs to a caller, not to an address.
        .layer(throttle(clock))
        // Only those who may ask can make us hold a body.
        .layer(read_body(body_timeout))
        // Below the body: one that drips must not hold a place that a complete request could have.
        // After authentication: places are shared between callers.
        // The permit leaves with the answer's last byte.
        .layer(admit(in_flight))
        .service(handlers);
    Inbound(stack)
}

/// What every request to the admin listener passes. No counting and no throttling: scrapers and
/// people are few, and metrics are about callers.
pub fn admin(
    clock: Clock,
    metrics: Arc<Metrics>,
    request_timeout: Duration,
    admin: Admin,
) -> Inbound {
    let stack = ServiceBuilder::new()
        // As above, and for the same reasons in the same order.
        .layer(layer_fn(boxed))
        .layer(name_request(clock, request_timeout))
        .layer(contain_panic(metrics))
        .layer(render_problem())
        .layer(deadline())
        .layer(check_framing(ADMIN_TARGET_BYTES_MAX))
        // Few paths, of which each has its own rule of who may ask it.
        .service(admin);
    Inbound(stack)
}

type DynStack = Box<
    dyn Service<
            Arrival,
            Response = Answered,
            Error = Infallible,
            Future = Boxed<Result<Answered, Infallible>>,
        > + Send
        + Sync,
>;

fn boxed<S>(inner: S) -> DynStack
where
    S: Service<Arrival, Response = Answered, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    struct BoxFuture<S>(S);
    impl<S> Service<Arrival> for BoxFuture<S>
    where
        S: Service<Arrival, Response = Answered, Error = Infallible>,
        S::Future: Send + 'static,
    {
        type Response = Answered;
        type Error = Infallible;
        type Future = Boxed<Result<Answered, Infallible>>;

        fn call(&self, arrival: Arrival) -> Self::Future {
            Box::pin(self.0.call(arrival))
        }
    }
    Box::new(BoxFuture(inner))
}

/// Returns the way of every call to one vendor. `gates` outlive the stack: a reload builds a new
/// stack around the same ones, and no budget, circuit or refused key is forgotten.
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
        .layer(PaceLayer::new(gates, options.timeout, clock()))
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
mod answer_tests;
#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod outbound_tests;
#[cfg(test)]
mod stale_tests;
#[cfg(test)]
mod test_vendor;
#[cfg(test)]
mod tls_tests;
