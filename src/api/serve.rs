//! Answers a complete request.

use std::future::ready;
use std::sync::Arc;

use hyper::service::Service;

use super::answer;
use super::cache_control::directives;
use super::hints::{self, Hints};
use super::question::{Asked, Question};
use super::recall::{ParsedSearches, Spelling};
use super::routes::{Reader, case_changes, case_export, case_search, customers, events};
use crate::domain::Route;
use crate::exchange::{AnswerBody, Answered, AtTenuresEnd, Boxed, Call, InFlight, Mention};
use crate::problem::{Code, Problem};
use crate::reads::billing::SoftFailure;
use crate::reads::cases::Search;
use crate::reads::events::AskedAt;
use crate::reads::{Lookup, ReadError, Reads};

/// Answers every route of the public listener. Cheap to clone.
#[derive(Clone)]
pub struct Routes(Arc<Parts>);

struct Parts {
    reads: Reads,
    exports: Arc<InFlight>,
    followers: Arc<InFlight>,
    recall: ParsedSearches,
    hints: Hints,
}

impl Routes {
    /// Creates the routes. `exports` and `followers` limit the concurrent exports and waiting
    /// requests for changes.
    pub fn new(reads: Reads, exports: Arc<InFlight>, followers: Arc<InFlight>) -> Self {
        Self(Arc::new(Parts {
            reads,
            exports,
            followers,
            recall: ParsedSearches::new(),
            hints: Hints::default(),
        }))
    }
}

impl Service<Call> for Routes {
    type Response = Answered;
    type Error = Problem;
    type Future = Boxed<Result<Answered, Problem>>;

    fn call(&self, mut call: Call) -> Self::Future {
        if self.0.reads.are_closed() {
            // Here, because every route that a caller asks comes this way.
            return Box::pin(ready(Err(Problem::store_unavailable())));
        }
        direct(&mut call);
        // Every handler has a future of another type, so they are boxed here. The two that answer
        // nearly all requests are boxed separately. Otherwise their futures would be as large as
        // the largest one.
        let of = self.0.clone();
        match call.matched.route {
            Route::CaseSearch => Box::pin(search(of, call)),
            Route::Customers => Box::pin(customer_list(of, call)),
            _ => Box::pin(serve(of, call)),
        }
    }
}

/// Passes on what the headers say about caching.
fn direct(call: &mut Call) {
    let mentions = &call.record.mentions;
    if mentions.has(Mention::CacheControl) || mentions.has(Mention::Pragma) {
        call.asker.directives = directives(&call.head.headers);
    }
}

fn read(call: &Call, reader: Reader) -> Result<Question, Problem> {
    reader(Asked {
        matched: &call.matched,
        path: call.head.uri.path(),
        query: call.head.uri.query(),
        headers: &call.head.headers,
        body: &call.body,
    })
}

/// Parses the search, unless the same bytes were parsed before.
fn understood(of: &Parts, call: &Call) -> Result<Arc<Search>, Problem> {
    let spelling = Spelling::of(call.head.uri.query(), &call.body);
    if let Some(search) = spelling.as_ref().and_then(|s| of.recall.get(s)) {
        return Ok(search);
    }
    let Question::Search(request) = read(call, case_search::read)? else {
        return Err(Problem::internal(
            "a search route was parsed as another request",
        ));
    };
    let search = Arc::new(of.reads.cases.prepare(request));
    if let Some(spelling) = spelling {
        of.recall.keep(spelling, &search);
    }
    Ok(search)
}

async fn search(of: Arc<Parts>, call: Call) -> Result<Answered, Problem> {
    let search = understood(&of, &call)?;
    if let Some(near) = search.near() {
        of.hints.note(&call, near, of.reads.cases.is_strict())?;
    }
    let answered = of.reads.cases.answer(&call.asker, &search).await;
    let answer = answered.map_err(|error| refused(&call, error))?;
    let events = &of.reads.events;
    events.note(&call.asker, asked_at(&call), &answer, || {
        Lookup::Search(search.clone())
    });
    let mut response = answer::respond(&call, answer, &of.reads.variants)?;
    if let Some(near) = search.near() {
        hints::tell(response.headers_mut(), near);
    }
    Ok(response)
}

async fn customer_list(of: Arc<Parts>, call: Call) -> Result<Answered, Problem> {
    let Question::Lookup(Lookup::Customers(fields)) = read(&call, customers::read)? else {
        return Err(Problem::internal(
            "the customer list was parsed as another request",
        ));
    };
    let answered = of.reads.customers.list(&call.asker, fields).await;
    let answer = answered.map_err(|error| refused(&call, error))?;
    let events = &of.reads.events;
    events.note(&call.asker, asked_at(&call), &answer, || {
        Lookup::Customers(fields)
    });
    answer::respond(&call, answer, &of.reads.variants)
}

