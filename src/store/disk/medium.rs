//! The place of the file, and the outcome of opening it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};

use crate::clock::{Duration, since_written};
use crate::store::record::FORMAT;

/// The size of redb's own cache. Its default of a gigabyte would be wasted, because frequently read
/// answers are in our memory already.
const CACHE_BYTES: usize = 16 << 20;
/// The file of another format is kept this long, so that a downgrade finds its own file.
const OTHER_FORMAT_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Why the database could not be opened.
#[derive(Debug)]
pub enum OpenFault {
    /// Another process has it open.
    Locked,
    /// The file is damaged or is not a database.
    Unreadable(String),
    /// The system reports an error that may pass.
    Io(String),
}

impl OpenFault {
    /// Converts an error of the database.
    pub fn of(error: &redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            redb::Error::Io(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
                ) =>
            {
                Self::Io(error.to_string())
            }
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::Io(error.to_string()),
            other => Self::Unreadable(other.to_string()),
        }
    }
}

/// The place of a database.
pub trait Medium: Send + 'static {
    /// Opens the database, or creates an empty one.
    ///
    /// # Errors
    /// If it cannot be opened or is not a database.
    fn open(&mut self) -> Result<Database, OpenFault>;

    /// Moves an unreadable database out of the way.
    ///
    /// # Errors
    /// The error of the system.
    fn set_aside(&mut self) -> Result<(), String>;
}

/// Returns the options that every database is opened with.
pub fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// A file in a directory of its own.
pub struct Directory(PathBuf);

impl Directory {
    /// Creates the medium for a store in a directory.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    fn file(&self) -> PathBuf {
        file_in(&self.0)
    }
}

/// Returns the store's file in a directory.
pub fn file_in(directory: &Path) -> PathBuf {
    directory.join(format!("store-{FORMAT}.redb"))
}

/// Returns every file of a store in a directory: those of all formats and the renamed ones.
pub fn in_directory(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or("");
        let name = name.strip_suffix(".unreadable").unwrap_or(name);
        format_of(name).is_some()
    });
    ours.map(|entry| entry.path()).collect()
}

/// Returns the format of a store's file from its name.
fn format_of(name: &str) -> Option<u8> {
    let number = name.strip_prefix("store-")?.strip_suffix(".redb")?;
    number.parse().ok()
}

/// Returns the name that an unreadable file gets.
pub fn aside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unreadable");
    name.into()
}

/// Opens the file, readable by its owner only.
fn open_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

impl Medium for Directory {
    fn open(&mut self) -> Result<Database, OpenFault> {
        let io = |error: std::io::Error| OpenFault::Io(error.to_string());
        if !self.0.is_dir() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&self.0)
                .map_err(io)?;
        } else if let Err(error) = std::fs::set_permissions(&self.0, Permissions::from_mode(0o700))
        {
            // A volume may belong to another user. The file is still readable by us alone.
            tracing::debug!(%error, "the mode of the store's directory could not be changed");
        }
        remove_other_formats(&self.0);
        let file = open_file(&self.file()).map_err(io)?;
        let opened = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
        opened.map_err(|error: DatabaseError| OpenFault::of(&error.into()))
    }

    fn set_aside(&mut self) -> Result<(), String> {
        let file = self.file();
        std::fs::rename(&file, aside(&file)).map_err(|error| error.to_string())
    }
}

/// Removes files of other formats that were not written for a day.
fn remove_other_formats(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(format_of);
        let about = entry.metadata().ok();
        let unused = about.and_then(|about| since_written(&about));
        if number.is_some_and(|number| number != FORMAT)
            && unused.is_some_and(|unused| unused > OTHER_FORMAT_KEPT)
        {
            tracing::info!(file = %entry.path().display(), "removed the store of another release");
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Returns the error of a storage that is damaged rather than away.
pub fn is_damage(error: &redb::Error) -> bool {
    matches!(OpenFault::of(error), OpenFault::Unreadable(_))
}

impl From<StorageError> for OpenFault {
    fn from(error: StorageError) -> Self {
        Self::of(&error.into())
    }
}
