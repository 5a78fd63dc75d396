//! How a gateway stores rows. The order of the steps is that of `src/snapshot/keep.rs`.

use bytes::Bytes;
use msp_gateway::snapshot::End;
use msp_gateway::store::claims::ClaimTerm;
use msp_gateway::store::fleet::{FleetOp, FleetReply};
use msp_gateway::store::{Alignment, Fence, KeptEnd, StoreOp, StoreReply, align};

use super::super::list::{LINE, chain_after, name};
use super::Reply;
use super::replica::Copy;
use super::world::{LEASE, World, instant, stamp};

/// The outcome of storing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    Kept,
    /// In this memory only.
    Alone,
    /// No reply: they may be stored.
    Unsure,
    /// Another gateway walks the search.
    Deposed,
}

impl World {
    /// Stores the new rows. Returns whether the walk goes on.
    pub fn keep(&mut self, by: usize, target: u8, begun: u64, reply: Reply) -> bool {
        let is_off = self.replicas[by].copy(target).off;
        if !is_off && self.replicas[by].term.is_none() {
            // It was walked alone while the store was away.
            self.reclaim(by, target);
        }
        let mut keeping = self.keep_rows(by, target, begun, reply);
        if keeping == Keeping::Deposed && self.reclaim(by, target) {
            keeping = self.keep_rows(by, target, begun, Reply::Comes);
        }
        if keeping == Keeping::Alone {
            // Others would wait for rows that never come.
            self.release(by);
        }
        keeping != Keeping::Deposed
    }

    fn reclaim(&mut self, by: usize, target: u8) -> bool {
        let claim = FleetOp::Claim {
            line: LINE,
            claim: self.replicas[by].claim(),
            lease: LEASE,
        };
        let leads = self.agree(by, claim, Reply::Comes) == Some(FleetReply::Lead);
        if leads {
            let now = instant(self.replicas[by].now);
            self.replicas[by].term = Some(ClaimTerm::new(LEASE, now));
            self.replicas[by].copy(target).unsure = true;
        }
        leads
    }

    fn keep_rows(&mut self, by: usize, target: u8, begun: u64, reply: Reply) -> Keeping {
        let mut copy = self.replicas[by].copy(target).clone();
        copy.off |= copy.ended;
        copy.begun.get_or_insert(begun);
        let keeping = match self.fence(by) {
            _ if copy.off => Keeping::Alone,
            None => {
                copy.unsure |= copy.place.is_some();
                Keeping::Alone
            }
            Some(fence) => {
                let fence = Some(fence).filter(|_| self.decisions.fence);
                self.keep_copy(by, target, &mut copy, fence, reply)
            }
        };
        if matches!(keeping, Keeping::Kept | Keeping::Unsure) {
            copy.firm = copy.rows.len();
        }
        self.replicas[by].memory.insert(target, copy);
        keeping
    }

    fn keep_copy(
        &mut self,
        by: usize,
        target: u8,
        copy: &mut Copy,
        fence: Option<Fence>,
        reply: Reply,
    ) -> Keeping {
        for _ in 0..2 {
            if copy.unsure
                && let Err(keeping) = self.realign(by, target, copy)
            {
                return keeping;
            }
            let ops = self.ops(by, target, copy, fence);
            let Some(ops) = ops else {
                copy.unsure = true;
                return Keeping::Unsure;
            };
            let count = ops.len();
            let replies = self.store(by, &ops, reply);
            let refused = replies.iter().find(|reply| **reply != StoreReply::Kept);
            match refused {
                None if replies.len() == count => {
                    let chunks = copy.chunks();
                    let last = chunks.last().copied().unwrap_or_default();
                    copy.place = Some((u32::try_from(chunks.len()).unwrap(), last.0));
                    (copy.stored, copy.lost) = (last.1, false);
                    return Keeping::Kept;
                }
                None => {
                    copy.unsure = true;
                    return Keeping::Unsure;
                }
                Some(StoreReply::Deposed) => return Keeping::Deposed,
                Some(StoreReply::Conflict) if copy.place.is_some() => copy.unsure = true,
                Some(StoreReply::Gone) if !copy.ended => copy.forget_place(),
                Some(_) => break,
            }
        }
        copy.off = true;
        Keeping::Alone
    }

    /// Reads which of a copy's rows the store has.
    fn realign(&self, by: usize, target: u8, copy: &mut Copy) -> Result<(), Keeping> {
        if copy.place.is_none() {
            copy.unsure = false;
            return Ok(());
        }
        let standing = match self.look(by, target) {
            Ok(Some((standing, _))) => standing,
            Ok(None) if !copy.ended => {
                copy.forget_place();
                copy.unsure = false;
                return Ok(());
            }
            Ok(None) => {
                copy.off = true;
                return Err(Keeping::Alone);
            }
            Err(()) => return Err(Keeping::Unsure),
        };
        match align(&copy.chains(), standing.chunks, &standing.chain) {
            Alignment::Behind(stored) => {
                let last = stored.checked_sub(1);
                let (chain, rows) =
                    last.map_or_else(Default::default, |at| copy.chunks()[at as usize]);
                (copy.place, copy.stored) = (Some((stored, chain)), rows);
                copy.unsure = false;
                Ok(())
            }
            Alignment::Ahead => Err(Keeping::Deposed),
            Alignment::Apart => {
                copy.off = true;
                Err(Keeping::Alone)
            }
        }
    }

    /// Returns the operations that store the news of a copy. `None` if the store is away.
    fn ops(
        &self,
        by: usize,
        target: u8,
        copy: &Copy,
        fence: Option<Fence>,
    ) -> Option<Vec<StoreOp>> {
        if self.replicas[by].away {
            return None;
        }
        let snapshot = name(target);
        let mut ops = Vec::new();
        if copy.place.is_none() {
            let begun = copy.begun.unwrap_or_default();
            let head = Bytes::copy_from_slice(&begun.to_le_bytes());
            let is_current = self.replicas[by].current == Some(target);
            ops.push(match copy.lost && !is_current {
                true => StoreOp::PutBack {
                    line: LINE,
                    snapshot,
                    head,
                    fence,
                },
                false => StoreOp::Begin {
                    line: LINE,
                    snapshot,
                    head,
                    was: self.line_current(by).map(name),
                    fence,
                },
            });
        }
        let (mut number, mut chain) = copy.place.unwrap_or_default();
        if !self.decisions.fence
            && let Ok(Some((standing, _))) = self.look(by, target)
        {
            // After whatever rows the store has.
            (number, chain) = (standing.chunks, standing.chain);
        }
        let mut from = copy.stored;
        for end in copy.ends.iter().filter(|end| **end > copy.stored) {
            let new = &copy.rows[from..*end];
            let next = chain_after(new, &chain);
            ops.push(StoreOp::Append {
                snapshot,
                number,
                chain,
                next,
                rows: u32::try_from(new.len()).unwrap(),
                chunk: [&chain[..], new].concat().into(),
                at: stamp(0),
                fence,
            });
            (number, chain, from) = (number + 1, next, *end);
        }
        if copy.ending == Some(End::Complete) {
            ops.push(StoreOp::End {
                snapshot,
                end: KeptEnd::Complete,
                of: Some((number, chain)),
                fence,
            });
        }
        Some(ops)
    }
}
