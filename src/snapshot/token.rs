//! Page tokens: sealed claims about a caller's place in a list.
//!
//! A token carries no time and no randomness: the same page has the same token, on every replica
//! that holds the same sealing key. A token names its snapshot. It also contains the search and the
//! marks of the rows before its place, so a caller can continue in another snapshot if the first
//! one is gone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::civil::Date;

use super::marks::Marks;
use crate::domain::audience::AudienceFingerprint;
use crate::domain::{CustomerId, DateRange, PageSize};
use crate::secrets::{SealingKey, Seals};

/// Maximum length of a token. Longer texts are not decoded. A token with the longest customer id
/// and search has fewer than 800 characters.
pub const TOKEN_CHARS_MAX: usize = 1024;

/// The version of tokens that are sealed.
const VERSION: u8 = 2;
/// The previous version, without marks and search. Its tokens can be opened, but have expired.
const VERSION_BEFORE: u8 = 1;
/// Maximum bytes of a search's other members in a token. If a search has more, a token whose
/// snapshot is gone continues only if the continuation repeats the search.
pub const EXTRA_BYTES_MAX: usize = 300;
/// Written instead of the length of a search that is too long.
const NO_EXTRA: u16 = u16::MAX;
/// The version of sync tokens. A sync token is never accepted as a page token, or the other way
/// round.
const SYNC_VERSION: u8 = 0x81;

/// Names a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u128);

/// The content of a page token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The snapshot of the page.
    pub snapshot: SnapshotId,
    /// First row of the page, counted in the view.
    pub offset: u32,
    /// The page size, if the continuation does not give one.
    pub size: PageSize,
    /// The audience of the caller that received the token. Callers with the same audience may use
    /// it.
    pub audience: AudienceFingerprint,
    /// Start of the fingerprint of the search's identity.
    pub identity: [u8; 16],
    /// The customer that was searched.
    pub customer: Option<CustomerId>,
    /// Whether the customer's rows are a view of a snapshot of all customers.
    pub derived: bool,
    /// The range that was searched.
    pub range: Option<DateRange>,
    /// The other members of the search, as canonical JSON. `None` if they are longer than
    /// [`EXTRA_BYTES_MAX`].
    pub extra: Option<String>,
    /// The marks that the rows before the place must show. `None` in a token of the previous
    /// version.
    pub marks: Option<Marks>,
}

/// The content of a sync token, which names a state of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncClaims {
    /// The state.
    pub state: u128,
    /// The audience of the caller that received the token.
    pub audience: AudienceFingerprint,
    /// When the vendor last confirmed the state, as reported to the caller, in milliseconds of Unix
    /// time.
    pub as_of_ms: i64,
}

/// Seals and opens tokens. Opens those of the previous sealing key too, during a rotation.
pub struct Sealer(Seals);

impl Sealer {
    /// Creates a sealer. `None` only if the cipher refuses a key, which it does not for 32 bytes.
    pub fn new(current: &SealingKey, previous: Option<&SealingKey>) -> Option<Self> {
        Seals::new("msp-gateway page token key id", current, previous).map(Self)
    }

    /// Returns the token of these claims; `None` only if the cipher fails.
    pub fn seal(&self, claims: &Claims) -> Option<String> {
        let version = match claims.marks {
            Some(_) => VERSION,
            None => VERSION_BEFORE,
        };
        self.seal_as(version, write(claims))
    }

    /// Returns the token of a state of a search. `None` only if the cipher fails.
    pub fn seal_sync(&self, claims: &SyncClaims) -> Option<String> {
        let mut plain = claims.state.to_le_bytes().to_vec();
        plain.extend_from_slice(&claims.audience.0);
        plain.extend_from_slice(&claims.as_of_ms.to_le_bytes());
        self.seal_as(SYNC_VERSION, plain)
    }

    fn seal_as(&self, version: u8, claims: Vec<u8>) -> Option<String> {
        // Nothing but the claims goes into a token, so it is a pure function of the page.
        let token = self.0.seal(version, &[], claims)?;
        Some(URL_SAFE_NO_PAD.encode(token))
    }

    /// Returns the claims of a token; `None` for anything that was not sealed with one of the keys.
    pub fn open(&self, token: &str) -> Option<Claims> {
        let opened = |version| read(&self.open_as(version, token)?, version);
        opened(VERSION).or_else(|| opened(VERSION_BEFORE))
    }

    /// Returns the claims of a sync token. `None` for anything that was not sealed with one of the
    /// keys.
    pub fn open_sync(&self, token: &str) -> Option<SyncClaims> {
        let plain = self.open_as(SYNC_VERSION, token)?;
        let (state, rest) = plain.split_first_chunk()?;
        let (audience, as_of) = rest.split_first_chunk()?;
        Some(SyncClaims {
            state: u128::from_le_bytes(*state),
            audience: AudienceFingerprint(*audience),
            as_of_ms: i64::from_le_bytes(as_of.try_into().ok()?),
        })
    }

    fn open_as(&self, wanted: u8, token: &str) -> Option<Vec<u8>> {
        if token.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        self.0.open(wanted, &[], &bytes).ok()
    }
}

