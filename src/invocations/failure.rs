//! Classifies a failure: whose fault the failure is, and whether a later try can help. Requests and the queue share
//! this classification. Pure.
//!
//! [`crate::docker::Failure`] classifies Docker's own errors, because removals need that classification, too.

use crate::build::BuildError;
use crate::build::package::{DetectError, PackageError};
use crate::build::runtime_image::RuntimeError;
use crate::docker::{self, Cause, DockerError, Failure};
use crate::functions::images::ImageError;
use crate::sandbox::doors::DoorsError;
use crate::sandbox::instance::StartError;
use crate::sandbox::pool::AcquireError;
use crate::store::StoreError;

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::Transient(Cause::Disk),
            StoreError::Unreachable(_) => Self::Transient(Cause::Store),
            StoreError::Damaged { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Newer { .. }
            | StoreError::Foreign(_)
            | StoreError::Sealed { .. }
            | StoreError::Exists(_)
            | StoreError::Missing(_)
            | StoreError::NoFile
            | StoreError::NotEmpty(_)
            | StoreError::Other(_) => Self::Transient(Cause::Service),
        }
    }
}

impl From<&StartError> for Failure {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::Docker(error) => error.into(),
            // The temp folder is full, or the service has no more descriptors.
            StartError::Socket(_) => Self::Transient(Cause::Service),
            StartError::Doors(DoorsError::Room(_) | DoorsError::Pipes) => Self::Transient(Cause::Service),
            StartError::Doors(_) => Self::Suspect,
            StartError::NoImage(_) | StartError::Timeout | StartError::Protocol(_) | StartError::Preload(_) => {
                Self::Suspect
            }
        }
    }
}

impl From<&AcquireError> for Failure {
    fn from(error: &AcquireError) -> Self {
        match error {
            AcquireError::QueueFull { .. } | AcquireError::StrangersFull { .. } | AcquireError::QueueTimeout { .. } => {
                Self::Transient(Cause::Load)
            }
            AcquireError::Retired | AcquireError::ShuttingDown => Self::Abandoned,
            AcquireError::Start(error) => (&**error).into(),
        }
    }
}

impl From<&RuntimeError> for Failure {
    fn from(error: &RuntimeError) -> Self {
        match error {
            RuntimeError::Step { log, .. } if docker::is_disk_full(log) => Self::Transient(Cause::Disk),
            RuntimeError::Step { .. } => Self::Transient(Cause::Service),
            RuntimeError::Docker { source, .. } => of_build(source),
            RuntimeError::Io(error) => error.into(),
        }
    }
}

impl From<&BuildError> for Failure {
    fn from(error: &BuildError) -> Self {
        match error {
            BuildError::Failed { log } if docker::is_disk_full(log) => Self::Transient(Cause::Disk),
            BuildError::Cancelled => Self::Abandoned,
            BuildError::Runtime(error) => error.into(),
            BuildError::Docker(error) => of_build(error),
            BuildError::Io(error) => error.into(),
            BuildError::QueueFull { .. } | BuildError::QueueTimeout { .. } => Self::Transient(Cause::Load),
            // The package does not build, or the build takes too long.
            BuildError::Failed { .. }
            | BuildError::NotMain { .. }
            | BuildError::Dependencies(_)
            | BuildError::SourceBuild(_)
            | BuildError::NoNetwork
            | BuildError::Tree(_)
            | BuildError::Timeout { .. } => Self::Suspect,
        }
    }
}

/// Classifies a Docker error of a build. A failure outside the steps of a Dockerfile is never the function's fault.
fn of_build(error: &DockerError) -> Failure {
    match error.into() {
        Failure::Suspect => Failure::Transient(Cause::Service),
        failure => failure,
    }
}

impl From<&PackageError> for Failure {
    fn from(error: &PackageError) -> Self {
        match error {
            PackageError::Io(error) | PackageError::Detect(DetectError::Io(error)) => error.into(),
            _ => Self::Permanent,
        }
    }
}

