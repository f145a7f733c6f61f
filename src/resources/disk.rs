//! Checks that the disks that a submit writes to have room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use crate::docker::platform::Platform;
use crate::docker::{Cause, Docker, DockerError, Failure};

/// The disks that a submit writes to.
#[derive(Debug)]
pub struct DiskSpace {
    docker_dir: OnceLock<PathBuf>,
    platform: Arc<Platform>,
    floor: u64,
}

impl DiskSpace {
    /// Submits are accepted while each disk has `floor` bytes free.
    pub fn new(platform: Arc<Platform>, floor: u64) -> Arc<Self> {
        Arc::new(Self { docker_dir: OnceLock::new(), platform, floor })
    }

    /// Asks Docker for the folder of its images. Until then [`DiskSpace::check`] leaves Docker's disk out.
    pub async fn find_docker(&self, docker: &Docker) -> Result<(), DockerError> {
        let folder = docker.root_dir().await?;
        self.docker_dir.get_or_init(|| folder);
        Ok(())
    }

    /// Fails when a disk has fewer free bytes than the floor.
    pub async fn check(&self) -> Result<(), LowDisk> {
        let (folders, floor) = (self.folders(), self.floor);
        // A look at a network disk may block for a long time.
        tokio::task::spawn_blocking(move || check(&folders, floor)).await.unwrap_or(Ok(()))
    }

    /// The disks that this machine sees, each by the variable that names the folder, or `Docker`, with its free bytes.
    pub async fn all(&self) -> Vec<(&'static str, u64)> {
        let folders = self.folders();
        let look = move || folders.iter().filter_map(|(place, folder)| Some((*place, free(folder).ok()?))).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// MIN_FREE_DISK, in bytes.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    fn folders(&self) -> Vec<(&'static str, PathBuf)> {
        let mut folders = vec![
            ("DATA_DIR", self.platform.data_dir().to_owned()),
            ("TEMP_DIR_BASE", self.platform.temp_dir().to_owned()),
        ];
        folders.extend(self.docker_dir.get().map(|folder| ("Docker", folder.clone())));
        folders
    }
}

/// A disk has fewer free bytes than the floor.
#[derive(Debug, Error)]
#[error(
    "the disk of {place} has {free} bytes free, fewer than the {floor} bytes that stay free (MIN_FREE_DISK); make room \
     and try again"
)]
pub struct LowDisk {
    /// The variable that names the folder, or `Docker`.
    pub place: &'static str,
    /// Free bytes.
    pub free: u64,
    /// The floor in bytes.
    pub floor: u64,
}

/// Fails when a folder has fewer than `floor` bytes free. Each folder comes with its name for people.
fn check(folders: &[(&'static str, PathBuf)], floor: u64) -> Result<(), LowDisk> {
    for (place, folder) in folders {
        // A folder that is not on this machine, as Docker's may be, can't be checked.
        let Ok(free) = free(folder) else { continue };
        if free < floor {
            return Err(LowDisk { place, free, floor });
        }
    }
    Ok(())
}

/// How many bytes an unprivileged user may still write to the disk of a file or folder.
pub fn free(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the system executes programs in a folder: the file system is not mounted with `noexec`.
pub fn executes(folder: &Path) -> io::Result<bool> {
    Ok(!rustix::fs::statvfs(folder)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Whether an error means that a disk, or a user's quota on a disk, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        Self::Transient(if is_full(error) { Cause::Disk } else { Cause::Service })
    }
}
