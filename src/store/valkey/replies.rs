//! Reads the server's values as replies.

use bytes::Bytes;
use redis::Value;

use super::wire::ValkeyWire;
use crate::clock::{Duration, Stamp};
use crate::store::engine::{KeptAges, KeptEnd, KeptStanding, StoreFault, StoreOp, StoreReply};
use crate::store::fleet::{FleetOp, FleetReply, LineWant};
use crate::store::purse::{PurseReply, PurseVerdict};
use crate::store::record::RecordName;
use crate::store::scrolls::SlotReply;
use crate::store::usage::CallerUse;

/// The age of a record whose age is unknown. Nothing this old is usable.
pub(super) const AGE_UNKNOWN: Duration = Duration::from_secs(366 * 24 * 3600);

impl ValkeyWire {
    pub fn store_reply(
        &self,
        op: &StoreOp,
        value: Value,
        sent: Stamp,
    ) -> Result<StoreReply, StoreFault> {
        match op {
            StoreOp::Find { .. } | StoreOp::Chunk { .. } | StoreOp::Recall { .. } => {
                Ok(StoreReply::Value(optional(value)?))
            }
            StoreOp::Line { .. } => match optional(value)? {
                None => Ok(StoreReply::Current(None)),
                Some(name) => Ok(StoreReply::Current(Some(RecordName(fixed(&name)?)))),
            },
            StoreOp::Head { .. } => self.head(value, sent),
            StoreOp::Note { .. } => match value {
                Value::Int(_) => Ok(StoreReply::Kept),
                _ => Err(StoreFault::Failed),
            },
            _ => match word(&value)? {
                "kept" => Ok(StoreReply::Kept),
                "gone" => Ok(StoreReply::Gone),
                "conflict" => Ok(StoreReply::Conflict),
                "deposed" => Ok(StoreReply::Deposed),
                "full" => Err(StoreFault::Full),
                _ => Err(StoreFault::Failed),
            },
        }
    }

    fn head(&self, value: Value, sent: Stamp) -> Result<StoreReply, StoreFault> {
        let mut parts = array(value)?.into_iter();
        let Some(line) = parts.next() else {
            return Ok(StoreReply::Head(None));
        };
        let mut next = || parts.next().ok_or(StoreFault::Failed);
        let line = RecordName(fixed(&bytes(line)?)?);
        let (chunks, rows) = (number(&next()?)?, number(&next()?)?);
        let chain = fixed(&bytes(next()?)?)?;
        let end = u8::try_from(number(&next()?)?).ok().and_then(KeptEnd::of);
        let head = bytes(next()?)?;
        let ages = match array(next()?)?.as_slice() {
            [] => None,
            [head, whole] => Some(KeptAges {
                head: self.stamp(head, sent)?,
                whole: self.stamp(whole, sent)?,
            }),
            _ => return Err(StoreFault::Failed),
        };
        let standing = KeptStanding {
            line,
            chunks: u32::try_from(chunks).map_err(|_| StoreFault::Failed)?,
            rows,
            chain,
            end: end.ok_or(StoreFault::Failed)?,
            ages,
        };
        Ok(StoreReply::Head(Some((standing, head))))
    }

