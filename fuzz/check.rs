//! The rules for every archive, however broken. The fuzz target and the test that replays its finds share this file.

use std::fs;
use std::path::Path;

use youtube_serverless::build::package::{MAX_ENTRIES, Package, PackageError};

/// The limit on the content's size, in bytes. The limit is small, so that the fuzzer reaches the limit.
pub(super) const MAX_SIZE: u64 = 100_000;

/// Asserts the rules for the result of `package::open`. `folder` has the unpacked archive. `outside` has only `folder`.
pub(super) fn holds(outside: &Path, folder: &Path, opened: &Result<Package, PackageError>) {
    let beside: Vec<_> =
        fs::read_dir(outside).expect("the folder outside").flatten().map(|entry| entry.path()).collect();
    assert_eq!(beside, [folder], "a file was written outside of the package's folder");
    let (mut size, mut entries, mut folders) = (0, 0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the package").flatten() {
            let metadata = entry.path().symlink_metadata().expect("an entry of the package");
            assert!(metadata.is_file() || metadata.is_dir(), "{:?} is neither a file nor a folder", entry.path());
            assert!(entry.file_name().to_str().is_some_and(|name| !name.contains(['\\', '\n', '\0'])), "{entry:?}");
            entries += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                size += metadata.len();
            }
        }
    }
    assert!(entries <= 2 * MAX_ENTRIES, "{entries} entries");
    assert!(size <= MAX_SIZE + 1, "{size} bytes were unpacked");
    match opened {
        Ok(package) => assert_eq!(package.size, size, "the size is not the size of the unpacked files"),
        Err(PackageError::Io(error)) => panic!("an archive's fault was taken for a fault of this machine: {error}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
