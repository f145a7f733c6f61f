//! A time of day that a test sets for a service, by Debian's libfaketime. Timers of the service go on as they are.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where Debian has the library.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// A clock that goes on from the time that was set last.
pub(crate) struct Clock {
    file: PathBuf,
    ahead: i64,
}

impl Clock {
    /// A clock with the time of now, in a file in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut clock = Self { file: folder.join("clock"), ahead: 0 };
        clock.set(real());
        clock
    }

    /// The variables of a service that goes by the clock.
    pub(crate) fn settings(&self) -> [(&'static str, &str); 4] {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        [
            ("LD_PRELOAD", library.expect("Debian's package libfaketime")),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// Sets the clock, in Unix seconds.
    pub(crate) fn set(&mut self, time: u64) {
        self.ahead = time.cast_signed() - real().cast_signed();
        // At each moment the file is whole.
        let draft = self.file.with_extension("draft");
        std::fs::write(&draft, format!("{:+}", self.ahead)).unwrap();
        std::fs::rename(&draft, &self.file).unwrap();
    }

    /// What the clock shows, in Unix seconds.
    pub(crate) fn now(&self) -> u64 {
        (real().cast_signed() + self.ahead).cast_unsigned()
    }
}

fn real() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}
