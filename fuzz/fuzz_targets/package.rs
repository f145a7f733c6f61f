//! From any bytes to a package. `scripts/fuzz` runs this target.
#![no_main]

use std::io::{Seek, Write};

use youtube_serverless::build::package::{self, Choice};

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut zip = tempfile::tempfile().expect("a file for the zip");
    zip.write_all(bytes).and_then(|()| zip.rewind()).expect("the zip is written");
    let outside = tempfile::tempdir().expect("a folder");
    let folder = outside.path().join("package");
    std::fs::create_dir(&folder).expect("the package's folder");
    let opened = package::open(&mut zip, &folder, check::MAX_SIZE, Choice::default());
    check::holds(outside.path(), &folder, &opened);
});