fn write(claims: &Claims) -> Vec<u8> {
    let Claims {
        snapshot,
        offset,
        size,
        audience,
        identity,
        customer,
        derived,
        range,
        extra,
        marks,
    } = claims;
    let mut out = Vec::with_capacity(128 + extra.as_ref().map_or(0, String::len));
    out.extend_from_slice(&snapshot.0.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&size.to_u16().to_le_bytes());
    out.extend_from_slice(&audience.0);
    out.extend_from_slice(identity);
    out.push(u8::from(*derived));
    if let Some(Marks { prefix, first }) = marks {
        out.extend_from_slice(prefix);
        out.extend_from_slice(first);
        let extra = extra.as_ref().filter(|it| it.len() <= EXTRA_BYTES_MAX);
        let length = extra.and_then(|extra| u16::try_from(extra.len()).ok());
        out.extend_from_slice(&length.unwrap_or(NO_EXTRA).to_le_bytes());
        out.extend_from_slice(extra.map_or(&[], |extra| extra.as_bytes()));
    }
    match range {
        None => out.push(0),
        Some(range) => {
            out.push(1);
            for day in [range.start(), range.end()] {
                out.extend_from_slice(&day.year().to_le_bytes());
                out.extend_from_slice(&day.month().to_le_bytes());
                out.extend_from_slice(&day.day().to_le_bytes());
            }
        }
    }
    if let Some(customer) = customer {
        out.extend_from_slice(customer.as_str().as_bytes());
    }
    out
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(taken.to_vec()).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take::<1>()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn day(&mut self) -> Option<Date> {
        let year = i16::from_le_bytes(self.take()?);
        let month = i8::from_le_bytes(self.take()?);
        let day = i8::from_le_bytes(self.take()?);
        Date::new(year, month, day).ok()
    }
}

fn read(claims: &[u8], version: u8) -> Option<Claims> {
    let mut reader = Reader(claims);
    let snapshot = SnapshotId(u128::from_le_bytes(reader.take()?));
    let offset = u32::from_le_bytes(reader.take()?);
    let size = PageSize::new(u64::from(u16::from_le_bytes(reader.take()?)))?;
    let audience = AudienceFingerprint(reader.take()?);
    let identity = reader.take()?;
    let derived = reader.flag()?;
    let (mut marks, mut extra) = (None, None);
    if version != VERSION_BEFORE {
        let (prefix, first) = (reader.take()?, reader.take()?);
        marks = Some(Marks { prefix, first });
        extra = match u16::from_le_bytes(reader.take()?) {
            NO_EXTRA => None,
            length => Some(reader.text(usize::from(length))?),
        };
    }
    let range = match reader.flag()? {
        false => None,
        true => {
            let (start, end) = (reader.day()?, reader.day()?);
            Some(DateRange::new(start, end)?)
        }
    };
    let customer = match reader.0 {
        [] => None,
        text => Some(CustomerId::parse(std::str::from_utf8(text).ok()?).ok()?),
    };
    Some(Claims {
        snapshot,
        offset,
        size,
        audience,
        identity,
        customer,
        derived,
        range,
        extra,
        marks,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Audience;
    use crate::secrets::Secret;

    fn sealing_key(text: &str) -> SealingKey {
        SealingKey::derive("test", &Secret::parse(text).unwrap())
    }

    fn sealer(current: &str, previous: Option<&str>) -> Sealer {
        let previous = previous.map(sealing_key);
        Sealer::new(&sealing_key(current), previous.as_ref()).unwrap()
    }

    prop_compose! {
        fn claims()(
            snapshot in any::<u128>(),
            offset in any::<u32>(),
            size in 1_u64..=500,
            audience in any::<[u8; 16]>(),
            identity in any::<[u8; 16]>(),
            customer in proptest::option::of("[a-z0-9_-]{1,128}"),
            derived in any::<bool>(),
            range in proptest::option::of((0_i64..20_000, 0_i64..2_000)),
            extra in proptest::option::of(".{0,75}"),
            marks in any::<([u8; 8], [u8; 8])>(),
        ) -> Claims {
            let day = |n: i64| jiff::civil::date(2000, 1, 1) + jiff::Span::new().days(n);
            Claims {
                snapshot: SnapshotId(snapshot),
                offset,
                size: PageSize::new(size).unwrap(),
                audience: AudienceFingerprint(audience),
                identity,
                customer: customer.map(|c| CustomerId::parse(&c).unwrap()),
                derived,
                range: range.map(|(start, more)| DateRange::new(day(start), day(start + more)).unwrap()),
                extra,
                marks: Some(Marks { prefix: marks.0, first: marks.1 }),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_is_stable(claims in claims()) {
            let sealer = sealer("a", None);
            let token = sealer.seal(&claims).unwrap();
            prop_assert_eq!(sealer.seal(&claims).unwrap(), token.clone());
            prop_assert!(token.len() <= TOKEN_CHARS_MAX);
            prop_assert_eq!(sealer.open(&token), Some(claims));
        }

        #[test]
        fn any_flipped_bit_closes_it(claims in claims(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let sealer = sealer("a", None);
            let mut bytes = URL_SAFE_NO_PAD.decode(sealer.seal(&claims).unwrap()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(sealer.open(&URL_SAFE_NO_PAD.encode(bytes)), None);
        }

        #[test]
        fn anything_else_does_not_open(text in ".{0,300}") {
            prop_assert_eq!(sealer("a", None).open(&text), None);
        }
    }

    #[test]
    fn a_rotation_accepts_two_keys_and_no_more() {
        let claims = Claims {
            snapshot: SnapshotId(7),
            offset: 25,
            size: PageSize::DEFAULT,
            audience: Audience::All.fingerprint(),
            identity: [3; 16],
            customer: None,
            derived: false,
            range: None,
            extra: None,
            marks: None,
        };
        let old = sealer("old", None).seal(&claims).unwrap();
        assert_eq!(sealer("new", Some("old")).open(&old), Some(claims));
        assert_eq!(sealer("newer", Some("new")).open(&old), None);
    }
}
