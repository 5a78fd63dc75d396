//! Names of records. They are keyed hashes, so that the engine learns no identity.

use zeroize::Zeroizing;

use super::record::RecordName;

/// The use of a name. Names of different uses never collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameUse {
    /// The answer to a question.
    Answer,
    /// The line of a search's snapshots.
    Line,
    /// One snapshot.
    Snapshot,
    /// A record about the gateway itself.
    State,
    /// A vendor account whose budget is shared.
    Account,
    /// A caller whose requests are summed.
    Caller,
    /// A payer of vendor calls.
    Payer,
}

impl NameUse {
    const fn word(self) -> &'static [u8] {
        match self {
            Self::Answer => b"answer",
            Self::Line => b"line",
            Self::Snapshot => b"snapshot",
            Self::State => b"state",
            Self::Account => b"account",
            Self::Caller => b"caller",
            Self::Payer => b"payer",
        }
    }
}

/// Turns identities into names. The key is random and stays the same when the sealing key is
/// rotated, so names outlive sealing keys.
pub struct Names {
    key: Zeroizing<[u8; 32]>,
}

impl Names {
    /// Creates names under a new random key. `None` if the system gives no random bytes.
    pub fn random() -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *key).ok()?;
        Some(Self { key })
    }

    /// Creates names under a stored key. `None` if these are not the bytes of one.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let key = Zeroizing::new(bytes.try_into().ok()?);
        Some(Self { key })
    }

    /// Returns the key, to be kept sealed.
    pub fn bytes(&self) -> &[u8] {
        &*self.key
    }

    /// Returns the name of the line of a search, by its identity.
    pub fn of_line(&self, identity: &[u8; 32]) -> RecordName {
        self.of(NameUse::Line, identity.split_at(16).0)
    }

    /// Returns the name of an identity.
    pub fn of(&self, usage: NameUse, identity: &[u8]) -> RecordName {
        let mut name = [0; 16];
        blake3::Hasher::new_keyed(&self.key)
            .update(usage.word())
            .update(&[0])
            .update(identity)
            .finalize_xof()
            .fill(&mut name);
        RecordName(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hang_on_key_use_and_identity() {
        let names = Names::random().unwrap();
        let again = Names::of_bytes(names.bytes()).unwrap();
        let name = names.of(NameUse::Answer, b"identity");
        assert_eq!(again.of(NameUse::Answer, b"identity"), name);
        assert_ne!(names.of(NameUse::Line, b"identity"), name);
        assert_ne!(names.of(NameUse::Answer, b"other"), name);
        assert_ne!(
            Names::random().unwrap().of(NameUse::Answer, b"identity"),
            name
        );
        assert!(Names::of_bytes(b"short").is_none());
    }
}