impl From<&ImageError> for Failure {
    fn from(error: &ImageError) -> Self {
        match error {
            ImageError::Package(error) => error.into(),
            ImageError::Build(error) => error.into(),
            ImageError::Store(error) => error.into(),
            ImageError::Io(error) => error.into(),
            ImageError::Registry(error) => error.into(),
            ImageError::LowDisk(_) => Self::Transient(Cause::Disk),
            ImageError::Deleted => Self::Abandoned,
            ImageError::Died(_) => Self::Suspect,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::Language;

    fn said(message: &str) -> DockerError {
        DockerError::Failed { command: "run", message: message.to_owned() }
    }

    fn started(error: DockerError) -> Failure {
        (&AcquireError::Start(Arc::new(StartError::Docker(error)))).into()
    }

    const LATE: DockerError = DockerError::Timeout { limit: Duration::from_secs(10) };

    #[test]
    fn what_is_the_platforms_is_never_the_functions() {
        let of_docker = [
            LATE,
            DockerError::Unavailable("Cannot connect to the Docker daemon".to_owned()),
            DockerError::Spawn(io::ErrorKind::NotFound.into()),
            said("docker: Error response from daemon: failed to create task for container: context deadline exceeded"),
        ];
        for error in of_docker {
            let name = error.to_string();
            assert_eq!(started(error), Failure::Transient(Cause::Docker), "{name}");
        }
        let of_machine = [
            "mkdir /var/lib/docker/overlay2/x: read-only file system",
            "open /var/lib/docker/containers/x/hostname: input/output error",
            "failed to create task for container: fork/exec /usr/bin/containerd-shim: cannot allocate memory",
            "failed to create endpoint: socket: too many open files",
            "failed to create task for container: fork/exec /usr/bin/runc: resource temporarily unavailable",
        ];
        for trouble in of_machine {
            let error = said(&format!("docker: Error response from daemon: {trouble}"));
            assert_eq!(started(error), Failure::Transient(Cause::Docker), "{trouble}");
            assert_eq!(started(said(trouble)), Failure::Suspect, "the function's own words: {trouble}");
        }
        for full in ["no space left on device", "disk quota exceeded"] {
            let full = format!("docker: Error response from daemon: mkdir /var/lib/docker/overlay2/x: {full}");
            assert_eq!(started(said(&full)), Failure::Transient(Cause::Disk));
        }
        let full = || BuildError::Failed { log: "pip: [Errno 28] No space left on device".to_owned() };
        assert_eq!(Failure::from(&ImageError::from(full())), Failure::Transient(Cause::Disk));
        assert_eq!(Failure::from(&io::Error::from(io::ErrorKind::StorageFull)), Failure::Transient(Cause::Disk));
        let wait = AcquireError::QueueTimeout { limit: Duration::ZERO };
        assert_eq!(Failure::from(&wait), Failure::Transient(Cause::Load));
        let no_base = RuntimeError::Docker {
            language: Language::Go,
            base: "golang".to_owned(),
            source: said("pull access denied"),
        };
        assert_eq!(Failure::from(&BuildError::Runtime(no_base)), Failure::Transient(Cause::Service));
    }

    #[test]
    fn what_may_be_the_functions_is_suspect_where_docker_answers() {
        let of_function = [
            StartError::NoImage("sha256:0".to_owned()),
            StartError::Timeout,
            StartError::Docker(said("exec: \"/x\": not found")),
            // The message is the function's own, not the daemon's.
            StartError::Docker(said("OSError: connection refused")),
        ];
        for error in of_function {
            assert_eq!(Failure::from(&error), Failure::Suspect, "{error}");
            assert_eq!(Failure::from(&error).given(true), Failure::Transient(Cause::Docker), "{error}");
            assert_eq!(Failure::from(&error).given(false), Failure::Suspect, "{error}");
        }
        let built = BuildError::Failed { log: "SyntaxError".to_owned() };
        assert_eq!(Failure::from(&ImageError::from(built)), Failure::Suspect);
        let late = ImageError::from(BuildError::Timeout { limit: Duration::ZERO });
        assert_eq!(Failure::from(&late), Failure::Suspect);
    }

    #[test]
    fn what_nobody_wants_is_abandoned_and_what_stays_is_permanent() {
        for error in [ImageError::Deleted, BuildError::Cancelled.into()] {
            assert_eq!(Failure::from(&error).given(true), Failure::Abandoned, "{error}");
        }
        assert_eq!(Failure::from(&AcquireError::ShuttingDown), Failure::Abandoned);
        assert_eq!(Failure::from(&ImageError::from(PackageError::TooManyFolders)).given(true), Failure::Permanent);
    }
}
