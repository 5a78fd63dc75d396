//! The store as the place of answers: how an answer is written, sealed and found again.

use std::sync::Arc;

use bytes::Bytes;

use super::{Store, StoreInner, outcome_of, state_place};
use crate::clock::{Stamp, timeout_at};
use crate::domain::Kind;
use crate::metrics::{RecordReject, StoreLookup, StoreOperation, StoreOutcome};
use crate::store::engine::{StoreOp, StoreReply};
use crate::store::fleet::{ClaimId, FleetOp, FleetReply};
use crate::store::names::{NameUse, Names};
use crate::store::pack::{PackReader, PackWriter};
use crate::store::record::{RecordKind, RecordName, RecordPlace};

/// The content of the note that is written after answers whose writing is awaited.
const KEPT_SO_FAR: &[u8] = b"kept so far";

/// A stored answer.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptAnswer {
    /// The vendor's body, in the form that its reader wrote.
    pub content: Bytes,
    /// Whether it is a soft failure.
    pub negative: bool,
    /// When the vendor last confirmed the answer.
    pub born: Stamp,
    /// Its share of the jitter.
    pub draw: f64,
    /// The number of the last purge when its fetch began.
    pub begun: u64,
}

impl Store {
    /// Returns the stored answer of an identity.
    pub async fn find_answer(&self, kind: Kind, identity: &[u8; 32]) -> Option<KeptAnswer> {
        let inner = self.inner.as_ref()?;
        let found = inner.find_answer(identity).await;
        let outcome = match &found {
            Ok(Some(_)) => StoreLookup::Found,
            Ok(None) => StoreLookup::Missing,
            Err(why) => {
                inner.metrics.reject(*why);
                StoreLookup::Rejected
            }
        };
        inner.metrics.lookup(kind, outcome);
        found.ok().flatten()
    }

    /// Counts an answer of this kind that could be opened, but whose content is invalid.
    pub fn reject_content(&self, kind: Kind) {
        if let Some(inner) = &self.inner {
            inner.metrics.reject(RecordReject::Content);
            inner.metrics.lookup(kind, StoreLookup::Rejected);
        }
    }

    /// Counts a stored answer that a purge covers.
    pub fn reject_purged(&self) {
        if let Some(inner) = &self.inner {
            inner.metrics.reject(RecordReject::Purged);
        }
    }

    /// Stores an answer soon. No request waits for it.
    pub fn keep_answer(&self, identity: &[u8; 32], answer: KeptAnswer) {
        let Some(inner) = self.inner.clone() else {
            return;
        };
        let (identity, claim) = (*identity, ClaimId::random());
        tokio::spawn(async move { inner.keep_answer(&identity, answer, claim).await });
    }

    /// Stores several answers together. Waits until a crash cannot undo them, or until they are
    /// late and queued. Returns whether they are safe.
    pub async fn keep_safely(&self, answers: Vec<([u8; 32], KeptAnswer)>) -> bool {
        let Some(inner) = self.inner.clone() else {
            return false;
        };
        let until = inner.patience();
        // The waiting caller may leave. Operations that were begun are completed.
        let kept = tokio::spawn(async move { inner.keep_safely(answers).await });
        matches!(timeout_at(until, kept).await, Ok(Ok(true)))
    }
}

impl StoreInner {
    /// Returns the stored answer, or why it was not used.
    async fn find_answer(
        self: &Arc<Self>,
        identity: &[u8; 32],
    ) -> Result<Option<KeptAnswer>, RecordReject> {
        let until = self.patience();
        let Some(names) = self.names(until).await else {
            return Ok(None);
        };
        let name = answer_name(&names.0, identity);
        let (record, born) = match self.is_shared() {
            true => match self.ask(FleetOp::Look { name }, until).await {
                Ok(FleetReply::Answer(Some((record, born)))) => (record, Some(born)),
                Ok(_) | Err(_) => return Ok(None),
            },
            false => match self.call(StoreOp::Find { name }, until).await {
                Ok(StoreReply::Value(Some(record))) => (record, None),
                Ok(_) | Err(_) => return Ok(None),
            },
        };
        self.open_answer(name, identity, record, born)
            .await
            .map(Some)
    }

    /// Opens an answer; `born` is when the vendor gave it, by the engine's time.
    pub(in crate::store) async fn open_answer(
        self: &Arc<Self>,
        name: RecordName,
        identity: &[u8; 32],
        record: Bytes,
        born: Option<Stamp>,
    ) -> Result<KeptAnswer, RecordReject> {
        let content = self.open_off_thread(answer_place(name), record).await?;
        let mut answer = read_answer(content, identity).ok_or(RecordReject::Content)?;
        // The stamp in the record comes from another machine's clock.
        answer.born = born.unwrap_or(answer.born);
        Ok(answer)
    }