    pub fn fleet_reply(
        &self,
        op: &FleetOp,
        value: Value,
        sent: Stamp,
    ) -> Result<FleetReply, StoreFault> {
        match op {
            FleetOp::Claim { .. } => match value {
                Value::Int(_) => Ok(FleetReply::Wait(Duration::from_millis(number(&value)?))),
                other => match word(&other)? {
                    "lead" => Ok(FleetReply::Lead),
                    _ => Err(StoreFault::Failed),
                },
            },
            FleetOp::Renew { .. } => match value {
                Value::Array(parts) => wanted(&parts).map(FleetReply::Renewed),
                other => match word(&other)? {
                    "deposed" => Ok(FleetReply::Deposed),
                    _ => Err(StoreFault::Failed),
                },
            },
            FleetOp::Want { .. } => {
                let mut parts = array(value)?.into_iter();
                let mut next = || parts.next().ok_or(StoreFault::Failed);
                let current = match bytes(next()?)? {
                    name if name.is_empty() => None,
                    name => Some(RecordName(fixed(&name)?)),
                };
                let left = Duration::from_millis(number(&next()?)?);
                Ok(FleetReply::Line { current, left })
            }
            FleetOp::Settle { .. } => Ok(FleetReply::Value(bytes(value)?)),
            FleetOp::Purges => {
                let mut parts = array(value)?.into_iter();
                let mut next = || parts.next().unwrap_or(Value::Nil);
                let number = text_number(next())?;
                let record = optional(next())?;
                Ok(FleetReply::Purges { number, record })
            }
            FleetOp::Look { .. } | FleetOp::Board { .. } => match value {
                Value::Array(parts) if parts.is_empty() => Ok(FleetReply::Answer(None)),
                Value::Array(parts) => {
                    let is_failure = parts.len() == 1;
                    let mut parts = parts.into_iter();
                    let mut next = || parts.next().ok_or(StoreFault::Failed);
                    let record = bytes(next()?)?;
                    if is_failure {
                        return Ok(FleetReply::Failed(record));
                    }
                    let born = self.stamp(&next()?, sent)?;
                    Ok(FleetReply::Answer(Some((record, born))))
                }
                Value::Int(_) => Ok(FleetReply::Wait(Duration::from_millis(number(&value)?))),
                other => match word(&other)? {
                    "lead" => Ok(FleetReply::Lead),
                    _ => Err(StoreFault::Failed),
                },
            },
            FleetOp::Purge { .. }
            | FleetOp::Land { .. }
            | FleetOp::Fail { .. }
            | FleetOp::GiveUp { .. }
            | FleetOp::Release { .. }
            | FleetOp::KeepCall { .. }
            | FleetOp::EndCall { .. }
            | FleetOp::Word { .. }
            | FleetOp::SlotUsed { .. }
            | FleetOp::SlotEnded { .. } => match word(&value)? {
                "kept" => Ok(FleetReply::Kept),
                "conflict" => Ok(FleetReply::Conflict),
                _ => Err(StoreFault::Failed),
            },
            FleetOp::Take { .. } => {
                let mut parts = array(value)?.into_iter();
                let mut next = || parts.next().ok_or(StoreFault::Failed);
                let verdict = next()?;
                let wait = Duration::from_millis(number(&next()?)?);
                let refuses = number(&next()?)? == 1;
                let verdict = match word(&verdict)? {
                    "taken" => PurseVerdict::Taken,
                    "probe" => PurseVerdict::Probe {
                        left: wait,
                        refuses,
                    },
                    "held" => PurseVerdict::Held {
                        left: wait,
                        refuses,
                    },
                    "places" => PurseVerdict::NoPlace,
                    "credit" => PurseVerdict::NoCredit { wait },
                    _ => return Err(StoreFault::Failed),
                };
                let Value::Int(credit_us) = next()? else {
                    return Err(StoreFault::Failed);
                };
                let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
                Ok(FleetReply::Purse(PurseReply {
                    verdict,
                    credit_us,
                    busy: count(number(&next()?)?),
                    strikes: count(number(&next()?)?),
                }))
            }
            FleetOp::Use { .. } => {
                let mut parts = array(value)?.into_iter();
                let mut next = || parts.next().ok_or(StoreFault::Failed);
                let (minute, sums) = (number(&next()?)?, array(next()?)?);
                let sums = sums.chunks_exact(2).map(|sum| match sum {
                    [count, before] => Ok(CallerUse {
                        minute,
                        count: number(count)?,
                        before: number(before)?,
                    }),
                    _ => Err(StoreFault::Failed),
                });
                Ok(FleetReply::Used(sums.collect::<Result<_, _>>()?))
            }
            FleetOp::Slot { .. } => {
                let mut parts = array(value)?.into_iter();
                let mut next = || number(&parts.next().ok_or(StoreFault::Failed)?);
                let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
                Ok(FleetReply::Slot(SlotReply {
                    granted: next()? == 1,
                    standing: count(next()?),
                    held: count(next()?),
                    waiting: count(next()?),
                }))
            }
            FleetOp::Beat { .. } => {
                let (_, reply) = self.beat_reply(value)?;
                Ok(reply)
            }
        }
    }

    /// Reads the id of the engine's contents and the state of the fleet.
    pub fn beat_reply(&self, value: Value) -> Result<(Bytes, FleetReply), StoreFault> {
        let mut parts = array(value)?.into_iter();
        let mut next = || parts.next().ok_or(StoreFault::Failed);
        let id = bytes(next()?)?;
        let purges = text_number(next()?)?;
        let [replicas, applied] = [number(&next()?)?, number(&next()?)?];
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let reply = FleetReply::Beat {
            number: purges,
            replicas: count(replicas),
            applied: count(applied),
        };
        Ok((id, reply))
    }

    /// Returns the stamp of a record that had this age when the engine replied. A negative age, as
    /// after a clock jump, counts as unknown.
    fn stamp(&self, age: &Value, sent: Stamp) -> Result<Stamp, StoreFault> {
        let now = match self.scripts.time_is_given {
            true => sent,
            false => self.clock.stamp(),
        };
        match age {
            Value::Int(age) => Ok(match u64::try_from(*age) {
                Ok(age) => now.earlier(Duration::from_millis(age)),
                Err(_) => now.later(AGE_UNKNOWN),
            }),
            _ => Err(StoreFault::Failed),
        }
    }
}

fn wanted(parts: &[Value]) -> Result<LineWant, StoreFault> {
    let [rows, furthest, lane, left, turn] = parts else {
        return Err(StoreFault::Failed);
    };
    let small = |value: &Value| Ok(u32::try_from(number(value)?).unwrap_or(u32::MAX));
    Ok(LineWant {
        rows: small(rows)?,
        furthest: small(furthest)?,
        lane: u8::try_from(number(lane)?).unwrap_or(u8::MAX),
        left: Duration::from_millis(number(left)?),
        turn: number(turn)? != 0,
    })
}

fn optional(value: Value) -> Result<Option<Bytes>, StoreFault> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

fn bytes(value: Value) -> Result<Bytes, StoreFault> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        _ => Err(StoreFault::Failed),
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreFault> {
    bytes.try_into().map_err(|_| StoreFault::Failed)
}

fn array(value: Value) -> Result<Vec<Value>, StoreFault> {
    match value {
        Value::Array(parts) => Ok(parts),
        _ => Err(StoreFault::Failed),
    }
}

fn number(value: &Value) -> Result<u64, StoreFault> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| StoreFault::Failed),
        _ => Err(StoreFault::Failed),
    }
}

fn text_number(value: Value) -> Result<u64, StoreFault> {
    let text = bytes(value)?;
    let number = std::str::from_utf8(&text).ok();
    number
        .and_then(|text| text.parse().ok())
        .ok_or(StoreFault::Failed)
}

fn word(value: &Value) -> Result<&str, StoreFault> {
    match value {
        Value::BulkString(word) => std::str::from_utf8(word).map_err(|_| StoreFault::Failed),
        Value::SimpleString(word) => Ok(word),
        _ => Err(StoreFault::Failed),
    }
}
