//! Sealed records. The engine that stores them can read only their length.
//!
//! A record is packed (with zstd if that is shorter), then sealed with AES-256-GCM-SIV. The seal is
//! bound to the record's kind, name, number and format, so that a record moved to another place in
//! the engine does not open there. The nonce is a keyed hash of what is sealed: equal records have
//! equal bytes, and no random number is needed.

use bytes::Bytes;

use crate::metrics::RecordReject;
use crate::secrets::{KEY_ID_BYTES, SealReject, SealingKey, Seals};

/// The version of the record layout. Each version has a file of its own and cannot open records of
/// another.
pub const FORMAT: u8 = 1;
/// Largest sealed record. Larger answers and vendor pages stay in memory only.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Largest content. zstd compresses JSON to about a tenth of its size. A record that claims a
/// larger content is rejected before memory is allocated for it.
const CONTENT_BYTES_MAX: usize = 128 << 20;
/// Contents shorter than this are not worth packing.
const PACKED_FROM_BYTES: usize = 256;
/// The fastest level. Compressing and sealing a vendor page of 500 rows takes a fraction of a
/// millisecond.
const ZSTD_LEVEL: i32 = 1;

/// Sixteen bytes that name a record to the engine. They reveal no identity, because they are keyed
/// hashes ([`Names`](super::Names)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(pub [u8; 16]);

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A vendor's answer.
    Answer = 1,
    /// The head of a snapshot.
    Head = 2,
    /// A vendor page of a snapshot.
    Chunk = 3,
    /// A small record about the gateway itself.
    State = 4,
}

/// The place that a record is bound to.
#[derive(Clone, Copy, Debug)]
pub struct RecordPlace {
    /// What it holds.
    pub kind: RecordKind,
    /// Its name.
    pub name: RecordName,
    /// Its number among those of one name.
    pub number: u32,
}

impl RecordPlace {
    fn bytes(&self) -> Vec<u8> {
        let number = self.number.to_le_bytes();
        [&[self.kind as u8][..], &self.name.0, &number].concat()
    }
}

/// Seals records with the current key, and opens those of the previous one too, during a rotation.
pub struct SealedRecord(Seals);

impl SealedRecord {
    /// Creates the cipher of records. `None` only if it refuses a key, which it does not for 32
    /// bytes.
    pub fn new(current: &SealingKey, previous: Option<&SealingKey>) -> Option<Self> {
        Seals::new("msp-gateway store record key id", current, previous).map(Self)
    }

    /// Returns the ids of the current key and the previous one.
    pub fn key_ids(&self) -> ([u8; KEY_ID_BYTES], Option<[u8; KEY_ID_BYTES]>) {
        self.0.key_ids()
    }

    /// Returns the record of `content` for `place`; `None` where it is larger than a record may be.
    pub fn seal(&self, place: RecordPlace, content: &[u8]) -> Option<Bytes> {
        let record = self.0.seal(FORMAT, &place.bytes(), pack(content)?)?;
        (record.len() <= RECORD_BYTES_MAX).then(|| record.into())
    }

    /// Returns the content of a record that was sealed for `place`.
    ///
    /// # Errors
    /// The reason why it does not open. Treat such a record as missing.
    pub fn open(&self, place: RecordPlace, record: &[u8]) -> Result<Bytes, RecordReject> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(RecordReject::Size);
        }
        let packed = self.0.open(FORMAT, &place.bytes(), record);
        let packed = packed.map_err(|why| match why {
            SealReject::Size => RecordReject::Size,
            SealReject::Version => RecordReject::Format,
            SealReject::Key => RecordReject::Key,
            SealReject::Seal => RecordReject::Seal,
        })?;
        unpack(&packed).ok_or(RecordReject::Content)
    }
}

