//! The stored head of a snapshot: all that the store has of it besides its rows, ages and end.

use std::sync::Arc;

use bytes::Bytes;

use super::frozen::Snapshot;
use super::token::SnapshotId;
use crate::cache::Lifetimes;
use crate::clock::Duration;
use crate::domain::query::SearchRequest;
use crate::domain::{CustomerId, SearchQuery};
use crate::store::pack::{PackReader, PackWriter};
use crate::upstream::EnvelopeMember;

/// The stored head of a snapshot.
pub(super) struct KeptHead {
    pub id: SnapshotId,
    /// The fingerprint of its cache key.
    pub identity: [u8; 32],
    pub draw: f64,
    /// The number of purges before its scroll began.
    pub begun: u64,
    pub lifetimes: Lifetimes,
    pub query: Arc<SearchQuery>,
    pub envelope: Vec<EnvelopeMember>,
}

/// Writes the head of a snapshot whose scroll began after `begun` purges.
pub(super) fn write_head(snapshot: &Snapshot, begun: u64) -> Vec<u8> {
    let state = snapshot.lock();
    let Lifetimes {
        fresh,
        stale,
        on_error,
    } = state.lifetimes;
    let mut out = PackWriter::default();
    out.fixed(&snapshot.id().0.to_le_bytes())
        .fixed(snapshot.key.fingerprint())
        .u64(snapshot.draw.to_bits())
        .u64(begun);
    for time in [fresh, stale, on_error] {
        out.u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
    let customer = snapshot.query.customer.as_ref();
    out.bytes(customer.map_or("", CustomerId::as_str).as_bytes());
    out.bytes(snapshot.query.body_text().as_bytes());
    out.u32(u32::try_from(state.envelope.len()).unwrap_or(u32::MAX));
    for member in state.envelope.iter() {
        match member {
            EnvelopeMember::Data => {
                out.u8(b'd');
            }
            EnvelopeMember::NextPageKey => {
                out.u8(b'n');
            }
            EnvelopeMember::Other(name, raw) => {
                out.u8(b'o').bytes(name.as_bytes()).bytes(raw.as_bytes());
            }
        }
    }
    out.done()
}

/// Reads a stored head. `None` if it is not one of this layout.
pub(super) fn read_head(bytes: Bytes) -> Option<KeptHead> {
    let mut reader = PackReader::new(bytes);
    let text = |bytes: Bytes| String::from_utf8(bytes.into()).ok();
    let id = SnapshotId(u128::from_le_bytes(reader.fixed()?));
    let identity = reader.fixed()?;
    let draw = f64::from_bits(reader.u64()?).clamp(0.0, 1.0);
    let begun = reader.u64()?;
    let mut time = || reader.u64().map(Duration::from_millis);
    let lifetimes = Lifetimes {
        fresh: time()?,
        stale: time()?,
        on_error: time()?,
    };
    let customer = match text(reader.bytes()?)?.as_str() {
        "" => None,
        customer => Some(CustomerId::parse(customer).ok()?),
    };
    let request = SearchRequest::parse(&reader.bytes()?, customer).ok()?;
    let mut envelope = Vec::new();
    for _ in 0..reader.u32()? {
        envelope.push(match reader.u8()? {
            b'd' => EnvelopeMember::Data,
            b'n' => EnvelopeMember::NextPageKey,
            b'o' => EnvelopeMember::Other(text(reader.bytes()?)?, text(reader.bytes()?)?),
            _ => return None,
        });
    }
    reader.is_over().then_some(KeptHead {
        id,
        identity,
        draw,
        begun,
        lifetimes,
        query: Arc::new(request.query),
        envelope,
    })
}
