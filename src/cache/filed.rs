//! Large bodies that are also kept in a file of memory, so that the kernel can send them without a
//! copy.
//!
//! Writing a body to a socket copies it, which is most of the cost of a large answer. Sending it
//! from a file only passes references to its pages. So a body that is read again and again is kept
//! twice: in memory, and in a file. `FiledBodies` finds the file by the address of the bytes: a
//! connection that is about to write a slice of the body finds the same slice of the file. No room
//! between the cache and the connection needs to know about it.
//!
//! ```text
//! cache::Pages ── keeps ──▶ Bytes ──▶ api ──▶ hyper ──▶ server::ServerTransport ── writes a slice ──┐
//!      └───────── also in ─▶ sealed file ◀── found by the slice's address (FiledBodies) ◀─────┘
//! ```
//!
//! The file has no name, exists only in memory, and is sealed after it is written, so nothing can
//! change it while it is being sent.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

/// Smaller bodies are written: one more system call costs as much as the copy.
pub const FILE_BYTES_MIN: usize = 32 << 10;
/// Larger bodies are written too, to bound the size of a file. A page of 500 cases has about 250
/// KB.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Most files at once, because each one uses a descriptor. A dashboard has some dozen hot pages.
pub const FILES_MAX: usize = 128;

/// The table of these bodies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FiledBodies(Arc<Table>);

#[derive(Debug)]
struct Table {
    files_max: usize,
    /// Keyed by the address of the body's first byte.
    filed: RwLock<BTreeMap<usize, Filed>>,
}

#[derive(Debug)]
struct Filed {
    bytes: usize,
    file: Arc<OwnedFd>,
}

/// A slice of a body, as a range of its file.
#[derive(Clone, Debug)]
pub struct FilePart {
    file: Arc<OwnedFd>,
    /// Start of the range, in bytes.
    pub offset: u64,
    /// Length of the range, in bytes.
    pub bytes: usize,
}

impl AsFd for FilePart {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Owns a body and its entry in the table. Both live as long as any slice of the body.
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
        // The entry is removed before the memory is freed, so that no address in the table belongs
        // to other bytes.
        self.all.0.filed.write().remove(&start(&self.body));
    }
}

impl FiledBodies {
    /// Makes a table of at most this many files.
    pub fn up_to(files_max: usize) -> Self {
        Self(Arc::new(Table {
            files_max: files_max.min(FILES_MAX),
            filed: RwLock::default(),
        }))
    }

    /// Returns the same bytes, now also in a file. Returns `None` if the body is too small or too
    /// large, the table is full, or the system has no files of memory.
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
        // Another thread may have filled the table, or may have filed these bytes, in the meantime.
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

    /// Returns the file range of a slice, if the slice belongs to a filed body.
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

    /// Returns the number of files now.
    pub fn count(&self) -> usize {
        self.0.filed.read().len()
    }
}

impl Default for FiledBodies {
    /// Most files at once.
    fn default() -> Self {
        Self::up_to(FILES_MAX)
    }
}

fn start(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr()
}

/// Other systems have no sealed files of memory, so everything is written there.
#[cfg(not(target_os = "linux"))]
fn written(_: &[u8]) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes a sealed file of these bytes.
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
        // Bodies that are being sent can still be read.
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
