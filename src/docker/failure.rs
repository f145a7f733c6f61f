//! Tells the cause of a failure, and whether waiting helps. Pure.

use super::{DockerError, ImageRegistryError};

/// The meaning of a failure for the request, the invocation or the removal that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The platform's fault: waiting helps.
    Transient(Cause),
    /// Possibly the function's fault: the failure counts when the failure occurs repeatedly.
    Suspect,
    /// The function's or the client's fault: waiting does not help.
    Permanent,
    /// Nobody's fault: the work is not wanted any more, or the service stops.
    Abandoned,
}

/// The part of the platform that is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Docker does not answer, or not in time.
    Docker,
    /// A disk is full.
    Disk,
    /// The database does not answer.
    Store,
    /// The registry of images does not answer.
    Registry,
    /// All containers are in use.
    Load,
    /// Another part that only the operator can repair.
    Service,
}

impl Failure {
    /// The failure's meaning, given whether Docker was in trouble when the failure occurred.
    pub fn given(self, docker_was_in_trouble: bool) -> Self {
        match self {
            Self::Suspect if docker_was_in_trouble => Self::Transient(Cause::Docker),
            other => other,
        }
    }
}

impl From<&DockerError> for Failure {
    fn from(error: &DockerError) -> Self {
        match error {
            DockerError::Spawn(_) | DockerError::Unavailable(_) | DockerError::Timeout { .. } => {
                Self::Transient(Cause::Docker)
            }
            DockerError::Cancelled => Self::Abandoned,
            DockerError::Failed { .. } if error.is_disk_full() => Self::Transient(Cause::Disk),
            DockerError::Failed { .. } if error.is_daemons_own() => Self::Transient(Cause::Docker),
            DockerError::Failed { .. } | DockerError::Unexpected { .. } => Self::Suspect,
        }
    }
}

impl From<&ImageRegistryError> for Failure {
    fn from(error: &ImageRegistryError) -> Self {
        match error {
            ImageRegistryError::Unavailable(_) => Self::Transient(Cause::Registry),
            // The function has no part in what a registry has or takes.
            ImageRegistryError::Lost(_) | ImageRegistryError::Refused(_) | ImageRegistryError::OtherImage(_) => {
                Self::Transient(Cause::Service)
            }
            ImageRegistryError::Docker(error) => match error.into() {
                Self::Suspect => Self::Transient(Cause::Service),
                failure => failure,
            },
        }
    }
}
