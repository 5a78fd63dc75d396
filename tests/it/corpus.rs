//! The committed corpus of the fuzz targets, held to their promises: what a fuzzer once found, or
//! what brought it far, is tried in every run.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::promises::{ALL, Promise};

/// Most files of one target.
const FILES_MAX: usize = 200;
/// Most bytes of the whole corpus.
const BYTES_MAX: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Panics with the names of the files that break the promise.
fn replay(name: &str, promise: Promise) {
    let files = files(&fuzz().join("corpus").join(name));
    assert!((4..=FILES_MAX).contains(&files.len()), "{}", files.len());
    let mut broken = Vec::new();
    for file in &files {
        let bytes = fs::read(file).unwrap();
        if catch_unwind(AssertUnwindSafe(|| promise(&bytes))).is_err() {
            broken.push(file.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(broken.is_empty(), "{name}: {broken:?}");
    println!("{name}: {} files", files.len());
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), crate::promises::$name::hold);
            }
        )*

        /// Each target has a promise, a program, a corpus, and a test here.
        #[test]
        fn targets_and_corpora_belong_together() {
            let tested = [$(stringify!($name)),*];
            let named = ALL.map(|(name, _)| name);
            assert_eq!(tested, named);
            let stems = |folder: &str| -> Vec<String> {
                let files = files(&fuzz().join(folder)).into_iter();
                files.map(|f| f.file_stem().unwrap().to_string_lossy().into_owned()).collect()
            };
            assert_eq!(stems("targets"), named);
            assert_eq!(stems("corpus"), named);
            let all = named.iter().flat_map(|name| files(&fuzz().join("corpus").join(name)));
            let bytes: u64 = all.map(|file| fs::metadata(file).unwrap().len()).sum();
            assert!(bytes <= BYTES_MAX, "{bytes}");
        }
    };
}

replays!(cache_control config csv ids query route search stack token vendor_page);
