//! Seals bytes for one place, so that only holders of a key read them and no other place takes
//! them.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};

use super::SealingKey;

/// Length of a key id.
pub const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
/// What is before the sealed bytes: the version, the key id and the nonce.
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_BYTES;
const TAG_BYTES: usize = 16;

/// Why bytes do not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealReject {
    /// They are too short to be sealed bytes.
    Size,
    /// They have another version.
    Version,
    /// They were sealed with a key that is neither the current nor the previous one.
    Key,
    /// The bytes were altered, or were sealed for another record or token.
    Seal,
}

struct IdentifiedKey {
    id: [u8; KEY_ID_BYTES],
    cipher: LessSafeKey,
    nonces: SealingKey,
}

impl IdentifiedKey {
    fn new(id_purpose: &str, key: &SealingKey) -> Option<Self> {
        let cipher = UnboundKey::new(&AES_256_GCM_SIV, &key.0[..]).ok()?;
        let mut id = [0; KEY_ID_BYTES];
        blake3::Hasher::new_derive_key(id_purpose)
            .update(&key.0[..])
            .finalize_xof()
            .fill(&mut id);
        Some(Self {
            id,
            cipher: LessSafeKey::new(cipher),
            nonces: key.clone(),
        })
    }

    fn bound(&self, version: u8, place: &[u8]) -> Vec<u8> {
        [&[version][..], &self.id, place].concat()
    }
}

/// Seals with the current key, and opens what the previous one sealed too, during a rotation.
///
/// Sealed bytes are a version, a key id, a nonce, and the output of AES-256-GCM-SIV, bound to the
/// version, the key id and the place. The nonce is a keyed hash of place and plain bytes: equal
/// bytes in one place give equal sealed bytes, and no random number is needed. The cipher
/// withstands repeated nonces.
pub struct Seals {
    current: IdentifiedKey,
    previous: Option<IdentifiedKey>,
}

impl Seals {
    /// Creates the seals of these keys, whose ids are derived for one purpose. Returns `None` only
    /// if the cipher refuses a key, which it does not for 32 bytes.
    pub fn new(
        id_purpose: &str,
        current: &SealingKey,
        previous: Option<&SealingKey>,
    ) -> Option<Self> {
        Some(Self {
            current: IdentifiedKey::new(id_purpose, current)?,
            previous: match previous {
                Some(key) => Some(IdentifiedKey::new(id_purpose, key)?),
                None => None,
            },
        })
    }

    /// Returns the ids of the current key and the previous one.
    pub fn key_ids(&self) -> ([u8; KEY_ID_BYTES], Option<[u8; KEY_ID_BYTES]>) {
        (self.current.id, self.previous.as_ref().map(|key| key.id))
    }

    /// Seals bytes for a place with the current key. Returns `None` only if the cipher fails.
    pub fn seal(&self, version: u8, place: &[u8], mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let key = &self.current;
        let mut nonce = [0; NONCE_BYTES];
        blake3::Hasher::new_keyed(&key.nonces.0)
            .update(place)
            .update(&plain)
            .finalize_xof()
            .fill(&mut nonce);
        let mut sealed = Vec::with_capacity(HEAD_BYTES + plain.len() + TAG_BYTES);
        sealed.push(version);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let bound = Aad::from(key.bound(version, place));
        key.cipher
            .seal_in_place_append_tag(nonce, bound, &mut plain)
            .ok()?;
        sealed.extend_from_slice(&plain);
        Some(sealed)
    }

    /// Opens bytes that were sealed for a place.
    ///
    /// # Errors
    /// Why they do not open.
    pub fn open(&self, version: u8, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealReject> {
        let (head, sealed) = sealed
            .split_at_checked(HEAD_BYTES)
            .ok_or(SealReject::Size)?;
        let (&[of], head) = head.split_first_chunk().ok_or(SealReject::Size)?;
        if of != version {
            return Err(SealReject::Version);
        }
        let (id, nonce) = head
            .split_first_chunk::<KEY_ID_BYTES>()
            .ok_or(SealReject::Size)?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == *id)
            .ok_or(SealReject::Key)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealReject::Size)?;
        let bound = Aad::from(key.bound(version, place));
        let mut plain = sealed.to_vec();
        let opened = key.cipher.open_in_place(nonce, bound, &mut plain);
        let length = opened.map_err(|_| SealReject::Seal)?.len();
        plain.truncate(length);
        Ok(plain)
    }
}
