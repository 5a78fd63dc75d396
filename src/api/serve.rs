//! From a complete request to its answer.

use std::sync::Arc;

use hyper::service::Service;

use super::cache_control::directives;
use super::question::{Asked, Question};
use super::{answer, case_export, openapi};
use crate::exchange::{Answered, Boxed, Call};
use crate::problem::{Code, Problem};
use crate::reads::billing::SoftFailure;
use crate::reads::{ReadError, Reads};

/// Answers every route of the public listener. Cheap to clone.
#[derive(Clone)]
pub struct Routes(Arc<Reads>);

impl Routes {
    /// Answers from these reads.
    pub fn new(reads: Reads) -> Self {
        Self(Arc::new(reads))
    }
}

impl Service<Call> for Routes {
    type Response = Answered;
    type Error = Problem;
    type Future = Boxed<Result<Answered, Problem>>;

    fn call(&self, call: Call) -> Self::Future {
        // Every handler has a future of another type: this is the seam where they are boxed.
        Box::pin(serve(self.0.clone(), call))
    }
}

async fn serve(reads: Arc<Reads>, call: Call) -> Result<Answered, Problem> {
    let question = Question::read(Asked {
        matched: &call.matched,
        path: call.head.uri.path(),
        query: call.head.uri.query(),
        headers: &call.head.headers,
        body: &call.body,
    })?;
    let asker = call.asker(directives(&call.head.headers));
    let answer = match question {
        Question::Customers(fields) => reads.customers.list(&asker, fields).await?,
        Question::Search(request) => reads.cases.search(&asker, request).await?,
        Question::Export {
            query,
            format,
            trailer,
        } => {
            if call.head.version < http::Version::HTTP_11 {
                // Without chunks, a cut stream would look like a whole one.
                return Err(Problem::new(
                    Code::MalformedRequest,
                    "An export needs HTTP/1.1.",
                ));
            }
            let stream = reads.export.begin(&asker, query, format).await?;
            return Ok(case_export::respond(&call, stream, format, trailer).await);
        }
        Question::Billing { month, contract } => {
            let soft = SoftFailure::Refuse;
            reads
                .billing
                .services(&asker, month, &contract, soft)
                .await?
        }
        Question::BillingMonth(month) => {
            reads
                .billing
                .month(&asker, month, SoftFailure::Refuse)
                .await?
        }
        Question::Nable {
            account,
            month,
            contract,
        } => {
            // In this order: who may not see billing must not learn the account by trying.
            if !call.caller.billing {
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
                        .services(&asker, month, &contract, soft)
                        .await?
                }
                None => reads.billing.month(&asker, month, soft).await?,
            }
        }
        Question::Overview(request) => reads.overview.get(&asker, request).await?,
        Question::OpenApi => return Ok(openapi::respond(&call)),
    };
    Ok(answer::respond(&call, answer))
}
