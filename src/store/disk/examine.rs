//! Checks or removes a store's file while no gateway has it open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::medium::{OpenFault, builder, file_in, in_directory};
use super::{FILE_ID, Table, definition};
use crate::store::record::{RecordKind, RecordName, RecordPlace, SealedRecord};

/// The content of a store's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// Answers.
    pub answers: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Sealed bytes of all records.
    pub bytes: u64,
    /// Records that do not open with the secrets in force, because they are damaged or sealed with
    /// other secrets.
    pub closed: u64,
}

/// Reads every record of the store in a directory. `None` if there is no store.
///
/// # Errors
/// One line, if another process has the file open or it is damaged.
pub fn examine(directory: &Path, records: &SealedRecord) -> Result<Option<Examined>, String> {
    let file = file_in(directory);
    if !file.exists() {
        return Ok(None);
    }
    let mut database = open(&file)?;
    let read = catch_unwind(AssertUnwindSafe(|| {
        let intact = database.check_integrity()?;
        Ok::<_, redb::Error>((intact, read(&database, records)?))
    }));
    match read {
        Ok(Ok((true, examined))) => Ok(Some(examined)),
        Ok(Ok((false, _))) => Err(format!(
            "{}: it was damaged, and has been repaired; check it again",
            file.display()
        )),
        Ok(Err(error)) => Err(format!("{}: {error}", file.display())),
        Err(_) => Err(format!("{}: it is damaged", file.display())),
    }
}

/// Removes every file of the store in a directory, including those of other releases and renamed
/// ones. Returns the removed files.
///
/// # Errors
/// One line, if another process has the file open or a file cannot be removed.
pub fn wipe(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let file = file_in(directory);
    // Holds the file until the end, so that no gateway opens it meanwhile.
    let _held = match file.exists().then(|| open(&file)) {
        Some(Err(why)) if why.ends_with(IN_USE) => return Err(why),
        other => other,
    };
    let mut wiped = Vec::new();
    for path in in_directory(directory) {
        std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        wiped.push(path);
    }
    Ok(wiped)
}

/// The end of the error text for a file that a gateway has open.
const IN_USE: &str = "a running gateway has it open; stop it first";

fn open(file: &Path) -> Result<Database, String> {
    let at = |why: &str| format!("{}: {why}", file.display());
    let opened = catch_unwind(AssertUnwindSafe(|| builder().open(file)));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(match OpenFault::of(&error.into()) {
            OpenFault::Locked => at(IN_USE),
            OpenFault::Unreadable(why) => at(&format!("it is damaged: {why}")),
            OpenFault::Io(why) => at(&why),
        }),
        Err(_) => Err(at("it is damaged")),
    }
}

fn read(database: &Database, records: &SealedRecord) -> Result<Examined, redb::Error> {
    let mut found = Examined::default();
    let read = database.begin_read()?;
    for table in Table::ALL {
        let opened = match read.open_table(definition(table)) {
            Ok(opened) => opened,
            Err(redb::TableError::TableDoesNotExist(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in opened.iter()? {
            let (key, value) = entry?;
            match table {
                Table::Answers => found.answers += 1,
                Table::Snapshots => found.snapshots += 1,
                Table::Lines => {}
                Table::Chunks | Table::State if key.value() == FILE_ID => {}
                Table::Chunks | Table::State => {
                    found.bytes += value.value().len() as u64;
                    let place = place_of(table, key.value());
                    let opens = place.is_some_and(|at| records.open(at, value.value()).is_ok());
                    found.closed += u64::from(!opens);
                }
            }
        }
    }
    Ok(found)
}

/// Returns the place of a record from its key, which `ledger` builds.
fn place_of(table: Table, key: &[u8]) -> Option<RecordPlace> {
    let name = |bytes: &[u8]| bytes.try_into().ok().map(RecordName);
    let place = |kind, name, number| RecordPlace { kind, name, number };
    if table == Table::State {
        return Some(place(RecordKind::State, name(key)?, 0));
    }
    match key.split_first()? {
        (b'a', rest) => Some(place(RecordKind::Answer, name(rest)?, 0)),
        (b's', rest) => {
            let (of, number) = rest.split_at_checked(16)?;
            let number = u32::from_be_bytes(number.try_into().ok()?);
            let kind = match number {
                u32::MAX => RecordKind::Head,
                _ => RecordKind::Chunk,
            };
            Some(place(kind, name(of)?, number))
        }
        _ => None,
    }
}
