//! The way from a container's start to the hello of its bootstrap.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::time;

use super::StartError;
use super::guard::Guard;
use crate::docker::{Container, Docker, DockerError, RunSpec};
use crate::sandbox::protocol::{Event, Nonce, ProtocolError};
use crate::sandbox::transport::{Rendezvous, Wire};

/// The longest time from a container's start to the hello of its bootstrap. Docker takes seconds under full load.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);

/// The longest time that the inspection of a container that did not start may take.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// Runs a container, and waits for the hello of its bootstrap. The bootstrap connects to `rendezvous`; without that, a
/// docker client stays attached. The guard gets the container.
pub(super) async fn launch(
    docker: &Docker,
    spec: &RunSpec<'_>,
    rendezvous: Option<Rendezvous>,
    mut guard: Guard,
) -> Result<(Wire, Guard), StartError> {
    let (container, pipes) = match &rendezvous {
        Some(rendezvous) => (Container::run_detached(docker, spec, &rendezvous.folder()), None),
        None => match Container::run(docker, spec) {
            Ok((container, stdin, stdout)) => (Ok(container), Some((stdin, stdout))),
            Err(error) => (Err(error), None),
        },
    };
    let container = container.map_err(StartError::Docker)?;
    guard.put(container);
    let greeted = async {
        let mut wire = match (rendezvous, pipes) {
            (Some(rendezvous), _) => tokio::select! {
                wire = rendezvous.accept(spec.uid) => wire?,
                () = guard.container().ended() => return Err(ProtocolError::Io(ErrorKind::UnexpectedEof.into())),
            },
            (None, Some((stdin, stdout))) => Wire::of_pipes(stdin, stdout),
            (None, None) => unreachable!("a container without a socket has pipes"),
        };
        match wire.reader.receive(Nonce::random()).await? {
            Event::Hello => Ok(wire),
            other => Err(ProtocolError::Unexpected(other)),
        }
    };
    let wire = match time::timeout(START_LIMIT, greeted).await {
        Ok(Ok(wire)) => wire,
        Ok(Err(ProtocolError::Io(_))) => match guard.container().stderr_tail().await {
            error if error.is_missing_image() => return Err(StartError::NoImage(spec.image.to_owned())),
            error => return Err(StartError::Docker(error)),
        },
        Ok(Err(ProtocolError::Version(_))) => return Err(StartError::NoImage(spec.image.to_owned())),
        Ok(Err(error)) => return Err(StartError::Protocol(error)),
        // When the container does not even run, the fault is Docker's, not the container's.
        Err(_) => match time::timeout(LOOK_LIMIT, guard.container().state()).await {
            Ok(Ok(Some(state))) if state.running => return Err(StartError::Timeout),
            _ => return Err(StartError::Docker(DockerError::Timeout { limit: START_LIMIT })),
        },
    };
    Ok((wire, guard))
}