    pub(in crate::store) async fn keep_answer(
        self: &Arc<Self>,
        identity: &[u8; 32],
        answer: KeptAnswer,
        claim: ClaimId,
    ) {
        let until = self.patience();
        let Some(names) = self.names(until).await else {
            return;
        };
        let name = answer_name(&names.0, identity);
        let content = write_answer(identity, &answer);
        let Some(record) = self.seal_off_thread(answer_place(name), content).await else {
            // Too large to be kept.
            self.tell_fleet(FleetOp::GiveUp { name, claim });
            return;
        };
        let negative = answer.negative;
        if self.is_shared() {
            let land = FleetOp::Land {
                name,
                claim,
                record,
                negative,
                born: answer.born,
            };
            if self.ask(land, self.patience()).await.is_err() {
                // As when the server is full: the others need not wait for the claim's end.
                self.tell_fleet(FleetOp::GiveUp { name, claim });
            }
            return;
        }
        let op = StoreOp::Land {
            name,
            record,
            negative,
        };
        // An answer that is not stored is fetched again.
        let _ = self.call(op, self.patience()).await;
    }

    async fn keep_safely(self: &Arc<Self>, answers: Vec<([u8; 32], KeptAnswer)>) -> bool {
        if self.is_shared() {
            // The server has what it answered for.
            for (identity, answer) in answers {
                self.keep_answer(&identity, answer, ClaimId::random()).await;
            }
            return true;
        }
        let Some(names) = self.names(self.patience()).await else {
            return false;
        };
        let mut lands = Vec::new();
        for (identity, answer) in answers {
            let name = answer_name(&names.0, &identity);
            let content = write_answer(&identity, &answer);
            let Some(record) = self.seal_off_thread(answer_place(name), content).await else {
                // Too large to be kept.
                return false;
            };
            let negative = answer.negative;
            let land = StoreOp::Land {
                name,
                record,
                negative,
            };
            lands.push(self.begin(land, self.patience()));
        }
        // Once this is safe, so is everything before it. It does not count as a late write: so much
        // at once may take longer than a page of rows.
        let name = names.0.of(NameUse::State, KEPT_SO_FAR);
        let Some(record) = self.records.seal(state_place(name), &[]) else {
            return false;
        };
        let (safe, began) = (true, self.clock.now());
        let noted = self.engine.call(StoreOp::Note { name, record, safe });
        for land in lands {
            if !matches!(land.reply().await, Ok(StoreReply::Kept)) {
                return false;
            }
        }
        if self.writes.lock().is_away() {
            return false;
        }
        let noted = noted.await;
        let outcome = noted
            .as_ref()
            .map_or_else(|fault| outcome_of(*fault), |_| StoreOutcome::Ok);
        let took = self.clock.now().saturating_duration_since(began);
        self.metrics
            .request(StoreOperation::Note, outcome, took.as_secs_f64());
        noted.is_ok()
    }
}

fn answer_place(name: RecordName) -> RecordPlace {
    RecordPlace {
        kind: RecordKind::Answer,
        name,
        number: 0,
    }
}

/// Returns the name of an answer. A page token names an identity in the same way, so that both lead
/// to one name.
pub(in crate::store) fn answer_name(names: &Names, identity: &[u8; 32]) -> RecordName {
    names.of(NameUse::Answer, identity.split_at(16).0)
}

fn write_answer(identity: &[u8; 32], answer: &KeptAnswer) -> Vec<u8> {
    let KeptAnswer {
        content,
        negative,
        born,
        draw,
        begun,
    } = answer;
    PackWriter::default()
        .fixed(identity)
        .flag(*negative)
        .stamp(*born)
        .u64(draw.to_bits())
        .u64(*begun)
        .bytes(content)
        .done()
}

fn read_answer(content: Bytes, identity: &[u8; 32]) -> Option<KeptAnswer> {
    let mut reader = PackReader::new(content);
    // A name is a hash, so the identity itself is compared too.
    if reader.fixed::<32>()? != *identity {
        return None;
    }
    let answer = KeptAnswer {
        negative: reader.flag()?,
        born: reader.stamp()?,
        draw: f64::from_bits(reader.u64()?).clamp(0.0, 1.0),
        begun: reader.u64()?,
        content: reader.bytes()?,
    };
    reader.is_over().then_some(answer)
}