/// Returns the content behind a byte that says whether it is compressed. A compressed content has
/// its original length as well.
fn pack(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() > CONTENT_BYTES_MAX {
        return None;
    }
    if content.len() >= PACKED_FROM_BYTES
        && let Ok(packed) = zstd::bulk::compress(content, ZSTD_LEVEL)
        && packed.len() < content.len()
    {
        let mut out = Vec::with_capacity(5 + packed.len() + 16);
        out.push(1);
        out.extend_from_slice(&u32::try_from(content.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&packed);
        return Some(out);
    }
    let mut out = Vec::with_capacity(1 + content.len() + 16);
    out.push(0);
    out.extend_from_slice(content);
    Some(out)
}

fn unpack(packed: &[u8]) -> Option<Bytes> {
    match packed.split_first()? {
        (0, content) => Some(Bytes::copy_from_slice(content)),
        (1, rest) => {
            let (len, packed) = rest.split_first_chunk()?;
            let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
            if len > CONTENT_BYTES_MAX {
                return None;
            }
            let content = zstd::bulk::decompress(packed, len).ok()?;
            (content.len() == len).then(|| content.into())
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secrets::Secret;

    pub fn sealing_key(text: &str) -> SealingKey {
        SealingKey::derive("test", &Secret::parse(text).unwrap())
    }

    fn keys(current: &str, previous: Option<&str>) -> SealedRecord {
        let previous = previous.map(sealing_key);
        SealedRecord::new(&sealing_key(current), previous.as_ref()).unwrap()
    }

    const PLACE: RecordPlace = RecordPlace {
        kind: RecordKind::Chunk,
        name: RecordName([9; 16]),
        number: 3,
    };

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_place_alone(
            content in proptest::collection::vec(0..4_u8, 0..2_000),
            kind in 1..4_u8,
            number in 0..3_u32,
        ) {
            let keys = keys("a", None);
            let record = keys.seal(PLACE, &content).unwrap();
            prop_assert_eq!(keys.seal(PLACE, &content).unwrap(), record.clone());
            prop_assert_eq!(keys.open(PLACE, &record).unwrap(), content);
            let kind = [RecordKind::Answer, RecordKind::Head, RecordKind::State][usize::from(kind) % 3];
            for place in [
                RecordPlace { kind, ..PLACE },
                RecordPlace { number, ..PLACE },
                RecordPlace { name: RecordName([8; 16]), ..PLACE },
            ] {
                prop_assert_eq!(keys.open(place, &record), Err(RecordReject::Seal));
            }
        }

        #[test]
        fn no_flipped_bit_and_no_cut_opens(
            content in proptest::collection::vec(any::<u8>(), 0..600),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let keys = keys("a", None);
            let record = keys.seal(PLACE, &content).unwrap();
            let mut flipped = record.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert!(keys.open(PLACE, &flipped).is_err());
            prop_assert!(keys.open(PLACE, &record[..at]).is_err());
        }
    }

    #[test]
    fn a_rotation_opens_two_keys_and_no_more() {
        let content = b"content".repeat(100);
        let old = keys("old", None).seal(PLACE, &content).unwrap();
        assert_eq!(keys("new", Some("old")).open(PLACE, &old).unwrap(), content);
        assert_eq!(
            keys("newer", Some("new")).open(PLACE, &old),
            Err(RecordReject::Key)
        );
        // Packed: the text repeats.
        assert!(old.len() < content.len() / 2);
        let mut other = old.to_vec();
        other[0] = FORMAT + 1;
        assert_eq!(
            keys("old", None).open(PLACE, &other),
            Err(RecordReject::Format)
        );
    }

    #[test]
    fn what_is_too_large_is_refused_on_both_ways() {
        let keys = keys("a", None);
        let mut noise = vec![0; RECORD_BYTES_MAX];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        assert_eq!(keys.seal(PLACE, &noise), None);
        noise.push(0);
        assert_eq!(keys.open(PLACE, &noise), Err(RecordReject::Size));
        // A record of ours that claims more content than there may be.
        let bomb = [&[1][..], &u32::MAX.to_le_bytes(), &[0; 40]].concat();
        assert_eq!(unpack(&bomb), None);
    }
}
