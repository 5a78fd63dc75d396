//! Large bodies that also lie in a file of memory, from which the system sends them without copying.
//!
//! To write a body is to have the system copy it, which is most of what a large answer costs; what it
//! sends from a file it only points at. So a body that is kept because it is read again and again is
//! kept twice, and found by where its bytes lie: whoever writes a slice of it finds the same slice of
//! the file. Nobody else needs to know.
//!
//! A file has no name, lies in memory alone, and is sealed once it is written: nobody can change it
//! while it is on its way.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

/// Smaller bodies are written: a call more costs what the copy would.
pub const FILE_BYTES_MIN: usize = 32 << 10;
/// Larger ones are written, too: what one file may take. A page of 500 cases is some 250 KB.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Files at once, for each takes a descriptor. A dashboard's hot pages are some dozen.
pub const FILES_MAX: usize = 128;

/// Those bodies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FiledBodies(Arc<Table>);

#[derive(Debug)]
struct Table {
    files_max: usize,
    /// By where their bytes begin.
    filed: RwLock<BTreeMap<usize, Filed>>,
}

#[derive(Debug)]
struct Filed {
    bytes: usize,
    file: Arc<OwnedFd>,
}

/// A slice of a body, as it lies in the file.
#[derive(Clone, Debug)]
pub struct FilePart {
    file: Arc<OwnedFd>,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: usize,
}

impl AsFd for FilePart {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Holds a body for as long as anybody has a slice of it, and its place in the table as long.
struct Owner {
    body: Bytes,
    all: FiledBodies,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Before the body is let go of, so that no place tells of memory that is another's.
        self.all.0.filed.write().remove(&start(&self.body));
    }
}

impl FiledBodies {
    /// Up to so many at once.
    pub fn up_to(files_max: usize) -> Self {
        Self(Arc::new(Table {
            files_max: files_max.min(FILES_MAX),
            filed: RwLock::default(),
        }))
    }

    /// The same bytes, which now also lie in a file; `None` if they should not, there are enough
    /// files, or the system has none.
    pub fn file(&self, body: &Bytes) -> Option<Bytes> {
        let sizes = FILE_BYTES_MIN..=FILE_BYTES_MAX;
        if !sizes.contains(&body.len()) || self.count() >= self.0.files_max {
            return None;
        }
        let file = match written(body) {
            Ok(file) => Arc::new(file),
            Err(why) => {
                tracing::debug!(%why, "a body could not be put into a file of memory");
                return None;
            }
        };
        let mut filed = self.0.filed.write();
        // Meanwhile there may be others, or another for these very bytes.
        if filed.len() >= self.0.files_max || filed.contains_key(&start(body)) {
            return None;
        }
        let bytes = body.len();
        filed.insert(start(body), Filed { bytes, file });
        drop(filed);
        Some(Bytes::from_owner(Owner {
            body: body.clone(),
            all: self.clone(),
        }))
    }

