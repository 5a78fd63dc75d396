//! Billable services and invoices: N-able's bodies unchanged, remembered for as long as the month
//! allows.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::customers::spend;
use crate::access::Caller;
use crate::admission::{Lane, Spend};
use crate::cache::{
    CacheKey, Detail, Directives, Fetched, Found, Keeping, Lifetimes, Rendered, Shelf, Subject,
    Terms, Wanted,
};
use crate::clock::{Clock, Duration};
use crate::domain::{ContractId, Kind, Month, Operation, Vendor};
use crate::metrics::Metrics;
use crate::reads::answer::Account;
use crate::reads::{Answer, Asker, Explanation, Ingredients, Policy, ReadError};
use crate::upstream::{Fault, UpstreamError};
use crate::vendors::Nable;
use crate::vendors::nable::NableAnswer;

/// How long a background call waits for its turn and its answer.
const BRING_WAIT: Duration = Duration::from_secs(60);

/// What to do with an answer of N-able that lacks the requested data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftFailure {
    /// Refuse it with [`ReadError::BillingNotFound`].
    Refuse,
    /// Return the vendor's 200, and mark the answer with [`Detail::SoftFailure`].
    PassOn,
}

/// N-able's answer.
#[derive(Debug)]
pub enum BillingBody {
    /// The requested data.
    Good(Rendered),
    /// A 200 without the requested data.
    SoftFailed(Rendered),
    /// A 400 or 404, with its body.
    Refused(Option<Bytes>),
}

impl BillingBody {
    /// Encodes it for the store: one letter for the form, then the vendor's body.
    fn to_bytes(&self) -> Bytes {
        let (form, body) = match self {
            Self::Good(rendered) => (b'g', Some(&rendered.body)),
            Self::SoftFailed(rendered) => (b's', Some(&rendered.body)),
            Self::Refused(Some(body)) => (b'r', Some(body)),
            Self::Refused(None) => (b'n', None),
        };
        let body = body.map(|body| &body[..]).unwrap_or_default();
        [&[form], body].concat().into()
    }

    /// Decodes such bytes. `None` for any others.
    fn of_bytes(mut bytes: Bytes) -> Option<Self> {
        let form = *bytes.first()?;
        let body = bytes.split_off(1);
        match form {
            b'g' => Some(Self::Good(Rendered::new(body))),
            b's' => Some(Self::SoftFailed(Rendered::new(body))),
            b'r' => Some(Self::Refused(Some(body))),
            b'n' if body.is_empty() => Some(Self::Refused(None)),
            _ => None,
        }
    }
}

