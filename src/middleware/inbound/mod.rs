//! The layers that a caller's request passes, one verb each. `stack.rs` puts them in order.
//!
//! They implement `hyper::service::Service`. `call(&self)` refuses at once, there is no
//! `poll_ready` that could hold state, and nothing is cloned for a request.

mod admit;
mod answer_keyless;
mod authenticate;
mod check_framing;
mod contain_panic;
pub mod cross_origin;
mod deadline;
mod match_route;
mod name_request;
mod observe;
mod read_body;
mod render_problem;
mod throttle;

pub use admit::admit;
pub use answer_keyless::answer_keyless;
pub use authenticate::authenticate;
pub use check_framing::{TARGET_BYTES_MAX, check_framing};
pub use contain_panic::contain_panic;
pub use cross_origin::{CrossOrigin, share_answers};
pub use deadline::deadline;
pub use match_route::match_route;
pub use name_request::name_request;
pub use observe::{Observer, observe};
pub use read_body::read_body;
pub use render_problem::render_problem;
pub use throttle::throttle;

use futures_util::future::{Either, Ready, ready};

use crate::exchange::Answered;
use crate::problem::Problem;

/// The future of a layer that refuses at once, or passes the request to the layers below.
type OrRefuse<F> = Either<Ready<Result<Answered, Problem>>, F>;

fn refuse<F>(problem: Problem) -> OrRefuse<F> {
    Either::Left(ready(Err(problem)))
}