/// Returns the request target for [`AskedAt`].
fn asked_at(call: &Call) -> AskedAt<'_> {
    let target = call.head.uri.path_and_query();
    AskedAt {
        target: target.map_or("", |target| target.as_str()),
        body: &call.body,
    }
}

async fn serve(of: Arc<Parts>, call: Call) -> Result<Answered, Problem> {
    let reads = &of.reads;
    let question = read(&call, Question::read)?;
    let lookup = lookup_of(&question);
    let answered = match question {
        Question::Lookup(lookup) => reads.lookups.answer(&call.asker, &lookup).await,
        Question::Search(request) => reads.cases.search(&call.asker, request).await,
        Question::Export {
            query,
            format,
            trailer,
        } => {
            if call.head.version < http::Version::HTTP_11 {
                // Without chunks, a cut stream would look complete.
                return Err(Problem::new(
                    Code::MalformedRequest,
                    "The request uses HTTP/1.0; an export needs HTTP/1.1 or later.",
                ));
            }
            answer::accepted(&call)?;
            // An export lasts as long as its reader takes. So slow readers use up the places for
            // exports, and never those of all requests.
            let place = of.exports.enter(&call.asker.caller.presence);
            let place = place.map_err(Problem::short_of)?;
            let begun = reads.export.begin(&call.asker, query, format).await;
            let stream = begun.map_err(|error| refused(&call, error))?;
            let answer = case_export::respond(&call, stream, format, trailer, place).await;
            return Ok(answer.map(|body| body.lasting(call.tenure, AtTenuresEnd::Cut)));
        }
        Question::Changes(request) => {
            answer::accepted(&call)?;
            // Waiting requests have places of their own, so they take none from requests that want
            // an answer now.
            let place = of.followers.enter(&call.asker.caller.presence);
            let place = place.map_err(Problem::short_of)?;
            let begun = reads.changes.begin(&call.asker, request).await;
            let stream = begun.map_err(|error| refused(&call, error))?;
            let answer = case_changes::respond(&call, stream, place).await;
            let lasting = |body: AnswerBody| body.lasting(call.tenure, AtTenuresEnd::Cut);
            return Ok(answer.map(|body| lasting(body).apart()));
        }
        Question::Events(request) => {
            answer::accepted(&call)?;
            let place = of.followers.enter(&call.asker.caller.presence);
            let place = place.map_err(Problem::short_of)?;
            let begun = reads.events.begin(&call.asker, request);
            let stream = begun.map_err(|error| refused(&call, error))?;
            let lasting = |body: AnswerBody| body.lasting(call.tenure, AtTenuresEnd::End);
            return Ok(events::respond(stream, place).map(|body| lasting(body).apart()));
        }
        Question::Nable {
            account,
            month,
            contract,
        } => {
            // This comes first, so that a caller without the right to billing cannot find out the
            // account by trying.
            if !call.asker.caller.billing {
                return Err(ReadError::BillingNotAllowed.into());
            }
            if !reads.billing.is_our_account(&account) {
                return Err(ReadError::AccountNotFound.into());
            }
            let soft = SoftFailure::PassOn;
            match contract {
                Some(contract) => {
                    reads
                        .billing
                        .services(&call.asker, month, &contract, soft)
                        .await
                }
                None => reads.billing.month(&call.asker, month, soft).await,
            }
        }
        Question::Overview(request) => reads.overview.get(&call.asker, request).await,
    };
    let answer = answered.map_err(|error| refused(&call, error))?;
    if let Some(lookup) = lookup {
        let events = &reads.events;
        events.note(&call.asker, asked_at(&call), &answer, || lookup);
    }
    answer::respond(&call, answer, &of.reads.variants)
}

/// Returns the lookup that gives the same answer later.
fn lookup_of(question: &Question) -> Option<Lookup> {
    match question {
        Question::Lookup(lookup) => Some(lookup.clone()),
        Question::Nable {
            month, contract, ..
        } => Some(Lookup::of_month(*month, contract.as_ref())),
        _ => None,
    }
}

/// Creates the problem of a failed read. Also records how the cache answered, for metrics and the
/// log.
fn refused(call: &Call, error: ReadError) -> Problem {
    if let Some(outcome) = error.outcome() {
        call.record.set_cache(outcome);
    }
    error.into()
}