/// Answers the billing routes and N-able's own paths.
pub struct Billing {
    nable: Arc<Nable>,
    shelf: Arc<Shelf<Arc<BillingBody>, UpstreamError>>,
    policy: Arc<ArcSwap<Policy>>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Billing {
    pub(super) fn new(of: &Ingredients, answers_bytes: u64) -> Self {
        let keeping = Keeping::new(
            &of.store,
            |body: &Arc<BillingBody>| body.to_bytes(),
            Box::new(|bytes| BillingBody::of_bytes(bytes).map(kept)),
        );
        Self {
            nable: of.clients.nable.clone(),
            shelf: Shelf::new(answers_bytes, of.store.purges(), keeping, of.clock.clone()),
            policy: of.policy.clone(),
            clock: of.clock.clone(),
            metrics: of.metrics.clone(),
        }
    }

    pub(super) fn shelf(&self) -> &Shelf<Arc<BillingBody>, UpstreamError> {
        &self.shelf
    }

    /// Returns whether `account` is the configured account or `-`.
    pub fn is_our_account(&self, account: &str) -> bool {
        account == "-" || account == self.nable.account().as_str()
    }

    /// Returns the cache key of a question.
    pub fn key(&self, subject: Subject) -> CacheKey {
        CacheKey::new(self.nable.account().clone(), subject)
    }

    /// Returns the lifetimes of answers about a month.
    pub fn lifetimes(&self, month: Month) -> Lifetimes {
        let policy = self.policy.load();
        if month.is_current(self.clock.today(&policy.time_zone)) {
            policy.billing_current
        } else {
            policy.billing_closed
        }
    }

    /// Explains how a month, or a contract in it, would be answered.
    pub(super) fn explain(
        &self,
        caller: &Caller,
        month: Month,
        contract: Option<&ContractId>,
    ) -> Result<Explanation, ReadError> {
        if !caller.billing {
            return Err(ReadError::BillingNotAllowed);
        }
        let (subject, call) = match contract.cloned() {
            Some(contract) => (Subject::Billing { month, contract }, Operation::Billing),
            None => (Subject::Invoices { month }, Operation::Invoices),
        };
        let key = self.key(subject);
        let (negative, now) = (self.policy.load().billing_negative, self.clock.now());
        let explanation = Explanation::new(&key, self.lifetimes(month), call);
        Ok(explanation.on(&self.shelf, &key, negative, now))
    }

    /// Returns the billable services of a contract in a month.
    ///
    /// # Errors
    /// Fails if the caller may not see billing, or if N-able does not answer and no answer is
    /// remembered.
    pub async fn services(
        &self,
        asker: &Asker,
        month: Month,
        contract: &ContractId,
        soft: SoftFailure,
    ) -> Result<Answer, ReadError> {
        let found = self.find_services(asker, month, contract).await;
        self.answer(asker, found, soft)
    }

    /// Returns the invoices and contracts of a month.
    ///
    /// # Errors
    /// Fails like [`Self::services`].
    pub async fn month(
        &self,
        asker: &Asker,
        month: Month,
        soft: SoftFailure,
    ) -> Result<Answer, ReadError> {
        let found = self.find_month(asker, month).await;
        self.answer(asker, found, soft)
    }

    /// Finds N-able's answer about a contract and a month.
    ///
    /// # Errors
    /// Fails like [`Self::services`], except that a soft failure is an answer here.
    pub async fn find_services(
        &self,
        asker: &Asker,
        month: Month,
        contract: &ContractId,
    ) -> Result<Found<Arc<BillingBody>>, ReadError> {
        let subject = Subject::Billing {
            month,
            contract: contract.clone(),
        };
        self.find(asker, month, subject, |wanted| {
            let (nable, contract) = (self.nable.clone(), contract.clone());
            let spend = spend(&self.clock, wanted, asker);
            async move { nable.billable_services(&month, &contract, spend).await }
        })
        .await
    }

    /// Fetches billable services in the refresh lane, unless they are remembered. No caller waits
    /// for this.
    ///
    /// # Errors
    /// Fails like [`Self::find_services`].
    pub(in crate::reads) async fn bring(
        &self,
        asker: &Asker,
        month: Month,
        contract: &ContractId,
    ) -> Result<(), ReadError> {
        let until = self.clock.now() + BRING_WAIT;
        let subject = Subject::Billing {
            month,
            contract: contract.clone(),
        };
        let asker = Asker {
            deadline: until,
            directives: Directives::default(),
            ..asker.clone()
        };
        let found = self.find(&asker, month, subject, |_| {
            let (nable, contract) = (self.nable.clone(), contract.clone());
            let spend = Spend {
                lane: Lane::Refresh,
                deadline: until,
                wanted_until: until,
                payer: asker.payer.clone(),
                within: None,
            };
            async move { nable.billable_services(&month, &contract, spend).await }
        });
        found.await.map(|_| ())
    }

    /// Finds N-able's answer about a month.
    ///
    /// # Errors
    /// Fails like [`Self::find_services`].
    pub async fn find_month(
        &self,
        asker: &Asker,
        month: Month,
    ) -> Result<Found<Arc<BillingBody>>, ReadError> {
        self.find(asker, month, Subject::Invoices { month }, |wanted| {
            let nable = self.nable.clone();
            let spend = spend(&self.clock, wanted, asker);
            async move { nable.invoices(&month, spend).await }
        })
        .await
    }

    async fn find<Fut>(
        &self,
        asker: &Asker,
        month: Month,
        subject: Subject,
        ask: impl FnOnce(Wanted) -> Fut,
    ) -> Result<Found<Arc<BillingBody>>, ReadError>
    where
        Fut: Future<Output = Result<NableAnswer, UpstreamError>> + Send + 'static,
    {
        if !asker.caller.billing {
            return Err(ReadError::BillingNotAllowed);
        }
        let policy = self.policy.load();
        let terms = Terms {
            lifetimes: self.lifetimes(month),
            negative: policy.billing_negative,
            directives: asker.directives,
            forced: &asker.caller.forced,
            refresh_ahead: policy.refresh_ahead,
            deadline: asker.deadline,
            trace: asker.payer.trace(),
        };
        let key = self.key(subject);
        let found = self.shelf.lookup(&key, &terms, |wanted| {
            let asked = ask(wanted);
            async move { remembered(asked.await) }
        });
        found
            .await
            .map_err(|error| ReadError::of_lookup(Vendor::Nable, error))
    }

    fn answer(
        &self,
        asker: &Asker,
        found: Result<Found<Arc<BillingBody>>, ReadError>,
        soft: SoftFailure,
    ) -> Result<Answer, ReadError> {
        let account = Account {
            metrics: &self.metrics,
            vendor: Vendor::Nable,
            kind: Kind::Billing,
        };
        let Found { entry, note, at } = match found {
            Ok(found) => found,
            Err(error) => {
                account.refused(&error);
                return Err(error);
            }
        };
        account.answered(asker, &note, None);
        let (rendered, note) = match (&*entry.value, soft) {
            (BillingBody::Good(rendered), _) => (rendered, note),
            (BillingBody::SoftFailed(rendered), SoftFailure::PassOn) => {
                (rendered, note.with_detail(Detail::SoftFailure))
            }
            (BillingBody::SoftFailed(rendered), SoftFailure::Refuse) => {
                return Err(ReadError::BillingNotFound {
                    vendor_body: Some(rendered.body.clone()),
                    outcome: note.outcome,
                });
            }
            (BillingBody::Refused(vendor_body), _) => {
                return Err(ReadError::BillingNotFound {
                    vendor_body: vendor_body.clone(),
                    outcome: note.outcome,
                });
            }
        };
        Ok(Answer {
            body: rendered.body.clone(),
            etag: Some(rendered.etag.clone()),
            age: entry.age(at),
            note,
        })
    }
}

impl Billing {
    /// Returns a good answer from a lookup. It is not counted, because no caller asked for it.
    pub(super) fn peeked(
        &self,
        found: Result<Found<Arc<BillingBody>>, ReadError>,
    ) -> Option<Answer> {
        let Found { entry, note, at } = found.ok()?;
        match &*entry.value {
            BillingBody::Good(rendered) => Some(Answer {
                body: rendered.body.clone(),
                etag: Some(rendered.etag.clone()),
                age: entry.age(at),
                note,
            }),
            BillingBody::SoftFailed(_) | BillingBody::Refused(_) => None,
        }
    }
}

/// Converts a vendor's answer for the cache. Soft failures and refusals of the question are
/// remembered for a short time, other errors are not.
fn remembered(
    answer: Result<NableAnswer, UpstreamError>,
) -> Result<Fetched<Arc<BillingBody>>, UpstreamError> {
    Ok(kept(match answer {
        Ok(NableAnswer::Good(body)) => BillingBody::Good(Rendered::new(body)),
        Ok(NableAnswer::SoftFailed(body)) => BillingBody::SoftFailed(Rendered::new(body)),
        Err(error) if matches!(error.fault, Fault::NotFound | Fault::Rejected) => {
            BillingBody::Refused(error.vendor_body)
        }
        Err(error) => return Err(error),
    }))
}

fn kept(value: BillingBody) -> Fetched<Arc<BillingBody>> {
    let body = match &value {
        BillingBody::Good(rendered) | BillingBody::SoftFailed(rendered) => &rendered.body[..],
        BillingBody::Refused(body) => body.as_deref().unwrap_or_default(),
    };
    Fetched {
        hash: *blake3::hash(body).as_bytes(),
        bytes: body.len(),
        negative: !matches!(value, BillingBody::Good(_)),
        value: Arc::new(value),
    }
}
