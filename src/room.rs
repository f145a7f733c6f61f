//! Whether there is room on the disks that submits write to.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::disk::{self, LowDisk};
use crate::docker::{Docker, DockerError};
use crate::platform::Platform;

/// Knows the disks that a submit writes to.
#[derive(Debug)]
pub struct Room {
    docker_dir: OnceLock<PathBuf>,
    platform: Arc<Platform>,
    floor: u64,
}

impl Room {
    /// Submits are taken while `floor` bytes are free.
    pub fn new(platform: Arc<Platform>, floor: u64) -> Arc<Self> {
        Arc::new(Self { docker_dir: OnceLock::new(), platform, floor })
    }

    /// Finds out where Docker keeps its images. Until that is known its disk is not looked at.
    pub async fn find_docker(&self, docker: &Docker) -> Result<(), DockerError> {
        let folder = docker.root_dir().await?;
        self.docker_dir.get_or_init(|| folder);
        Ok(())
    }

    /// Whether there is more than the floor on each disk.
    pub async fn check(&self) -> Result<(), LowDisk> {
        let mut folders =
            vec![("DATA_DIR", self.platform.data_dir().to_owned()), ("TEMP_DIR_BASE", self.platform.temp_dir().to_owned())];
        folders.extend(self.docker_dir.get().map(|folder| ("Docker", folder.clone())));
        let floor = self.floor;
        // A disk of the network may keep whoever looks at it waiting.
        tokio::task::spawn_blocking(move || disk::check(&folders, floor)).await.unwrap_or(Ok(()))
    }
}
