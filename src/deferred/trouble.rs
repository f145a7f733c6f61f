//! What an error on the way to an instance means for an execution that can wait.

use crate::builder::BuildError;
use crate::docker::DockerError;
use crate::images::ImageError;
use crate::instance::StartError;
use crate::invoke::InvokeError;
use crate::pool::AcquireError;

/// What an error on the way to an instance means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It will pass, and is not the function's.
    Passing,
    /// It may be the function's own.
    Doubtful,
    /// It is the function's own, and stays.
    Final,
    /// Nothing is to be done any more: the function is gone, or the service stops.
    Over,
}

impl Trouble {
    pub(super) fn of(error: &InvokeError) -> Self {
        match error {
            InvokeError::Unknown(_) | InvokeError::Acquire(AcquireError::Retired | AcquireError::ShuttingDown) => Self::Over,
            InvokeError::Input(_) => Self::Final,
            InvokeError::Acquire(AcquireError::QueueFull { .. } | AcquireError::QueueTimeout { .. }) => Self::Passing,
            InvokeError::Acquire(AcquireError::Start(error)) => match &**error {
                StartError::Docker(DockerError::Unavailable(_) | DockerError::Spawn(_)) => Self::Passing,
                StartError::Docker(_) | StartError::Timeout | StartError::NoImage(_) | StartError::Protocol(_) => Self::Doubtful,
            },
            InvokeError::Image(error) => match &**error {
                ImageError::Deleted | ImageError::Build(BuildError::Cancelled) => Self::Over,
                ImageError::Store(_) | ImageError::Io(_) | ImageError::LowDisk(_) => Self::Passing,
                ImageError::Build(
                    BuildError::Docker(_)
                    | BuildError::Runtime(_)
                    | BuildError::QueueFull { .. }
                    | BuildError::QueueTimeout { .. },
                ) => Self::Passing,
                ImageError::Package(_) | ImageError::Build(_) | ImageError::Died(_) => Self::Doubtful,
            },
        }
    }
}