    /// Where a slice lies in a file, if it does.
    pub fn part(&self, slice: &[u8]) -> Option<FilePart> {
        if slice.len() < FILE_BYTES_MIN {
            return None;
        }
        let at = start(slice);
        let filed = self.0.filed.read();
        let (begin, body) = filed.range(..=at).next_back()?;
        let offset = at - begin;
        (offset + slice.len() <= body.bytes).then(|| FilePart {
            file: body.file.clone(),
            offset: offset as u64,
            bytes: slice.len(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.filed.read().len()
    }
}

impl Default for FiledBodies {
    /// As many as there may be.
    fn default() -> Self {
        Self::up_to(FILES_MAX)
    }
}

fn start(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr()
}

/// Other systems have no such files: everything is written there.
#[cfg(not(target_os = "linux"))]
fn written(_: &[u8]) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A sealed file of these bytes.
#[cfg(target_os = "linux")]
fn written(body: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let file = memfd_create(c"body", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = body;
    while !rest.is_empty() {
        let bytes = rustix::io::write(&file, rest)?;
        rest = rest.get(bytes..).unwrap_or_default();
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(byte: u8) -> Bytes {
        vec![byte; FILE_BYTES_MIN + 10].into()
    }

    fn read(part: &FilePart) -> Vec<u8> {
        let mut out = vec![0; part.bytes];
        let bytes = rustix::io::pread(part, &mut out, part.offset).unwrap();
        out.truncate(bytes);
        out
    }

    #[test]
    fn every_slice_of_a_filed_body_is_found_in_its_file_until_the_body_is_gone() {
        let files = FiledBodies::up_to(FILES_MAX);
        let mut bytes = body(b'a').to_vec();
        bytes[3] = b'b';
        let plain = Bytes::from(bytes);
        let filed = files.file(&plain).unwrap();
        assert_eq!(filed, plain);
        let whole = files.part(&filed).unwrap();
        assert_eq!((whole.offset, read(&whole)), (0, plain.to_vec()));
        let rest = filed.slice(3..);
        let part = files.part(&rest).unwrap();
        assert_eq!((part.offset, read(&part)), (3, rest.to_vec()));
        // Too small to be worth it, and others' bytes.
        assert!(files.part(&filed.slice(11..)).is_none());
        assert!(files.part(&body(b'a')).is_none());
        assert_eq!(files.count(), 1);
        // Not twice.
        assert!(files.file(&plain).is_none());
        drop((filed, plain));
        assert_eq!(files.count(), 1);
        let address = start(&rest);
        drop(rest);
        assert_eq!(files.count(), 0);
        assert!(files.0.filed.read().range(..=address).next_back().is_none());
        // What is on its way can still be read.
        assert_eq!(read(&part).len(), part.bytes);
    }

    #[test]
    fn slices_beside_and_across_bodies_are_not_found() {
        let files = FiledBodies::up_to(FILES_MAX);
        let large = Bytes::from(vec![b'x'; 4 * FILE_BYTES_MIN]);
        let filed = files
            .file(&large.slice(FILE_BYTES_MIN..3 * FILE_BYTES_MIN))
            .unwrap();
        assert_eq!(files.part(&filed).unwrap().bytes, 2 * FILE_BYTES_MIN);
        assert!(files.part(&large).is_none());
        assert!(files.part(&large.slice(2 * FILE_BYTES_MIN..)).is_none());
        assert!(files.part(&large.slice(3 * FILE_BYTES_MIN..)).is_none());
        let inside = large.slice(2 * FILE_BYTES_MIN..3 * FILE_BYTES_MIN);
        assert_eq!(files.part(&inside).unwrap().offset, FILE_BYTES_MIN as u64);
    }

    #[test]
    fn files_are_of_bodies_worth_it_and_counted_and_sealed() {
        let files = FiledBodies::up_to(FILES_MAX);
        assert!(
            files
                .file(&Bytes::from(vec![0; FILE_BYTES_MIN - 1]))
                .is_none()
        );
        assert!(
            files
                .file(&Bytes::from(vec![0; FILE_BYTES_MAX + 1]))
                .is_none()
        );
        let few = FiledBodies::up_to(1);
        let one = few.file(&body(1)).unwrap();
        assert!(few.file(&body(2)).is_none());
        drop(one);
        let held: Vec<_> = (0..FILES_MAX)
            .map(|n| files.file(&body(n as u8)).unwrap())
            .collect();
        assert!(files.file(&body(0)).is_none());
        let part = files.part(&held[1]).unwrap();
        assert!(rustix::io::pwrite(&part, b"other", 0).is_err());
        assert!(rustix::fs::ftruncate(&part, 0).is_err());
        assert_eq!(read(&part), held[1]);
        drop(held);
        assert_eq!(files.count(), 0);
        assert!(files.file(&body(0)).is_some());
    }
}
