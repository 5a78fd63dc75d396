//! A store in memory. It is the reference for the operations; tests compare every other engine with
//! it.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::engine::{Engine, EngineState, StoreFault, StoreFuture, StoreOp, StoreReply};
use super::ledger::{Judged, Ledger, Place, TableChange};

/// An engine in memory, which answers at once and is never away. It ends with the process.
#[derive(Debug)]
pub struct Model(Mutex<ModelState>);

#[derive(Clone, Debug)]
struct ModelState {
    ledger: Ledger,
    tables: BTreeMap<Place, Bytes>,
}

impl Clone for Model {
    /// Copies all records. The copy is independent.
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().clone()))
    }
}

impl Model {
    /// Keeps up to `bytes_max` sealed bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self(Mutex::new(ModelState {
            ledger: Ledger::new(bytes_max),
            tables: BTreeMap::new(),
        }))
    }

    /// Runs one operation.
    ///
    /// # Errors
    /// [`StoreFault::Full`] for a record that is larger than the store.
    pub fn apply(&self, op: &StoreOp) -> Result<StoreReply, StoreFault> {
        let ModelState { ledger, tables } = &mut *self.0.lock();
        let mut changes: Vec<TableChange> = Vec::new();
        let judged = ledger.judge(op, &mut changes);
        for (place, value) in changes {
            match value {
                Some(value) => tables.insert(place, value),
                None => tables.remove(&place),
            };
        }
        Ok(match judged {
            Judged::Reply(reply) => reply,
            Judged::Read(place) => StoreReply::Value(tables.get(&place).cloned()),
            Judged::ReadHead(place, standing) => {
                StoreReply::Head(tables.get(&place).map(|head| (standing, head.clone())))
            }
            Judged::TooLarge => return Err(StoreFault::Full),
        })
    }

    /// Replaces all records with those of another one.
    pub(super) fn become_copy_of(&self, other: &Self) {
        let state = other.0.lock().clone();
        *self.0.lock() = state;
    }

    /// Returns the stored sealed bytes.
    pub fn bytes(&self) -> u64 {
        self.0.lock().ledger.bytes()
    }
}

impl Engine for Model {
    fn call(&self, op: StoreOp) -> StoreFuture<'_> {
        let reply = self.apply(&op);
        Box::pin(std::future::ready(reply))
    }

    fn state(&self) -> EngineState {
        EngineState::Ok
    }

    fn resets(&self) -> u64 {
        0
    }

    fn close(&self, _limit: crate::clock::Duration) {}
}
