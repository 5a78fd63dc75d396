//! Reading a file that may never answer.
//!
//! A pipe without a writer, or a mount whose server is gone, blocks the thread that opens it for as
//! long as it likes, and nothing can call the read off. So each read has a thread of its own and a
//! time limit. A read past its limit is abandoned: its thread stays blocked until the system ends
//! the call.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU8, Ordering};
use std::sync::mpsc::sync_channel;

use zeroize::Zeroizing;

use crate::clock::Duration;

/// Longest time that a read may take.
pub const READ_WAIT_MAX: Duration = Duration::from_secs(5);
/// The same while another read hangs: most likely for the same reason, and ten files on one mount
/// should not take ten times as long.
const READ_WAIT_HUNG: Duration = Duration::from_millis(500);
/// Reads that may hang at once. Further ones are refused, for each holds a thread.
const HUNG_MAX: isize = 16;

/// Reads that were given up and have not ended.
static HUNG: AtomicIsize = AtomicIsize::new(0);

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Why a file could not be read. Holds nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileProblem {
    /// The system's reason.
    Unreadable(io::ErrorKind),
    /// More bytes than were allowed.
    TooLarge,
    /// No answer within the time limit.
    Hangs,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(kind) => write!(f, "cannot be read: {kind}"),
            Self::TooLarge => f.write_str("is too large"),
            Self::Hangs => write!(
                f,
                "cannot be read: no answer within {} s (is it a pipe without a writer, or on a lost mount?)",
                READ_WAIT_MAX.as_secs()
            ),
        }
    }
}

/// Reads a whole file of at most `bytes_max` bytes. Blocks the thread, at most for
/// [`READ_WAIT_MAX`]. The bytes are wiped when they are dropped.
///
/// # Errors
/// If the file cannot be read in time, or is larger.
pub fn read_file(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let hung = HUNG.load(Ordering::Relaxed);
    if hung >= HUNG_MAX {
        return Err(FileProblem::Hangs);
    }
    let limit = if hung > 0 {
        READ_WAIT_HUNG
    } else {
        READ_WAIT_MAX
    };
    let path = path.to_owned();
    apart(limit, move || read_now(&path, bytes_max))
}

/// Runs a read on a thread of its own.
fn apart<T: Send + 'static>(
    limit: Duration,
    read: impl FnOnce() -> Result<T, FileProblem> + Send + 'static,
) -> Result<T, FileProblem> {
    let state = Arc::new(AtomicU8::new(RUNNING));
    let (tell, told) = sync_channel(1);
    let theirs = state.clone();
    std::thread::Builder::new()
        .name("read-file".into())
        .spawn(move || {
            let _ = tell.send(read());
            if end(&theirs, ENDED) == GIVEN_UP {
                HUNG.fetch_sub(1, Ordering::Relaxed);
            }
        })
        .map_err(|why| FileProblem::Unreadable(why.kind()))?;
    if let Ok(result) = told.recv_timeout(limit) {
        return result;
    }
    if end(&state, GIVEN_UP) == RUNNING {
        HUNG.fetch_add(1, Ordering::Relaxed);
    }
    // It may have come at the last moment.
    told.try_recv().unwrap_or(Err(FileProblem::Hangs))
}

/// Moves on from `RUNNING`. Returns what it was before.
fn end(state: &AtomicU8, to: u8) -> u8 {
    match state.compare_exchange(RUNNING, to, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(before) | Err(before) => before,
    }
}

fn read_now(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let unreadable = |why: io::Error| FileProblem::Unreadable(why.kind());
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    // Room for all at once: what a growing vector leaves behind is not wiped. A pipe has no size.
    let size = usize::try_from(about.len()).unwrap_or(usize::MAX);
    let room = if about.is_file() {
        size.min(bytes_max)
    } else {
        bytes_max
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(room.saturating_add(1)));
    let limit = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    match bytes.len() > bytes_max {
        true => Err(FileProblem::TooLarge),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_hangs_is_given_up_and_no_more_than_some_at_once() {
        let limit = Duration::from_millis(5);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(parking_lot::Mutex::new(held));
        let before = HUNG.load(Ordering::Relaxed);
        for _ in 0..3 {
            let held = held.clone();
            let hangs = apart(limit, move || {
                let _ = held.lock().recv();
                Ok(())
            });
            assert_eq!(hangs, Err(FileProblem::Hangs));
        }
        assert_eq!(HUNG.load(Ordering::Relaxed), before + 3);
        // The system ends them.
        drop(release);
        let deadline = crate::clock::Instant::now() + Duration::from_secs(30);
        while HUNG.load(Ordering::Relaxed) > before {
            assert!(crate::clock::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(apart(Duration::from_secs(30), || Ok(7)), Ok(7));
    }

    #[test]
    fn files_are_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap().as_slice(), b"12345");
        assert_eq!(read_file(&path, 4), Err(FileProblem::TooLarge));
        let missing = read_file(&dir.path().join("none"), 5);
        let kind = io::ErrorKind::NotFound;
        assert_eq!(missing, Err(FileProblem::Unreadable(kind)));
        assert!(read_file(dir.path(), 5).is_err());
    }
}
