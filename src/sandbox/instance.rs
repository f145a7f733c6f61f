//! An instance: one container with a bootstrap in it that can run a function. Its states are types.
//!
//! ```text
//! Instance::start ──> Instance ──invoke──> End and After::Clean(Instance)
//!        └─ error         └─ After::Ended  └─ After::Unclean ──ready──> Instance
//!                                                   └─ error
//! ```
//! Each error, each end and each drop removes the container. The [`Slot`] that entitles to a container lives inside and is given back only when the container is gone.

use std::fmt;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::io::BufReader;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time;
use tokio_util::task::TaskTracker;

use crate::docker::{Container, Docker, DockerError, RunSpec};
use crate::sandbox::output::{Output, Stream};
use crate::sandbox::protocol::{self, Event, Exit, Nonce, ProtocolError, Request};

/// How long a container may take until its bootstrap says hello. Docker under full load takes seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a look at a container that did not come up may take.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// How long cleaning up after an invocation may take. A container that takes longer is replaced.
const READY_LIMIT: Duration = Duration::from_secs(2);

/// After a container's removal: how long the rest of what it wrote may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How long an answer waits for a container's removal. With a Docker that does not answer it goes on in the background.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// The right to have one container. Says so when it is free again.
pub struct Slot(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Slot {
    /// Calls `freed` when dropped.
    pub fn new(freed: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(freed)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(freed) = self.0.take() {
            freed();
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// A container that waits for a request.
#[must_use]
#[derive(Debug)]
pub struct Instance {
    wire: Wire,
    guard: Guard,
    invocations: u32,
}

/// How an invocation ended.
#[derive(Debug)]
pub enum End {
    /// Its process ended by itself or by a signal.
    Exited(Exit),
    /// It took longer than this and was ended, with its container, which is gone.
    Timeout(Duration),
    /// The kernel's OOM killer ended the whole container.
    OutOfMemory,
    /// The container or Docker went away.
    Lost,
}

/// Why there is no instance.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its image is gone, or holds a bootstrap that speaks another version of the protocol.
    #[error("the image {0} is gone or was made for another version of this platform")]
    NoImage(String),
    /// Docker could not start the container, or what ran in it died.
    #[error(transparent)]
    Docker(DockerError),
    /// It did not come up in time.
    #[error("the container did not come up within {START_LIMIT:?}")]
    Timeout,
    /// What came up does not speak our protocol.
    #[error("the container does not speak the protocol")]
    Protocol(#[source] ProtocolError),
}

impl Instance {
    /// Runs a container and waits for its hello.
    pub async fn start(
        docker: &Docker,
        spec: &RunSpec<'_>,
        slot: Slot,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let (container, stdin, stdout) = Container::run(docker, spec).map_err(StartError::Docker)?;
        let mut guard = Guard { held: Some((container, slot)), had_oom: false, tasks: tasks.clone() };
        let mut wire = Wire { stdin, stdout: BufReader::new(stdout) };
        match time::timeout(START_LIMIT, protocol::receive(&mut wire.stdout, Nonce::random())).await {
            Ok(Ok(Event::Hello)) => Ok(Self { wire, guard, invocations: 0 }),
            Ok(Ok(other)) => Err(StartError::Protocol(ProtocolError::Unexpected(other))),
            Ok(Err(ProtocolError::Io(_))) => match guard.container().stderr_tail().await {
                error if error.is_missing_image() => Err(StartError::NoImage(spec.image.to_owned())),
                error => Err(StartError::Docker(error)),
            },
            Ok(Err(ProtocolError::Version(_))) => Err(StartError::NoImage(spec.image.to_owned())),
            Ok(Err(error)) => Err(StartError::Protocol(error)),
            // A container that does not even run is Docker's matter, not its own.
            Err(_) => match time::timeout(LOOK_LIMIT, guard.container().state()).await {
                Ok(Ok(Some(state))) if state.running => Err(StartError::Timeout),
                _ => Err(StartError::Docker(DockerError::Timeout { limit: START_LIMIT })),
            },
        }
    }

    /// How many invocations it has begun.
    pub fn invocations(&self) -> u32 {
        self.invocations
    }

    /// Its container's name.
    pub fn name(&self) -> &str {
        self.guard.held.as_ref().map_or("(removed)", |(container, _)| container.name())
    }

    /// Whether its container was still there a moment ago.
    pub fn is_alive(&mut self) -> bool {
        self.guard.container().is_attached()
    }

    /// Runs the function once. When it ended by timeout or out of memory, the container is gone as this returns; when that
    /// can't be had in time, it counts as lost.
    pub async fn invoke(mut self, request: &Request<'_>, limit: Duration, output: &Output) -> (End, After) {
        self.invocations += 1;
        let began = SystemTime::now();
        let ended = time::timeout(limit, self.wire.exchange(request, output)).await;
        match ended {
            Ok(Ok(mut exit)) => {
                if exit.oom.is_none() {
                    exit.oom = Some(self.guard.was_oom_killed(began).await);
                    if exit.oom == Some(true) {
                        // Docker says so of the container for good: little could be told of a later invocation.
                        drop(self.wire);
                        self.guard.remove().await;
                        return (End::Exited(exit), After::Ended);
                    }
                }
                self.guard.had_oom |= exit.oom == Some(true);
                let unclean = |instance| After::Unclean(Unclean { instance, nonce: request.nonce });
                (End::Exited(exit), if exit.clean { After::Clean(self) } else { unclean(self) })
            }
            Ok(Err(error)) => {
                // Docker does not end a container while what it writes has nowhere to go.
                drop(self.wire);
                let end = self.guard.explain(&error, began).await;
                (if self.guard.remove().await { end } else { End::Lost }, After::Ended)
            }
            Err(_) => {
                // What the bootstrap had not yet passed on, and what was on its way when it died.
                let (removal, drained) = (self.guard.remove(), self.wire.drain(request.nonce, output));
                tokio::pin!(removal, drained);
                let is_gone = tokio::select! {
                    is_gone = &mut removal => {
                        let _ = time::timeout(DRAIN_LIMIT, drained).await;
                        is_gone
                    }
                    () = &mut drained => removal.await,
                };
                (if is_gone { End::Timeout(limit) } else { End::Lost }, After::Ended)
            }
        }
    }
}

/// What an invocation leaves of its instance.
#[must_use]
#[derive(Debug)]
pub enum After {
    /// All of it: it can take the next request.
    Clean(Instance),
    /// It is being cleaned up.
    Unclean(Unclean),
    /// Nothing.
    Ended,
}

/// An instance that the bootstrap cleans up.
#[must_use]
#[derive(Debug)]
pub struct Unclean {
    instance: Instance,
    nonce: Nonce,
}

impl Unclean {
    /// Waits until nothing of the invocation is left. On error the container is on its way out.
    pub async fn ready(mut self) -> Result<Instance, ProtocolError> {
        let event = time::timeout(READY_LIMIT, protocol::receive(&mut self.instance.wire.stdout, self.nonce));
        match event.await {
            Ok(Ok(Event::Ready)) => Ok(self.instance),
            Ok(Ok(other)) => Err(ProtocolError::Unexpected(other)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProtocolError::Late(READY_LIMIT)),
        }
    }
}

/// Our ends of the container's pipes.
#[derive(Debug)]
struct Wire {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Keeps what is some of an output, within the cap, though the bootstrap sees to that: it is not ours to trust.
fn keep(output: &Output, event: Event) -> Result<(), Event> {
    match event {
        Event::Stdout(bytes) => output.keep(Stream::Stdout, &bytes),
        Event::Stderr(bytes) => output.keep(Stream::Stderr, &bytes),
        other => return Err(other),
    }
    Ok(())
}

impl Wire {
    async fn exchange(&mut self, request: &Request<'_>, output: &Output) -> Result<Exit, ProtocolError> {
        protocol::send(&mut self.stdin, request).await?;
        loop {
            let event = protocol::receive(&mut self.stdout, request.nonce).await?;
            match keep(output, event) {
                Ok(()) => {}
                Err(Event::Exit(exit)) => return Ok(exit),
                Err(other) => return Err(ProtocolError::Unexpected(other)),
            }
        }
    }

    /// Keeps what makes sense, and reads to the end: Docker does not end a container while what it writes has nowhere to go.
    async fn drain(mut self, nonce: Nonce, output: &Output) {
        while let Ok(event) = protocol::receive(&mut self.stdout, nonce).await {
            if keep(output, event).is_err() {
                break;
            }
        }
        let _ = tokio::io::copy_buf(&mut self.stdout, &mut tokio::io::sink()).await;
    }
}

/// Sees to it that the container is removed before its slot is free, whichever way it is let go.
#[derive(Debug)]
struct Guard {
    held: Option<(Container, Slot)>,
    /// An invocation that has ended had an OOM, which Docker goes on to say of the container.
    had_oom: bool,
    tasks: TaskTracker,
}

impl Guard {
    fn container(&mut self) -> &mut Container {
        &mut self.held.as_mut().expect("the container is held until it is removed").0
    }

    /// Removes the container now. Cancelled, or after its limit, it goes on in the background. False when that is so.
    async fn remove(&mut self) -> bool {
        let Some((container, slot)) = self.held.take() else { return true };
        let removal = self.tasks.spawn(async move {
            container.remove().await;
            drop(slot);
        });
        match time::timeout(REMOVAL_LIMIT, removal).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the removal of a container failed");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether an invocation that began then had an OOM, by what Docker knows: some versions note it while the container runs, the
    /// others when it has ended, and each tells of the event.
    async fn was_oom_killed(&mut self, began: SystemTime) -> bool {
        let had_oom = self.had_oom;
        let container = self.container();
        let (state, event) = tokio::join!(container.state(), container.had_oom_since(began));
        let is_noted = state.map(|state| state.is_some_and(|state| state.oom_killed) && !had_oom);
        [is_noted, event].into_iter().any(|oom| {
            oom.unwrap_or_else(|error| {
                tracing::warn!(%error, "failed to look at a container");
                false
            })
        })
    }

    /// Why the container stopped talking to us.
    async fn explain(&mut self, error: &ProtocolError, began: SystemTime) -> End {
        if self.was_oom_killed(began).await {
            return End::OutOfMemory;
        }
        tracing::warn!(container.name = self.container().name(), %error, "an instance was lost");
        End::Lost
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((container, slot)) = self.held.take() {
            self.tasks.spawn(async move {
                container.remove().await;
                drop(slot);
            });
        }
    }
}
