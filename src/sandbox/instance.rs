//! An instance: one container whose bootstrap can run a function. Each state of an instance is a type.
//!
//! ```text
//! Slot::start ──> Slot ──take──┐
//! Instance::start ──────────────┴──> Instance ──run, finish──> End and After::Clean(Instance)
//!        └─ error         └─ After::Ended  └─ After::Unclean ──ready──> Instance
//!                                                   └─ error
//! ```
//! Each error, each end and each drop removes the container. An instance holds the [`Permit`] that entitles to a
//! container, and the permit becomes free only when the container is gone.

mod code;
mod guard;
mod launch;
mod memory;
mod slot;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time;
use tokio_util::task::TaskTracker;

use crate::docker::{Docker, DockerError, RunSpec};
use crate::domain::{Preload, Preloaded};
use crate::egress::Traffic;
use crate::sandbox::doors::{self, Doorkeeper, DoorsError};
use crate::sandbox::output::Output;
use crate::sandbox::protocol::{self, Event, Exit, Nonce, ProtocolError, Request, Setup};
use crate::sandbox::transport::{Rendezvous, Wire};

use guard::Guard;
pub use guard::Permit;
use launch::launch;
pub use memory::Memory;
pub use slot::{Slot, TakeError};

/// The longest time from the setup to a bootstrap that is ready. A bootstrap gives up on imports before that.
const SETUP_LIMIT: Duration = Duration::from_secs(50);

/// The longest time that the cleanup after an invocation may take. A container that takes longer is removed.
const READY_LIMIT: Duration = Duration::from_secs(2);

/// The longest time that the rest of a container's output may take to arrive after the container's removal.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// A container that waits for a request.
#[must_use]
#[derive(Debug)]
pub struct Instance {
    wire: Wire,
    guard: Guard,
    preloaded: Preloaded,
    /// None where the function has no network.
    doors: Option<Doorkeeper>,
    invocations: u32,
    running: Option<Running>,
}

/// How an invocation ended.
#[derive(Debug)]
pub enum End {
    /// The function's process ended by itself or by a signal.
    Exited(Exit),
    /// The invocation exceeded this limit. Its container is removed.
    Timeout(Duration),
    /// The kernel's OOM killer ended the whole container. The container is removed.
    OutOfMemory,
    /// The container or Docker went away during the invocation.
    Lost,
}

