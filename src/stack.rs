//! The two stacks: the layers that every request passes, and those that every vendor call passes.

use crate::access::CallerBook;
use crate::admission::Gates;
use crate::api::admin::Admin;
use crate::api::{keyless, routes};
use crate::clock::{Clock, Duration};
use crate::exchange::{Answered, Arrival, Boxed, Call, DynStack, Ends, InFlight};
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
use crate::traces::Traces;
use crate::upstream::connect::VendorConnector;
use crate::upstream::wire::Wire;
use crate::upstream::{VendorOptions, VendorService, step};
use hyper::service::Service;
use std::convert::Infallible;
use std::sync::Arc;
use tower::ServiceBuilder;
use tower::layer::layer_fn;

/// Maximum length of a target on the admin listener. A target of `explain` contains another target
/// and a body.
const ADMIN_TARGET_BYTES_MAX: usize = 20 * 1024;

/// The parts of the inbound stack.
#[derive(Clone)]
pub struct InboundParts {
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The callers.
    pub callers: Arc<CallerBook>,
    /// The access log.
    pub log: LogSink,
    /// The recent requests.
    pub history: Arc<History>,
    /// Which requests are traced.
    pub traces: Traces,
    /// Limits the requests in flight. The stacks before and after a reload share it.
    pub in_flight: Arc<InFlight>,
    /// A request is answered within this time.
    pub request_timeout: Duration,
    /// A request's body must be complete within this time.
    pub body_timeout: Duration,
    /// The origins whose web pages may read answers.
    pub cross_origin: Option<Arc<CrossOrigin>>,
    /// Whether there is a page for people at `/docs`.
    pub docs: bool,
}

/// A whole inbound stack, boxed here. It takes a request, returns an answer, and never fails.
pub struct Inbound(DynStack);

impl Inbound {
    /// Starts to answer a request. The future outlives the stack, so a reload may drop the stack.
    pub fn answer(&self, arrival: Arrival) -> Boxed<Result<Answered, Infallible>> {
        self.0.call(arrival)
    }
}

/// Builds the stack that every request passes, from top to bottom.
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
        traces,
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
        // Above everything that answers, because a page must be able to read a refusal too.
        .layer(share_answers(cross_origin.clone()))
        // The many types of the layers end here.
        .layer(layer_fn(boxed))
        // A request has an id before anything can go wrong with it.
        .layer(name_request(clock.clone(), request_timeout, traces))
        // Above everything that can answer, so that it observes every outcome, refusals and
        // disconnects too.
        .layer(observe(observer))
        // Above everything that has logic, so that a bug costs one request and not the whole
        // connection.
        .layer(contain_panic(metrics))
        // Below this line a refusal is a typed problem, above it an answer.
        .layer(render_problem())
        // Above everything that can wait.
        .layer(deadline())
        // The first refusal: a request that can be read in two ways is not processed any further.
        .layer(check_framing(TARGET_BYTES_MAX))
        // Before authentication: the 404 for an unknown path needs no key, and a browser's
        // preflight has none.
        .layer(match_route(find, cross_origin.clone()))
        // These answers are for everyone and in memory. They need no key and count for no caller.
        .layer(answer_keyless(keyless::answer))
        // Before any cache lookup: a revoked key must not get remembered answers.
        .layer(authenticate(callers, cross_origin))
        // After authentication, because the bucket belongs to a caller and not to an address.
        .layer(throttle(clock))
        // Only an authenticated caller can make us hold a body.
        .layer(read_body(body_timeout))
        // Below the body, because a body that arrives slowly must not hold a place that a complete
        // request could use. After authentication, because places are shared between callers. The
        // permit is released with the answer's last byte.
        .layer(admit(in_flight))
        .service(handlers);
    Inbound(stack)
}

/// Builds the stack that every request to the admin listener passes. It neither counts nor
/// throttles: scrapers and people are few, and metrics are about callers.
pub fn admin(
    clock: Clock,
    metrics: Arc<Metrics>,
    request_timeout: Duration,
    admin: Admin,
) -> Inbound {
    let stack = ServiceBuilder::new()
        // The same as above, for the same reasons, in the same order.
        .layer(layer_fn(boxed))
        .layer(name_request(clock, request_timeout, Traces::off()))
        .layer(contain_panic(metrics))
        .layer(render_problem())
        .layer(deadline())
        .layer(check_framing(ADMIN_TARGET_BYTES_MAX))
        // There are few paths, and each has its own rule of who may use it.
        .service(admin);
    Inbound(stack)
}

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

/// Builds the stack that every call to one vendor passes. `gates` outlive the stack: a reload
/// builds a new stack around the same gates, so it keeps budget, circuit and rejected keys.
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
        // Sees every call once, however often it was attempted, and logs one line.
        .layer(ObserveLayer::new(clock()))
        // Above everything that decides about an attempt, so that each attempt is decided by
        // itself.
        .layer(RetryLayer::new(options.retry, gates, clock()))
        // No call queues for a vendor that is known to fail.
        .layer(RefuseLayer::new(gates))
        // Budget, place and turn. Holds the place until everything below has ended, the answer's
        // body included.
        .layer(PaceLayer::new(gates, options.timeout, clock()))
        // Below the queue, because the vendor may have failed while this call waited. The circuit
        // only records calls that were really made.
        .layer(TripLayer::new(gates, options.timeout, clock()))
        // A request is sent from here on, so it is counted and charged here.
        .layer(CountLayer::new(options, Arc::clone(metrics), clock()))
        // Limits the vendor's time only. Waiting for a turn is not the vendor's fault.
        .layer(TimeAttemptLayer::new(options.timeout, clock()))
        // The key comes last, so that no layer above ever has it.
        .layer(SignLayer::new(options, gates))
        .service(wire);
    step::boxed(stack)
}
