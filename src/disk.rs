//! Whether there is room on the disks that a submit writes to.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A disk has less room than it must keep.
#[derive(Debug, Error)]
#[error(
    "the disk of {place} has {free} bytes free, less than the {floor} that are kept (MIN_FREE_DISK); make room and try again"
)]
pub struct LowDisk {
    /// The variable that names the folder, or Docker's own.
    pub place: &'static str,
    /// Free bytes.
    pub free: u64,
    /// The floor in bytes.
    pub floor: u64,
}

/// Fails when one of the folders, each given with its name for people, has less room than `floor` bytes.
pub fn check(folders: &[(&'static str, PathBuf)], floor: u64) -> Result<(), LowDisk> {
    for (place, folder) in folders {
        // One that is not on this machine, as Docker's may be, is not ours to judge.
        let Ok(free) = free(folder) else { continue };
        if free < floor {
            return Err(LowDisk { place, free, floor });
        }
    }
    Ok(())
}

/// How many bytes a user may still write to the disk of a file or folder.
pub fn free(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether an error means that a disk, or a user's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
