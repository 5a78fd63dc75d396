//! The only holder of vendor keys and sealing keys.
//!
//! Secrets are read from a file or an environment variable, never through the settings' own parser
//! (its errors print values), are wiped when dropped, and print as `[redacted]`.

mod file;
mod seal;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use zeroize::{Zeroize as _, Zeroizing};

pub use file::{FileProblem, READ_WAIT_MAX, read_file};
pub use seal::{KEY_ID_BYTES, SealReject, Seals};

/// Longest secret accepted, in bytes. Vendor keys are under 200; a larger file is a mistaken path.
pub const SECRET_BYTES_MAX: usize = 4096;

/// Shortest vendor key accepted, in bytes. Vendor answers are searched for the key that was sent. A
/// shorter key could occur in a good answer by chance, and could be guessed.
pub const VENDOR_KEY_BYTES_MIN: usize = 8;

/// Where a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable of this name.
    Env(String),
    /// A file. One line feed at its end is not part of the secret.
    File(PathBuf),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

/// Why a secret could not be read. Never contains any part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretProblem {
    /// The variable is not set.
    Unset,
    /// The file could not be read.
    Unreadable(FileProblem),
    /// The secret is empty.
    Empty,
    /// More than [`SECRET_BYTES_MAX`] bytes.
    TooLong,
    /// A vendor key of less than [`VENDOR_KEY_BYTES_MIN`] bytes.
    TooShort,
    /// A character that no header can carry.
    BadCharacter,
}

impl fmt::Display for SecretProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("is not set"),
            Self::Unreadable(why) => why.fmt(f),
            Self::Empty => f.write_str("is empty"),
            Self::TooLong => write!(f, "is longer than {SECRET_BYTES_MAX} bytes"),
            Self::TooShort => write!(
                f,
                "is shorter than {VENDOR_KEY_BYTES_MIN} bytes; a vendor key must be longer, or it could match part of an answer by chance"
            ),
            Self::BadCharacter => f.write_str("contains a character that is not visible ASCII"),
        }
    }
}

impl SecretProblem {
    /// Returns whether there is no secret at all, rather than one that cannot be used.
    pub fn is_absence(&self) -> bool {
        let no_file = FileProblem::Unreadable(std::io::ErrorKind::NotFound);
        matches!(self, Self::Unset | Self::Empty) || *self == Self::Unreadable(no_file)
    }
}

impl SecretSource {
    /// Reads the secret now. Blocks the thread; a file that does not answer is given up after
    /// [`READ_WAIT_MAX`].
    ///
    /// # Errors
    /// If there is no usable secret.
    pub fn read(&self) -> Result<Secret, SecretProblem> {
        let text = match self {
            Self::Env(name) => Zeroizing::new(std::env::var(name).map_err(|why| match why {
                std::env::VarError::NotPresent => SecretProblem::Unset,
                std::env::VarError::NotUnicode(_) => SecretProblem::BadCharacter,
            })?),
            Self::File(path) => read_bounded(path)?,
        };
        Secret::parse(&text)
    }
}

fn read_bounded(path: &std::path::Path) -> Result<Zeroizing<String>, SecretProblem> {
    // The longest secret with a line end of two bytes.
    let bytes = read_file(path, SECRET_BYTES_MAX + 2).map_err(|why| match why {
        FileProblem::TooLarge => SecretProblem::TooLong,
        why => SecretProblem::Unreadable(why),
    })?;
    std::str::from_utf8(&bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| SecretProblem::BadCharacter)
}

/// A secret text: visible ASCII, not empty, wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Checks the text. A line feed at its end is removed.
    pub fn parse(text: &str) -> Result<Self, SecretProblem> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(SecretProblem::Empty);
        }
        if text.len() > SECRET_BYTES_MAX {
            return Err(SecretProblem::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SecretProblem::BadCharacter);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the text, for values that are stored like a secret but are not one, such as an
    /// account id.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The key of one vendor account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorKey(Secret);

impl VendorKey {
    /// Creates a key from its secret.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Makes a key from a secret that an operator configured as a key.
    ///
    /// # Errors
    /// If it is too short to be distinguished from other text.
    pub fn checked(secret: Secret) -> Result<Self, SecretProblem> {
        if secret.0.len() < VENDOR_KEY_BYTES_MIN {
            return Err(SecretProblem::TooShort);
        }
        Ok(Self(secret))
    }

    /// Returns the header value for the wire, marked sensitive so that nothing prints it. Only the
    /// `sign` layer may call this.
    pub fn header_value(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The live keys of one vendor: the key in use, and the fallback for when the vendor refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorKeys {
    /// Tried first.
    pub primary: VendorKey,
    /// Tried when the vendor answers 401 or 403 to the primary one.
    pub fallback: Option<VendorKey>,
}

/// Holds the keys while calls are made. A reload replaces them here.
pub type VendorKeyring = Arc<ArcSwap<VendorKeys>>;

/// A key that seals page tokens.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// Derives a key from a secret. `purpose` separates keys of one secret for different uses.
    pub fn derive(purpose: &'static str, secret: &Secret) -> Self {
        let mut bytes = blake3::derive_key(purpose, secret.0.as_bytes());
        let key = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        key
    }

    /// Returns the key derived from a vendor key, used if no sealing key is configured. All
    /// replicas with the same vendor key open each other's tokens.
    pub fn derive_from_vendor(purpose: &'static str, vendor_key: &VendorKey) -> Self {
        Self::derive(purpose, &vendor_key.0)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Disables core dumps, and access to this process's memory by other processes of the same user.
///
/// # Errors
/// If the system refuses. The gateway may run without it.
pub fn forbid_core_dumps() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|e| e.to_string())?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| e.to_string())
}

/// Returns a random sealing key for this process, used if there is no secret to derive one from.
/// Page tokens then end with the process, and no replica opens another's.
///
/// # Errors
/// If the system gives no random bytes.
pub fn sealing_key_of_this_process() -> Result<SealingKey, String> {
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| "no random bytes".to_owned())?;
    Ok(SealingKey(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print() {
        let key = VendorKey::new(Secret::parse("canary-1234").unwrap());
        let keys = VendorKeys {
            primary: key.clone(),
            fallback: Some(key.clone()),
        };
        let sealing = SealingKey::derive_from_vendor("test", &key);
        let header = key.header_value().unwrap();
        let shown = format!("{key:?} {keys:?} {sealing:?} {header:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn files_lose_one_line_end_and_bad_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| {
            let path = dir.path().join("secret");
            std::fs::write(&path, bytes).unwrap();
            SecretSource::File(path).read()
        };
        assert_eq!(read(b"abc\r\n").unwrap().reveal(), "abc");
        assert_eq!(read(b"\n"), Err(SecretProblem::Empty));
        assert_eq!(read(b"a b"), Err(SecretProblem::BadCharacter));
        assert_eq!(read(b"a\nb"), Err(SecretProblem::BadCharacter));
        assert_eq!(read("ü".as_bytes()), Err(SecretProblem::BadCharacter));
        assert_eq!(read(&vec![b'x'; 5000]), Err(SecretProblem::TooLong));
        assert!(matches!(
            SecretSource::File(dir.path().join("none")).read(),
            Err(SecretProblem::Unreadable(_))
        ));
        assert_eq!(
            SecretSource::Env("MSP_GATEWAY_TEST_SURELY_UNSET".into()).read(),
            Err(SecretProblem::Unset)
        );
    }
}
