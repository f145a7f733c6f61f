//! What a failed docker command says. The words are those of the docker client and of the daemon. Pure.

use std::time::Duration;

use thiserror::Error;

/// Why a docker command failed.
#[derive(Debug, Error)]
pub enum DockerError {
    /// The docker client itself could not be run.
    #[error("failed to run the docker client")]
    Spawn(#[source] std::io::Error),
    /// The docker client reached no daemon.
    #[error("the Docker daemon does not answer: {0}")]
    Unavailable(String),
    /// The command exceeded its deadline and was killed.
    #[error("the docker command did not end within {limit:?}")]
    Timeout {
        /// The command's deadline.
        limit: Duration,
    },
    /// The caller cancelled the command.
    #[error("the docker command was cancelled")]
    Cancelled,
    /// The command failed and printed a reason.
    #[error("docker {command} failed: {message}")]
    Failed {
        /// The command's first words.
        command: &'static str,
        /// The end of the command's stderr.
        message: String,
    },
    /// The command's answer could not be parsed.
    #[error("docker {command} gave an unexpected answer: {answer:?}")]
    Unexpected {
        /// The command's first words.
        command: &'static str,
        /// The start of the answer.
        answer: String,
    },
}

impl DockerError {
    /// Whether the error means that the image does not exist.
    pub fn is_missing_image(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if message.to_ascii_lowercase().contains("no such image"))
    }

    /// The error for an image that can't be removed because a container uses the image.
    pub fn in_use() -> Self {
        Self::Failed { command: "image rm", message: "conflict: a container uses the image".to_owned() }
    }

    /// Whether the error means that an image or a container is in use and can't be removed.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if message.contains("conflict"))
    }

    /// Whether the error means that another command already removes the same container.
    pub fn is_already_in_progress(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if message.contains("is already in progress"))
    }

    /// Whether the error means that the cache of the classic builder has just lost a step. A second build can succeed.
    pub fn is_lost_step(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if message.contains("unable to find image"))
    }

    /// Whether the error means that the daemon itself was in trouble, whatever the command.
    pub fn is_daemons_own(&self) -> bool {
        const SIGNS: [&str; 9] = [
            "context deadline exceeded",
            "connection refused",
            "transport is closing",
            "unexpected eof",
            "read-only file system",
            "input/output error",
            "cannot allocate memory",
            "too many open files",
            "resource temporarily unavailable",
        ];
        let Self::Failed { message, .. } = self else { return false };
        let said = message.to_ascii_lowercase();
        said.contains("error response from daemon") && SIGNS.iter().any(|sign| said.contains(sign))
    }

    /// Whether the error means that the daemon's disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Failed { message, .. } if is_disk_full(message))
    }
}

/// Whether the output of a build or a command says that the disk is full.
pub fn is_disk_full(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["no space left on device", "disk quota exceeded"].iter().any(|sign| said.contains(sign))
}

/// The error for a command that failed, by what the command printed.
pub(super) fn failed(command: &'static str, stderr: &str) -> DockerError {
    let from = stderr.len().saturating_sub(1000);
    let from = (from..stderr.len()).find(|&at| stderr.is_char_boundary(at)).unwrap_or(stderr.len());
    let message = stderr[from..].trim().to_owned();
    if is_unreachable(&message) { DockerError::Unavailable(message) } else { DockerError::Failed { command, message } }
}

/// The error for an answer that could not be parsed.
pub(super) fn unexpected(command: &'static str, answer: &str) -> DockerError {
    DockerError::Unexpected { command, answer: answer.chars().take(200).collect() }
}

/// Whether a command printed that the image or the container does not exist.
pub(super) fn is_missing(stderr: &str) -> bool {
    // The client's version decides between "No such image", "No such container" and "no such object". The other text
    // appears when the image is removed during the command.
    let said = stderr.to_ascii_lowercase();
    said.contains("no such ") || said.contains("unrecognized image id")
}

fn is_unreachable(stderr: &str) -> bool {
    let said = stderr.to_ascii_lowercase();
    ["cannot connect to the docker daemon", "error during connect", "failed to connect to the docker api"]
        .iter()
        .any(|sign| said.contains(sign))
}
