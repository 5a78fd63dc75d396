//! Page tokens: only what was sealed opens, to exactly what was sealed.

use jiff::civil::Date;
use msp_gateway::domain::audience::AudienceFingerprint;
use msp_gateway::domain::{CustomerId, DateRange, PageSize};
use msp_gateway::secrets::{SealingKey, Secret};
use msp_gateway::snapshot::token::TOKEN_CHARS_MAX;
use msp_gateway::snapshot::{Claims, Marks, Sealer, SnapshotId};

use super::Taker;

pub fn sealer(secret: &str) -> Sealer {
    let key = SealingKey::derive("fuzz", &Secret::parse(secret).unwrap());
    Sealer::new(&key, None).unwrap()
}

pub fn claims(from: &mut Taker<'_>) -> Claims {
    let mut day = || {
        let year = i16::from_le_bytes(from.bytes()).rem_euclid(9_999) + 1;
        let month = i8::try_from(from.byte() % 12).unwrap() + 1;
        Date::new(year, month, i8::try_from(from.byte() % 28).unwrap() + 1).unwrap()
    };
    let (start, end) = (day(), day());
    let flags = from.byte();
    let customer: String = (0..from.byte() % 129)
        .map(|_| char::from(b"abcXYZ019-_.:@|"[usize::from(from.byte() % 15)]))
        .collect();
    Claims {
        snapshot: SnapshotId(u128::from_le_bytes(from.bytes())),
        offset: u32::from_le_bytes(from.bytes()),
        size: PageSize::new(u64::from(from.word() % 500) + 1).unwrap(),
        audience: AudienceFingerprint(from.bytes()),
        identity: from.bytes(),
        customer: CustomerId::parse(&customer).ok(),
        derived: flags & 1 > 0,
        range: DateRange::new(start, end).filter(|_| flags & 2 > 0),
        extra: (flags & 4 > 0).then(|| "x".repeat(usize::from(from.byte()))),
        marks: Some(Marks {
            prefix: from.bytes(),
            first: from.bytes(),
        }),
    }
}

/// The token with some characters changed, taken out, put in, or cut off.
fn altered(token: &str, edits: &mut Taker<'_>) -> Vec<u8> {
    let mut bytes = token.as_bytes().to_vec();
    for _ in 0..=edits.byte() % 4 {
        let at = usize::from(edits.word()) % (bytes.len() + 1);
        match edits.byte() % 5 {
            0 if at < bytes.len() => bytes[at] ^= edits.byte() | 1,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_slice(b"=="),
            _ => bytes.insert(at, edits.byte()),
        }
    }
    bytes
}

pub fn hold(bytes: &[u8]) {
    let ours = sealer("a-sealing-key");
    // A text from outside opens only if it is, to the last character, what we would seal.
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(claims) = ours.open(text)
    {
        assert_eq!(ours.seal(&claims).as_deref(), Some(text));
    }
    let mut from = Taker(bytes);
    let claims = claims(&mut from);
    let token = ours.seal(&claims).unwrap();
    assert!(token.len() <= TOKEN_CHARS_MAX, "{}", token.len());
    assert!(
        token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    assert_eq!(ours.open(&token).as_ref(), Some(&claims));
    assert_eq!(ours.seal(&claims).as_ref(), Some(&token));
    assert_eq!(sealer("another-key").open(&token), None);
    let altered = altered(&token, &mut from);
    if altered != token.as_bytes()
        && let Ok(text) = std::str::from_utf8(&altered)
    {
        assert_eq!(ours.open(text), None, "{token} and {text}");
    }
}
