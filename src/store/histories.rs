//! Random histories of store operations, for the tests that compare an engine with its model.
//!
//! The operations use few names, so that they often concern the same record.

use bytes::Bytes;
use proptest::prelude::*;

use super::engine::{Chain, Fence, KeptAges, KeptEnd, StoreFault, StoreOp, StoreReply};
use super::fleet::ClaimId;
use super::record::RecordName;
use crate::clock::{Duration, Stamp};

/// Returns the name of this number.
pub(super) fn name(n: u8) -> RecordName {
    RecordName([n; 16])
}

/// Returns the chain of this number.
pub(super) fn chain(n: u8) -> Chain {
    [n; 16]
}

/// Runs `few` histories, or as many as `STORE_HISTORIES` in the environment says. Failed ones are
/// not written to files.
pub(super) fn histories(few: u32) -> ProptestConfig {
    let asked = std::env::var("STORE_HISTORIES").ok();
    ProptestConfig {
        cases: asked.and_then(|n| n.parse().ok()).unwrap_or(few),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Builds a runtime for the histories of one test.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// What the operations of a history may be about.
#[derive(Clone, Copy)]
pub(super) struct OpRange {
    /// Number of names.
    pub names: u8,
    /// Records are shorter than this.
    pub bytes_max: usize,
    /// The latest time in the operations.
    pub stamp: Stamp,
    /// How many milliseconds before that a time may be.
    pub ms_before: u64,
    /// Whether some operations carry the fence of a claim, as those of a shared store do.
    pub fenced: bool,
}

impl OpRange {
    fn fence(self) -> impl Strategy<Value = Option<Fence>> + Clone {
        let fence = (0..3_u8, 0..3_u8, 1..900_u64).prop_map(|(line, claim, lease)| Fence {
            line: name(line),
            claim: ClaimId([claim; 16]),
            lease: Duration::from_millis(lease),
        });
        proptest::option::of(fence).prop_map(move |fence| fence.filter(|_| self.fenced))
    }

    /// Generates an operation.
    pub fn op(self) -> impl Strategy<Value = StoreOp> {
        let names = || (0..self.names).prop_map(name);
        let bytes = (0..self.bytes_max, any::<u8>());
        let bytes = bytes.prop_map(|(len, fill)| Bytes::from(vec![fill; len]));
        let stamp = self.stamp;
        let at = (0..=self.ms_before).prop_map(move |ms| stamp.earlier(Duration::from_millis(ms)));
        let place = (0..3_u32, (0..3_u8).prop_map(chain));
        prop_oneof![
            names().prop_map(|name| StoreOp::Find { name }),
            (names(), bytes.clone(), any::<bool>()).prop_map(|(name, record, negative)| {
                StoreOp::Land {
                    name,
                    record,
                    negative,
                }
            }),
            names().prop_map(|line| StoreOp::Line { line }),
            (
                names(),
                names(),
                bytes.clone(),
                proptest::option::of(names()),
                self.fence()
            )
                .prop_map(|(line, snapshot, head, was, fence)| StoreOp::Begin {
                    line: fence.map_or(line, |fence| fence.line),
                    snapshot,
                    head,
                    was,
                    fence,
                }),
            (names(), names(), bytes.clone(), self.fence()).prop_map(
                |(line, snapshot, head, fence)| StoreOp::PutBack {
                    line: fence.map_or(line, |fence| fence.line),
                    snapshot,
                    head,
                    fence,
                }
            ),
            (
                names(),
                0..3_u32,
                0..3_u8,
                0..3_u8,
                bytes.clone(),
                at.clone(),
                self.fence()
            )
                .prop_map(|(snapshot, number, before, next, chunk, at, fence)| {
                    StoreOp::Append {
                        snapshot,
                        number,
                        chain: chain(before),
                        next: chain(next),
                        rows: 7,
                        chunk,
                        at,
                        fence,
                    }
                }),
            (names(), at.clone(), at).prop_map(|(snapshot, head, whole)| StoreOp::Renewed {
                snapshot,
                ages: KeptAges { head, whole },
            }),
            (
                names(),
                any::<bool>(),
                proptest::option::of(place),
                self.fence()
            )
                .prop_map(|(snapshot, cut, of, fence)| StoreOp::End {
                    snapshot,
                    end: if cut { KeptEnd::Cut } else { KeptEnd::Complete },
                    of,
                    fence,
                }),
            names().prop_map(|snapshot| StoreOp::Head { snapshot }),
            (names(), 0..4_u32).prop_map(|(snapshot, number)| StoreOp::Chunk { snapshot, number }),
            names().prop_map(|snapshot| StoreOp::Touch { snapshot }),
            names().prop_map(|snapshot| StoreOp::Forget { snapshot }),
            (names(), bytes, any::<bool>()).prop_map(|(name, record, safe)| StoreOp::Note {
                name,
                record,
                safe,
            }),
            names().prop_map(|name| StoreOp::Recall { name }),
        ]
    }
}

/// Returns the append that continues a snapshot of the model where it really stands.
pub(super) fn grown(
    model: impl Fn(&StoreOp) -> Result<StoreReply, StoreFault>,
    snapshot: u8,
    fill: u8,
    at: Stamp,
) -> StoreOp {
    let snapshot = name(snapshot);
    let standing = match model(&StoreOp::Head { snapshot }) {
        Ok(StoreReply::Head(Some((standing, _)))) => Some(standing),
        _ => None,
    };
    StoreOp::Append {
        snapshot,
        number: standing.as_ref().map_or(0, |standing| standing.chunks),
        chain: standing.map_or(Chain::default(), |standing| standing.chain),
        next: chain(fill),
        rows: 3,
        chunk: Bytes::from(vec![fill; usize::from(fill) * 20]),
        at,
        fence: None,
    }
}
