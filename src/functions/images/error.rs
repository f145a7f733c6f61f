//! The reasons for which an image is not made.

use std::io;

use thiserror::Error;

use crate::build::BuildError;
use crate::build::package::PackageError;
use crate::docker::ImageRegistryError;
use crate::resources::disk::LowDisk;
use crate::store::StoreError;

/// Why an image was not made.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The zip is refused.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The registry did not take the image, or did not give the image.
    #[error("failed to share the image")]
    Registry(#[from] ImageRegistryError),
    /// The store failed: the zip could not be read, or the image could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The version was deleted, with the function or because the version was too old.
    #[error("the function or its version was deleted")]
    Deleted,
    /// A disk has too little room for the build.
    #[error(transparent)]
    LowDisk(#[from] LowDisk),
    /// A temporary file or folder could not be made or written.
    #[error("failed to make room for the package")]
    Io(#[from] io::Error),
    /// The build's task panicked or was aborted.
    #[error("the build died")]
    Died(#[from] tokio::task::JoinError),
}

impl ImageError {
    /// Whether packages could not be downloaded because an index is down or out of reach.
    pub fn is_for_want_of_connection(&self) -> bool {
        const SIGNS: [&str; 9] = [
            "connection refused",
            "connection reset",
            "network is unreachable",
            "name resolution",
            "name or service not known",
            "no such host",
            "timed out",
            "i/o timeout",
            "503 service unavailable",
        ];
        let Self::Build(BuildError::Failed { log }) = self else { return false };
        let said = log.to_ascii_lowercase();
        SIGNS.iter().any(|sign| said.contains(sign))
    }
}