/// Why there is no instance.
#[derive(Debug, Error)]
pub enum StartError {
    /// The version's image is gone, or its bootstrap speaks another version of the protocol.
    #[error("the image {0} is gone or was made for another version of this platform")]
    NoImage(String),
    /// Docker could not start the container, or the bootstrap in the container died.
    #[error(transparent)]
    Docker(DockerError),
    /// The socket for the bootstrap could not be made.
    #[error("failed to make a socket")]
    Socket(#[from] io::Error),
    /// The doors of the function's network can't be opened.
    #[error("the doors of the function's network can't be opened")]
    Doors(#[source] DoorsError),
    /// The container runs, but its bootstrap sent no hello in time.
    #[error("the container did not come up within {limit:?}", limit = launch::START_LIMIT)]
    Timeout,
    /// The program in the container does not speak the protocol.
    #[error("the container does not speak the protocol")]
    Protocol(#[source] ProtocolError),
    /// The bootstrap died while the bootstrap imported modules, or took too long. A start that preloads less may
    /// succeed.
    #[error("the imports before the first invocation failed")]
    Preload(#[source] ProtocolError),
}

impl Instance {
    /// Runs a container, and waits until its bootstrap has opened the doors and has taken the setup. The bootstrap
    /// connects to `rendezvous`; without that, a docker client stays attached, and there can be no doors.
    ///
    /// # Errors
    /// On an error the container is removed in the background; the permit becomes free after the removal.
    pub async fn start(
        docker: &Docker,
        spec: &RunSpec<'_>,
        (setup, plan): (&Setup, Option<&Arc<doors::Plan>>),
        rendezvous: Option<Rendezvous>,
        permit: Permit,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let (mut wire, mut guard) = launch(docker, spec, rendezvous, Guard::new(permit, tasks)).await?;
        let doors = match plan {
            Some(plan) => match doors::open(&mut wire, plan, tasks).await {
                Ok(doors) => Some(doors),
                Err(DoorsError::Gone) => return Err(StartError::Docker(guard.container().stderr_tail().await)),
                Err(error) => return Err(StartError::Doors(error)),
            },
            None => None,
        };
        let instance = Self::prepare(wire, guard, setup).await?;
        Ok(Self { doors, ..instance })
    }

    /// Hands the setup to a bootstrap that has its function's code, and waits until the bootstrap has taken the setup.
    async fn prepare(mut wire: Wire, mut guard: Guard, setup: &Setup) -> Result<Self, StartError> {
        let prepared = time::timeout(SETUP_LIMIT, set_up(&mut wire, setup)).await;
        match prepared.unwrap_or(Err(ProtocolError::Late(SETUP_LIMIT))) {
            Ok((preloaded, had_oom)) => {
                guard.had_oom = had_oom;
                Ok(Self { wire, guard, preloaded, doors: None, invocations: 0, running: None })
            }
            Err(ProtocolError::Io(_)) if setup.preload.preload == Preload::Off => {
                Err(StartError::Docker(guard.container().stderr_tail().await))
            }
            Err(error) if setup.preload.preload == Preload::Off => Err(StartError::Protocol(error)),
            Err(error) => Err(StartError::Preload(error)),
        }
    }

    /// What the instance has imported before its first invocation.
    pub fn preloaded(&self) -> &Preloaded {
        &self.preloaded
    }

    /// Whether the instance has the function's own environment from the setup, as an instance with preloaded modules
    /// has.
    pub fn has_environment(&self) -> bool {
        self.preloaded.asked != Preload::Off.to_string()
    }

    /// The variables by which a program finds the doors, beside the function's own variables.
    pub fn variables_of_doors(&self) -> Vec<(String, String)> {
        self.doors.as_ref().map(Doorkeeper::variables).unwrap_or_default()
    }

    /// The number of invocations that the instance has begun.
    pub fn invocations(&self) -> u32 {
        self.invocations
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        self.guard.name()
    }

    /// The container's memory. None where this process does not see the container's processes.
    pub fn memory(&self) -> Option<Memory> {
        self.wire.pid.map(Memory::of)
    }

    /// Whether the bootstrap still holds its end of the socket and the doors are open, or the docker client that is
    /// attached to the container still runs.
    pub fn is_alive(&mut self) -> bool {
        if self.doors.as_ref().is_some_and(|doors| !doors.is_open()) {
            return false;
        }
        self.wire.is_open().unwrap_or_else(|| self.guard.container().is_attached())
    }

    /// Runs the function once. The caller must call [`Instance::finish`] then. A call that is cancelled leaves the
    /// invocation running: [`Instance::settle`] waits for the end of such an invocation. Connections at the doors count
    /// in `traffic`.
    pub async fn run(&mut self, request: &Request<'_>, limit: Duration, output: &Output, traffic: &Traffic) -> Ran {
        self.invocations += 1;
        self.running = Some(Running { nonce: request.nonce, began: SystemTime::now(), is_sent: false });
        if let Some(doors) = &mut self.doors
            && doors.open(traffic).await.is_err()
        {
            return Ran::Broken(ProtocolError::DoorsClosed);
        }
        match time::timeout(limit, self.exchange(request, output)).await {
            Ok(Ok(exit)) => Ran::Exited(exit),
            Ok(Err(error)) => Ran::Broken(error),
            Err(_) => Ran::TimedOut(limit),
        }
    }

    async fn exchange(&mut self, request: &Request<'_>, output: &Output) -> Result<Exit, ProtocolError> {
        protocol::send(&mut self.wire.writer, request).await?;
        self.running.iter_mut().for_each(|running| running.is_sent = true);
        self.wire.exit(request.nonce, output).await
    }

    /// Ends an invocation, with all its connections. After [`End::Timeout`] and [`End::OutOfMemory`] the container is
    /// gone when this function returns. When the removal takes longer than `REMOVAL_LIMIT`, the invocation counts as
    /// lost.
    pub async fn finish(mut self, ran: Ran, output: &Output) -> (End, After) {
        let Some(Running { nonce, began, .. }) = self.running.take() else { return (End::Lost, After::Ended) };
        match ran {
            Ran::Exited(mut exit) => {
                let closed = match &mut self.doors {
                    Some(doors) => doors.close().await,
                    None => Ok(()),
                };
                if exit.oom.is_none() {
                    exit.oom = Some(self.guard.was_oom_killed(began).await);
                    if exit.oom == Some(true) {
                        // Docker keeps the OOM mark for the container's life, so a later OOM could not be told from
                        // this OOM.
                        drop(self.wire);
                        self.guard.remove().await;
                        return (End::Exited(exit), After::Ended);
                    }
                }
                if let Err(error) = closed {
                    tracing::warn!(container.name = self.guard.name(), %error, "an instance is ended");
                    return (End::Exited(exit), After::Ended);
                }
                self.guard.had_oom |= exit.oom == Some(true);
                let unclean = |instance| After::Unclean(Unclean { instance, nonce });
                (End::Exited(exit), if exit.clean { After::Clean(self) } else { unclean(self) })
            }
            Ran::Broken(error) => {
                drop(self.doors);
                // Docker does not end a container while the container's output has no reader: close the pipe first.
                drop(self.wire);
                let end = self.guard.explain(&error, began).await;
                (if self.guard.remove().await { end } else { End::Lost }, After::Ended)
            }
            Ran::TimedOut(limit) => {
                drop(self.doors);
                // Read the output that the bootstrap had not yet passed on and the output that was in the pipes.
                let (removal, drained) = (self.guard.remove(), drain(self.wire, nonce, output));
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

    /// Whether an invocation runs whose caller has left, so that the instance may be used again after a while.
    pub fn may_settle(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_sent)
    }

    /// Waits for the end of an invocation whose caller has left, for as long as `grace`. The container is removed in
    /// the background after that.
    pub async fn settle(mut self, grace: Duration) -> After {
        let Some(nonce) = self.running.as_ref().filter(|running| running.is_sent).map(|running| running.nonce) else {
            return After::Ended;
        };
        match time::timeout(grace, self.wire.exit(nonce, &Output::new(0))).await {
            Ok(Ok(exit)) => self.finish(Ran::Exited(exit), &Output::new(0)).await.1,
            Ok(Err(_)) | Err(_) => After::Ended,
        }
    }
}

/// An invocation under way.
#[derive(Clone, Copy, Debug)]
struct Running {
    nonce: Nonce,
    began: SystemTime,
    /// Whether the bootstrap has the whole request.
    is_sent: bool,
}

/// How the platform's part of an invocation ended.
#[derive(Debug)]
pub enum Ran {
    /// The bootstrap has told the end of the function's process.
    Exited(Exit),
    /// The bootstrap went away or broke the protocol.
    Broken(ProtocolError),
    /// The invocation exceeded this limit.
    TimedOut(Duration),
}

/// The state of the instance after an invocation.
#[must_use]
#[derive(Debug)]
pub enum After {
    /// The instance can take the next request.
    Clean(Instance),
    /// The bootstrap cleans the instance up.
    Unclean(Unclean),
    /// The container is removed, or its removal goes on in the background.
    Ended,
}

/// An instance that its bootstrap cleans up after an invocation.
#[must_use]
#[derive(Debug)]
pub struct Unclean {
    instance: Instance,
    nonce: Nonce,
}

impl Unclean {
    /// Waits until nothing of the invocation is left in the container.
    ///
    /// # Errors
    /// When the bootstrap does not report this within `READY_LIMIT`. The container's removal has then begun.
    pub async fn ready(mut self) -> Result<Instance, ProtocolError> {
        let event = time::timeout(READY_LIMIT, self.instance.wire.reader.receive(self.nonce));
        match event.await {
            Ok(Ok(Event::Ready)) => Ok(self.instance),
            Ok(Ok(other)) => Err(ProtocolError::Unexpected(other)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProtocolError::Late(READY_LIMIT)),
        }
    }
}

/// Sends the setup, and waits for the bootstrap. Returns what was preloaded, and whether memory ran out meanwhile.
async fn set_up(wire: &mut Wire, setup: &Setup) -> Result<(Preloaded, bool), ProtocolError> {
    protocol::set_up(&mut wire.writer, setup).await?;
    match wire.reader.receive(Nonce::random()).await? {
        Event::Prepared(reply) => setup.preload.read(&reply).ok_or(ProtocolError::Unexpected(Event::Prepared(reply))),
        other => Err(ProtocolError::Unexpected(other)),
    }
}

/// Keeps output up to the first other frame, and reads to the end: Docker does not end a container while the output of
/// the container's client has no reader.
async fn drain(mut wire: Wire, nonce: Nonce, output: &Output) {
    // Nothing but output comes before the end, as the bootstrap was killed.
    let _ = wire.exit(nonce, output).await;
    wire.reader.drain().await;
}
