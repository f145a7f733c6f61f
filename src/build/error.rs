//! The errors of a build, and the names of build results in metrics.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::{Built, TreeError};
use crate::build::package::DependencyError;
use crate::build::runtime_image::RuntimeError;
use crate::docker::DockerError;

/// Why a build made no image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The code does not compile, or the packages do not install.
    #[error("the build failed; buildLog has the message of the compiler or of the installer")]
    Failed {
        /// The end of the build's output.
        log: String,
    },
    /// The Go package in the zip's root is not `main`.
    #[error(
        "the Go package in the zip's root is `{package}`, not `main`; put the program's `package main` with its \
         `func main` there"
    )]
    NotMain {
        /// The package's name.
        package: String,
    },
    /// The packages that a lock names can't be installed.
    #[error(transparent)]
    Dependencies(#[from] DependencyError),
    /// A requirement file has `--no-binary`, and the service does not allow source builds.
    #[error(
        "{0}: `--no-binary` has packages built from source, which runs their code, and the service does not allow \
         source builds (PYTHON_ALLOW_SOURCE_BUILDS); leave the option out, and name packages that have wheels"
    )]
    SourceBuild(String),
    /// Packages, or the installer itself, have to be downloaded, and downloads have no network.
    #[error("Python packages are not installed here: the service's downloads have no network (BUILD_NETWORK is none)")]
    NoNetwork,
    /// The installed packages are not a plain tree of files.
    #[error(transparent)]
    Tree(TreeError),
    /// The build took too long.
    #[error("the build did not end within {limit:?} (DOCKER_BUILD_TIMEOUT)")]
    Timeout {
        /// The time limit of the build.
        limit: Duration,
    },
    /// The queue of waiting builds is full.
    #[error("{limit} builds wait already (BUILD_QUEUE_LIMIT); try again later")]
    QueueFull {
        /// How many builds may wait.
        limit: u32,
    },
    /// The build waited for its turn as long as a build may take.
    #[error("the build's turn did not come within {limit:?} (DOCKER_BUILD_TIMEOUT); try again later")]
    QueueTimeout {
        /// How long a build may wait.
        limit: Duration,
    },
    /// The client has gone, or the service stops.
    #[error("the build was cancelled")]
    Cancelled,
    /// The runtime image could not be made.
    #[error(transparent)]
    Runtime(RuntimeError),
    /// A Docker request failed.
    #[error("failed to build the image")]
    Docker(#[source] DockerError),
    /// A file of the build context could not be written.
    #[error("failed to write the build context")]
    Io(#[from] io::Error),
}

impl From<TreeError> for BuildError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Io(error) => Self::Io(error),
            error => Self::Tree(error),
        }
    }
}

impl BuildError {
    /// Maps an error of Docker. `limit` is the time limit of the whole build.
    pub(super) fn from_docker(error: DockerError, limit: Duration) -> Self {
        match error {
            DockerError::Timeout { .. } => Self::Timeout { limit },
            DockerError::Cancelled => Self::Cancelled,
            error => Self::Docker(error),
        }
    }
}

/// The name of a build's result in metrics.
pub(super) fn result_of(built: &Result<Built, BuildError>) -> &'static str {
    match built {
        Ok(_) => "built",
        Err(
            BuildError::Failed { .. }
            | BuildError::NotMain { .. }
            | BuildError::Dependencies(_)
            | BuildError::SourceBuild(_)
            | BuildError::NoNetwork
            | BuildError::Tree(_),
        ) => "failed",
        Err(BuildError::Timeout { .. }) => "timeout",
        // Builds that never get a turn do not come this far: only `Cancelled` occurs here.
        Err(BuildError::Cancelled | BuildError::QueueFull { .. } | BuildError::QueueTimeout { .. }) => "cancelled",
        Err(BuildError::Runtime(_) | BuildError::Docker(_) | BuildError::Io(_)) => "error",
    }
}
