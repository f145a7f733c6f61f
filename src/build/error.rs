//! Why there is no image, and the words for what a build came to.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::{Built, TreeError};
use crate::build::package::DependencyError;
use crate::build::runtime::RuntimeError;
use crate::docker::DockerError;

/// Why there is no image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The code does not compile or install.
    #[error("the build failed; buildLog has the message of the compiler or of the installer")]
    Failed {
        /// The end of what it said.
        log: String,
    },
    /// The Go package in the zip's root is a library.
    #[error(
        "the Go package in the zip's root is `{package}`, not `main`; put the program's `package main` with its `func main` there"
    )]
    NotMain {
        /// The package's name.
        package: String,
    },
    /// What a lock names can't be installed.
    #[error(transparent)]
    Dependencies(#[from] DependencyError),
    /// A line that has packages built from source.
    #[error(
        "{0}: `--no-binary` has packages built from source, which runs their code, and the service does not allow that \
         (PYTHON_ALLOW_SOURCE_BUILDS); leave it out, and name packages that have wheels"
    )]
    SourceBuild(String),
    /// Nothing that installs packages is there, and nothing may fetch it.
    #[error("Python packages are not installed here: the service's downloads have no network (BUILD_NETWORK is none)")]
    NoNetwork,
    /// What was installed is no tree of files.
    #[error(transparent)]
    Tree(TreeError),
    /// It took too long.
    #[error("the build did not end within {limit:?} (DOCKER_BUILD_TIMEOUT)")]
    Timeout {
        /// Its deadline.
        limit: Duration,
    },
    /// As many builds wait as may.
    #[error("{limit} builds wait already (BUILD_QUEUE_LIMIT); try again later")]
    QueueFull {
        /// How many may.
        limit: u32,
    },
    /// The build waited for its turn as long as a build may take.
    #[error("the build's turn did not come within {limit:?} (DOCKER_BUILD_TIMEOUT); try again later")]
    QueueTimeout {
        /// How long it may wait.
        limit: Duration,
    },
    /// Whoever wanted it no longer does, or the service stops.
    #[error("the build was cancelled")]
    Cancelled,
    /// A matter of the runtime image.
    #[error(transparent)]
    Runtime(RuntimeError),
    /// A matter of Docker.
    #[error("failed to build the image")]
    Docker(#[source] DockerError),
    /// A matter of this machine's disk.
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
    /// `limit` is that of the build as a whole.
    pub(super) fn from_docker(error: DockerError, limit: Duration) -> Self {
        match error {
            DockerError::Timeout { .. } => Self::Timeout { limit },
            DockerError::Cancelled => Self::Cancelled,
            error => Self::Docker(error),
        }
    }
}

/// What a build came to, in a word.
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
        // Those that wait in vain do not come this far.
        Err(BuildError::Cancelled | BuildError::QueueFull { .. } | BuildError::QueueTimeout { .. }) => "cancelled",
        Err(BuildError::Runtime(_) | BuildError::Docker(_) | BuildError::Io(_)) => "error",
    }
}
